"""Where all faults (`local.exchange.fault_requests`) are injected.

    a handshake          -> check_handshake  refuse_key, refuse, perpetual_away
    an opened connection -> opened           max_age
    a frame to send      -> deliver          stall, freeze, cull_quotes, duplicate, corrupt, schema_version,
                                             reorder
    a perpetual's quote  -> deliver_perpetual  perpetual_away
    a REST request       -> before_rest      rest_status
    its aggregate trades -> row_faults       rest_rows
    its exchangeInfo     -> market_status    market_status
    its response         -> after_rest       rest_body
    the fault itself     -> begin, end       drop, server_shutdown, pause_market, perpetual_away

Several faults may be active; they apply to a frame in the order in which they began, reordering last. The
counts of what was published are not affected.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from aiohttp import WSCloseCode, web

from local.exchange.connection import Connection
from local.exchange.delays import Delays
from local.exchange.encoding import Encoding, Message, Usdm
from local.exchange.events import Quote, Trade
from local.exchange.fault_requests import (
    Corrupt,
    CullQuotes,
    Drop,
    Duplicate,
    Fault,
    MarketStatus,
    MaxAge,
    OnFrames,
    PauseMarket,
    PerpetualAway,
    Refuse,
    RefuseKey,
    Reorder,
    RestBody,
    RestRows,
    RestStatus,
    SchemaVersion,
    ServerShutdown,
    Stall,
)
from local.exchange.frame_faults import corrupted, newer
from local.exchange.log import log
from local.exchange.market import Market, Now
from local.exchange.rest import ApiError
from local.exchange.rest_faults import replaced

_KEPT_ENDED = 100
_KINDS: dict[str | None, type] = {"trade": Trade, "quote": Quote}
_REFUSALS = {
    401: (-2015, "Invalid API-key, IP, or permissions for action."),
    403: (0, "Forbidden by the web application firewall."),
    418: (-1003, "Way too many requests; IP banned."),
    429: (-1003, "Too many requests."),
    451: (0, "Service unavailable from a restricted location."),
}
_FAILURE = (-1000, "An unknown error occurred while processing the request.")


class _ActiveFault:
    """A fault, the connections it affects (None: all, future ones too), and its effects so far."""

    def __init__(self, id_: int, fault: Fault, targets: set[Connection] | None) -> None:
        self.id = id_
        self.fault = fault
        self.targets = targets
        self.hits = 0
        # Uses left by connection (None: of REST requests); None altogether: without a limit.
        self.left: dict[Connection | None, int] | None = None
        if (count := getattr(fault, "count", None)) is not None:
            self.left = {None: count} if targets is None else dict.fromkeys(targets, count)
        self.timer: asyncio.TimerHandle | None = None
        self.delays: Delays | None = None

    def affects(self, connection: Connection, message: Message) -> bool:
        fault = self.fault
        if self.targets is not None and connection not in self.targets:
            return False
        if self.left is not None and connection not in self.left:
            return False
        if getattr(fault, "symbol", None) not in (None, message.symbol):
            return False
        stream = "quote" if isinstance(fault, CullQuotes) else getattr(fault, "stream", None)
        return stream is None or _KINDS[stream] is message.kind

    def seconds_left(self) -> float | None:
        if self.timer is None:
            return None
        return max(self.timer.when() - asyncio.get_running_loop().time(), 0.0)

    def report(self) -> dict[str, Any]:
        fields = {"id": self.id, **self.fault.fields(), "hits": self.hits}
        seconds = self.seconds_left()
        return fields if seconds is None else {**fields, "seconds_left": round(seconds, 3)}


class FaultInjector:
    """The active faults of one exchange. `connections` are those open now, oldest first; `to_perpetuals`
    those to the streams of the perpetuals, which most faults leave alone."""

    def __init__(
        self,
        markets: Mapping[str, Market],
        connections: Collection[Connection],
        to_perpetuals: Collection[Connection],
        max_age_s: float,
        seed: int,
        now_us: Now,
    ) -> None:
        self._markets = markets
        self._connections = connections
        self._to_perpetuals = to_perpetuals
        self._max_age_s = max_age_s
        self._rng = random.Random(seed)
        self._now_us = now_us
        self._ids = itertools.count(1)
        self._active: list[_ActiveFault] = []
        self._ended: deque[dict[str, Any]] = deque(maxlen=_KEPT_ENDED)

    # ------------------------------------------------------------------------------------------ control

    def begin(self, fault: Fault) -> int:
        """Activate; the number of open connections affected. Raises ValueError when it cannot apply now."""
        symbol = getattr(fault, "symbol", None)
        if symbol is not None and symbol not in self._markets:
            raise ValueError(f"symbol: {symbol!r} is not one of {', '.join(self._markets)}")
        if isinstance(fault, Reorder) and any(self._of(Reorder)):
            raise ValueError("reorder is active already: end it first")
        if isinstance(fault, PauseMarket) and self._markets[fault.symbol].is_paused:
            raise ValueError(f"{fault.symbol} is paused already: end that first")
        active = _ActiveFault(next(self._ids), fault, self._targets(fault))
        self._active.append(active)
        seconds = fault.grace_s if isinstance(fault, ServerShutdown) else getattr(fault, "seconds", None)
        if seconds is not None:
            active.timer = asyncio.get_running_loop().call_later(seconds, self._expire, active)
        log("fault_begins", **active.report())
        affected = len(self._affected(active))
        self._start(active)
        return affected

    def end(self, kind: str | None = None) -> None:
        """End all faults, or those of one kind. Frames that a stall discarded stay lost."""
        for active in list(self._active):
            if kind is None or active.fault.kind == kind:
                self._finish(active)

    def report(self) -> dict[str, Any]:
        """The active faults, and the last ones that ended, oldest first."""
        return {"active": [active.report() for active in self._active], "ended": list(self._ended)}

    # -------------------------------------------------------------------------------------------- hooks

    def check_handshake(self, encoding: Encoding) -> None:
        """Raises `ApiError` when a new connection is to be refused."""
        kinds = (PerpetualAway,) if isinstance(encoding, Usdm) else (RefuseKey, Refuse)
        for active in self._of(*kinds):
            match active.fault:
                case PerpetualAway(how="refused"):
                    self._use(active)
                    raise _refusal(503, retry_after_s=active.seconds_left())
                case RefuseKey(status=status):
                    if status == 401 and not encoding.needs_key:
                        continue
                    self._use(active)
                    raise _refusal(status)
                case Refuse(status=status):
                    self._use(active)
                    raise _refusal(status, retry_after_s=active.seconds_left())

    def opened(self, connection: Connection) -> None:
        connection.end_at_age(self._age_limit_s())

    def closed(self, connection: Connection) -> None:
        """A connection has closed. A fault ends when all connections it affects have closed."""
        for active in list(self._active):
            if active.targets is not None and connection in active.targets:
                active.targets.discard(connection)
                if active.left is not None:
                    active.left.pop(connection, None)
                self._finish_if_done(active)

    def deliver(self, connection: Connection, message: Message) -> None:
        """Offer the message to the connection, with the active faults applied."""
        if not self._active:
            connection.offer(message.content)
            return
        contents = [message.content]
        delays: Delays | None = None
        for active in list(self._active):
            if not isinstance(active.fault, OnFrames) or not active.affects(connection, message):
                continue
            if active.delays is not None:
                delays = active.delays
                active.hits += 1
            else:
                contents = [new for old in contents for new in self._changed(active, connection, old)]

        def offer() -> None:
            for content in contents:
                connection.offer(content)

        if delays is None:
            offer()
        else:
            delays.hold((connection, message.stream), offer)

    def deliver_perpetual(self, connection: Connection, message: Message) -> None:
        """Offer a perpetual's quote to the connection, unless the perpetuals are silent."""
        silent = list(self._of(PerpetualAway))
        for active in silent:
            self._use(active)
        if not silent:
            connection.offer(message.content)

    async def before_rest(self, path: str) -> None:
        """Delay the response. Raises `ApiError` where it should be an error."""
        for active in self._of(RestStatus):
            fault = active.fault
            if not isinstance(fault, RestStatus) or fault.path not in (None, path):
                continue
            if active not in self._active:
                continue  # it ended while another fault delayed this request
            waiting_s = fault.retry_after_s or active.seconds_left() or 1
            self._use(active)
            await asyncio.sleep(fault.delay_s)
            if fault.status is not None:
                has_wait = fault.status in (418, 429) or fault.retry_after_s is not None
                raise _refusal(fault.status, retry_after_s=waiting_s if has_wait else None)

    def row_faults(self, symbol: str) -> list[RestRows]:
        """The faults for a response with aggregate trades of `symbol`."""
        found = []
        for active in self._of(RestRows):
            if isinstance(active.fault, RestRows) and active.fault.symbol in (None, symbol):
                self._use(active)
                found.append(active.fault)
        return found

    def market_status(self, symbol: str) -> str:
        """The status of a market in exchangeInfo."""
        for active in self._of(MarketStatus):
            if isinstance(active.fault, MarketStatus) and active.fault.symbol in (None, symbol):
                self._use(active)
                return active.fault.status
        return "TRADING"

    def after_rest(self, path: str, response: web.StreamResponse) -> web.StreamResponse:
        """The response, or the one to send instead."""
        for active in self._of(RestBody):
            if isinstance(active.fault, RestBody) and active.fault.path in (None, path):
                self._use(active)
                return replaced(active.fault.how, response)
        return response

    # ---------------------------------------------------------------------------------------- injection

    def _of(self, *kinds: type) -> Iterator[_ActiveFault]:
        return (active for active in list(self._active) if isinstance(active.fault, kinds))

    def _targets(self, fault: Fault) -> set[Connection] | None:
        """The connections affected; None for all, future ones too."""
        open_now = list(self._connections)
        match getattr(fault, "connections", None):
            case "oldest":
                return set(open_now[:1])
            case "newest":
                return set(open_now[-1:])
            case "all" if isinstance(fault, Drop | ServerShutdown | Stall) or getattr(fault, "count", None):
                return set(open_now)
        return None

    def _affected(self, active: _ActiveFault) -> Collection[Connection]:
        if isinstance(active.fault, PerpetualAway):
            return self._to_perpetuals
        return self._connections if active.targets is None else active.targets

    def _start(self, active: _ActiveFault) -> None:
        """Inject a fault that takes effect at once."""
        targets = list(active.targets or ())
        match active.fault:
            case Drop():
                active.hits = len(targets)
                for connection in targets:
                    connection.abort()
                self._finish(active)
            case ServerShutdown():
                active.hits = len(targets)
                for connection in targets:
                    connection.offer(json.dumps({"e": "serverShutdown", "E": self._now_us() // 1_000}))
            case MaxAge():
                self._set_ages()
            case PerpetualAway(how="refused"):
                for connection in list(self._to_perpetuals):
                    active.hits += 1
                    connection.abort()
            case PauseMarket(symbol=symbol):
                active.hits = 1
                self._markets[symbol].pause(self._now_us())
            case Reorder(within_ms=within_ms):
                active.delays = Delays(within_ms / 1e3, self._rng)
        self._finish_if_done(active)

    def _changed(
        self, active: _ActiveFault, connection: Connection, content: bytes | str
    ) -> list[bytes | str]:
        """The frames to send instead of an affected one."""
        fault = active.fault
        if active.left is not None and connection not in active.left:
            return [content]  # its last use was another copy of the same frame
        if isinstance(fault, CullQuotes | Duplicate) and self._rng.random() >= fault.share:
            return [content]
        self._use(active, connection)
        match fault:
            case Duplicate():
                return [content, content]
            case Corrupt(how=how):
                return [corrupted(content, how)]
            case SchemaVersion(version=version, block_bytes=block_bytes, entry_bytes=entry_bytes):
                return [newer(content, version, block_bytes, entry_bytes)]
        return []

    def _use(self, active: _ActiveFault, connection: Connection | None = None) -> None:
        """Count an affected frame or request; the last one of its count ends the fault."""
        active.hits += 1
        if active.left is not None:
            active.left[connection] -= 1
            if not active.left[connection]:
                del active.left[connection]
                self._finish_if_done(active)

    def _finish_if_done(self, active: _ActiveFault) -> None:
        if active in self._active and (active.targets == set() or active.left == {}):
            self._finish(active)

    def _expire(self, active: _ActiveFault) -> None:
        if isinstance(active.fault, ServerShutdown):
            for connection in active.targets or ():
                connection.close_soon(WSCloseCode.GOING_AWAY, "The server shuts down")
        self._finish(active)

    def _finish(self, active: _ActiveFault) -> None:
        if active.timer is not None:
            active.timer.cancel()
            active.timer = None
        self._active.remove(active)
        self._ended.append(active.report())
        if active.delays is not None:
            active.delays.flush()
        if isinstance(active.fault, MaxAge):
            self._set_ages()
        if isinstance(active.fault, PauseMarket):
            self._markets[active.fault.symbol].resume(self._now_us())
        log("fault_ends", **active.report())

    def _age_limit_s(self) -> float:
        faults = (active.fault for active in self._active)
        return min([self._max_age_s, *(fault.age_s for fault in faults if isinstance(fault, MaxAge))])

    def _set_ages(self) -> None:
        for connection in self._connections:
            connection.end_at_age(self._age_limit_s())


def _refusal(status: int, retry_after_s: float | None = None) -> ApiError:
    code, message = _REFUSALS.get(status, _FAILURE)
    return ApiError(code, message, status=status, retry_after_s=retry_after_s)
