"""What the exporter reads, as the API and the exchange return it."""

from __future__ import annotations

import json
from typing import Any

from msgspec import to_builtins

from tests.fixtures.paths import ROOT
from tickcast.evaluation.live_scores import NO_TALLIES, AccuracySummary, SpanAccuracy, score

SYMBOL = "BTCUSDT"
PREDICTION: dict[str, Any] = json.loads((ROOT / "layers" / "site" / "latest.example.json").read_text("utf-8"))
SERVICES: dict[str, Any] = {
    "redis": {"ok": True, "why": None},
    "postgres": {"ok": None, "why": "no heartbeat yet"},
    f"feed:{SYMBOL}": {"ok": False, "why": "no heartbeat for 40 s", "age_s": 40.2},
    f"predict_stream:{SYMBOL}": {"ok": True, "why": None, "age_s": 0.4, "missing_trades": 3, "quote_gaps": 1},
}
SENT: dict[str, Any] = {SYMBOL: {"trades": 70, "quotes": 200, "first_id": 1, "last_id": 70}}


def accuracy() -> dict[str, Any]:
    """The body of `/accuracy/{symbol}` with figures of the shortest horizon alone."""
    horizons = score(NO_TALLIES)
    span = SpanAccuracy(from_ms=0, to_ms=1, first_ms=0, availability=0.99, horizons=horizons)
    summary = AccuracySummary(symbol=SYMBOL, scored_ms=1, hour=span, day=span, week=span)
    body = to_builtins({"horizons": horizons, "scored_age_s": 12.5, "summary": summary}, str_keys=True)
    first = body["horizons"]["1"]
    first |= {"count": 40, "direction": 0.6, "coverage": 0.8, "fallback_share": 0.1}
    first["skill"] = {"value": 0.05, "low": None, "high": None}
    assert isinstance(body, dict)
    return body
