"""Predictions of the past, from the hot store and, beyond its hour, from the archive in the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from msgspec import structs

from tickcast.adapters.http.responses import ApiError
from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive, ReceiptArchiveError
from tickcast.adapters.redaction import describe
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.market.symbols import MAX_LENGTH
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.records import (
    ArchivedReceipt,
    Outcome,
    OutcomeEntry,
    OutcomeSummary,
    Prediction,
    PredictionSummary,
)

DAY_MS = 86_400_000
HOT_MS = keys.PREDICTIONS_KEPT * 1000  # the hot store has all of this, at one a second at most
ARCHIVED_AFTER_MS = 60_000  # nothing younger is looked for in the lake
REQUESTS = 16  # to S3 for one page; where there is little in many objects, `next` continues


@dataclass
class Page:
    """Predictions, newest first. There may be more before the instant `continue_ms`; None: there are not."""

    predictions: list[Prediction] = field(default_factory=list)
    continue_ms: int | None = None


class PastPredictions:
    """`keep_days`: for how long the archive keeps them. All methods raise what Redis raises, and `ApiError`
    where S3 does not answer or has what cannot be read."""

    def __init__(
        self, store: HotStore, archive: ReceiptArchive, keep_days: int, clock_ms: Callable[[], float]
    ) -> None:
        self._store = store
        self._archive = archive
        self._keep_ms = (keep_days + 1) * DAY_MS  # S3 deletes once a day
        self._clock_ms = clock_ms

    def receipt(self, symbol: str, timestamp_ms: int) -> ArchivedReceipt | None:
        """The prediction as of `timestamp_ms`, with its outcomes as far as they are known; None where there
        was none, or it is no longer kept."""
        record = self._store.prediction(symbol, timestamp_ms)
        if record is None:
            age_ms = self._clock_ms() - timestamp_ms
            # A caller may name any symbol, since receipts are kept longer than one is served.
            if not ARCHIVED_AFTER_MS <= age_ms <= self._keep_ms or len(symbol) > MAX_LENGTH:
                return None
            with _as_api_error():
                return self._archive.find(symbol, timestamp_ms)
        found = self._store.outcomes(symbol, delivered_at_ms(record), HORIZONS_S)
        # Another prediction may have been delivered in the same millisecond.
        outcomes = {horizon_s: each for horizon_s, each in sorted(found.items()) if each.id == record.id}
        return ArchivedReceipt(**structs.asdict(record), outcomes=outcomes)

    def outcomes(
        self, symbol: str, predictions: Sequence[Prediction]
    ) -> dict[str, dict[int, OutcomeSummary]]:
        """The outcomes of each of `predictions`, newest first, as far as they are known: by id and horizon.
        Those of the hot store are read at once, since lists have nearly every second of their span."""
        known = {
            each.id: {h: _summary(outcome) for h, outcome in each.outcomes.items()}
            if isinstance(each, ArchivedReceipt)
            else {}
            for each in predictions
        }
        hot = [delivered_at_ms(each) for each in predictions if not isinstance(each, ArchivedReceipt)]
        if hot:
            first_ms, last_ms = min(hot) + 1000 * min(HORIZONS_S), max(hot) + 1000 * max(HORIZONS_S)
            for outcome in self._store.outcomes_until(symbol, first_ms, last_ms):
                if outcome.id in known:
                    known[outcome.id][outcome.horizon_s] = _summary(outcome)
        return {id_: dict(sorted(outcomes.items())) for id_, outcomes in known.items()}

    def page(self, symbol: str, from_ms: int, to_ms: int, limit: int) -> Page:
        """The newest of those made as of `from_ms` to `to_ms`, both included: `limit` of them, or fewer."""
        found = self._store.predictions(symbol, from_ms, to_ms, limit + 1)
        page = Page(found[:limit])
        if len(found) > limit:
            page.continue_ms = page.predictions[-1].timestamp
            return page
        now_ms = round(self._clock_ms())
        from_ms = max(from_ms, now_ms - self._keep_ms)
        until_ms = min(found[-1].timestamp if found else to_ms + 1, now_ms - HOT_MS)
        if from_ms < until_ms and not self._is_hot(symbol, from_ms):
            with _as_api_error():
                self._add_archived(page, symbol, from_ms, until_ms, limit)
        return page

    def _is_hot(self, symbol: str, from_ms: int) -> bool:
        """Whether the hot store has all since `from_ms`."""
        extent = self._store.extent(keys.predictions(symbol))
        return extent is not None and extent[0] <= from_ms

    def _add_archived(self, page: Page, symbol: str, from_ms: int, until_ms: int, limit: int) -> None:
        """Add those of [`from_ms`, `until_ms`), by `REQUESTS` requests at most: a listing of each day, and
        the objects in it."""
        requests = 0
        while until_ms > from_ms:
            day_ms = (until_ms - 1) // DAY_MS * DAY_MS
            requests += 1
            for at_ms in self._archive.stored_blocks(Folder.SECONDS, symbol, max(from_ms, day_ms), until_ms):
                requests += 1
                block = self._archive.block(Folder.SECONDS, symbol, at_ms).receipts.values()
                page.predictions += reversed([r for r in block if from_ms <= r.timestamp < until_ms])
                if len(page.predictions) > limit:
                    del page.predictions[limit:]
                    page.continue_ms = page.predictions[-1].timestamp
                    return
                if requests >= REQUESTS and at_ms > from_ms:
                    page.continue_ms = at_ms
                    return
            until_ms = day_ms
            if requests >= REQUESTS and until_ms > from_ms:
                page.continue_ms = until_ms
                return


def _summary(outcome: Outcome | OutcomeEntry) -> OutcomeSummary:
    return msgspec.convert(outcome, OutcomeSummary, from_attributes=True)


def delivered_at_ms(prediction: PredictionSummary) -> int:
    """When `prediction` was delivered: what it says is still to come began then."""
    return prediction.target_time - 1000 * prediction.horizon_s


@contextmanager
def _as_api_error() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError  # in use, so boto3 is loaded already

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        detail = f"S3, where older receipts are, does not answer ({type(error).__name__}); try again"
        raise ApiError(503, "Archive unavailable", detail) from None
    except ReceiptArchiveError as error:
        raise ApiError(503, "Archive unreadable", describe(error)) from None
