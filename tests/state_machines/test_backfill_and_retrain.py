"""The state machine by Step Functions' rules: retries, waits, failures, continuation.

Its functions are stand-ins here; tests/e2e runs it with the real ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.fixtures.asl import Execution, Executions, Function, execute
from tests.fixtures.paths import ROOT
from tickcast.market.fetch_plan import MAX_WINDOWS

pytestmark = pytest.mark.slow  # all of it together

FILE = ROOT / "state_machines" / "backfill_and_retrain.asl.json"
HISTORY = ("PlanBackfill", "FetchHistory", "LoadHistory", "MarkRepaired", "ListStaleHours")
FUNCTIONS = (*HISTORY, "TrainModel", "EvaluateModel", "PromoteModel")
VERDICT = {
    "model_id": "m",
    "champion": "m0",
    "promote": "m",
    "shadow": None,
    "provisional": False,
    "proves_champion": False,
    "reasons": ["beats_champion", "beats_baselines"],
    "sentence": "It is better.",
}
TRAINED: dict[str, Any] = {"model_id": "m", "rows": 9, "promoted": False, "why": None}
MOVED = {"status": "promoted", "in_force": "m", "challenger": None, "previous": "m0"}
DONE = {"status": "done", "retry_after_s": 0, "trades": 2, "rows": 1, "withheld_trades": 0, "quarantined": 0}
FETCHED = DONE | {"files": 1, "used_weight": 4}
LOADED = {
    "complete": True,
    "objects": 1,
    "added": 1,
    "bars": 1,
    "feature_rows": 1,
    "skipped": 0,
    "quarantined": [],
    "problems": [],
    "hours": 1,
}
STALE: dict[str, Any] = {
    "windows": [],
    "hours": 0,
    "before_us": None,
    "started_us": 1,
    "left": False,
    "more": False,
    "next": {"name": "load-1", "input": {"symbols": ["BTCUSDT"], "spans": [], "train": None}},
}


def named(name: str) -> Exception:
    """An exception of a class called `name`, of which Lambda reports no more."""
    kind: type[Exception] = type(name, (Exception,), {})
    return kind(f"{name} says why")


def window(symbol: str, day: int) -> dict[str, Any]:
    ends = {"from_us": day * 86_400_000_000, "to_us": (day + 1) * 86_400_000_000}
    return ends | {"symbol": symbol, "reason": "asked", "first_id": None, "last_id": None}


def planned(days: dict[str, int], **more: Any) -> dict[str, Any]:
    """What the planner answers for so many days of each symbol."""
    markets = [{"symbol": s, "windows": [window(s, day) for day in range(n)]} for s, n in days.items()]
    answer = {
        "symbols": list(days),
        "dry": False,
        "train": None,
        "markets": markets,
        "windows": sum(days.values()),
        "more": False,
        "next": {"name": "more-1", "input": {}},
        "totals": {},
    }
    return answer | more


class Machine:
    """The state machine with functions that a test replaces, one `answer` for a call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        names = {name: f"arn:aws:lambda:us-east-1:123456789012:function:{name}" for name in FUNCTIONS}
        self.definition = FILE.read_text("utf-8")
        for name, value in names.items():
            self.definition = self.definition.replace(f"${{{name}}}", value)
        self._names = {arn: name for name, arn in names.items()}
        self.functions: dict[str, Function] = {
            "PlanBackfill": lambda event: planned({"BTCUSDT": 1}),
            "FetchHistory": lambda event: FETCHED,
            "LoadHistory": lambda event: LOADED,
            "MarkRepaired": lambda event: {"repaired_trades": 2, "withheld_trades": 0, "missing_trades": 0},
            "ListStaleHours": lambda event: STALE,
            "TrainModel": lambda event: TRAINED | {"card": {}},
            "EvaluateModel": lambda event: VERDICT | {"figures": {}},
            "PromoteModel": lambda event: MOVED,
        }

    def answer(self, function: str, *answers: Any) -> None:
        """The answers of its calls, the last one for all further ones; exceptions are raised."""
        left = list(answers)

        def call(event: dict[str, Any]) -> Any:
            found = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(found, Exception):
                raise found
            return found

        self.functions[function] = call

    def run(self, request: Any = None) -> Executions:
        functions = {arn: self.functions[name] for arn, name in self._names.items()}
        executions = execute(self.definition, functions, request or {"days": 1}, self._monkeypatch)
        executions.calls = [(self._names[arn], payload) for arn, payload in executions.calls]
        return executions


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield Machine(monkeypatch)


