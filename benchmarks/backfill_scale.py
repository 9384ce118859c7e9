"""`python -m benchmarks.backfill_scale`: how long a month of two busy symbols takes, and its limits.

Tables of docs/scaling.md: a calculation from an hour that was fetched and loaded here (`MEASURED`), AWS's
quotas and the exchange's limit. `--measure` fetches and loads such an hour again: through the real client and
functions, from an exchange that answers at once, into a folder and a real PostgreSQL.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.history_load import (
    BUCKET,
    START_US,
    FolderS3,
    _environment,
    _load,
    _peak_mb,
    _postgres,
)
from benchmarks.sample import SYMBOL
from cdk.config import FunctionSizes
from tickcast.adapters.rest.binance import PAGE, WEIGHT_SHARE, BinanceRest
from tickcast.adapters.rest.window_proof import FILE_ROWS
from tickcast.functions.fetch_history import FetchHistory
from tickcast.market.fetch_plan import MAX_WINDOWS, Window
from tickcast.units import HOUR_US, MINUTE_US

DAYS, SYMBOLS = 30, 2
AGGREGATES_A_DAY = 5_000_000
AGGREGATES_AN_HOUR = AGGREGATES_A_DAY // 24

# The exchange (its REST documentation), and AWS (quotas of Lambda and Step Functions).
PAGE_WEIGHT, WEIGHT_A_MINUTE = 4, 6000
LAMBDA_S = 900
EVENTS, INLINE_ITEMS, STATE_KB = 25_000, 40, 256
EXECUTION_DAYS = 7  # the state machine's own timeout
PARALLEL = 2  # MaxConcurrency of the markets
PAGE_LATENCY_S = 0.06  # assumed: from Tokyo to the exchange and back
RESERVE_S, LOAD_RESERVE_S = 200, 240  # what a call leaves unused
# In the history of an execution: a task is entered, scheduled, started, succeeds and is left.
TASK_EVENTS, STATE_EVENTS, ITEM_EVENTS = 5, 2, 2
STATES_OF_A_WINDOW = 3  # besides those around its tasks
WINDOW_OUTPUT_BYTES = 200


class Sample(NamedTuple):
    """An hour of 208,333 aggregates: seconds without the network, and each process's peak memory."""

    fetch_s: float
    fetch_mb: float
    load_s: float
    load_mb: float


# 2026-11-27, on two shared cores; with others at work it was five times as long.
MEASURED = Sample(fetch_s=4.5, fetch_mb=116, load_s=6.2, load_mb=209)


class Backfill(NamedTuple):
    """Of all days and symbols, where an hour costs what `sample` says."""

    sample: Sample

    @property
    def hours(self) -> int:
        return DAYS * 24 * SYMBOLS

    @property
    def windows(self) -> int:
        """A window is a day of a symbol."""
        return DAYS * SYMBOLS

    @property
    def pages(self) -> int:
        return self.windows * math.ceil(AGGREGATES_A_DAY / PAGE)

    @property
    def weight_minutes(self) -> float:
        """As fast as the exchange allows, if both symbols are fetched from one address."""
        return self.pages * PAGE_WEIGHT / (WEIGHT_A_MINUTE * WEIGHT_SHARE)

    @property
    def page_s(self) -> float:
        return PAGE_LATENCY_S + self.sample.fetch_s / (AGGREGATES_AN_HOUR / PAGE)

    @property
    def fetch_day_s(self) -> float:
        """Of a window, with the waits for the exchange's limit: its share of it is fetched no faster."""
        alone_s = AGGREGATES_A_DAY / PAGE * self.page_s
        limited_s = AGGREGATES_A_DAY / PAGE * PAGE_WEIGHT * 60 / (WEIGHT_A_MINUTE * WEIGHT_SHARE) * PARALLEL
        return max(alone_s, limited_s)

    @property
    def fetch_calls(self) -> int:
        """Of a window."""
        return math.ceil(self.fetch_day_s / (LAMBDA_S - RESERVE_S))

    @property
    def load_day_s(self) -> float:
        return 24 * self.sample.load_s

    @property
    def load_calls(self) -> int:
        """Of a window; a call loads whole hours."""
        return math.ceil(24 / max(1, math.floor((LAMBDA_S - LOAD_RESERVE_S) / self.sample.load_s)))

    @property
    def window_events(self) -> int:
        calls = self.fetch_calls + self.load_calls
        return calls * (TASK_EVENTS + STATE_EVENTS) + STATES_OF_A_WINDOW * STATE_EVENTS + ITEM_EVENTS

    @property
    def executions(self) -> int:
        return math.ceil(self.windows / MAX_WINDOWS)

    @property
    def total_h(self) -> float:
        """A market's windows come one after another, two markets at once."""
        return self.windows / PARALLEL * (self.fetch_day_s + self.load_day_s) / 3600


