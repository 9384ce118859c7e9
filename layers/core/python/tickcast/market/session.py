"""The stream session without its sockets: when to connect, when to roll over, when to give up.

`Session` is informed of what happens on the connections and says what to do next. It does no I/O and reads no
clock: the socket loop in `ingest_ecs` passes times in (seconds of a monotonic clock) and acts.

    silent ──▶ opening ──▶ live ──▶ retiring ──▶ closed
                  └──── failed: backoff ────┘

A connection is alive while data come on it: one of its streams is known to be busy, so that a silence of all
for `SILENT_S` is the connection's own. Pings prove the socket, not the feed. Whether a single stream is quiet
or dead cannot be known from its silence: `looks` names the symbols to ask the exchange's REST about, `looked`
takes the answer. Only a stream that the exchange is ahead of is dead. Its symbol's claim is withdrawn until
it delivers again; the other symbols lose nothing by it.

A connection that has to go (it is near the exchange's 24 h, the exchange announced a shutdown, it is silent,
or one of its streams is dead) is *retired*: a second one is opened, and only when that one delivers what the
first does is the first closed. Both deliver meanwhile; downstream recognises repeats by their ids.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

BACKOFF_FIRST_S = 0.25
BACKOFF_CAP_S = 30.0
HEALTHY_AFTER_S = 5.0  # a connection that delivered this long makes the next backoff start small again
RETIRED_CAP_S = 4.0  # of the backoff while the connection to be replaced delivers: it may not for long
# The exchange allows 300 attempts per 5 minutes and IP; half of it leaves room for a second task.
ATTEMPTS = 150
ATTEMPTS_WINDOW_S = 300.0

ROLLOVER_S = 22.5 * 3600  # every connection ends at 24 h
RELIEF_S = 30.0  # how long a successor is given to bring what only came before it opened
OVERLAP_S = 2.0  # what is under way on the old connection shall arrive

SILENT_S = 5.0  # without any data a connection is not alive: its busy stream never pauses that long

# When REST is asked. A symbol that brings nothing at all is asked about in time for readers to learn that it
# is quiet; a single stream when it is silent for many times its usual pause.
QUIET_S = 2.5
LOOK_EVERY_S = 2.0
LOOK_PAUSES = 10.0
LOOK_FLOOR_S = 5.0
LOOK_CEILING_S = 60.0
LOOK_BACKOFF_CAP_S = 60.0
GRACE_S = 1.0  # what the exchange had when it was asked may still be under way on the stream
# REST's answers may be so old. Trade ids show it, a book does not: one that differs is newer only where no
# quote has come for longer than this, and the next look has to find the same.
LAG_S = 5.0
# A dead stream that a new connection does not bring back: the pause before another is tried for its sake.
MEND_FIRST_S = 30.0
MEND_CAP_S = 3600.0

# Answers to a handshake that are worth another attempt although they are 4xx.
_PASSING_STATUS = {408, 418, 425, 429}
_FATAL_REASONS = {
    401: "the exchange refused the API key: the SBE streams want an Ed25519 key in BINANCE_API_KEY",
    403: "the exchange's firewall refused the connection, or the key's IP list does not name this host",
    404: "no such stream: check STREAM_URL and SYMBOLS",
    451: "the exchange does not serve this region: run ingest elsewhere (ap-northeast-1 is its neighbour)",
}

SymbolStream = tuple[str, str]  # symbol, and "trades" or "quotes"


class Newest(NamedTuple):
    """The newest of a symbol: its trade id, and the best bid and ask, each price and quantity at 1e-8. None
    where it is not known."""

    trade_id: int | None = None
    book: tuple[int, int, int, int] | None = None


class FatalSessionError(RuntimeError):
    """The exchange refused for good: trying again would only loop. The message says what to do."""


def refusal(status: int) -> FatalSessionError | None:
    """Whether the HTTP `status` of a handshake is final, and why; None when worth another attempt."""
    if not 400 <= status < 500 or status in _PASSING_STATUS:
        return None
    reason = _FATAL_REASONS.get(status, "the exchange refused the request: check STREAM_URL, SYMBOLS and key")
    return FatalSessionError(f"HTTP {status}: {reason}")


def backoff(
    rng: random.Random, first_s: float = BACKOFF_FIRST_S, cap_s: float = BACKOFF_CAP_S
) -> Iterator[float]:
    """Delays in seconds before the next attempts, without end: doubling, capped, and jittered down to
    half so that tasks that lost the same exchange do not come back together."""
    delay_s = first_s
    while True:
        yield delay_s * rng.uniform(0.5, 1.0)
        delay_s = min(delay_s * 2, cap_s)


# ------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True)
class Open:
    connection: int
    why: str


@dataclass(frozen=True)
class Close:
    connection: int
    why: str


Action = Open | Close


@dataclass(frozen=True)
class Stall:
    """A stream brought nothing for `seconds` although its connection is open, and it should have."""

    symbol: str
    kind: str
    seconds: float


# ----------------------------------------------------------------------------------------- the machine


@dataclass
class _Pauses:
    """How far apart a stream's data usually come, learned from all connections that ever carried it."""

    mean_s: float = 0.0
    seen: int = 0

    def add(self, pause_s: float) -> None:
        self.seen += 1
        self.mean_s += (pause_s - self.mean_s) / min(self.seen, 100)

    @property
    def look_after_s(self) -> float:
        return min(max(LOOK_PAUSES * self.mean_s, LOOK_FLOOR_S), LOOK_CEILING_S)


