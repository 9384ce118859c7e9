"""`make gaps`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from local.commands import gaps
from local.system import http_json, state_folder
from local.system.api import ApiFailed

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


def shown(url: str = "") -> str:
    output = io.StringIO()
    gaps.show(url, Console(file=output, width=140))
    return output.getvalue()


def test_gaps_are_shown_with_ids_times_and_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[str] = []

    def get(url: str, **options: Any) -> http_json.Response:
        requested.append(url)
        return http_json.Response(503, {"status": "degraded", "services": SERVICES})

    monkeypatch.setattr(http_json, "get", get)
    output = shown("https://api.example/v1")
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
