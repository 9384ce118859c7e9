"""Any market, window and faults of the exchange: what is done is all there was, or its lack is reported."""

from __future__ import annotations

import hashlib
import io
import json
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures.examples import examples
from tickcast.adapters.lake import bronze
from tickcast.adapters.rest.agg_trades import AggTrade
from tickcast.adapters.rest.binance import PAGE
from tickcast.adapters.rest.window_proof import HistoryIncomplete
from tickcast.functions.fetch_history import FetchHistory
from tickcast.units import DAY_US, HOUR_US

BEGIN_US = 1_722_470_400_000_000  # 2024-08-01
LARGE = 10**12


class MemoryS3:
    """As much of S3 as a fetch needs."""

    class exceptions:
        class NoSuchKey(Exception):
            pass

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put_object(self, Bucket: str, Key: str, Body: bytes, **_: Any) -> dict[str, str]:
        self.kept[Key] = Body
        return {"ETag": hashlib.md5(Body).hexdigest()}

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.kept:
            raise self.exceptions.NoSuchKey
        return {"Body": io.BytesIO(self.kept[Key])}

    def list_objects_v2(self, Bucket: str, Prefix: str, MaxKeys: int) -> dict[str, Any]:
        keys = sorted(key for key in self.kept if key.startswith(Prefix))[:MaxKeys]
        return {"Contents": [{"Key": key} for key in keys]} if keys else {}


class Faults(NamedTuple):
    most_rows: int  # of a page
    lag_us: int  # the newest rows are not there yet
    first_kept: int  # of the market's aggregates
    missing: frozenset[int]  # aggregates
    gives_last: bool  # of the rows within a time
    is_blind: bool  # finds none within a time


class Exchange:
    """The client of an exchange with `faults` at `now_us`."""

    used_weight = requests = 0

    def __init__(self, rows: list[AggTrade], faults: Faults, now_us: int) -> None:
        until_us = now_us - faults.lag_us
        self._faults = faults
        self._rows = [
            row
            for row in rows[faults.first_kept :]
            if row.time_us <= until_us and row.id - rows[0].id not in faults.missing
        ]

    def agg_trades_from(self, symbol: str, agg_id: int) -> list[AggTrade]:
        return [row for row in self._rows if row.id >= agg_id][: self._faults.most_rows]

    def agg_trades_between(self, symbol: str, from_ms: int, to_ms: int) -> list[AggTrade]:
        assert 0 < to_ms - from_ms <= 3_600_000
        found = [row for row in self._rows if from_ms * 1000 <= row.time_us < to_ms * 1000]
        most = self._faults.most_rows
        return [] if self._faults.is_blind else found[-most:] if self._faults.gives_last else found[:most]

    def newest_agg_trades(self, symbol: str) -> list[AggTrade]:
        return self._rows[-self._faults.most_rows :]

    def market_status(self, symbol: str) -> str:
        return "TRADING"


pauses_us = st.sampled_from([0, 0, 0, 1, 1000, 10**6, 10**6, 40 * 10**6, HOUR_US // 2, 5 * HOUR_US])
markets = st.tuples(
    st.lists(
        st.tuples(pauses_us, st.integers(1, 3), st.sampled_from([0] * 9 + [4])), min_size=1, max_size=300
    ),
    st.sampled_from([0, 0, LARGE]),  # the first id
)
faults = st.builds(
    Faults,
    st.sampled_from([1, 3, 49, 50, 51, PAGE, PAGE, PAGE]),
    st.sampled_from([0, 0, 0, 60_000_000, 3 * HOUR_US]),
    st.sampled_from([0, 0, 0, 1, 40]),
    st.frozensets(st.integers(0, 300), max_size=1) | st.just(frozenset()),
    st.booleans(),
    st.booleans(),
)
spans = st.tuples(st.integers(-HOUR_US, DAY_US), st.sampled_from([1000, 10**6, HOUR_US, 5 * HOUR_US]))


def market_of(steps: list[tuple[int, int, int]], first_id: int) -> list[AggTrade]:
    """Aggregates by pause, trades in each and trades that are missing before it."""
    times_us = accumulate((pause_us for pause_us, *_ in steps), initial=BEGIN_US)
    next(times_us)
    rows, trade_id = [], first_id
    for n, ((_, trades, missing), time_us) in enumerate(zip(steps, times_us, strict=True)):
        trade_id += missing if n else 0
        ids = trade_id, trade_id + trades - 1
        rows.append(AggTrade(first_id + n, *ids, time_us, 6_000_000_000_000 + n, 1000, 1))
        trade_id += trades
    return rows


@examples(300)
@given(markets, faults, spans)
def test_done_means_all_of_it(
    market: tuple[list[tuple[int, int, int]], int], faults: Faults, span: tuple[int, int]
) -> None:
    rows = market_of(*market)
    from_us = (BEGIN_US + span[0]) // 1000 * 1000
    window: dict[str, Any] = {"symbol": "BTCUSDT", "from_us": from_us, "to_us": from_us + span[1]}
    inside = [row for row in rows if from_us <= row.time_us < window["to_us"]]
    now_us, s3 = rows[-1].time_us + HOUR_US, MemoryS3()
    fetch = FetchHistory(Exchange(rows, faults, now_us), s3, "bucket", lambda: now_us)  # type: ignore[arg-type]
    key = bronze.window_key("BTCUSDT", window["from_us"], window["to_us"])
    try:
        document = msgspec.to_builtins(fetch({"window": window}, lambda: 900_000))
    except HistoryIncomplete:
        assert key not in s3.kept
        is_provable = rows[0].id == 0 or rows[0].first_id == 0 or rows[0].time_us < from_us
        is_faultless = not (faults.lag_us or faults.first_kept or faults.missing)
        assert not (is_provable and is_faultless and rows[-1].time_us >= window["to_us"])
        return
    assert document["status"] == "done" and key in s3.kept
    about = json.loads(s3.kept[key])
    records = [record for file in about["keys"] for record in bronze.read_file(s3.kept[file["key"]], "")]
    ids = [(record["first_trade_id"], record["last_trade_id"]) for record in records]
    assert ids == [(row.first_id, row.last_id) for row in inside]
    withheld = {trade_id for first, last in about["withheld"] for trade_id in range(first, last + 1)}
    known = {trade_id for first, last in ids for trade_id in range(first, last + 1)}
    if about["before_id"] is not None:
        assert known | withheld == set(range(about["before_id"] + 1, about["after_id"]))
