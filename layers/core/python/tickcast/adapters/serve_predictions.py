"""What the API answers: the newest prediction, judged at the moment of reading, and the system's health.

Freshness is the age of the event time, not the life of a key: features older than the limit make the
answer a fallback that says so. Only "nothing is known" and a wrong request are errors, as problem+json
(RFC 9457).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from tickcast.adapters.hot_store import HotStore
from tickcast.adapters.settings import Settings
from tickcast.model import HORIZONS_S
from tickcast.prediction import STALE_FEATURES, fallback

HISTORY_MAX = 300
GAPS_SHOWN = 10


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]

    def as_proxy_response(self) -> dict[str, Any]:
        """As API Gateway's Lambda proxy integration wants it."""
        kind = (
            "application/json"
            if self.status < 400 or "title" not in self.body
            else "application/problem+json"
        )
        return {
            "statusCode": self.status,
            "headers": {
                "Content-Type": kind,
                "Cache-Control": "no-store",
                "Access-Control-Allow-Origin": "*",
            },
            "body": json.dumps(self.body),
        }


def problem(status: int, title: str, detail: str) -> Answer:
    return Answer(status, {"type": "about:blank", "title": title, "status": status, "detail": detail})


@dataclass
class ServePredictions:
    settings: Settings
    store: HotStore
    clock_ms: Callable[[], float]

    def __call__(self, event: dict[str, Any]) -> Answer:
        """The answer to a proxy event; a store that does not answer is a 503, never a 500."""
        try:
            if event.get("resource") == "/health":
                return self.health()
            symbol = (event.get("pathParameters") or {}).get("symbol", "")
            return self.prediction(symbol, event.get("queryStringParameters") or {})
        except redis.RedisError as error:
            return problem(
                503, "Store unavailable", f"Redis does not answer ({type(error).__name__}); try again"
            )

    def prediction(self, symbol: str, query: dict[str, str]) -> Answer:
        """The newest prediction: the model's while it is fresh, else a fallback with its reason."""
        unknown = sorted(set(query) - {"horizon", "history"})
        if unknown:
            return problem(400, "Unknown parameter", f"{', '.join(unknown)}; known are horizon, history")
        if symbol.upper() not in self.settings.symbols:
            known = ", ".join(self.settings.symbols)
            return problem(404, "Unknown symbol", f"{symbol!r} is not served; served are {known}")
        horizon = query.get("horizon", str(self.settings.primary_horizon_s))
        if horizon not in {str(h) for h in HORIZONS_S}:
            allowed = ", ".join(str(h) for h in HORIZONS_S)
            detail = f"horizon is {horizon[:20]!r}, it should be one of {allowed} (seconds)"
            return problem(400, "Bad horizon", detail)
        history = query.get("history", "0")
        if not _is_count(history, HISTORY_MAX):
            detail = f"history is {history[:20]!r}, it should be 0 to {HISTORY_MAX} predictions"
            return problem(400, "Bad history", detail)
        record, features = self.store.latest(symbol.upper())
        if record is None or features is None:
            return problem(404, "Nothing known yet", f"no tick of {symbol.upper()} has arrived so far")
        body = self.as_of_now(at_horizon(record, int(horizon)), features)
        if int(history):
            body["history"] = [
                at_horizon(r, int(horizon)) for r in self.store.history(symbol.upper(), int(history))
            ]
        return Answer(200, body)

    def as_of_now(self, record: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
        """`record` with its age, the seconds left, and a fallback in its place once it is too old."""
        now_ms = self.clock_ms()
        age_s = now_ms / 1000 - features["timestamp"]
        if age_s > self.settings.stale_after_s:
            known = features["mid"] if features["mid"] is not None else features["price"]
            record = record | fallback(known, STALE_FEATURES)
        return record | {
            "age_s": round(age_s, 3),
            "feature_age_ms": round(now_ms - features["timestamp"] * 1000),
            "seconds_left": round(max(0.0, record["target_time"] - now_ms) / 1000, 3),
            "environment": self.settings.environment,
        }

    def health(self) -> Answer:
        """200 while every symbol's features are fresh, else 503; each part with its reason."""
        services: dict[str, Any] = {}
        try:
            names = [f"predict_stream:{symbol}" for symbol in self.settings.symbols]
            beats = self.store.heartbeats(names)
            ledgers = self.store.gaps(list(self.settings.symbols))
            services["redis"] = {"ok": True}
        except redis.RedisError as error:
            beats, ledgers = {}, {}
            services["redis"] = {"ok": False, "why": f"does not answer ({type(error).__name__})"}
        now_ms = self.clock_ms()
        for name, beat in beats.items():
            services[name] = self._judge(beat, now_ms)
            if ledger := ledgers.get(name.removeprefix("predict_stream:")):
                services[name]["gaps"] = ledger["gaps"][: -GAPS_SHOWN - 1 : -1]  # newest first
        is_ok = all(service["ok"] for service in services.values())
        status = "ok" if is_ok else "degraded"
        body = {"status": status, "environment": self.settings.environment, "services": services}
        return Answer(200 if is_ok else 503, body)

    def _judge(self, beat: dict[str, Any] | None, now_ms: float) -> dict[str, Any]:
        if beat is None:
            return {"ok": False, "why": "has not seen a tick yet"}
        age_s = round((now_ms - beat["watermark_ms"]) / 1000, 3)
        why = None
        if age_s > self.settings.stale_after_s:
            why = f"the stream stands still at {age_s} s ago"
        elif beat["model_problem"]:
            why = beat["model_problem"]
        missing = {"missing_trades": beat["missing_trades"], "quote_gaps": beat["quote_gaps"]}
        return {"ok": why is None, "why": why, "age_s": age_s, **missing}


def at_horizon(record: dict[str, Any], horizon_s: int) -> dict[str, Any]:
    """`record` told for another horizon; a fallback is the same for all but its target."""
    answer: dict[str, Any] = record["horizons"].get(str(horizon_s), {})
    target_time = record["timestamp"] + horizon_s * 1000
    return record | answer | {"horizon_s": horizon_s, "target_time": target_time}


def _is_count(text: str, most: int) -> bool:
    """Whether `text` is a plain number from 0 to `most`; its length is looked at before its value."""
    return text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most