class Row(NamedTuple):
    what: str
    needed: float
    limit: float
    unit: str
    limited_by: str

    @property
    def fits(self) -> bool:
        return self.needed <= self.limit


def rows(sample: Sample = MEASURED) -> list[Row]:
    """What the backfill needs, and the limit of each."""
    of, sizes = Backfill(sample), FunctionSizes()
    weight = of.pages * PAGE_WEIGHT / (of.total_h * 60)
    file_s = FILE_ROWS / PAGE * of.page_s
    windows = min(of.windows, MAX_WINDOWS)
    return [
        Row("weight a minute, both symbols from one address", weight, WEIGHT_A_MINUTE, "", "the exchange"),
        Row("a file: what an interrupted fetch asks for again", file_s, LAMBDA_S - RESERVE_S, "s", "Lambda"),
        Row("memory of `fetch_history`", sample.fetch_mb, sizes.fetch_history.memory_mb, "MB", "its size"),
        Row("an hour of `load_history`", sample.load_s, LAMBDA_S - LOAD_RESERVE_S, "s", "Lambda"),
        Row("memory of `load_history`", sample.load_mb, sizes.load_history.memory_mb, "MB", "its size"),
        Row("windows in an execution", of.windows, MAX_WINDOWS, "", "`MAX_WINDOWS`; the rest is another one"),
        Row("markets of the inline Map at once", min(SYMBOLS, PARALLEL), INLINE_ITEMS, "", "Step Functions"),
        Row("events of the execution", windows * of.window_events, EVENTS, "", "Step Functions"),
        Row("state", windows * WINDOW_OUTPUT_BYTES / 1024, STATE_KB, "KB", "Step Functions"),
        Row("time of the execution", of.total_h, EXECUTION_DAYS * 24, "h", "`TimeoutSeconds`"),
    ]


def month_table(sample: Sample = MEASURED) -> str:
    """Markdown: 30 days of two symbols."""
    of = Backfill(sample)
    found = [
        ("aggregates", f"{of.windows * AGGREGATES_A_DAY:,}"),
        ("pages of 1,000", f"{of.pages:,}"),
        ("at the exchange's limit alone", f"{of.weight_minutes / 60:.1f} h"),
        ("to fetch a day of a symbol", f"{of.fetch_day_s / 60:.1f} min, calls: {of.fetch_calls}"),
        ("to load a day of a symbol", f"{of.load_day_s / 60:.1f} min, calls: {of.load_calls}"),
        ("all, the symbols in parallel", f"{of.total_h:.1f} h, executions: {of.executions}"),
    ]
    lines = [
        "| 30 days of two symbols | |",
        "| --- | ---: |",
        *(f"| {what} | {value} |" for what, value in found),
    ]
    return "\n".join(lines)


