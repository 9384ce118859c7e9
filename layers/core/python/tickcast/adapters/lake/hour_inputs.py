"""What an hour of history is derived from: the objects of bronze whose ticks reach into it.

An hour's rows depend on ticks from some time before it to some time after it (`affected_hours`). Where a name
says which span an object covers, it is an input of the hours that this reaches into; else of those around its
whole hour. The inputs are remembered by the first bytes of their digests, by which new ones are recognised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.bronze_reader import BronzeObject, objects_of
from tickcast.adapters.lake.objects import list_folders
from tickcast.market.sources import Source
from tickcast.model.dataset import affected_hours
from tickcast.units import DAY_US, HOUR_US, SECOND_US

_ROOT = "bronze/source="
_WINDOW = re.compile(r"/aggtrades-(\d+)-(\d+)\.avro$")
_DIGEST_BYTES = 8

Inputs = frozenset[bytes]


def sources_of(s3: Any, bucket: str) -> list[Source]:
    """The sources of which bronze has anything."""
    return [Source(name) for name in list_folders(s3, bucket, _ROOT) if name in set(Source)]


def days_of(s3: Any, bucket: str, symbol: str, sources: Iterable[Source]) -> set[int]:
    """The beginnings of the days (UTC) that bronze has objects of `symbol` for."""
    days = set()
    for source in sources:
        for date in list_folders(s3, bucket, f"{_ROOT}{source}/symbol={symbol}/date="):
            at = datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
            days.add(int(at.timestamp()) * SECOND_US)
    return days


def hour_inputs(
    s3: Any, bucket: str, symbol: str, hours: range, sources: Iterable[Source]
) -> dict[int, list[BronzeObject]]:
    """The inputs of those of `hours` that have any, by their beginnings; each list by key."""
    listed = range(hours.start - HOUR_US, hours.stop + HOUR_US, HOUR_US)
    folders = [folder for source in sources for folder in _folders(source, symbol, listed)]
    return by_hour((found for folder in folders for found in objects_of(s3, bucket, folder)), hours)


def by_hour(objects: Iterable[BronzeObject], hours: range) -> dict[int, list[BronzeObject]]:
    """`objects` by those of `hours` that they reach into."""
    found: dict[int, list[BronzeObject]] = {}
    for about in objects:
        for hour_us in affected_hours(*span_us(about)):
            if hour_us in hours:
                found.setdefault(hour_us, []).append(about)
    return {hour_us: sorted(each) for hour_us, each in found.items()}


def span_us(about: BronzeObject) -> tuple[int, int]:
    """The first and the last instant that an object may have ticks of."""
    first_us, last_us = about.hour_us, about.hour_us + HOUR_US - 1
    if part := bronze.stream_part(about.key):
        named = part.from_us, part.to_us
    elif window := _WINDOW.search(about.key):
        named = int(window[1]), int(window[2]) - 1
    else:
        return first_us, last_us
    # Ticks of another hour are refused, whatever the name says.
    return max(first_us, min(named[0], last_us)), min(last_us, max(named[1], first_us))


def digests(objects: Iterable[BronzeObject], *settings: int) -> Inputs:
    """What identifies `objects` and the `settings` that rows depend on."""
    names = [f"{about.key} {about.etag}" for about in objects] + [f"settings {settings}"]
    return frozenset(hashlib.sha256(name.encode()).digest()[:_DIGEST_BYTES] for name in names)


def packed(inputs: Inputs) -> bytes:
    return b"".join(sorted(inputs))


def unpacked(data: bytes) -> Inputs:
    return frozenset(data[at : at + _DIGEST_BYTES] for at in range(0, len(data), _DIGEST_BYTES))


def _folders(source: Source, symbol: str, hours: range) -> Iterator[str]:
    """The folders of `hours`: of a whole day its own, else that of each hour."""
    hour_us = hours.start
    while hour_us < hours.stop:
        folder = bronze.prefix(source, symbol, hour_us)
        if hour_us % DAY_US == 0 and hour_us + DAY_US <= hours.stop:
            yield folder.partition("hour=")[0]
            hour_us += DAY_US
        else:
            yield folder
            hour_us += HOUR_US
