"""The hot path: Kinesis records into bars, forecasts, receipts and outcomes, in one invocation.

The states of the symbols stay in the process between invocations, and are read from Redis where they are
missing. Symbols are processed in groups: the records of each are folded in order; one run of the model
forecasts for all of them, as of the newest claim; the answers (`PathForecast`) are written. After the answers
of all groups, what they need not wait for is written for every symbol by one fenced script: state, receipt,
outcomes, features.

Both writes are fenced by the sequence of the state that was read. Where Redis has another one, another
invocation was ahead, or the state was lost: it is read, and the records are folded again; those applied
before are recognised by their sequence number. An infrastructure fault fails the invocation as a whole, and
the retry starts from the states in Redis: it gives the same answers again.

Any other exception affects its symbol only. The other symbols are written first; then its records are folded
one by one, and one that raises goes into quarantine. Where a record is sound by itself, the state may be at
fault: at the third such record (`TRIES`) without a prediction in between the state goes into quarantine
instead, and the symbol starts over from its receipts and its gap ledger.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import redis
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.kinesis.records import StreamRecord, records_in
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.lake.quarantine import quarantine, quarantine_state, rows_of
from tickcast.adapters.lake.signal_outbox import SignalOutbox
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis.hot_store import Commit, Committed, HotStore, Writes
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.settings import PredictStreamSettings
from tickcast.features.ring import BarRing
from tickcast.functions.admitted_symbols import AdmittedSymbols
from tickcast.market import wire
from tickcast.market.clock_offset import ClockOffset
from tickcast.market.symbols import listed
from tickcast.market.ticks import NO_QUOTES, QUOTE, TRADE
from tickcast.model.forecast import ModelError
from tickcast.serving.outcomes import mid_at, spread_at
from tickcast.serving.prediction import (
    MODEL_REFUSED,
    WARMING_UP,
    Row,
    ServingModel,
    TradingTerms,
    challenger_forecasts,
    features_record,
    path_forecasts,
    receipt,
    row_of,
    timing_of,
)
from tickcast.serving.records import (
    ChallengerForecast,
    FeedHeartbeat,
    Outcome,
    PathForecast,
    Prediction,
    StreamHeartbeat,
)
from tickcast.serving.signals import OF_PREDICTIONS, Signal, SignalMatcher, SignalRule
from tickcast.serving.state import SymbolState, encode_state
from tickcast.units import SECOND_US

SERVICE = "predict_stream"
FEED = "ingest_ecs"  # its heartbeat comes in its batches: it cannot reach Redis

TRIES = 3  # sound records that a state fails on, without a prediction in between, before it is quarantined
MAX_REASON = 500  # characters
# Symbols that share a run of the model and whose answers are written together: the first answer waits for
# the records of all of them.
GROUP = 4
_OUT_OF_REACH = (BotoCoreError, ClientError)  # faults of the infrastructure, not of a record

Decoded = tuple[StreamRecord, wire.TickBatch]  # a record and what it holds
Batches = list[Decoded]
Refusals = list[tuple[StreamRecord, str]]  # what goes into quarantine, and why


@dataclass
class Result:
    """What an event led to: for the log, the metrics and the tests."""

    records: int = 0
    repeated: int = 0  # records applied before
    ticks: int = 0
    late: int = 0
    fenced: list[str] = field(default_factory=list)  # symbols another invocation was ahead with
    predictions: list[Prediction] = field(default_factory=list)
    kept: list[Prediction] = field(default_factory=list)  # of these the first of each second
    outcomes: list[Outcome] = field(default_factory=list)  # of earlier predictions
    missing_trades: dict[str, int] = field(default_factory=dict)  # by symbol, where a prediction is kept
    refused: Refusals = field(default_factory=list)
    quarantined: list[str] = field(default_factory=list)  # reasons
    failed: list[str] = field(default_factory=list)  # symbols on which something raised
    started_over: list[str] = field(default_factory=list)  # symbols whose state was quarantined
    problems: list[str] = field(default_factory=list)
    model_refused: bool = False
    challenger_refused: bool = False

    def add(self, more: Result) -> None:
        for name, theirs in vars(more).items():
            ours = getattr(self, name)
            setattr(self, name, ours | theirs if isinstance(ours, bool | dict) else ours + theirs)


class _Invocation(NamedTuple):
    """What all symbols of an event have in common."""

    started_ms: float
    model: ServingModel | None


class _Folded:
    """A symbol's records, folded but not yet written; `result` counts once they are."""

    def __init__(self, state: SymbolState) -> None:
        self.state = state
        self.read_sequence = state.sequence
        self.repeated = 0
        self.newest: StreamRecord | None = None  # of those applied
        self.feed: Batches = []  # what came, for the heartbeat of its sender
        self.row: Row | None = None  # what is predicted on, if a prediction is due
        self.forecast: PathForecast | None = None
        self.challenger: ChallengerForecast | None = None
        self.points_ms: list[float] = []  # for `timing_of`
        self.is_kept = False  # its receipt is, for the hour
        self.result = Result()
        self.writes = Writes()
        self.data = b""  # the state encoded, once all else is finished

    @property
    def is_new(self) -> bool:
        """Whether any record was applied."""
        return self.state.sequence != self.read_sequence

    def add(self, more: _Folded) -> None:
        """Append the next record, finished."""
        self.state = more.state
        self.forecast = more.forecast or self.forecast
        self.result.add(more.result)
        self.writes.put += more.writes.put
        self.writes.append += more.writes.append


