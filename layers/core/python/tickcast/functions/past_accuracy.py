"""The accuracy of any span of whole hours, from the tallies in the lake."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import UNSET

from tickcast.adapters.http.parameters import AccuracyQuery
from tickcast.adapters.http.responses import ApiError
from tickcast.adapters.lake.tally_archive import TallyArchive, TallyArchiveError
from tickcast.adapters.redaction import describe
from tickcast.evaluation.live_scores import SpanAccuracy, availability, score
from tickcast.units import DAY_US, HOUR_US

MAX_DAYS = 100
_NOT_BY_HOUR = (
    "Regimes, earnings and skill at later ages are not kept by the hour; `summary` has them of the last "
    "hour, day and week."
)
MAX_BLOCKS = 168  # of a span, for its intervals: an hour of a week each, more of a longer one


def span_of(query: AccuracyQuery, now_ms: int) -> tuple[int, int] | None:
    """The span that `query` asks for, in whole hours (µs); None where it asks for none. Raises `ApiError`."""
    if query.from_ is UNSET:
        if query.to is not UNSET:
            detail = "to is given without from; give both, or neither for the last hour, day and week"
            raise ApiError(400, "Bad from", detail, "from")
        return None
    to_ms = now_ms if query.to is UNSET else min(int(query.to), now_ms)
    if query.from_ > to_ms:
        detail = f"from ({int(query.from_)}) is later than to ({to_ms}, now at the latest)"
        raise ApiError(400, "Bad from", detail, "from")
    from_us = int(query.from_) * 1000 // HOUR_US * HOUR_US
    to_us = max(-(-to_ms * 1000 // HOUR_US) * HOUR_US, from_us + HOUR_US)
    if to_us - from_us > MAX_DAYS * DAY_US:
        days = -(-(to_us - from_us) // DAY_US)
        raise ApiError(
            400, "Bad from", f"the span has {days} days, it should have {MAX_DAYS} at most", "from"
        )
    return from_us, to_us


def note_of(span_us: tuple[int, int], until_us: int) -> str:
    """What a reader of the figures of `span_us`, known until `until_us`, should know of them."""
    from_text, to_text = (_text(us) for us in span_us)
    span = f"The span is {from_text} to {to_text}: whole hours"
    if until_us <= span_us[0]:
        return f"{span}. Nothing of it is archived: an hour is a minute after its end, if it had outcomes."
    known = "" if until_us >= span_us[1] else f", of which those up to {_text(until_us)} are archived"
    return f"{span}{known}. {_NOT_BY_HOUR}"


def _text(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%dT%H:%MZ}"


class PastAccuracy:
    def __init__(self, archive: TallyArchive) -> None:
        self._archive = archive

    def __call__(self, symbol: str, from_us: int, to_us: int) -> SpanAccuracy:
        """The figures of [`from_us`, `to_us`), as far as it is archived. Raises `ApiError`."""
        from botocore.exceptions import BotoCoreError, ClientError  # in use, so boto3 is loaded already

        try:
            tallies, first_us, until_us = self._archive.read(symbol, from_us, to_us)
        except (BotoCoreError, ClientError) as error:
            detail = f"S3, where past scores are, does not answer ({type(error).__name__}); try again"
            raise ApiError(503, "Archive unavailable", detail) from None
        except TallyArchiveError as error:
            raise ApiError(503, "Archive unreadable", describe(error)) from None
        until_us = max(from_us, min(to_us, until_us or from_us))
        first_us = first_us and min(max(first_us, from_us), until_us)
        tallies["block"] //= -(-(to_us - from_us) // (MAX_BLOCKS * HOUR_US))
        return SpanAccuracy(
            from_ms=from_us // 1000,
            to_ms=until_us // 1000,
            first_ms=first_us and first_us // 1000,
            availability=None if first_us is None else availability(tallies, first_us, until_us),
            horizons=score(tallies),
        )
