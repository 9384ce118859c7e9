"""What the API answers, as API Gateway's Lambda proxy integration wants it.

Every error is problem+json (RFC 9457). What may be cached carries an entity tag of its content, and a caller
who has that content already is told so (304) instead of being sent it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

NO_STORE = "no-store"
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

# Any page may read the answers: what protects them is the caller's key, not a cookie a browser adds.
_CORS = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "ETag"}


@dataclass(frozen=True)
class Answer:
    """`body` as JSON or, where there is one, `text` as it is."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    text: str | None = None
    content_type: str = JSON
    cache_control: str = NO_STORE
    headers: Mapping[str, str] = field(default_factory=dict)

    def as_proxy_response(self, if_none_match: str = "") -> dict[str, Any]:
        """For API Gateway; a 304 when `if_none_match`, the header as it came, names this very content."""
        content = json.dumps(self.body, separators=(",", ":")) if self.text is None else self.text
        headers = {"Content-Type": self.content_type, "Cache-Control": self.cache_control, **_CORS}
        headers |= self.headers
        if self.cache_control != NO_STORE:
            headers["ETag"] = f'"{hashlib.sha256(content.encode()).hexdigest()[:32]}"'
            if _names(if_none_match, headers["ETag"]):
                return {"statusCode": 304, "headers": headers, "body": ""}
        return {"statusCode": self.status, "headers": headers, "body": content}


class Refusal(Exception):
    """A request that cannot be answered as it stands; `detail` says what was wrong and what it should be."""

    def __init__(self, status: int, title: str, detail: str, parameter: str | None = None) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.parameter = status, title, detail, parameter

    def answer(self) -> Answer:
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.parameter:
            problem["parameter"] = self.parameter
        return Answer(self.status, problem, content_type=PROBLEM_JSON)


def _names(if_none_match: str, tag: str) -> bool:
    """Whether a list of entity tags, weak or strong, has `tag` in it (RFC 9110, 13.1.2)."""
    given = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return tag in given or given == {"*"}
