"""Responses in the form that API Gateway's Lambda proxy integration expects.

Every error is problem+json (RFC 9457). Responses that may be cached have an entity tag, the hash of their
content; a caller who has that content gets a 304. Members that change with the time of the request alone,
such as an age, are left out of the hash: the tag is then a weak one (RFC 9110, 8.8.1)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET

from tickcast.adapters import json_text
from tickcast.adapters.http.bodies import Problem

NO_STORE = "no-store"
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

# Lambda's limit of a synchronous response, in which the body is a string of JSON within JSON; everything in a
# response but its lists takes less than what is subtracted here.
RESPONSE_MAX_BYTES = 6_291_456
LISTS_MAX_BYTES = RESPONSE_MAX_BYTES - 128 * 1024

# Any page may read the responses: they are protected by the caller's key, not by a cookie a browser adds.
_CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "ETag"}
_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True)
class Response:
    """`body` as JSON or, where there is one, `text` as it is.

    `volatile` names the members of `body` that change with the time of the request alone: the entity tag
    leaves them out. `ages_ms` are those of the predictions in it, when they were read.
    """

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    text: str | None = None
    content_type: str = JSON
    cache_control: str = NO_STORE
    headers: Mapping[str, str] = field(default_factory=dict)
    volatile: Collection[str] = ()
    ages_ms: Collection[int] = ()

    def as_proxy_response(self, if_none_match: str = "") -> dict[str, Any]:
        """For API Gateway; a 304 if `if_none_match`, the header as received, lists this content."""
        content = _json(self.body) if self.text is None else self.text
        if _payload_bytes(content) > RESPONSE_MAX_BYTES:
            detail = f"the response exceeds the {RESPONSE_MAX_BYTES:,} bytes that can be sent; ask for less"
            return ApiError(500, "Response too large", detail).response().as_proxy_response()
        headers = {"Content-Type": self.content_type, "Cache-Control": self.cache_control, **_CORS}
        headers |= self.headers
        if self.cache_control != NO_STORE:
            headers["ETag"] = self._entity_tag(content)
            if _names(if_none_match, headers["ETag"]):
                return {"statusCode": 304, "headers": headers, "body": ""}
        return {"statusCode": self.status, "headers": headers, "body": content}

    def _entity_tag(self, content: str) -> str:
        weak = "W/" if self.volatile and self.text is None else ""
        if weak:
            content = _json({name: value for name, value in self.body.items() if name not in self.volatile})
        return f'{weak}"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'


class ApiError(Exception):
    """An error response; `detail` says what is wrong and what it should be."""

    def __init__(self, status: int, title: str, detail: str, parameter: str | None = None) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.parameter = status, title, detail, parameter

    @property
    def problem(self) -> Problem:
        return Problem(
            title=self.title, status=self.status, detail=self.detail, parameter=self.parameter or UNSET
        )

    def response(self) -> Response:
        return Response(self.status, as_json(self.problem), content_type=PROBLEM_JSON)


def if_none_match(event: Mapping[str, Any]) -> str:
    """The entity tags that the caller of a proxy event has; "" without. Header names are case-insensitive,
    and a gateway may pass a header that was sent several times as several values."""
    found: list[str] = []
    for name, values in (event.get("multiValueHeaders") or {}).items():
        if name.lower() == "if-none-match":
            found += values or []
    if not found:
        headers = event.get("headers") or {}
        found = [value for name, value in headers.items() if name.lower() == "if-none-match" and value]
    return ", ".join(found)


def as_json(record: msgspec.Struct) -> dict[str, Any]:
    """`record` as an object of JSON."""
    members: dict[str, Any] = msgspec.to_builtins(record, str_keys=True)
    return members


def that_fit(records: Sequence[msgspec.Struct | dict[str, Any]], max_bytes: int = LISTS_MAX_BYTES) -> int:
    """How many of `records`, from the first on, fit into `max_bytes` of Lambda's response; at least one."""
    left = max_bytes
    for count, record in enumerate(records):
        left -= _payload_bytes(_json(record)) + 1  # and the comma
        if left < 0:
            return max(count, 1)
    return len(records)


def _json(body: msgspec.Struct | dict[str, Any]) -> str:
    return json_text.text(msgspec.to_builtins(body, str_keys=True), separators=(",", ":"))


def _payload_bytes(text: str) -> int:
    """The bytes of `text`, which is ASCII except for the dashboard's, as a string in Lambda's response."""
    return len(text) + text.count('"') + text.count("\\")


def _names(if_none_match: str, tag: str) -> bool:
    """Whether a list of entity tags has `tag` in it, by weak comparison (RFC 9110, 13.1.2)."""
    return if_none_match.strip() == "*" or tag.removeprefix("W/") in _ENTITY_TAG.findall(if_none_match)
