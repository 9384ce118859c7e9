"""History into PostgreSQL: our load against `executemany`, and what a whole load takes of time and memory.

A real PostgreSQL is started for it. Both ways of loading write the same hour into the same table, with its
keys and indexes, in one transaction each; the database does most of the work, so wall time is measured
here. The table has earlier hours of the day, as for all hours but the first, and each turn begins at a
checkpoint: all writes of the turn before are done, and the log has files to reuse, as on a server in use.

Then bronze is loaded as the function does it, each load in a process of its own, whose peak memory is its
own too: an hour of a busy stream with quotes, and a day of a million trades without.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg

from benchmarks.sample import SYMBOL
from benchmarks.side_by_side import QUICK, Comparison, Effort
from local.system import database, servers
from local.system.processes import Processes
from local.system.variables import local_variables
from tickcast.adapters.lake import bronze
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.history_store import HistoryStore, OpenStore
from tickcast.adapters.settings import DatabaseSettings, HistorySettings
from tickcast.adapters.variables import read
from tickcast.functions import load_history
from tickcast.functions.load_history import LoadHistory
from tickcast.market import wire
from tickcast.market.sources import Origin
from tickcast.market.ticks import QUOTE, TRADE, Quotes, Trades
from tickcast.market.trade_ledger import LEDGER_ROW, ledger_rows
from tickcast.units import DAY_US, HOUR_US

MARK = 5
START_US = 1_754_006_400_000_000  # a midnight
BUCKET = "bench"
# An hour of history from REST is one object of bronze and one transaction; of a busy market it holds up to
# 40,000 aggregates. This is half of that; with all of it the ratio is the same. A minute of the stream, some
# hundred rows, is loaded in a few milliseconds, much of it for the transaction: there the ratio is lower.
_ROWS = 20_000
_HOURS_BEFORE = 3
_CHILD_S = 600
_ROOT = Path(__file__).resolve().parents[1]
_INSERT = """
insert into tickcast.trades (symbol, time_us, first_id, last_id, price, qty, side, origin, trades)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing"""

_LOADED = "select count(*), sum(hashtextextended(t::text, 0)) from tickcast.trades t where time_us >= %s"


class Load(NamedTuple):
    """The cost of a load: `seconds`, the step that took most of them, and the process's peak memory."""

    what: str
    ticks: int
    rows: int  # written to all tables
    seconds: float
    peak_mb: float
    bottleneck: str

    @property
    def ticks_per_s(self) -> int:
        return round(self.ticks / self.seconds)


