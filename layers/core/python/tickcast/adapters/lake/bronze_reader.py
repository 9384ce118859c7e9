"""What the archive wrote of a symbol over a stretch of time, in the order of the stream.

Listings are of whole hours; of their objects only those are read whose names say that they reach into the
stretch. Both are remembered for as long as the reader lives, so that several predictions of a few minutes
cost little more than one. Of a listing no more is kept than what reaches into the time that the reader is
for: where the archive writes often, an hour has tens of thousands of objects.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.bronze import BronzeObject
from tickcast.market.ticks import QUOTE, TRADE, Quotes, Trades
from tickcast.units import HOUR_US

_ROOT = "bronze/source="
_NOT_STREAMED = ("rest",)  # repaired or fetched as history: no prediction was made from it


class Reach(NamedTuple):
    """How far the archive has come in some hours: how many `objects` there are, the newest tick's time (None
    without any), and the last record of the stream that they hold (-1 without any)."""

    objects: int = 0
    newest_us: int | None = None
    last_sequence: int = -1

    def with_part(self, part: BronzeObject) -> Reach:
        newest_us = part.to_us if self.newest_us is None else max(self.newest_us, part.to_us)
        return Reach(self.objects + 1, newest_us, max(self.last_sequence, part.last_sequence))


class BronzeReader:
    """Reads what there is between `from_us` and `to_us`, the end excluded."""

    def __init__(self, s3: Any, bucket: str, from_us: int = 0, to_us: int = 2**63) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._from_us = from_us
        self._to_us = to_us
        self._sources: list[str] | None = None
        self._listed: dict[str, tuple[list[BronzeObject], Reach]] = {}  # by prefix
        self._read: dict[str, tuple[Trades, Quotes]] = {}  # by key

    def parts(self, symbol: str, from_us: int, to_us: int) -> list[BronzeObject]:
        """The archived objects with ticks between `from_us` and `to_us`, the end excluded, in the order of
        the stream."""
        found = [
            part
            for parts, _ in self._listings(symbol, from_us, to_us)
            for part in parts
            if part.from_us < to_us and part.to_us >= from_us
        ]
        # A number is higher than all before it with the same key, in whichever shard.
        return sorted(found, key=lambda part: (part.first_sequence, part.last_sequence, part.from_us))

    def reach(self, symbol: str, from_us: int, to_us: int) -> Reach:
        """How far the archive has come in the hours that [`from_us`, `to_us`] touches."""
        reaches = [reach for _, reach in self._listings(symbol, from_us, to_us)]
        newest = [reach.newest_us for reach in reaches if reach.newest_us is not None]
        return Reach(
            sum(reach.objects for reach in reaches),
            max(newest, default=None),
            max((reach.last_sequence for reach in reaches), default=-1),
        )

    def ticks(self, parts: list[BronzeObject]) -> tuple[Trades, Quotes]:
        """The ticks of `parts`, in their order. Raises `bronze.BronzeError` on a damaged object."""
        read = [self._ticks(part.key) for part in parts]
        return (
            np.concatenate([np.empty(0, TRADE), *(trades for trades, _ in read)]),
            np.concatenate([np.empty(0, QUOTE), *(quotes for _, quotes in read)]),
        )

    def _streamed(self) -> list[str]:
        """The sources there are, but for those that did not come by the stream."""
        if self._sources is None:
            answer = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=_ROOT, Delimiter="/")
            names = [
                found["Prefix"].removeprefix(_ROOT).strip("/") for found in answer.get("CommonPrefixes", [])
            ]
            self._sources = [name for name in names if name not in _NOT_STREAMED]
        return self._sources

    def _listings(self, symbol: str, from_us: int, to_us: int) -> list[tuple[list[BronzeObject], Reach]]:
        hours = range(from_us // HOUR_US, to_us // HOUR_US + 1)
        return [
            self._list(bronze.prefix(source, symbol, hour * HOUR_US))
            for source in self._streamed()
            for hour in hours
        ]

    def _list(self, prefix: str) -> tuple[list[BronzeObject], Reach]:
        if prefix not in self._listed:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            parts, reach = [], Reach()
            for item in (item for page in pages for item in page.get("Contents", [])):
                if part := bronze.part(item["Key"]):
                    reach = reach.with_part(part)
                    if part.from_us < self._to_us and part.to_us >= self._from_us:
                        parts.append(part)
            self._listed[prefix] = parts, reach
        return self._listed[prefix]

    def _ticks(self, key: str) -> tuple[Trades, Quotes]:
        if key not in self._read:
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            self._read[key] = bronze.ticks_from(bronze.read_file(data, key))
        return self._read[key]