@dataclass
class _Mend:
    """A new connection for the sake of a dead stream was tried at `since_s`; the next is not for `wait_s`."""

    since_s: float
    wait_s: float


@dataclass
class _Flow:
    """One stream on one connection."""

    last_s: float  # when its data last came; before the first, when the connection was opened
    first_s: float | None = None
    doubted_s: float | None = None  # when the exchange was asked that proved to be ahead of it
    differs_s: float | None = None  # when it was first asked that had another book
    base: Newest = Newest()  # what it had when the connection had brought nothing of it yet
    is_dead: bool = False


@dataclass
class _Connection:
    opened_s: float | None = None  # None while the handshake is under way
    first_s: float | None = None  # of its data
    last_s: float = 0.0
    retired_why: str | None = None
    may_return: bool = False  # it was retired for a silence, which may end
    is_silent: bool = False
    flows: dict[SymbolStream, _Flow] = field(default_factory=dict)

    @property
    def delivers(self) -> bool:
        return self.first_s is not None and not self.is_silent

    def is_old(self, rollover_s: float, now_s: float) -> bool:
        return self.opened_s is not None and now_s - self.opened_s > rollover_s

    @property
    def is_proven(self) -> bool:
        """It delivered for so long that whatever ends it is nothing to shy from."""
        return self.first_s is not None and self.last_s - self.first_s > HEALTHY_AFTER_S


def _is_ahead(kind: str, flow: _Flow, exchange: Newest, come: Newest, asked_s: float) -> bool | None:
    """Whether the exchange has data of `kind` that should have come by the connection of `flow`, which has
    brought `come` of the symbol. None where that cannot be known.

    What is from before the connection is not missing on it: where it has brought nothing yet, it is compared
    with what the exchange had some time after the opening.
    """
    if kind == "trades":
        known = [each for each in (come.trade_id, flow.base.trade_id) if each is not None]
        if exchange.trade_id is None:
            return None
        if known:
            return exchange.trade_id > max(known)
        if asked_s - flow.last_s > LAG_S:
            flow.base = flow.base._replace(trade_id=exchange.trade_id)
        return None
    if exchange.book is None or asked_s - flow.last_s <= LAG_S:
        return None
    book = come.book or flow.base.book
    if book is None:
        flow.base = flow.base._replace(book=exchange.book)
        return None
    if exchange.book == book:
        return False
    flow.differs_s = asked_s if flow.differs_s is None else flow.differs_s
    return asked_s - flow.differs_s >= LOOK_EVERY_S or None


