"""The health of the whole system, from what each of its parts last wrote into the hot store.

Only Redis is asked, in two round trips: a part that hangs shows by its old heartbeat, and the caller does not
wait for it. `ok` is True, False, or None for a part that was never seen; `why` says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis
from msgspec import to_builtins

from tickcast.adapters.http.bodies import GAPS_SHOWN
from tickcast.adapters.http.responses import Response
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, read, readable
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.market.gaps import LedgerRecord
from tickcast.serving.prediction import freshness
from tickcast.serving.records import (
    Features,
    FeedHeartbeat,
    Heartbeat,
    Prediction,
    StreamHeartbeat,
)

NEARLY_FULL = 0.95  # of the hot store's memory
NOT_SEEN = "not seen yet"

# Parts that predictions do not need: the names of their heartbeats.
BACKGROUND = {
    "postgres": "postgres",
    "archive": "archive_ticks",
    "audit": "audit_predictions",
    "score": "score_predictions",
}
SILENT_AFTER_S = 900

Service = dict[str, Any]
Values = Mapping[str, bytes | None]  # what is stored, by key
Part = Callable[[Values, float], Service]  # the health of a part at an instant, ms


@dataclass
class Health:
    settings: ServePredictionsSettings
    store: HotStore
    clock_ms: Callable[[], float]

    def __call__(self) -> Response:
        """200 while all parts are well, else 503. A background part that was never seen does not count."""
        parts = self._parts()
        try:
            services = {"redis": _store(self.store.fullness()), **self._services(parts)}
        except redis.RedisError as error:
            services = {"redis": {"ok": False, "why": f"does not answer ({type(error).__name__})"}}
            services |= dict.fromkeys(parts, {"ok": None, "why": "not known: Redis does not answer"})
        well = all(
            service["ok"] or (service["ok"] is None and name in BACKGROUND)
            for name, service in services.items()
        )
        body = {
            "status": "ok" if well else "degraded",
            "environment": self.settings.environment,
            "services": services,
        }
        return Response(200 if well else 503, body)

    def _parts(self) -> dict[str, Part]:
        """By name the function that determines a part's health."""
        parts: dict[str, Part] = {"model": self._model, "age": self._age}
        for symbol in self.settings.symbols:
            parts[f"feed:{symbol}"] = partial(self._feed, symbol)
            parts[f"predict_stream:{symbol}"] = partial(self._stream, symbol)
        return parts | {name: partial(_background, part) for name, part in BACKGROUND.items()}

    def _services(self, parts: dict[str, Part]) -> dict[str, Service]:
        names = [key for symbol in self.settings.symbols for key in _keys_of(symbol)]
        names += [keys.heartbeat(part) for part in BACKGROUND.values()]
        values = dict(zip(names, self.store.values(names), strict=True))
        now_ms = self.clock_ms()
        services: dict[str, Service] = {}
        for name, part in parts.items():
            try:
                services[name] = part(values, now_ms)
            except ValueError as error:  # its records cannot be read, which concerns no other part
                why = f"what it wrote cannot be read: {type(error).__name__}: {error}"
                services[name] = {"ok": False, "why": why}
        return services

    def _stream(self, symbol: str, values: Values, now_ms: float) -> Service:
        """How far the stream of a symbol has been processed."""
        ledger = readable(LedgerRecord, values[keys.gaps(symbol)])
        newest_first = ledger.gaps[: -GAPS_SHOWN - 1 : -1] if ledger else []
        gaps = {"gaps": to_builtins(newest_first)} if ledger else {}
        beat = read(StreamHeartbeat, values[keys.heartbeat("predict_stream", symbol)])
        if beat is None:
            return {"ok": None, "why": NOT_SEEN, **gaps}
        age_s = _seconds(now_ms - beat.watermark_ms)
        why = None
        if age_s > self.settings.stale_after_s:
            why = f"stream stalled, last watermark {age_s} s ago"
        elif beat.failure:
            why = f"records are left out: {beat.failure}"
        elif beat.model_problem:
            why = beat.model_problem
        return {
            "ok": why is None,
            "why": why,
            "age_s": age_s,
            "missing_trades": beat.missing_trades,
            "quote_gaps": beat.quote_gaps,
            "reason": beat.reason,  # why the newest prediction is a fallback, such as warming_up
            **gaps,
        }

    def _feed(self, symbol: str, values: Values, now_ms: float) -> Service:
        """When ingest last sent something of a symbol, and whether it is connected and caught up. This is
        what the consumer of the stream read: it looks the same when the consumer has stopped."""
        beat = read(FeedHeartbeat, values[keys.heartbeat("ingest_ecs", symbol)])
        if beat is None:
            return {"ok": None, "why": NOT_SEEN}
        limit_s = self.settings.stale_after_s
        age_s, caught_up_s = _seconds(now_ms - beat.received_ms), _seconds(now_ms - beat.watermark_ms)
        why = None
        if age_s > limit_s:
            why = f"nothing has been sent for {age_s} s"
        elif caught_up_s > limit_s:
            why = f"last connected and caught up {caught_up_s} s ago"
        return {"ok": why is None, "why": why, "age_s": age_s, "source": beat.source}

    def _age(self, values: Values, now_ms: float) -> Service:
        """How old the oldest features are that predictions are served from, and whether any are too old."""
        limit_s = self.settings.stale_after_s
        known = {s: read(Features, values[keys.latest_features(s)]) for s in self.settings.symbols}
        found = {s: freshness(each, now_ms, limit_s) for s, each in known.items() if each is not None}
        if not found:
            return {"ok": None, "why": NOT_SEEN}
        age_s = round(max(each.claim_age_s for each in found.values()), 3)
        for symbol, each in found.items():
            if each.is_stale:
                ages = (
                    f"claim {each.claim_age_s:.1f} s, newest tick {each.tick_age_s or each.claim_age_s:.1f} s"
                )
                why = f"the features of {symbol} are too old ({ages}): it is answered by fallbacks"
                return {"ok": False, "why": why, "age_s": age_s}
        return {"ok": True, "why": None, "age_s": age_s}

    def _model(self, values: Values, now_ms: float) -> Service:
        """Whether there is an active model, by the newest prediction."""
        symbols = self.settings.symbols
        found = [read(Prediction, values[keys.latest_prediction(symbol)]) for symbol in symbols]
        predictions = [each for each in found if each is not None]
        if not predictions:
            return {"ok": None, "why": NOT_SEEN}
        last = max(predictions, key=lambda each: each.timestamp)
        beats = [read(StreamHeartbeat, values[keys.heartbeat("predict_stream", s)]) for s in symbols]
        problems = [beat.model_problem for beat in beats if beat and beat.model_problem]
        why = problems[0] if problems else None
        if not last.model_id:
            why = why or "no active model: every answer is a fallback"
        return {"ok": why is None, "why": why, "model_id": last.model_id, "provisional": last.provisional}


def _keys_of(symbol: str) -> tuple[str, ...]:
    return (
        keys.heartbeat("predict_stream", symbol),
        keys.heartbeat("ingest_ecs", symbol),
        keys.gaps(symbol),
        keys.latest_prediction(symbol),
        keys.latest_features(symbol),
    )


def _store(fullness: float | None) -> Service:
    """When it is full, writes fail, and with them predictions."""
    if fullness is None or fullness < NEARLY_FULL:
        return {"ok": True, "why": None}
    return {"ok": False, "why": f"{fullness:.0%} of its memory is used: when it is full, writes fail"}


def _background(part: str, values: Values, now_ms: float) -> Service:
    """The health in a part's heartbeat, unless that is too old."""
    beat = read(Heartbeat, values[keys.heartbeat(part)])
    if beat is None:
        return {"ok": None, "why": NOT_SEEN}
    age_s = _seconds(now_ms - beat.at_ms)
    if age_s > SILENT_AFTER_S:
        return {"ok": False, "why": f"no heartbeat for {age_s} s", "age_s": age_s}
    return {"ok": beat.ok, "why": beat.why, "age_s": age_s}


def _seconds(milliseconds: float) -> float:
    return round(milliseconds / 1000, 3)
