"""JSON over HTTP. An error status is a response like any other. Local addresses are asked directly, all
others through the environment's proxy if it names one."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

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
    """The response to a request, with `body` as JSON unless it is None. Raises as `get` does: a response that
    is not HTTP, or breaks off, is none."""
    data = None if body is None else json_text.text(body).encode()
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    try:
        try:
            with _opener(url).open(request, timeout=timeout_s) as response:
                return Response(response.status, json_text.read(response.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, json_text.read(error.read()))
    except HTTPException as error:
        raise ConnectionError(f"{type(error).__name__}: {error}") from None


def _opener(url: str) -> urllib.request.OpenerDirector:
    return _direct if _is_local(url) else urllib.request.build_opener()


def _is_local(url: str) -> bool:
    """Whether an address is this machine's or, as a name without a dot, a container's next to this one: no
    proxy can reach it."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return "." not in host or host.endswith(".localhost")
