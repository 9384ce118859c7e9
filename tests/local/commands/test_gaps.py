"""`make gaps`."""

from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins
from rich.console import Console

from local.commands import gaps
from local.system import http_json, state_folder
from local.system.api import ApiFailed
from local.system.options import OptionsError
from tests.fixtures.conditions import condition_report

GAP = {
    "first_id": 101,
    "last_id": 104,
    "trades": 4,
    "from_us": 1_754_000_000_250_000,
    "to_us": 1_754_000_001_000_000,
    "cause": "reset by peer",
}
SERVICES = {
    "redis": {"ok": True},
    "predict_stream:BTCUSDT": {"ok": True, "missing_trades": 10, "quote_gaps": 2, "gaps": [GAP]},
    "predict_stream:ETHUSDT": {"ok": False, "why": "has not seen a tick yet"},
}


@pytest.fixture(autouse=True)
def local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(state_folder, "LOCAL", tmp_path)
    return tmp_path


def shown(url: str = "", key: str = "", days: int = 14) -> str:
    output = io.StringIO()
    gaps.show(url, key, days, Console(file=output, width=180))
    return output.getvalue()


def test_gaps_are_shown_with_ids_times_and_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []

    def get(url: str, **options: Any) -> http_json.Response:
        requested.append(url)
        return http_json.Response(503, {"status": "degraded", "services": SERVICES})

    monkeypatch.setattr(http_json, "get", get)
    output = shown("https://api.example/v1")
    assert "the condition by day requires a key: set KEY=…" in output
    assert requested == ["https://api.example/v1/health"]
    (row,) = [line for line in output.splitlines() if "reset by peer" in line]
    for part in ("BTCUSDT", "101", "104", "4", "2025-07-31 22:13:20.250", "2025-07-31 22:13:21.000"):
        assert part in row
    assert "BTCUSDT: 10 trades missing, 6 of them in older gaps; 2 gaps in quotes" in output
    assert "ETHUSDT: has not seen a tick yet" in output


def test_the_health_of_another_service_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_json, "get", lambda url: http_json.Response(404, {"message": "no"}))
    with pytest.raises(ApiFailed, match="is not tickcast's /health"):
        shown("https://elsewhere.example")


def test_the_condition_of_each_day_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []
    report = condition_report("BTCUSDT")
    days = [to_builtins(day) for day in reversed(report.days)]
    data = {"symbol": "BTCUSDT", "reported": report.reported_ms, "days": days, "total": 3}

    def get(url: str, headers: dict[str, str] | None = None) -> http_json.Response:
        requested.append(url)
        if url.endswith("/health"):
            return http_json.Response(200, {"services": SERVICES})
        assert headers == {"x-api-key": "a-key"}
        if "BTCUSDT" in url:
            return http_json.Response(200, data)
        return http_json.Response(404, {"detail": "not reported so far"})

    monkeypatch.setattr(http_json, "get", get)
    output = shown("https://api.example/v1", "a-key", 3)
    assert requested[1:] == [
        f"https://api.example/v1/data/{symbol}?days=3" for symbol in ("BTCUSDT", "ETHUSDT")
    ]
    rows = {line.split()[1]: line for line in output.splitlines() if line.startswith("│ 2025")}
    for part in ("degraded", "24/24", "97.22 %", "4 trades withheld by the exchange"):
        assert part in rows["2025-08-01"]
    for part in ("missing", "0/24", "no data"):
        assert part in rows["2025-07-31"]
    for part in ("repaired", "100.00 %", "4 trades fetched later"):
        assert part in rows["2025-07-30"]
    assert "4 × reset by peer" in output
    assert "not reported so far" in output


@pytest.mark.parametrize("days", ["0", "401", "-1", "1.5", "many", "", "²"])
def test_days_are_a_whole_number(days: str) -> None:
    with pytest.raises(OptionsError, match="DAYS is .* it should be a whole number from 1 to 400"):
        gaps.run(Namespace(url="", days=days))


def test_any_other_error_of_the_api_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(url: str, headers: dict[str, str] | None = None) -> http_json.Response:
        if url.endswith("/health"):
            return http_json.Response(200, {"services": SERVICES})
        return http_json.Response(403, {"message": "Forbidden"})

    monkeypatch.setattr(http_json, "get", get)
    with pytest.raises(ApiFailed, match="refuses the key in KEY"):
        shown("https://api.example/v1", "another-key")
