"""Requests of every kind are answered as the OpenAPI document says or refused, never with a server error."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.fixtures.api_gateway import ApiGateway
from tests.fixtures.examples import REQUESTS
from tests.functions.test_openapi import PATHS, checked, gateway, known, operations, parameters, verify_many

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(7200)]

__all__ = ["gateway", "operations"]  # fixtures

WITH_PARAMETERS = [path for path in PATHS if parameters(path)]
SHARE = max(REQUESTS // (2 * len(PATHS) + 2 * len(WITH_PARAMETERS)), 1)
some = type(checked)(checked, max_examples=SHARE, derandomize=False, print_blob=True)

names = st.sampled_from(sorted({each["name"] for path in PATHS for each in parameters(path)})) | st.text()
values = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.floats().map(str),
    st.datetimes().map(lambda at: at.isoformat() + "Z"),
    st.sampled_from(["1", "300", "2026-12-31T23:59:60Z", "-0", "1e9", "٣", "\0", "a" * 5000]),
)


@pytest.mark.parametrize("path", PATHS)
def test_valid_requests(operations: Any, path: str) -> None:
    verify_many(operations, path, some, path_parameters=known(path))


@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_invalid_requests(operations: Any, path: str) -> None:
    verify_many(operations, path, some, generation_mode=GenerationMode.NEGATIVE)


@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_any_texts(operations: Any, gateway: ApiGateway, path: str) -> None:
    """As the gateway passes them on; the document's own generator does not produce such texts."""
    inside = [each["name"] for each in parameters(path) if each["in"] == "path"]

    @some
    @given(st.fixed_dictionaries(dict.fromkeys(inside, values)), st.dictionaries(names, values, max_size=4))
    def answered(path_values: dict[str, str], query: dict[str, str]) -> None:
        event = {
            "resource": path,
            "path": path,
            "httpMethod": "GET",
            "headers": {},
            "pathParameters": path_values or None,
            "queryStringParameters": query or None,
            "multiValueQueryStringParameters": {name: [value] for name, value in query.items()} or None,
            "body": None,
            "requestContext": {},
        }
        answer = gateway.handler(event, None)
        assert answer["statusCode"] in (200, 304, 400, 404), answer["body"]
        if answer["body"]:
            json.loads(answer["body"], parse_constant=refuse_constant)

    answered()


def refuse_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is no JSON")
