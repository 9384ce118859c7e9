"""JSON over HTTP: without a proxy, and an error status is a response like any other."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

from tickcast.adapters import json_text

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Response(NamedTuple):
    status: int
    body: Any


def get(url: str, headers: Mapping[str, str] | None = None, timeout_s: float = 10) -> Response:
    """The response to GET `url`. Raises OSError when there is none, ValueError when it is not JSON."""
    return send("GET", url, headers=headers, timeout_s=timeout_s)


def send(
    method: str,
    url: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 10,
) -> Response:
    """The response to a request, with `body` as JSON unless it is None. Raises as `get` does."""
    data = None if body is None else json_text.text(body).encode()
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    try:
        with _direct.open(request, timeout=timeout_s) as response:
            return Response(response.status, json_text.read(response.read()))
    except urllib.error.HTTPError as error:
        with error:
            return Response(error.code, json_text.read(error.read()))
