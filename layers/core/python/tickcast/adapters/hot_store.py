"""The hot state in Redis: one round trip to read it, one atomic, fenced write per symbol and batch."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import redis

from tickcast.bars import BarRing
from tickcast.state import StateError, SymbolState, decode_ring, encode_ring

PREDICTIONS_KEPT = 3600  # an hour of them, at one a second
STATE_TTL_S = 24 * 3600
HEARTBEAT_TTL_S = 24 * 3600
GAPS_TTL_S = 24 * 3600

# Writes everything of a batch or nothing: only if the state's sequence is still the one that was read.
# Of two invocations at once for one symbol the slower finds it moved on, and writes nothing. A script sent
# again because its answer was lost finds its own sequence, and is done.
_COMMIT = """
local sequence = redis.call('HGET', KEYS[1], 'sequence') or '0'
if sequence == ARGV[2] then return 1 end
if sequence ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'sequence', ARGV[2], 'ring', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
local writes = cjson.decode(ARGV[5])
for _, w in ipairs(writes.set) do redis.call('SET', w[1], w[2], 'EX', w[3]) end
for _, w in ipairs(writes.add) do redis.call('XADD', w[1], 'MAXLEN', '~', w[2], '*', 'json', w[3]) end
return 1
"""


@dataclass
class Writes:
    """What a batch writes beside the state: `put` for keys with a life, `append` for capped streams."""

    put: list[tuple[str, str, int]] = field(default_factory=list)
    append: list[tuple[str, int, str]] = field(default_factory=list)

    def features(self, record: dict[str, Any], ttl_s: int) -> None:
        text, symbol = json.dumps(record), record["symbol"]
        self.put.append((f"features:{symbol}:{record['timestamp']}", text, ttl_s))
        self.put.append((f"features:{symbol}:latest", text, STATE_TTL_S))

    def prediction(self, record: dict[str, Any]) -> None:
        text, symbol = json.dumps(record), record["symbol"]
        self.put.append((f"prediction:{symbol}:latest", text, STATE_TTL_S))
        self.append.append((f"predictions:{symbol}", PREDICTIONS_KEPT, text))

    def heartbeat(self, service: str, record: dict[str, Any]) -> None:
        self.put.append((f"heartbeat:{service}", json.dumps(record), HEARTBEAT_TTL_S))

    def gaps(self, symbol: str, record: dict[str, Any]) -> None:
        self.put.append((f"gaps:{symbol}", json.dumps(record), GAPS_TTL_S))


class HotStore:
    def __init__(self, client: redis.Redis, lateness_us: int) -> None:
        self._client: Any = client  # its annotations fit no real answer: each is also "or awaitable"
        self._lateness_us = lateness_us
        self._commit = client.register_script(_COMMIT)

    def load(self, symbols: list[str]) -> tuple[dict[str, SymbolState], list[str]]:
        """The states of `symbols`, and what was wrong with those that had to be begun anew."""
        pipeline = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.hmget(f"state:{symbol}", "sequence", "ring")
        states, problems = {}, []
        for symbol, (sequence, data) in zip(symbols, pipeline.execute(), strict=True):
            ring = BarRing(self._lateness_us)
            if data is not None:
                try:
                    ring = decode_ring(data, self._lateness_us)
                except StateError as error:
                    problems.append(f"{symbol}: {error}; its bars are warmed up anew")
            states[symbol] = SymbolState(symbol, ring, int(sequence or 0))
        return states, problems

    def commit(self, state: SymbolState, read_sequence: int, writes: Writes) -> bool:
        """Write `state` and `writes` if the stored sequence is still `read_sequence`; False if it is not."""
        written = self._commit(
            keys=[f"state:{state.symbol}"],
            args=[
                read_sequence,
                state.sequence,
                encode_ring(state.ring),
                STATE_TTL_S,
                json.dumps({"set": writes.put, "add": writes.append}),
            ],
        )
        return bool(written)

    def latest(self, symbol: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The newest prediction and the newest features of `symbol`, each None where there is none."""
        found = self._client.mget(f"prediction:{symbol}:latest", f"features:{symbol}:latest")
        prediction, features = (json.loads(text) if text else None for text in found)
        return prediction, features

    def history(self, symbol: str, count: int) -> list[dict[str, Any]]:
        """The newest `count` predictions of `symbol`, newest first."""
        entries = self._client.xrevrange(f"predictions:{symbol}", count=count)
        return [json.loads(fields[b"json"]) for _, fields in entries]

    def heartbeats(self, services: list[str]) -> dict[str, dict[str, Any] | None]:
        return self._records("heartbeat", services)

    def gaps(self, symbols: list[str]) -> dict[str, dict[str, Any] | None]:
        """The gap ledgers as `GapLedger.record` made them; None for a symbol nothing is known of."""
        return self._records("gaps", symbols)

    def _records(self, kind: str, names: list[str]) -> dict[str, dict[str, Any] | None]:
        found = self._client.mget([f"{kind}:{name}" for name in names])
        return {name: json.loads(text) if text else None for name, text in zip(names, found, strict=True)}


def now_ms() -> float:
    """The wall clock, ms since the epoch."""
    return time.time() * 1000
