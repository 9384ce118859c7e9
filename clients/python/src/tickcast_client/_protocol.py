"""What both clients have in common: settings, requests by path and query, and how answers are read. No
I/O."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pydantic
from tenacity import RetryCallState

from tickcast_client import models
from tickcast_client.errors import (
    BY_STATUS,
    ApiError,
    ConnectionFailed,
    TooManyRequests,
    Unavailable,
    UnexpectedResponse,
)

URL_VARIABLE, KEY_VARIABLE = "TICKCAST_API", "TICKCAST_KEY"
RETRIED = (ConnectionFailed, TooManyRequests, Unavailable)
WAIT_FIRST_S, WAIT_MOST_S = 0.5, 30.0
WAIT_ASKED_MOST_S = 3600.0  # whatever Retry-After says: a wait of centuries is an error of its own
PAGE_MOST = 1000

A = TypeVar("A", bound=models.Answer)
Instant = datetime | int | str
Query = dict[str, str | int]


@dataclass(frozen=True)
class Request:
    """A GET of `path`, which is relative to the API's address."""

    path: str
    query: Query = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Where the API is, how to show who asks, and for how long to try.

    `timeout_s` is of each step of an attempt (to connect, to send, until something more is received);
    `retry_s` is how long after the first attempt another one may begin.
    """

    url: str
    key: str = field(repr=False)
    timeout_s: float
    retry_s: float

    @classmethod
    def read(cls, url: str | None, key: str | None, timeout_s: float, retry_s: float) -> Settings:
        """From arguments or, where they are None, the environment. Raises ValueError naming what is wrong."""
        if not timeout_s > 0 or not retry_s >= 0:
            raise ValueError(
                f"timeout_s is {timeout_s} and retry_s {retry_s}; they should be above 0, and 0 or more"
            )
        url = os.environ.get(URL_VARIABLE, "") if url is None else url
        key = (os.environ.get(KEY_VARIABLE, "") if key is None else key).strip()
        if not url.strip():
            raise ValueError(f"no address of the API is given: pass url=, or set {URL_VARIABLE}")
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"the key (key=, or {KEY_VARIABLE}) has characters that no key has")
        return cls(_address(url.strip()), key, timeout_s, retry_s)

    @property
    def is_local(self) -> bool:
        """Whether the API is on this machine, which no proxy can reach."""
        return httpx.URL(self.url).host in ("localhost", "127.0.0.1", "::1")

    @property
    def headers(self) -> dict[str, str]:
        accept = {"Accept": "application/json, application/problem+json"}
        return accept | ({"x-api-key": self.key} if self.key else {})


def _address(url: str) -> str:
    """`url` with a slash at its end. What may be secret in it is not shown."""
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme in ("http", "https") and bool(httpx.URL(url).host) and parts.port != 0
        is_complete &= not any(character.isspace() for character in url)
    except (ValueError, httpx.InvalidURL):
        is_complete = False
    if not is_complete:
        raise ValueError(
            "the API's address should be complete, like https://host/path, without anything else"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(
            f"the API's address should be {parts.scheme}://{parts.hostname}… alone, without user, query or "
            f"fragment; the key is passed as key=, or in {KEY_VARIABLE}"
        )
    return url.rstrip("/#?") + "/"


def latest(symbol: str, horizon: int | None, history: int, outcomes: bool) -> Request:
    query = _without_none(horizon=horizon, history=history or None, outcomes="true" if outcomes else None)
    return Request(f"predictions/{segment(symbol)}", query)


def several(symbols: Iterable[str], horizon: int | None) -> Request:
    """Of all symbols that are served if `symbols` is empty."""
    return Request("predictions", _without_none(symbols=",".join(symbols) or None, horizon=horizon))


def receipt(prediction_id: str) -> Request:
    symbol, dash, timestamp = prediction_id.rpartition("-")
    if not (symbol and dash and timestamp.isascii() and timestamp.isdigit()):
        raise ValueError(
            f"id is {prediction_id[:60]!r}; it should be a prediction's, like BTCUSDT-1767225600000"
        )
    return Request(f"predictions/{segment(symbol)}/{segment(prediction_id)}")


def accuracy(symbol: str, from_: Instant | None, to: Instant | None) -> Request:
    return Request(f"accuracy/{segment(symbol)}", _without_none(**span(from_, to)))


def data(symbol: str, days: int) -> Request:
    return Request(f"data/{segment(symbol)}", {"days": days})


MODELS = Request("models")
HEALTH = Request("health")


def span(from_: Instant | None, to: Instant | None) -> dict[str, int | None]:
    """A span of time as the API takes it, in ms. Raises ValueError."""
    return {
        name: None if given is None else in_ms(given, name) for name, given in (("from", from_), ("to", to))
    }


def in_ms(instant: Instant, name: str) -> int:
    """An instant in ms since 1970. Raises ValueError naming the argument if it is none, or has no offset."""
    if isinstance(instant, int):
        return instant
    if isinstance(instant, str):
        try:
            instant = datetime.fromisoformat(instant)
        except ValueError:
            raise ValueError(f"{name} is {instant!r}; it should be like 2026-01-31T12:00:00Z") from None
    if not isinstance(instant, datetime):
        raise ValueError(f"{name} is {instant!r}; it should be a datetime, a text, or whole ms since 1970")
    if instant.tzinfo is None:
        raise ValueError(
            f"{name} is {instant.isoformat()}, without an offset; it should be like {datetime.now(UTC)}"
        )
    return round(instant.timestamp() * 1000)


def read(response: httpx.Response, kind: type[A]) -> A:
    """The answer in a response. Raises the `ApiError` of an error status, or `UnexpectedResponse`."""
    is_report = (
        kind is models.HealthReport and response.status_code == 503 and b'"services"' in response.content
    )
    if response.is_success or is_report:
        return _parsed(response, kind)
    if response.is_redirect:
        raise UnexpectedResponse(f"{_place(response)} redirects elsewhere: is the address the API's own?")
    raise _problem(response)


def _parsed(response: httpx.Response, kind: type[A]) -> A:
    try:
        return kind.model_validate_json(response.content)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise UnexpectedResponse(
            f"{_place(response)} is not what tickcast answers ({where}: {first['msg']}): is the address the "
            "API's own, and this package as new as the API?"
        ) from None


def _problem(response: httpx.Response) -> ApiError:
    status = response.status_code
    try:
        problem = models.Problem.model_validate_json(response.content)
    except pydantic.ValidationError:
        problem = models.Problem(title=response.reason_phrase or "Error", detail=f"{_place(response)} failed")
    detail = problem.detail
    sent = response.request.headers
    if status == 403 and "x-api-key" not in sent and "authorization" not in sent:
        detail = f"{detail} No key was sent: pass key=, or set {KEY_VARIABLE}; or auth=, to sign."
    return BY_STATUS.get(status, ApiError)(
        status, problem.title, detail, problem.parameter, problem.request_id, _retry_after_s(response.headers)
    )


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds of a Retry-After (RFC 9110, 10.2.3), which may also be a date."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def unreachable(url: str, error: Exception) -> ConnectionFailed:
    """The error of an attempt without an answer."""
    return ConnectionFailed(f"{url} does not answer: {type(error).__name__} {error}".rstrip())


def wait_s(attempt: int, error: BaseException | None) -> float:
    """How long to wait after so many attempts: doubled each time, with jitter so that clients do not come
    together, and no shorter than the API asks for, up to an hour."""
    doubled = min(WAIT_MOST_S, WAIT_FIRST_S * 2 ** min(attempt - 1, 16))
    asked = error.retry_after_s if isinstance(error, ApiError) else None
    return min(max(asked or 0.0, 0.0), WAIT_ASKED_MOST_S) + random.uniform(doubled / 2, doubled)


def wait_of_attempt(state: RetryCallState) -> float:
    return wait_s(state.attempt_number, state.outcome.exception() if state.outcome else None)


def next_page(request: Request, page: models.History) -> Request | None:
    """The request of the page after `page`. Only the query of its address is used: the key goes nowhere
    else."""
    if page.next is None:
        return None
    return Request(request.path, dict(parse_qsl(urlsplit(page.next).query)))


def _place(response: httpx.Response) -> str:
    return f"{response.request.url.copy_with(query=None)} ({response.status_code})"


def segment(text: str) -> str:
    if text.strip() in ("", ".", ".."):  # dots would be another path
        raise ValueError(f"symbol is {text.strip()!r}; it should be like BTCUSDT")
    return quote(text.strip(), safe="")


def _without_none(**members: str | int | None) -> Query:
    return {name: value for name, value in members.items() if value is not None}
