"""Bronze and history for tests: ticks put as objects, tables told by their checksums."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import psycopg

from tests.aws import BUCKET
from tests.market import batch
from tickcast.adapters import bronze
from tickcast.history import HOUR_US
from tickcast.ticks import Quotes, Trades, trades_array

SYMBOL = "BTCUSDT"
TABLES = {
    "trades": "symbol, first_id",
    "bars_1s": "symbol, end_us",
    "feature_rows": "symbol, end_us",
    "loaded_objects": "key",
    "stale_hours": "symbol, hour_us",
}


def put(s3: Any, key: str, trades: Trades, quotes: Quotes, source: str = "sbe") -> dict[str, str]:
    """Write an object of bronze; answers as `fetch_history` names it."""
    ticks = batch(trades, quotes)._replace(source=source)
    body = bronze.write_file(bronze.market_data(ticks))
    return {"key": key, "etag": s3.put_object(Bucket=BUCKET, Key=key, Body=body)["ETag"].strip('"')}


def put_hours(
    s3: Any, trades: Trades, quotes: Quotes, source: str = "sbe", name: str = "part"
) -> list[dict[str, str]]:
    """Write ticks to bronze, an object for each hour; in the order of time."""
    times_us = np.concatenate([trades["time_us"], quotes["time_us"]])
    objects = []
    for hour_us in np.unique(times_us // HOUR_US).tolist():
        mine = [t[t["time_us"] // HOUR_US == hour_us] for t in (trades, quotes)]
        key = f"{bronze.prefix(source, SYMBOL, hour_us * HOUR_US)}{name}.avro"
        objects.append(put(s3, key, *mine, source))
    return objects


def aggregates(trades: Trades, seed: int = 1) -> Trades:
    """`trades`, whose ids are contiguous, as the exchange's REST gives them: runs of up to four as one."""
    starts = np.flatnonzero(np.random.default_rng(seed).random(len(trades)) < 0.5)
    starts = np.union1d(starts, np.arange(0, len(trades), 4))
    rows = []
    for begin, end in zip(starts, [*starts[1:], len(trades)], strict=True):
        first, last, qty = trades[begin], trades[end - 1], int(trades["qty"][begin:end].sum())
        ids = int(first["first_id"]), int(last["last_id"])
        rows.append((int(first["time_us"]),) * 2 + (*ids, int(first["price"]), qty, int(first["side"])))
    return trades_array(rows)


def checksums(owner: psycopg.Connection[Any], tables: Iterable[str] = TABLES) -> dict[str, tuple[int, str]]:
    """Rows and a checksum of all they hold, by table; of the ledger without the time of loading."""
    found = {}
    for table in tables:
        query = (
            f"select count(*), md5(string_agg(t::text, '|' order by {TABLES[table]})) from tickcast.{table} t"
        )
        if table == "loaded_objects":
            query = (
                "select count(*), md5(string_agg(concat_ws(',', key, etag, status, reason, trades, quotes), "
                "'|' order by key)) from tickcast.loaded_objects"
            )
        found[table] = owner.execute(query).fetchone()
    return found  # type: ignore[return-value]