def only(executions: Executions) -> Execution:
    (execution,) = executions.all
    return execution


def calls(executions: Executions) -> list[str]:
    """In their order, but for the listings that end every execution."""
    return [name for name, _ in executions.calls if name != "ListStaleHours"]


def test_a_window_is_planned_fetched_and_loaded(machine: Machine) -> None:
    ran = machine.run({"symbols": ["BTCUSDT"], "days": 1})
    assert only(ran).status == "SUCCEEDED"
    assert calls(ran) == ["PlanBackfill", "FetchHistory", "LoadHistory"]
    (plan,), (fetch,), (load,) = (ran.payloads(name) for name in FUNCTIONS[:3])
    assert plan["request"] == {"symbols": ["BTCUSDT"], "days": 1}
    assert plan["execution_id"].startswith("arn:aws:states:")
    assert fetch == {"window": window("BTCUSDT", 0)}
    assert load == {"window": window("BTCUSDT", 0)}
    (market,) = only(ran).output["markets"]
    assert [w["status"] for w in market["windows"]] == ["done"]


def test_a_market_s_windows_run_one_after_another(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({"BTCUSDT": 4, "ETHUSDT": 3}))
    ran = machine.run()
    for symbol, days in (("BTCUSDT", 4), ("ETHUSDT", 3)):
        mine = [
            (name, p["window"]["from_us"]) for name, p in ran.calls[1:-1] if p["window"]["symbol"] == symbol
        ]
        starts = [window(symbol, day)["from_us"] for day in range(days)]
        assert mine == [(name, at) for at in starts for name in ("FetchHistory", "LoadHistory")]


def test_it_waits_as_long_as_the_exchange_says(machine: Machine) -> None:
    limited = DONE | {
        "status": "rate_limited",
        "retry_after_s": 37,
        "files": 0,
        "used_weight": 0,
    }
    machine.answer("FetchHistory", limited, limited | {"retry_after_s": 120}, FETCHED)
    ran = machine.run()
    assert only(ran).status == "SUCCEEDED"
    assert ran.waited_s == [37, 120]
    assert ran.payloads("FetchHistory") == [{"window": window("BTCUSDT", 0)}] * 3


def test_a_function_out_of_time_is_called_again(machine: Machine) -> None:
    machine.answer("FetchHistory", FETCHED | {"status": "continue"}, FETCHED)
    machine.answer("LoadHistory", LOADED | {"complete": False}, LOADED)
    ran = machine.run()
    assert only(ran).status == "SUCCEEDED"
    assert len(ran.payloads("FetchHistory")) == 2
    assert len(ran.payloads("LoadHistory")) == 2
    assert ran.backed_off_s == []


@pytest.mark.parametrize("error", ["RegionRefused", "Forbidden"])
def test_a_refusal_of_the_exchange_ends_it_at_once(machine: Machine, error: str) -> None:
    machine.answer("PlanBackfill", planned({"BTCUSDT": 3}))
    machine.answer("FetchHistory", named(error))
    ran = machine.run()
    assert (only(ran).status, only(ran).error) == ("FAILED", error)
    assert f"{error} says why" in (only(ran).cause or "")
    assert calls(ran) == ["PlanBackfill", "FetchHistory"]


