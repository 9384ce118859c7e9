"""The stream session without its sockets: when to connect, when to replace a connection, when to give up.

`Session` is notified of events on the connections and returns actions. It does no I/O and reads no
clock: the socket loop in `ingest_ecs` passes times in (seconds of a monotonic clock) and acts.

A connection has two states, `Feed` and `Tenure`; `transition` is their table. A feed is alive while data
arrive: one of its streams is known to be busy, so if all are silent for `STALLED_AFTER_S` the connection is
at fault. Pings prove the socket, not the feed. A single stream is dead only by evidence (`market.liveness`):
its symbol's claim is withdrawn until it delivers again; the other symbols are not affected.

A connection that must be replaced (it is near the exchange's 24 h, the exchange announced a shutdown, it
stalled, one of its streams is dead, or other streams are wanted) is *retired*: a second one is opened, and
the first is closed only when the second delivers what the first does and is still wanted. Meanwhile both
deliver; downstream recognises repeats by their ids.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from tickcast.market.liveness import Newest, ProbeSchedule, Stall, StreamProgress
from tickcast.market.reconnect import AttemptLimiter, fatal_error
from tickcast.market.watermark import SymbolStream

ROLLOVER_S = 22.5 * 3600  # every connection ends at 24 h
HEALTHY_AFTER_S = 5.0  # the end of a connection that delivered this long does not lengthen the backoff
STALLED_AFTER_S = 5.0  # without data: a busy stream never pauses that long
OVERLAP_S = 2.0  # data under way on the old connection has to arrive
HANDOVER_S = 30.0  # the time a successor has to deliver what its predecessor delivered
# If a new connection does not revive a dead stream: the pause before another is opened for it.
REOPEN_FIRST_S = 30.0
REOPEN_CAP_S = 3600.0


# -------------------------------------------------------------------------------- states and transitions


class Feed(Enum):
    """Whether a connection delivers data."""

    CONNECTING = "the handshake is under way"
    IDLE = "established, no data yet"
    LIVE = "data arrive"
    STALLED = "no data for STALLED_AFTER_S"


class Tenure(Enum):
    """Whether a connection is kept."""

    KEPT = "it is kept"
    SUSPENDED = "to be replaced, unless its fault passes before a successor is under way"
    RETIRED = "to be replaced in any case"


class Event(Enum):
    ESTABLISHED = "the handshake succeeded"
    DATA = "data of any kind arrived"
    SILENCE = "no data for STALLED_AFTER_S"
    FAULT = "it stalled, or one of its streams is dead"
    RECOVERY = "the silent or dead streams deliver again"
    EXPIRY = "it is near the limit of 24 h, a shutdown was announced, or other streams are wanted"


class State(NamedTuple):
    feed: Feed = Feed.CONNECTING
    tenure: Tenure = Tenure.KEPT


_FEED = {
    (Feed.CONNECTING, Event.ESTABLISHED): Feed.IDLE,
    (Feed.IDLE, Event.DATA): Feed.LIVE,
    (Feed.IDLE, Event.SILENCE): Feed.STALLED,
    (Feed.LIVE, Event.SILENCE): Feed.STALLED,
    (Feed.STALLED, Event.DATA): Feed.LIVE,
}
_TENURE = {
    (Tenure.KEPT, Event.FAULT): Tenure.SUSPENDED,
    (Tenure.KEPT, Event.EXPIRY): Tenure.RETIRED,
    (Tenure.SUSPENDED, Event.RECOVERY): Tenure.KEPT,
    (Tenure.SUSPENDED, Event.EXPIRY): Tenure.RETIRED,
}


def transition(state: State, event: Event) -> State:
    """The state after `event`; what the tables do not list stays the same. A closed connection has no
    state."""
    return State(_FEED.get((state.feed, event), state.feed), _TENURE.get((state.tenure, event), state.tenure))


# ----------------------------------------------------------------------------------------------- actions


class Open(NamedTuple):
    connection: int
    reason: str


class Close(NamedTuple):
    connection: int
    reason: str


Action = Open | Close


# ------------------------------------------------------------------------------------------- the session


@dataclass
class _Connection:
    wanted: frozenset[SymbolStream]  # what it was opened for
    state: State = State()
    opened_s: float = float("inf")
    first_s: float | None = None  # of its data
    last_s: float = 0.0
    retired_reason: str = ""
    streams: dict[SymbolStream, StreamProgress] = field(default_factory=dict)

    def handle(self, event: Event) -> None:
        self.state = transition(self.state, event)

    @property
    def is_open(self) -> bool:
        return self.state.feed is not Feed.CONNECTING

    @property
    def is_live(self) -> bool:
        return self.state.feed is Feed.LIVE

    @property
    def is_kept(self) -> bool:
        return self.state.tenure is Tenure.KEPT

    @property
    def is_proven(self) -> bool:
        return self.first_s is not None and self.last_s - self.first_s > HEALTHY_AFTER_S


@dataclass
class _Reopening:
    """A connection was opened for a dead stream at `since_s`; the next may be after `wait_s`."""

    since_s: float
    wait_s: float


class Session:
    """`streams` are (symbol, kind) with kind "trades" or "quotes"; `rng` jitters the backoff.

    `has_busy_stream`: connections also carry a stream that never pauses, none of `streams`. Without it, a
    silent connection is excused while REST reports no new data.
    """

    def __init__(
        self,
        streams: Collection[SymbolStream],
        rng: random.Random,
        rollover_s: float = ROLLOVER_S,
        *,
        has_busy_stream: bool = False,
    ) -> None:
        self._streams = frozenset(streams)
        self._symbols = {symbol for symbol, _ in streams}
        self._rollover_s = rollover_s
        self._has_busy_stream = has_busy_stream
        self._attempts = AttemptLimiter(rng)
        self._probes = ProbeSchedule(streams, rng)
        self._connections: dict[int, _Connection] = {}
        self._opened = 0
        self._now_s = float("-inf")  # the newest time passed in
        # What is known of streams on all connections.
        self._dead: set[SymbolStream] = set()
        self._reopenings: dict[SymbolStream, _Reopening] = {}
        self._stalls: list[Stall] = []
        self._quiet_s: dict[str, float] = {}
        self.has_delivered = False  # any connection, ever
        self.reason = "not connected yet"

    def follow(self, streams: Collection[SymbolStream], *, has_busy_stream: bool) -> None:
        """Follow `streams` from now on. Connections opened for others are retired: those that `actions` opens
        from now on are for these."""
        self._streams = frozenset(streams)
        self._symbols = {symbol for symbol, _ in streams}
        self._has_busy_stream = has_busy_stream
        self._probes.follow(streams)
        self._dead &= self._streams
        self._reopenings = {key: each for key, each in self._reopenings.items() if key in self._streams}
        self._quiet_s = {symbol: at_s for symbol, at_s in self._quiet_s.items() if symbol in self._symbols}

    # ----------------------------------------------------------------------------------------- queries

    @property
    def is_live(self) -> bool:
        """Whether any connection delivers data."""
        return any(connection.is_live for connection in self._connections.values())

    def withdrawn(self, number: int) -> set[str]:
        """The symbols of which connection `number` may claim nothing: it is known not to deliver their
        trades.

        Missing quotes withdraw no claim: the bars see that trades are newer than the quotes, and the model
        continues without them.
        """
        connection = self._connections.get(number)
        streams = connection.streams.items() if connection else ()
        return {symbol for (symbol, kind), stream in streams if kind == "trades" and stream.is_dead}

    def quiet_s(self, symbol: str) -> float | None:
        """When REST was last asked about `symbol` and had nothing newer than what was received; None:
        never."""
        return self._quiet_s.get(symbol)

    def take_stalls(self) -> list[Stall]:
        """The stalls of wanted streams found since the last call: trades or quotes may be missing."""
        stalls, self._stalls = self._stalls, []
        return [stall for stall in stalls if stall.symbol in self._symbols]

    # ------------------------------------------------------------------------------------------ events

    def opened(self, number: int, now_s: float) -> None:
        self._now_s = now_s
        connection = self._connections[number]
        connection.handle(Event.ESTABLISHED)
        connection.opened_s = connection.last_s = now_s
        # A stream that is dead on other connections counts as dead here until it delivers.
        connection.streams = {
            stream: StreamProgress(now_s, is_dead=stream in self._dead) for stream in connection.wanted
        }

    def frame(self, number: int, now_s: float) -> None:
        """Data of any kind arrived on connection `number`."""
        self._now_s = now_s
        connection = self._connections.get(number)
        if connection is None:
            return
        if connection.first_s is None:
            connection.first_s = now_s
        connection.last_s, self.has_delivered = now_s, True
        was_stalled = connection.state.feed is Feed.STALLED
        connection.handle(Event.DATA)
        if was_stalled:
            self._recover(number, connection)

    def data(self, number: int, symbol: str, kind: str, now_s: float) -> None:
        """Ticks of a stream arrived on connection `number`."""
        self.frame(number, now_s)
        connection, key = self._connections.get(number), (symbol, kind)
        stream = connection.streams.get(key) if connection else None
        if connection is None or stream is None:
            return
        if stream.first_s is None:
            stream.first_s = now_s
        else:
            self._probes.add_pause(key, now_s - stream.last_s)
        stream.last_s = now_s
        self._revive(number, connection, key)
        reopening = self._reopenings.get(key)
        if reopening and stream.first_s > reopening.since_s and now_s - stream.first_s > reopening.wait_s:
            del self._reopenings[key]  # a new connection revived it for good

    def shutdown_announced(self, number: int) -> None:
        """The exchange will end connection `number` soon."""
        if connection := self._connections.get(number):
            self._retire(connection, Event.EXPIRY, "the exchange announced a shutdown", self._now_s)

    def closed(
        self, number: int, reason: str, status: int | None, now_s: float, retry_after_s: float = 0.0
    ) -> None:
        """Connection `number` ended, or was never established (`status`: the HTTP status of the handshake).

        `retry_after_s` is how long the exchange asked to wait: ignoring it leads to a ban.

        Raises `FatalSessionError` if the refusal was permanent and no other connection delivers.
        """
        connection = self._connections.pop(number, None)
        if connection is None:
            return
        if (fatal := fatal_error(status)) and not self.is_live:
            raise fatal
        if not connection.is_kept and self.is_live:
            return
        self._attempts.connection_ended(now_s, retry_after_s, is_proven=connection.is_proven)
        self.reason = connection.retired_reason or reason

    # --------------------------------------------------------------------------------- evidence by REST

    def due_probes(self, now_s: float) -> list[str]:
        """The symbols whose newest trade and best quote to ask of the exchange's REST now.

        Report each answer by `probed`, or a failure by `probe_failed`.
        """
        is_open = [each.streams for each in self._connections.values() if each.is_open]
        return self._probes.due(now_s, list(is_open))

    def probed(
        self,
        symbol: str,
        exchange: Newest,
        received: Newest,
        by_connection: Mapping[int, Newest],
        asked_s: float,
    ) -> bool:
        """What the exchange had of `symbol` when it was asked at `asked_s`, what was `received` on all
        connections together, and on each open one.

        Returns whether the market is quiet: the exchange had nothing newer than what was received.
        """
        self._probes.answered()
        for number, delivered in by_connection.items():
            connection = self._connections.get(number)
            for kind in ("trades", "quotes") if connection else ():
                stream = connection.streams.get((symbol, kind)) if connection else None
                if connection and stream and stream.probed(kind, exchange, delivered, asked_s):
                    self._revive(number, connection, (symbol, kind))
        if received.book is None or exchange.book != received.book:
            return False
        if symbol not in self._symbols or not self._has_all_trades(symbol, exchange, received):
            return False
        self._quiet_s[symbol] = asked_s
        return True

    def probe_failed(self, now_s: float, retry_after_s: float = 0.0) -> None:
        """REST did not answer: nothing is known, and the next request waits."""
        self._probes.failed(now_s, retry_after_s)

    def _has_all_trades(self, symbol: str, exchange: Newest, received: Newest) -> bool:
        """Whether all trades that the exchange has are known to be received, or older than the
        connections."""
        if exchange.trade_id is None:  # none for a day
            return True
        streams = (each.streams.get((symbol, "trades")) for each in self._connections.values())
        known = [received.trade_id, *(stream.baseline.trade_id for stream in streams if stream)]
        return any(trade_id is not None and exchange.trade_id <= trade_id for trade_id in known)

    # ----------------------------------------------------------------------------------------- actions

    def actions(self, now_s: float) -> list[Action]:
        """What to do now. Call it after each event, and several times a second."""
        self._now_s = now_s
        for connection in self._connections.values():
            if connection.is_open:
                self._note_silence(connection, now_s)
                self._note_dead_streams(connection, now_s)
                if connection.is_kept:
                    self._retire_if_due(connection, now_s)
        return [*self._close_replaced(now_s), *self._open_if_needed(now_s)]

    def _note_silence(self, connection: _Connection, now_s: float) -> None:
        silence_s = now_s - connection.last_s
        if connection.state.feed is Feed.STALLED or silence_s <= STALLED_AFTER_S:
            return
        if self._is_all_quiet(connection, now_s):
            return
        connection.handle(Event.SILENCE)
        if connection.first_s is not None:
            self._stalls += [Stall(*key, silence_s) for key in connection.streams]

    def _note_dead_streams(self, connection: _Connection, now_s: float) -> None:
        for key, stream in connection.streams.items():
            if stream.died(now_s) and key in self._streams:
                self._dead.add(key)
                self._stalls.append(Stall(*key, now_s - stream.last_s))

    def _is_all_quiet(self, connection: _Connection, now_s: float) -> bool:
        """Whether REST shows that there was nothing to deliver on `connection` since its last data. With a
        busy stream this excuses no silence."""
        since_s = max(connection.last_s, now_s - STALLED_AFTER_S)
        is_quiet = (self._quiet_s.get(symbol, float("-inf")) > since_s for symbol in self._symbols)
        return not self._has_busy_stream and all(is_quiet)

    def _retire_if_due(self, connection: _Connection, now_s: float) -> None:
        dead = [key for key, stream in connection.streams.items() if stream.is_dead]
        if connection.wanted != self._streams:
            self._retire(connection, Event.EXPIRY, "other symbols are served now", now_s)
        elif now_s - connection.opened_s > self._rollover_s:
            self._retire(connection, Event.EXPIRY, "it is near the exchange's limit of 24 h", now_s)
        elif connection.state.feed is Feed.STALLED:
            self._retire(connection, Event.FAULT, f"no data for {now_s - connection.last_s:.0f} s", now_s)
        elif any(self._is_reopening_due(key, now_s) for key in dead):
            for key in dead:
                before = self._reopenings.get(key)
                wait_s = min(2 * before.wait_s, REOPEN_CAP_S) if before else REOPEN_FIRST_S
                self._reopenings[key] = _Reopening(now_s, wait_s)
            (symbol, kind), silence_s = dead[0], now_s - connection.streams[dead[0]].last_s
            reason = f"no {kind} of {symbol} for {silence_s:.0f} s, though the exchange has newer ones"
            self._retire(connection, Event.FAULT, reason, now_s)

    def _is_reopening_due(self, key: SymbolStream, now_s: float) -> bool:
        before = self._reopenings.get(key)
        return before is None or now_s >= before.since_s + before.wait_s

    def _retire(self, connection: _Connection, event: Event, reason: str, now_s: float) -> None:
        before = connection.state.tenure
        connection.handle(event)
        if connection.state.tenure is before:
            return
        connection.retired_reason = reason
        if before is Tenure.KEPT:
            self.reason = reason
            is_proven, is_live = connection.is_proven, connection.is_live
            self._attempts.connection_retired(now_s, is_proven=is_proven, is_live=is_live)

    def _revive(self, number: int, connection: _Connection, key: SymbolStream) -> None:
        """The stream is not dead, or no longer dead."""
        if connection.streams[key].revived():
            self._dead.discard(key)
            self._recover(number, connection)

    def _recover(self, number: int, connection: _Connection) -> None:
        """The fault of `connection` is over. It is kept unless its successor is under way already."""
        if number == max(self._connections):
            connection.handle(Event.RECOVERY)
            if connection.is_kept:
                connection.retired_reason = ""

    def _close_replaced(self, now_s: float) -> list[Action]:
        """Close retired connections whose successor delivers what they do."""
        is_open = [(number, each) for number, each in self._connections.items() if each.is_open]
        return [
            Close(number, connection.retired_reason)
            for at, (number, connection) in enumerate(is_open)
            if not connection.is_kept
            and any(self._replaces(successor, connection, now_s) for _, successor in is_open[at + 1 :])
        ]

    def _replaces(self, successor: _Connection, connection: _Connection, now_s: float) -> bool:
        age_s = now_s - successor.opened_s
        if not successor.is_live:
            # Neither is live: keep the newest, so that connections to a dead exchange do not accumulate.
            return not connection.is_live and age_s > STALLED_AFTER_S
        if not connection.is_live:
            return True
        wanted = {key: stream for key, stream in connection.streams.items() if key in self._streams}
        if not wanted.keys() <= successor.streams.keys():
            return False  # it was opened before a symbol was added that the older one has as well
        lacking = [
            stream
            for key, stream in wanted.items()
            if not stream.is_dead
            and (successor.streams[key].first_s is None or successor.streams[key].is_dead)
        ]
        since_s = successor.opened_s + OVERLAP_S
        if any(stream.last_s > since_s for stream in lacking):
            return False  # it delivers streams that the successor does not
        was_flowing = any(
            stream.first_s is not None and stream.last_s > since_s - HANDOVER_S for stream in lacking
        )
        return age_s > (HANDOVER_S if was_flowing else OVERLAP_S)

    def _open_if_needed(self, now_s: float) -> list[Action]:
        """Open a connection if none is kept or under way."""
        if any(each.is_kept for each in self._connections.values()) or not self._attempts.attempt(now_s):
            return []
        self._opened += 1
        self._connections[self._opened] = _Connection(self._streams)
        return [Open(self._opened, self.reason)]
