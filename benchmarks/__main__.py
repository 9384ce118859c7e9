"""`make bench`: tickcast's speed compared with the usual libraries, as ratios measured in one run.

The last line on stdout is one JSON object; its keys are the same in every run. `--quick` runs everything once
without waiting for stable figures, and skips the embedded system.

Exit status: 0, also when a figure misses its mark, which may be due to the machine; 1 when the embedded
system failed.
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import (
    backfill,
    codec,
    event_to_redis,
    features,
    functions,
    handler,
    history_load,
    producer,
    scale,
    shard,
    tick_to_redis,
    training,
)
from benchmarks.backfill import Backfilled
from benchmarks.functions import LARGEST_MB_MARK, Weight
from benchmarks.shard import Throughput
from benchmarks.side_by_side import QUICK, Comparison, Effort
from tickcast.adapters import json_text

TICKS_PER_SHARD_MARK = 17_000
WIDTH = 110  # of the table in a file


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, figures not meaningful, no system")
    is_quick: bool = parser.parse_args(arguments).quick
    effort, console = (QUICK if is_quick else Effort()), Console(stderr=True)

    console.print("bench: decoding and encoding, alternating with the usual libraries")
    comparisons = codec.decode(effort) + codec.avro(effort)
    console.print("bench: producer, up to the network")
    found, bytes_per_tick = producer.measure(effort)
    comparisons += found
    console.print("bench: handler")
    comparisons += handler.measure(effort)
    console.print("bench: features, and the whole function with a real Redis")
    comparisons += features.measure(effort)
    found, tick_to_redis_us = tick_to_redis.measure(effort)
    comparisons += found
    console.print("bench: an event of 100 ms, compared with release 0.1.0, and for 1 to 100 symbols")
    events = event_to_redis.measure(effort.rounds)
    console.print("bench: a symbol among many, from the exchange's frames to Redis and S3")
    scales = scale.measure(is_quick)
    console.print("bench: the trainer, compared with scikit-learn's")
    trained, quality = training.measure(effort)
    comparisons.append(trained)
    console.print("bench: import times of the functions, sizes of their layers for Lambda")
    weights = functions.measure(effort)
    console.print("bench: history into PostgreSQL")
    found, loads = history_load.measure(effort)
    comparisons += found
    console.print("bench: the whole path, in the embedded system")
    path = Throughput(None, None, "skipped by --quick")
    filled = Backfilled(None, None, "skipped by --quick")
    if not is_quick:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the system as Ctrl-C does
        path = shard.measure(console)
        if not path.has_failed:
            console.print("bench: history from REST to tables, in the embedded system")
            filled = backfill.measure(console)

    out = Console(width=None if sys.stdout.isatty() else WIDTH)
    out.print(table(comparisons))
    out.print(table_of_functions(weights))
    shown = lines(path, bytes_per_tick, tick_to_redis_us)
    of_scale = [each.line() for each in scales]
    for line in (*history_load.lines(loads), *events.lines(), *of_scale, *shown, quality.line()):
        out.print(line, soft_wrap=True)
    out.print(f"history, REST to tables: {filled.rows_per_s} rows/s; {filled.note}", soft_wrap=True)
    figures = summary(comparisons, path, bytes_per_tick, tick_to_redis_us, weights)
    figures |= events.summary() | scale.summary(scales)
    if events.vs_release is not None and events.vs_release < event_to_redis.MARK:
        figures["short_of_mark"].append("event_to_redis_vs_v0_1_0")
    figures |= {"train_skill": quality.as_dict()} | history_load.summary(loads)
    figures |= {"history_rows_per_s": filled.rows_per_s, "history_bottleneck": filled.bottleneck}
    print(json_text.text(figures), flush=True)
    return 1 if path.has_failed else 0


def table(comparisons: list[Comparison]) -> Table:
    """The comparisons, for people. Times are medians of CPU nanoseconds per item (of the history's load, wall
    time), and hold for this machine and minute."""
    shown = Table(title="CPU ns per item (history: wall time); compare the ratios")
    for title in ("", "usual choice", "usual", "ours", "ratio", "mark"):
        shown.add_column(title, justify="left" if title in ("", "usual choice") else "right")
    for c in comparisons:
        mark = "" if c.mark is None else f"≥ {c.mark:g}{' SHORT' if c.is_short else ''}"
        times = f"{c.usual_ns:,.0f}", f"{c.ours_ns:,.0f}"
        shown.add_row(c.key, c.usual, *times, f"{c.ratio:.2f}", mark)
    return shown


def table_of_functions(weights: list[Weight]) -> Table:
    shown = Table(title=f"cold starts; no function above {LARGEST_MB_MARK} MB unzipped")
    for title in ("function", "imports, CPU ms", "unzipped, MB"):
        shown.add_column(title, justify="left" if title == "function" else "right")
    for weight in weights:
        size = "" if weight.size_mb is None else f"{weight.size_mb:.1f}"
        shown.add_row(weight.function, f"{weight.import_ms:.0f}", size)
    return shown


def lines(path: Throughput, bytes_per_tick: float, tick_to_redis_us: float) -> list[str]:
    per_shard = ticks_per_shard(bytes_per_tick)
    is_short = per_shard < TICKS_PER_SHARD_MARK
    found = [
        f"on the wire: {bytes_per_tick:.1f} bytes per tick, so 1 MB/s of a shard is {per_shard:,} ticks/s "
        f"(mark ≥ {TICKS_PER_SHARD_MARK:,}{' SHORT' if is_short else ''}; 1,000 at one tick per record)",
        f"from an event (a second of ticks) to the prediction in Redis: {tick_to_redis_us:,.0f} µs (median)",
    ]
    if path.ticks_per_s is None:
        found.append(f"whole path: {path.note}")
    else:
        found.append(
            f"whole path: {path.ticks_per_s:,} ticks/s sustained; bottleneck: {path.bottleneck} ({path.note})"
        )
    return found


def ticks_per_shard(bytes_per_tick: float) -> int:
    return int(producer.SHARD_BYTES_PER_S / bytes_per_tick)


def summary(
    comparisons: list[Comparison],
    path: Throughput,
    bytes_per_tick: float,
    tick_to_redis_us: float,
    weights: list[Weight],
) -> dict[str, Any]:
    """The last line. `decode_batch_vs_sbe`, the shard's figures and sizes are null where not measured."""
    ratios = {c.key: round(c.ratio, 2) for c in comparisons}
    sizes = {w.function: w.size_mb and round(w.size_mb, 1) for w in weights}
    return {
        "decode_batch_vs_sbe": None,
        **ratios,
        "shard_ticks_per_s": path.ticks_per_s,
        "shard_bottleneck": path.bottleneck,
        "shard_note": path.note,
        "wire_bytes_per_tick": round(bytes_per_tick, 2),
        "wire_ticks_per_shard": ticks_per_shard(bytes_per_tick),
        "tick_to_redis_us_p50": round(tick_to_redis_us),
        "import_ms": {w.function: round(w.import_ms) for w in weights},
        "function_mb": sizes,
        "largest_function_mb": max((size for size in sizes.values() if size), default=None),
        "short_of_mark": [c.key for c in comparisons if c.is_short],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
