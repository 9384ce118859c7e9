"""Copy outcomes from the hot store into PostgreSQL, write their accuracy back, and check for drift.

Of each symbol a page of outcomes and one of predictions is copied at a time, in one transaction with the
position in both streams: exactly once, wherever it is interrupted. Then the newest hour, day and week are
scored from tallies and stored as the symbol's accuracy, which is all that the API reads; and the active model
is checked for drift. Where drift requires a training, the result says so and names the execution to start. It
says the same for ten minutes, so that a lost result does no harm, and since a name is accepted only once,
nothing starts twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import psycopg
import redis
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.lake.receipt_archive import ReceiptArchive
from tickcast.adapters.lake.signal_outbox import SignalOutbox
from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.score_store import ScoreStore, row_of
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import Entries, HotStore
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import RegistryError
from tickcast.adapters.registry.pointer import Pointer
from tickcast.adapters.settings import ScorePredictionsSettings, ScoreSettings
from tickcast.evaluation import drift
from tickcast.evaluation.challenger_scores import ChallengerAccuracy, score_challenger
from tickcast.evaluation.drift import DriftEvidence, DriftState
from tickcast.evaluation.earnings import earnings_by_horizon
from tickcast.evaluation.live_scores import (
    SPANS,
    AccuracySummary,
    Span,
    SpanAccuracy,
    availability,
    score,
    score_horizon,
    skill_against_line,
)
from tickcast.evaluation.regimes import NO_REGIMES
from tickcast.evaluation.steps import series
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions.archive_receipts import ArchiveReceipts
from tickcast.functions.archive_tallies import ArchiveTallies
from tickcast.model.card import Card
from tickcast.serving.records import Outcome, Prediction, ScoreHeartbeat, decode
from tickcast.serving.signals import SignalledDrift, drift_signal
from tickcast.units import DAY_US, HOUR_US, MINUTE_US, SECOND_US

SERVICE = "score_predictions"
_PAGE = 1000  # entries: of predictions, about 5 MB
_ENOUGH_MS = 15_000  # for a page, with a margin
_EVIDENCE_BLOCKS = 96
_FULL = 0.8  # of a window's seconds
_SETTLED_US = 10 * SECOND_US  # by then the outcome of a second's prediction is written
_ASKED_FOR_US = 600 * SECOND_US
# From a first promotion until every process serves the model, and from a symbol's first outcome until its
# features are warm, with a margin.
_BEGINNING_US = 120 * SECOND_US

R = TypeVar("R", Outcome, Prediction)
T = TypeVar("T")


@dataclass
class Result:
    """The result of a run. `hours`, the accuracy of the newest hour, `available` and `drift` are by symbol.

    `available` is the share of the newest hour that a model answered, as an alarm should see it: without the
    time before a first model was active, and without a symbol's first two minutes.
    """

    symbols: tuple[str, ...] = ()  # that are served
    outcomes: int = 0
    predictions: int = 0
    is_complete: bool = True  # False when time ran out: the next run continues from there
    hours: dict[str, SpanAccuracy] = field(default_factory=dict)
    available: dict[str, float] = field(default_factory=dict)
    has_no_model: bool = False  # the pointer names none
    failed: list[str] = field(default_factory=list)  # symbols that something was raised on
    drift: dict[str, DriftState] = field(default_factory=dict)
    asked_us: int | None = None  # when drift asked for the training that is to be started
    reasons: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_report_due: bool = False  # on the condition of the data: once in each span, and after a start

    def as_dict(self, settings: ScoreSettings) -> dict[str, Any]:
        """For the state machine: `retrain`, and if so the execution to start; whether a report is due."""
        return {
            "outcomes": self.outcomes,
            "predictions": self.predictions,
            "complete": self.is_complete,
            "retrain": self.asked_us is not None,
            "report_due": self.is_report_due,
            "execution": self.asked_us
            and {
                "name": f"drift-{self.asked_us // SECOND_US}",
                "input": {
                    "days": settings.history_days,
                    "repair": True,
                    "train": {
                        "days": settings.train_days,
                        "reason": f"drift: {', '.join(self.reasons)}"[:500],
                    },
                },
            },
        }


@dataclass
class ScorePredictions:
    settings: ScorePredictionsSettings
    scores: ScoreSettings
    client: redis.Redis
    s3: Any
    database: Database
    clock_ms: Callable[[], float]
    _card: Card = field(default_factory=Card)  # of the active model, once it was read
    _challenger_id: str | None = None  # of the model in shadow
    _first_model_us: int = 0  # when the first model became active; 0: it is not the present one, or unknown
    _scored: dict[tuple[str, Span], SpanAccuracy] = field(default_factory=dict)
    _days: set[int] = field(default_factory=set)  # that have partitions
    _turn: int = 0  # symbols scored so far
    _reported_in: int = -1  # the newest span of `condition_every_minutes` in which a report was due

    def __post_init__(self) -> None:
        self._hot = HotStore(self.client, self.settings.lateness_us)
        self._symbols = SymbolSet(self.settings.symbols)
        self._archive_receipts = ArchiveReceipts(
            self._hot,
            ReceiptArchive(lambda: self.s3, self.settings.bucket),
            self.clock_ms,
            with_between=self.settings.receipts_between_keep_days > 0,
        )
        self._archive_tallies = ArchiveTallies(TallyArchive(lambda: self.s3, self.settings.bucket))
        self._outbox = SignalOutbox(self.s3, self.settings.bucket, self.clock_ms)

    def __call__(self, remaining_ms: Callable[[], float]) -> Result:
        """Raises what Redis and PostgreSQL raise: the next run continues from there."""
        result = Result(symbols=self._symbols.read(self._hot))
        # First, for it needs no database: receipts of the time that one is away are kept all the same.
        archived = self._archive_receipts(result.symbols, remaining_ms)
        result.failed += archived.failed
        result.problems += archived.problems
        store = ScoreStore(self.database.connection())
        model_id = self._read_model(result)
        for n, symbol in enumerate(self._in_turn()):
            if n and remaining_ms() < _ENOUGH_MS:
                result.is_complete = False
                break
            self._turn += 1
            try:
                self._score(store, symbol, model_id, remaining_ms, result)
            except (redis.RedisError, psycopg.Error, OSError):
                raise
            except Exception as error:  # concerns this symbol; the others are scored
                result.failed.append(symbol)
                result.problems.append(f"{symbol}: {describe(error)}")
        if model_id and result.is_complete:
            self._update_drift(store, model_id, result)
            self._signal_drift(model_id, result)
        self._put_heartbeat(result)
        span = round(self.clock_ms()) // (60_000 * self.settings.condition_every_minutes)
        result.is_report_due, self._reported_in = span != self._reported_in, span
        return result

    def _in_turn(self) -> Sequence[str]:
        """All symbols; first the one that the previous run had no time for."""
        symbols = self._symbols.symbols
        first = self._turn % len(symbols)
        return [*symbols[first:], *symbols[:first]]

    def _score(
        self,
        store: ScoreStore,
        symbol: str,
        model_id: str | None,
        remaining_ms: Callable[[], float],
        result: Result,
    ) -> None:
        """Copy all new outcomes of `symbol`, and enter its figures."""
        while self._drain(store, symbol, model_id, result):
            if remaining_ms() < _ENOUGH_MS:
                result.is_complete = False
                break
        self._summarise(store, symbol, result)
        try:
            self._archive_tallies(store, symbol, round(self.clock_ms()) * 1000, remaining_ms)
        except (BotoCoreError, ClientError) as error:  # scoring needs no S3
            result.problems.append(f"tallies of {symbol} are not archived: {describe(error)}")

    def _read_model(self, result: Result) -> str | None:
        """The id of the active model, whose card becomes `_card`. Without a readable card no features are
        counted, but its outcomes are scored and its skill is watched."""
        try:
            pointer = model_registry.active_model(self.s3, self.settings.bucket)
            model_id = pointer.model_id if pointer else None
            self._challenger_id = pointer.challenger_id if pointer else None
            result.has_no_model = pointer is None
            self._first_model_us = _first_us(pointer)
            if model_id and self._card.model_id != model_id:
                self._card = self._read_card(model_id, result)
            return model_id
        except (RegistryError, BotoCoreError, ClientError) as error:  # scoring needs no model
            result.problems.append(describe(error))
            return None

    def _read_card(self, model_id: str, result: Result) -> Card:
        """The card of that model; an empty one, so that the next run tries again, if it cannot be read."""
        try:
            return model_registry.read_card(self.s3, self.settings.bucket, model_id)
        except RegistryError as error:
            result.problems.append(f"{describe(error)}; features are not counted until it can be read")
            return Card()

    def _drain(self, store: ScoreStore, symbol: str, model_id: str | None, result: Result) -> bool:
        """Copy a page; returns whether there may be another one."""
        before = last_outcome, last_prediction = store.drained(symbol)
        outcomes = self._hot.entries_after(keys.outcomes(symbol), last_outcome, _PAGE)
        predictions = self._hot.entries_after(keys.predictions(symbol), last_prediction, _PAGE)
        if not outcomes and not predictions:
            return False
        rows = [row for row in _usable(Outcome, outcomes, row_of, result) if row]
        features = _usable(Prediction, predictions, lambda each: _features_of(each, model_id), result)
        # Outside the transaction: creating a partition and scoring must not wait for each other.
        days_us = {keys.entry_ms(id_) * 1000 // DAY_US * DAY_US for id_, _ in (*outcomes, *predictions)}
        store.add_days(days_us - self._days)
        self._days |= days_us
        with store.connection.transaction():
            store.lock(symbol)
            if store.drained(symbol) != before:  # another run was here meanwhile
                return True
            store.add_outcomes(symbol, rows)
            if model_id:
                self._count_features(store, symbol, model_id, [each for each in features if each])
            store.set_drained(
                symbol,
                outcomes[-1][0] if outcomes else last_outcome,
                predictions[-1][0] if predictions else last_prediction,
            )
        result.outcomes += len(rows)
        result.predictions += len(features)
        return max(len(outcomes), len(predictions)) == _PAGE

    def _count_features(
        self, store: ScoreStore, symbol: str, model_id: str, features: Sequence[tuple[int, list[float]]]
    ) -> None:
        """Count into which bins the rows fall that the active model predicted on."""
        reference = self._reference(symbol)
        by_hour: dict[int, list[list[float]]] = {}
        for time_us, row in features if reference else ():
            by_hour.setdefault(time_us // HOUR_US * HOUR_US, []).append(row)
        for hour_us, rows in by_hour.items():
            counts = drift.counts(np.array(rows, float), reference)
            store.count_features(symbol, model_id, hour_us, counts)

    def _reference(self, symbol: str) -> drift.Distribution:
        """The distribution of features of `symbol` that the active model was trained on; empty if unknown."""
        found = self._card.distribution.get(symbol, {})
        return {name: bins for name, bins in found.items() if name in FEATURE_NAMES}

    def _summarise(self, store: ScoreStore, symbol: str, result: Result) -> None:
        """The figures of every span, for the API: each is rescored once a thousandth of it has passed."""
        now_us = round(self.clock_ms()) * 1000
        for span in SPANS:
            before = self._scored.get((symbol, span))
            if before is None or now_us - before.to_ms * 1000 >= _known_us(before) / 1000:
                self._scored[symbol, span] = self._span(store, symbol, span, now_us)
        spans = {span.name: self._scored[symbol, span] for span in SPANS}
        summary = AccuracySummary(symbol=symbol, scored_ms=now_us // 1000, **spans)
        self._hot.put_accuracy(summary)
        result.hours[symbol] = summary.hour
        share = self._available(store, symbol, summary.hour, now_us, result)
        if share is not None:
            result.available[symbol] = share

    def _available(
        self, store: ScoreStore, symbol: str, hour: SpanAccuracy, now_us: int, result: Result
    ) -> float | None:
        """`Result.available` of `symbol`; None while none of the hour counts."""
        if result.has_no_model:
            return hour.availability or None  # 0: none was active within the hour
        if hour.first_ms is None:  # a symbol that was never answered for, unless it is new
            return None if self._symbols.is_new(now_us / 1000, _BEGINNING_US / 1000) else 0.0
        first_us = hour.first_ms * 1000 if hour.first_ms > hour.from_ms else 0
        from_us = -(-(max(self._first_model_us, first_us) + _BEGINNING_US) // MINUTE_US) * MINUTE_US
        if from_us <= hour.from_ms * 1000:
            return hour.availability
        return self._span(store, symbol, SPANS[0], now_us, from_us).availability

    def _span(
        self, store: ScoreStore, symbol: str, span: Span, now_us: int, not_before_us: int = 0
    ) -> SpanAccuracy:
        from_us = max((now_us - span.length_us) // MINUTE_US * MINUTE_US, not_before_us)
        tallies = store.tallies(symbol, from_us, now_us, span.block_us)
        steps = store.steps(symbol, from_us, now_us, span.part_us)
        regimes = NO_REGIMES  # an hour is too short to differ much
        if span.length_us > HOUR_US:
            regimes = store.regimes(symbol, from_us, now_us, span.block_us)
        known = store.extent(symbol)
        first_us = max(from_us, known[0]) if known else None
        # Outcomes are expected up to ten seconds ago; newer ones count if they are there.
        until_us = max(known[1], now_us - _SETTLED_US) + SECOND_US if known else now_us
        return SpanAccuracy(
            from_ms=from_us // 1000,
            to_ms=now_us // 1000,
            first_ms=first_us and first_us // 1000,
            availability=None if first_us is None else availability(tallies, first_us, until_us),
            horizons=score(tallies, regimes, store.remainders(symbol, from_us, now_us, span.block_us)),
            earnings=earnings_by_horizon(store.earned(symbol, from_us, now_us, span.block_us)),
            series=series(steps, span.part_us, span.step_us, (from_us, now_us)),
            challenger=self._challenger(store, symbol, (from_us, now_us), span.block_us),
        )

    def _challenger(
        self, store: ScoreStore, symbol: str, span_us: tuple[int, int], block_us: int
    ) -> ChallengerAccuracy | None:
        if self._challenger_id is None:
            return None
        rows = store.shadowed(symbol, self._challenger_id, span_us, block_us)
        return score_challenger(self._challenger_id, rows)

    def _update_drift(self, store: ScoreStore, model_id: str, result: Result) -> None:
        """Update the drift of every symbol, and ask for a training if drift requires it."""
        now_us, policy = round(self.clock_ms()) * 1000, self.scores.policy
        with store.connection.transaction():
            store.lock("drift")
            before = store.drift_states()
            for symbol in self._symbols.symbols:
                state = before.get(symbol, DriftState())
                try:
                    evidence = self._evidence(store, symbol, model_id, now_us)
                    result.drift[symbol] = drift.update(state, model_id, evidence, policy)
                except psycopg.Error:
                    raise
                except Exception as error:  # such as a wrong card: the others are checked
                    result.drift[symbol] = state
                    result.problems.append(f"drift of {symbol}: {describe(error)}")
            store.set_drift_states(result.drift)
            if not self.scores.train_days:
                return
            last = store.last_training()
            last_s = last and last[0] / SECOND_US
            if drift.should_retrain(result.drift, last_s, now_us / SECOND_US, policy):
                last = now_us, _reasons(result.drift)
                store.ask_for_training(*last)
            if last and now_us - last[0] < _ASKED_FOR_US:
                result.asked_us, result.reasons = last

    def _signal_drift(self, model_id: str, result: Result) -> None:
        """Write the signals of symbols that drift, for `send_signals`: one in each pause, while it lasts."""
        for rule in self.settings.signals.of("drift"):
            for symbol, state in result.drift.items():
                if not (state.is_drifting and rule.is_for(symbol)):
                    continue
                drift_now = SignalledDrift(model_id=model_id, reasons=list(state.reasons))
                signal = drift_signal(rule, symbol, round(self.clock_ms()), drift_now)
                if problem := self._outbox.put(rule, signal):
                    result.problems.append(problem)

    def _evidence(self, store: ScoreStore, symbol: str, model_id: str, now_us: int) -> DriftEvidence:
        window_us, horizon_s = self.scores.window_s * SECOND_US, self.settings.primary_horizon_s
        from_us = now_us - window_us
        block_us = -(-window_us // (_EVIDENCE_BLOCKS * MINUTE_US)) * MINUTE_US
        tallies = store.tallies(symbol, from_us, now_us, block_us, model_id)
        tallies = tallies[tallies["horizon_s"] == horizon_s]
        figures = score_horizon(horizon_s, tallies)
        line = self._card.scaled_line.get(symbol)
        against_line = skill_against_line(tallies, line, horizon_s) if line else None
        bands = self._card.gate.bands.get(symbol, {}) if self._card.gate else {}
        return DriftEvidence(
            scored=figures.count,
            stability=self._stability(store, symbol, model_id, from_us),
            skill_high=figures.skill.high if figures.skill else None,
            against_line_high=against_line.high if against_line else None,
            band_low=bands.get(horizon_s, 0.0),
        )

    def _stability(self, store: ScoreStore, symbol: str, model_id: str, from_us: int) -> dict[str, float]:
        """By feature, once the window is full: markets differ by the hour, so a part of a day is not
        comparable with the whole days that were trained on."""
        reference = self._reference(symbol)
        if not reference:
            return {}
        found = store.feature_counts(symbol, model_id, from_us, len(reference))
        is_full = found.sum(axis=1).min() >= _FULL * self.scores.window_s
        return drift.stability(found, reference) if is_full else {}

    def _put_heartbeat(self, result: Result) -> None:
        why = "; ".join(result.problems) or (None if result.is_complete else "cannot keep up")
        heartbeat = ScoreHeartbeat(
            at_ms=round(self.clock_ms()),
            ok=why is None,
            why=why,
            outcomes=result.outcomes,
            drifting=sorted(symbol for symbol, state in result.drift.items() if state.is_drifting),
        )
        self._hot.put_heartbeat(SERVICE, heartbeat)


def _first_us(pointer: Pointer | None) -> int:
    """When the active model became active, if it is the first there was; otherwise 0."""
    if pointer is None or pointer.previous or not pointer.since:
        return 0
    try:
        return round(datetime.fromisoformat(pointer.since).timestamp() * SECOND_US)
    except (ValueError, OverflowError):
        return 0


def _known_us(figures: SpanAccuracy) -> int:
    """How much time the figures of a span cover."""
    return 0 if figures.first_ms is None else (figures.to_ms - figures.first_ms) * 1000


def _usable(kind: type[R], entries: Entries, make: Callable[[R], T], result: Result) -> list[T]:
    """`make` of each entry; one that cannot be read is reported and left out."""
    made = []
    for id_, data in entries:
        try:
            made.append(make(decode(kind, data)))
        except (KeyError, TypeError, ValueError) as error:
            result.problems.append(f"left out {kind.__name__.lower()} {id_}: {describe(error)}")
    return made


def _features_of(prediction: Prediction, model_id: str | None) -> tuple[int, list[float]] | None:
    """Time and features of a prediction by that model; None if it is of another, or a fallback."""
    if prediction.model_id != model_id or prediction.source != "model":
        return None
    features = prediction.features or {}
    return prediction.timestamp * 1000, [features[name] for name in FEATURE_NAMES]


def _reasons(states: dict[str, DriftState]) -> list[str]:
    return [
        f"{symbol} {', '.join(states[symbol].reasons) or 'not over yet'}"
        for symbol in sorted(states)
        if states[symbol].is_drifting
    ]