class FolderS3:
    """The part of S3 that a load uses, over files, so that the emulator's own time is not measured."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> dict[str, Any]:
        path = self._folder / Key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Body)
        return {"ETag": _etag(Body)}

    def get_object(self, *, Bucket: str, Key: str, IfMatch: str = "") -> dict[str, Any]:
        return {"Body": io.BytesIO((self._folder / Key).read_bytes())}

    def get_paginator(self, name: str) -> FolderS3:
        return self

    def paginate(self, *, Bucket: str, Prefix: str, Delimiter: str = "") -> Iterator[dict[str, Any]]:
        if Delimiter:
            folder, _, beginning = Prefix.rpartition("/")
            folders = sorted(path.name for path in (self._folder / folder).glob(f"{beginning}*"))
            yield {"CommonPrefixes": [{"Prefix": f"{folder}/{name}/"} for name in folders]}
            return
        found = sorted(path for path in (self._folder / Prefix).rglob("*") if path.is_file())
        yield {
            "Contents": [
                {
                    "Key": str(path.relative_to(self._folder)),
                    "ETag": _etag(path.read_bytes()),
                    "LastModified": datetime.fromtimestamp(path.stat().st_mtime, UTC),
                }
                for path in found
            ]
        }


def measure(effort: Effort) -> tuple[list[Comparison], list[Load]]:
    """`history_load_vs_executemany`, and the loads of an hour and of a day."""
    is_quick = effort == QUICK
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with _postgres(folder) as port:
            comparison = _side_by_side(port, effort, _ROWS // 20 if is_quick else _ROWS)
            scale = 0.01 if is_quick else 1.0
            ticks = round(36_000 * scale), round(360_000 * scale)
            hour = _load(port, folder, "an hour with quotes", START_US, 1, *ticks)
            ticks = round(1_000_000 * scale), 0
            day = _load(port, folder, "a day of trades", START_US + 2 * DAY_US, 24, *ticks)
    return [comparison], [hour, day]


def _side_by_side(port: int, effort: Effort, count: int) -> Comparison:
    none = np.empty(0, LEDGER_ROW)
    hours_us = [START_US + hour * HOUR_US for hour in range(_HOURS_BEFORE + 1)]
    *before, rows = [ledger_rows(_ticks(count, 0, hour_us)[0], Origin.STREAM) for hour_us in hours_us]
    values = [
        (SYMBOL, time_us, first, last, price, qty, side, "stream", 1)
        for time_us, first, last, price, qty, side, *_ in rows.tolist()
    ]
    with (
        psycopg.connect(servers.database_url(port), autocommit=True) as owner,
        Database(_settings(port)) as loader,
    ):
        store = HistoryStore(loader.connection())
        store.add_days([START_US])

        def ours() -> None:
            with store.connection.transaction():
                store.lock(SYMBOL, [START_US])
                store.replace_trades(SYMBOL, none, rows)

        def usual() -> None:
            with store.connection.transaction():
                store.connection.cursor().executemany(_INSERT, values)

        times: dict[str, list[float]] = {"ours": [], "usual": []}
        loaded = set()
        for _ in range(effort.rounds):
            for name, load in (("ours", ours), ("usual", usual)):
                owner.execute("truncate tickcast.trades")
                store.replace_trades(SYMBOL, none, np.concatenate(before))
                owner.execute("checkpoint")
                times[name].append(_wall_ns(load) / count)
                loaded.add(owner.execute(_LOADED, hours_us[-1:]).fetchone())
        owner.execute("truncate tickcast.trades")
    if len(loaded) != 1:
        raise AssertionError(f"both ways should load the same rows, not {loaded}")
    ratio = statistics.median(slow / fast for slow, fast in zip(times["usual"], times["ours"], strict=True))
    ours_ns, usual_ns = (statistics.median(times[name]) for name in ("ours", "usual"))
    return Comparison("history_load_vs_executemany", "psycopg executemany", ours_ns, usual_ns, ratio, MARK)


def _load(
    port: int, folder: Path, what: str, from_us: int, hours: int, trade_count: int, quote_count: int
) -> Load:
    """Write the ticks to bronze here, and load them in another process."""
    source, lake = ("sbe" if quote_count else "rest"), folder / str(hours)
    s3 = FolderS3(lake)
    for hour in range(hours):
        hour_us = from_us + hour * HOUR_US
        trades, quotes = _ticks(trade_count // hours, quote_count // hours, hour_us)
        batch = wire.TickBatch(SYMBOL, source, "bench", wire.NO_WATERMARK, trades, quotes)
        key = f"{bronze.prefix(source, SYMBOL, hour_us)}bench.avro"
        s3.put_object(Bucket=BUCKET, Key=key, Body=bronze.write_file(bronze.market_data(batch)))
    command = [sys.executable, "-m", "benchmarks.history_load", str(port), str(lake)]
    command += [str(from_us), str(hours), what]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=_CHILD_S, env=_environment(), cwd=_ROOT
    )
    return Load(**json.loads(done.stdout.splitlines()[-1]))


def load_here(port: int, lake: Path, from_us: int, hours: int, what: str) -> Load:
    """Load a lake's hours in this process."""
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started_ns = time.perf_counter_ns()
            try:
                return function(*arguments)
            finally:
                spent[name] = spent.get(name, 0.0) + (time.perf_counter_ns() - started_ns) / 1e9

        return call

    steps: list[tuple[Any, str, str]] = [
        (load_history, "ticks_of", "reading Avro"),
        (load_history, "rows_of_hour", "bars and features"),
        (HistoryStore, "replace_trades", "writing trades"),
        (HistoryStore, "replace_hour", "writing bars and rows"),
        (HistoryStore, "trades_by_time", "reading trades back"),
    ]
    for owner, name, called in steps:
        setattr(owner, name, timed(called, getattr(owner, name)))
    before = _peak_mb()
    with Database(_settings(port)) as loader:
        settings = HistorySettings(keep_days=0, grid_ms=1000, quoted_grid_ms=100, trades_keep_days=3)
        load = LoadHistory(settings, FolderS3(lake), BUCKET, OpenStore(loader), lambda: from_us)
        window = {"symbol": SYMBOL, "from_us": from_us, "to_us": from_us + hours * HOUR_US}
        started_ns = time.perf_counter_ns()
        found = load({"window": window}, lambda: 1e9)
        seconds = (time.perf_counter_ns() - started_ns) / 1e9
    if found.quarantined or found.problems or not found.complete:
        raise AssertionError(f"a load went wrong: {found}")
    slowest = max(spent, key=lambda name: spent[name])
    share = f"{slowest} ({spent[slowest] / seconds:.0%}); {before:.0f} MB before it began"
    rows = found.added + found.bars + found.feature_rows
    return Load(what, found.trades + found.quotes, rows, seconds, _peak_mb(), share)


