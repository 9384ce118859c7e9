"""The drills: a scenario of faults each, and the causes that missing trades may have.

A scenario runs until its faults have ended; the text it returns goes into the table. Without a `cause` every
trade has to be in bronze; with one it may be in the gap ledger instead, with a cause that matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from local.drills.harness import DrillFailed, Harness, tick_age_s

Scenario = Callable[[Harness], str]

_DROPS = 4
_STALL_DETECTED_S = 90.0  # trades may pause for long in a quiet market
_DAY_S = 20.0  # "24 h"
_OUTAGE_S = 30.0
_ROLLOVER_S = _DAY_S * 22.5 / 24
_FROZEN_S = 20.0
_PAUSE_S = 600.0
_STALE_S = 5.0  # no older tick may be served as fresh
_MEASUREMENT_S = 0.5  # error of a measured age


@dataclass(frozen=True)
class Drill:
    """The ledger's causes have to match `cause`; without one no trade may be missing."""

    name: str
    scenario: Scenario
    cause: re.Pattern[str] | None = None
    needs_hits: bool = True  # the exchange has to have injected a fault


def baseline(harness: Harness) -> str:
    harness.wait(10)
    return "no fault"


def drop(harness: Harness) -> str:
    for _ in range(_DROPS):
        harness.inject("drop")
        harness.wait(3)
    return f"{_DROPS} resets"


def stall(stream: str) -> Scenario:
    """One stream of one symbol stalls while the others and the pings continue."""

    def run(harness: Harness) -> str:
        harness.inject("stall", stream=stream, symbol=harness.system.symbols[0])
        seconds = harness.wait_until(
            lambda: not harness.is_active("stall"), "the stall to be detected", _STALL_DETECTED_S
        )
        return f"connection replaced after {seconds:.0f} s"

    return run


def pause(harness: Harness) -> str:
    """A stall too short to be distinguished from a quiet market: the connection just skips trades."""
    harness.inject("stall", stream="trade", seconds=3)
    harness.wait(6)
    return "trades discarded for 3 s"


def frozen(harness: Harness) -> str:
    """All streams of all connections stall, new ones too, while connections and pings continue."""
    with harness.reading(harness.system.symbols[0]) as answers:
        harness.wait(2)
        harness.inject("freeze", seconds=_FROZEN_S)
        harness.wait(_FROZEN_S)
    if not answers.fresh or len(answers.fresh) == len(answers.bodies):
        raise DrillFailed(f"{len(answers.fresh)} of {len(answers.bodies)} responses were a model's")
    if answers.stale_after_s > _STALE_S + _MEASUREMENT_S:
        raise DrillFailed(f"a tick {answers.stale_after_s:.1f} s old was served as fresh")
    return f"nothing sent for {_FROZEN_S:g} s; oldest tick served as fresh: {answers.stale_after_s:.1f} s"


def quiet(seconds: float = _PAUSE_S) -> Scenario:
    """A market without events, which is no fault: the model keeps predicting, without a reconnection."""

    def run(harness: Harness) -> str:
        *others, symbol = harness.system.symbols
        if not others:
            raise DrillFailed("needs a second market, which is busy")
        before = harness.connections()
        with harness.reading(symbol) as answers:
            harness.inject("pause_market", symbol=symbol, seconds=seconds)
            harness.wait(seconds)
        old = [body for body in answers.bodies if tick_age_s(body) > _STALE_S + 1]
        stale = [body for body in old if body["reason"] == "stale_features"]
        if stale or not old:
            raise DrillFailed(f"{len(stale)} of {len(old)} responses for the quiet market were stale")
        if not all(body["quiet"] for body in old):
            raise DrillFailed("responses for the quiet market are not marked quiet")
        if (opened := harness.connections() - before) != 0:
            raise DrillFailed(f"{opened} reconnections for a quiet market")
        fresh = sum(body["source"] == "model" for body in old)
        return f"{symbol} paused for {seconds:g} s; {fresh} of {len(old)} responses were the model's"

    return run


def cull_quotes(harness: Harness) -> str:
    harness.inject("cull_quotes", share=0.7, seconds=8)
    harness.wait(9)
    return "70 % of quotes discarded"


def server_shutdown(harness: Harness) -> str:
    harness.inject("server_shutdown", grace_s=5.0)
    harness.wait(8)
    return "announced 5 s ahead"


def max_age(harness: Harness) -> str:
    harness.hand_over({"ROLLOVER_S": str(_ROLLOVER_S)})
    harness.inject("max_age", age_s=_DAY_S)
    harness.wait(2 * _DAY_S)
    connections = harness.health(harness.task)["counts"]["connections"]
    if connections < 3:
        raise DrillFailed(f"{connections} connections in two days")
    return f"24 h scaled to {_DAY_S:g} s: {connections} connections in two days"


def duplicate(harness: Harness) -> str:
    harness.inject("duplicate", seconds=8)
    harness.wait(9)
    return "every frame twice"


def reorder(harness: Harness) -> str:
    harness.inject("reorder", seconds=8)
    harness.wait(9)
    return "streams delayed against each other by up to 50 ms"


def corrupt(harness: Harness) -> str:
    for how in ("flip", "truncate", "template"):
        for stream in ("trade", "quote"):
            harness.inject("corrupt", how=how, stream=stream, count=2)
        harness.wait(4)
    return "flip, truncate, template: 2 frames each of trades and quotes"


def schema_version(harness: Harness) -> str:
    harness.inject("schema_version", seconds=8)
    harness.wait(9)
    return "longer blocks and entries"


def refuse_key(harness: Harness) -> str:
    """The task ends with the reason; once the key is accepted again a new one continues, as on ECS."""
    task = harness.task
    harness.inject("refuse_key", status=401)
    harness.inject("drop")
    status = harness.system.wait_for_end(task, timeout_s=20)
    last_words = task.log.read_text("utf-8").splitlines()[-1]
    if status != 1 or "refused the API key" not in last_words:
        raise DrillFailed(f"the task ended with exit status {status}: {last_words}")
    harness.wait(2)
    harness.end_faults()
    harness.another_task()
    return "exit status 1 with the reason; a new task once the key is accepted"


def refuse(harness: Harness) -> str:
    before = harness.hits()
    for status in (429, 503):
        harness.inject("refuse", status=status, seconds=5)
        harness.inject("drop")
        harness.wait(10)
    return f"429 and 503 for 5 s each, {harness.hits() - before - 2} attempts"


def kinesis_unreachable(harness: Harness) -> str:
    """Requests to Kinesis get no response."""
    harness.hand_over({"AWS_ENDPOINT_URL": harness.network.url})
    harness.wait(2)
    harness.network.cut()
    harness.wait(_OUTAGE_S)
    report = harness.health(harness.task)
    if "Kinesis" not in report["why"]:
        raise DrillFailed(f"ingest did not report it: {report}")
    harness.network.restore()
    return f"for {_OUTAGE_S:g} s, {report['counts']['put_failures']} puts failed"


def two_tasks(harness: Harness) -> str:
    harness.another_task()
    harness.wait(12)
    return "two tasks for the same symbols"


def kill_one_of_two(harness: Harness) -> str:
    first = harness.task
    harness.another_task()
    harness.wait(3)
    harness.system.kill_ingest(first)
    harness.wait(3)
    return "SIGKILL of the first task"


def kill_the_only_one(harness: Harness) -> str:
    harness.system.kill_ingest(harness.task)
    harness.wait(3)
    harness.another_task()
    return "SIGKILL, a new task after 3 s"


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