@pytest.mark.parametrize(
    ("function", "error", "retries"),
    [
        ("FetchHistory", "ExchangeUnavailable", 6),
        ("FetchHistory", "HistoryIncomplete", 6),
        ("FetchHistory", "Sandbox.Timedout", 3),
        ("FetchHistory", "RequestRefused", 0),
        ("FetchHistory", "TickError", 0),
        ("FetchHistory", "HistoryNotKept", 0),
        ("FetchHistory", "MarketHalted", 0),
        ("LoadHistory", "OperationalError", 6),
        ("LoadHistory", "RequestError", 0),
        ("LoadHistory", "MemoryError", 3),
    ],
)
def test_a_failed_window_stops_no_other(machine: Machine, function: str, error: str, retries: int) -> None:
    machine.answer("PlanBackfill", planned({"BTCUSDT": 2}))
    good = machine.functions[function]

    def fails_on_the_first_day(event: dict[str, Any]) -> Any:
        if event["window"]["from_us"] == 0:
            raise named(error)
        return good(event)

    machine.functions[function] = fails_on_the_first_day
    ran = machine.run()
    assert (only(ran).status, only(ran).error) == ("FAILED", "BackfillIncomplete")
    assert len(ran.backed_off_s) == retries
    days = [p["window"]["from_us"] // 86_400_000_000 for p in ran.payloads(function)]
    assert days == [0] * (1 + retries) + [1]
    assert calls(ran)[-1] == "LoadHistory"


def test_retries_wait_longer_each_time_up_to_a_limit(machine: Machine) -> None:
    no_jitter = machine.definition.replace(', "JitterStrategy": "FULL"', "")
    assert no_jitter != machine.definition
    machine.definition = no_jitter
    machine.answer("FetchHistory", *[named("ExchangeUnavailable")] * 6, FETCHED)
    ran = machine.run()
    assert only(ran).status == "SUCCEEDED"
    assert ran.backed_off_s == [15, 30, 60, 120, 240, 300]


def test_a_wrong_request_ends_it_with_the_reason(machine: Machine) -> None:
    machine.answer("PlanBackfill", named("RequestError"))
    ran = machine.run()
    assert (only(ran).error, len(ran.calls)) == ("RequestError", 1)


def test_an_empty_window_is_not_loaded(machine: Machine) -> None:
    machine.answer("FetchHistory", FETCHED | {"rows": 0, "trades": 0, "files": 0})
    ran = machine.run()
    assert (only(ran).status, calls(ran)) == ("SUCCEEDED", ["PlanBackfill", "FetchHistory"])


def test_a_gap_that_the_exchange_withholds_is_marked(machine: Machine) -> None:
    gap = window("BTCUSDT", 0) | {"reason": "gap", "first_id": 11, "last_id": 12}
    machine.answer("PlanBackfill", planned({}, markets=[{"symbol": "BTCUSDT", "windows": [gap]}], windows=1))
    machine.answer("FetchHistory", FETCHED | {"rows": 0, "trades": 0, "withheld_trades": 2, "files": 0})
    ran = machine.run()
    assert only(ran).status == "SUCCEEDED"
    assert ran.payloads("MarkRepaired") == [{"window": gap}]


@pytest.mark.parametrize(
    ("fetched", "loaded"),
    [({"quarantined": 1}, {}), ({}, {"quarantined": ["it is damaged"]}), ({"quarantined": 2, "rows": 0}, {})],
    ids=["a row of REST", "an object", "all rows of a window"],
)
def test_what_is_quarantined_counts_as_failed(
    machine: Machine, fetched: dict[str, Any], loaded: dict[str, Any]
) -> None:
    """The others go on, and so does the training."""
    machine.answer("PlanBackfill", planned({"BTCUSDT": 3}, train={"days": 7}))
    machine.answer("FetchHistory", FETCHED | fetched, FETCHED)
    machine.answer("LoadHistory", LOADED | loaded, LOADED)
    ran = machine.run()
    assert (only(ran).status, only(ran).error) == ("FAILED", "BackfillIncomplete")
    assert len(ran.payloads("FetchHistory")) == 3 and ran.payloads("TrainModel")[0] == {"days": 7}


def test_a_gap_with_a_quarantined_row_is_marked_all_the_same(machine: Machine) -> None:
    gap = window("BTCUSDT", 0) | {"reason": "gap", "first_id": 11, "last_id": 12}
    machine.answer("PlanBackfill", planned({}, markets=[{"symbol": "BTCUSDT", "windows": [gap]}], windows=1))
    machine.answer("FetchHistory", FETCHED | {"quarantined": 1})
    ran = machine.run()
    assert (only(ran).error, len(ran.payloads("MarkRepaired"))) == ("BackfillIncomplete", 1)


def test_a_dry_run_plans_only(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({"BTCUSDT": 2}, dry=True))
    ran = machine.run()
    assert (only(ran).status, calls(ran)) == ("SUCCEEDED", ["PlanBackfill"])
    assert only(ran).output["plan"]["windows"] == 2


def test_a_gap_is_marked_once_its_window_is_loaded(machine: Machine) -> None:
    gap = window("BTCUSDT", 0) | {"reason": "gap", "first_id": 11, "last_id": 12}
    market = {"symbol": "BTCUSDT", "windows": [gap, window("BTCUSDT", 1)]}
    machine.answer("PlanBackfill", planned({}, markets=[market], windows=2))
    machine.answer("MarkRepaired", named("AdminShutdown"), machine.functions["MarkRepaired"]({}))
    ran = machine.run()
    assert only(ran).status == "SUCCEEDED"
    fetch_and_load = ["FetchHistory", "LoadHistory"]
    assert calls(ran)[1:] == [*fetch_and_load, "MarkRepaired", "MarkRepaired", *fetch_and_load]
    assert ran.payloads("MarkRepaired") == [{"window": gap}] * 2


def test_training_follows_when_it_is_requested(machine: Machine) -> None:
    request = {"symbols": ["BTCUSDT"], "days": 7}
    machine.answer("PlanBackfill", planned({"BTCUSDT": 1}, train=request))
    ran = machine.run()
    assert ran.payloads("TrainModel")[0] == request
    assert only(ran).output["trained"] == TRAINED


def test_a_refit_that_fails_leaves_the_promoted_model(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}, train={}))
    machine.answer("TrainModel", TRAINED, named("RegistryError"))
    ran = machine.run()
    assert ran.calls[-1] == ("TrainModel", {"refit": "m"})
    assert (only(ran).status, only(ran).output["promotion"]) == ("SUCCEEDED", MOVED)