def limit_table(sample: Sample = MEASURED) -> str:
    """Markdown: each limit."""
    lines = ["| what | needed | limit | of |", "| --- | ---: | ---: | --- |"]
    for row in rows(sample):
        unit = f" {row.unit}" if row.unit else ""
        needed = (
            f"{row.needed:,.0f}" if row.needed >= 10 or row.needed == int(row.needed) else f"{row.needed:.1f}"
        )
        lines.append(f"| {row.what} | {needed}{unit} | {row.limit:,.0f}{unit} | {row.limited_by} |")
    return "\n".join(lines)


TABLES = (month_table, limit_table)


class _FolderLake(FolderS3):
    class exceptions:
        NoSuchKey = FileNotFoundError

    def put_object(self, *, ContentType: str = "", **fields: Any) -> dict[str, Any]:
        return super().put_object(**fields)


class InstantExchange(BinanceRest):
    """Aggregates of one hour, a minute before it and a minute after it, at once. `made_s`: seconds it took to
    make the answers, which no client spends."""

    def __init__(self, count: int) -> None:
        super().__init__("http://nowhere")
        rng = np.random.default_rng(1)
        around = max(count // 60, 2000)
        spans = ((-MINUTE_US, 0, around), (0, HOUR_US, count), (HOUR_US, HOUR_US + MINUTE_US, around))
        self._times_us = START_US + np.concatenate([np.sort(rng.integers(*span)) for span in spans])
        self.made_s = 0.0

    def _ask(self, path: str, query: Mapping[str, str]) -> tuple[int, Mapping[str, str], bytes]:
        started_s = time.perf_counter()
        body = b"{}" if path.endswith("exchangeInfo") else self._page(query)
        self.made_s += time.perf_counter() - started_s
        return 200, {"Content-Type": "application/json"}, body

    def _page(self, query: Mapping[str, str]) -> bytes:
        first = int(query.get("fromId", 0))
        if "startTime" in query:
            first = int(np.searchsorted(self._times_us, int(query["startTime"]) * 1000))
        page = [
            {
                **{"a": first + n, "p": "60000.01000000", "q": "0.00100000", "T": time_us, "m": n % 2 == 0},
                **{"f": 3 * (first + n), "l": 3 * (first + n) + 2, "M": True},
            }
            for n, time_us in enumerate(self._times_us[first : first + PAGE].tolist())
        ]
        return json.dumps(page).encode()


def fetch_here(folder: Path, count: int) -> tuple[float, float]:
    """Fetch an hour in this process: seconds, and its peak memory."""
    exchange = InstantExchange(count)
    fetch = FetchHistory(exchange, _FolderLake(folder), BUCKET, lambda: START_US + 2 * HOUR_US)
    window = Window(START_US, START_US + HOUR_US, SYMBOL)
    started_s = time.perf_counter()
    answer = fetch(
        {"window": {"from_us": window.from_us, "to_us": window.to_us, "symbol": SYMBOL}}, lambda: 10**6
    )
    seconds = time.perf_counter() - started_s - exchange.made_s
    if (answer.status, answer.rows) != ("done", count):
        raise AssertionError(f"a fetch went wrong: {answer}")
    return seconds, _peak_mb()


def measure(count: int = AGGREGATES_AN_HOUR) -> Sample:
    """Fetch and load an hour of `count` aggregates."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        command = [
            sys.executable,
            "-m",
            "benchmarks.backfill_scale",
            "--fetch",
            str(folder / "rest"),
            str(count),
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment())
        fetch_s, fetch_mb = json.loads(done.stdout)
        with _postgres(folder) as port:
            load = _load(port, folder, "an hour of aggregates", START_US, 1, count, 0)
    return Sample(round(fetch_s, 1), round(fetch_mb), round(load.seconds, 1), round(load.peak_mb))


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--fetch"]:
        print(json.dumps(fetch_here(Path(arguments[1]), int(arguments[2]))))
        return
    sample = measure() if arguments == ["--measure"] else MEASURED
    print(sample, *(table(sample) for table in TABLES), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
