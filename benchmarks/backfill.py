"""History end to end, in the embedded system: REST → bronze → tables, by the deployed state machine.

The local exchange simulates some hours of a market and serves them as the exchange would; all of it is
fetched, loaded and made into rows. Fetching and loading take turns: the longer of the two is the bottleneck.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from rich.console import Console

from local.commands import execution
from local.commands.backfill import BackfillRequest
from local.commands.deployment import on_emulator
from local.system.options import Options
from local.system.progress import Progress
from local.system.state_folder import throw_away
from local.system.system import System

HOURS = 4
SYMBOL = "BTCUSDT"


class Backfilled(NamedTuple):
    """`rows_per_s` (aggregates) and `bottleneck` are None when nothing was measured; `note` then says why."""

    rows_per_s: int | None
    bottleneck: str | None
    note: str


def measure(console: Console) -> Backfilled:
    """Raises `ProcessFailed` or `FunctionFailed` when the system does not start."""
    state, is_ok = throw_away("bench-history"), False
    from_time = datetime.now(UTC) - timedelta(hours=HOURS)
    requested = BackfillRequest(symbols=(SYMBOL,), from_=from_time.isoformat(timespec="seconds"))
    history_s = requested.history_s(datetime.now(UTC))
    options = Options("sim", (SYMBOL,), history_s=history_s, emulator="ministack")  # as in earlier figures
    try:
        with System(options, state, Progress(console)) as system:
            there = on_emulator("the benchmark's own system", system.cloud.endpoint_url)
            arn = execution.start(there, requested.request(datetime.now(UTC)))
            report = execution.watch(there, arn, console)
        is_ok = report.ok
    finally:
        state.discard(keep_logs=not is_ok)
    if not report.ok:
        return Backfilled(None, None, f"failed: {report.error}; logs are in {state.logs}")
    stages = ", ".join(f"{name} {spent_s:.1f} s" for name, spent_s in sorted(report.stage_s.items()))
    rows = f"{report.rows:,} aggregates, {report.feature_rows:,} feature rows"
    note = f"{rows} in {report.seconds:.0f} s: {stages}; bottleneck: {report.bottleneck}"
    return Backfilled(round(report.rows / report.seconds), report.bottleneck, note)
