"""What the API answers: predictions judged at the moment of reading, their receipts, how good they were.

Freshness is judged at the moment of reading, by the age of the claim that features are complete and by that
of their newest tick, not by the life of a key: what is too old makes the answer a fallback that says so. Only
"nothing is known" and a wrong request are errors, as problem+json (RFC 9457). `layers/site/openapi.yaml`
describes what there is to ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import unquote, urlencode

import redis

from tickcast.adapters.http.dashboard import dashboard
from tickcast.adapters.http.query import Query
from tickcast.adapters.http.responses import ApiError, Response, that_fit
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.model_catalog import ModelCatalog
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.evaluation.live_scores import NO_TALLIES, SPANS, score
from tickcast.functions.health import Health
from tickcast.market import symbols
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.prediction import STALE_FEATURES, fallback, freshness

# A hot store that hangs costs a caller about a second: four tries of this (`redis_connection.connect`).
STORE_TIMEOUT_S = 0.25
STORE_RETRIES = 1

HISTORY_MAX = 300
PAGE_MAX = 1000
PAGE_DEFAULT = 100
PAGE_SPAN_MS = 3_600_000
SETTLED_AFTER_MS = 60_000  # no prediction of so long ago is still to be written

# What only the receipt has: the heaviest parts, which few look at.
OF_THE_RECEIPT = ("features", "calibrator", "timing_ms", "sequence")

# What the moment of reading decides, and no new prediction: the entity tag does not stand for it.
AGES = ("age_s", "claim_age_s", "tick_age_s", "feature_age_ms", "seconds_left")

# How long an answer may be kept by the caller alone: it was given for a key.
SECOND = "private, max-age=1"
SECONDS = "private, max-age=10"
SETTLED = "private, max-age=60"
FOR_EVER = "private, max-age=31536000, immutable"
OPEN_MINUTES = "public, max-age=300"

# What is raised by records of another form than this code writes.
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration)

Event = dict[str, Any]


def site_file(name: str) -> str:
    """A file of the layer `site`, which `layers.site` builds."""
    return resources.files("tickcast_site").joinpath(name).read_text("utf-8")


@dataclass
class ServePredictions:
    settings: ServePredictionsSettings
    store: HotStore
    models: ModelCatalog
    clock_ms: Callable[[], float]
    site: Callable[[str], str] = site_file

    def __call__(self, event: Event) -> Response:
        """The answer to a proxy event; a store that does not answer, or holds what cannot be read, is a 503,
        never a 500."""
        try:
            return self._route(event)
        except ApiError as refusal:
            return refusal.answer()
        except redis.RedisError as error:
            told = f"Redis does not answer ({type(error).__name__}); try again"
            return ApiError(503, "Store unavailable", told).answer()

    def _route(self, event: Event) -> Response:
        resource = str(event.get("resource"))
        if resource in (routes := self.by_symbol()):
            symbol = self._symbol(event)
            try:
                return routes[resource](symbol, event)
            except _UNREADABLE as error:
                told = f"what Redis has of {symbol} cannot be read: {describe(error)}"
                raise ApiError(503, "Store unreadable", told) from error
        Query(event)  # none of the others takes a parameter
        return self.without_symbol()[resource]()

    def by_symbol(self) -> dict[str, Callable[[str, Event], Response]]:
        """The routes that are about one symbol."""
        return {
            "/predictions/{symbol}": self.latest,
            "/predictions/{symbol}/history": self.history,
            "/predictions/{symbol}/{id}": self.receipt,
            "/accuracy/{symbol}": self.accuracy,
        }

    def without_symbol(self) -> dict[str, Callable[[], Response]]:
        """The other routes."""
        return {
            "/": lambda: dashboard(self.site("index.html"), OPEN_MINUTES),
            "/openapi.json": lambda: Response(
                200, text=self.site("openapi.json"), cache_control=OPEN_MINUTES
            ),
            "/health": Health(self.settings, self.store, self.clock_ms),
            "/models": lambda: Response(200, self.models(), cache_control=SECONDS),
        }

    def latest(self, symbol: str, event: Event) -> Response:
        """The newest prediction: the model's while it is fresh, else a fallback with its reason."""
        query = Query(event, ("horizon", "history"))
        horizon_s = self._horizon(query)
        history = query.count("history", 0, HISTORY_MAX, 0)
        record, features = self.store.latest(symbol)
        if record is None or features is None:
            raise ApiError(404, "Nothing known yet", f"no tick of {symbol} has arrived so far", "symbol")
        body = self.as_of_now(at_horizon(light(record), horizon_s), features)
        if history:
            past = [at_horizon(light(each), horizon_s) for each in self.store.history(symbol, history)]
            body["history"] = past[: that_fit(past)]
        return Response(200, body, cache_control=SECOND, passing=AGES)

    def history(self, symbol: str, event: Event) -> Response:
        """A page of what was predicted in a span of time, newest first. Seconds without a prediction are
        missing from it, as they are from the store."""
        query = Query(event, ("from", "to", "limit", "cursor", "horizon"))
        horizon_s, limit = self._horizon(query), query.count("limit", 1, PAGE_MAX, PAGE_DEFAULT)
        now_ms = round(self.clock_ms())
        to_ms, from_ms = query.instant_ms("to"), query.instant_ms("from")
        to_ms = now_ms if to_ms is None else to_ms
        from_ms = max(0, to_ms - PAGE_SPAN_MS) if from_ms is None else from_ms
        if from_ms > to_ms:
            raise ApiError(400, "Bad from", f"from ({from_ms}) is later than to ({to_ms})", "from")
        before_ms = query.cursor_ms("cursor")
        newest_ms = to_ms if before_ms is None else min(to_ms, before_ms - 1)
        # One more than asked for tells whether there is a page after this one.
        found = self.store.predictions(symbol, from_ms, max(0, newest_ms), limit + 1)
        page = [at_horizon(light(record), horizon_s) for record in found[:limit]]
        page = page[: that_fit(page)]
        has_more = len(found) > len(page)
        going_on = {"from": from_ms, "to": to_ms, "limit": limit, "horizon": horizon_s}
        going_on["cursor"] = page[-1]["timestamp"] if page else 0
        body = {
            "symbol": symbol,
            "horizon_s": horizon_s,
            "from": from_ms,
            "to": to_ms,
            "count": len(page),
            "next": f"?{urlencode(going_on)}" if has_more else None,
            "predictions": page,
        }
        is_settled = newest_ms < now_ms - SETTLED_AFTER_MS
        # A span that ends now has other ends whenever it is asked for. Its predictions say what is in it.
        passing = () if query.has("to") else ("from", "to", "next")
        return Response(200, body, cache_control=SETTLED if is_settled else SECOND, passing=passing)

    def receipt(self, symbol: str, event: Event) -> Response:
        """All that was written about one prediction, with its outcomes as far as they are known."""
        Query(event)
        prediction_id = _path_parameter(event, "id")
        market, timestamp = _parts(prediction_id)
        if not timestamp:
            told = f"id is {prediction_id[:40]!r}, it should be like {symbol}-1767225600000"
            raise ApiError(400, "Bad id", f"{told} (milliseconds since 1970)", "id")
        timestamp_ms = int(timestamp)
        record = self.store.prediction(symbol, timestamp_ms) if market == symbol else None
        if record is None:
            told = f"no prediction {prediction_id[:70]} of {symbol} is kept: those of about an hour are"
            raise ApiError(404, "Unknown prediction", told, "id")
        outcomes = self.store.outcomes(symbol, timestamp_ms, HORIZONS_S)
        body = record | {
            "outcomes": {str(horizon_s): outcomes[horizon_s] for horizon_s in sorted(outcomes)},
            "environment": self.settings.environment,
        }
        is_final = set(outcomes) == set(HORIZONS_S)
        return Response(200, body, cache_control=FOR_EVER if is_final else SECOND)

    def accuracy(self, symbol: str, event: Event) -> Response:
        """How good predictions were, as scored last: the hour at the top, all spans in `summary`."""
        Query(event)
        summary = self.store.record(f"accuracy:{symbol}")
        now_ms = round(self.clock_ms())
        nothing = {"from": now_ms, "to": now_ms, "horizons": score(NO_TALLIES)}
        hour = nothing if summary is None else summary[SPANS[0].name]
        body = {
            "symbol": symbol,
            "environment": self.settings.environment,
            **{name: hour[name] for name in nothing},
            "scored_age_s": None if summary is None else round((now_ms - summary["scored_ms"]) / 1000, 3),
            "summary": summary,
        }
        passing = ("from", "to", "scored_age_s") if summary is None else ("scored_age_s",)
        return Response(200, body, cache_control=SECONDS, passing=passing)

    def as_of_now(self, record: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
        """`record` with its ages, the seconds left, and a fallback in its place once it is too old."""
        now_ms = self.clock_ms()
        fresh = freshness(features, now_ms, self.settings.stale_after_s)
        if fresh.is_stale:
            prices = (features.get(name) for name in ("mid", "proxy_mid", "price"))
            known = next(price for price in prices if price is not None)
            record = light(record | fallback(known, STALE_FEATURES) | {"challenger": None})
        return record | {
            "age_s": round(fresh.claim_age_s, 3),
            "claim_age_s": round(fresh.claim_age_s, 3),
            "tick_age_s": None if fresh.tick_age_s is None else round(fresh.tick_age_s, 3),
            "quiet": fresh.is_quiet,
            "feature_age_ms": round(now_ms - features["timestamp"] * 1000),
            "seconds_left": round(max(0.0, record["target_time"] - now_ms) / 1000, 3),
            "environment": self.settings.environment,
        }

    def _symbol(self, event: Event) -> str:
        symbol = _path_parameter(event, "symbol")
        if symbol not in self.settings.symbols:
            told = f"{symbol[:40]!r} is not served; served are {', '.join(self.settings.symbols)}"
            raise ApiError(404, "Unknown symbol", told, "symbol")
        return symbol

    def _horizon(self, query: Query) -> int:
        return query.choice("horizon", HORIZONS_S, self.settings.primary_horizon_s, "seconds")


def _path_parameter(event: Event, name: str) -> str:
    """A parameter of the path, with the market's name in it as the exchange writes it. A gateway may pass it
    percent-encoded, as it was sent; no symbol has a percent sign. What is no UTF-8 names nothing."""
    text = unquote(str((event.get("pathParameters") or {}).get(name, "")), errors="replace")
    return symbols.upper(text)


def _parts(prediction_id: str) -> tuple[str, str]:
    """The symbol and the milliseconds of an id; both empty if it is none."""
    symbol, _, timestamp = prediction_id.rpartition("-")
    is_time = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 13
    return (symbol, timestamp) if is_time and symbol else ("", "")


def light(record: dict[str, Any]) -> dict[str, Any]:
    """`record` without what only its receipt has."""
    kept = {name: value for name, value in record.items() if name not in OF_THE_RECEIPT}
    if challenger := kept.get("challenger"):
        kept["challenger"] = {name: challenger[name] for name in challenger if name not in OF_THE_RECEIPT}
    return kept


def at_horizon(record: dict[str, Any], horizon_s: int) -> dict[str, Any]:
    """`record` told for another horizon; a fallback is the same for all but its target."""
    answer: dict[str, Any] = record["horizons"].get(str(horizon_s), {})
    target_time = record["timestamp"] + horizon_s * 1000
    return record | answer | {"horizon_s": horizon_s, "target_time": target_time}
