"""The hot path: Kinesis records into bars, features, predictions and their outcomes, in one invocation.

Read the states of the event's symbols in one round trip; fold every record in order; write every symbol's
state, features, predictions and outcomes in another, by one fenced script for each. Nothing is written before
everything was folded, so an infrastructure fault fails the invocation as a whole and the repeat starts from
the same state; records already applied are recognised by their sequence number.

Whatever else raises on a symbol stays with it. The others are written first; then its records are folded one
by one, and one that raises goes into quarantine. Where a record is sound by itself, the state may be at
fault: at the third such record (`TRIES`) without a prediction in between it goes into quarantine instead, and
the symbol starts over from its receipts and its gap ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.kinesis.records import StreamRecord, records_in
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.lake.quarantine import quarantine, quarantine_state, rows_of
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis.hot_store import Commit, HotStore, Writes
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.settings import PredictStreamSettings
from tickcast.features.ring import BarRing
from tickcast.market import wire
from tickcast.market.ticks import QUOTE, TRADE
from tickcast.serving.outcomes import UNRESOLVED, mid_at, note_latency
from tickcast.serving.prediction import (
    MODEL_REFUSED,
    PREDICT_EVERY_US,
    WARMING_UP,
    Record,
    ServingModel,
    TradingTerms,
    challenger_record,
    features_record,
    prediction_record,
)
from tickcast.serving.state import SymbolState, encode_state

SERVICE = "predict_stream"
FEED = "ingest_ecs"  # shows signs of life only in its batches: it cannot reach Redis

TRIES = 3  # sound records that a state fails on, without a prediction between them, before it is set aside
MAX_REASON = 500  # characters
_OUT_OF_REACH = (BotoCoreError, ClientError)  # faults of what the function stands on, not of a record

Batches = list[tuple[StreamRecord, wire.TickBatch]]


@dataclass
class Result:
    """What an event came to: for the log, the metrics and the tests."""

    records: int = 0
    repeated: int = 0  # records applied before
    ticks: int = 0
    late: int = 0
    fenced: list[str] = field(default_factory=list)  # symbols another invocation was ahead with
    predictions: list[Record] = field(default_factory=list)
    outcomes: list[Record] = field(default_factory=list)  # of earlier predictions: known, or given up
    missing_trades: dict[str, int] = field(default_factory=dict)  # by symbol, where something was predicted
    refused: list[tuple[StreamRecord, str]] = field(
        default_factory=list
    )  # what goes into quarantine, and why
    quarantined: list[str] = field(default_factory=list)  # reasons
    failed: list[str] = field(default_factory=list)  # symbols on which something raised
    started_over: list[str] = field(default_factory=list)  # and those whose state was set aside
    problems: list[str] = field(default_factory=list)
    model_refused: bool = False
    challenger_refused: bool = False

    def counts(self) -> dict[str, int]:
        """What went otherwise than it should, as the metrics name it."""
        return {
            "LateTicks": self.late,
            "UnresolvedOutcomes": sum(outcome["status"] == UNRESOLVED for outcome in self.outcomes),
            "ModelRefused": self.model_refused,
            "ChallengerRefused": self.challenger_refused,
            "Quarantined": len(self.quarantined),
            "Fenced": len(self.fenced),
            "SymbolFailures": len(self.failed),
            "StartedOver": len(self.started_over),
        }


class _Folded:
    """What the records of a symbol come to, until it is written."""

    def __init__(self, state: SymbolState) -> None:
        self.state = state
        self.read_sequence = state.sequence
        self.repeated = 0
        self.ticks = 0
        self.late = 0
        self.writes = Writes()
        self.predictions: list[Record] = []
        self.outcomes: list[Record] = []
        self.refused: list[tuple[StreamRecord, str]] = []  # ticks that only their ids gave away, and why
        self.problems: list[str] = []
        self.challenger_failed = False
        self.data: bytes | None = None  # the state encoded, once all else is finished

    def add(self, more: _Folded) -> None:
        """What the next record came to; `state` is for the caller to set."""
        self.ticks += more.ticks
        self.late += more.late
        self.writes.add(more.writes)
        self.predictions += more.predictions
        self.outcomes += more.outcomes
        self.refused += more.refused
        self.problems += more.problems
        self.challenger_failed |= more.challenger_failed


class _Invocation(NamedTuple):
    """What all symbols of an event have in common."""

    started_ms: float
    model: ServingModel | None


@dataclass
class PredictStream:
    settings: PredictStreamSettings
    store: HotStore
    models: ModelWatcher
    schemas: SchemaRegistry
    s3: Any
    clock_ms: Callable[[], float]

    def __call__(self, event: dict[str, Any]) -> Result:
        """Work off `event`. Raises what Redis and S3 raise, and when the store is full or went back in time:
        the event is then to be tried again as it is."""
        result, started_ms = Result(), self.clock_ms()
        by_symbol: dict[str, Batches] = {}
        unusable: list[tuple[StreamRecord, str]] = []
        for record in records_in(event):
            result.records += 1
            if batch := self._decode(record, unusable, result):
                by_symbol.setdefault(batch.symbol, []).append((record, batch))
        if by_symbol:
            self._fold_and_write(by_symbol, _Invocation(started_ms, self._current_model(result)), result)
        self._keep([*unusable, *result.refused], result)  # only now: nobody waits for S3
        self._tell_of_models(result)
        self.models.poll()  # only now: nobody waits for what comes after the writing
        return result

    def _decode(
        self, record: StreamRecord, unusable: list[tuple[StreamRecord, str]], result: Result
    ) -> wire.TickBatch | None:
        try:
            batch, refused, reason = self.schemas.read(record)
            if batch.symbol not in self.settings.symbols:
                raise wire.WireError(
                    f"symbol {batch.symbol!r} is not one of {', '.join(self.settings.symbols)}"
                )
        except wire.WireError as error:
            unusable.append((record, str(error)))
            return None
        except _OUT_OF_REACH:
            raise
        except Exception as error:  # whatever a record can do, it does to itself alone
            unusable.append((record, describe(error)))
            return None
        if refused:
            unusable.append((rows_of(record, refused), reason))
        elif reason:  # only a claim or a notice was refused: there are no ticks to keep
            result.problems.append(reason)
        return batch

    def _fold_and_write(self, by_symbol: dict[str, Batches], invocation: _Invocation, result: Result) -> None:
        """All symbols at once; then one by one those on which something raised."""
        states, problems = self.store.load(list(by_symbol))
        result.problems += problems
        folded: list[_Folded] = []
        failed: dict[str, str] = {}  # by symbol, what raised
        for symbol, batches in by_symbol.items():
            try:
                folded.append(self._fold(states[symbol], batches, invocation))
            except Exception as error:
                failed[symbol] = _reason(symbol, error)
        result.repeated += sum(each.repeated for each in folded)
        failed |= self._write([each for each in folded if each.state.sequence != each.read_sequence], result)
        for symbol, reason in failed.items():
            result.failed.append(symbol)
            result.problems.append(f"{reason}; its records are folded singly")
            self._write([self._fold_singly(symbol, by_symbol[symbol], invocation, result)], result)

    def _fold(self, state: SymbolState, batches: Batches, invocation: _Invocation) -> _Folded:
        """Apply `batches`, in order; records at or below the fence were applied before."""
        folded, ring, memory = _Folded(state), state.ring, state.memory
        late_before = ring.late_count
        for record, batch in batches:
            if record.sequence <= state.sequence:
                folded.repeated += 1
                continue
            for instant_us in ring.fold(batch, PREDICT_EVERY_US):
                # First what became of earlier predictions: the next one is calibrated by it.
                folded.outcomes += memory.resolve(instant_us, lambda us: mid_at(ring.bars, us))
                if prediction := self._predict(folded, record, invocation):
                    memory.expect(prediction)
                    folded.predictions.append(prediction)
                    state.failures, state.failure = 0, None
            if ring.refused:
                folded.refused.append(_taken_out(ring, record, batch))
            state.sequence = record.sequence
            folded.ticks += batch.tick_count
        folded.late = ring.late_count - late_before
        folded.writes.heartbeat(f"{FEED}:{state.symbol}", _feed_heartbeat(state, batches))
        return folded

    def _fold_singly(self, symbol: str, batches: Batches, invocation: _Invocation, result: Result) -> _Folded:
        """Apply `batches` one by one, each up to what is written of it, and leave out those that raise."""
        state = self.store.load([symbol])[0][symbol]
        whole = _Folded(state)
        for record, batch in batches:
            if record.sequence <= state.sequence:
                result.repeated += 1
                continue
            before = deepcopy(state)
            try:
                whole.add(self._finished(state, record, batch, invocation))
                continue
            except Exception as error:
                state, reason = before, _reason(symbol, error)
            if self._is_sound(batch):
                state.failures, state.failure = state.failures + 1, reason
                if state.failures >= TRIES or not _is_storable(state):
                    state = self._start_over(state, whole, result)
                    try:
                        whole.add(self._finished(state, record, batch, invocation))
                        continue
                    except Exception:  # not even what is recalled will do
                        state = SymbolState(symbol, BarRing(self.settings.lateness_us), failure=reason)
            state.sequence = record.sequence
            self._set_aside(record, reason, result)
        whole.state = state
        whole.writes.heartbeat(f"{SERVICE}:{symbol}", self._heartbeat(state, self.clock_ms()))
        whole.data = encode_state(state)
        return whole

    def _finished(
        self, state: SymbolState, record: StreamRecord, batch: wire.TickBatch, invocation: _Invocation
    ) -> _Folded:
        """What one record comes to, finished; raises if the state could not be stored then."""
        folded = self._fold(state, [(record, batch)], invocation)
        self._finish(folded, self.clock_ms())
        folded.data = encode_state(state)
        return folded

    def _is_sound(self, batch: wire.TickBatch) -> bool:
        """Whether `batch` can be folded where nothing was before it."""
        ring = BarRing(self.settings.lateness_us)
        try:
            for _ in ring.fold(batch, PREDICT_EVERY_US):
                features_record(batch.symbol, ring)
        except Exception:
            return False
        return True

    def _start_over(self, state: SymbolState, whole: _Folded, result: Result) -> SymbolState:
        """Set `state` aside: as it was stored, with why. The one that takes its place knows what receipts and
        ledger know, and of the predictions in `whole`, which are still to be written."""
        symbol, sequence, reason = state.symbol, state.sequence, str(state.failure)
        stored = self.store.stored_state(symbol)
        quarantine_state(self.s3, self.settings.bucket, SERVICE, symbol, sequence, stored, reason)
        result.started_over.append(symbol)
        result.problems.append(f"{symbol}: its state is set aside, its bars are warmed up anew")
        state = self.store.recall(symbol)
        state.sequence, state.failure = sequence, reason
        for prediction in whole.predictions:
            state.memory.expect(prediction)
        return state

    def _keep(self, bad: list[tuple[StreamRecord, str]], result: Result) -> None:
        """Put records into quarantine once everything else is written. The event is not repeated for S3's
        sake: that would hold up every symbol, and find the records applied."""
        result.quarantined += [reason for _, reason in bad]
        for kept, (record, reason) in enumerate(bad):
            try:
                quarantine(self.s3, self.settings.bucket, SERVICE, record, reason)
            except (*_OUT_OF_REACH, OSError) as error:
                taken = f"quarantine: S3 took {kept} of {len(bad)} records ({describe(error)})"
                result.problems.append(f"{taken}; not kept: {reason}")
                return  # each try may take seconds

    def _set_aside(self, record: StreamRecord, reason: str, result: Result) -> None:
        quarantine(self.s3, self.settings.bucket, SERVICE, record, reason)
        result.quarantined.append(reason)

    def _current_model(self, result: Result) -> ServingModel | None:
        try:
            return self.models.current()
        except Exception as error:  # without a model there are fallbacks, and all else
            result.problems.append(f"the model: {describe(error)}")
            result.model_refused = True
            return None

    def _predict(self, folded: _Folded, record: StreamRecord, invocation: _Invocation) -> Record | None:
        """The prediction as of the bar just closed by `record`; None while nothing at all is known."""
        closed_ms = self.clock_ms()
        ring, memory = folded.state.ring, folded.state.memory
        features = features_record(folded.state.symbol, ring)
        if features is None:
            return None
        bar, end_us = ring.bars[-1], int(ring.bars[-1]["end_us"])
        last_trade_us, last_quote_us = int(bar["last_trade_us"]), int(bar["last_quote_us"])
        # By which readers judge how old it is (`prediction.freshness`).
        features["last_tick_us"] = max(last_trade_us, last_quote_us)
        features["quiet_us"] = ring.watermark.quiet_us if ring.watermark.quiet_us >= 0 else None
        folded.writes.features(features, self.settings.features_ttl_s)
        featured_ms = self.clock_ms()
        model, started_ms = invocation.model, invocation.started_ms
        prediction = prediction_record(
            features, model, self.models.refusal, memory, self._terms, self.clock_ms, folded.problems.append
        )
        inferred_ms = self.clock_ms()
        self._add_challenger(prediction, folded)
        prediction |= {
            "late_ids": ring.trade_ids.late_ids,
            "late_update_ids": ring.quote_ids.late_ids,
            "trade_age_ms": (end_us - last_trade_us) // 1000 if last_trade_us else None,
            "quote_age_ms": (end_us - last_quote_us) // 1000 if last_quote_us else None,
            "feature_age_ms": (end_us - max(last_trade_us, last_quote_us)) // 1000,
            "history_from_us": ring.history_from_us,
            "sequence": record.sequence_text,
        }
        ring.trade_ids.late_ids, ring.quote_ids.late_ids = [], []
        lateness_ms, arrived_ms = self.settings.lateness_us / 1000, record.arrived_s * 1000
        prediction["timing_ms"] = {
            "lateness": lateness_ms,
            "to_kinesis": arrived_ms - prediction["timestamp"] - lateness_ms,
            "to_function": started_ms - arrived_ms,
            "fold": closed_ms - started_ms,
            "features": featured_ms - closed_ms,
            "inference": inferred_ms - featured_ms,
            "challenger": self.clock_ms() - inferred_ms,
        }
        return prediction

    def _add_challenger(self, prediction: Record, folded: _Folded) -> None:
        """What the challenger says of the same vector, where the model in force said something. Whatever
        goes wrong with it goes wrong in its shadow."""
        challenger, memory = self.models.challenger, folded.state.memory
        if challenger and prediction["horizons"]:
            try:
                prediction["challenger"] = challenger_record(prediction, challenger, memory)
            except Exception as error:  # onnxruntime raises its own classes, with no common base
                reason = describe(error.__cause__ or error)
                folded.problems.append(f"challenger {challenger.model_id}: {reason}")
                folded.challenger_failed = True
        # A challenger keeps them while the pointer names it: through fallbacks, and when it cannot be loaded.
        if prediction["model_id"] and (challenger or not self.models.challenger_problem):
            named = [challenger.model_id] if challenger else []
            memory.keep_calibrators([prediction["model_id"], *named])

    def _write(self, folded: list[_Folded], result: Result) -> dict[str, str]:
        """Finish the records by what only the moment of writing knows, and write all symbols at once.
        Returns those of which something could not be finished, and why: nothing of them is written."""
        now_ms = self.clock_ms()
        failed: dict[str, str] = {}
        commits: dict[str, Commit] = {}
        for each in folded:
            try:
                if each.data is None:
                    self._finish(each, now_ms)
                    each.data = encode_state(each.state)
            except Exception as error:
                failed[each.state.symbol] = _reason(each.state.symbol, error)
            else:
                commits[each.state.symbol] = Commit(each.state, each.read_sequence, each.writes, each.data)
        ready = [each for each in folded if each.state.symbol in commits]
        for each, is_written in zip(ready, self.store.commit_all(list(commits.values())), strict=True):
            if not is_written:
                result.fenced.append(each.state.symbol)
                continue
            result.ticks += each.ticks
            result.late += each.late
            result.predictions += each.predictions
            result.outcomes += each.outcomes
            result.refused += each.refused
            result.problems += each.problems
            result.challenger_refused |= each.challenger_failed
            if each.predictions:
                result.missing_trades[each.state.symbol] = each.state.ring.gaps.trades
        return failed

    def _finish(self, folded: _Folded, now_ms: float) -> None:
        state, writes = folded.state, folded.writes
        for prediction in folded.predictions:
            latency_ms, timing = now_ms - prediction["timestamp"], prediction["timing_ms"]
            timing["write"] = latency_ms - sum(timing.values())
            prediction["timing_ms"] = {name: round(spent_ms, 3) for name, spent_ms in timing.items()}
            prediction["latency_ms"] = round(latency_ms)
            writes.prediction(prediction)
        note_latency([*state.memory.pending, *folded.outcomes], now_ms)
        for outcome in folded.outcomes:
            writes.outcome(outcome)
        if folded.predictions:  # once a second is often enough for a ledger
            writes.gaps(state.symbol, state.ring.gaps.record())
        writes.heartbeat(f"{SERVICE}:{state.symbol}", self._heartbeat(state, now_ms))

    def _heartbeat(self, state: SymbolState, now_ms: float) -> Record:
        ring, reason = state.ring, state.memory.reason
        return {
            "at_ms": round(now_ms),
            "watermark_ms": ring.watermark.reached_us // 1000,
            "received_ms": ring.received_us // 1000,
            "late_trades": ring.trade_ids.late_count,
            "late_quotes": ring.quote_ids.late_count,
            "missing_trades": ring.gaps.trades,
            "quote_gaps": len(ring.gaps.quote_gaps),
            "refused_trades": ring.trade_ids.refused_count,
            "refused_quotes": ring.quote_ids.refused_count,
            "id_restarts": len(ring.gaps.restarts),
            "reason": reason,  # of the newest prediction
            "warming_since_ms": ring.history_from_us // 1000 if reason == WARMING_UP else None,
            "model_problem": self.models.problem,
            "challenger_problem": self.models.challenger_problem,
            "failure": state.failure,
        }

    def _tell_of_models(self, result: Result) -> None:
        if not result.predictions:  # once a second is often enough
            return
        problems = (self.models.problem, self.models.challenger_problem)
        result.problems += [problem for problem in problems if problem]
        gave_no_numbers = (each["reason"] == MODEL_REFUSED for each in result.predictions)
        result.model_refused |= self.models.is_refused or any(gave_no_numbers)
        result.challenger_refused |= self.models.challenger_problem is not None

    @property
    def _terms(self) -> TradingTerms:
        settings = self.settings
        return TradingTerms(settings.primary_horizon_s, settings.fee_bp, settings.min_confidence)


def _taken_out(ring: BarRing, record: StreamRecord, batch: wire.TickBatch) -> tuple[StreamRecord, str]:
    """What the ring took out of its series of ids, as a record of its own, and why."""
    refused, ring.refused = ring.refused, []
    rows = {dtype: [each.row for each in refused if each.dtype == dtype] for dtype in (TRADE, QUOTE)}
    reason = f"{batch.symbol}: {'; '.join(sorted({each.reason for each in refused}))} ({len(refused)})"
    kept = batch._replace(
        trades=np.array(rows[TRADE], TRADE), quotes=np.array(rows[QUOTE], QUOTE), notices=()
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


def _feed_heartbeat(state: SymbolState, batches: Batches) -> Record:
    """What the newest batches say of who sent them. A watermark (the claim to be connected, and caught up to
    that instant) that does not move is how ingest says that it is neither."""
    record, batch = batches[-1]
    return {
        "at_ms": round(record.arrived_s * 1000),
        "received_ms": round(record.arrived_s * 1000),
        "watermark_ms": state.ring.watermark.reached_us // 1000,
        "source": batch.source,
        "connections": sorted({batch.connection for _, batch in batches}),
    }
