"""The objects of bronze: which there are, and their ticks, checked and read in bounded memory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from botocore.exceptions import ClientError

from tickcast.adapters.lake import bronze
from tickcast.market.plausibility import quote_faults
from tickcast.market.ticks import QUOTE, TRADE, Quotes, Trades
from tickcast.market.trade_ledger import origin_of
from tickcast.units import DAY_US, HOUR_US

SOURCES = ("sbe", "json", "rest", "sim", "replay")
_KEY = re.compile(r"bronze/source=(\w+)/symbol=(\w+)/date=(\d{4}-\d\d-\d\d)/hour=(\d\d)/[^/]+\.avro")
_CHUNK = 5_000  # records that are Python objects at once


class BronzeObject(NamedTuple):
    key: str
    etag: str  # without quotation marks
    source: str
    symbol: str
    hour_us: int  # the hour it lies under


class ObjectTicks(NamedTuple):
    trades: Trades
    quotes: Quotes
    origin: int  # index of ORIGINS


class ObjectGone(RuntimeError):
    """An object is not there any more, or not as it was: another has taken its place."""


def object_at(key: str, etag: str) -> BronzeObject:
    """The object of `key`. Raises `BronzeError` when no ticks lie under such a key."""
    found = _KEY.fullmatch(key)
    if not found:
        raise bronze.BronzeError(f"{key!r} is not bronze/source=…/symbol=…/date=…/hour=…/NAME.avro")
    source, symbol, date, hour = found.groups()
    at = datetime.strptime(f"{date} {hour}", "%Y-%m-%d %H").replace(tzinfo=UTC)
    return BronzeObject(key, etag.strip('"'), source, symbol, int(at.timestamp()) * 1_000_000)


def objects_between(s3: Any, bucket: str, symbol: str, from_us: int, to_us: int) -> Iterator[BronzeObject]:
    """The objects of all sources that lie under the hours of [from_us, to_us)."""
    pages = s3.get_paginator("list_objects_v2")
    for source in SOURCES:
        for day_us in range(from_us // DAY_US * DAY_US, to_us, DAY_US):
            folder = bronze.prefix(source, symbol, day_us).partition("hour=")[0]
            for page in pages.paginate(Bucket=bucket, Prefix=folder):
                for item in page.get("Contents", []):
                    if not _KEY.fullmatch(item["Key"]):
                        continue
                    found = object_at(item["Key"], item["ETag"])
                    if found.hour_us + HOUR_US > from_us and found.hour_us < to_us:
                        yield found


def fetch(s3: Any, bucket: str, key: str, etag: str) -> bytes:
    """The bytes of that version of an object. Raises `ObjectGone`, and what S3 raises."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=key, IfMatch=f'"{etag}"')
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404", "PreconditionFailed", "412"):
            raise ObjectGone(f"{key} is not there any more as it was (ETag {etag})") from None
        raise
    return bytes(answer["Body"].read())


def ticks_of(data: bytes, about: BronzeObject) -> ObjectTicks:
    """The ticks in an object. Raises `BronzeError` on what is not whole, or no market can have produced."""
    trades, quotes = [np.empty(0, TRADE)], [np.empty(0, QUOTE)]
    records = bronze.read_file(data, about.key)
    try:
        while chunk := list(itertools.islice(records, _CHUNK)):
            if strangers := {r["symbol"] for r in chunk} - {about.symbol}:
                raise bronze.BronzeError(f"{about.key} holds ticks of {', '.join(sorted(strangers))}")
            some_trades, some_quotes = bronze.ticks_from(chunk)
            trades.append(some_trades)
            quotes.append(some_quotes)
        found = ObjectTicks(np.concatenate(trades), np.concatenate(quotes), origin_of(about.source))
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, bronze.BronzeError):
            raise
        raise bronze.BronzeError(f"{about.key} holds a record that is no tick: {error}") from error
    _check(found, about)
    return found


def _check(ticks: ObjectTicks, about: BronzeObject) -> None:
    trades, quotes = ticks.trades, ticks.quotes
    until_us = about.hour_us + HOUR_US
    rules: tuple[tuple[npt.NDArray[Any], npt.NDArray[np.bool_], str], ...] = (
        (trades, (trades["price"] > 0) & (trades["qty"] > 0), "trades without a price or quantity"),
        (trades, trades["first_id"] <= trades["last_id"], "trades whose last id is before the first"),
        (trades, _within(trades, about.hour_us, until_us), "trades of another hour"),
        *((quotes, ~is_faulty, f"quotes that are {reason}") for reason, is_faulty in quote_faults(quotes)),
        (quotes, _within(quotes, about.hour_us, until_us), "quotes of another hour"),
    )
    for rows, is_right, what in rules:
        if not is_right.all():
            first = rows[~is_right][:1].tolist()[0]
            raise bronze.BronzeError(f"{about.key} holds {int((~is_right).sum())} {what}, the first: {first}")


def _within(rows: npt.NDArray[Any], from_us: int, until_us: int) -> npt.NDArray[np.bool_]:
    return np.asarray((rows["time_us"] >= from_us) & (rows["time_us"] < until_us))
