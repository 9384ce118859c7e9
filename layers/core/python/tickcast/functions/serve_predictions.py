"""The responses of the API: predictions as of now and of the past, accuracy, models and the dashboard.

The newest prediction is answered for the moment of reading (`functions.answers`). Freshness is decided then,
by the age of the claim that the features are complete and by that of their newest tick, not by a key's TTL: a
stale forecast makes a fallback with that reason. Only wrong requests and symbols without data are errors, as
problem+json (RFC 9457). `adapters.http.routes` lists the routes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import msgspec
import redis
from msgspec import UNSET, UnsetType, structs

from tickcast.adapters.http import routes
from tickcast.adapters.http.bodies import Accuracy, Data, History, Latest, ListedPrediction, Receipt, Several
from tickcast.adapters.http.parameters import (
    AccuracyQuery,
    DataQuery,
    Flag,
    HistoryQuery,
    Horizon,
    LatestQuery,
    Query,
    SeveralQuery,
    path_parameter,
    read_query,
)
from tickcast.adapters.http.responses import ApiError, Response, as_json, that_fit
from tickcast.adapters.http.routes import Route
from tickcast.adapters.lake.condition_reports import ConditionReports
from tickcast.adapters.lake.receipt_archive import ReceiptArchive
from tickcast.adapters.lake.tally_archive import TallyArchive
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, read
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.adapters.registry.model_catalog import ModelCatalog
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.evaluation.live_scores import NO_TALLIES, score
from tickcast.functions.answers import Reading, exchange_ms
from tickcast.functions.health import Health
from tickcast.functions.past_accuracy import PastAccuracy, note_of, span_of
from tickcast.functions.past_predictions import PastPredictions, delivered_at_ms
from tickcast.market.symbols import listed
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.records import PathForecast, Prediction, PredictionSummary

# A hot store that hangs costs a caller about a second: four attempts of this (`redis.connection.connect`).
STORE_TIMEOUT_S = 0.25
STORE_RETRIES = 1

SYMBOLS_KNOWN_MS = 5000  # by then a symbol that is no longer served is refused

PAGE_SPAN_MS = 3_600_000
SETTLED_AFTER_MS = 60_000  # older predictions are all written

FINAL_AFTER_MS = 86_400_000  # no outcome comes so late, so an archived receipt is what it remains

# `private`: the response was for one key.
SECOND = "private, max-age=1"
SECONDS = "private, max-age=10"
SETTLED = "private, max-age=60"
IMMUTABLE = "private, max-age=31536000, immutable"
OPEN_MINUTES = "public, max-age=300"

Event = Mapping[str, Any]


def site_file(name: str) -> str:
    """A file of the layer `site`, which `layers.site_files` builds."""
    return resources.files("tickcast_site").joinpath(name).read_text("utf-8")


@dataclass
class ServePredictions:
    settings: ServePredictionsSettings
    store: HotStore
    models: ModelCatalog
    archive: ReceiptArchive
    tallies: TallyArchive
    clock_ms: Callable[[], float]
    site: Callable[[str], str] = site_file
    reports: ConditionReports = field(kw_only=True)

    def __post_init__(self) -> None:
        self._symbols = SymbolSet(self.settings.symbols)
        self._symbols_read_ms = float("-inf")
        keep_days = max(self.settings.receipts_keep_days, self.settings.receipts_between_keep_days)
        self._past = PastPredictions(self.store, self.archive, keep_days, self.clock_ms)

    def __call__(self, event: Event) -> Response:
        """The response to a proxy event. A store that does not answer, or holds what cannot be read, is a
        503, never a 500."""
        try:
            return self._route(event)
        except ApiError as error:
            return error.response()
        except redis.RedisError as error:
            detail = f"Redis does not answer ({type(error).__name__}); try again"
            return ApiError(503, "Store unavailable", detail).response()

    def handlers(self) -> dict[Route, Callable[..., Response]]:
        """The handler of each route, which takes its query and the parameters of its path."""
        return {
            routes.DASHBOARD: lambda _: dashboard(self.site("index.html")),
            routes.OPENAPI: lambda _: Response(
                200, text=self.site(f"openapi.{self.settings.authorisation}.json"), cache_control=OPEN_MINUTES
            ),
            routes.HEALTH: lambda _: self._health(),
            routes.SEVERAL: self.several,
            routes.LATEST: self.latest,
            routes.RECEIPT: self.receipt,
            routes.HISTORY: self.history,
            routes.ACCURACY: self.accuracy,
            routes.DATA: self.data,
            routes.MODELS: lambda _: Response(200, self.models(), cache_control=SECONDS),
        }

    def _route(self, event: Event) -> Response:
        route, handler = next(
            (route, handler)
            for route, handler in self.handlers().items()
            if route.path == event.get("resource")
        )
        path = [path_parameter(event, name) for name in route.path_parameters]
        # The newest prediction reads the symbols along; receipts are kept longer than a symbol is served.
        if path and route not in (routes.LATEST, routes.RECEIPT):
            self._check(path[0], "symbol")
        query = read_query(event, route.query)
        try:
            return handler(query, *path)
        except ApiError as error:
            if route is routes.RECEIPT and error.status == 404:
                self._check(path[0], "symbol")
            raise
        except ValueError as error:  # a record of another format
            if not path:
                raise
            raise _unreadable(path[0], error) from error

    def latest(self, query: LatestQuery, symbol: str) -> Response:
        """The newest prediction for the moment of reading and, if asked for, a list of the newest as they
        were delivered."""
        found, store_ms = self._newest([symbol], "symbol")
        body = self._answer(symbol, found[symbol], store_ms, query.horizon)
        if query.history:
            newest = self.store.history(symbol, query.history)
            past = self._listed(symbol, newest, body.horizon_s, query.outcomes)
            body.history = past[: that_fit(past)]
        return Response(200, as_json(body), ages_ms=[body.age_ms.claim])

    def several(self, query: SeveralQuery) -> Response:
        """The same of several symbols, read at one moment; what is wrong with one concerns no other."""
        asked = None if query.symbols is UNSET else query.symbols.each
        found, store_ms = self._newest(asked, "symbols")
        known = [each for each in found.values() if isinstance(each, PathForecast)]
        newest = max(known, key=lambda each: each.timestamp, default=None)
        body = Several(as_of=exchange_ms(newest, store_ms), predictions={}, problems={})
        for symbol in found:
            try:
                body.predictions[symbol] = self._answer(symbol, found[symbol], store_ms, query.horizon)
            except ApiError as error:
                body.problems[symbol] = error.problem
        ages_ms = [each.age_ms.claim for each in body.predictions.values()]
        return Response(200, as_json(body), ages_ms=ages_ms)

    def history(self, query: HistoryQuery, symbol: str) -> Response:
        """A page of the predictions of a span of time, newest first. Seconds without a prediction are
        missing."""
        horizon_s, now_ms = self._horizon_s(query.horizon), round(self.clock_ms())
        to_ms = now_ms if query.to is UNSET else int(query.to)
        from_ms = max(0, to_ms - PAGE_SPAN_MS) if query.from_ is UNSET else int(query.from_)
        if from_ms > to_ms:
            raise ApiError(400, "Bad from", f"from ({from_ms}) is later than to ({to_ms})", "from")
        newest_ms = to_ms if query.cursor is UNSET else min(to_ms, int(query.cursor) - 1)
        found = self._past.page(symbol, from_ms, max(0, newest_ms), query.limit)
        page = self._listed(symbol, found.predictions, horizon_s, query.outcomes)
        cursor = found.continue_ms
        if (fit := that_fit(page)) < len(page):
            page, cursor = page[:fit], page[fit - 1].timestamp
        next_query: dict[str, int | str] = {"from": from_ms, "to": to_ms, "limit": query.limit}
        next_query |= {"horizon": horizon_s} | ({"outcomes": "true"} if query.outcomes else {})
        body = History(
            symbol=symbol,
            horizon_s=horizon_s,
            from_=from_ms,
            to=to_ms,
            count=len(page),
            next=None if cursor is None else f"?{urlencode(next_query | {'cursor': cursor})}",
            predictions=page,
        )
        is_settled = newest_ms < now_ms - SETTLED_AFTER_MS
        # A span that ends now has another `to` in every response; its predictions identify its content.
        volatile = ("from", "to", "next") if query.to is UNSET else ()
        cache_control = SETTLED if is_settled else SECOND
        return Response(200, as_json(body), cache_control=cache_control, volatile=volatile)

    def _listed(
        self, symbol: str, found: Sequence[Prediction], horizon_s: int, with_outcomes: Flag | UnsetType
    ) -> list[ListedPrediction]:
        """`found`, newest first, as lists have them; each with its outcomes if they are asked for."""
        listed_ = [at_horizon(record, horizon_s) for record in found]
        if with_outcomes:
            known = self._past.outcomes(symbol, found)
            for each in listed_:
                each.outcomes = known[each.id]
        return listed_

    def receipt(self, _: Query, symbol: str, prediction_id: str) -> Response:
        """A whole prediction, with its outcomes as far as they are known."""
        market, timestamp = _parts(prediction_id)
        if not timestamp:
            detail = f"id is {prediction_id[:40]!r}, it should be like {symbol}-1767225600000"
            raise ApiError(400, "Bad id", f"{detail} (milliseconds since 1970)", "id")
        timestamp_ms = int(timestamp)
        record = self._past.receipt(symbol, timestamp_ms) if market == symbol else None
        if record is None:
            detail = f"no prediction {prediction_id[:70]} of {symbol} is kept: {self._kept()}"
            raise ApiError(404, "Unknown prediction", detail, "id")
        body = Receipt(**structs.asdict(record), environment=self.settings.environment)
        is_final = set(record.outcomes) == set(HORIZONS_S)
        is_final |= self.clock_ms() - timestamp_ms > FINAL_AFTER_MS
        return Response(200, as_json(body), cache_control=IMMUTABLE if is_final else SECOND)

    def accuracy(self, query: AccuracyQuery, symbol: str) -> Response:
        """The figures as scored last: those of the hour, or of the span asked for, at the top; those of the
        hour, the day and the week in `summary`."""
        summary = self.store.accuracy(symbol)
        now_ms = round(self.clock_ms())
        body = Accuracy(
            symbol=symbol,
            environment=self.settings.environment,
            from_=summary.hour.from_ms if summary else now_ms,
            to=summary.hour.to_ms if summary else now_ms,
            horizons=summary.hour.horizons if summary else score(NO_TALLIES),
            scored_age_s=round((now_ms - summary.scored_ms) / 1000, 3) if summary else None,
            summary=summary,
        )
        if span := span_of(query, now_ms):
            found = PastAccuracy(self.tallies)(symbol, *span)
            body.from_, body.to, body.horizons = found.from_ms, found.to_ms, found.horizons
            body.first, body.availability = found.first_ms, found.availability
            body.note = note_of(span, found.to_ms * 1000)
        volatile = ("scored_age_s",) if summary or span else ("from", "to", "scored_age_s")
        return Response(200, as_json(body), cache_control=SECONDS, volatile=volatile)

    def data(self, query: DataQuery, symbol: str) -> Response:
        """The condition of the newest days, as it was reported last."""
        try:
            report = self.reports(symbol)
        except ConnectionError as error:
            raise ApiError(503, "Report unavailable", f"{error}; try again") from None
        except ValueError as error:
            detail = (
                f"the report on {symbol} in S3 cannot be read: {describe(error)}; the next one replaces it"
            )
            raise ApiError(503, "Report unreadable", detail) from None
        if report is None:
            detail = f"the condition of {symbol}'s data was not reported so far; it is once an hour"
            raise ApiError(404, "No data yet", detail, "symbol")
        days = report.days[: -query.days - 1 : -1]
        body = Data(
            symbol=symbol,
            environment=self.settings.environment,
            reported=report.reported_ms,
            days=days[: that_fit(days)],
            total=len(report.days),
        )
        return Response(200, as_json(body), cache_control=SETTLED)

    def _kept(self) -> str:
        """How long receipts are kept, in words."""
        days, between_days = self.settings.receipts_keep_days, self.settings.receipts_between_keep_days
        others = f"{between_days} days" if between_days else "about five minutes"
        return f"those of the first prediction of each second are for {days} days, all others for {others}"

    def _health(self) -> Response:
        return Health(self.settings, self.store, self.clock_ms, self._symbols)()

    def _check(self, symbol: str, parameter: str) -> None:
        """Raise `ApiError` unless `symbol` is served, by symbols that were read `SYMBOLS_KNOWN_MS` ago at
        most."""
        now_ms = self.clock_ms()
        if symbol not in self._symbols or now_ms - self._symbols_read_ms > SYMBOLS_KNOWN_MS:
            self._symbols.read(self.store)
            self._symbols_read_ms = now_ms
        self._refuse_unserved([symbol], parameter)

    def _refuse_unserved(self, symbols: Iterable[str], parameter: str) -> None:
        for symbol in symbols:
            if symbol not in self._symbols:
                detail = f"{symbol[:40]!r} is not served; served are {listed(self._symbols.symbols)}"
                raise ApiError(404, "Unknown symbol", detail, parameter)

    def _newest(
        self, asked: list[str] | None, parameter: str
    ) -> tuple[dict[str, PathForecast | ValueError | None], float]:
        """The newest forecast of each symbol that is `asked` for, None: of all; None where there is none, or
        the error if it cannot be read; and the hot store's time (ms) then. One round trip, two where all are
        asked for and the symbols have changed. Raises `ApiError` where one is not served."""
        for _ in range(2):
            symbols = list(self._symbols.symbols) if asked is None else asked
            names = [keys.symbols(), *(keys.latest_prediction(symbol) for symbol in symbols)]
            (stored, *values), store_ms = self.store.values_at(names)
            if not self._symbols.take(stored) or asked is not None:
                break
        self._refuse_unserved(asked or (), parameter)
        found: dict[str, PathForecast | ValueError | None] = {}
        for symbol, data in zip(symbols, values, strict=True):
            try:
                found[symbol] = read(PathForecast, data)
            except ValueError as error:
                found[symbol] = error
        return found, store_ms

    def _answer(
        self,
        symbol: str,
        found: PathForecast | ValueError | None,
        store_ms: float,
        asked: Horizon | UnsetType,
    ) -> Latest:
        """The answer of what was `found` for `symbol`. Raises `ApiError` if that is none."""
        if found is None:
            raise ApiError(404, "No data yet", f"no tick of {symbol} has arrived so far", "symbol")
        if isinstance(found, ValueError):
            raise _unreadable(symbol, found)
        reading = Reading(self.settings.stale_after_s, self.settings.environment)
        try:
            return reading.answer(found, store_ms, self._horizon_s(asked))
        except (ArithmeticError, LookupError, ValueError) as error:  # a path of another release, or damaged
            raise _unreadable(symbol, error) from error

    def _horizon_s(self, asked: Horizon | UnsetType) -> int:
        return self.settings.primary_horizon_s if asked is UNSET else int(asked)


def _unreadable(symbol: str, error: Exception) -> ApiError:
    return ApiError(
        503, "Store unreadable", f"the records of {symbol} in Redis cannot be read: {describe(error)}"
    )


def dashboard(page: str) -> Response:
    """`page` with a policy by which a browser runs its own script and style only, and calls this API only."""
    policy = {
        "default-src": "'none'",
        "script-src": _hashes(page, "script"),
        "style-src": _hashes(page, "style"),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    html = "text/html; charset=utf-8"
    return Response(200, text=page, content_type=html, cache_control=OPEN_MINUTES, headers=headers)


def _hashes(page: str, element: str) -> str:
    """The digests of all inline `element`s, as a policy lists them."""
    contents = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in contents)
    return " ".join(f"'sha256-{digest}'" for digest in digests)


def _parts(prediction_id: str) -> tuple[str, str]:
    """The symbol and the milliseconds of an id; both empty if it is none."""
    symbol, _, timestamp = prediction_id.rpartition("-")
    is_time = timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 13
    return (symbol, timestamp) if is_time and symbol else ("", "")


def at_horizon(prediction: Prediction, horizon_s: int) -> ListedPrediction:
    """`prediction` as it was delivered, for another horizon, without what only its receipt has; of a fallback
    only the target changes."""
    summary = msgspec.convert(prediction, PredictionSummary, from_attributes=True)
    answer = summary.horizons.get(horizon_s)
    changes = structs.asdict(answer) if answer else {}
    target_time = delivered_at_ms(summary) + 1000 * horizon_s
    changes |= {"horizon_s": horizon_s, "target_time": target_time}
    return ListedPrediction(**structs.asdict(summary) | changes)
