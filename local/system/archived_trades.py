"""Which of the trades that the exchange sent are in bronze."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from typing import Any

import fastavro

from local.system import http_json
from local.system.system import System
from tickcast.adapters.lake.objects import list_objects

_SETTLE_S = 1.0  # for what the exchange has just sent to reach ingest
_IDLE_S = 15  # without a missing trade arriving, beyond the batch window: the rest is lost

SentTrades = dict[str, dict[str, Any]]  # by symbol: trades, quotes, first_id, last_id, …


def sent_so_far(system: System, added: Sequence[str] = ()) -> SentTrades:
    """The exchange's counts of what it sent of the system's symbols and those `added` since, without those
    that nobody has listened to; ingest has had the time to receive it when this returns."""
    markets: SentTrades = http_json.get(f"{system.exchange_url}/local/sent").body["symbols"]
    time.sleep(_SETTLE_S)
    return {symbol: markets[symbol] for symbol in (*system.symbols, *added) if symbol in markets}


def trades_lost(system: System, sent: SentTrades) -> int:
    """How many of the trades `sent` are not in bronze once no more of them arrive."""
    files: set[str] = set()
    missing = {
        symbol: set(range(each["first_id"], each["last_id"] + 1))
        for symbol, each in sent.items()
        if each["trades"]
    }
    # A replay may have holes in its ids: the exchange's own count says how many there really were.
    holes: int = sum(len(missing[symbol]) - sent[symbol]["trades"] for symbol in missing)
    idle_s = idle_limit_s(system)
    left, since_s = sum(len(ids) for ids in missing.values()), time.monotonic()
    while left > holes and time.monotonic() - since_s < idle_s:
        for symbol, ids in missing.items():
            fresh = bronze_files(system, symbol) - files
            files |= fresh
            for key in fresh:
                ids -= trade_ids(system, key)
        if (still := sum(len(ids) for ids in missing.values())) < left:
            left, since_s = still, time.monotonic()
        time.sleep(0.5)
    return left - holes


def idle_limit_s(system: System) -> float:
    """How long trades on the way to bronze may make no progress before the rest is lost."""
    return _IDLE_S + system.cloud.batch_window_s()


def bronze_files(system: System, symbol: str) -> set[str]:
    """The keys of the files archived from the feed of `symbol`."""
    prefix = f"bronze/source={system.options.source}/symbol={symbol}/"
    found = list_objects(system.cloud.client("s3"), system.outputs["BucketName"], prefix)
    return {stored.key for stored in found}


def trade_ids(system: System, key: str) -> set[int]:
    """The ids of the trades in one Avro file."""
    body = system.cloud.client("s3").get_object(Bucket=system.outputs["BucketName"], Key=key)["Body"].read()
    ids: set[int] = set()
    for record in fastavro.reader(io.BytesIO(body)):
        assert isinstance(record, dict)
        if record["kind"] == "trade":
            ids.update(range(record["first_trade_id"], record["last_trade_id"] + 1))
    return ids
