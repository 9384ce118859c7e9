"""The routes of the API, all GET: each is declared once, here.

The function dispatches by these routes, the OpenAPI document is generated from them (`layers.openapi`), and
the gateway takes its resources from them (`cdk.components.prediction_api`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from tickcast.adapters.http import bodies
from tickcast.adapters.http.parameters import (
    AccuracyQuery,
    DataQuery,
    HistoryQuery,
    LatestQuery,
    Query,
    SeveralQuery,
)


@dataclass(frozen=True, eq=False)
class Route:
    """A path, its parameters and its responses.

    `returns` is the type of the JSON body, or the media type of a text. `results` describes the response by
    status. `needs_key`: callers are metered by API key. `is_heavy`: a response reads much, so each key has a
    separate limit here. `is_cacheable`: responses have an entity tag, and may be a 304.
    """

    path: str
    operation_id: str
    summary: str
    returns: type[msgspec.Struct] | str
    results: Mapping[int, str]
    query: type[Query] = Query
    description: str = ""
    needs_key: bool = True
    is_heavy: bool = False
    is_cacheable: bool = True

    @property
    def path_parameters(self) -> list[str]:
        return re.findall(r"\{(\w+)\}", self.path)

    @property
    def names_symbols(self) -> bool:
        """Whether a request names symbols, which may be unknown."""
        return bool(self.path_parameters) or self.query is SeveralQuery


DASHBOARD = Route(
    "/",
    "getDashboard",
    "The dashboard.",
    "text/html",
    {200: "The page, complete in itself; it asks for a key and calls the paths below."},
    needs_key=False,
)
OPENAPI = Route(
    "/openapi.json",
    "getOpenApi",
    "This document.",
    "application/json",
    {200: "An OpenAPI 3.1 document."},
    needs_key=False,
)
HEALTH = Route(
    "/health",
    "getHealth",
    "The health of all parts of the system, each with its reason.",
    bodies.HealthReport,
    {
        200: "All is well; a background part that has never been seen does not count.",
        503: "Something is wrong; `why` of each part says what.",
    },
    description="Built from the heartbeats of all parts, within about a second even when one of them hangs. "
    "The parts: `redis`, `model`, `age` (of what answers are made from), `clock` (one that is off, for which "
    "ages make up), `feed:{symbol}` (ingest), `predict_stream:{symbol}`, and in the background `postgres`, "
    "`archive`, `audit`, `score`.",
    needs_key=False,
    is_cacheable=False,
)
LATEST = Route(
    "/predictions/{symbol}",
    "getPrediction",
    "The newest prediction for the moment of reading: what is still to come from now on.",
    bodies.Latest,
    {200: "The prediction, or a fallback that says why."},
    query=LatestQuery,
    description="Every reading differs: `as_of`, `target_time`, the ages and the remaining move are of the "
    "moment, so that nothing here is cached.",
    is_cacheable=False,
)
SEVERAL = Route(
    "/predictions",
    "getPredictions",
    "The same for several symbols, read at one moment.",
    bodies.Several,
    {200: "The predictions by symbol, and by symbol why there is none."},
    query=SeveralQuery,
    is_cacheable=False,
)
RECEIPT = Route(
    "/predictions/{symbol}/{id}",
    "getReceipt",
    "The receipt of a prediction: all that it was made from, and its outcomes.",
    bodies.Receipt,
    {200: "The receipt."},
    description="That of the first prediction of each second is kept for days or months, by the deployment's "
    "`receipts.keep_days`, with outcomes that never change once all are known; those between have no "
    "outcomes, and are kept for `receipts.between_keep_days`, without that for about five minutes.",
)
HISTORY = Route(
    "/predictions/{symbol}/history",
    "getHistory",
    "The predictions of a span of time as they were delivered, newest first, page by page.",
    bodies.History,
    {200: "A page."},
    query=HistoryQuery,
    description="The first of each second, for the deployment's `receipts.keep_days`. A second without a "
    "prediction is missing from the answer, not filled. A page may have fewer than `limit`, or none, and "
    "`next` all the same. A span that ends before it begins is a 400.",
    is_heavy=True,
)
ACCURACY = Route(
    "/accuracy/{symbol}",
    "getAccuracy",
    "The accuracy of the predictions of the last hour, day and week, scored every minute, or of any span.",
    bodies.Accuracy,
    {200: "The figures of the hour, or of the span, by horizon; those of hour, day and week in `summary`."},
    query=AccuracyQuery,
    description="A span is of whole hours, of up to 100 days, and ends with the last full hour: `to` says "
    "when. A span that ends before it begins is a 400.",
    is_heavy=True,
)
DATA = Route(
    "/data/{symbol}",
    "getData",
    "The condition of the data by day (UTC), newest first: what is there, was fetched later, or is missing.",
    bodies.Data,
    {200: "The days, as of the newest report."},
    query=DataQuery,
    description="`available`: everything is there. `repaired`: so it is, after trades that were missing were "
    "fetched. `degraded`: trades are missing or withheld by the exchange, an hour has no data, or quotes "
    "are known in less than 99.9 % of the seconds. `missing`: there is nothing of the day. Reported once an "
    "hour; before the first report a 404.",
    is_heavy=True,
)
MODELS = Route(
    "/models",
    "getModels",
    "The active model, and the cards of the newest models.",
    bodies.Models,
    {200: f"The newest {bodies.CARDS_SHOWN} cards."},
    is_heavy=True,
)

ROUTES = (DASHBOARD, OPENAPI, HEALTH, SEVERAL, LATEST, RECEIPT, HISTORY, ACCURACY, DATA, MODELS)
