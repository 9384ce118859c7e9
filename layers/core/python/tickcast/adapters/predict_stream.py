"""The hot path: Kinesis records into bars, features and predictions, all within one invocation.

Read the states of the event's symbols in one round trip; fold every record in order; write each symbol's
state, features and predictions in one fenced script. Nothing is written before everything was folded, so
an infrastructure fault fails the invocation as a whole and the repeat starts from the same state; records
already applied are recognised by their sequence number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tickcast import wire
from tickcast.adapters.hot_store import HotStore, Writes
from tickcast.adapters.kinesis import StreamRecord, records_in
from tickcast.adapters.model_store import ModelFollower
from tickcast.adapters.quarantine import quarantine
from tickcast.adapters.schema_book import SchemaBook
from tickcast.adapters.settings import Settings
from tickcast.prediction import PREDICT_EVERY_US, features_record, prediction_record
from tickcast.state import SymbolState

SERVICE = "predict_stream"


@dataclass
class Outcome:
    """What an event came to: for the log, the metrics and the tests."""

    records: int = 0
    repeated: int = 0  # records applied before
    ticks: int = 0
    late: int = 0
    fenced: list[str] = field(default_factory=list)  # symbols another invocation was ahead with
    predictions: list[dict[str, Any]] = field(default_factory=list)
    missing_trades: dict[str, int] = field(default_factory=dict)  # by symbol, where something was predicted
    quarantined: list[str] = field(default_factory=list)  # reasons
    problems: list[str] = field(default_factory=list)


@dataclass
class PredictStream:
    settings: Settings
    store: HotStore
    models: ModelFollower
    schemas: SchemaBook
    s3: Any
    clock_ms: Callable[[], float]

    def __call__(self, event: dict[str, Any]) -> Outcome:
        outcome = Outcome()
        batches = [
            (record, batch) for record in records_in(event) if (batch := self._decode(record, outcome))
        ]
        symbols = list(dict.fromkeys(batch.symbol for _, batch in batches))
        states, problems = self.store.load(symbols) if symbols else ({}, [])
        outcome.problems += problems
        for symbol in symbols:
            mine = [(record, batch) for record, batch in batches if batch.symbol == symbol]
            self._fold(states[symbol], mine, outcome)
        if self.models.problem:
            outcome.problems.append(self.models.problem)
        return outcome

    def _decode(self, record: StreamRecord, outcome: Outcome) -> wire.TickBatch | None:
        outcome.records += 1
        try:
            batch = self.schemas.read(record)
            if batch.symbol not in self.settings.symbols:
                raise wire.WireError(
                    f"symbol {batch.symbol!r} is not one of {', '.join(self.settings.symbols)}"
                )
        except wire.WireError as error:
            quarantine(self.s3, self.settings.bucket, SERVICE, record, str(error))
            outcome.quarantined.append(str(error))
            return None
        return batch

    def _fold(
        self, state: SymbolState, batches: list[tuple[StreamRecord, wire.TickBatch]], outcome: Outcome
    ) -> None:
        """Apply `batches`, in order, and commit; records at or below the fence were applied before."""
        read_sequence, ring, writes = state.sequence, state.ring, Writes()
        late_before = ring.late_trades + ring.late_quotes
        predictions = []
        for record, batch in batches:
            if record.sequence <= state.sequence:
                outcome.repeated += 1
                continue
            for _ in ring.fold(batch, PREDICT_EVERY_US):
                prediction = self._predict(state, writes)
                if prediction:
                    predictions.append(prediction)
            state.sequence = record.sequence
            outcome.ticks += batch.tick_count
        if state.sequence == read_sequence:
            return
        self._finish(state, predictions, writes)
        if self.store.commit(state, read_sequence, writes):
            outcome.predictions += predictions
            if predictions:
                outcome.missing_trades[state.symbol] = ring.gaps.trades
            outcome.late += ring.late_trades + ring.late_quotes - late_before
        else:
            outcome.fenced.append(state.symbol)

    def _predict(self, state: SymbolState, writes: Writes) -> dict[str, Any] | None:
        """The prediction as of the bar just closed; None while nothing at all is known."""
        ring = state.ring
        features = features_record(state.symbol, ring)
        if features is None:
            return None
        writes.features(features, self.settings.features_ttl_s)
        model = self.models.current()
        horizon_s = self.settings.primary_horizon_s
        prediction = prediction_record(features, model, self.models.refusal, horizon_s, self.clock_ms)
        prediction["late_ids"], ring.late_ids = ring.late_ids, []
        prediction["feature_age_ms"] = max(0, features["timestamp"] * 1000 - _newest_tick_ms(ring.bars[-1]))
        return prediction

    def _finish(self, state: SymbolState, predictions: list[dict[str, Any]], writes: Writes) -> None:
        """What only the moment of writing knows: the latency, and that this service is alive."""
        now_ms = self.clock_ms()
        for prediction in predictions:
            prediction["latency_ms"] = round(now_ms - prediction["timestamp"])
            writes.prediction(prediction)
        if predictions:  # once a second is often enough for a ledger
            writes.gaps(state.symbol, state.ring.gaps.record())
        writes.heartbeat(
            f"{SERVICE}:{state.symbol}",
            {
                "at_ms": round(now_ms),
                "watermark_ms": state.ring.watermark_us // 1000,
                "received_ms": state.ring.received_us // 1000,
                "late_trades": state.ring.late_trades,
                "late_quotes": state.ring.late_quotes,
                "missing_trades": state.ring.gaps.trades,
                "quote_gaps": len(state.ring.gaps.quote_gaps),
                "model_problem": self.models.problem,
            },
        )


def _newest_tick_ms(bar: Any) -> int:
    return int(max(bar["last_trade_us"], bar["last_quote_us"])) // 1000
