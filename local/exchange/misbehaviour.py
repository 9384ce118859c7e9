"""Where the exchange does wrong what it was ordered to (`local.exchange.orders`), and nothing else does.

    a handshake          -> check_handshake  refuse_key, refuse
    an opened connection -> opened           max_age
    a frame to send      -> pass_on          stall, freeze, cull_quotes, duplicate, corrupt, schema_version,
                                             reorder
    a REST request       -> before_rest      rest_status
    the order itself     -> begin, end       drop, server_shutdown, pause_market

Several orders may be in force; a frame passes them in the order in which they were given, reordering last.
What is published, and counted as such, stays out of their reach.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from aiohttp import WSCloseCode

from local.exchange.connection import Connection
from local.exchange.damage import newer, spoiled
from local.exchange.delays import Delays
from local.exchange.encoding import Encoding, Message
from local.exchange.events import Quote, Trade
from local.exchange.log import log
from local.exchange.market import Market, Now
from local.exchange.orders import (
    Corrupt,
    CullQuotes,
    Drop,
    Duplicate,
    MaxAge,
    OnFrames,
    Order,
    PauseMarket,
    Refuse,
    RefuseKey,
    Reorder,
    RestStatus,
    SchemaVersion,
    ServerShutdown,
    Stall,
)
from local.exchange.rest import ApiError

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


class _Active:
    """An order in force: for which connections (None: all, also those to come), and what it did so far."""

    def __init__(self, id_: int, order: Order, targets: set[Connection] | None) -> None:
        self.id = id_
        self.order = order
        self.targets = targets
        self.hits = 0
        # How often still, for each connection (None: for REST requests); None altogether: without end.
        self.left: dict[Connection | None, int] | None = None
        if (count := getattr(order, "count", None)) is not None:
            self.left = {None: count} if targets is None else dict.fromkeys(targets, count)
        self.timer: asyncio.TimerHandle | None = None
        self.delays: Delays | None = None

    def concerns(self, connection: Connection, message: Message) -> bool:
        order = self.order
        if self.targets is not None and connection not in self.targets:
            return False
        if self.left is not None and connection not in self.left:
            return False
        if getattr(order, "symbol", None) not in (None, message.symbol):
            return False
        stream = "quote" if isinstance(order, CullQuotes) else getattr(order, "stream", None)
        return stream is None or _KINDS[stream] is message.kind

    def seconds_left(self) -> float | None:
        if self.timer is None:
            return None
        return max(self.timer.when() - asyncio.get_running_loop().time(), 0.0)

    def report(self) -> dict[str, Any]:
        fields = {"id": self.id, **self.order.model_dump(exclude_none=True), "hits": self.hits}
        seconds = self.seconds_left()
        return fields if seconds is None else {**fields, "seconds_left": round(seconds, 3)}


class Misbehaviours:
    """The orders in force on one exchange. `connections` are those open now, oldest first."""

    def __init__(
        self,
        markets: Mapping[str, Market],
        connections: Collection[Connection],
        max_age_s: float,
        seed: int,
        now_us: Now,
    ) -> None:
        self._markets = markets
        self._connections = connections
        self._max_age_s = max_age_s
        self._rng = random.Random(seed)
        self._now_us = now_us
        self._ids = itertools.count(1)
        self._active: list[_Active] = []
        self._ended: deque[dict[str, Any]] = deque(maxlen=_KEPT_ENDED)

    # ------------------------------------------------------------------------------------------ control

    def begin(self, order: Order) -> int:
        """Obey; how many of the open connections are meant. Raises ValueError when it makes no sense now."""
        symbol = getattr(order, "symbol", None)
        if symbol is not None and symbol not in self._markets:
            raise ValueError(f"symbol: {symbol!r} is none of {', '.join(self._markets)}")
        if isinstance(order, Reorder) and any(self._of(Reorder)):
            raise ValueError("the streams are being reordered already: end that first")
        if isinstance(order, PauseMarket) and self._markets[order.symbol].is_paused:
            raise ValueError(f"{order.symbol} is paused already: end that first")
        active = _Active(next(self._ids), order, self._targets(order))
        self._active.append(active)
        seconds = order.grace_s if isinstance(order, ServerShutdown) else getattr(order, "seconds", None)
        if seconds is not None:
            active.timer = asyncio.get_running_loop().call_later(seconds, self._expire, active)
        log("misbehaviour_begins", **active.report())
        meant = len(self._connections if active.targets is None else active.targets)
        self._start(active)
        return meant

    def end(self, kind: str | None = None) -> None:
        """End all orders, or those of one kind. What a stall kept back stays lost."""
        for active in list(self._active):
            if kind is None or active.order.kind == kind:
                self._finish(active)

    def report(self) -> dict[str, Any]:
        """The orders in force, and the last ones that ended, oldest first."""
        return {"active": [active.report() for active in self._active], "ended": list(self._ended)}

    # -------------------------------------------------------------------------------------------- hooks

    def check_handshake(self, encoding: Encoding) -> None:
        """Raises `ApiError` when a new connection is to be refused."""
        for active in self._of(RefuseKey, Refuse):
            match active.order:
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
        """A connection has gone. What was for connections that have all gone has ended."""
        for active in list(self._active):
            if active.targets is not None and connection in active.targets:
                active.targets.discard(connection)
                if active.left is not None:
                    active.left.pop(connection, None)
                self._finish_if_done(active)

    def pass_on(self, connection: Connection, message: Message) -> None:
        """Offer the message to the connection: as it is, or as the orders in force make it."""
        if not self._active:
            connection.offer(message.content)
            return
        contents = [message.content]
        delays: Delays | None = None
        for active in list(self._active):
            if not isinstance(active.order, OnFrames) or not active.concerns(connection, message):
                continue
            if active.delays is not None:
                delays = active.delays
                active.hits += 1
            else:
                contents = [new for old in contents for new in self._changed(active, connection, old)]

        def deliver() -> None:
            for content in contents:
                connection.offer(content)

        if delays is None:
            deliver()
        else:
            delays.hold((connection, message.stream), deliver)

    async def before_rest(self, path: str) -> None:
        """Wait as long as the answer is to be delayed. Raises `ApiError` when it is to be an error."""
        for active in self._of(RestStatus):
            order = active.order
            if not isinstance(order, RestStatus) or order.path not in (None, path):
                continue
            if active not in self._active:
                continue  # it ended while another one delayed this request
            waiting_s = order.retry_after_s or active.seconds_left() or 1
            self._use(active)
            await asyncio.sleep(order.delay_s)
            if order.status is not None:
                asks_to_wait = order.status in (418, 429) or order.retry_after_s is not None
                raise _refusal(order.status, retry_after_s=waiting_s if asks_to_wait else None)

    # ---------------------------------------------------------------------------------------- obedience

    def _of(self, *kinds: type) -> Iterator[_Active]:
        return (active for active in list(self._active) if isinstance(active.order, kinds))

    def _targets(self, order: Order) -> set[Connection] | None:
        """The connections that are meant; None for all, also those to come."""
        open_now = list(self._connections)
        match getattr(order, "connections", None):
            case "oldest":
                return set(open_now[:1])
            case "newest":
                return set(open_now[-1:])
            case "all" if isinstance(order, Drop | ServerShutdown | Stall) or getattr(order, "count", None):
                return set(open_now)
        return None

    def _start(self, active: _Active) -> None:
        """Do what is due as soon as the order is given."""
        targets = list(active.targets or ())
        match active.order:
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
            case PauseMarket(symbol=symbol):
                active.hits = 1
                self._markets[symbol].pause(self._now_us())
            case Reorder(within_ms=within_ms):
                active.delays = Delays(within_ms / 1e3, self._rng)
        self._finish_if_done(active)

    def _changed(self, active: _Active, connection: Connection, content: bytes | str) -> list[bytes | str]:
        """What is sent instead of a frame that the order is for."""
        order = active.order
        if active.left is not None and connection not in active.left:
            return [content]  # the last time was another copy of the same frame
        if isinstance(order, CullQuotes | Duplicate) and self._rng.random() >= order.share:
            return [content]
        self._use(active, connection)
        match order:
            case Duplicate():
                return [content, content]
            case Corrupt(how=how):
                return [spoiled(content, how)]
            case SchemaVersion(version=version, block_bytes=block_bytes, entry_bytes=entry_bytes):
                return [newer(content, version, block_bytes, entry_bytes)]
        return []

    def _use(self, active: _Active, connection: Connection | None = None) -> None:
        """Count a frame or a request that was dealt with; the last one asked for ends the order."""
        active.hits += 1
        if active.left is not None:
            active.left[connection] -= 1
            if not active.left[connection]:
                del active.left[connection]
                self._finish_if_done(active)

    def _finish_if_done(self, active: _Active) -> None:
        if active in self._active and (active.targets == set() or active.left == {}):
            self._finish(active)

    def _expire(self, active: _Active) -> None:
        if isinstance(active.order, ServerShutdown):
            for connection in active.targets or ():
                connection.close_soon(WSCloseCode.GOING_AWAY, "The server shuts down")
        self._finish(active)

    def _finish(self, active: _Active) -> None:
        if active.timer is not None:
            active.timer.cancel()
            active.timer = None
        self._active.remove(active)
        self._ended.append(active.report())
        if active.delays is not None:
            active.delays.flush()
        if isinstance(active.order, MaxAge):
            self._set_ages()
        if isinstance(active.order, PauseMarket):
            self._markets[active.order.symbol].resume(self._now_us())
        log("misbehaviour_ends", **active.report())

    def _age_limit_s(self) -> float:
        orders = [active.order for active in self._active]
        return min([self._max_age_s, *(order.age_s for order in orders if isinstance(order, MaxAge))])

    def _set_ages(self) -> None:
        for connection in self._connections:
            connection.end_at_age(self._age_limit_s())


def _refusal(status: int, retry_after_s: float | None = None) -> ApiError:
    code, message = _REFUSALS.get(status, _FAILURE)
    return ApiError(code, message, status=status, retry_after_s=retry_after_s)