def test_a_champion_that_is_held_is_no_failure(machine: Machine) -> None:
    """Not even where the training was to replace it: its model is evaluated like any other."""
    machine.answer("PlanBackfill", planned({}, train={"replace": True}))
    machine.answer("TrainModel", TRAINED | {"why": "trained, not made active: model m0 is held"})
    machine.answer("PromoteModel", MOVED | {"status": "held", "in_force": "m0", "challenger": "m"})
    ran = machine.run()
    assert calls(ran)[-3:] == ["TrainModel", "EvaluateModel", "PromoteModel"]
    assert (only(ran).status, only(ran).output["promotion"]["status"]) == ("SUCCEEDED", "held")


def test_a_trained_model_is_evaluated_and_promoted(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}, train={}))
    ran = machine.run()
    assert ran.calls[2:] == [
        ("TrainModel", {}),
        ("EvaluateModel", {"model_id": "m"}),
        ("PromoteModel", VERDICT),
        ("TrainModel", {"refit": "m"}),
    ]
    assert (only(ran).status, only(ran).output["promotion"]) == ("SUCCEEDED", MOVED)
    assert only(ran).output["verdict"]["reasons"] == VERDICT["reasons"]


def test_a_challenger_below_the_gate_is_no_failure(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}, train={}))
    refused = VERDICT | {"promote": None, "shadow": "m", "reasons": ["not_above_champion"]}
    machine.answer("EvaluateModel", refused)
    machine.answer("PromoteModel", MOVED | {"status": "kept", "in_force": "m0", "challenger": "m"})
    ran = machine.run()
    assert (only(ran).status, ran.payloads("PromoteModel")) == ("SUCCEEDED", [refused])
    assert only(ran).output["promotion"]["status"] == "kept"


