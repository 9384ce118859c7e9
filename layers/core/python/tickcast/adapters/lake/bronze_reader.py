"""Reading bronze: which objects there are, and their ticks.

`load_history` reads whole hours of all sources, each object checked, in bounded memory. `BronzeReader` reads
what the archive wrote of a symbol over a span of time, in the order of the stream.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from botocore.exceptions import ClientError

from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.bronze import BronzeError, StreamPart
from tickcast.adapters.lake.objects import list_folders, list_objects
from tickcast.market.plausibility import quote_faults
from tickcast.market.sources import Origin, Source
from tickcast.market.ticks import NO_QUOTES, TRADE, Quotes, Trades
from tickcast.units import HOUR_US

_ROOT = "bronze/source="
_KEY = re.compile(
    rf"bronze/source=({'|'.join(Source)})/symbol=(\w+)/date=(\d{{4}}-\d\d-\d\d)/hour=(\d\d)/[^/]+\.avro"
)
_CHUNK = 5_000  # records that are held as Python objects at once


class BronzeObject(NamedTuple):
    """An object of ticks, by its key."""

    key: str
    etag: str  # without quotation marks
    source: Source
    symbol: str
    hour_us: int  # the hour it lies under


class RefusedTicks(NamedTuple):
    """Ticks of an object that cannot be used, and why."""

    why: str
    rows: list[dict[str, int]]


class ObjectTicks(NamedTuple):
    """The ticks of an object that can be used, and the others."""

    trades: Trades
    quotes: Quotes
    origin: Origin
    reference: Quotes = NO_QUOTES
    refused: tuple[RefusedTicks, ...] = ()


class ObjectGone(RuntimeError):
    """An object was deleted or overwritten since it was listed."""


def object_at(key: str, etag: str) -> BronzeObject:
    """The object of `key`. Raises `BronzeError` for a key that is not one of ticks."""
    found = _KEY.fullmatch(key)
    if not found:
        raise BronzeError(
            f"{key!r} is not bronze/source=…/symbol=…/date=…/hour=…/NAME.avro of one of {', '.join(Source)}"
        )
    source, symbol, date, hour = found.groups()
    at = datetime.strptime(f"{date} {hour}", "%Y-%m-%d %H").replace(tzinfo=UTC)
    return BronzeObject(key, etag.strip('"'), Source(source), symbol, int(at.timestamp()) * 1_000_000)


def objects_of(s3: Any, bucket: str, folder: str) -> Iterator[BronzeObject]:
    """The objects of ticks in a folder of a source and symbol, by key."""
    for stored in list_objects(s3, bucket, folder):
        if _KEY.fullmatch(stored.key):
            yield object_at(stored.key, stored.etag)


def fetch(s3: Any, bucket: str, key: str, etag: str) -> bytes:
    """The bytes of that version of an object. Raises `ObjectGone`, and what S3 raises."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404", "PreconditionFailed", "412"):
            raise ObjectGone(f"{key} no longer exists with ETag {etag}") from None
        raise
    return bytes(answer["Body"].read())


def ticks_of(data: bytes, about: BronzeObject) -> ObjectTicks:
    """The ticks in an object; impossible ones apart. Raises `BronzeError` if it is damaged as a whole."""
    trades, quotes, reference = _read_ticks(data, about.key, about.symbol)
    refused: list[RefusedTicks] = []
    return ObjectTicks(
        _possible(trades, _trade_faults(trades), about, refused),
        _possible(quotes, quote_faults(quotes), about, refused),
        about.source.origin,
        _possible(reference, quote_faults(reference), about, refused),
        tuple(refused),
    )


def _read_ticks(data: bytes, key: str, symbol: str) -> tuple[Trades, Quotes, Quotes]:
    """The trades, quotes and reference quotes of a file, all of `symbol`. Raises `BronzeError`."""
    chunks = [(np.empty(0, TRADE), NO_QUOTES, NO_QUOTES)]
    records = bronze.read_file(data, key)
    try:
        while chunk := list(itertools.islice(records, _CHUNK)):
            if others := {record["symbol"] for record in chunk} - {symbol}:
                raise BronzeError(f"{key} holds ticks of {', '.join(sorted(others))}")
            chunks.append(bronze.ticks_from(chunk))
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, BronzeError):
            raise
        raise BronzeError(f"{key} holds a record that is no tick: {error}") from error
    trades, quotes, reference = map(np.concatenate, zip(*chunks, strict=True))
    return trades, quotes, reference


Flags = npt.NDArray[np.bool_]


def _trade_faults(trades: Trades) -> Iterator[tuple[str, Flags]]:
    more = trades["last_id"] - trades["first_id"]  # below 0 where 64 bits cannot hold it either
    yield "without a price or quantity", (trades["price"] <= 0) | (trades["qty"] <= 0)
    yield "whose last id is before the first", more < 0
    yield "of impossibly many ids", more >= 2**31 - 1


def _possible(
    ticks: npt.NDArray[Any],
    faults: Iterable[tuple[str, Flags]],
    about: BronzeObject,
    refused: list[RefusedTicks],
) -> npt.NDArray[Any]:
    """Those of `ticks` that are possible, and of the object's hour; `refused` gets the others."""
    time_us, until_us = ticks["time_us"], about.hour_us + HOUR_US
    is_refused = np.zeros(len(ticks), bool)
    for why, is_faulty in (*faults, ("of another hour", (time_us < about.hour_us) | (time_us >= until_us))):
        if (found := is_faulty & ~is_refused).any():
            kind = "trades" if ticks.dtype == TRADE else "quotes"
            rows = [dict(zip(ticks.dtype.names or (), row, strict=True)) for row in ticks[found].tolist()]
            refused.append(RefusedTicks(f"{about.key}: {len(rows)} {kind} {why}", rows))
            is_refused |= found
    return ticks[~is_refused] if is_refused.any() else ticks


