"""The hot state in Redis: one round trip to read it, one atomic, fenced write per symbol and batch."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import redis

from tickcast import json_text
from tickcast.bars import BarRing
from tickcast.model import HORIZONS_S
from tickcast.outcomes import Memory
from tickcast.state import StateError, SymbolState, decode_state, encode_state

PREDICTIONS_KEPT = 3600  # an hour of them, at one a second
OUTCOMES_KEPT = 4 * PREDICTIONS_KEPT  # one for each horizon
STATE_TTL_S = 24 * 3600
HEARTBEAT_TTL_S = 24 * 3600
GAPS_TTL_S = 24 * 3600

# Writes everything of a batch or nothing: only if the state's sequence is still the one that was read.
# Of two invocations at once for one symbol the slower finds it moved on, and writes nothing. A script sent
# again because its answer was lost finds its own sequence, and is done. Entries of streams are named by
# their instant: one that is there already, from before a state was lost, stays as it was written.
_COMMIT = """
local sequence = redis.call('HGET', KEYS[1], 'sequence') or '0'
if sequence == ARGV[2] then return 1 end
if sequence ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'sequence', ARGV[2], 'ring', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
local writes = cjson.decode(ARGV[5])
for _, w in ipairs(writes.set) do redis.call('SET', w[1], w[2], 'EX', w[3]) end
for _, w in ipairs(writes.add) do
  local added = redis.pcall('XADD', w[1], 'MAXLEN', '~', w[2], w[3], 'json', w[4])
  if type(added) == 'table' and added.err and not added.err:find('equal or smaller', 1, true) then
    return added
  end
end
return 1
"""
_COMMIT_SHA = hashlib.sha1(_COMMIT.encode(), usedforsecurity=False).hexdigest()  # as Redis names scripts


@dataclass
class Writes:
    """What a batch writes beside the state: `put` for keys with a life, `append` for capped streams, whose
    entries bear the id (its first part an instant in ms) by which they are found again."""

    put: list[tuple[str, str, int]] = field(default_factory=list)
    append: list[tuple[str, int, str, str]] = field(default_factory=list)

    def features(self, record: dict[str, Any], ttl_s: int) -> None:
        text, symbol = json_text.text(record), record["symbol"]
        self.put.append((f"features:{symbol}:{record['timestamp']}", text, ttl_s))
        self.put.append((f"features:{symbol}:latest", text, STATE_TTL_S))

    def prediction(self, record: dict[str, Any]) -> None:
        text, symbol = json_text.text(record), record["symbol"]
        self.put.append((f"prediction:{symbol}:latest", text, STATE_TTL_S))
        self.append.append((f"predictions:{symbol}", PREDICTIONS_KEPT, f"{record['timestamp']}-0", text))

    def outcome(self, record: dict[str, Any]) -> None:
        entry = f"{record['target_time']}-{record['horizon_s']}"
        self.append.append((f"outcomes:{record['symbol']}", OUTCOMES_KEPT, entry, json_text.text(record)))

    def heartbeat(self, service: str, record: dict[str, Any]) -> None:
        self.put.append((f"heartbeat:{service}", json_text.text(record), HEARTBEAT_TTL_S))

    def gaps(self, symbol: str, record: dict[str, Any]) -> None:
        self.put.append((f"gaps:{symbol}", json_text.text(record), GAPS_TTL_S))


class Commit(NamedTuple):
    """A symbol's new state, the sequence that its old one was read with, and what is written with it."""

    state: SymbolState
    read_sequence: int
    writes: Writes


