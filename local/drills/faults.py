"""The drills: what is done to the system, and what may come of it.

A fault runs until it has ended; what it returns goes into the table. Where nothing may be missing at all
(`whole`), every trade has to stand in bronze; elsewhere the ledger may hold it, with a cause that matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from local.drills.harness import DrillFailed, Harness

Fault = Callable[[Harness], str]

_DROPS = 4
_STALL_NOTICED_S = 90.0  # trades may pause for long before that means something
_DAY_S = 20.0  # "24 h"
_OUTAGE_S = 30.0
_ROLLOVER_S = _DAY_S * 22.5 / 24
_FROZEN_S = 20.0
_PAUSE_S = 600.0
_STALE_S = 5.0  # no older tick is served as fresh, but for half a second of measuring


@dataclass(frozen=True)
class Drill:
    """`cause` is what the ledger's causes have to match where something may be missing."""

    name: str
    fault: Fault
    cause: re.Pattern[str] | None = None
    needs_hits: bool = True  # the exchange has to have done something wrong

    @property
    def whole(self) -> bool:
        return self.cause is None


def baseline(stage: Harness) -> str:
    stage.wait(10)
    return "nothing is done"


def drop(stage: Harness) -> str:
    for _ in range(_DROPS):
        stage.order("drop")
        stage.wait(3)
    return f"{_DROPS} resets"


def stall(stream: str) -> Fault:
    """One stream of one symbol stops while the others and the pings go on."""

    def fault(stage: Harness) -> str:
        stage.order("stall", stream=stream, symbol=stage.system.symbols[0])
        seconds = stage.wait_until(
            lambda: not stage.is_under("stall"), "the stall to be noticed", _STALL_NOTICED_S
        )
        return f"relieved after {seconds:.0f} s"

    return fault


def pause(stage: Harness) -> str:
    """A stall that ends before it can be told from a quiet market: the connection just skips trades."""
    stage.order("stall", stream="trade", seconds=3)
    stage.wait(6)
    return "trades withheld for 3 s"


def frozen(stage: Harness) -> str:
    """The connection and its pings stay, and nothing comes on any stream, of new connections neither."""
    with stage.reading(stage.system.symbols[0]) as answers:
        stage.wait(2)
        stage.order("freeze", seconds=_FROZEN_S)
        stage.wait(_FROZEN_S)
    if not answers.fresh or len(answers.fresh) == len(answers.bodies):
        raise DrillFailed(f"{len(answers.fresh)} of {len(answers.bodies)} answers were a model's")
    if answers.stale_after_s > _STALE_S + 0.5:
        raise DrillFailed(f"a tick of {answers.stale_after_s:.1f} s ago was served as fresh")
    return (
        f"nothing sent for {_FROZEN_S:g} s; the oldest tick served as fresh was {answers.stale_after_s:.1f} s"
    )


def quiet(seconds: float = _PAUSE_S) -> Fault:
    """Nothing happens on one market, and nothing is wrong: it stays the model's, and nobody reconnects."""

    def fault(stage: Harness) -> str:
        *others, symbol = stage.system.symbols
        if not others:
            raise DrillFailed("it takes a second market, which is busy")
        before = stage.connections()
        with stage.reading(symbol) as answers:
            stage.order("pause_market", symbol=symbol, seconds=seconds)
            stage.wait(seconds)
        old = [body for body in answers.bodies if body["tick_age_s"] > _STALE_S + 1]
        stale = [body for body in old if body["reason"] == "stale_features"]
        if stale or not old:
            raise DrillFailed(f"{len(stale)} of {len(old)} answers about the quiet market were stale")
        if not all(body["quiet"] for body in old):
            raise DrillFailed("answers about the quiet market do not say so")
        if (opened := stage.connections() - before) != 0:
            raise DrillFailed(f"{opened} reconnections for a quiet market")
        fresh = sum(body["source"] == "model" for body in old)
        return f"{symbol} paused for {seconds:g} s; {fresh} of {len(old)} answers were the model's"

    return fault


def cull_quotes(stage: Harness) -> str:
    stage.order("cull_quotes", share=0.7, seconds=8)
    stage.wait(9)
    return "70 % of the quotes withheld"


def server_shutdown(stage: Harness) -> str:
    stage.order("server_shutdown", grace_s=5.0)
    stage.wait(8)
    return "announced 5 s before"