def test_an_outdated_verdict_is_evaluated_again(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}, train={}))
    machine.answer("EvaluateModel", VERDICT, VERDICT | {"champion": "m1"})
    machine.answer("PromoteModel", MOVED | {"status": "outdated", "in_force": "m1"}, MOVED)
    ran = machine.run()
    assert [p["champion"] for p in ran.payloads("PromoteModel")] == ["m0", "m1"]
    assert only(ran).status == "SUCCEEDED"


def test_a_race_for_the_pointer_is_retried(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}, train={}))
    machine.answer("PromoteModel", named("PointerRace"), MOVED)
    ran = machine.run()
    assert (only(ran).status, len(ran.payloads("PromoteModel"))) == ("SUCCEEDED", 2)
    assert len(ran.payloads("EvaluateModel")) == 1


def test_a_model_promoted_by_its_training_is_not_evaluated(machine: Machine) -> None:
    request = {"symbols": ["BTCUSDT"], "replace": True, "reason": "test"}
    machine.answer("PlanBackfill", planned({}, train=request))
    machine.answer("TrainModel", TRAINED | {"promoted": True})
    ran = machine.run()
    assert ran.calls[-1] == ("TrainModel", request)
    assert only(ran).status == "SUCCEEDED"


def test_too_little_to_train_on_fails_no_backfill(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({"BTCUSDT": 1}, train={"days": 7}))
    machine.answer("TrainModel", TRAINED | {"model_id": None, "rows": 0, "why": "60 usable rows"})
    ran = machine.run()
    assert (only(ran).status, len(ran.payloads("TrainModel"))) == ("SUCCEEDED", 1)
    assert only(ran).output["trained"]["why"] == "60 usable rows"
    assert "EvaluateModel" not in calls(ran)


def test_remaining_windows_run_in_a_further_execution(machine: Machine) -> None:
    following = {"name": "more-0123", "input": {"spans": [window("BTCUSDT", 9)]}}
    train = {"days": 7}
    machine.answer(
        "PlanBackfill",
        planned({"BTCUSDT": 1}, more=True, next=following, train=train),
        planned({"BTCUSDT": 1}, train=train),
    )
    ran = machine.run()
    assert [e.status for e in ran.all] == ["SUCCEEDED", "SUCCEEDED"]
    assert (ran.all[1].name, ran.all[1].input) == (following["name"], following["input"])
    assert ran.payloads("TrainModel")[:-1] == [train]  # after the last window of all; the last is the refit


def test_remaining_windows_run_although_one_failed(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({"BTCUSDT": 1}, more=True), planned({}))
    machine.answer("FetchHistory", named("RequestRefused"))
    ran = machine.run()
    assert [e.error for e in ran.all] == ["BackfillIncomplete", None]


@pytest.mark.parametrize("days", [1, 2], ids=["with the same input", "with another"])
def test_an_execution_started_before_is_not_a_failure(machine: Machine, days: int) -> None:
    """As after a lost response: the name is taken."""
    nexts = [{"name": "more-1", "input": {"days": 1}}, {"name": "more-1", "input": {"days": days}}]
    machine.answer("PlanBackfill", *[planned({}, more=True, next=following) for following in nexts])
    ran = machine.run({"days": 3})
    assert [(e.status, e.input) for e in ran.all] == [("SUCCEEDED", {"days": 3}), ("SUCCEEDED", {"days": 1})]


def test_a_full_execution_keeps_within_the_limits_of_step_functions(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({"BTCUSDT": 20, "ETHUSDT": 20}))
    ran = machine.run()
    assert only(ran).status == "SUCCEEDED"
    share = 40 / MAX_WINDOWS  # of what an execution may have; a window may be called again several times
    assert len(json.dumps(only(ran).output)) < 256 * 1024 / 2 * share
    assert only(ran).events < 25_000 / 4 * share


def stale(*days: int, **more: Any) -> dict[str, Any]:
    windows = [
        {name: window("BTCUSDT", day)[name] for name in ("symbol", "from_us", "to_us")} for day in days
    ]
    return STALE | {"windows": windows, "hours": 24 * len(windows)} | more


