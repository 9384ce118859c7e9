"""`make models`, `make promote` and `make rollback`."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from local.commands import models
from local.system.options import OptionsError
from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import put_model, save_model
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import RegistryError
from tickcast.adapters.registry.pointer import Challenger, Pointer
from tickcast.model.card import Card, GateRecord


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
    gate = {"champion": "m1", "reasons": ["not_above_champion"], "figures": figures, "sentence": "No."}
    save_model(s3, "m3", provisional=False, gate=gate, data={"share_of_rows_with_quotes": 0.25})
    save_model(s3, "m4")
    s3.put_object(Bucket=BUCKET, Key="models/m5/card.json", Body=b"[]")
    model_registry.promote(s3, BUCKET, "m2", "then", challenger="m3")
    names = ("m1", "m2", "m3", "m4", "m5")
    by_id = {name: line for line in shown(s3) for name in names if f" {name} " in line}
    assert "active" in by_id["m2"] and "previous: 1" in by_id["m1"]
    for part in ("challenger", "proven", "25%", "0.100", "+0.100 [+0.050, +0.150]", "champion kept"):
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


def test_a_rollback_is_held_and_shown_until_it_is_lifted(s3: Any) -> None:
    put_model(s3, "m1")
    save_model(s3, "m2")
    models.promote(s3, BUCKET, "m2")
    assert "held until that is lifted: no training replaces it" in models.roll_back(s3, BUCKET)
    text = "\n".join(shown(s3))
    assert "active, held" in text and "`make lift` ends that" in text
    assert "It is held until that is lifted" in models.promote(s3, BUCKET, "m2")  # the hold stays
    assert "m2 is active, and no longer held" in models.lift(s3, BUCKET)
    assert "held" not in "\n".join(shown(s3))
    assert "was not held" in models.lift(s3, BUCKET)
    assert "held until 2126-12-24T08:00:00+00:00" in models.hold(s3, BUCKET, "2126-12-24T08:00")
    assert "held until that is lifted" in models.hold(s3, BUCKET)
    for wrong, why in (("tomorrow", "is no time"), ("2020-01-01", "has passed")):
        with pytest.raises(OptionsError, match=f"UNTIL is '{wrong}', which {why}: a time to come in UTC"):
            models.hold(s3, BUCKET, wrong)


def test_a_model_that_cannot_be_promoted_says_why(s3: Any) -> None:
    put_model(s3, "m1")
    save_model(s3, "m2", feature_hash="of-another-code")
    with pytest.raises(OptionsError, match="which model"):
        models.promote(s3, BUCKET, "")
    for model_id, why in (("m9", "there is no model 'm9'"), ("m1", "already"), ("m2", "of-another-code")):
        with pytest.raises(RegistryError, match=why):
            models.promote(s3, BUCKET, model_id)


def test_ids_are_not_cut_on_a_narrow_screen(s3: Any) -> None:
    save_model(s3, "20260101T030000Z-0a1b2c3d")
    console = Console(file=io.StringIO(), width=80)
    console.print(models.table("here", model_registry.cards(s3, BUCKET), None))
    assert isinstance(console.file, io.StringIO)
    assert "20260101T030000Z-0a1b2c3d" in console.file.getvalue()


def test_a_unique_prefix_of_an_id_is_enough(s3: Any) -> None:
    for name in ("20260101T03-aa", "20260101T03-bb", "20260102T03-cc"):
        save_model(s3, name)
    assert "20260102T03-cc is active" in models.promote(s3, BUCKET, "20260102")
    with pytest.raises(RegistryError, match="there is no model '20260101'"):
        models.promote(s3, BUCKET, "20260101")


def test_decisions_are_shown_in_sentences() -> None:
    """Those on the champion and the challenger, and on the newest others."""
    cards = [Card(model_id=f"m{n}", gate=GateRecord(sentence=f"No {n}.")) for n in range(9)]
    pointer = Pointer(model_id="m8", challenger=Challenger(model_id="m7"))
    found = models.sentences([Card(model_id="m"), *cards], pointer)
    assert found == ["m8: No 8.", "m7: No 7.", "m0: No 0.", "m1: No 1.", "m2: No 2."]


@pytest.mark.parametrize(
    ("gate", "words"),
    [
        (None, "not evaluated"),
        (GateRecord(), "not evaluated"),
        (GateRecord(sentence="Yes.", passed=True, promoted=True), "promoted"),
        (GateRecord(sentence="Yes.", passed=True, held=True), "passed; a hold kept the champion"),
        (GateRecord(sentence="Yes.", passed=True), "passed; another one was better"),
        (GateRecord(sentence="No.", champion="m0", reasons=["not_above_line"]), "champion kept"),
        (GateRecord(reasons=["not_above_no_change"]), "not promoted"),
    ],
)
def test_the_table_has_decisions_in_words(gate: GateRecord | None, words: str) -> None:
    shown = models.table("here", [Card(model_id="m", gate=gate)], None)
    assert list(shown.columns[-1].cells) == [words]


def test_a_champion_s_proof_is_shown() -> None:
    proof, gate = GateRecord(sentence="It is proven."), GateRecord(sentence="It was better.")
    assert models.sentences([Card(model_id="m", proof=proof, gate=gate)]) == [
        "m: It is proven.",
        "m: It was better.",
    ]


def test_a_gate_without_a_sentence_has_not_evaluated_the_model(s3: Any) -> None:
    put_model(s3, "m1")
    save_model(s3, "m2", gate={"promoted": False})
    report = models.promote(s3, BUCKET, "m2")
    assert report.endswith("not by the gate: the gate has not evaluated it.")