class Session:
    """`streams` are (symbol, kind) with kind "trades" or "quotes"; `rng` jitters the backoff.

    `has_busy_stream`: connections carry one that never pauses as well, which is none of `streams`. Without, a
    connection on which nothing comes is excused while REST says that nothing happens.
    """

    def __init__(
        self,
        streams: Collection[SymbolStream],
        rng: random.Random,
        rollover_s: float = ROLLOVER_S,
        *,
        has_busy_stream: bool = False,
    ) -> None:
        self._streams = streams
        self._symbols = list(dict.fromkeys(symbol for symbol, _ in streams))
        self._rng = rng
        self._rollover_s = rollover_s
        self._has_busy_stream = has_busy_stream
        self._delays = backoff(rng)
        self._next_attempt_s = float("-inf")
        self._barred_until_s = float("-inf")  # by the exchange
        self._attempts: deque[float] = deque()
        self._connections: dict[int, _Connection] = {}
        self._opened = 0
        self._now_s = float("-inf")  # the newest time passed in
        # What is known of streams whichever connection they come by.
        self._pauses = {stream: _Pauses() for stream in streams}
        self._dead: set[SymbolStream] = set()
        self._mends: dict[SymbolStream, _Mend] = {}
        self._stalls: list[Stall] = []
        self._look_delays = self._new_look_delays()
        self._next_look_s = float("-inf")
        self._looked_s: dict[str, float] = {}
        self._quiet_s: dict[str, float] = {}
        self.has_delivered = False  # any connection, ever
        self.why = "not connected yet"

    # ------------------------------------------------------------------------------- what is asked of it

    @property
    def is_live(self) -> bool:
        """Whether data come on any connection."""
        return any(connection.delivers for connection in self._connections.values())

    def withdrawn(self, connection: int) -> set[str]:
        """The symbols that `connection` may claim nothing of: their trades are known not to come by it.

        Quotes that do not come withdraw no claim: the bars see that trades are newer than the quotes, and the
        model carries on without them.
        """
        state = self._connections.get(connection)
        flows = state.flows.items() if state else ()
        return {symbol for (symbol, kind), flow in flows if kind == "trades" and flow.is_dead}

    def quiet_s(self, symbol: str) -> float | None:
        """When the exchange was last asked about `symbol` and had nothing that had not come; None: never."""
        return self._quiet_s.get(symbol)

    def take_stalls(self) -> list[Stall]:
        """The stalls noticed since the last time: trades or quotes were missed meanwhile."""
        stalls, self._stalls = self._stalls, []
        return stalls

    # ------------------------------------------------------------------------------------ what happened

    def opened(self, connection: int, now_s: float) -> None:
        self._now_s = now_s
        state = self._connections[connection]
        state.opened_s = state.last_s = now_s
        # What was dead on other connections has to deliver here before it counts as well.
        state.flows = {stream: _Flow(now_s, is_dead=stream in self._dead) for stream in self._streams}

    def frame(self, connection: int, now_s: float) -> None:
        """Data of any kind came by `connection`: it is alive."""
        self._now_s = now_s
        state = self._connections.get(connection)
        if state is None:
            return
        if state.first_s is None:
            state.first_s = now_s
        state.last_s, self.has_delivered = now_s, True
        if state.is_silent:
            state.is_silent = False
            self._take_back(connection, state)

    def data(self, connection: int, symbol: str, kind: str, now_s: float) -> None:
        """Ticks of a stream came by `connection`."""
        self.frame(connection, now_s)
        state = self._connections.get(connection)
        flow = state.flows.get((symbol, kind)) if state else None
        if state is None or flow is None:
            return
        if flow.first_s is None:
            flow.first_s = now_s
        else:
            self._pauses[symbol, kind].add(now_s - flow.last_s)
        flow.last_s = now_s
        self._revive(connection, state, (symbol, kind))
        mend = self._mends.get((symbol, kind))
        if mend and flow.first_s > mend.since_s and now_s - flow.first_s > mend.wait_s:
            del self._mends[symbol, kind]  # a new connection brought it back, and it stayed

    def shutdown_announced(self, connection: int) -> None:
        """The exchange will end `connection` soon."""
        self._retire(connection, "the exchange announced a shutdown", self._now_s)

    def closed(
        self, connection: int, why: str, status: int | None, now_s: float, retry_after_s: float = 0.0
    ) -> None:
        """`connection` ended, or was never established (`status`: what the handshake was answered).

        `retry_after_s` is how long the exchange asked to be left alone: going on regardless earns a ban.

        Raises `FatalSessionError` when the answer was final and no other connection delivers.
        """
        state = self._connections.pop(connection, None)
        if state is None:
            return
        fatal = refusal(status) if status else None
        if fatal and not self.is_live:
            raise fatal
        if state.retired_why and self.is_live:
            return
        self._hold_off(state, now_s, retry_after_s)
        self.why = state.retired_why or why

    # -------------------------------------------------------------------------------------- REST's word

    def looks(self, now_s: float) -> list[str]:
        """The symbols to ask the exchange's REST about now: what is its newest trade, and its best quote?

        Each of them is to be answered by `looked`, or all by `look_failed`.
        """
        if now_s < self._next_look_s:
            return []
        symbols = [symbol for symbol in self._symbols if self._is_due_for_a_look(symbol, now_s)]
        if symbols:
            self._next_look_s = now_s + LOOK_EVERY_S
            self._looked_s |= dict.fromkeys(symbols, now_s)
        return symbols

    def looked(
        self, symbol: str, exchange: Newest, come: Newest, by_connection: Mapping[int, Newest], asked_s: float
    ) -> bool:
        """What the exchange had of `symbol` when it was asked at `asked_s`, beside what has `come` by all
        connections together, and by each of those that are open.

        Returns whether the market is quiet: the exchange had nothing that has not come.
        """
        self._look_delays = self._new_look_delays()
        for connection, brought in by_connection.items():
            state = self._connections.get(connection)
            for kind in ("trades", "quotes") if state else ():
                if state and (flow := state.flows.get((symbol, kind))):
                    is_ahead = _is_ahead(kind, flow, exchange, brought, asked_s)
                    if is_ahead:
                        flow.doubted_s = asked_s if flow.doubted_s is None else flow.doubted_s
                    elif is_ahead is not None:
                        self._revive(connection, state, (symbol, kind))
        if come.book is None or exchange.book != come.book or not self._has_all(symbol, exchange, come):
            return False
        self._quiet_s[symbol] = asked_s
        return True

    def _has_all(self, symbol: str, exchange: Newest, come: Newest) -> bool:
        """Whether all trades that the exchange has are known to have come, or to be from before."""
        if exchange.trade_id is None:  # none for a day
            return True
        flows = (state.flows.get((symbol, "trades")) for state in self._connections.values())
        known = [come.trade_id, *(flow.base.trade_id for flow in flows if flow)]
        return any(trade_id is not None and exchange.trade_id <= trade_id for trade_id in known)

    def _revive(self, connection: int, state: _Connection, stream: SymbolStream) -> None:
        """The stream is not dead, or no longer."""
        flow = state.flows[stream]
        flow.doubted_s = flow.differs_s = None
        if flow.is_dead:
            flow.is_dead = False
            self._dead.discard(stream)
            self._take_back(connection, state)

    def look_failed(self, now_s: float, retry_after_s: float = 0.0) -> None:
        """REST did not answer: nothing is known, and it is left alone for a while."""
        self._next_look_s = now_s + max(next(self._look_delays), retry_after_s)

    def _is_due_for_a_look(self, symbol: str, now_s: float) -> bool:
        """Whether `symbol` is due for a look."""
        open_now = [state for state in self._connections.values() if state.opened_s is not None]
        if not open_now:
            return False
        streams = [stream for stream in self._streams if stream[0] == symbol]
        if any(state.flows[stream].differs_s is not None for state in open_now for stream in streams):
            return True
        last_s = {stream: max(state.flows[stream].last_s for state in open_now) for stream in streams}
        looked_s = self._looked_s.get(symbol, float("-inf"))
        return now_s - max(last_s.values()) > QUIET_S or any(
            now_s - max(at_s, looked_s) > self._pauses[stream].look_after_s for stream, at_s in last_s.items()
        )

    def _new_look_delays(self) -> Iterator[float]:
        return backoff(self._rng, LOOK_EVERY_S, LOOK_BACKOFF_CAP_S)

    # ------------------------------------------------------------------------------------- what to do

    def actions(self, now_s: float) -> list[Action]:
        """What to do now. Ask again after whatever happens, and several times a second."""
        self._now_s = now_s
        for connection, state in list(self._connections.items()):
            if state.opened_s is None:
                continue
            self._judge(state, now_s)
            if not state.retired_why and (why := self._why_retire(state, now_s)):
                self._retire(connection, why, now_s, may_return=not state.is_old(self._rollover_s, now_s))
        return [*self._relieve(now_s), *self._replace(now_s)]

    def _judge(self, state: _Connection, now_s: float) -> None:
        """Draw the conclusions from silence and from REST's answers."""
        if not state.is_silent and now_s - state.last_s > SILENT_S and not self._is_all_quiet(state, now_s):
            state.is_silent = True
            if state.first_s is not None:
                self._stalls += [Stall(*stream, now_s - state.last_s) for stream in state.flows]
        for stream, flow in state.flows.items():
            if flow.doubted_s is None or now_s - flow.doubted_s <= GRACE_S:
                continue
            if flow.last_s < flow.doubted_s and not flow.is_dead:
                flow.is_dead = True
                self._dead.add(stream)
                self._stalls.append(Stall(*stream, now_s - flow.last_s))
            flow.doubted_s = None

    def _is_all_quiet(self, state: _Connection, now_s: float) -> bool:
        """Whether REST says of all symbols that `state` has had nothing to bring since its last data. Where a
        busy stream should flow that excuses no silence."""
        since_s = max(state.last_s, now_s - SILENT_S)
        is_quiet = (self._quiet_s.get(symbol, float("-inf")) > since_s for symbol in self._symbols)
        return not self._has_busy_stream and all(is_quiet)

    def _why_retire(self, state: _Connection, now_s: float) -> str | None:
        if state.is_old(self._rollover_s, now_s):
            return "it is near the exchange's limit of 24 h"
        if state.is_silent:
            return f"no data for {now_s - state.last_s:.0f} s"
        dead = [stream for stream, flow in state.flows.items() if flow.is_dead]
        if any(self._is_mend_due(stream, now_s) for stream in dead):
            for stream in dead:
                wait_s = (
                    min(2 * self._mends[stream].wait_s, MEND_CAP_S) if stream in self._mends else MEND_FIRST_S
                )
                self._mends[stream] = _Mend(now_s, wait_s)
            symbol, kind = dead[0]
            silence_s = now_s - state.flows[dead[0]].last_s
            return f"no {kind} of {symbol} for {silence_s:.0f} s, though the exchange has newer ones"
        return None

    def _is_mend_due(self, stream: SymbolStream, now_s: float) -> bool:
        mend = self._mends.get(stream)
        return mend is None or now_s >= mend.since_s + mend.wait_s

    def _retire(self, connection: int, why: str, now_s: float, *, may_return: bool = False) -> None:
        state = self._connections.get(connection)
        if state and state.may_return and not may_return:
            state.retired_why, state.may_return = (
                why,
                False,
            )  # it is to go, whatever it was retired for before
        elif state and not state.retired_why:
            state.retired_why, state.may_return = why, may_return
            self.why = why
            # A rollover of what is well is prompt. What ends young may be an exchange that ends all of them.
            self._hold_off(state, now_s, 0.0, prompt=True)

    def _hold_off(
        self, state: _Connection, now_s: float, retry_after_s: float, *, prompt: bool = False
    ) -> None:
        """When the next attempt may be made, after `state` came to its end or was retired."""
        if state.is_proven:
            self._delays = backoff(self._rng)
        delay_s = 0.0 if prompt and state.is_proven else next(self._delays)
        if prompt and state.delivers:
            delay_s = min(delay_s, RETIRED_CAP_S)
        self._next_attempt_s = now_s + delay_s
        self._barred_until_s = max(self._barred_until_s, now_s + retry_after_s)

    def _take_back(self, connection: int, state: _Connection) -> None:
        """What `state` was retired for is over. It stays, unless its successor is on the way already."""
        if state.may_return and connection == max(self._connections):
            state.retired_why, state.may_return = None, False

    def _relieve(self, now_s: float) -> list[Action]:
        """Close retired connections whose successor delivers what they do."""
        closing: list[Action] = []
        states = [(c, s) for c, s in self._connections.items() if s.opened_s is not None]
        for at, (connection, state) in enumerate(states):
            later = [successor for _, successor in states[at + 1 :]]
            if state.retired_why and any(self._relieves(successor, state, now_s) for successor in later):
                closing.append(Close(connection, state.retired_why))
        return closing

    def _relieves(self, successor: _Connection, state: _Connection, now_s: float) -> bool:
        assert successor.opened_s is not None
        age_s = now_s - successor.opened_s
        if not successor.delivers:
            # Neither does: the newest is kept, so that a dead exchange does not gather connections.
            return not state.delivers and age_s > SILENT_S
        if not state.delivers:
            return True
        lacking = [
            state.flows[stream]
            for stream, flow in successor.flows.items()
            if (flow.first_s is None or flow.is_dead) and not state.flows[stream].is_dead
        ]
        since_s = successor.opened_s + OVERLAP_S
        if any(flow.last_s > since_s for flow in lacking):
            return False  # it still brings what the successor does not
        was_flowing = any(flow.first_s is not None and flow.last_s > since_s - RELIEF_S for flow in lacking)
        return age_s > (RELIEF_S if was_flowing else OVERLAP_S)

    def _replace(self, now_s: float) -> list[Action]:
        """Open a connection when none that may stay is there or on its way."""
        if any(not state.retired_why for state in self._connections.values()):
            return []
        while self._attempts and now_s - self._attempts[0] > ATTEMPTS_WINDOW_S:
            self._attempts.popleft()
        if now_s < max(self._next_attempt_s, self._barred_until_s) or len(self._attempts) >= ATTEMPTS:
            return []
        self._attempts.append(now_s)
        self._opened += 1
        self._connections[self._opened] = _Connection()
        return [Open(self._opened, self.why)]
