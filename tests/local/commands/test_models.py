"""`make models`, `make promote`, `make rollback` and `make retrain`: what they ask, and what they tell."""

from __future__ import annotations

import argparse
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from local.commands import backfill, models, retrain
from local.commands.backfill import Report
from local.commands.gaps import NotRunning
from local.commands.options import HISTORY_S, OptionsError
from local.commands.retrain import Retraining
from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import put_model, save_model
from tests.local.commands.test_backfill import event
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import RegistryError
from tickcast.model.card import Card, GateRecord

DAY_S = 86_400


def shown(s3: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=240)
    cards, pointer = model_registry.cards(s3, BUCKET), model_registry.active_model(s3, BUCKET)
    console.print(models.table("here", cards, pointer))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_models_are_listed_with_their_role_and_figures(s3: Any) -> None:
    assert any("No model is active" in line for line in shown(s3))
    put_model(s3, "m1")
    save_model(s3, "m2")
    skill = {"skill": 0.1, "ci": [0.05, 0.15]}
    figures = {name: {"no_change": skill, "champion": skill} for name in ("all", "1", "2", "5", "10")}
    gate = {"promoted": False, "reasons": ["not_above_champion"], "figures": figures, "sentence": "No."}
    save_model(s3, "m3", provisional=False, gate=gate, data={"share_of_rows_with_quotes": 0.25})
    save_model(s3, "m4")
    s3.put_object(Bucket=BUCKET, Key="models/m5/card.json", Body=b"[]")
    model_registry.promote(s3, BUCKET, "m2", "then", challenger="m3")
    names = ("m1", "m2", "m3", "m4", "m5")
    by_id = {name: line for line in shown(s3) for name in names if f" {name} " in line}
    assert "active" in by_id["m2"] and "previous: 1" in by_id["m1"]
    for part in ("challenger", "proven", "25%", "0.100", "+0.100 [+0.050, +0.150]", "not_above_champion"):
        assert part in by_id["m3"]
    assert "not evaluated" in by_id["m4"] and "provisional" in by_id["m4"]
    assert "is no card" in by_id["m5"]


def test_a_model_is_promoted_by_hand_and_rolled_back(s3: Any) -> None:
    put_model(s3, "m1")
    save_model(s3, "m2")
    report = models.promote(s3, BUCKET, "m2")
    assert "m2 is active" in report and "the gate has not evaluated it" in report
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and (pointer.model_id, pointer.by) == ("m2", "hand")
    assert "m1 is active again instead of m2" in models.roll_back(s3, BUCKET)
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        models.roll_back(s3, BUCKET)


def test_a_model_that_cannot_be_promoted_says_why(s3: Any) -> None:
    put_model(s3, "m1")
    save_model(s3, "m2", feature_hash="of-another-code")
    with pytest.raises(OptionsError, match="which model"):
        models.promote(s3, BUCKET, "")
    for model_id, why in (("m9", "there is no model 'm9'"), ("m1", "already"), ("m2", "of-another-code")):
        with pytest.raises(RegistryError, match=why):
            models.promote(s3, BUCKET, model_id)


@pytest.mark.parametrize("command", models.COMMANDS)
def test_without_a_system_there_is_nothing_to_ask(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> dict[str, str]:
        raise NotRunning("nothing is running here")

    monkeypatch.setattr(backfill, "running", nothing)
    with pytest.raises(NotRunning):
        models.run(command, argparse.Namespace(aws="", id="m1"), Console())


def given(*words: str) -> Retraining:
    parser = argparse.ArgumentParser()
    retrain.add_arguments(parser)
    return retrain.from_arguments(parser.parse_args(words))


def test_retraining_asks_for_history_and_for_training_on_all_of_it() -> None:
    assert given().request() == {"days": 1, "train": {"days": 2, "reason": "by hand"}}
    asked = given("--days", "3", "--symbols", "btcusdt").request()
    assert (asked["days"], asked["symbols"]) == (3, ["BTCUSDT"])
    assert asked["train"] == {"days": 4, "reason": "by hand", "symbols": ["BTCUSDT"]}


def test_a_system_started_for_it_is_as_old_as_asked() -> None:
    assert given().aside().history_s == HISTORY_S
    today_s = (datetime.now(UTC) - datetime.now(UTC).replace(hour=0, minute=0, second=0)).seconds
    assert given("--days", "1").aside().history_s - DAY_S - today_s in range(600)


def test_the_outcome_is_read_from_the_events() -> None:
    verdict: dict[str, Any] = {
        "model_id": "m2",
        "champion": "m1",
        "promote": "m2",
        "shadow": None,
        "provisional": True,
    }
    verdict |= {"reasons": ["beats_champion"], "sentence": "Better.", "seconds": 300.0, "rows": 600}
    verdict |= {"figures": {"champion": {"skill": 0.02, "ci": [0, 1]}}}
    events = [
        event({"windows": 1, "totals": {"hours_left": 0.0}}),
        event({"model_id": "m2", "promoted": False, "rows": 5000, "rows_with_quotes": 4000, "card": {}}),
        event(verdict),
        event({"status": "promoted", "in_force": "m2", "challenger": None, "previous": "m1"}),
    ]
    report = backfill.add(Report(), events)
    report.ok = True
    result = retrain.outcome(report)
    assert (result["model_id"], result["promoted"], result["provisional"]) == ("m2", True, True)
    assert (result["reasons"], result["sentence"]) == (["beats_champion"], "Better.")
    assert (result["rows"], result["rows_with_quotes"], result["judged_s"]) == (5000, 4000, 300.0)
    assert (result["in_force"], result["previous"]) == ("m2", "m1")
    assert result["skill_against"] == {"champion": 0.02}


def test_a_loop_that_came_to_no_model_says_so() -> None:
    result = retrain.outcome(backfill.add(Report(), [event({"windows": 0, "totals": {"hours_left": 0.0}})]))
    assert (result["model_id"], result["promoted"], result["reasons"]) == (None, False, ["not_trained"])


def test_an_id_is_whole_however_narrow_the_screen(s3: Any) -> None:
    save_model(s3, "20260101T030000Z-0a1b2c3d")
    console = Console(file=io.StringIO(), width=80)
    console.print(models.table("here", model_registry.cards(s3, BUCKET), None))
    assert isinstance(console.file, io.StringIO)
    assert "20260101T030000Z-0a1b2c3d" in console.file.getvalue()


def test_the_beginning_of_an_id_will_do_if_it_is_the_only_one(s3: Any) -> None:
    for name in ("20260101T03-aa", "20260101T03-bb", "20260102T03-cc"):
        save_model(s3, name)
    assert "20260102T03-cc is active" in models.promote(s3, BUCKET, "20260102")
    with pytest.raises(RegistryError, match="there is no model '20260101'"):
        models.promote(s3, BUCKET, "20260101")


def test_decisions_are_shown_in_sentences() -> None:
    cards = [Card(model_id=f"m{n}", gate=GateRecord(sentence=f"No {n}.")) for n in range(9)]
    assert models.sentences([Card(model_id="m"), *cards]) == ["m0: No 0.", "m1: No 1.", "m2: No 2."]


def test_too_little_to_train_on_is_told_as_such() -> None:
    told = retrain.outcome(Report(ok=True, trained={"model_id": None, "rows": 0, "why": "60 usable rows"}))
    assert (told["ok"], told["model_id"], told["reasons"]) == (True, None, ["not_trained"])
    assert told["sentence"] == "60 usable rows"
