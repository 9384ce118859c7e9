"""API Gateway in front of a function, as a WSGI app: requests become events of the Lambda proxy integration.

It refuses what the deployed API refuses by itself: an unknown path or method, and a missing key. Which paths
there are, and which need a key, it takes from the OpenAPI document; `tests/infra/test_api.py` proves that the
template has the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

KEY = "a-key"
Event = dict[str, Any]


@dataclass
class ApiGateway:
    """`document` is the OpenAPI document, `handler` takes an event and gives a proxy response."""

    document: dict[str, Any]
    handler: Callable[[Event, Any], dict[str, Any]]

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response = self.answer(environ)
        status = HTTPStatus(response["statusCode"])
        start_response(f"{status.value} {status.phrase}", list(response["headers"].items()))
        return [response["body"].encode()]

    def answer(self, environ: dict[str, Any]) -> dict[str, Any]:
        """The proxy response to a request, or the gateway's own problem."""
        # WSGI decodes the path as Latin-1, whatever it is.
        path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace") or "/"
        found = self._resource(path)
        if found is None or environ["REQUEST_METHOD"] != "GET":
            return problem(404, "Not Found", "No such path or method.")
        resource, parameters = found
        is_open = self.document["paths"][resource]["get"].get("security") == []
        if not is_open and environ.get("HTTP_X_API_KEY") != KEY:
            return problem(403, "Forbidden", "A valid API key is needed: x-api-key.")
        query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").title(): value
            for name, value in environ.items()
            if name.startswith("HTTP_")
        }
        event = {
            "resource": resource,
            "path": path,
            "httpMethod": "GET",
            "headers": headers,
            "pathParameters": parameters or None,
            "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
            "multiValueQueryStringParameters": query or None,
            "body": None,
            "isBase64Encoded": False,
        }
        return self.handler(event, None)

    def _resource(self, path: str) -> tuple[str, dict[str, str]] | None:
        """The resource that `path` names, and its parameters: a literal segment goes before a parameter."""
        for resource in sorted(self.document["paths"], key=lambda each: each.count("{")):
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(resource))
            if match := re.fullmatch(pattern, path):
                return resource, match.groupdict()
        return None


def problem(status: int, title: str, detail: str) -> dict[str, Any]:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": "r"}
    headers = {"Content-Type": "application/problem+json", "Access-Control-Allow-Origin": "*"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}
