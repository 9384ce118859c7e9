"""Runs drills on one system: scenario, recovery, reconciliation. The results as a table and as a report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table

from local.drills.harness import DrillFailed, Harness
from local.drills.proxy import Proxy
from local.drills.reconciliation import Reconciler, Reconciliation, prediction_since, sent_until_now, spans
from local.drills.scenarios import DRILLS, Drill
from local.system.options import OptionsError
from local.system.processes import ProcessFailed
from local.system.progress import Progress
from local.system.system import System

RECOVERY_S = 20.0  # from the end of a scenario to a fresh prediction
_WARM_UP_S = 120.0
_SETTLE_S = 1.0  # for what the exchange has just sent to reach ingest


@dataclass
class Result:
    """The result of one drill, which passes without `problems`."""

    trades: Reconciliation = field(default_factory=Reconciliation)
    recovered_s: float | None = None
    stale_after_s: float | None = None  # the oldest tick served as fresh, where it was measured
    reconnects: int | None = None  # of the ingest task, unless it was replaced
    note: str = ""
    problems: list[str] = field(default_factory=list)


def chosen(names: Sequence[str]) -> list[Drill]:
    """The drills of these names, by default all. Raises `OptionsError`."""
    known = {drill.name: drill for drill in DRILLS}
    if unknown := [name for name in names if name not in known]:
        raise OptionsError(f"no drill {', '.join(unknown)}; it should be one of {', '.join(known)}")
    return [drill for drill in DRILLS if not names or drill.name in names]


def run(system: System, drills: Iterable[Drill], progress: Progress) -> dict[str, Result]:
    """Run `drills` on `system` and restore it. Raises `DrillFailed` if it does not warm up."""
    results: dict[str, Result] = {}
    with Proxy(urlsplit(system.cloud.endpoint_url).port or 80) as network:
        harness, reconciler = Harness(system, network), Reconciler(system)
        with progress.step("warm-up: the model's first predictions"):
            now_ms = time.time() * 1000
            harness.wait_until(prediction_since(system, now_ms), "predictions of the model", _WARM_UP_S)
        # No moment between two drills is left out: late effects of one count for the next.
        after = sent_until_now(system)
        for drill in drills:
            with progress.step(drill.name):
                until = _run(drill, harness, reconciler, after, results.setdefault(drill.name, Result()))
            for problem in results[drill.name].problems:
                progress.say(f"    [red]{problem}[/red]")
            after = until
    return results


def _run(
    drill: Drill, harness: Harness, reconciler: Reconciler, after: dict[str, int], result: Result
) -> dict[str, int]:
    """Run one drill on the trades after those ids and set its `result`; the newest trade ids it covers."""
    started_us, hits = time.time_ns() // 1000, harness.hits()
    task, connections, harness.stale_after_s = harness.task, harness.connections(), None
    try:
        result.note = drill.scenario(harness)
        ended_ms = time.time() * 1000
        if drill.needs_hits and harness.hits() == hits:
            result.problems.append("the exchange injected no fault")
        recovered = prediction_since(harness.system, ended_ms)
        result.recovered_s = round(harness.wait_until(recovered, "a fresh prediction", RECOVERY_S), 1)
    except (DrillFailed, ProcessFailed) as failure:
        result.problems.append(str(failure))
    result.stale_after_s = harness.stale_after_s
    if harness.system.ingest and harness.task is task:
        result.reconnects = harness.connections() - connections
    harness.restore()
    until = sent_until_now(harness.system)
    harness.wait(_SETTLE_S)
    result.trades = reconciler.reconcile(spans(after, until), started_us)
    result.problems += problems(drill, result.trades)
    return until


def problems(drill: Drill, trades: Reconciliation) -> list[str]:
    """The reasons why a drill does not pass by its reconciliation."""
    found = []
    if not trades.sent:
        found.append("the exchange published nothing")
    if trades.lost:
        found.append(f"{trades.lost} trades lost: {trades.why_lost}")
    if drill.cause is None and trades.in_ledger:
        found.append(f"{trades.in_ledger} trades missing, although none should be")
    elif drill.cause is not None:
        found += [f"unexpected cause {cause!r}" for cause in trades.causes if not drill.cause.search(cause)]
    if trades.twice:
        found.append(f"{trades.twice} trades counted twice")
    if trades.uncounted:
        found.append(f"{trades.uncounted} trades were too late for their bars")
    return found


def report(results: dict[str, Result]) -> dict[str, Any]:
    """The last line."""
    drills = {name: _last_line(result) for name, result in results.items()}
    ok = bool(drills) and all(each["ok"] for each in drills.values())
    return {"ok": ok, "ticks_lost": sum(each["lost"] for each in drills.values()), "drills": drills}


def _last_line(result: Result) -> dict[str, Any]:
    trades = result.trades
    return {
        "ok": not result.problems,
        "sent": trades.sent,
        "in_bronze": trades.in_bronze,
        "in_ledger": trades.in_ledger,
        "lost": trades.lost,
        "causes": sorted(trades.causes),
        "recovered_s": result.recovered_s,
        "stale_after_s": result.stale_after_s,
        "reconnects": result.reconnects,
        "note": "; ".join([result.note, *result.problems]),
    }


def table(report: dict[str, Any]) -> Table:
    """The report, for people."""
    shown = Table(
        title=f"drills: {'passed' if report['ok'] else 'FAILED'}, {report['ticks_lost']} trades lost",
        caption="ledger: missing, listed with a cause, and REST can fill them; lost: in neither",
    )
    for title in ("drill", "", "sent", "bronze", "ledger", "lost", "recovery, s", "scenario; causes"):
        is_number = title in ("sent", "bronze", "ledger", "lost", "recovery, s")
        shown.add_column(
            title, justify="right" if is_number else "left", no_wrap=not title.startswith("scenario")
        )
    for name, drill in report["drills"].items():
        recovery = "-" if drill["recovered_s"] is None else f"{drill['recovered_s']:.1f}"
        counts = (str(drill[count]) for count in ("sent", "in_bronze", "in_ledger", "lost"))
        mark = "ok" if drill["ok"] else "FAILED"
        shown.add_row(name, mark, *counts, recovery, "; ".join([drill["note"], *drill["causes"]]))
    return shown