class HotStore:
    def __init__(self, client: redis.Redis, lateness_us: int) -> None:
        self._client: Any = client  # its annotations fit no real answer: each is also "or awaitable"
        self._lateness_us = lateness_us

    def load(self, symbols: list[str]) -> tuple[dict[str, SymbolState], list[str]]:
        """The states of `symbols`, and what was wrong with those that had to be begun anew.

        One round trip; a second one for what the receipts still say of a state that is lost.
        """
        pipeline = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.hmget(f"state:{symbol}", "sequence", "ring")
            pipeline.get(f"repaired:{symbol}")
        answers = iter(pipeline.execute())
        states, problems = {}, []
        for symbol in symbols:
            (sequence, data), repairs = next(answers), next(answers)
            try:
                states[symbol] = self._state(symbol, int(sequence or 0), data)
            except StateError as error:
                problems.append(f"{symbol}: {error}; its bars are warmed up anew")
                memory = Memory.recalled(self.history(symbol, max(HORIZONS_S)))
                ring = BarRing(self._lateness_us)
                states[symbol] = SymbolState(symbol, ring, memory=memory, sequence=int(sequence or 0))
            if repairs and states[symbol].ring.gaps.gaps:
                states[symbol].ring.gaps.settle(**json.loads(repairs))
        return states, problems

    def _state(self, symbol: str, sequence: int, data: bytes | None) -> SymbolState:
        if data is None:
            raise StateError("Redis has no state of it")
        return decode_state(symbol, sequence, data, self._lateness_us)

    def commit(self, state: SymbolState, read_sequence: int, writes: Writes) -> bool:
        """Write `state` and `writes` if the stored sequence is still `read_sequence`; False if it is not."""
        return self.commit_all([Commit(state, read_sequence, writes)])[0]

    def commit_all(self, commits: list[Commit]) -> list[bool]:
        """`commit` for several symbols in one round trip; each stands or falls by itself."""
        arguments = [
            (
                f"state:{state.symbol}",
                read_sequence,
                state.sequence,
                encode_state(state),
                STATE_TTL_S,
                json_text.text({"set": writes.put, "add": writes.append}),
            )
            for state, read_sequence, writes in commits
        ]
        try:
            return self._run_commits(arguments)
        except redis.exceptions.NoScriptError:  # a new server: it learns the script once
            self._client.script_load(_COMMIT)
            return self._run_commits(arguments)

    def _run_commits(self, arguments: list[tuple[Any, ...]]) -> list[bool]:
        # Not by the client's own `Script`, which asks in a round trip of its own whether it is known.
        pipeline = self._client.pipeline(transaction=False)
        for keys_and_values in arguments:
            pipeline.evalsha(_COMMIT_SHA, 1, *keys_and_values)
        return [bool(is_written) for is_written in pipeline.execute()]

    def latest(self, symbol: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The newest prediction and the newest features of `symbol`, each None where there is none."""
        found = self._client.mget(f"prediction:{symbol}:latest", f"features:{symbol}:latest")
        prediction, features = (_read(text) for text in found)
        return prediction, features

    def predictions(self, symbol: str, from_ms: int, to_ms: int, limit: int) -> list[dict[str, Any]]:
        """The newest `limit` predictions made as of `from_ms` to `to_ms`, both included; newest first."""
        return _texts(self._client.xrevrange(f"predictions:{symbol}", to_ms, from_ms, count=limit))

    def prediction(self, symbol: str, timestamp_ms: int) -> dict[str, Any] | None:
        """The prediction made as of `timestamp_ms`; None if there was none, or it is no longer kept."""
        found = self.predictions(symbol, timestamp_ms, timestamp_ms, 1)
        return found[0] if found else None

    def outcomes(
        self, symbol: str, timestamp_ms: int, horizons_s: Iterable[int]
    ) -> dict[int, dict[str, Any]]:
        """What is known of the outcomes of the prediction made as of `timestamp_ms`, by horizon."""
        pipeline = self._client.pipeline(transaction=False)
        for horizon_s in horizons_s:
            entry = f"{timestamp_ms + horizon_s * 1000}-{horizon_s}"
            pipeline.xrange(f"outcomes:{symbol}", entry, entry)
        found = [outcome for entries in pipeline.execute() for outcome in _texts(entries)]
        return {outcome["horizon_s"]: outcome for outcome in found}

    def outcomes_after(self, symbol: str, entry: str, limit: int) -> list[tuple[str, dict[str, Any]]]:
        """The oldest `limit` outcomes behind the entry of that id, oldest first, each with its own id."""
        return self._after(f"outcomes:{symbol}", entry, limit)

    def predictions_after(self, symbol: str, entry: str, limit: int) -> list[tuple[str, dict[str, Any]]]:
        """Likewise of predictions."""
        return self._after(f"predictions:{symbol}", entry, limit)

    def history(self, symbol: str, count: int) -> list[dict[str, Any]]:
        """The newest `count` predictions of `symbol`, newest first."""
        return _texts(self._client.xrevrange(f"predictions:{symbol}", count=count))

    def heartbeats(self, services: list[str]) -> dict[str, dict[str, Any] | None]:
        return self._records("heartbeat", services)

    def gaps(self, symbols: list[str]) -> dict[str, dict[str, Any] | None]:
        """The gap ledgers as `GapLedger.record` made them; None for a symbol nothing is known of."""
        return self._records("gaps", symbols)

    def record(self, key: str) -> dict[str, Any] | None:
        """The JSON under `key`; None where there is none."""
        found: dict[str, Any] | None = _read(self._client.get(key))
        return found

    def _after(self, stream: str, entry: str, limit: int) -> list[tuple[str, dict[str, Any]]]:
        found = self._client.xrange(stream, min=f"({entry}", count=limit)
        return [(id_.decode(), json.loads(fields[b"json"])) for id_, fields in found]

    def _records(self, kind: str, names: list[str]) -> dict[str, dict[str, Any] | None]:
        found = self._client.mget([f"{kind}:{name}" for name in names])
        return {name: _read(text) for name, text in zip(names, found, strict=True)}


def _read(text: bytes | None) -> Any:
    return json.loads(text) if text else None


def _texts(entries: list[tuple[bytes, dict[bytes, bytes]]]) -> list[dict[str, Any]]:
    return [json.loads(fields[b"json"]) for _, fields in entries]


def now_ms() -> float:
    """The wall clock, ms since the epoch."""
    return time.time() * 1000
