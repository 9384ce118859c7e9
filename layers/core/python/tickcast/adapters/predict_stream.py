"""The hot path: Kinesis records into bars, features, predictions and their outcomes, in one invocation.

Read the states of the event's symbols in one round trip; fold every record in order; write every symbol's
state, features, predictions and outcomes in another, by one fenced script for each. Nothing is written before
everything was folded, so an infrastructure fault fails the invocation as a whole and the repeat starts from
the same state; records already applied are recognised by their sequence number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tickcast import wire
from tickcast.adapters.hot_store import Commit, HotStore, Writes
from tickcast.adapters.kinesis import StreamRecord, records_in
from tickcast.adapters.model_store import ModelFollower
from tickcast.adapters.quarantine import quarantine
from tickcast.adapters.redaction import describe
from tickcast.adapters.schema_book import SchemaBook
from tickcast.adapters.settings import Settings
from tickcast.outcomes import UNRESOLVED, mid_at, note_latency
from tickcast.prediction import (
    PREDICT_EVERY_US,
    WARMING_UP,
    Record,
    Terms,
    challenger_record,
    features_record,
    prediction_record,
)
from tickcast.state import SymbolState

SERVICE = "predict_stream"
FEED = "ingest_ecs"  # shows signs of life only in its batches: it cannot reach Redis

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
    quarantined: list[str] = field(default_factory=list)  # reasons
    problems: list[str] = field(default_factory=list)
    model_refused: bool = False
    challenger_refused: bool = False

    @property
    def unresolved(self) -> int:
        return sum(outcome["status"] == UNRESOLVED for outcome in self.outcomes)


class _Folded:
    """What the records of a symbol come to, until it is written."""

    def __init__(self, state: SymbolState) -> None:
        self.state = state
        self.read_sequence = state.sequence
        self.late_before = state.ring.late_trades + state.ring.late_quotes
        self.ticks = 0
        self.writes = Writes()
        self.predictions: list[Record] = []
        self.outcomes: list[Record] = []

    @property
    def late(self) -> int:
        return self.state.ring.late_trades + self.state.ring.late_quotes - self.late_before


@dataclass
class PredictStream:
    settings: Settings
    store: HotStore
    models: ModelFollower
    schemas: SchemaBook
    s3: Any
    clock_ms: Callable[[], float]

    def __call__(self, event: dict[str, Any]) -> Result:
        result, started_ms = Result(), self.clock_ms()
        by_symbol: dict[str, Batches] = {}
        for record in records_in(event):
            if batch := self._decode(record, result):
                by_symbol.setdefault(batch.symbol, []).append((record, batch))
        if by_symbol:
            states, problems = self.store.load(list(by_symbol))
            result.problems += problems
            folded = [
                self._fold(states[symbol], batches, started_ms, result)
                for symbol, batches in by_symbol.items()
            ]
            self._write([each for each in folded if each.state.sequence != each.read_sequence], result)
        self._tell_of_models(result)
        self.models.follow()  # only now: nobody waits for what comes after the writing
        return result

    def _decode(self, record: StreamRecord, result: Result) -> wire.TickBatch | None:
        result.records += 1
        try:
            batch = self.schemas.read(record)
            if batch.symbol not in self.settings.symbols:
                raise wire.WireError(
                    f"symbol {batch.symbol!r} is not one of {', '.join(self.settings.symbols)}"
                )
        except wire.WireError as error:
            quarantine(self.s3, self.settings.bucket, SERVICE, record, str(error))
            result.quarantined.append(str(error))
            return None
        return batch

    def _fold(self, state: SymbolState, batches: Batches, started_ms: float, result: Result) -> _Folded:
        """Apply `batches`, in order; records at or below the fence were applied before."""
        folded, ring, memory = _Folded(state), state.ring, state.memory
        for record, batch in batches:
            if record.sequence <= state.sequence:
                result.repeated += 1
                continue
            for instant_us in ring.fold(batch, PREDICT_EVERY_US):
                # First what became of earlier predictions: the next one is calibrated by it.
                folded.outcomes += memory.resolve(instant_us, lambda us: mid_at(ring.bars, us))
                if prediction := self._predict(folded, record, started_ms, result):
                    memory.expect(prediction)
                    folded.predictions.append(prediction)
            state.sequence = record.sequence
            folded.ticks += batch.tick_count
        folded.writes.heartbeat(f"{FEED}:{state.symbol}", _feed_heartbeat(state, batches))
        return folded

    def _predict(
        self, folded: _Folded, record: StreamRecord, started_ms: float, result: Result
    ) -> Record | None:
        """The prediction as of the bar just closed by `record`; None while nothing at all is known."""
        closed_ms = self.clock_ms()
        ring, memory = folded.state.ring, folded.state.memory
        features = features_record(folded.state.symbol, ring)
        if features is None:
            return None
        folded.writes.features(features, self.settings.features_ttl_s)
        featured_ms = self.clock_ms()
        model, terms = self.models.current(), self._terms
        prediction = prediction_record(features, model, self.models.refusal, memory, terms, self.clock_ms)
        inferred_ms = self.clock_ms()
        self._add_challenger(prediction, folded.state, result)
        bar, end_us = ring.bars[-1], int(ring.bars[-1]["end_us"])
        last_trade_us, last_quote_us = int(bar["last_trade_us"]), int(bar["last_quote_us"])
        prediction |= {
            "late_ids": ring.late_ids,
            "late_update_ids": ring.late_update_ids,
            "trade_age_ms": (end_us - last_trade_us) // 1000 if last_trade_us else None,
            "quote_age_ms": (end_us - last_quote_us) // 1000 if last_quote_us else None,
            "feature_age_ms": (end_us - max(last_trade_us, last_quote_us)) // 1000,
            "history_from_us": ring.history_from_us,
            "sequence": record.sequence_text,
        }
        ring.late_ids, ring.late_update_ids = [], []
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

    def _add_challenger(self, prediction: Record, state: SymbolState, result: Result) -> None:
        """What the challenger says of the same vector, where the model in force said something. Whatever
        goes wrong with it goes wrong in its shadow."""
        challenger = self.models.challenger
        if challenger and prediction["horizons"]:
            try:
                prediction["challenger"] = challenger_record(prediction, challenger, state.memory)
            except Exception as error:  # onnxruntime raises its own classes, with no common base
                result.problems.append(f"challenger {challenger.model_id}: {describe(error)}")
                result.challenger_refused = True
        # A challenger keeps them while the pointer names it: through fallbacks, and when it cannot be loaded.
        if prediction["model_id"] and (challenger or not self.models.challenger_problem):
            named = [challenger.model_id] if challenger else []
            state.memory.keep_calibrators([prediction["model_id"], *named])

    def _write(self, folded: list[_Folded], result: Result) -> None:
        """Finish the records by what only the moment of writing knows, and write all symbols at once."""
        now_ms = self.clock_ms()
        for each in folded:
            self._finish(each, now_ms)
        commits = [Commit(each.state, each.read_sequence, each.writes) for each in folded]
        for each, is_written in zip(folded, self.store.commit_all(commits), strict=True):
            if not is_written:
                result.fenced.append(each.state.symbol)
                continue
            result.ticks += each.ticks
            result.late += each.late
            result.predictions += each.predictions
            result.outcomes += each.outcomes
            if each.predictions:
                result.missing_trades[each.state.symbol] = each.state.ring.gaps.trades

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
            "watermark_ms": ring.watermark_us // 1000,
            "received_ms": ring.received_us // 1000,
            "late_trades": ring.late_trades,
            "late_quotes": ring.late_quotes,
            "missing_trades": ring.gaps.trades,
            "quote_gaps": len(ring.gaps.quote_gaps),
            "reason": reason,  # of the newest prediction
            "warming_since_ms": ring.history_from_us // 1000 if reason == WARMING_UP else None,
            "model_problem": self.models.problem,
            "challenger_problem": self.models.challenger_problem,
        }

    def _tell_of_models(self, result: Result) -> None:
        if not result.predictions:  # once a second is often enough
            return
        problems = (self.models.problem, self.models.challenger_problem)
        result.problems += [problem for problem in problems if problem]
        result.model_refused = self.models.is_refused
        result.challenger_refused |= self.models.challenger_problem is not None

    @property
    def _terms(self) -> Terms:
        settings = self.settings
        return Terms(settings.primary_horizon_s, settings.fee_bp, settings.min_confidence)


def _feed_heartbeat(state: SymbolState, batches: Batches) -> Record:
    """What the newest batches say of who sent them. A watermark (the newest claim to be connected, and caught
    up to that instant) that stands still is how ingest says that it is neither."""
    record, batch = batches[-1]
    return {
        "at_ms": round(record.arrived_s * 1000),
        "received_ms": round(record.arrived_s * 1000),
        "watermark_ms": state.ring.watermark_us // 1000,
        "source": batch.source,
        "connections": sorted({batch.connection for _, batch in batches}),
    }
