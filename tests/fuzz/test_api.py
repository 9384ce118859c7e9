"""Requests of every kind: answered as the OpenAPI document says, or refused; never a server failure."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.fixtures.api_gateway import ApiGateway
from tests.fixtures.examples import REQUESTS
from tests.functions.test_openapi import KNOWN, PATHS, checked, gateway, operations, parameters, verify

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
def test_right_requests(operations: Any, path: str) -> None:
    known = {name: value for name, value in KNOWN.items() if f"{{{name}}}" in path}

    @some
    @given(case=operations[path]["GET"].as_strategy(path_parameters=known or None))
    def answered(case: Any) -> None:
        verify(case)

    answered()


@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_wrong_requests(operations: Any, path: str) -> None:
    @some
    @given(case=operations[path]["GET"].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def refused(case: Any) -> None:
        verify(case)

    refused()


@pytest.mark.parametrize("path", WITH_PARAMETERS)
def test_any_texts(operations: Any, gateway: ApiGateway, path: str) -> None:
    """As the gateway hands them over, which the document's own generator would never think of."""
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
