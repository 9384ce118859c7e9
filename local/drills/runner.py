"""One drill after the other on one system: fault, recovery, account. The result as a table and as JSON."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from rich.table import Table

from local.commands.options import OptionsError
from local.drills.faults import DRILLS, Drill
from local.drills.harness import DrillFailed, Harness
from local.drills.proxy import Proxy
from local.drills.reconciliation import Reconciler, Reconciliation, prediction_since, sent_until_now, spans
from local.system.processes import ProcessFailed
from local.system.progress import Progress
from local.system.system import System

RECOVERY_S = 20.0  # from the end of a fault to a fresh prediction
_WARM_UP_S = 120.0
_SETTLE_S = 1.0  # for what the exchange has just sent to reach ingest


@dataclass
class Result:
    """Of one drill; `problems` are what keeps it from passing."""

    account: Reconciliation = field(default_factory=Reconciliation)
    recovered_s: float | None = None
    stale_after_s: float | None = None  # the oldest tick that was served as fresh, where it was measured
    reconnects: int | None = None  # of the ingest task, where it is the same from beginning to end
    note: str = ""
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        counts = dataclasses.asdict(self.account)
        return {
            "ok": not self.problems,
            **{name: counts[name] for name in ("sent", "in_bronze", "in_ledger", "lost")},
            "causes": sorted(self.account.causes),
            "recovered_s": self.recovered_s,
            "stale_after_s": self.stale_after_s,
            "reconnects": self.reconnects,
            "note": "; ".join([self.note, *self.problems]),
        }


def chosen(names: Sequence[str]) -> list[Drill]:
    """The drills of these names, or all. Raises `OptionsError`."""
    known = {drill.name: drill for drill in DRILLS}
    if unknown := [name for name in names if name not in known]:
        raise OptionsError(f"no drill {', '.join(unknown)}; there are {', '.join(known)}")
    return [drill for drill in DRILLS if not names or drill.name in names]


def run(system: System, drills: Iterable[Drill], progress: Progress) -> dict[str, Result]:
    """Do `drills` on `system`, which is left as it was. Raises `DrillFailed` if it does not warm up."""
    results: dict[str, Result] = {}
    with Proxy(urlsplit(system.cloud.endpoint_url).port or 80) as network:
        stage, accountant = Harness(system, network), Reconciler(system)
        with progress.step("warm-up: the model's first predictions"):
            now_ms = time.time() * 1000
            stage.wait_until(prediction_since(system, now_ms), "predictions of the model", _WARM_UP_S)
        # No moment between two drills is left out: what one leaves behind falls to the next.
        after = sent_until_now(system)
        for drill in drills:
            with progress.step(drill.name):
                until = _drill(drill, stage, accountant, after, results.setdefault(drill.name, Result()))
            for problem in results[drill.name].problems:
                progress.say(f"    [red]{problem}[/red]")
            after = until
    return results


def _drill(
    drill: Drill, stage: Harness, accountant: Reconciler, after: dict[str, int], result: Result
) -> dict[str, int]:
    """Fill in `result`; the newest trade ids that it accounts for."""
    started_us, hits = time.time_ns() // 1000, stage.hits()
    task, connections, stage.stale_after_s = stage.task, stage.connections(), None
    try:
        result.note = drill.fault(stage)
        ended_ms = time.time() * 1000
        if drill.needs_hits and stage.hits() == hits:
            result.problems.append("the exchange did nothing wrong")
        recovered = prediction_since(stage.system, ended_ms)
        result.recovered_s = round(stage.wait_until(recovered, "a fresh prediction", RECOVERY_S), 1)
    except (DrillFailed, ProcessFailed) as failure:
        result.problems.append(str(failure))
    result.stale_after_s = stage.stale_after_s
    if stage.system.ingest and stage.task is task:
        result.reconnects = stage.connections() - connections
    stage.restore()
    until = sent_until_now(stage.system)
    stage.wait(_SETTLE_S)
    result.account = accountant.account(spans(after, until), started_us)
    result.problems += judge(drill, result.account)
    return until


def judge(drill: Drill, account: Reconciliation) -> list[str]:
    """What is wrong with what became of the trades."""
    problems = []
    if not account.sent:
        problems.append("the exchange published nothing")
    if account.lost:
        problems.append(f"{account.lost} trades lost: {account.why_lost}")
    if drill.cause is None and account.in_ledger:
        problems.append(f"{account.in_ledger} trades missing, though nothing need be")
    elif drill.cause is not None:
        problems += [f"cause {cause!r}" for cause in account.causes if not drill.cause.search(cause)]
    if account.twice:
        problems.append(f"{account.twice} counted twice")
    if account.uncounted:
        problems.append(f"{account.uncounted} came too late for their bars")
    return problems


def summary(results: dict[str, Result]) -> dict[str, Any]:
    """The JSON line."""
    told = {name: result.as_dict() for name, result in results.items()}
    return {
        "ok": bool(told) and all(each["ok"] for each in told.values()),
        "ticks_lost": sum(each["lost"] for each in told.values()),
        "drills": told,
    }


def table(results: dict[str, Result]) -> Table:
    """The results for people."""
    told = summary(results)
    shown = Table(
        title=f"drills: {'passed' if told['ok'] else 'FAILED'}, {told['ticks_lost']} trades lost",
        caption="ledger: missing, listed with the cause, and REST can fill them; lost: in neither",
    )
    for title in ("drill", "", "sent", "bronze", "ledger", "lost", "back after s", "what was done; causes"):
        is_number = title in ("sent", "bronze", "ledger", "lost", "back after s")
        shown.add_column(
            title, justify="right" if is_number else "left", no_wrap=not title.startswith("what")
        )
    for name, each in told["drills"].items():
        back = "-" if each["recovered_s"] is None else f"{each['recovered_s']:.1f}"
        counts = (str(each[key]) for key in ("sent", "in_bronze", "in_ledger", "lost"))
        mark = "ok" if each["ok"] else "FAILED"
        shown.add_row(name, mark, *counts, back, "; ".join([each["note"], *each["causes"]]))
    return shown
