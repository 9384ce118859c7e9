"""The smoke test's figures, from made-up observations."""

from __future__ import annotations

from typing import Any

import pytest

from local.commands.observer import Reply, Sighting
from local.commands.smoke import Report, fill_in, fill_in_ages, table

START_MS = 1_000_000.0


def sighting(symbol: str, seen_s: float, **changes: Any) -> Sighting:
    seen_ms = START_MS + seen_s * 1000
    prediction = {
        "symbol": symbol,
        "timestamp": seen_ms - 200,
        "source": "model",
        "model_id": "m1",
        "inference_ms": 0.5,
    }
    return Sighting(seen_ms, prediction | changes)


def reply(symbol: str, at_s: float, status: int = 200, source: str = "model") -> Reply:
    return Reply(START_MS + at_s * 1000, 7.0, symbol, status, {"source": source})


def report_on(sightings: list[Sighting], replies: list[Reply], symbols: tuple[str, ...] = ("A",)) -> Report:
    report = Report("replay", 10)
    fill_in(report, symbols, sightings, replies, START_MS, START_MS + 10_000)
    return report


def every_second(symbol: str = "A") -> list[Sighting]:
    return [sighting(symbol, s + 0.5) for s in range(10)]


REPLIES = [reply("A", s) for s in range(10)]


def test_a_prediction_a_second_passes() -> None:
    report = report_on(every_second(), REPLIES)
    assert report.failures == []
    assert (report.predictions, report.fallbacks, report.model_id) == (10, 0, "m1")
    assert (report.interval_s_p50, report.interval_s_p99) == (1.0, 1.0)
    assert (report.event_to_prediction_ms_p50, report.api_ms_p99) == (200.0, 7.0)
    assert report.fresh_share == 1.0


@pytest.mark.parametrize("lost", [range(0, 3), range(4, 7), range(7, 10)], ids=["first", "middle", "last"])
def test_a_gap_anywhere_in_the_window_is_an_interval(lost: range) -> None:
    sightings = [s for i, s in enumerate(every_second()) if i not in lost]
    assert report_on(sightings, REPLIES).failures == [
        "the interval between predictions should be at most 2 s"
    ]


def test_no_prediction_at_all_fails() -> None:
    assert len(report_on([], []).failures) == 3


def test_a_silent_symbol_is_not_hidden_by_another() -> None:
    report = report_on(every_second("A"), REPLIES, symbols=("A", "B"))
    assert report.interval_s_p99 == 10.0


def test_fallbacks_and_errors_are_not_fresh_answers() -> None:
    replies = [reply("A", 0, source="fallback"), reply("A", 1, status=503), *REPLIES[2:]]
    report = report_on(
        [*every_second()[:-1], sighting("A", 9.5, source="fallback", inference_ms=None)], replies
    )
    assert (report.fresh_share, report.fallbacks) == (0.8, 1)
    assert any("503" in error for error in report.errors)


def test_ages_are_those_at_the_receipt_of_random_readings() -> None:
    report = report_on(every_second(), REPLIES)
    ages = [100.0, 200.0, 300.0, 400.0, 1000.0]
    readings = [
        Reply(START_MS + 5000, 20.0, "A", 200, {"timestamp": START_MS + 5020 - age_ms}) for age_ms in ages
    ]
    fill_in_ages(report, [*readings, Reply(START_MS + 6000, 20.0, "A", 503, {"title": "busy"})])
    assert (report.age_when_read_ms_p50, report.age_when_read_ms_p90) == (300.0, 760.0)
    assert report.failures == ["API: A returned 503: {'title': 'busy'}"]  # ages decide nothing


def test_skill_as_read_is_in_the_table_where_there_are_answers() -> None:
    report = report_on(every_second(), REPLIES)
    rows = table(report).row_count
    report.as_read = {
        "1": {"skill": 0.1, "skill_ci": [0.05, 0.15], "n": 7},
        "10": {"skill": None, "skill_ci": None, "n": 0},
    }
    assert table(report).row_count == rows + 1
    assert report.last_line()["as_read"]["1"]["n"] == 7


def test_slow_inference_and_lost_trades_fail() -> None:
    report = report_on([sighting("A", s + 0.5, inference_ms=150.0) for s in range(10)], REPLIES)
    report.ticks_lost = 2
    assert report.failures == ["inference should take less than 100 ms", "2 trades were lost"]


def test_the_json_line_has_the_promised_keys_in_order() -> None:
    report = report_on(every_second(), REPLIES)
    assert " ".join(report.last_line()) == (
        "ok feed seconds ticks_in ticks_lost predictions interval_s_p50 interval_s_p99 inference_ms_p50 "
        "inference_ms_p99 event_to_prediction_ms_p50 event_to_prediction_ms_p99 api_ms_p50 api_ms_p99 "
        "age_when_read_ms_p50 age_when_read_ms_p90 as_read fresh_share fallbacks model_id symbols "
        "errors"
    )
    assert table(report).row_count == 9
