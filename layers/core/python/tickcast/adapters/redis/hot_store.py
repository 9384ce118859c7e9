"""The hot state in Redis: one round trip to read it, one atomic, fenced write per symbol and batch.

What may go wrong with the store, and what follows:

- A state is lost, damaged or of another version: it is recalled (`tickcast.serving.state`), and reported.
- The store went back in time, as after a failover to a replica that was behind: `StoreWentBack`, so that the
  batch is retried on what the store has now. Another invocation that wrote only a part of the batch is
  `Overtaken`.
- The store is full: `StoreFull`. Nothing is evicted (`noeviction`) and nothing half-written: a script is
  refused at its first write.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, TypeVar

import redis

from tickcast.adapters.redis import keys
from tickcast.evaluation.live_scores import AccuracySummary
from tickcast.market.gaps import LedgerRecord, Repairs
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.records import (
    ArchivedUntil,
    Features,
    FeedHeartbeat,
    Heartbeat,
    Outcome,
    OutcomeEntry,
    PathForecast,
    Prediction,
    StreamHeartbeat,
    decode,
    encode,
    encode_sound,
)
from tickcast.serving.state import (
    WRITES_LOST,
    StateError,
    SymbolState,
    decode_state,
    note_loss,
    recalled_state,
    salvage,
)

T = TypeVar("T")
Entries = list[tuple[str, bytes]]  # of a stream: ids, and records as JSON

# Receipts that a lost state is recalled from: those with pending outcomes, and enough older ones to find
# calibrators, which receipts made while warming up lack.
_RECALLED = max(HORIZONS_S) + 20

# About 200 kB: more would keep Redis from answering others for milliseconds.
_OUTCOMES_AT_ONCE = 250

# What both scripts begin with: `sequence`, the one that is stored, 0 where there is none. A key of another
# type was damaged from outside: it is replaced.
_STORED_SEQUENCE = """
local function clear_unless(kind, key)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end
clear_unless('hash', KEYS[1])
local sequence = redis.call('HGET', KEYS[1], 'sequence')
if not sequence or not sequence:find('^%d+$') then sequence = '0' end
"""


class _Script(NamedTuple):
    """A script, and the name by which Redis knows it."""

    text: str
    sha: str

    @classmethod
    def of(cls, body: str) -> _Script:
        text = _STORED_SEQUENCE + body
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


# Sets the answer, if there is one, only if the state's sequence is still the one that was read, and no answer
# of a later instant was given: Lambda may try a half of a batch after the whole failed between its answer and
# its commit. Returns the sequence that is stored.
# ARGV: the sequence that was read; the answer's key, itself, its TTL and its instant.
_ANSWER = _Script.of("""
if sequence == ARGV[1] and #ARGV > 1 then
  local before = redis.pcall('GET', ARGV[2])
  local instant = type(before) == 'string' and before:match('"timestamp":(%d+)')
  if not instant or tonumber(instant) <= tonumber(ARGV[5]) then
    redis.call('SET', ARGV[2], ARGV[3], 'EX', ARGV[4])
  end
end
return sequence
""")

# Writes all of a batch or nothing: only if the state's sequence is still the one that was read. Returns the
# sequence that is stored then, the server's time (s, µs), and 1 if this wrote it. Of two concurrent
# invocations for one symbol the slower finds another sequence and writes nothing. A script that is sent again
# because its response was lost finds its own sequence and does nothing. Entries of streams have their instant
# as id: one that exists, from before a state was lost, is kept. The state is written last: where anything
# before it failed, the batch counts as not written.
# ARGV: both sequences, the state and its TTL; the number of stream entries, and of each its key, limit, id
# and record; then keys, each with value and TTL.
_COMMIT = _Script.of("""
local time = redis.call('TIME')
if sequence == ARGV[2] or sequence ~= ARGV[1] then return {sequence, time[1], time[2], 0} end
local first_key = 6 + 4 * ARGV[5]
for at = 6, first_key - 1, 4 do
  clear_unless('stream', ARGV[at])
  local added = redis.pcall('XADD', ARGV[at], 'MAXLEN', '~', ARGV[at + 1], ARGV[at + 2], 'json', ARGV[at + 3])
  if type(added) == 'table' and added.err and not added.err:find('equal or smaller', 1, true) then
    return added
  end
  redis.call('EXPIRE', ARGV[at], ARGV[4])
