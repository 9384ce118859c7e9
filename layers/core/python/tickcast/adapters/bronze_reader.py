"""What the archive wrote of a symbol over a stretch of time, in the order of the stream.

Listings are of whole hours; of their objects only those are read whose names say that they reach into the
stretch. Both are remembered for as long as the reader lives, so that several predictions of a few minutes
cost little more than one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tickcast.adapters import bronze
from tickcast.adapters.bronze import Part
from tickcast.ticks import QUOTE, TRADE, Quotes, Trades

_HOUR_US = 3600 * 1_000_000
_ROOT = "bronze/source="
_NOT_STREAMED = ("rest",)  # repaired or fetched as history: no prediction was made from it


class BronzeReader:
    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._sources: list[str] | None = None
        self._listed: dict[str, list[Part]] = {}  # by prefix
        self._read: dict[str, tuple[Trades, Quotes]] = {}  # by key

    def parts(self, symbol: str, from_us: int, to_us: int) -> list[Part]:
        """The archived objects of the hours that [`from_us`, `to_us`] touches, in the order of the stream."""
        hours = range(from_us // _HOUR_US, to_us // _HOUR_US + 1)
        found = [
            part
            for source in self._streamed()
            for hour in hours
            for part in self._list(bronze.prefix(source, symbol, hour * _HOUR_US))
        ]
        # A number is higher than all before it with the same key, in whichever shard.
        return sorted(found, key=lambda part: (part.first_sequence, part.last_sequence, part.from_us))

    def ticks(self, parts: list[Part]) -> tuple[Trades, Quotes]:
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

    def _list(self, prefix: str) -> list[Part]:
        if prefix not in self._listed:
            pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
            self._listed[prefix] = [part for key in keys if (part := bronze.part(key))]
        return self._listed[prefix]

    def _ticks(self, key: str) -> tuple[Trades, Quotes]:
        if key not in self._read:
            data = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            self._read[key] = bronze.ticks_from(bronze.read_file(data, key))
        return self._read[key]
