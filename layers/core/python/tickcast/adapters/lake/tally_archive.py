"""Tallies of outcomes in the lake, an object for each symbol and day (UTC): what the accuracy of any span is
computed from, for as long as nobody deletes them.

An object is gzip-compressed JSON. Its tallies are by hours and lie in columns, by the names of
`live_scores.TALLY`. A column that an older release did not know is unknown, not 0: the figures that need it
are then unknown too.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from tickcast.adapters.lake.objects import LazyBucket
from tickcast.evaluation.live_scores import NO_TALLIES, TALLY, Tallies
from tickcast.serving.records import decode, encode
from tickcast.units import DAY_US, HOUR_US

PREFIX = "tallies/"
_READ_AT_ONCE = 8


class TallyArchiveError(ValueError):
    """An object of the archive that cannot be read; the message names it."""


class TallyDay(Struct, kw_only=True):
    """The tallies of the hours of [`from_us`, `until_us`), which are of one day. `first_us`: since when the
    symbol has had outcomes, `from_us` at the earliest."""

    symbol: str
    from_us: Annotated[int, Meta(ge=0)]
    until_us: Annotated[int, Meta(ge=0)]
    first_us: Annotated[int, Meta(ge=0)]
    columns: dict[str, list[Any]]


class ArchivedTallies(NamedTuple):
    """Tallies by hours, the instant since when there were outcomes, and until when the archive reaches (µs);
    both are None where it has nothing."""

    tallies: Tallies
    first_us: int | None
    until_us: int | None


def key(symbol: str, day_us: int) -> str:
    """The object of the day that contains `day_us`."""
    return f"{_folder(symbol)}date={datetime.fromtimestamp(day_us / 1e6, UTC):%Y-%m-%d}.json.gz"


def _folder(symbol: str) -> str:
    return f"{PREFIX}symbol={symbol}/"


def encode_day(symbol: str, span_us: tuple[int, int], first_us: int, tallies: Tallies) -> bytes:
    """The object of a day's `tallies`."""
    columns = {name: tallies[name].tolist() for name in TALLY.names or ()}
    from_us, until_us = span_us
    day = TallyDay(symbol=symbol, from_us=from_us, until_us=until_us, first_us=first_us, columns=columns)
    return gzip.compress(encode(day), mtime=0)


def decode_day(data: bytes, name: str) -> tuple[TallyDay, Tallies]:
    """The day in the object `name`, and its tallies. Raises `TallyArchiveError`."""
    try:
        day = decode(TallyDay, gzip.decompress(data))
        tallies = np.zeros(len(day.columns["block"]), TALLY)
        for column in TALLY.names or ():
            unknown = np.nan if TALLY[column].kind == "f" else np.zeros(1, TALLY[column])[0]
            tallies[column] = day.columns.get(column, unknown)
        return day, tallies
    except (OSError, EOFError, zlib.error, KeyError, ValueError, TypeError) as error:
        raise TallyArchiveError(f"{name} cannot be read: {error!r}") from error


class TallyArchive:
    """Reads the archive and adds to it. `connect` gives the S3 client, which is made when it is first needed.
    All methods raise what S3 raises."""

    def __init__(self, connect: Callable[[], Any], bucket: str) -> None:
        self._bucket = LazyBucket(connect, bucket)

    def newest_day_us(self, symbol: str) -> int | None:
        """The start of the newest day there is an object of; None without any."""
        names = [stored.key for stored in self._bucket.list(_folder(symbol))]
        if not names:
            return None
        date = names[-1].removeprefix(f"{_folder(symbol)}date=").removesuffix(".json.gz")
        return round(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 1_000_000

    def put(self, symbol: str, span_us: tuple[int, int], first_us: int, tallies: Tallies) -> None:
        """Replace the object of the day that `span_us` begins, but for hours of which it has more outcomes
        than `tallies`: a database that was lost, or restored from a snapshot, takes nothing away. An object
        that cannot be read is replaced as a whole."""
        name = key(symbol, span_us[0])
        known = self._known(name)
        if known:
            day, before = known
            tallies = _fullest(before, tallies)
            first_us = min(first_us, day.first_us)
            span_us = span_us[0], max(span_us[1], day.until_us)
        self._bucket.put_gzip(name, encode_day(symbol, span_us, first_us, tallies))

    def read(self, symbol: str, from_us: int, to_us: int) -> ArchivedTallies:
        """The tallies of the hours that begin in [`from_us`, `to_us`). Raises `TallyArchiveError`."""
        days_us = range(from_us // DAY_US * DAY_US, to_us, DAY_US)
        self._bucket.connect()  # before there are several threads
        days, found = [], []
        with ThreadPoolExecutor(_READ_AT_ONCE) as pool:
            names = [key(symbol, day_us) for day_us in days_us]
            for name, stored in zip(names, pool.map(self._bucket.get, names), strict=True):
                if stored is None:
                    continue
                day, tallies = decode_day(stored.data, name)
                day.columns.clear()  # Python's numbers take ten times as much memory
                begin_us = tallies["block"] * HOUR_US
                found.append(tallies[(begin_us >= from_us) & (begin_us < to_us)])
                days.append(day)
        if not days:
            return ArchivedTallies(NO_TALLIES, None, None)
        return ArchivedTallies(np.concatenate(found), days[0].first_us, days[-1].until_us)

    def _known(self, name: str) -> tuple[TallyDay, Tallies] | None:
        found = self._bucket.get(name)
        try:
            return decode_day(found.data, name) if found else None
        except TallyArchiveError:
            return None


def _fullest(before: Tallies, now: Tallies) -> Tallies:
    """The tallies of each hour from where it has more outcomes, where as many from `now`."""
    parts = []
    for block in np.union1d(before["block"], now["block"]):
        old, new = before[before["block"] == block], now[now["block"] == block]
        parts.append(old if old["count"].sum() > new["count"].sum() else new)
    return np.concatenate(parts) if parts else now
