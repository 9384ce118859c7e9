"""The stream session without its sockets: when to connect, when to roll over, when to give up.

`Session` is told what happens on the connections and says what to do next. It does no I/O and reads no
clock: the socket loop in `ingest_ecs` passes times in (seconds of a monotonic clock) and acts.

    silent ──▶ opening ──▶ live ──▶ retiring ──▶ closed
                  └──── failed: backoff ────┘

A connection that has to go (it is near the exchange's 24 h, the exchange announced a shutdown, or one of
its streams stalls while its pings go on) is *retired*: a second one is opened beside it, and only when that
one delivers is the first closed. Both deliver meanwhile; downstream recognises repeats by their ids.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

BACKOFF_FIRST_S = 0.25
BACKOFF_CAP_S = 30.0
HEALTHY_AFTER_S = 10.0  # a connection that held this long makes the next backoff start small again
# The exchange allows 300 attempts per 5 minutes and IP; half of it leaves room for a second task.
ATTEMPTS = 150
ATTEMPTS_WINDOW_S = 300.0

ROLLOVER_S = 22.5 * 3600  # every connection ends at 24 h
RELIEF_S = 30.0  # how long a successor may take to deliver before the old one is closed regardless

# A stream is stalled when nothing came for many times its usual gap. Floors: what even a busy stream may
# pause; ceiling: what even a quiet one should not. Quotes flow faster than trades.
STALL_GAPS = 50.0
STALL_FLOOR_S = {"quotes": 5.0, "trades": 15.0}
STALL_CEILING_S = 120.0

# Answers to a handshake that are worth another attempt although they are 4xx.
_PASSING_STATUS = {408, 418, 425, 429}
_FATAL_REASONS = {
    401: "the exchange refused the API key: the SBE streams want an Ed25519 key in BINANCE_API_KEY",
    403: "the exchange's firewall refused the connection, or the key's IP list does not name this host",
    404: "no such stream: check STREAM_URL and SYMBOLS",
    451: "the exchange does not serve this region: run ingest elsewhere (ap-northeast-1 is its neighbour)",
}


class FatalSessionError(RuntimeError):
    """The exchange refused for good: trying again would only loop. The message says what to do."""


def refusal(status: int) -> FatalSessionError | None:
    """Whether the HTTP `status` of a handshake is final, and why; None when worth another attempt."""
    if not 400 <= status < 500 or status in _PASSING_STATUS:
        return None
    reason = _FATAL_REASONS.get(status, "the exchange refused the request: check STREAM_URL, SYMBOLS and key")
    return FatalSessionError(f"HTTP {status}: {reason}")


def backoff(rng: random.Random) -> Iterator[float]:
    """Delays in seconds before the next attempts, without end: doubling, capped, and jittered down to
    half so that tasks that lost the same exchange do not come back together."""
    delay_s = BACKOFF_FIRST_S
    while True:
        yield delay_s * rng.uniform(0.5, 1.0)
        delay_s = min(delay_s * 2, BACKOFF_CAP_S)


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
    """A stream brought nothing for `seconds` although its connection is open."""

    symbol: str
    kind: str
    seconds: float


# ----------------------------------------------------------------------------------------- the machine


@dataclass
class _Flow:
    """One stream on one connection: when its data last came, and how far apart it usually comes."""

    last_s: float
    mean_gap_s: float = 0.0
    seen: int = 0

    def came(self, now_s: float) -> None:
        gap_s = now_s - self.last_s
        self.seen += 1
        self.mean_gap_s += (gap_s - self.mean_gap_s) / min(self.seen, 100)
        self.last_s = now_s

    def is_stalled(self, kind: str, patience: float, now_s: float) -> bool:
        usual_s = STALL_GAPS * self.mean_gap_s if self.seen else 0.0
        limit_s = min(max(usual_s, STALL_FLOOR_S[kind]), STALL_CEILING_S)
        return now_s - self.last_s > limit_s * patience


@dataclass
class _Connection:
    opened_s: float | None = None  # None while the handshake is under way
    retired_why: str | None = None
    is_stalled: bool = False
    flows: dict[tuple[str, str], _Flow] = field(default_factory=dict)  # by (symbol, kind)

    @property
    def delivers(self) -> bool:
        return any(flow.seen for flow in self.flows.values())


class Session:
    """`streams` are (symbol, kind) with kind "trades" or "quotes"; `rng` jitters the backoff."""

    def __init__(
        self, streams: list[tuple[str, str]], rng: random.Random, rollover_s: float = ROLLOVER_S
    ) -> None:
        self._streams = streams
        self._rng = rng
        self._rollover_s = rollover_s
        self._delays = backoff(rng)
        self._next_attempt_s = float("-inf")
        self._attempts: deque[float] = deque()
        self._connections: dict[int, _Connection] = {}
        self._opened = 0
        # How often each stream's stall was answered by a new connection that did not bring it back: a
        # quiet market must not be reconnected over and over.
        self._patience: dict[tuple[str, str], float] = {}
        self._stalls: list[Stall] = []
        self.why = "not connected yet"

    @property
    def is_live(self) -> bool:
        return any(connection.delivers for connection in self._connections.values())

    def is_stalled(self, connection: int) -> bool:
        """Whether a stream of `connection` is held to be stalled: it may claim nothing any more."""
        return connection in self._connections and self._connections[connection].is_stalled

    def take_stalls(self) -> list[Stall]:
        """The stalls noticed since the last time: trades or quotes may have been missed meanwhile."""
        stalls, self._stalls = self._stalls, []
        return stalls

    def opened(self, connection: int, now_s: float) -> None:
        state = self._connections[connection]
        state.opened_s = now_s
        state.flows = {stream: _Flow(now_s) for stream in self._streams}

    def data(self, connection: int, symbol: str, kind: str, now_s: float) -> None:
        """Ticks of a stream came by `connection`."""
        state = self._connections.get(connection)
        if state and (symbol, kind) in state.flows:
            state.flows[symbol, kind].came(now_s)
            self._patience.pop((symbol, kind), None)

    def shutdown_announced(self, connection: int) -> None:
        self._retire(connection, "the exchange announced a shutdown")

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
        if state.opened_s is not None and now_s - state.opened_s > HEALTHY_AFTER_S:
            self._delays = backoff(self._rng)
        self._next_attempt_s = now_s + max(next(self._delays), retry_after_s)
        self.why = why

    def actions(self, now_s: float) -> list[Action]:
        """What to do now. Ask again after whatever happens, and once a second at least."""
        for connection, state in self._connections.items():
            if state.opened_s is not None and not state.retired_why:
                why = self._why_retire(state, now_s)
                if why:
                    self._retire(connection, why)
        return [*self._relieve(now_s), *self._replace(now_s)]

    def _why_retire(self, state: _Connection, now_s: float) -> str | None:
        assert state.opened_s is not None
        if now_s - state.opened_s > self._rollover_s:
            return "it is near the exchange's limit of 24 h"
        for (symbol, kind), flow in state.flows.items():
            patience = self._patience.get((symbol, kind), 1.0)
            if flow.is_stalled(kind, patience, now_s):
                self._patience[symbol, kind] = patience * 2
                state.is_stalled = True
                self._stalls.append(Stall(symbol, kind, now_s - flow.last_s))
                return f"no {kind} of {symbol} for {now_s - flow.last_s:.0f} s"
        return None

    def _retire(self, connection: int, why: str) -> None:
        state = self._connections.get(connection)
        if state and not state.retired_why:
            state.retired_why = why
            self.why = why

    def _relieve(self, now_s: float) -> list[Action]:
        """Close retired connections whose successor delivers what they lately did, or took too long."""
        fresh = [c for c in self._connections.values() if c.opened_s is not None and not c.retired_why]
        if not fresh:
            return []
        newest = fresh[-1]
        assert newest.opened_s is not None
        closing: list[Action] = []
        for connection, state in self._connections.items():
            if not state.retired_why:
                continue
            since_s = newest.opened_s - RELIEF_S
            flowing = [stream for stream, flow in state.flows.items() if flow.seen and flow.last_s > since_s]
            is_relieved = newest.delivers and all(newest.flows[stream].seen for stream in flowing)
            if is_relieved or now_s - newest.opened_s > RELIEF_S:
                closing.append(Close(connection, state.retired_why))
        return closing

    def _replace(self, now_s: float) -> list[Action]:
        """Open a connection when none that may stay is there or on its way."""
        if any(not state.retired_why for state in self._connections.values()):
            return []
        while self._attempts and now_s - self._attempts[0] > ATTEMPTS_WINDOW_S:
            self._attempts.popleft()
        if now_s < self._next_attempt_s or len(self._attempts) >= ATTEMPTS:
            return []
        self._attempts.append(now_s)
        self._opened += 1
        self._connections[self._opened] = _Connection()
        return [Open(self._opened, self.why)]


class Watermark:
    """How far one connection's stream of a symbol has come, on the exchange's clock. Times in µs.

    While ticks flow it is the newest tick's time. In a quiet market it goes on with the local clock, held
    back by the largest delay seen lately: a tick still under way cannot be older than that. A connection
    that is lost takes its claim with it.
    """

    QUIET_US = 1_000_000
    MARGIN_US = 100_000
    # The remembered delay shrinks by an e-fold in a minute, so that one slow second is forgotten.
    FORGET_US = 60_000_000

    def __init__(self) -> None:
        self._newest_us = -1
        self._received_us = -1
        self._delay_us = 0.0

    def saw(self, time_us: int, received_us: int) -> None:
        """A tick of exchange time `time_us` arrived at local time `received_us`."""
        delay_us = received_us - time_us
        if self._received_us >= 0:
            elapsed_us = max(0, received_us - self._received_us)
            self._delay_us -= (self._delay_us - delay_us) * min(1.0, elapsed_us / self.FORGET_US)
        self._delay_us = delay_us if self._received_us < 0 else max(self._delay_us, delay_us)
        self._newest_us = max(self._newest_us, time_us)
        self._received_us = max(self._received_us, received_us)

    def at(self, now_us: int) -> int | None:
        """The claim that holds at local time `now_us`; None before the first tick."""
        if self._newest_us < 0:
            return None
        if now_us - self._received_us < self.QUIET_US:
            return self._newest_us
        return max(self._newest_us, int(now_us - self._delay_us) - self.MARGIN_US)
