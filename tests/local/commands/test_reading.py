"""Answers compared with the exchange's mids, which a function stands in for."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from local.commands import reading
from local.system.http_json import Response

URL = "http://exchange"
START_MS = 1_700_000_000_000


def mid(time_ms: int) -> float:
    return 100.0 + (time_ms // 700 * 7919 % 13) / 100  # moves every 700 ms, without a trend


@pytest.fixture(autouse=True)
def exchange(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def get(url: str) -> Response:
        asked.append(url)
        query = parse_qs(urlsplit(url).query)
        back_ms = int(query["back_ms"][0])
        times = [int(time_ms) for time_ms in query["times_ms"][0].split(",")]
        return Response(200, {"mids": [[mid(t - back_ms), mid(t)] for t in times]})

    monkeypatch.setattr("local.commands.reading.http_json.get", get)
    return asked


def answers(knowledge: float, count: int = 500) -> list[dict[str, Any]]:
    """Answers that expect the share `knowledge` of the move that comes."""
    made = []
    for at in range(START_MS, START_MS + count * 200, 200):
        move_bp = (mid(at + 1000) / mid(at) - 1) * 1e4
        one = {"target_time": at + 1000, "expected_move_bp": knowledge * move_bp}
        made.append({"symbol": "A", "as_of": at, "horizons": {"1": one}})
    return made


@pytest.mark.parametrize(("knowledge", "skill"), [(1.0, 1.0), (0.5, 0.75), (0.0, 0.0), (-1.0, -3.0)])
def test_skill_is_of_the_move_from_reading_to_target(knowledge: float, skill: float) -> None:
    found = reading.as_read(URL, answers(knowledge))["1"]
    assert found["skill"] == pytest.approx(skill)
    assert found["skill_ci"] == pytest.approx([skill, skill])
    assert found["n"] == 500


def test_targets_to_come_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.commands.reading.time.time", lambda: (START_MS + 3_000) / 1000)
    assert reading.as_read(URL, answers(1.0))["1"]["n"] == 10


def test_many_instants_are_few_requests(exchange: list[str]) -> None:
    reading.as_read(URL, answers(1.0))
    assert len(exchange) == 3  # 505 instants


def test_no_answers_have_no_skill() -> None:
    assert reading.as_read(URL, []) == {}


def test_a_basis_price_is_a_mid_shortly_before() -> None:
    at = START_MS // 700 * 700 + 700 + 20  # the mid moved 20 ms ago
    served = {"symbol": "A", "timestamp": at}
    for known in (mid(at), mid(at - reading.QUOTE_LATE_MS)):
        assert reading.price_errors(URL, [served | {"basis_price": known}]) == []
    (error,) = reading.price_errors(URL, [served | {"basis_price": mid(at) + 0.005}])
    assert "basis price" in error
