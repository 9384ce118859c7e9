"""Which custom metrics the processes write, for CloudWatch bills each by the hours in which it has a value.

`tests/operations/cost/test_metrics.py` compares this with what the handlers and ingest write.
"""

from __future__ import annotations

from typing import NamedTuple

from tickcast.functions.score_metrics import SYMBOLS_SHOWN


class Written(NamedTuple):
    """A metric of a process in an ordinary hour; `by_symbol`: one for each symbol that is shown."""

    service: str
    name: str
    by_symbol: bool = False


ORDINARY = (
    *(Written("predict_stream", name) for name in ("Predictions", "LatencyMs", "MissingTrades")),
    *(Written("predict_stream", name) for name in ("ToKinesisMs", "ToFunctionMs")),
    *(Written("score_predictions", name) for name in ("Availability", "Drifting")),
    *(Written("score_predictions", name, by_symbol=True) for name in ("LiveSkill", "Direction")),
    *(Written("score_predictions", name, by_symbol=True) for name in ("Coverage", "CalibrationError")),
    Written("serve_predictions", "AgeWhenReadMs"),
    Written("ingest_ecs", "LastTickAgeSeconds"),
)
# Those that have a value only when something is wrong; for how much of a month is assumed: seven hours.
SELDOM = 19
SELDOM_SHARE = 0.01


def metric_months(symbols: int) -> float:
    """How many metrics are billed, in whole months."""
    shown = min(symbols, SYMBOLS_SHOWN)
    return sum(shown if each.by_symbol else 1 for each in ORDINARY) + SELDOM * SELDOM_SHARE
