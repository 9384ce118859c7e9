"""How the pages of a history follow each other, in both orders. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from tickcast_client._protocol import PAGE_MOST, Instant, Query, Request, next_page, segment, span
from tickcast_client.models import History, ListedPrediction


@dataclass
class HistoryPlan:
    """The requests of a history one after the other: `request` is the next one, None at the end, and `take`
    gives what its page adds, in order.

    The API lists the newest first. Oldest first, the span is read in windows as long as a page has seconds,
    so that no more than a page is held. Where a window is empty the next one is twice as long: a span may
    begin years before the oldest prediction that is kept. A long one with more than a page is halved.
    """

    request: Request | None
    oldest_first: bool
    page_size: int
    _base: Query
    _to: int | None = None
    _window_from: int = 0
    _window_to: int = 0
    _window_ms: int = 0
    _may_grow: bool = True
    _window: list[ListedPrediction] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        symbol: str,
        from_: Instant | None,
        to: Instant | None,
        horizon: int | None,
        outcomes: bool,
        oldest_first: bool,
        page_size: int,
    ) -> HistoryPlan:
        """Raises ValueError naming an argument that is wrong."""
        if not 1 <= page_size <= PAGE_MOST:
            raise ValueError(f"page_size is {page_size}; it should be 1 to {PAGE_MOST}")
        base: Query = {} if horizon is None else {"horizon": horizon}
        if outcomes:
            base["outcomes"] = "true"
        bounds = {name: ms for name, ms in span(from_, to).items() if ms is not None}
        # Oldest first, the first page is one that says what the span is: without arguments the API decides.
        limit = 1 if oldest_first else page_size
        first = Request(f"predictions/{segment(symbol)}/history", base | bounds | {"limit": limit})
        return cls(first, oldest_first, page_size, base)

    def take(self, page: History) -> list[ListedPrediction]:
        """What `page`, the answer to `request`, adds."""
        assert self.request
        if not self.oldest_first:
            self.request = next_page(self.request, page)
            return page.predictions
        if self._to is None:
            self._to, self._window_ms = page.to, self.page_size * 1000
            self._open(page.from_)
            return []
        following = next_page(self.request, page)
        least_ms = self.page_size * 1000
        if following and self._window_ms > least_ms:
            self._window_ms, self._may_grow = max(self._window_ms // 2, least_ms), False
            self._open(self._window_from)
            return []
        self._window += page.predictions
        if following:
            self.request = following
            return []
        done, self._window = self._window[::-1], []
        if done:
            self._window_ms, self._may_grow = least_ms, True
        elif self._may_grow:
            self._window_ms *= 2
        self._open(self._window_to + 1)
        return done

    def _open(self, from_ms: int) -> None:
        """Begin a window."""
        assert self.request and self._to is not None
        if from_ms > self._to:
            self.request = None
            return
        self._window_from, self._window_to = from_ms, min(self._to, from_ms + self._window_ms - 1)
        bounds: Query = {"from": from_ms, "to": self._window_to, "limit": self.page_size}
        self.request = Request(self.request.path, self._base | bounds)
