"""What a stream makes of each answer, and how long it waits for the next. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from tickcast_client import _protocol
from tickcast_client._protocol import Request
from tickcast_client.errors import ApiError, TickcastError
from tickcast_client.models import Latest, Several

EVERY_LEAST_S = 0.1
STALE_AFTER_S = 5.0  # as the API itself has it


@dataclass(frozen=True)
class Update:
    """News of a symbol: a new prediction, or that there is none.

    `stale` is None, or says why `prediction`, the newest known, is not to be acted on: the market's data does
    not arrive, or the API does not answer. It comes once, when that begins; the next update without it ends
    it.
    """

    symbol: str
    prediction: Latest | None
    stale: str | None = None


@dataclass
class Following:
    """A stream's state: which predictions were passed on, and since when the API has not answered."""

    symbols: tuple[str, ...]
    horizon: int | None
    every_s: float
    _newest: dict[str, Update] = field(default_factory=dict)
    _answered_s: float | None = None
    _asked_s: float = 0.0
    _due_s: float = 0.0
    _failures: int = 0
    _error: TickcastError | None = None

    def __post_init__(self) -> None:
        if not self.every_s >= EVERY_LEAST_S:
            raise ValueError(f"every_s is {self.every_s}; it should be {EVERY_LEAST_S} or more")

    @property
    def has_begun(self) -> bool:
        """Whether there was an answer."""
        return self._answered_s is not None

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to ask."""
        return now_s >= self._due_s

    def request(self, now_s: float) -> Request:
        self._asked_s = now_s
        return _protocol.several(self.symbols, self.horizon)

    def answered(self, answer: Several, now_s: float) -> list[Update]:
        """The news in an answer."""
        self._answered_s, self._failures, self._error = now_s, 0, None
        self._due_s = self._asked_s + self.every_s
        found = [Update(symbol, each, _staleness(each)) for symbol, each in answer.predictions.items()]
        found += [
            Update(symbol, self._known(symbol), problem.detail) for symbol, problem in answer.problems.items()
        ]
        gone = self._newest.keys() - answer.predictions.keys() - answer.problems.keys()
        found += [Update(symbol, self._known(symbol), "no longer served") for symbol in sorted(gone)]
        news = [update for update in found if _is_news(self._newest.get(update.symbol), update)]
        self._newest.update((update.symbol, update) for update in news)
        for symbol in gone:
            del self._newest[symbol]
        return news

    def failed(self, error: TickcastError, now_s: float) -> None:
        """Ask again after a pause. Raises `error` if a retry cannot help, and before the first answer, when
        it was retried already."""
        # A gateway's 500 is a failure of that moment, such as a function that was throttled.
        may_pass = isinstance(error, _protocol.RETRIED) or isinstance(error, ApiError) and error.status >= 500
        if self._answered_s is None or not may_pass:
            raise error
        self._failures, self._error = self._failures + 1, error
        self._due_s = max(self._asked_s + self.every_s, now_s + _protocol.wait_s(self._failures, error))

    def grown_stale(self, now_s: float) -> list[Update]:
        """All that is fresh no longer because the API has not answered since."""
        if self._error is None or now_s < self._stale_s:
            return []
        news = [Update(each.symbol, each.prediction, str(self._error)) for each in self._fresh]
        self._newest.update((update.symbol, update) for update in news)
        return news

    def wait_s(self, now_s: float) -> float:
        """How long to wait from now on, until it is time to ask or what is known grows stale."""
        until_s = min(self._due_s, self._stale_s) if self._error and self._fresh else self._due_s
        return max(0.0, until_s - now_s)

    @property
    def _stale_s(self) -> float:
        return (self._answered_s or 0.0) + STALE_AFTER_S

    @property
    def _fresh(self) -> list[Update]:
        return [update for update in self._newest.values() if update.stale is None]

    def _known(self, symbol: str) -> Latest | None:
        found = self._newest.get(symbol)
        return found.prediction if found else None


def _staleness(prediction: Latest) -> str | None:
    if prediction.reason != "stale_features":
        return None
    return f"stale_features: the market is known up to {prediction.age_ms.claim / 1000:.1f} s ago"


def _is_news(before: Update | None, now: Update) -> bool:
    """Whether `now` says something else: another prediction, source or reason, or that staleness begins or
    ends. The same forecast read later is no news, nor is staleness that lasts."""
    if before is None or (before.stale is None) != (now.stale is None):
        return True
    if now.stale is not None:
        return False
    return _identity(before.prediction) != _identity(now.prediction)


def _identity(prediction: Latest | None) -> tuple[str, str, str | None] | None:
    return (prediction.id, prediction.source, prediction.reason) if prediction else None
