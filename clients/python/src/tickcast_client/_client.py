"""The synchronous client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_before_delay

from tickcast_client import _protocol
from tickcast_client._following import STALE_AFTER_S, Following, Update
from tickcast_client._history import HistoryPlan
from tickcast_client._protocol import A, Instant, Request, Settings
from tickcast_client.errors import ClientClosed, TickcastError
from tickcast_client.models import (
    Accuracy,
    Data,
    HealthReport,
    History,
    Latest,
    ListedPrediction,
    Models,
    Receipt,
    Several,
)


class Client:
    """The API of a deployment of tickcast.

    `url` and `key` are taken from TICKCAST_API and TICKCAST_KEY where they are not given; `auth` signs
    requests where a deployment wants signatures instead (`tickcast_client.iam.SigV4`). Each step of a request
    may take `timeout_s`; transient failures (429, 502, 503, 504, no connection) are retried for `retry_s`,
    with growing pauses. Methods raise `TickcastError`, and ValueError on arguments that cannot be right.

    Safe to share between threads. `close`, or leaving a `with` block, ends its streams.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        auth: httpx.Auth | None = None,
        timeout_s: float = 10.0,
        retry_s: float = 20.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = Settings.read(url, key, timeout_s, retry_s)
        self._closed = threading.Event()
        self._http = httpx.Client(
            base_url=self.settings.url,
            headers=self.settings.headers,
            auth=auth,
            timeout=timeout_s,
            trust_env=not self.settings.is_local,
            transport=transport,
        )

    def latest(
        self, symbol: str, *, horizon: int | None = None, history: int = 0, outcomes: bool = False
    ) -> Latest:
        """The newest prediction, for the moment of reading. `history`: also the first of each of so many
        seconds as it was delivered (up to 300), with `outcomes` their outcomes as far as known."""
        return self._ask(_protocol.latest(symbol, horizon, history, outcomes), Latest)

    def latest_of(self, *symbols: str, horizon: int | None = None) -> Several:
        """The same of several symbols, read at one moment; of all that are served if none is named."""
        return self._ask(_protocol.several(symbols, horizon), Several)

    def stream(self, *symbols: str, horizon: int | None = None, every_s: float = 1.0) -> Iterator[Update]:
        """New predictions as they come, asked for every `every_s` (0.1 or more); of all symbols that are
        served if none is named.

        It lasts until the client is closed. While the API does not answer, the stream keeps trying, with
        growing pauses; once the newest answer is 5 s old it says so in an update (`stale`). Raises
        `TickcastError` if the API cannot be reached at the beginning, or refuses."""
        return self._follow(Following(symbols, horizon, every_s))

    def history(
        self,
        symbol: str,
        *,
        from_: Instant | None = None,
        to: Instant | None = None,
        horizon: int | None = None,
        outcomes: bool = False,
        oldest_first: bool = False,
        page_size: int = 200,
    ) -> Iterator[ListedPrediction]:
        """The first prediction of each second of a span as it was delivered, newest first, or `oldest_first`.
        Pages of `page_size` (up to 1000) are asked for when they are needed. An instant is a datetime with an
        offset, a text like 2026-01-31T12:00:00Z, or ms since 1970; without any it is the last hour."""
        return self._pages(HistoryPlan.of(symbol, from_, to, horizon, outcomes, oldest_first, page_size))

    def receipt(self, prediction_id: str) -> Receipt:
        """All that a prediction was made from, and its outcomes as far as known."""
        return self._ask(_protocol.receipt(prediction_id), Receipt)

    def accuracy(self, symbol: str, *, from_: Instant | None = None, to: Instant | None = None) -> Accuracy:
        """The accuracy of the last hour, day and week (`summary`), or of a span of whole hours."""
        return self._ask(_protocol.accuracy(symbol, from_, to), Accuracy)

    def data(self, symbol: str, *, days: int = 30) -> Data:
        """The condition of the data by day, newest first."""
        return self._ask(_protocol.data(symbol, days), Data)

    def models(self) -> Models:
        """The active model and the newest cards."""
        return self._ask(_protocol.MODELS, Models)

    def health(self) -> HealthReport:
        """Whether all parts are healthy. A degraded system is reported, not raised as an error."""
        return self._ask(_protocol.HEALTH, HealthReport)

    def close(self) -> None:
        """End streams, and close connections."""
        self._closed.set()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.url!r})"

    def _follow(self, following: Following) -> Iterator[Update]:
        while not self._closed.is_set():
            try:
                news = self._news(following) if following.is_due(time.monotonic()) else []
            except ClientClosed:
                return
            yield from news
            yield from following.grown_stale(time.monotonic())
            self._closed.wait(following.wait_s(time.monotonic()))

    def _news(self, following: Following) -> list[Update]:
        request = following.request(time.monotonic())
        retry_s = 0.0 if following.has_begun else self.settings.retry_s
        timeout_s = min(self.settings.timeout_s, STALE_AFTER_S)
        try:
            return following.answered(self._ask(request, Several, retry_s, timeout_s), time.monotonic())
        except TickcastError as error:
            following.failed(error, time.monotonic())
            return []

    def _pages(self, plan: HistoryPlan) -> Iterator[ListedPrediction]:
        while plan.request:
            yield from plan.take(self._ask(plan.request, History))

    def _ask(
        self, request: Request, kind: type[A], retry_s: float | None = None, timeout_s: float | None = None
    ) -> A:
        """The answer to a request, which is tried again for `retry_s`. `timeout_s` is of each attempt."""
        retrying = Retrying(
            retry=retry_if_exception_type(_protocol.RETRIED),
            stop=stop_before_delay(self.settings.retry_s if retry_s is None else retry_s),
            wait=_protocol.wait_of_attempt,
            sleep=self._sleep,
            reraise=True,
        )
        answer: A = retrying(self._ask_once, request, kind, timeout_s or self.settings.timeout_s)
        return answer

    def _ask_once(self, request: Request, kind: type[A], timeout_s: float) -> A:
        try:
            response = self._http.get(request.path, params=request.query, timeout=timeout_s)
        except (httpx.RequestError, RuntimeError, OSError, ValueError) as error:
            if self._closed.is_set():  # meanwhile, by another thread
                raise ClientClosed from None
            if isinstance(error, httpx.RequestError):
                raise _protocol.unreachable(self.settings.url, error) from error
            raise
        return _protocol.read(response, kind)

    def _sleep(self, seconds: float) -> None:
        if self._closed.wait(seconds):
            raise ClientClosed