@dataclass
class PredictStream:
    settings: PredictStreamSettings
    store: HotStore
    symbols: AdmittedSymbols
    models: ModelWatcher
    schemas: SchemaRegistry
    s3: Any
    clock_ms: Callable[[], float]
    # By symbol, as written last; dropped on any failure.
    states: dict[str, SymbolState] = field(default_factory=dict)
    clock_offset: ClockOffset = field(default_factory=ClockOffset)

    def __post_init__(self) -> None:
        self._matcher = SignalMatcher(self.settings.signals.of(*OF_PREDICTIONS))
        self._outbox = SignalOutbox(self.s3, self.settings.bucket, self.clock_ms)

    def __call__(self, event: dict[str, Any]) -> Result:
        """Process `event`. Raises what Redis and S3 raise, and when the store is full or went back in time:
        the event is then to be retried unchanged."""
        started_ms = self.clock_ms()
        records = records_in(event)
        result = Result(records=len(records))
        for symbol in self.symbols.update():
            self.states.pop(symbol, None)
        try:
            by_symbol = self._decode(records, result)
            if by_symbol:
                self._process(by_symbol, _Invocation(started_ms, self._active_model(result)), result)
        except BaseException:
            self.states.clear()
            raise
        # S3 and the models come last: no prediction waits for them.
        self._signal(result)
        self._quarantine(result)
        self._note_model_problems(result)
        self.models.poll()
        problems = self.symbols.poll()
        if result.kept:  # once a second is often enough
            result.problems += problems
        return result

    # ------------------------------------------------------------------------------------------ records

    def _decode(self, records: list[StreamRecord], result: Result) -> dict[str, Batches]:
        """The batches of each symbol, in order; what is refused of the records goes to `result`."""
        by_symbol: dict[str, Batches] = {}
        for record in records:
            try:
                batch, rows, reason = self.schemas.read(record)
                if not self.symbols.admits(batch.symbol):
                    if self.symbols.is_retired(batch.symbol):
                        continue
                    raise wire.WireError(
                        f"symbol {batch.symbol!r} is not one of {listed(self.symbols.symbols)}"
                    )
            except wire.WireError as error:
                result.refused.append((record, str(error)))
                continue
            except (*_OUT_OF_REACH, redis.RedisError):
                raise
            except Exception as error:  # whatever is wrong with a record concerns that record alone
                result.refused.append((record, describe(error)))
                continue
            if rows:
                result.refused.append((rows_of(record, rows), reason))
            elif reason:  # only a claim or a notice was refused: there are no ticks to keep
                result.problems.append(reason)
            self.clock_offset.record(
                batch.symbol, batch.connection, batch.sent_us, batch.watermark_us, _arrived_us(record)
            )
            by_symbol.setdefault(batch.symbol, []).append((record, batch))
        return by_symbol

    def _quarantine(self, result: Result) -> None:
        """Put the refused records into quarantine. The event is not retried because of S3: that would hold up
        every symbol, and find the records applied."""
        refused = result.refused
        result.quarantined += [reason for _, reason in refused]
        for kept, (record, reason) in enumerate(refused):
            try:
                quarantine(self.s3, self.settings.bucket, SERVICE, record, reason)
            except (*_OUT_OF_REACH, OSError) as error:
                taken = f"quarantine: S3 took {kept} of {len(refused)} records ({describe(error)})"
                result.problems.append(f"{taken}; not kept: {reason}")
                break  # each attempt may take seconds

    def _signal(self, result: Result) -> None:
        """Have the signals written that the predictions match, for `send_signals`. The records are applied:
        whatever is wrong with a rule, the event is not repeated."""
        if not self._matcher.rules:
            return
        found: list[tuple[SignalRule, Signal]] = []
        for prediction in result.predictions:
            try:
                found += self._matcher.matches(prediction)
            except Exception as error:
                result.problems.append(f"signals of {prediction.id}: {describe(error)}")
        result.problems += self._outbox.hand_over(found)

    # ------------------------------------------------------------------------------------------ symbols

    def _process(self, by_symbol: dict[str, Batches], invocation: _Invocation, result: Result) -> None:
        """All symbols, in groups; then, one by one, those on which something raised."""
        failed: dict[str, str] = {}  # by symbol, what raised
        ready: list[_Folded] = []
        symbols = iter(by_symbol)
        while group := list(islice(symbols, GROUP)):
            batches = {symbol: by_symbol[symbol] for symbol in group}
            ready += self._answer_group(batches, invocation, failed, result)
        self._add_challenger(ready)
        failed |= self._write(ready, result)
        for symbol, reason in failed.items():
            self.states.pop(symbol, None)
            result.failed.append(symbol)
            result.problems.append(f"{reason}; its records are folded singly")
            self._write([self._fold_singly(symbol, by_symbol[symbol], invocation, result)], result)

    def _answer_group(
        self,
        by_symbol: dict[str, Batches],
        invocation: _Invocation,
        failed: dict[str, str],
        result: Result,
    ) -> list[_Folded]:
        """Fold a group's records and write its answers. Returns what is to be written then; enters into
        `failed` why others could not be folded."""
        missing = [symbol for symbol in by_symbol if symbol not in self.states]
        if missing:
            self._load(missing, result)
        folded = self._fold_all(by_symbol, invocation, failed)
        outdated = self._answer(folded)
        if outdated:  # another invocation was ahead, or the state was lost
            self._load(outdated, result)
            again = {symbol: by_symbol[symbol] for symbol in outdated}
            folded = [each for each in folded if each.state.symbol not in again]
            refolded = self._fold_all(again, invocation, failed)
            self._answer(refolded)  # what is fenced again is not written: `_write` says so
            folded += refolded
        result.repeated += sum(each.repeated for each in folded)
        return [each for each in folded if each.is_new]

    def _load(self, symbols: list[str], result: Result) -> None:
        states, problems = self.store.load(symbols)
        self.states |= states
        result.problems += problems

    def _fold_all(
        self, by_symbol: dict[str, Batches], invocation: _Invocation, failed: dict[str, str]
    ) -> list[_Folded]:
        """Fold the records of all symbols, and forecast for them by one run of the model."""
        folded: list[_Folded] = []
        for symbol, batches in by_symbol.items():
            try:
                folded.append(self._fold(self.states[symbol], batches, invocation))
            except Exception as error:
                failed[symbol] = _reason(symbol, error)
        try:
            self._forecast(folded, invocation)
        except Exception:  # whatever is wrong with a symbol's calibrators concerns that symbol alone
            for each in list(folded):
                try:
                    self._forecast([each], invocation)
                except Exception as error:
                    failed[each.state.symbol] = _reason(each.state.symbol, error)
                    folded.remove(each)
        return folded

    def _fold(self, state: SymbolState, batches: Batches, invocation: _Invocation) -> _Folded:
        """Apply `batches`, in order, and take the row of a prediction, if one is due; records at or below the
        fence were applied before."""
        folded, ring = _Folded(state), state.ring
        result, late_before = folded.result, ring.late_count
        for record, batch in batches:
            if record.sequence <= state.sequence:
                folded.repeated += 1
                continue
            for instant_us in ring.fold(batch, SECOND_US):
                result.outcomes += state.pending.resolve(
                    instant_us, lambda us: mid_at(ring.bars, us), lambda us: spread_at(ring.bars, us)
                )
            if ring.refused:
                result.refused.append(_take_refused(ring, record, batch))
            state.sequence, folded.newest = record.sequence, record
            result.ticks += batch.tick_count
        result.late = ring.late_count - late_before
        folded.feed = batches
        if folded.newest:
            self._take_row(folded, folded.newest, invocation)
        return folded

    def _take_row(self, folded: _Folded, record: StreamRecord, invocation: _Invocation) -> None:
        """The row as of the newest claim, if it has passed a multiple of `predict_every_ms` since the newest
        prediction and a trade or a quote is known."""
        state, ring, every_us = folded.state, folded.state.ring, self.settings.predict_every_ms * 1000
        as_of_us = ring.as_of_us
        if as_of_us // every_us <= state.as_of_us // every_us:
            return
        folded_ms = self.clock_ms()
        folded.row = row_of(state.symbol, ring.view(as_of_us), ring.watermark.quiet_us)
        as_of_ms = as_of_us / 1000
        # Nothing waits for the lateness: the second part is 0.
        folded.points_ms = [as_of_ms, as_of_ms, record.arrived_s * 1000, invocation.started_ms, folded_ms]
        folded.points_ms.append(self.clock_ms())

    def _write(self, folded: list[_Folded], result: Result) -> dict[str, str]:
        """Write what no answer waits for, all symbols at once, and add those written to `result`. Returns by
        symbol why others could not be finished: nothing of them is written."""
        unfinished: dict[str, str] = {}
        ready: list[_Folded] = []
        for each in folded:
            try:
                each.data = each.data or self._finish(each)
            except Exception as error:
                unfinished[each.state.symbol] = _reason(each.state.symbol, error)
            else:
                ready.append(each)
        if not ready:
            return unfinished
        commits = [Commit(each.state, each.read_sequence, each.writes, each.data) for each in ready]
        asked_us = self.clock_ms() * 1000
        committed = self.store.commit_all(commits)
        self._note_time(ready, asked_us)
        for each, became in zip(ready, committed, strict=True):
            symbol = each.state.symbol
            if became is Committed.WRITTEN:
                self.states[symbol] = each.state
            else:
                self.states.pop(symbol, None)
            if became is Committed.FENCED:
                result.fenced.append(symbol)
                continue
            result.add(each.result)
            if each.result.kept:
                result.missing_trades[symbol] = each.state.ring.gaps.trades
        kept = [each.state for each in ready if each.is_kept and each.state.symbol in self.states]
        result.problems += self.store.refresh(kept)
        return unfinished

    def _note_time(self, written: list[_Folded], asked_us: float) -> None:
        """Compare the store's clock, which its answer has, with those of the records."""
        arrived_us = max((_arrived_us(each.newest) for each in written if each.newest), default=-1)
        if arrived_us >= 0:
            answered_us = self.clock_ms() * 1000
            self.clock_offset.written(arrived_us, round(asked_us), self.store.time_us, round(answered_us))

    def _finish(self, folded: _Folded) -> bytes:
        """Add all records to what is written. Returns the state's bytes; raises if it or a record cannot be
        stored."""
        state, writes = folded.state, folded.writes
        if folded.row and folded.forecast:
            self._add_receipt(folded, folded.row, folded.forecast)
        for outcome in folded.result.outcomes:
            writes.outcome(outcome)
        writes.heartbeat(SERVICE, state.symbol, self._heartbeat(state, self.clock_ms()))
        if folded.feed:
            writes.heartbeat(FEED, state.symbol, _feed_heartbeat(state, folded.feed))
        return encode_state(state)

    def _add_receipt(self, folded: _Folded, row: Row, forecast: PathForecast) -> None:
        """The first prediction of a second is kept for the hour, with features and outcomes; those in between
        for minutes."""
        state, ring, writes = folded.state, folded.state.ring, folded.writes
        prediction = receipt(forecast, row, folded.challenger)
        # A receipt that is kept lists what was late since the one before it.
        prediction.late_ids = list(ring.trade_ids.late_ids)
        prediction.late_update_ids = list(ring.quote_ids.late_ids)
        prediction.late_reference_ids = list(ring.reference.late_ids)
        prediction.sequence = folded.newest.sequence_text if folded.newest else None
        prediction.timing_ms = timing_of(folded.points_ms)
        as_of_us = row.view.as_of_us
        folded.is_kept = as_of_us // SECOND_US > state.kept_us // SECOND_US
        if folded.is_kept:
            ring.trade_ids.late_ids, ring.quote_ids.late_ids, ring.reference.late_ids = [], [], []
            writes.prediction(prediction)
            writes.features(features_record(row), self.settings.features_ttl_s)
            writes.gaps(state.symbol, ring.gaps.record())
            state.pending.expect(prediction)
            state.kept_us = as_of_us
            folded.result.kept.append(prediction)
        else:
            writes.recent(prediction)
        state.pending.reason = prediction.reason
        state.as_of_us, state.failures, state.failure = as_of_us, 0, None
        folded.result.predictions.append(prediction)

    def _heartbeat(self, state: SymbolState, now_ms: float) -> StreamHeartbeat:
        ring, reason = state.ring, state.pending.reason
        return StreamHeartbeat(
            at_ms=round(now_ms),
            watermark_ms=ring.watermark.reached_us // 1000,
            received_ms=ring.received_us // 1000,
            late_trades=ring.trade_ids.late_count,
            late_quotes=ring.quote_ids.late_count,
            reference_ms=ring.reference.newest_us // 1000 if ring.reference.newest_us >= 0 else None,
            late_reference=ring.reference.late_count,
            missing_trades=ring.gaps.trades,
            quote_gaps=len(ring.gaps.quote_gaps),
            refused_trades=ring.trade_ids.refused_count,
            refused_quotes=ring.quote_ids.refused_count,
            id_restarts=len(ring.gaps.restarts),
            reason=reason,
            warming_since_ms=ring.history_from_us // 1000 if reason == WARMING_UP else None,
            model_problem=self.models.problem,
            challenger_problem=self.models.challenger_problem,
            failure=state.failure,
            clock_offset_ms=self.clock_offset.store_ms,
            own_offset_ms=self.clock_offset.own_ms,
        )

    # ------------------------------------------------------------------------------------------ predictions

    def _forecast(self, folded: list[_Folded], invocation: _Invocation) -> None:
        """Add the forecast of each row, by one run of the model; a symbol without a row gets none."""
        settings = self.settings
        chosen = [(each, each.row) for each in folded if each.row]
        problems: list[str] = []
        forecasts = path_forecasts(
            [(row, each.state.pending) for each, row in chosen],
            invocation.model,
            self.models.refusal,
            TradingTerms(settings.primary_horizon_s, settings.fee_bp, settings.min_confidence),
            self.clock_ms,
            problems.append,
        )
        inferred_ms = self.clock_ms()
        if chosen:
            chosen[0][0].result.problems += problems
        for (each, _), forecast in zip(chosen, forecasts, strict=True):
            forecast.clock_offset_ms = self.clock_offset.store_ms
            each.forecast = forecast
            # The challenger runs after the answer: that part is 0.
            each.points_ms += [inferred_ms, inferred_ms]

    def _answer(self, folded: list[_Folded]) -> list[str]:
        """Write the newest forecasts. Returns the symbols whose stored state is not the one that was folded
        into: nothing of them was written."""
        if not folded:
            return []
        self._deliver(folded)
        answers = [(each.state.symbol, each.read_sequence, each.forecast) for each in folded]
        stored = self.store.answer(answers)
        return [
            each.state.symbol
            for each, sequence in zip(folded, stored, strict=True)
            if sequence != each.read_sequence
        ]

    def _deliver(self, folded: list[_Folded]) -> None:
        """Enter the moment at which the forecasts are written."""
        now_ms = self.clock_ms()
        for each in folded:
            if each.forecast:
                # On the exchange's clock, as the instant of the forecast is.
                since_ms = now_ms - (self.clock_offset.own_ms or 0.0) - each.forecast.timestamp
                each.forecast.latency_ms = round(since_ms)
                each.points_ms.append(now_ms)

    def _add_challenger(self, folded: list[_Folded]) -> None:
        """Add what the challenger forecasts on the same vectors, by one run of it, where the active model
        made a forecast. If that raises, the receipts are written all the same."""
        challenger = self.models.challenger
        chosen = [(each, each.row, each.forecast) for each in folded if each.row and each.forecast]
        found: list[ChallengerForecast | ModelError | None] = [None] * len(chosen)
        if challenger and chosen:
            try:
                found = challenger_forecasts(
                    [(row, each.state.pending) for each, row, _ in chosen],
                    [forecast for *_, forecast in chosen],
                    challenger,
                )
            except Exception as error:
                if len(chosen) > 1:
                    for each, *_ in chosen:
                        self._add_challenger([each])
                    return
                found = [ModelError(describe(error))]
        for (each, _, forecast), shadow in zip(chosen, found, strict=True):
            if isinstance(shadow, ModelError):
                cause = describe(shadow.__cause__ or shadow)
                each.result.problems.append(f"challenger {challenger and challenger.model_id}: {cause}")
                each.result.challenger_refused = True
            else:
                each.challenger = shadow
            # A challenger keeps them while the pointer names it: through fallbacks, and when it cannot be
            # loaded.
            if forecast.model_id and (challenger or not self.models.challenger_problem):
                named = [challenger.model_id] if challenger else []
                each.state.pending.keep_calibrators([forecast.model_id, *named])

    def _active_model(self, result: Result) -> ServingModel | None:
        try:
            return self.models.current()
        except Exception as error:  # without a model there are fallbacks, and all else
            result.problems.append(f"the model: {describe(error)}")
            result.model_refused = True
            return None

    def _note_model_problems(self, result: Result) -> None:
        if not result.kept:  # once a second is often enough
            return
        problems = (self.models.problem, self.models.challenger_problem)
        result.problems += [problem for problem in problems if problem]
        refused = self.models.is_refused or any(p.reason == MODEL_REFUSED for p in result.kept)
        result.model_refused |= refused
        result.challenger_refused |= self.models.challenger_problem is not None

    # ------------------------------------------------------------------------------------------ failures

    def _fold_singly(self, symbol: str, batches: Batches, invocation: _Invocation, result: Result) -> _Folded:
        """Apply `batches` one by one, each until it could be written, and leave out those that raise."""
        whole = _Folded(self.store.load([symbol])[0][symbol])
        for decoded in batches:
            if decoded[0].sequence <= whole.state.sequence:
                result.repeated += 1
                continue
            before = deepcopy(whole.state)
            try:
                folded = self._fold_one(whole.state, decoded, invocation)
            except Exception as error:
                reason, unwritten = _reason(symbol, error), whole.result
                folded = self._recover(before, decoded, invocation, reason, unwritten, result)
            whole.add(folded)
        whole.writes.heartbeat(SERVICE, symbol, self._heartbeat(whole.state, self.clock_ms()))
        whole.data = encode_state(whole.state)
        if whole.forecast:
            self.store.answer([(symbol, whole.read_sequence, whole.forecast)])
        return whole

    def _fold_one(self, state: SymbolState, decoded: Decoded, invocation: _Invocation) -> _Folded:
        """One record, folded and finished; raises if the state could not be stored then."""
        folded = self._fold(state, [decoded], invocation)
        self._forecast([folded], invocation)
        self._deliver([folded])
        self._add_challenger([folded])
        self._finish(folded)
        return folded

    def _recover(
        self,
        state: SymbolState,
        decoded: Decoded,
        invocation: _Invocation,
        reason: str,
        unwritten: Result,
        result: Result,
    ) -> _Folded:
        """Continue from `state`, on which a record raised: without the record, or with it from a state that
        starts over. `unwritten` is what was made since the last write."""
        record, batch = decoded
        if self._is_sound(batch):
            state.failures, state.failure = state.failures + 1, reason
            if state.failures >= TRIES or not _is_storable(state):
                state = self._start_over(state, unwritten, result)
                try:
                    return self._fold_one(state, decoded, invocation)
                except Exception:  # not even the recalled state can take it
                    state = SymbolState(state.symbol, BarRing(self.settings.lateness_us), failure=reason)
        state.sequence = record.sequence
        quarantine(self.s3, self.settings.bucket, SERVICE, record, reason)
        result.quarantined.append(reason)
        return _Folded(state)

    def _is_sound(self, batch: wire.TickBatch) -> bool:
        """Whether an empty ring can fold `batch`."""
        ring = BarRing(self.settings.lateness_us)
        try:
            for _ in ring.fold(batch, SECOND_US):
                pass
            row_of(batch.symbol, ring.view(), ring.watermark.quiet_us)
        except Exception:
            return False
        return True

    def _start_over(self, state: SymbolState, unwritten: Result, result: Result) -> SymbolState:
        """Put `state` into quarantine as it was stored, with the reason. Returns one recalled from receipts,
        gap ledger and what is not written yet."""
        symbol, sequence, reason = state.symbol, state.sequence, str(state.failure)
        stored = self.store.stored_state(symbol)
        quarantine_state(self.s3, self.settings.bucket, SERVICE, symbol, sequence, stored, reason)
        state = self.store.recall(symbol)
        state.sequence, state.failure = sequence, reason
        for prediction in unwritten.kept:
            state.pending.expect(prediction)
            state.kept_us = max(state.kept_us, prediction.timestamp * 1000)
        for prediction in unwritten.predictions[-1:]:
            state.as_of_us = max(state.as_of_us, prediction.timestamp * 1000)
        result.started_over.append(symbol)
        result.problems.append(f"{symbol}: its state is set aside, its bars are warmed up again")
        return state


