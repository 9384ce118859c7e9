"""The benchmarks run, compare like with like (they assert it themselves) and print what is asked of them.

No figure is tested: they are for `make bench`.
"""

import itertools
import json
import time
from functools import partial

import pytest

from benchmarks.__main__ import main
from benchmarks.side_by_side import QUICK, Effort, Times, Work, side_by_side

KEYS = {
    "decode_batch_vs_orjson",
    "decode_batch_vs_msgspec",
    "decode_batch_vs_sbe",
    "decode_one_vs_orjson",
    "avro_write_vs_fastavro",
    "producer_vs_put_records_500",
    "producer_vs_kpl",
    "handler_per_tick_vs_per_record",
    "features_vs_naive_numpy",
    "tick_to_redis_vs_naive",
    "tick_to_redis_us_p50",
    "import_ms",
    "function_mb",
    "largest_function_mb",
    "history_load_vs_executemany",
    "history_load_ticks_per_s_day",
    "history_load_peak_mb_hour",
    "shard_ticks_per_s",
    "shard_bottleneck",
    "wire_bytes_per_tick",
    "scale_symbols",
    "scale_per_symbol",
    "scale_predict_vs_one_symbol",
    "scale_hottest_shard_of_1000",
}


def test_choices_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    choices = {name: Work(partial(calls.append, name), 2) for name in ("one", "other")}
    times = side_by_side(choices, Effort(rounds=3, turn_s=0.0))
    assert calls == ["one"] * 2 + ["other"] * 2 + ["one", "other"] * 3
    assert {name: len(taken) for name, taken in times.items()} == {"one": 3, "other": 3}
    assert all(ns > 0 for taken in times.values() for ns in taken)


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    """A machine that is three times as slow in one round leaves the ratio alone."""
    times = Times({"slow": [20.0, 60.0, 24.0], "fast": [10.0, 30.0, 12.0]})
    assert times.ratio("slow", "fast") == 2.0
    assert times.ns("fast") == 12.0


def test_an_item_s_time_is_a_call_s_by_its_items(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 1000)
    monkeypatch.setattr(time, "process_time_ns", lambda: next(clock))
    choices = {"ten": Work(lambda: None, 10), "one": Work(lambda: None, 1)}
    assert side_by_side(choices, Effort(rounds=2, turn_s=0.0)) == {"ten": [100, 100], "one": [1000, 1000]}


@pytest.mark.slow
def test_quick_prints_a_table_and_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert QUICK.rounds == 1
    assert main(["--quick"]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert figures.keys() >= KEYS
    assert figures["shard_ticks_per_s"] is None and figures["shard_note"] == "skipped by --quick"
    assert 50 < figures["wire_bytes_per_tick"] < 60
    assert any("decode_batch_vs_orjson" in line for line in shown)