def max_age(stage: Harness) -> str:
    stage.hand_over({"ROLLOVER_S": str(_ROLLOVER_S)})
    stage.order("max_age", age_s=_DAY_S)
    stage.wait(2 * _DAY_S)
    connections = stage.health(stage.task)["counts"]["connections"]
    if connections < 3:
        raise DrillFailed(f"{connections} connections in two days")
    return f"24 h are {_DAY_S:g} s, {connections} connections in two of them"


def duplicate(stage: Harness) -> str:
    stage.order("duplicate", seconds=8)
    stage.wait(9)
    return "every frame twice"


def reorder(stage: Harness) -> str:
    stage.order("reorder", seconds=8)
    stage.wait(9)
    return "streams up to 50 ms apart"


def corrupt(stage: Harness) -> str:
    for how in ("flip", "truncate", "template"):
        for stream in ("trade", "quote"):
            stage.order("corrupt", how=how, stream=stream, count=2)
        stage.wait(4)
    return "flip, truncate, template: 2 frames each of trades and quotes"


def schema_version(stage: Harness) -> str:
    stage.order("schema_version", seconds=8)
    stage.wait(9)
    return "longer blocks and entries"


def refuse_key(stage: Harness) -> str:
    """The task ends and says why; once the key is accepted again, a new one goes on, as on ECS."""
    task = stage.task
    stage.order("refuse_key", status=401)
    stage.order("drop")
    status = stage.system.wait_for_end(task, timeout_s=20)
    last_words = task.log.read_text("utf-8").splitlines()[-1]
    if status != 1 or "refused the API key" not in last_words:
        raise DrillFailed(f"the task ended with status {status}, saying {last_words}")
    stage.wait(2)
    stage.behave()
    stage.another_task()
    return "exit status 1 and a reason; a new task once the key is good"


def refuse(stage: Harness) -> str:
    before = stage.hits()
    for status in (429, 503):
        stage.order("refuse", status=status, seconds=5)
        stage.order("drop")
        stage.wait(10)
    return f"429 and 503 for 5 s each, {stage.hits() - before - 2} attempts"


def kinesis_unreachable(stage: Harness) -> str:
    """Nothing gets through to Kinesis and no answer comes back."""
    stage.hand_over({"AWS_ENDPOINT_URL": stage.network.url})
    stage.wait(2)
    stage.network.cut()
    stage.wait(_OUTAGE_S)
    report = stage.health(stage.task)
    if "Kinesis" not in report["why"]:
        raise DrillFailed(f"ingest noticed nothing: {report}")
    stage.network.mend()
    return f"for {_OUTAGE_S:g} s, {report['counts']['put_failures']} puts failed"


def two_tasks(stage: Harness) -> str:
    stage.another_task()
    stage.wait(12)
    return "the same symbols twice"


def kill_one_of_two(stage: Harness) -> str:
    first = stage.task
    stage.another_task()
    stage.wait(3)
    stage.system.kill_ingest(first)
    stage.wait(3)
    return "SIGKILL of the first"


def kill_the_only_one(stage: Harness) -> str:
    stage.system.kill_ingest(stage.task)
    stage.wait(3)
    stage.another_task()
    return "SIGKILL, a new one after 3 s"


LOST_CONNECTION = re.compile("Connection|closed by the exchange")
DRILLS = (
    Drill("baseline", baseline, needs_hits=False),
    Drill("drop", drop, LOST_CONNECTION),
    Drill("stall_trades", stall("trade"), re.compile("^no trades came")),
    Drill("stall_quotes", stall("quote")),
    Drill("pause_trades", pause, re.compile("^skipped")),
    Drill("frozen", frozen, re.compile("^no trades|^no data for")),
    Drill("quiet", quiet()),
    Drill("cull_quotes", cull_quotes),
    Drill("server_shutdown", server_shutdown),
    Drill("max_age", max_age, needs_hits=False),
    Drill("duplicate", duplicate),
    Drill("reorder", reorder),
    Drill("corrupt", corrupt, re.compile("^a frame could not be read")),
    Drill("schema_version", schema_version),
    Drill("refuse_key", refuse_key, re.compile("^ingest was not running")),
    Drill("refuse", refuse, LOST_CONNECTION),
    Drill("kinesis_unreachable", kinesis_unreachable, needs_hits=False),
    Drill("two_tasks", two_tasks, needs_hits=False),
    Drill("kill_one_of_two", kill_one_of_two, needs_hits=False),
    Drill("kill_the_only_one", kill_the_only_one, re.compile("^ingest was not running"), needs_hits=False),
)
