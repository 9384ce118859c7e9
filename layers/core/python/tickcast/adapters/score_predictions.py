"""What became of the predictions, out of the hot store into PostgreSQL, and how good they were, back into it.

Of each symbol a page of outcomes and one of predictions is taken in at a time, in one transaction with how
far the streams were drained: exactly once, whatever breaks off. Then the newest hour, day and week are
scored, from tallies, and put under `accuracy:{symbol}`, which is all that the API reads; and the model in
force is looked at for drift. Where drift asks for a training, the answer says so, and under which name an
execution is to be started: for ten minutes it says the same, so an answer that is lost costs nothing, and as
a name can be given only once nothing starts twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import redis

from tickcast import drift
from tickcast.adapters import model_registry
from tickcast.adapters.hot_store import HEARTBEAT_TTL_S, HotStore
from tickcast.adapters.model_registry import Card, RegistryError
from tickcast.adapters.postgres_connection import Database
from tickcast.adapters.score_store import ScoreStore
from tickcast.adapters.settings import ScoreSettings, Settings
from tickcast.bars import SECOND_US
from tickcast.drift import Evidence, Watch
from tickcast.features import FEATURE_NAMES
from tickcast.model import HORIZONS_S
from tickcast.scoring import HOUR_US, MINUTE_US, SPANS, Span, availability, score, score_horizon

SERVICE = "score_predictions"
ACCURACY_TTL_S = 24 * 3600
_PAGE = 1000  # entries: of predictions, about 5 MB
_ENOUGH_MS = 15_000  # what a page takes at most, with room
_SETTLED_US = 10 * SECOND_US  # by then the outcome of a second's prediction is written
_ASKED_FOR_US = 600 * SECOND_US

Entries = list[tuple[str, dict[str, Any]]]


@dataclass
class Result:
    """What a run came to. `hour` by symbol: the figures of the primary horizon, and the `availability`."""

    outcomes: int = 0
    predictions: int = 0
    is_complete: bool = True  # False when time ran out: the next run goes on from there
    hour: dict[str, dict[str, Any]] = field(default_factory=dict)
    watches: dict[str, Watch] = field(default_factory=dict)
    asked_us: int | None = None  # when drift asked for the training that is to be started
    reasons: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def as_dict(self, settings: ScoreSettings) -> dict[str, Any]:
        """For the state machine: `retrain`, and if so the execution to start."""
        return {
            "outcomes": self.outcomes,
            "predictions": self.predictions,
            "complete": self.is_complete,
            "retrain": self.asked_us is not None,
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
    settings: Settings
    scores: ScoreSettings
    client: redis.Redis
    s3: Any
    database: Database
    clock_ms: Callable[[], float]
    _card: Card = field(default_factory=dict)  # of the model in force, once it was looked up
    _scored: dict[tuple[str, Span], dict[str, Any]] = field(default_factory=dict)  # what is told of each span

    def __post_init__(self) -> None:
        self._hot = HotStore(self.client, self.settings.lateness_us)

    def __call__(self, remaining_ms: Callable[[], float]) -> Result:
        """Raises what Redis and PostgreSQL raise: what was not taken in is, by the next run."""
        store, result = ScoreStore(self.database.connection()), Result()
        model_id = self._look_up_model(result)
        for symbol in self.settings.symbols:
            while self._drain(store, symbol, model_id, result):
                if remaining_ms() < _ENOUGH_MS:
                    result.is_complete = False
                    break
            self._summarise(store, symbol, result)
        if model_id and result.is_complete:
            self._look_for_drift(store, model_id, result)
        self._beat(result)
        return result

    def _look_up_model(self, result: Result) -> str | None:
        """The id of the model in force; its card is at hand then."""
        try:
            pointer = model_registry.in_force(self.s3, self.settings.bucket)
            model_id = str(pointer["model_id"]) if pointer else None
            if model_id and self._card.get("model_id") != model_id:
                card = model_registry.read_card(self.s3, self.settings.bucket, model_id)
                self._card = card | {"model_id": model_id}
            return model_id
        except RegistryError as error:
            result.problems.append(str(error))
            return None

    def _drain(self, store: ScoreStore, symbol: str, model_id: str | None, result: Result) -> bool:
        """Take in a page; whether there may be another one."""
        with store.connection.transaction():
            store.lock(symbol)
            last_outcome, last_prediction = store.drained(symbol)
            outcomes = self._hot.outcomes_after(symbol, last_outcome, _PAGE)
            predictions = self._hot.predictions_after(symbol, last_prediction, _PAGE)
            if not outcomes and not predictions:
                return False
            store.add_days(int(id_.partition("-")[0]) * 1000 for id_, _ in (*outcomes, *predictions))
            store.add_outcomes(symbol, [outcome for _, outcome in outcomes])
            if model_id:
                self._count_features(store, symbol, model_id, predictions)
            store.set_drained(
                symbol,
                outcomes[-1][0] if outcomes else last_outcome,
                predictions[-1][0] if predictions else last_prediction,
            )
        result.outcomes += len(outcomes)
        result.predictions += len(predictions)
        return max(len(outcomes), len(predictions)) == _PAGE

    def _count_features(self, store: ScoreStore, symbol: str, model_id: str, predictions: Entries) -> None:
        """Count where the rows lie that the model in force answered on."""
        reference = self._reference(symbol)
        if not reference:
            return
        by_hour: dict[int, list[list[float]]] = {}
        for _, each in predictions:
            if each["model_id"] == model_id and each["source"] == "model":
                hour_us = each["timestamp"] * 1000 // HOUR_US * HOUR_US
                by_hour.setdefault(hour_us, []).append([each["features"][name] for name in FEATURE_NAMES])
        for hour_us, rows in by_hour.items():
            counts = drift.counts(np.array(rows, float), reference)
            store.count_features(symbol, model_id, hour_us, len(rows), counts)

    def _reference(self, symbol: str) -> drift.Distribution:
        """What the model in force was trained on of `symbol`; empty where that is nothing."""
        return dict(self._card.get("distribution", {}).get(symbol, {}))

    def _summarise(self, store: ScoreStore, symbol: str, result: Result) -> None:
        """The figures of every span, for the API; those of a span anew once a thousandth of it has passed."""
        now_us = round(self.clock_ms()) * 1000
        for span in SPANS:
            before = self._scored.get((symbol, span))
            if before is None or now_us - before["to"] * 1000 >= _known_us(before) / 1000:
                self._scored[symbol, span] = self._figures(store, symbol, span, now_us)
        spans = {span.name: self._scored[symbol, span] for span in SPANS}
        summary = {"symbol": symbol, "scored_ms": now_us // 1000, **spans}
        self.client.set(f"accuracy:{symbol}", json.dumps(summary), ex=ACCURACY_TTL_S)
        hour = spans[SPANS[0].name]
        figures = hour["horizons"][str(self.settings.primary_horizon_s)]
        result.hour[symbol] = figures | {"availability": hour["availability"]}

    def _figures(self, store: ScoreStore, symbol: str, span: Span, now_us: int) -> dict[str, Any]:
        from_us = (now_us - span.length_us) // MINUTE_US * MINUTE_US
        tallies = store.tallies(symbol, from_us, now_us, span.block_us)
        first_us, last_us = store.extent(symbol, HORIZONS_S[0], from_us) or (None, 0)
        until_us = max(last_us, now_us - _SETTLED_US) + SECOND_US
        return {
            "from": from_us // 1000,
            "to": now_us // 1000,
            "first": first_us and first_us // 1000,
            "availability": None if first_us is None else availability(tallies, first_us, until_us),
            "horizons": score(tallies),
        }

    def _look_for_drift(self, store: ScoreStore, model_id: str, result: Result) -> None:
        """One more look at every symbol, and what follows from it."""
        now_us, policy = round(self.clock_ms()) * 1000, self.scores.policy
        with store.connection.transaction():
            store.lock("drift")
            before = store.watches()
            for symbol in self.settings.symbols:
                evidence = self._evidence(store, symbol, model_id, now_us)
                watch = before.get(symbol, Watch())
                result.watches[symbol] = drift.look(watch, model_id, evidence, policy)
            store.set_watches(result.watches)
            if not self.scores.train_days:
                return
            last_us = store.last_training_us()
            last_s = None if last_us is None else last_us / SECOND_US
            if drift.asks_for_training(result.watches, last_s, now_us / SECOND_US, policy):
                store.ask_for_training(now_us, _reasons(result.watches))
                last_us = now_us
            if last_us is not None and now_us - last_us < _ASKED_FOR_US:
                result.asked_us, result.reasons = last_us, store.training_reasons(last_us)

    def _evidence(self, store: ScoreStore, symbol: str, model_id: str, now_us: int) -> Evidence:
        from_us = now_us - self.scores.window_s * SECOND_US
        horizon_s = self.settings.primary_horizon_s
        tallies = store.tallies(symbol, from_us, now_us, MINUTE_US, model_id)
        figures = score_horizon(horizon_s, tallies[tallies["horizon_s"] == horizon_s])
        reference = self._reference(symbol)
        found = store.feature_counts(symbol, model_id, from_us, len(reference))
        return Evidence(
            scored=figures["count"],
            stability=drift.stability(found, reference)
            if reference and found.sum(axis=1).min() >= self.scores.policy.min_scored
            else {},
            skill_high=(figures["skill"] or {}).get("high"),
            against_line_high=(figures["skill_vs_linear"] or {}).get("high"),
            band_low=_band_low(self._card, horizon_s),
        )

    def _beat(self, result: Result) -> None:
        why = "; ".join(result.problems) or (None if result.is_complete else "cannot keep up")
        beat = {
            "at_ms": round(self.clock_ms()),
            "ok": why is None,
            "why": why,
            "outcomes": result.outcomes,
            "drifting": sorted(symbol for symbol, watch in result.watches.items() if watch.is_drifting),
        }
        self.client.set(f"heartbeat:{SERVICE}", json.dumps(beat), ex=HEARTBEAT_TTL_S)


def _known_us(figures: dict[str, Any]) -> int:
    """How much time the figures of a span are about."""
    return 0 if figures["first"] is None else (figures["to"] - figures["first"]) * 1000


def _band_low(card: Card, horizon_s: int) -> float:
    """The lower end of the skill against no change that the gate had measured; 0 where it was never asked."""
    figures = (card.get("gate") or {}).get("figures") or {}
    found = figures.get(str(horizon_s), {}).get("no_change")
    return float(found["ci"][0]) if found else 0.0


def _reasons(watches: dict[str, Watch]) -> list[str]:
    drifting: Iterable[tuple[str, Watch]] = (item for item in watches.items() if item[1].is_drifting)
    return [f"{symbol} {', '.join(watch.reasons) or 'not over yet'}" for symbol, watch in sorted(drifting)]
