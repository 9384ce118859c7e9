"""The hot path: Kinesis records into bars, features, predictions and their outcomes, in one invocation.

Read the states of the event's symbols in one round trip; fold every record in order; write every symbol's
state, features, predictions and outcomes in another, by one fenced script for each. Nothing is written before
everything was folded, so an infrastructure fault fails the invocation as a whole and the retry starts from
the same state; records already applied are recognised by their sequence number.

Any other exception affects its symbol only. The other symbols are written first; then its records are folded
one by one, and one that raises goes into quarantine. Where a record is sound by itself, the state may be at
fault: at the third such record (`TRIES`) without a prediction in between the state goes into quarantine
instead, and the symbol starts over from its receipts and its gap ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError
from msgspec.structs import replace

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
from tickcast.serving.outcomes import UNRESOLVED, PendingPredictions, mid_at, note_latency
from tickcast.serving.prediction import (
    MODEL_REFUSED,
    PREDICT_EVERY_US,
    WARMING_UP,
    ServingModel,
    TradingTerms,
    challenger_record,
    features_record,
    prediction_record,
    timing_of,
)
from tickcast.serving.records import (
    ChallengerForecast,
    FeedHeartbeat,
    Outcome,
    Prediction,
    StreamHeartbeat,
)
from tickcast.serving.state import SymbolState, encode_state

SERVICE = "predict_stream"
FEED = "ingest_ecs"  # its heartbeat comes in its batches: it cannot reach Redis

TRIES = 3  # sound records that a state fails on, without a prediction in between, before it is quarantined
MAX_REASON = 500  # characters
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
    outcomes: list[Outcome] = field(default_factory=list)  # of earlier predictions
    missing_trades: dict[str, int] = field(default_factory=dict)  # by symbol, where something was predicted
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

    def counts(self) -> dict[str, int]:
        """What did not go as it should, by the names of the metrics."""
        return {
            "LateTicks": self.late,
            "UnresolvedOutcomes": sum(outcome.status == UNRESOLVED for outcome in self.outcomes),
            "ModelRefused": self.model_refused,
            "ChallengerRefused": self.challenger_refused,
            "Quarantined": len(self.quarantined),
            "Fenced": len(self.fenced),
            "SymbolFailures": len(self.failed),
            "StartedOver": len(self.started_over),
        }


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
        self.result = Result()
        self.writes = Writes()
        self.points_ms: list[list[float]] = []  # of each prediction, for `timing_of`
        self.data = b""  # the state encoded, once all else is finished

    def add(self, more: _Folded) -> None:
        """Append the next record, finished."""
        self.state = more.state
        self.result.add(more.result)
        self.writes.put += more.writes.put
        self.writes.append += more.writes.append


@dataclass
class PredictStream:
    settings: PredictStreamSettings
    store: HotStore
    models: ModelWatcher
    schemas: SchemaRegistry
    s3: Any
    clock_ms: Callable[[], float]

    def __call__(self, event: dict[str, Any]) -> Result:
        """Process `event`. Raises what Redis and S3 raise, and when the store is full or went back in time:
        the event is then to be retried unchanged."""
        started_ms = self.clock_ms()
        records = records_in(event)
        result = Result(records=len(records))
        by_symbol = self._decode(records, result)
        if by_symbol:
            self._fold_and_write(by_symbol, _Invocation(started_ms, self._active_model(result)), result)
        # S3 and the models come last: no prediction waits for them.
        self._quarantine(result)
        self._note_model_problems(result)
        self.models.poll()
        return result

    # ------------------------------------------------------------------------------------------ records

    def _decode(self, records: list[StreamRecord], result: Result) -> dict[str, Batches]:
        """The batches of each symbol, in order; what is refused of the records goes to `result`."""
        by_symbol: dict[str, Batches] = {}
        for record in records:
            try:
                batch, rows, reason = self.schemas.read(record)
                if batch.symbol not in self.settings.symbols:
                    raise wire.WireError(
                        f"symbol {batch.symbol!r} is not one of {', '.join(self.settings.symbols)}"
                    )
            except wire.WireError as error:
                result.refused.append((record, str(error)))
                continue
            except _OUT_OF_REACH:
                raise
            except Exception as error:  # whatever is wrong with a record concerns that record alone
                result.refused.append((record, describe(error)))
                continue
            if rows:
                result.refused.append((rows_of(record, rows), reason))
            elif reason:  # only a claim or a notice was refused: there are no ticks to keep
                result.problems.append(reason)
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

    # ------------------------------------------------------------------------------------------ symbols

    def _fold_and_write(self, by_symbol: dict[str, Batches], invocation: _Invocation, result: Result) -> None:
        """All symbols at once; then, one by one, those on which something raised."""
        states, problems = self.store.load(list(by_symbol))
        result.problems += problems
        ready: list[_Folded] = []
        failed: dict[str, str] = {}  # by symbol, what raised
        for symbol, batches in by_symbol.items():
            try:
                folded = self._fold(states[symbol], batches, invocation)
            except Exception as error:
                failed[symbol] = _reason(symbol, error)
                continue
            result.repeated += folded.repeated
            if folded.state.sequence != folded.read_sequence:
                ready.append(folded)
        failed |= self._write(ready, result)
        for symbol, reason in failed.items():
            result.failed.append(symbol)
            result.problems.append(f"{reason}; its records are folded singly")
            self._write([self._fold_singly(symbol, by_symbol[symbol], invocation, result)], result)

    def _fold(self, state: SymbolState, batches: Batches, invocation: _Invocation) -> _Folded:
        """Apply `batches`, in order; records at or below the fence were applied before."""
        folded, ring = _Folded(state), state.ring
        result, late_before = folded.result, ring.late_count
        for record, batch in batches:
            if record.sequence <= state.sequence:
                folded.repeated += 1
                continue
            for instant_us in ring.fold(batch, PREDICT_EVERY_US):
                # First the outcomes of earlier predictions: the next one is calibrated by them.
                result.outcomes += state.pending.resolve(instant_us, lambda us: mid_at(ring.bars, us))
                self._predict(folded, record, invocation)
            if ring.refused:
                result.refused.append(_take_refused(ring, record, batch))
            state.sequence = record.sequence
            result.ticks += batch.tick_count
        result.late = ring.late_count - late_before
        folded.writes.heartbeat(FEED, state.symbol, _feed_heartbeat(state, batches))
        return folded

    def _write(self, folded: list[_Folded], result: Result) -> dict[str, str]:
        """Finish what only the moment of writing decides, write all symbols at once, and add those written to
        `result`. Returns by symbol why others could not be finished: nothing of them is written."""
        now_ms = self.clock_ms()
        unfinished: dict[str, str] = {}
        ready: list[_Folded] = []
        for each in folded:
            try:
                each.data = each.data or self._finish(each, now_ms)
            except Exception as error:
                unfinished[each.state.symbol] = _reason(each.state.symbol, error)
            else:
                ready.append(each)
        commits = [Commit(each.state, each.read_sequence, each.writes, each.data) for each in ready]
        for each, is_written in zip(ready, self.store.commit_all(commits), strict=True):
            symbol = each.state.symbol
            if not is_written:
                result.fenced.append(symbol)
                continue
            result.add(each.result)
            if each.result.predictions:
                result.missing_trades[symbol] = each.state.ring.gaps.trades
        return unfinished

    def _finish(self, folded: _Folded, now_ms: float) -> bytes:
        """Enter the latencies, and add all records to what is written. Returns the state's bytes; raises if
        it or a record cannot be stored."""
        state, writes, result = folded.state, folded.writes, folded.result
        for prediction, points_ms in zip(result.predictions, folded.points_ms, strict=True):
            prediction.latency_ms = round(now_ms - prediction.timestamp)
            prediction.timing_ms = timing_of([*points_ms, now_ms])
            writes.prediction(prediction)
        note_latency([*state.pending.pending, *result.outcomes], now_ms)
        for outcome in result.outcomes:
            writes.outcome(outcome)
        if result.predictions:  # once a second is often enough for a ledger
            writes.gaps(state.symbol, state.ring.gaps.record())
        writes.heartbeat(SERVICE, state.symbol, self._heartbeat(state, now_ms))
        return encode_state(state)

    def _heartbeat(self, state: SymbolState, now_ms: float) -> StreamHeartbeat:
        ring, reason = state.ring, state.pending.reason
        return StreamHeartbeat(
            at_ms=round(now_ms),
            watermark_ms=ring.watermark.reached_us // 1000,
            received_ms=ring.received_us // 1000,
            late_trades=ring.trade_ids.late_count,
            late_quotes=ring.quote_ids.late_count,
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
        )

    # ------------------------------------------------------------------------------------------ predictions

    def _predict(self, folded: _Folded, record: StreamRecord, invocation: _Invocation) -> None:
        """Add the prediction as of the bar just closed by `record`; none while neither a trade nor a quote is
        known."""
        state, result, settings = folded.state, folded.result, self.settings
        closed_ms = self.clock_ms()
        features = features_record(state.symbol, state.ring)
        if features is None:
            return
        featured_ms = self.clock_ms()
        prediction = prediction_record(
            features,
            invocation.model,
            self.models.refusal,
            state.pending,
            TradingTerms(settings.primary_horizon_s, settings.fee_bp, settings.min_confidence),
            self.clock_ms,
            result.problems.append,
        )
        inferred_ms = self.clock_ms()
        challenger = self._challenger(prediction, state.pending, result)
        prediction = _receipt(replace(prediction, challenger=challenger), state.ring, record)
        end_ms = prediction.timestamp
        folded.points_ms.append(
            [
                end_ms,
                end_ms + settings.lateness_us / 1000,
                record.arrived_s * 1000,
                invocation.started_ms,
                closed_ms,
                featured_ms,
                inferred_ms,
                self.clock_ms(),
            ]
        )
        folded.writes.features(features, settings.features_ttl_s)
        result.predictions.append(prediction)
        state.pending.expect(prediction)
        state.failures, state.failure = 0, None

    def _challenger(
        self, prediction: Prediction, pending: PendingPredictions, result: Result
    ) -> ChallengerForecast | None:
        """What the challenger forecasts on the same vector, where the active model made a forecast. If that
        raises, the prediction is made all the same."""
        challenger, forecast = self.models.challenger, None
        if challenger and prediction.horizons:
            try:
                forecast = challenger_record(prediction, challenger, pending)
            except Exception as error:  # onnxruntime raises its own classes, with no common base
                cause = describe(error.__cause__ or error)
                result.problems.append(f"challenger {challenger.model_id}: {cause}")
                result.challenger_refused = True
        # A challenger keeps them while the pointer names it: through fallbacks, and when it cannot be loaded.
        if prediction.model_id and (challenger or not self.models.challenger_problem):
            named = [challenger.model_id] if challenger else []
            pending.keep_calibrators([prediction.model_id, *named])
        return forecast

    def _active_model(self, result: Result) -> ServingModel | None:
        try:
            return self.models.current()
        except Exception as error:  # without a model there are fallbacks, and all else
            result.problems.append(f"the model: {describe(error)}")
            result.model_refused = True
            return None

    def _note_model_problems(self, result: Result) -> None:
        if not result.predictions:  # once a second is often enough
            return
        problems = (self.models.problem, self.models.challenger_problem)
        result.problems += [problem for problem in problems if problem]
        refused = self.models.is_refused or any(p.reason == MODEL_REFUSED for p in result.predictions)
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
                reason, unwritten = _reason(symbol, error), whole.result.predictions
                folded = self._recover(before, decoded, invocation, reason, unwritten, result)
            whole.add(folded)
        whole.writes.heartbeat(SERVICE, symbol, self._heartbeat(whole.state, self.clock_ms()))
        whole.data = encode_state(whole.state)
        return whole

    def _fold_one(self, state: SymbolState, decoded: Decoded, invocation: _Invocation) -> _Folded:
        """One record, folded and finished; raises if the state could not be stored then."""
        folded = self._fold(state, [decoded], invocation)
        self._finish(folded, self.clock_ms())
        return folded

    def _recover(
        self,
        state: SymbolState,
        decoded: Decoded,
        invocation: _Invocation,
        reason: str,
        unwritten: list[Prediction],
        result: Result,
    ) -> _Folded:
        """Continue from `state`, on which a record raised: without the record, or with it from a state that
        starts over. `unwritten` are the predictions made since the last write."""
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
            for _ in ring.fold(batch, PREDICT_EVERY_US):
                features_record(batch.symbol, ring)
        except Exception:
            return False
        return True

    def _start_over(self, state: SymbolState, unwritten: list[Prediction], result: Result) -> SymbolState:
        """Put `state` into quarantine as it was stored, with the reason. Returns one recalled from receipts,
        gap ledger and the predictions not written yet."""
        symbol, sequence, reason = state.symbol, state.sequence, str(state.failure)
        stored = self.store.stored_state(symbol)
        quarantine_state(self.s3, self.settings.bucket, SERVICE, symbol, sequence, stored, reason)
        state = self.store.recall(symbol)
        state.sequence, state.failure = sequence, reason
        for prediction in unwritten:
            state.pending.expect(prediction)
        result.started_over.append(symbol)
        result.problems.append(f"{symbol}: its state is set aside, its bars are warmed up again")
        return state


def _receipt(prediction: Prediction, ring: BarRing, record: StreamRecord) -> Prediction:
    """`prediction` with what only the stream knows. Moves the late ids out of the ring."""
    bar = ring.bars[-1]
    end_us, trade_us, quote_us = (int(bar[name]) for name in ("end_us", "last_trade_us", "last_quote_us"))
    late_ids, late_update_ids = ring.trade_ids.late_ids, ring.quote_ids.late_ids
    ring.trade_ids.late_ids, ring.quote_ids.late_ids = [], []
    return replace(
        prediction,
        late_ids=late_ids,
        late_update_ids=late_update_ids,
        trade_age_ms=(end_us - trade_us) // 1000 if trade_us else None,
        quote_age_ms=(end_us - quote_us) // 1000 if quote_us else None,
        feature_age_ms=(end_us - max(trade_us, quote_us)) // 1000,
        history_from_us=ring.history_from_us,
        sequence=record.sequence_text,
    )


def _take_refused(ring: BarRing, record: StreamRecord, batch: wire.TickBatch) -> tuple[StreamRecord, str]:
    """The ticks that the ring refused by their ids, as a record of their own, and why."""
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
