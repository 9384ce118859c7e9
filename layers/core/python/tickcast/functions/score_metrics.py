"""The metrics of `score_predictions`: what alarms watch, of all symbols together, and what the dashboard
shows, by symbol."""

from __future__ import annotations

from collections.abc import Sequence

from aws_lambda_powertools.metrics import MetricUnit

from tickcast.adapters.telemetry import write_metrics
from tickcast.functions.score_predictions import Result
from tickcast.market.symbols import ascii_name

# Each costs a dollar or so a month on the dashboard; of the others /accuracy tells the same.
SYMBOLS_SHOWN = 20


def write_score_metrics(result: Result, horizon_s: int, symbols: Sequence[str]) -> None:
    """Write the metrics of a run; by symbol of the first `SYMBOLS_SHOWN` of `symbols`, over `horizon_s`. They
    are the same in every run, whichever symbols it had time for."""
    drifting = sum(state.is_drifting for state in result.drift.values()) if result.drift else None
    write_metrics(
        {
            "Availability": (MetricUnit.Percent, _percent(min(result.available.values(), default=None))),
            "Drifting": (MetricUnit.Count, drifting),
            "NoModel": (MetricUnit.Count, 1 if result.has_no_model else None),
            "SymbolFailures": (MetricUnit.Count, len(result.failed) or None),
        }
    )
    for symbol in symbols[:SYMBOLS_SHOWN]:
        if (hour := result.hours.get(symbol)) is None:
            continue
        figures = hour.horizons[horizon_s]
        write_metrics(
            {
                "LiveSkill": (MetricUnit.NoUnit, figures.skill.value if figures.skill else None),
                "Direction": (MetricUnit.Percent, _percent(figures.direction)),
                "Coverage": (MetricUnit.Percent, _percent(figures.coverage)),
                "CalibrationError": (MetricUnit.NoUnit, figures.calibration_error),
            },
            symbol=ascii_name(symbol),
        )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