def test_what_postgres_lacks_is_loaded_though_nothing_is_to_be_fetched(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}, symbols=["BTCUSDT"], train={"days": 7}))
    machine.answer("ListStaleHours", stale(9, 8, before_us=5, left=True, more=True), stale(4))
    machine.answer("LoadHistory", LOADED | {"complete": False}, LOADED)
    ran = machine.run()
    assert only(ran).status == "SUCCEEDED"
    lists = ran.payloads("ListStaleHours")
    assert [(p["symbols"], p["before_us"], p["started_us"]) for p in lists] == [
        (["BTCUSDT"], None, None),
        (["BTCUSDT"], 5, 1),
    ]
    days = [p["window"]["from_us"] // 86_400_000_000 for p in ran.payloads("LoadHistory")]
    assert sorted(days) == [4, 8, 9, 9] or sorted(days) == [4, 8, 8, 9]
    assert calls(ran)[-4:-1] == ["TrainModel", "EvaluateModel", "PromoteModel"]  # once all of it is there


def test_older_hours_are_loaded_by_a_further_execution(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}))
    following = {"name": "load-7", "input": {"symbols": ["BTCUSDT"], "spans": [], "train": None}}
    machine.answer("ListStaleHours", stale(9, before_us=5, left=True, next=following), stale(4))
    ran = machine.run()
    assert [e.status for e in ran.all] == ["SUCCEEDED", "SUCCEEDED"]
    assert (ran.all[1].name, ran.all[1].input) == (following["name"], following["input"])


@pytest.mark.parametrize("function", ["LoadHistory", "ListStaleHours"])
def test_hours_that_cannot_be_loaded_fail_it_after_the_training(machine: Machine, function: str) -> None:
    """As where the database is away: the next execution lists them again."""
    machine.answer("PlanBackfill", planned({}, train={}))
    machine.answer("ListStaleHours", stale(9, 8, before_us=5, left=True))
    machine.answer(function, named("OperationalError"))
    ran = machine.run()
    assert (only(ran).error, len(ran.all)) == ("BackfillIncomplete", 1)  # no chain of failures
    assert calls(ran)[-2:] == ["PromoteModel", "TrainModel"]  # trained, evaluated, promoted and refitted


def test_quarantine_counts_as_failed_and_the_rest_is_loaded(machine: Machine) -> None:
    machine.answer("PlanBackfill", planned({}))
    machine.answer("ListStaleHours", stale(9))
    machine.answer("LoadHistory", LOADED | {"complete": False, "quarantined": ["why"]}, LOADED)
    ran = machine.run()
    assert only(ran).error == "BackfillIncomplete"
    assert calls(ran).count("LoadHistory") == 2


def states_of(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in definition["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states_of(state["ItemProcessor"])


def test_every_task_has_a_time_limit_and_retries() -> None:
    definition = json.loads(FILE.read_text("utf-8"))
    tasks = {name: state for name, state in states_of(definition) if state["Type"] == "Task"}
    assert tasks
    for name, task in tasks.items():
        assert task["Retry"][-1]["ErrorEquals"] == ["States.ALL"], name
        assert "TimeoutSeconds" in task or task["Resource"].endswith("startExecution"), name


def test_the_names_it_knows_are_those_of_the_functions() -> None:
    """An error renamed in the code would silently lose its retrier."""
    from tickcast.adapters.registry import model_registry
    from tickcast.adapters.rest import binance, window_proof
    from tickcast.functions import request
    from tickcast.market import fetch_plan, ticks

    known: set[str] = {"States.ALL", "StepFunctions.ExecutionAlreadyExistsException"}
    for module in (binance, window_proof, fetch_plan, ticks, request, model_registry):
        known |= {
            name for name, it in vars(module).items() if isinstance(it, type) and issubclass(it, Exception)
        }
    known |= {name for name, it in vars(psycopg).items() if isinstance(it, type)}
    known |= {name for name, it in vars(psycopg.errors).items() if isinstance(it, type)}
    for name, state in states_of(json.loads(FILE.read_text("utf-8"))):
        for rule in (*state.get("Retry", ()), *state.get("Catch", ())):
            assert set(rule["ErrorEquals"]) <= known, name