@functools.cache
def settle() -> None:
    """Once, after the first event: what is loaded by now stays, so that no garbage collection looks at it
    again."""
    gc.collect()
    gc.freeze()


def _arrived_us(record: StreamRecord) -> int:
    return round(record.arrived_s * 1e6)


def _take_refused(ring: BarRing, record: StreamRecord, batch: wire.TickBatch) -> tuple[StreamRecord, str]:
    """The ticks that the ring refused by their ids, as a record of their own, and why."""
    refused, ring.refused = ring.refused, []
    rows = {dtype: [each.row for each in refused if each.dtype == dtype] for dtype in (TRADE, QUOTE)}
    reason = f"{batch.symbol}: {'; '.join(sorted({each.reason for each in refused}))} ({len(refused)})"
    kept = batch._replace(
        trades=np.array(rows[TRADE], TRADE),
        quotes=np.array(rows[QUOTE], QUOTE),
        notices=(),
        reference=NO_QUOTES,
    )
    return rows_of(record, kept, "ids"), reason


def _reason(symbol: str, error: Exception) -> str:
    return f"{symbol}: {describe(error)}"[:MAX_REASON]


def _is_storable(state: SymbolState) -> bool:
    try:
        encode_state(state)
    except Exception:
        return False
    return True


def _feed_heartbeat(state: SymbolState, batches: Batches) -> FeedHeartbeat:
    """What the newest batches say of their sender."""
    record, batch = batches[-1]
    arrived_ms = round(record.arrived_s * 1000)
    return FeedHeartbeat(
        at_ms=arrived_ms,
        received_ms=arrived_ms,
        watermark_ms=state.ring.watermark.reached_us // 1000,
        source=batch.source,
        connections=sorted({batch.connection for _, batch in batches}),
        host_offset_ms=None if batch.sent_us == wire.SENT_UNKNOWN else batch.host_offset_us / 1000,
    )