end
for at = first_key, #ARGV, 3 do redis.call('SET', ARGV[at], ARGV[at + 1], 'EX', ARGV[at + 2]) end
redis.call('HSET', KEYS[1], 'sequence', ARGV[2], 'ring', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return {ARGV[2], time[1], time[2], 1}
""")


class StoreWentBack(redis.RedisError):
    """The store has older states than were written to it, or lost some; the message names the symbols. A
    retry starts from what it has now."""


class Overtaken(redis.RedisError):
    """Another invocation wrote a part of this one's batch; the message names the symbols. A retry finds that
    part applied, and writes the rest."""


class StoreFull(redis.exceptions.OutOfMemoryError):
    """The store has no room, and wrote nothing of the symbols that the message names."""


@dataclass
class Writes:
    """What a batch writes with the state: `put` for keys with a TTL (s), `append` for entries of capped
    streams (key, limit, id, record). Each method raises ValueError on a number that is not finite where its
    field must not be null."""

    put: list[tuple[str, bytes, int]] = field(default_factory=list)
    append: list[tuple[str, int, str, bytes]] = field(default_factory=list)

    def features(self, record: Features, ttl_s: int) -> None:
        data = encode(record)
        self.put.append((keys.features(record.symbol, record.timestamp), data, ttl_s))
        self.put.append((keys.latest_features(record.symbol), data, keys.TTL_S))

    def prediction(self, record: Prediction) -> None:
        """A receipt that is kept for the hour."""
        stream, entry = keys.predictions(record.symbol), keys.prediction_entry(record.timestamp)
        self.append.append((stream, keys.PREDICTIONS_KEPT, entry, encode(record)))

    def recent(self, record: Prediction) -> None:
        """A receipt that is kept for minutes, compressed: there are ten times as many of them."""
        stream, entry = keys.recent_predictions(record.symbol), keys.prediction_entry(record.timestamp)
        self.append.append((stream, keys.RECENT_KEPT, entry, zlib.compress(encode(record), 1)))

    def outcome(self, record: Outcome) -> None:
        entry = keys.outcome_entry(record.target_time, record.horizon_s)
        self.append.append((keys.outcomes(record.symbol), keys.OUTCOMES_KEPT, entry, encode(record)))

    def heartbeat(self, service: str, symbol: str, record: StreamHeartbeat | FeedHeartbeat) -> None:
        self.put.append((keys.heartbeat(service, symbol), encode(record), keys.TTL_S))

    def gaps(self, symbol: str, record: LedgerRecord) -> None:
        self.put.append((keys.gaps(symbol), encode(record), keys.TTL_S))

    def arguments(self) -> list[Any]:
        """As `_COMMIT` reads them."""
        parts = (len(self.append),), *self.append, *self.put
        return [argument for part in parts for argument in part]


class Commit(NamedTuple):
    """A symbol's new state, the sequence at which its old one was read, what is written with it, and the
    state encoded."""

    state: SymbolState
    read_sequence: int
    writes: Writes
    data: bytes


class Committed(Enum):
    """The result of a commit."""

    WRITTEN = "written"
    # The store has the same sequence: this commit was sent twice, or another invocation wrote the same
    # records. What it wrote may differ from what this one holds in memory.
    FOUND = "found"
    FENCED = "fenced"  # another invocation was ahead

    @classmethod
    def of(cls, is_found: bool) -> Committed:
        return cls.FOUND if is_found else cls.FENCED


class HotStore:
    def __init__(self, client: redis.Redis, lateness_us: int) -> None:
        self._client: Any = client  # redis-py annotates every result as possibly awaitable
        self._lateness_us = lateness_us
        self._fences: dict[str, int] = {}  # by symbol, the newest sequence this process wrote or read
        self._went_back: set[str] = set()  # symbols whose lost writes are not in a stored ledger yet
        self._repairs: dict[str, Any] = {}  # by symbol, the stored text that was entered into its ledger last
        self.time_us = -1  # the server's time at the newest commit; -1 before the first

    def load(self, symbols: list[str]) -> tuple[dict[str, SymbolState], list[str]]:
        """The states of `symbols`, and what was wrong with those that had to be recalled.

        One round trip; a second one to recall lost states from receipts and ledgers. Raises `StoreWentBack`,
        once, when a state is older than the one this process wrote or read last.
        """
        pipeline = self._client.pipeline(transaction=False)
        for symbol in symbols:
            pipeline.hmget(keys.state(symbol), "sequence", "ring")
            pipeline.get(keys.repaired(symbol))
        answers = iter(_answers(pipeline))
        states: dict[str, SymbolState] = {}
        lost: dict[str, tuple[int, Any]] = {}
        problems: list[str] = []
        repairs: dict[str, Any] = {}
        for symbol in symbols:
            found, repairs[symbol] = next(answers), next(answers)
            sequence, data = found if isinstance(found, list) else (None, found)
            try:
                states[symbol] = self._state(symbol, _number(sequence), data)
            except StateError as error:
                problems.append(f"{symbol}: {error}; its bars are warmed up again")
                lost[symbol] = _number(sequence), data
        states |= self._recall(lost)
        self._check_fences(states)
        for symbol, text in repairs.items():
            problems += self._settle(states[symbol], text)
        return states, problems

    def refresh(self, states: Sequence[SymbolState]) -> list[str]:
        """Enter repairs made since into the ledgers of `states`, which were kept in memory. Returns what was
        wrong with those that cannot be read."""
        found = self.values([keys.repaired(state.symbol) for state in states]) if states else []
        problems: list[str] = []
        for state, text in zip(states, found, strict=True):
            if text != self._repairs.get(state.symbol):
                problems += self._settle(state, text)
        return problems

    def _settle(self, state: SymbolState, text: Any) -> list[str]:
        """Enter the repairs in `text` into the ledger of `state`; returns what is wrong with them."""
        self._repairs[state.symbol] = text
        if text and state.ring.gaps.gaps:
            try:
                found = decode(Repairs, text)
                state.ring.gaps.settle(found.repaired, found.withheld)
            except (TypeError, ValueError) as error:
                return [f"{keys.repaired(state.symbol)} cannot be read: {error}"]
        return []

    def recall(self, symbol: str) -> SymbolState:
        """The state of `symbol` as far as its receipts and its ledger know it, at sequence 0."""
        return self._recall({symbol: (0, None)})[symbol]

    def stored_state(self, symbol: str) -> bytes:
        """The state of `symbol` as it is stored, for study; empty if there is none."""
        try:
            return bytes(self._client.hget(keys.state(symbol), "ring") or b"")
        except redis.ResponseError:  # of another type
            return b""

    def _state(self, symbol: str, sequence: int, data: Any) -> SymbolState:
        if data is None:
            raise StateError("Redis has no state of it")
        if isinstance(data, redis.ResponseError):
            raise StateError(f"damaged state: {data}")
        return decode_state(symbol, sequence, data, self._lateness_us)

    def _recall(self, lost: dict[str, tuple[int, Any]]) -> dict[str, SymbolState]:
        """The states of symbols that are `lost`, by symbol their sequence and what is left of their bytes."""
        if not lost:
            return {}
        pipeline = self._client.pipeline(transaction=False)
        for symbol in lost:
            pipeline.xrevrange(keys.predictions(symbol), count=_RECALLED)
            pipeline.get(keys.gaps(symbol))
        answers, states = iter(_answers(pipeline)), {}
        for symbol, (sequence, data) in lost.items():
            entries, ledger = next(answers), next(answers)
            found = [fields.get(b"json") for _, fields in entries] if isinstance(entries, list) else []
            receipts = [each for data in found if (each := readable(Prediction, data))]
            known = readable(LedgerRecord, ledger)
            state = recalled_state(symbol, self._lateness_us, receipts, known)
            if isinstance(data, bytes):
                salvage(state, data)
            state.sequence = sequence
            states[symbol] = state
        return states

    def _check_fences(self, states: dict[str, SymbolState]) -> None:
        """A lower sequence than this process knows means that acknowledged batches are lost. The retry
        accepts what is left, and the ledger says why trades are missing. (Sequence 0 is a lost state.)"""
        older = {
            symbol: state.sequence
            for symbol, state in states.items()
            if 0 < state.sequence < self._fences.get(symbol, 0)
        }
        if older:
            self._accept(older)
            raise StoreWentBack(f"the store has older states than were written: {', '.join(older)}")
        for symbol, state in states.items():
            self._fences[symbol] = state.sequence
            if symbol in self._went_back:
                note_loss(state.ring, WRITES_LOST)

    def _accept(self, sequences: dict[str, int]) -> None:
        self._fences |= sequences
        self._went_back |= sequences.keys()

    def commit_all(self, commits: list[Commit]) -> list[Committed]:
        """Write each state with its writes if the stored sequence is still the one that was read: each by
        itself, all in one round trip. Returns what became of each. Where the store is behind one that was not
        written, acknowledging the batch would lose it: raises `Overtaken`, or `StoreWentBack` if the store is
        even behind what was read. Raises `StoreFull`, and what Redis raises. All others are written all the
        same.
        """
        arguments = [
            (keys.state(state.symbol), read_sequence, state.sequence, data, keys.TTL_S, *writes.arguments())
            for state, read_sequence, writes, data in commits
        ]
        answers = self._run(_COMMIT, arguments)
        if answers:
            _, seconds, microseconds, _ = answers[-1]
            self.time_us = int(seconds) * 1_000_000 + int(microseconds)
        self._check_committed(commits, [int(sequence) for sequence, *_ in answers])
        return [
            Committed.WRITTEN if is_written else Committed.of(state.sequence == int(sequence))
            for (state, *_), (sequence, _, _, is_written) in zip(commits, answers, strict=True)
        ]

    def answer(self, answers: Sequence[tuple[str, int, PathForecast | None]]) -> list[int]:
        """Write each symbol's newest forecast, if there is one, as long as the stored sequence is the one
        that was read: each by itself, all in one round trip. Returns the sequences that are stored; where one
        is another, nothing of that symbol was written. Raises `StoreFull`, and what Redis raises."""
        arguments = [
            (keys.state(symbol), read_sequence)
            if forecast is None
            else (
                keys.state(symbol),
                read_sequence,
                keys.latest_prediction(symbol),
                encode_sound(forecast),
                keys.TTL_S,
                forecast.timestamp,
            )
            for symbol, read_sequence, forecast in answers
        ]
        return [int(sequence) for sequence in self._run(_ANSWER, arguments)]

    def _run(self, script: _Script, arguments: list[tuple[Any, ...]]) -> list[Any]:
        """The results of `script` for each of `arguments`, of which the first is its key."""
        try:
            return self._run_known(script, arguments)
        except redis.exceptions.NoScriptError:  # once per server
            self._client.script_load(script.text)
            return self._run_known(script, arguments)

    def _run_known(self, script: _Script, arguments: list[tuple[Any, ...]]) -> list[Any]:
        # Not by redis-py's `Script`, which takes a round trip of its own to ask whether the server has it.
        try:
            if len(arguments) == 1:
                return [self._client.evalsha(script.sha, 1, *arguments[0])]
            pipeline = self._client.pipeline(transaction=False)
            for keys_and_values in arguments:
                pipeline.evalsha(script.sha, 1, *keys_and_values)
            found: list[Any] = pipeline.execute()
            return found
        except redis.exceptions.OutOfMemoryError as error:
            raise StoreFull(f"the store is full, and took nothing of at least one symbol: {error}") from error

    def _check_committed(self, commits: list[Commit], stored: list[int]) -> None:
        """Compare with the sequences that the store has now; raises as `commit_all` does."""
        went_back: dict[str, int] = {}
        overtaken: list[str] = []
        for (state, read_sequence, *_), sequence in zip(commits, stored, strict=True):
            if sequence < read_sequence:
                went_back[state.symbol] = sequence
            elif sequence < state.sequence:
                overtaken.append(state.symbol)
            else:
                self._fences[state.symbol] = sequence
                self._went_back.discard(state.symbol)
        if went_back:
            self._accept(went_back)
            raise StoreWentBack(f"the store has older states than were read: {', '.join(went_back)}")
        if overtaken:
            raise Overtaken(f"another invocation wrote a part of the batch: {', '.join(overtaken)}")

    def fullness(self) -> float | None:
        """The share of its memory that the store uses; None where it has no limit."""
        about = self._client.info("memory")
        return about["used_memory"] / about["maxmemory"] if about.get("maxmemory") else None

    def predictions(self, symbol: str, from_ms: int, to_ms: int, limit: int) -> list[Prediction]:
        """The newest `limit` predictions made as of `from_ms` to `to_ms`, both included; newest first. This
        and the methods below that return records, except `gaps`, raise ValueError where one cannot be
        read."""
        return [decode(Prediction, data) for _, data in self.receipts(symbol, from_ms, to_ms, limit)]

    def history(self, symbol: str, count: int) -> list[Prediction]:
        """The newest `count` predictions of `symbol`, newest first."""
        return [decode(Prediction, data) for _, data in self.receipts(symbol, "-", "+", count)]

    def receipts(self, symbol: str, from_ms: int | str, to_ms: int | str, limit: int) -> Entries:
        """As `predictions`, as they are stored; an entry without a record is empty, which cannot be read."""
        return _entries(self._client.xrevrange(keys.predictions(symbol), to_ms, from_ms, count=limit))

    def recent_receipts(self, symbol: str, from_ms: int, to_ms: int, limit: int) -> Entries:
        """The oldest `limit` of those in between, which are kept for minutes, likewise; oldest first."""
        return _entries(self._client.xrange(keys.recent_predictions(symbol), from_ms, to_ms, count=limit))

    def prediction(self, symbol: str, timestamp_ms: int) -> Prediction | None:
        """The prediction made as of `timestamp_ms`, of a second or in between; None if there
        was none, or it is no longer kept."""
        pipeline, entry = self._client.pipeline(transaction=False), keys.prediction_entry(timestamp_ms)
        for stream in (keys.predictions(symbol), keys.recent_predictions(symbol)):
            pipeline.xrange(stream, entry, entry)
        found = [data for entries in pipeline.execute() for _, data in _entries(entries)]
        return decode(Prediction, found[0]) if found else None

    def outcomes(self, symbol: str, delivered_ms: int, horizons_s: Iterable[int]) -> dict[int, Outcome]:
        """The known outcomes of the prediction that was delivered at `delivered_ms`, by horizon."""
        pipeline = self._client.pipeline(transaction=False)
        for horizon_s in horizons_s:
            entry = keys.outcome_entry(delivered_ms + horizon_s * 1000, horizon_s)
            pipeline.xrange(keys.outcomes(symbol), entry, entry)
        found = [decode(Outcome, data) for entries in pipeline.execute() for _, data in _entries(entries)]
        return {outcome.horizon_s: outcome for outcome in found}

    def outcomes_until(self, symbol: str, from_ms: int, to_ms: int) -> Iterator[OutcomeEntry]:
        """The known outcomes whose targets are from `from_ms` to `to_ms`, both included; oldest first."""
        for _, data in self.entries_between(keys.outcomes(symbol), from_ms, to_ms + 1, _OUTCOMES_AT_ONCE):
            yield decode(OutcomeEntry, data)

    def entries_after(self, stream: str, entry: str, limit: int) -> Entries:
        """The oldest `limit` entries of `stream` after the one of that id, oldest first, as they are stored;
        `keys` names the streams."""
        return _entries(self._client.xrange(stream, min=f"({entry}", count=limit))

    def entries_between(
        self, stream: str, from_ms: int, to_ms: int, page: int
    ) -> Iterator[tuple[str, bytes]]:
        """The entries of `stream` of the instants [`from_ms`, `to_ms`), oldest first, as they are stored;
        `page` of them are read at once."""
        first = str(from_ms)
        while found := _entries(self._client.xrange(stream, first, to_ms - 1, count=page)):
            yield from found
            if len(found) < page:
                return
            first = f"({found[-1][0]}"

    def extent(self, stream: str) -> tuple[int, int] | None:
        """The instants (ms) of the oldest and the newest entry of `stream`; None where it has none."""
        oldest = self._client.xrange(stream, count=1)
        newest = self._client.xrevrange(stream, count=1)
        return (_entry_ms(oldest), _entry_ms(newest)) if oldest and newest else None

    def archived_until(self, symbol: str) -> ArchivedUntil:
        """Up to when the receipts of `symbol` are archived; the beginning where that is not known."""
        return readable(ArchivedUntil, self.values([keys.archived(symbol)])[0]) or ArchivedUntil()

    def put_archived_until(self, symbol: str, until: ArchivedUntil) -> None:
        self._client.set(keys.archived(symbol), encode(until), ex=keys.TTL_S)

    def archiving(self) -> list[str]:
        """The symbols whose receipts were being archived, as it was written last."""
        return readable(list[str], self.values([keys.archiving()])[0]) or []

    def put_archiving(self, symbols: list[str]) -> None:
        self._client.set(keys.archiving(), encode(symbols), ex=keys.TTL_S)

    def gaps(self, symbols: Sequence[str]) -> dict[str, LedgerRecord | None]:
        """The gap ledgers by symbol; None where there is none, or it cannot be read."""
        found = self.values([keys.gaps(symbol) for symbol in symbols])
        return {symbol: readable(LedgerRecord, data) for symbol, data in zip(symbols, found, strict=True)}

    def accuracy(self, symbol: str) -> AccuracySummary | None:
        """The accuracy as scored last; None before the first scoring."""
        return read(AccuracySummary, self._client.get(keys.accuracy(symbol)))

    def put_accuracy(self, summary: AccuracySummary) -> None:
        self._client.set(keys.accuracy(summary.symbol), encode(summary), ex=keys.TTL_S)

    def put_heartbeat(self, service: str, record: Heartbeat) -> None:
        self._client.set(keys.heartbeat(service), encode(record), ex=keys.TTL_S)

    def put_text(self, key: str, text: str) -> None:
        """Set one of `keys` that is of no symbol."""
        self._client.set(key, text, ex=keys.TTL_S)

    def forget_newest(self, symbols: Sequence[str]) -> None:
        """Delete the newest prediction and the heartbeats of `symbols`, which are no longer served: if they
        are served again, these must not seem current. All else expires by its TTL."""
        services = ("predict_stream", "ingest_ecs")
        names = [keys.heartbeat(service, symbol) for symbol in symbols for service in services]
        self._client.unlink(*names, *(keys.latest_prediction(symbol) for symbol in symbols))

    def values(self, names: list[str]) -> list[bytes | None]:
        """The values of those keys, as they are stored; None where there is none."""
        found: list[bytes | None] = self._client.mget(names)
        return found

    def values_at(self, names: list[str]) -> tuple[list[bytes | None], float]:
        """The same, and the store's time (ms since the epoch) when they were read; in one round trip."""
        pipeline = self._client.pipeline(transaction=False)
        pipeline.mget(names)
        pipeline.time()
        found, (seconds, microseconds) = pipeline.execute()
        return found, seconds * 1000 + microseconds / 1000


def read(kind: type[T], data: bytes | None) -> T | None:
    """The record in `data`; None where there is none or it is empty. Raises ValueError where it cannot be
    read."""
    return decode(kind, data) if data and data != b"{}" else None


def readable(kind: type[T], data: Any) -> T | None:
    """The record in `data`; None where there is none, or it cannot be read."""
    try:
        return read(kind, data)
    except (TypeError, ValueError):
        return None


def _entry_ms(found: Any) -> int:
    return keys.entry_ms(found[0][0].decode())


def _entries(found: Any) -> Entries:
    return [(entry.decode(), _uncompressed(fields.get(b"json", b""))) for entry, fields in found]


def _uncompressed(data: bytes) -> bytes:
    """The JSON in `data`, which may be compressed; as it is where it cannot be read."""
    if data[:1] != b"\x78":  # how zlib begins; no JSON does
        return data
    try:
        return zlib.decompress(data)
    except zlib.error:
        return data


def _answers(pipeline: Any) -> list[Any]:
    """The results of the reads in `pipeline`. A key of another type than is read, which concerns that key
    alone, has the error as its result; other errors are raised."""
    answers: list[Any] = pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, redis.RedisError) and not str(answer).startswith("WRONGTYPE"):
            raise answer
    return answers


def _number(sequence: Any) -> int:
    """A stored sequence; 0 where there is none, or it is no number."""
    return int(sequence) if isinstance(sequence, bytes) and sequence.isdigit() else 0


def now_ms() -> float:
    """The wall clock, ms since the epoch."""
    return time.time() * 1000
