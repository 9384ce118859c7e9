"""The OpenAPI 3.1 document of the API, generated from its routes and the types of what they take and return.

Added here are the general description, the error responses that routes share, and an example. Every member of
a body's type is required in the document, unless it may be unset: the encoder always writes it, even if the
type has a default for reading.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection
from typing import Any

import msgspec

from tickcast.adapters.http.bodies import Problem
from tickcast.adapters.http.parameters import (
    MAX_MS,
    SYMBOLS_PATTERN,
    Cursor,
    Flag,
    Horizon,
    Instant,
    Path,
    Symbols,
)
from tickcast.adapters.http.responses import JSON, PROBLEM_JSON
from tickcast.adapters.http.routes import LATEST, ROUTES, Route
from tickcast.adapters.settings import Authorisation
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.outcomes import GAP, NO_MID, STALE
from tickcast.serving.prediction import REASONS

Schema = dict[str, Any]

EXAMPLE = pathlib.Path(__file__).resolve().parent / "site" / "latest.example.json"

_REF = "#/components/schemas/{name}"

INFO = {
    "title": "tickcast",
    "version": "1",
    "summary": "Predictions of a market's mid price, 1, 2, 5 and 10 seconds ahead of the moment of reading.",
    "description": """\
Units: `timestamp` and `target_time` in milliseconds since 1970 (UTC, the exchange's clock), prices in quote
currency, moves and costs in basis points (bp, 1/10,000) of the basis price, `…_s` in seconds, `…_ms` in
milliseconds. What is not known is null, never filled in.

The newest prediction is for the moment of reading, `as_of`: prices are for `target_time`, a horizon later,
and the move is what is still to come. Lists and receipts have predictions as they were delivered.

An answer is never a silent guess: when features are older than 5 s, or no model can answer, `source` is
`fallback` and `reason` says why; where `horizons` is empty as well, no model answered: `confidence` is 0 and
the price is the last one known.

Answers may have members beyond those described: members are added, never renamed. All errors are problem+json
(RFC 9457), those of the gateway included.
""",
    "license": {"name": "MIT", "identifier": "MIT"},
}

ETAG = {
    "description": """\
Identifies the content; sent back as If-None-Match it saves sending the content again. A weak one (`W/"…"`)
leaves out what the moment of reading alone decides: `scored_age_s`, and the ends and `next` of a span that
was asked for without `to`. After a 304, compute the age from `scored_ms`.
""",
    "schema": {"type": "string"},
}

INSTANT = {
    "description": f"""\
Milliseconds since 1970, or a date and time with its offset (RFC 3339). A leap second, 23:59:60 in UTC, is the
start of the second after it. Instants before 1970 are read as 0, those beyond {MAX_MS} as {MAX_MS}.
""",
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MAX_MS},
        {"type": "string", "format": "date-time"},
    ],
}

_BY_HORIZON: Schema = {"propertyNames": {"enum": [str(horizon_s) for horizon_s in HORIZONS_S]}}
_WHY: Schema = {"enum": [None, GAP, NO_MID, STALE]}

# Restrictions that the types of stored records do not have, by member.
MEMBERS: dict[str, Schema] = {
    "horizon_s": {"enum": list(HORIZONS_S)},
    "horizons": _BY_HORIZON,
    "outcomes": _BY_HORIZON,
    "series": _BY_HORIZON,
    "reason": {"enum": [None, *REASONS]},
    "Outcome.why": _WHY,
    "OutcomeSummary.why": _WHY,
    "id": {"pattern": r"^[^\s/?#%-]+-[0-9]+$"},
    "last_trade_id": {"minimum": 0},
    "update_id": {"minimum": 0},
    "outcome_price": {"exclusiveMinimum": 0},
    "delivered_price": {"exclusiveMinimum": 0},
    "from": {"description": "ms since 1970"},
    "to": {"description": "ms since 1970"},
}

# The schemas of responses without a type, by media type.
TEXTS: dict[str, Schema] = {
    "text/html": {"type": "string"},
    JSON: {"type": "object", "required": ["openapi", "info", "paths"]},
}

# The responses that routes share, by status: the component's name and its description.
SHARED = {
    304: ("NotModified", "The content is the one identified by If-None-Match."),
    400: (
        "BadRequest",
        "A parameter is wrong, unknown or repeated; `parameter` names it, `detail` says what it should be.",
    ),
    403: ("Forbidden", "No valid key or signature was sent (the gateway's answer)."),
    404: ("NotFound", "The symbol is not served, nothing is known of it yet, or no such prediction is kept."),
    429: (
        "TooManyRequests",
        "More requests than the caller, or all callers together, may send (the gateway's answer).",
    ),
    503: (
        "Unavailable",
        "Redis, or for the models S3, does not answer: try again. Or a record in Redis cannot be read.",
    ),
}
# How a caller shows who it is, by the API's authorisation: the name and the scheme.
SECURITY: dict[Authorisation, tuple[str, Schema]] = {
    "api_key": ("key", {"type": "apiKey", "in": "header", "name": "x-api-key"}),
    "iam": (
        "sigv4",
        {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "AWS Signature Version 4 of the service execute-api, by an identity that may.",
            "x-amazon-apigateway-authtype": "awsSigv4",
        },
    ),
}
BAD_REQUEST_EXAMPLE = {
    "type": "about:blank",
    "title": "Bad horizon",
    "status": 400,
    "detail": "horizon is '3', it should be one of 1, 2, 5, 10 (seconds)",
    "parameter": "horizon",
}


def document(authorisation: Authorisation = "api_key") -> Schema:
    """The document as an object, of an API with this authorisation."""
    scheme, described = SECURITY[authorisation]
    return {
        "openapi": "3.1.0",
        "info": INFO,
        "servers": [{"url": ".", "description": "where this document was found"}],
        "security": [{scheme: []}],
        "paths": {route.path: {"get": _operation(route)} for route in ROUTES},
        "components": {
            "securitySchemes": {scheme: described},
            "headers": {"ETag": ETAG},
            "responses": {name: _shared(status) for status, (name, _) in SHARED.items()},
            "schemas": {**_bodies(), "Instant": INSTANT},
        },
    }


def text(authorisation: Authorisation = "api_key") -> str:
    """The document in JSON."""
    return json.dumps(document(authorisation), separators=(",", ":"))


def _operation(route: Route) -> Schema:
    described = {"description": route.description} if route.description else {}
    return {
        "operationId": route.operation_id,
        "summary": route.summary,
        **described,
        **({} if route.needs_key else {"security": []}),
        "parameters": _parameters(Path, "path", route.path_parameters) + _parameters(route.query, "query"),
        "responses": {str(status): response for status, response in sorted(_responses(route).items())},
    }


def _responses(route: Route) -> dict[int, Schema]:
    shared = {400, 429}
    shared |= {304} if route.is_cacheable else set()
    shared |= {403, 503} if route.needs_key else set()
    shared |= {404} if route.names_symbols else set()
    found = {status: {"$ref": f"#/components/responses/{SHARED[status][0]}"} for status in shared}
    return found | {status: _result(route, what) for status, what in route.results.items()}


def _result(route: Route, description: str) -> Schema:
    """The response to a valid request."""
    content: Schema
    if isinstance(route.returns, str):
        content = {"schema": TEXTS[route.returns]}
    else:
        content = {"schema": {"$ref": _REF.format(name=route.returns.__name__)}}
    if route is LATEST:
        content["example"] = json.loads(EXAMPLE.read_text("utf-8"))
    media_type = route.returns if isinstance(route.returns, str) else JSON
    headers = {"headers": {"ETag": {"$ref": "#/components/headers/ETag"}}} if route.is_cacheable else {}
    return {"description": description, **headers, "content": {media_type: content}}


def _shared(status: int) -> Schema:
    described: Schema = {"description": SHARED[status][1]}
    if status == 304:
        return described
    content: Schema = {"schema": {"$ref": _REF.format(name=Problem.__name__)}}
    if status == 400:
        content["example"] = BAD_REQUEST_EXAMPLE
    return described | {"content": {PROBLEM_JSON: content}}


def _parameters(kind: type[msgspec.Struct], place: str, names: Collection[str] | None = None) -> list[Schema]:
    """The parameters that `kind` declares, or those of `names`. Descriptions and examples are those of the
    parameters, not of their schemas."""
    _, components = msgspec.json.schema_components([kind], schema_hook=_own_type)
    found = []
    for name, schema in components[kind.__name__]["properties"].items():
        if names is None or name in names:
            example = {"example": schema.pop("examples")[0]} if "examples" in schema else {}
            described = {"description": schema.pop("description"), "required": place == "path"}
            found.append({"name": name, "in": place, **described, **example, "schema": schema})
    return found


def _own_type(kind: type) -> Schema:
    """The schema of the parameters' own types."""
    if kind is Horizon:
        return {"type": "integer", "enum": list(HORIZONS_S)}
    if kind is Instant:
        return {"$ref": _REF.format(name="Instant")}
    if kind is Symbols:
        return {"type": "string", "pattern": SYMBOLS_PATTERN}
    if kind is Flag:
        return {"type": "boolean"}
    if kind is Cursor:
        return {"type": "integer", "minimum": 0, "maximum": MAX_MS}
    raise NotImplementedError(f"no schema for {kind}")


def _bodies() -> dict[str, Schema]:
    """The schemas of all bodies and of their parts, by name."""
    kinds = [route.returns for route in ROUTES if not isinstance(route.returns, str)] + [Problem]
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    for kind, schema in components.items():
        if "properties" not in schema:  # written as an array
            continue
        required = schema["required"]
        for name, member in schema["properties"].items():
            if "default" in member:
                required.append(name)
                del member["default"]
            member |= MEMBERS.get(f"{kind}.{name}", MEMBERS.get(name, {}))
    return components
