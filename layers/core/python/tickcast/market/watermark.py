"""How far a stream has come, and how far it is known to be complete, by the claims of its connections.

Ingest *claims* per connection and symbol: "connected, and caught up to exchange time t"
(`ConnectionProgress`). The claim rests on received data, never on the local clock. Downstream, where all
connections meet, bars close by the least claim of the live connections (`Watermark`): by the maximum, a
connection that lost its trades would close bars that another is still filling. Predictions wait for nobody:
they are made as of the newest claim.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tickcast.market.wire import QUIET_UNKNOWN, WATERMARK_WITHDRAWN

SymbolStream = tuple[str, str]  # symbol, and "trades" or "quotes"

# A claim is not repeated for longer than this after the newest data of its connection; and a claim this far
# behind the newest one belongs to a connection that ended without withdrawing it.
CLAIM_LIFE_US = 2_000_000
# How far the times of the streams of one connection, which keeps their order, may be apart.
STREAMS_APART_US = 100_000


class ConnectionProgress:
    """How far the streams of one connection have come; times in µs."""

    def __init__(self) -> None:
        self.reached_us: dict[SymbolStream, int] = {}  # exchange time
        self._newest_us = -1  # of all streams
        self.newest_received_us = -1  # local time

    def advance(self, stream: SymbolStream, time_us: int, received_us: int) -> None:
        """Data of `stream` up to the exchange time `time_us` arrived, the newest at `received_us`."""
        self._newest_us = max(self._newest_us, time_us)
        self.reached_us[stream] = max(self.reached_us.get(stream, -1), time_us)
        self.newest_received_us = max(self.newest_received_us, received_us)

    def claim_us(self, symbol: str, now_us: int) -> int | None:
        """The exchange time up to which all of `symbol` has arrived; None if nothing can be claimed.

        Streams of one connection arrive in order: data of any of them, less what their times may be apart,
        proves how far all have arrived. Without new data nothing is claimed, however the local clock
        advances.
        """
        if not self.reached_us or now_us - self.newest_received_us > CLAIM_LIFE_US:
            return None
        own_us = max(self.reached_us.get((symbol, "trades"), -1), self.reached_us.get((symbol, "quotes"), -1))
        return max(self._newest_us - STREAMS_APART_US, own_us)


@dataclass
class Watermark:
    """How far the data of one symbol has come, by exchange time, µs; neither instant moves back.

    `reached_us`: it is complete up to here, by all live connections. `newest_us`: one of them has come this
    far. A connection that ends takes nothing back, for what it had claimed did arrive; until another gets
    further, `newest_us` stays, and no prediction is made.
    """

    reached_us: int = -1
    newest_us: int = -1
    claims_us: dict[str, int] = field(default_factory=dict)  # the newest of each live connection
    quiet_us: int = QUIET_UNKNOWN  # when REST last had no tick newer than those received, by ingest's clock

    def update(self, connection: str, claim_us: int, quiet_us: int) -> None:
        """Take in a batch's claim (`wire.NO_WATERMARK`: none) and its evidence of a quiet market."""
        self.quiet_us = max(self.quiet_us, quiet_us)
        if claim_us == WATERMARK_WITHDRAWN:
            self.claims_us.pop(connection, None)
        elif claim_us >= 0:
            self.claims_us[connection] = max(claim_us, self.claims_us.get(connection, -1))
        if self.claims_us:
            newest_us = max(self.claims_us.values())
            self.newest_us = max(self.newest_us, newest_us)
            oldest_us = newest_us - CLAIM_LIFE_US
            self.claims_us = {name: us for name, us in self.claims_us.items() if us >= oldest_us}
            self.reached_us = max(self.reached_us, min(self.claims_us.values()))
