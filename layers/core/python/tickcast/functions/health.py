"""One answer about the whole system, from what each of its parts last wrote into the hot store.

Nothing but Redis is asked, in a few round trips: a part that hangs is seen by its silence, and costs the
asker nothing. `ok` is True, False, or None for a part never heard of; `why` says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from tickcast.adapters.http.responses import Response
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.serving.prediction import freshness

GAPS_SHOWN = 10
NEARLY_FULL = 0.95  # of the hot store's memory
NOT_SEEN = "not seen yet"

# Parts that work in the background: their heartbeats by name. Without them predictions go on.
BACKGROUND = {
    "postgres": "postgres",
    "archive": "archive_ticks",
    "audit": "audit_predictions",
    "score": "score_predictions",
}
SILENT_AFTER_S = 900

Service = dict[str, Any]


@dataclass
class Health:
    settings: ServePredictionsSettings
    store: HotStore
    clock_ms: Callable[[], float]

    def __call__(self) -> Response:
        """200 while all parts are well, else 503. A background part never heard of yet does not count."""
        try:
            services = {"redis": _store(self.store.fullness()), **self._services()}
        except redis.RedisError as error:
            services = {"redis": {"ok": False, "why": f"does not answer ({type(error).__name__})"}}
            unknown = {"ok": None, "why": "not known: Redis does not answer"}
            services |= dict.fromkeys(self._names(), unknown)
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

    def _names(self) -> list[str]:
        by_symbol = [f"{part}:{s}" for s in self.settings.symbols for part in ("feed", "predict_stream")]
        return ["model", "age", *by_symbol, *BACKGROUND]

    def _services(self) -> dict[str, Service]:
        symbols = self.settings.symbols
        streams = [f"predict_stream:{symbol}" for symbol in symbols]
        feeds = [f"ingest_ecs:{symbol}" for symbol in symbols]
        beats = self.store.heartbeats([*streams, *feeds, *BACKGROUND.values()])
        ledgers = self.store.gaps(list(symbols))
        newest = {symbol: self.store.latest(symbol) for symbol in symbols}
        now_ms = self.clock_ms()
        predictions = [prediction for prediction, _ in newest.values()]
        features = {symbol: found for symbol, (_, found) in newest.items()}
        found = {
            "model": _guarded(_model, [beats[name] for name in streams], predictions),
            "age": _guarded(self._age, features, now_ms),
        }
        for symbol in symbols:
            found[f"feed:{symbol}"] = _guarded(self._feed, beats[f"ingest_ecs:{symbol}"], now_ms)
            found[f"predict_stream:{symbol}"] = _guarded(
                self._stream, beats[f"predict_stream:{symbol}"], ledgers[symbol], now_ms
            )
        for name, heartbeat in BACKGROUND.items():
            found[name] = _guarded(_background, beats[heartbeat], now_ms)
        return found

    def _stream(self, beat: Service | None, ledger: Service | None, now_ms: float) -> Service:
        """How far the stream of a symbol has been worked off."""
        gaps = {"gaps": ledger["gaps"][: -GAPS_SHOWN - 1 : -1]} if ledger else {}  # newest first
        if beat is None:
            return {"ok": None, "why": NOT_SEEN, **gaps}
        age_s = _seconds(now_ms - beat["watermark_ms"])
        why = None
        if age_s > self.settings.stale_after_s:
            why = f"the stream stands still at {age_s} s ago"
        elif beat.get("failure"):
            why = f"records are left out: {beat['failure']}"
        elif beat["model_problem"]:
            why = beat["model_problem"]
        # `reason`: why the newest prediction is a fallback, such as warming_up after a start.
        told = {name: beat.get(name) for name in ("missing_trades", "quote_gaps", "reason")}
        return {"ok": why is None, "why": why, "age_s": age_s, **told, **gaps}

    def _feed(self, beat: Service | None, now_ms: float) -> Service:
        """When ingest last sent something of a symbol, and whether it is connected and caught up. A silence
        of the consumer of the stream looks alike: this is what the batches it read say."""
        if beat is None:
            return {"ok": None, "why": NOT_SEEN}
        limit_s = self.settings.stale_after_s
        age_s, caught_up_s = (_seconds(now_ms - beat[name]) for name in ("received_ms", "watermark_ms"))
        why = None
        if age_s > limit_s:
            why = f"nothing has been sent for {age_s} s"
        elif caught_up_s > limit_s:
            why = f"it says to have been connected and caught up {caught_up_s} s ago, not since"
        return {"ok": why is None, "why": why, "age_s": age_s, "source": beat.get("source")}

    def _age(self, features: dict[str, Service | None], now_ms: float) -> Service:
        """How old the oldest features are that answers are made from, and whether any are too old."""
        limit_s = self.settings.stale_after_s
        found = {s: freshness(each, now_ms, limit_s) for s, each in features.items() if each is not None}
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


def _guarded(part: Callable[..., Service], *known: Any) -> Service:
    """What `part` makes of what is known; where that is not as it should be, this part alone is unwell."""
    try:
        return part(*known)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {"ok": False, "why": f"what it wrote cannot be read: {type(error).__name__}: {error}"}


def _store(fullness: float | None) -> Service:
    """Writes fail when it is full, and with them predictions."""
    if fullness is None or fullness < NEARLY_FULL:
        return {"ok": True, "why": None}
    return {"ok": False, "why": f"{fullness:.0%} of its memory is used: when it is full, writes fail"}


def _model(beats: list[Service | None], newest: list[Service | None]) -> Service:
    """Whether there is a model in force, as the newest predictions tell."""
    predictions = [each for each in newest if each is not None]
    if not predictions:
        return {"ok": None, "why": NOT_SEEN}
    last = max(predictions, key=lambda each: int(each["timestamp"]))
    problems = [beat["model_problem"] for beat in beats if beat and beat["model_problem"]]
    why = problems[0] if problems else None
    if not last["model_id"]:
        why = why or "no model is in force: every answer is a fallback"
    about = {"model_id": last["model_id"], "provisional": last.get("provisional")}
    return {"ok": why is None, "why": why, **about}


def _background(beat: Service | None, now_ms: float) -> Service:
    """What a part said of itself, unless it has been silent since."""
    if beat is None:
        return {"ok": None, "why": NOT_SEEN}
    age_s = _seconds(now_ms - beat["at_ms"])
    if age_s > SILENT_AFTER_S:
        return {"ok": False, "why": f"no sign of life for {age_s} s", "age_s": age_s}
    return {"ok": beat.get("ok", True), "why": beat.get("why"), "age_s": age_s}


def _seconds(milliseconds: float) -> float:
    return round(milliseconds / 1000, 3)