class Reach(NamedTuple):
    """How far the archive has got in some hours: how many `objects` there are, the newest tick's time (None
    without any), and the first record of the stream that may be incomplete (-1 without any objects).

    An event becomes several objects, one for each hour and source, whose names all have the event's first and
    last record. So an object shows that all events before its own are complete, but not that its own is.
    """

    objects: int = 0
    newest_us: int | None = None
    complete_below: int = -1  # sequence number

    def plus(self, other: Reach) -> Reach:
        known_us = [each for each in (self.newest_us, other.newest_us) if each is not None]
        complete_below = max(self.complete_below, other.complete_below)
        return Reach(self.objects + other.objects, max(known_us, default=None), complete_below)


class _Listing(NamedTuple):
    """A folder as it was listed: the objects of the reader's own span, and how far the archive had got in it.

    Keys sort in the order in which the archive writes a folder, so a listing that has an object of a later
    event has all of the folder's objects of an event, even if its pages were fetched while more were written.
    """

    number: int  # of listings that the reader had made before
    parts: list[StreamPart]
    reach: Reach


class BronzeReader:
    """Reads what the archive wrote in [from_us, to_us), in the order of the stream.

    It lists whole hours, and reads only the objects whose names say that they overlap the requested span.
    Both are cached for as long as the reader lives, so that several predictions of a few minutes cost little
    more than one. Of a listing only what overlaps the reader's own span is cached: where the archive writes
    often, an hour has tens of thousands of objects.

    The archive continues to write while folders are listed one after the other. So what shows that an event
    is complete may be listed after a folder that lacks an object of it: `parts` lists such a folder again.
    """

    def __init__(self, s3: Any, bucket: str, from_us: int = 0, to_us: int = 2**63) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._from_us = from_us
        self._to_us = to_us
        self._made = 0  # listings
        self._sources: tuple[int, list[str]] | None = None  # with the number of that listing
        self._listings: dict[str, dict[str, _Listing]] = defaultdict(dict)  # by symbol and prefix
        self._read: dict[str, tuple[Trades, Quotes, Quotes]] = {}  # by key

    def parts(self, symbol: str, from_us: int, to_us: int, sequence: int) -> list[StreamPart]:
        """The archived objects with ticks between `from_us` and `to_us`, the end excluded, in the order of
        the stream: all those of events up to record `sequence`, where `reach` has found these complete."""
        listings = self._listings[symbol].values()
        proofs = [each.number for each in listings if each.reach.complete_below > sequence]
        since = min(proofs, default=0)
        found = [
            part
            for prefix in self._prefixes(symbol, from_us, to_us, since)
            for part in self._listing(symbol, prefix, since, sequence).parts
            if part.from_us < to_us and part.to_us >= from_us
        ]
        # A number is higher than all before it with the same key, in whichever shard.
        return sorted(found, key=lambda part: (part.first_sequence, part.last_sequence, part.from_us))

    def reach(self, symbol: str, from_us: int, to_us: int) -> Reach:
        """How far the archive has got in the hours that [`from_us`, `to_us`] touches."""
        prefixes = self._prefixes(symbol, from_us, to_us)
        reaches = (self._listing(symbol, prefix).reach for prefix in prefixes)
        return functools.reduce(Reach.plus, reaches, Reach())

    def ticks(self, symbol: str, parts: list[StreamPart]) -> tuple[Trades, Quotes, Quotes]:
        """The trades, quotes and reference quotes of `parts`, in their order. Raises `BronzeError` on a
        damaged object."""
        read = [self._ticks(symbol, part.key) for part in parts]
        none = (np.empty(0, TRADE), NO_QUOTES, NO_QUOTES)
        trades, quotes, reference = map(np.concatenate, zip(none, *read, strict=True))
        return trades, quotes, reference

    def _prefixes(self, symbol: str, from_us: int, to_us: int, since: int = 0) -> list[str]:
        """The folders of these hours, in sources that were listed after listing `since`."""
        hours = range(from_us // HOUR_US, to_us // HOUR_US + 1)
        sources = self._streamed(since)
        return [bronze.prefix(source, symbol, hour * HOUR_US) for source in sources for hour in hours]

    def _streamed(self, since: int) -> list[str]:
        """The sources there are, without REST: no prediction is made from history and repairs."""
        if self._sources is None or self._sources[0] < since:
            found = list_folders(self._s3, self._bucket, _ROOT)
            self._sources = self._made, [name for name in found if name != Source.REST]
            self._made += 1
        return self._sources[1]

    def _listing(self, symbol: str, prefix: str, since: int = 0, sequence: int = -1) -> _Listing:
        """The folder as it was listed: not before listing `since`, unless it had all of the events up to
        record `sequence` then."""
        known = self._listings[symbol].get(prefix)
        if known and (known.number >= since or known.reach.complete_below > sequence):
            return known
        parts, reach = [], Reach()
        for stored in list_objects(self._s3, self._bucket, prefix):
            if part := bronze.stream_part(stored.key):
                reach = reach.plus(Reach(1, part.to_us, part.first_sequence))
                if part.from_us < self._to_us and part.to_us >= self._from_us:
                    parts.append(part)
        listing = self._listings[symbol][prefix] = _Listing(self._made, parts, reach)
        self._made += 1
        return listing

    def _ticks(self, symbol: str, key: str) -> tuple[Trades, Quotes, Quotes]:
        if key not in self._read:
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            self._read[key] = _read_ticks(data, key, symbol)
        return self._read[key]