def lines(loads: list[Load]) -> list[str]:
    return [
        f"history, {load.what}: {load.ticks:,} ticks in {load.seconds:.1f} s, {load.ticks_per_s:,} ticks/s, "
        f"{load.rows:,} rows; at most {load.peak_mb:.0f} MB; bottleneck: {load.bottleneck}"
        for load in loads
    ]


def summary(loads: list[Load]) -> dict[str, Any]:
    hour, day = loads
    return {
        "history_load_ticks_per_s_hour": hour.ticks_per_s,
        "history_load_ticks_per_s_day": day.ticks_per_s,
        "history_load_peak_mb_hour": round(hour.peak_mb),
        "history_load_peak_mb_day": round(day.peak_mb),
        "history_load_bottleneck": day.bottleneck,
    }


def _ticks(trade_count: int, quote_count: int, hour_us: int) -> tuple[Trades, Quotes]:
    """A random walk of an hour: trades and quotes spread over it, ids contiguous from hour to hour."""
    hour = hour_us // HOUR_US
    rng = np.random.default_rng(hour)
    trades, quotes = np.zeros(trade_count, TRADE), np.zeros(quote_count, QUOTE)
    trades["time_us"] = hour_us + np.sort(rng.integers(0, HOUR_US, trade_count))
    trades["first_id"] = trades["last_id"] = hour * trade_count + np.arange(trade_count)
    trades["price"] = 6_000_000_000_000 + np.cumsum(rng.integers(-1, 2, trade_count)) * 10**6
    trades["qty"] = rng.integers(1, 10**8, trade_count)
    trades["side"] = rng.choice([-1, 1], trade_count)
    quotes["time_us"] = hour_us + np.sort(rng.integers(0, HOUR_US, quote_count))
    quotes["update_id"] = hour * quote_count + np.arange(quote_count)
    quotes["bid_price"] = 6_000_000_000_000 + np.cumsum(rng.integers(-1, 2, quote_count)) * 10**6
    quotes["ask_price"] = quotes["bid_price"] + 10**6
    quotes["bid_qty"], quotes["ask_qty"] = rng.integers(1, 10**8, (2, quote_count))
    for rows in (trades, quotes):
        rows["receive_time_us"] = rows["time_us"]
    return trades, quotes


@contextmanager
def _postgres(folder: Path) -> Iterator[int]:
    """The port of a server with the project's schema."""
    folder.chmod(0o755)
    parts = Processes(folder, folder, _environment())
    try:
        (port,) = servers.free_ports(1)
        part = servers.start_postgres(parts, port, folder / "postgres")
        servers.wait_for_postgres(parts, part, port)
        database.migrate(servers.database_url(port))
        yield port
    finally:
        parts.stop_all()


def _settings(port: int) -> DatabaseSettings:
    return read(DatabaseSettings, local_variables(bucket=BUCKET) | {"DATABASE_PORT": str(port)})


def _environment() -> dict[str, str]:
    core = _ROOT / "layers" / "core" / "python"
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), str(core)])}


def _wall_ns(work: Callable[[], None]) -> int:
    started_ns = time.perf_counter_ns()
    work()
    return time.perf_counter_ns() - started_ns


def _peak_mb() -> float:
    """Of this program alone: `ru_maxrss` would include that of the process that started it."""
    [line] = [line for line in Path("/proc/self/status").read_text("utf-8").splitlines() if "VmHWM" in line]
    return int(line.split()[1]) / 1024


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


if __name__ == "__main__":
    _port, _lake, _from_us, _hours, _what = sys.argv[1:]
    print(json.dumps(load_here(int(_port), Path(_lake), int(_from_us), int(_hours), _what)._asdict()))
