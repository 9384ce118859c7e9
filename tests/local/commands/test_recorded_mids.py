"""Answers against a recording whose moves are known."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from local.commands.recorded_mids import (
    ARRIVES_WITHIN_MS,
    Lookup,
    Recorded,
    SpanMs,
    price_errors,
    skill_as_read,
)
from local.exchange.events import Quote
from local.exchange.history import QuoteHistory

START_MS = 1_000_000
SECONDS = 100
END_MS = START_MS + 1000 * SECONDS
HORIZONS = ("1", "2", "5", "10")


@cache
def recording() -> Lookup:
    """A quote every 100 ms until `END_MS`, the mid moving at random."""
    steps = np.random.default_rng(3).integers(-3, 4, size=10 * SECONDS + 1)
    history = QuoteHistory("A")
    for row, mid in enumerate(50_000 + np.cumsum(steps)):
        bid = (int(mid) * 100 - 1) * 10**6
        history.append(Quote("A", (START_MS + 100 * row) * 1000, row, bid, 1, bid + 2 * 10**6, 1))

    def look_up(symbol: str, spans_ms: Sequence[SpanMs]) -> Recorded:
        mids = [history.mids_within(start * 1000, end * 1000) for start, end in spans_ms]
        return Recorded(mids, END_MS)

    return look_up


def mid(time_ms: int) -> float:
    return recording()("A", [(time_ms, time_ms)]).mids[0][0]


def answers(share: float, source: str = "model") -> list[dict[str, Any]]:
    """Five a second, each expecting `share` of what comes; nothing is known of moves beyond the end."""
    found = []
    for as_of in range(START_MS + 50, END_MS, 200):
        horizons = {}
        for horizon in HORIZONS:
            target = min(as_of + 1000 * int(horizon), END_MS)
            horizons[horizon] = {"expected_move_bp": share * (mid(target) / mid(as_of) - 1) * 1e4}
        found.append({"symbol": "A", "as_of": as_of, "source": source, "horizons": horizons})
    return found


@pytest.mark.parametrize(("share", "skill"), [(1.0, 1.0), (0.5, 0.75), (0.0, 0.0), (-1.0, -3.0)])
def test_skill_is_that_of_the_move_still_to_come(share: float, skill: float) -> None:
    result = skill_as_read(recording(), answers(share))
    assert [each["skill"] for each in result.values()] == [skill] * 4
    assert all(each["skill_ci"] == [skill, skill] for each in result.values())


def test_answers_whose_target_is_not_known_are_left_out() -> None:
    result = skill_as_read(recording(), answers(1.0))
    assert {horizon: each["n"] for horizon, each in result.items()} == {
        horizon: 5 * (SECONDS - int(horizon)) for horizon in HORIZONS
    }


def test_the_interval_is_that_of_blocks_of_time() -> None:
    """Errors that last are drawn as wholes: half of the time all is expected, then nothing."""
    mixed = answers(1.0)[:250] + answers(0.0)[250:]
    one = skill_as_read(recording(), mixed)["1"]
    low, high = one["skill_ci"]
    assert low < one["skill"] - 0.15 and high > one["skill"] + 0.15


def test_a_fallback_expects_no_move() -> None:
    fallbacks = [each | {"horizons": {}} for each in answers(1.0, source="fallback")]
    assert skill_as_read(recording(), fallbacks)["1"]["skill"] == 0.0
    assert skill_as_read(recording(), [])["1"] == {"skill": None, "skill_ci": None, "n": 0}


def prediction(time_ms: int, basis_price: float) -> dict[str, Any]:
    return {"symbol": "A", "timestamp": time_ms, "basis_price": basis_price}


def test_a_basis_price_is_a_mid_of_the_last_quarter_of_a_second() -> None:
    time_ms = START_MS + 50_037
    for age_ms in (0, 100, 200, ARRIVES_WITHIN_MS):
        assert price_errors(recording(), [prediction(time_ms, mid(time_ms - age_ms))]) == []


@pytest.mark.parametrize("shift_ms", [100, -400], ids=["of the future", "too old"])
def test_any_other_basis_price_is_an_error(shift_ms: int) -> None:
    look_up = recording()

    def is_new(time_ms: int) -> bool:
        known = look_up("A", [(time_ms - ARRIVES_WITHIN_MS, time_ms)]).mids[0]
        return mid(time_ms + shift_ms) not in known

    time_ms = next(t for t in range(START_MS + 1_037, END_MS, 100) if is_new(t))
    (error,) = price_errors(look_up, [prediction(time_ms, mid(time_ms + shift_ms))])
    assert f"A at {time_ms}" in error


def test_a_few_errors_are_named_and_the_rest_counted() -> None:
    wrong = [prediction(START_MS + 1000 * n, 1.0) for n in range(1, 9)]
    assert price_errors(recording(), wrong)[5:] == ["and 3 more basis prices"]
    assert "no quote" in price_errors(recording(), [prediction(START_MS - 1, 500.0)])[0]
