"""The registry: the pointer moved by conditional write, back and forth; cards and their pages."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import CARD, save_model
from tests.fixtures.paths import EVENTS
from tests.functions.test_train_model import NOW
from tickcast.adapters.http.responses import Response
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.card_markdown import page
from tickcast.adapters.registry.model_catalog import ModelCatalog
from tickcast.adapters.registry.model_registry import ModelHeld, PointerRace, RegistryError
from tickcast.adapters.registry.pointer import LIFTED, POINTER, Challenger, Pointer
from tickcast.functions.promote_model import promote_model
from tickcast.functions.request import RequestError
from tickcast.model.card import Card, GateRecord, GateSkill, HorizonScore, TrainingData

SINCE = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def models(s3: Any) -> list[str]:
    names = ["m1", "m2", "m3"]
    for name in names:
        save_model(s3, name)
    return names


def promote(s3: Any, model_id: str, **more: Any) -> Pointer:
    return model_registry.promote(s3, BUCKET, model_id, SINCE, **more)


def active(s3: Any) -> Pointer:
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None
    return pointer


class Rival:
    """S3 as others use it as well: before each write of the pointer somebody else moves it."""

    def __init__(self, s3: Any, moves: list[str]) -> None:
        self._s3, self._moves = s3, moves
        self.exceptions = s3.exceptions
        self.writes = 0

    def get_object(self, **request: Any) -> Any:
        return self._s3.get_object(**request)

    def list_objects_v2(self, **request: Any) -> Any:
        return self._s3.list_objects_v2(**request)

    def put_object(self, **request: Any) -> Any:
        self.writes += 1
        if self._moves:
            self._s3.put_object(
                Bucket=BUCKET, Key=POINTER, Body=json.dumps({"model_id": self._moves.pop(0)}).encode()
            )
        return self._s3.put_object(**request)


def test_the_pointer_has_the_active_and_the_previous_models(s3: Any, models: list[str]) -> None:
    assert model_registry.active_model(s3, BUCKET) is None
    promote(s3, "m1")
    promote(s3, "m2", provisional=False, by="the gate")
    pointer = promote(s3, "m3", challenger="m1")
    assert pointer == active(s3)
    assert (pointer.model_id, pointer.since) == ("m3", SINCE)
    assert (pointer.key, pointer.challenger) == ("models/m3/model.onnx", Challenger(model_id="m1"))
    assert [each.model_id for each in pointer.previous] == ["m2", "m1"]
    assert pointer.previous[0].provisional is False
    assert pointer.provisional is None
    assert [each.model_id for each in promote(s3, "m3").previous] == ["m2", "m1"]  # no step


def test_a_limited_number_of_previous_models_is_kept(s3: Any) -> None:
    for n in range(20):
        promote(s3, f"m{n}")
    assert [each.model_id for each in active(s3).previous] == [f"m{n}" for n in range(18, 8, -1)]


def test_rolling_back_goes_one_model_back_each_time(s3: Any, models: list[str]) -> None:
    for name in models:
        promote(s3, name, challenger="m1")
    assert model_registry.roll_back(s3, BUCKET, SINCE).model_id == "m2"
    assert (active(s3).challenger, active(s3).by) == (None, "rolled back from m3")
    assert model_registry.roll_back(s3, BUCKET, SINCE).model_id == "m1"
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        model_registry.roll_back(s3, BUCKET, SINCE)
    assert active(s3).model_id == "m1"


def test_a_rollback_holds_until_it_is_lifted(s3: Any, models: list[str]) -> None:
    """Else the next training would promote again what was just taken back."""
    promote(s3, "m1"), promote(s3, "m2")
    model_registry.roll_back(s3, BUCKET, SINCE)
    assert active(s3).hold_until == LIFTED
    for _ in range(2):  # the night after, and the one after that
        held = promote_model(verdict(champion="m1", promote="m2"), s3, BUCKET, NOW)
        assert held == {"status": "held", "in_force": "m1", "challenger": "m2", "previous": None}
        assert (active(s3).model_id, active(s3).hold_until) == ("m1", LIFTED)
    kept = promote_model(verdict(champion="m1", promote=None, shadow="m3"), s3, BUCKET, NOW)
    assert (kept["status"], active(s3).hold_until) == ("kept", LIFTED)
    with pytest.raises(ModelHeld, match="m1 is held until lifted: `make lift` ends that"):
        promote(s3, "m2", now=NOW)  # such as a training that replaces the champion
    model_registry.hold(s3, BUCKET, None)
    assert active(s3).hold_until is None
    assert promote_model(verdict(champion="m1"), s3, BUCKET, NOW)["status"] == "promoted"


def test_a_hold_ends_at_its_time_and_survives_a_promotion_by_hand(s3: Any, models: list[str]) -> None:
    with pytest.raises(RegistryError, match="no model is active that could be held"):
        model_registry.hold(s3, BUCKET, LIFTED)
    promote(s3, "m1")
    until = NOW + timedelta(hours=1)
    model_registry.hold(s3, BUCKET, until.isoformat())
    promote(s3, "m3")  # by hand
    assert (active(s3).model_id, active(s3).hold_until) == ("m3", until.isoformat())
    assert promote_model(verdict(champion="m3"), s3, BUCKET, NOW)["status"] == "held"
    assert promote_model(verdict(champion="m3"), s3, BUCKET, until)["status"] == "promoted"


@pytest.mark.parametrize("odd", ["soon", 5, True, ["2026-01-01"]])
def test_a_hold_whose_end_cannot_be_read_has_none(s3: Any, models: list[str], odd: Any) -> None:
    stored = {"model_id": "m1", "hold_until": odd}
    s3.put_object(Bucket=BUCKET, Key=POINTER, Body=json.dumps(stored).encode())
    assert active(s3).is_held(NOW + timedelta(days=10_000))
    assert promote_model(verdict(), s3, BUCKET, NOW)["status"] == "held"


def test_a_champion_that_moves_while_a_hold_is_found_makes_the_decision_outdated(
    s3: Any, models: list[str]
) -> None:
    promote(s3, "m1")
    model_registry.hold(s3, BUCKET, LIFTED)
    moved = promote_model(verdict(), Rival(s3, ["m3"]), BUCKET, NOW)
    assert (moved["status"], active(s3).model_id) == ("outdated", "m3")


def test_a_champion_that_has_earned_it_is_no_longer_provisional(s3: Any, models: list[str]) -> None:
    promote(s3, "m1", provisional=True)
    kept = promote_model(verdict(promote=None, shadow="m2"), s3, BUCKET, NOW)
    assert (kept["status"], active(s3).provisional) == ("kept", True)
    promote_model(verdict(promote=None, shadow="m2", proves_champion=True), s3, BUCKET, NOW)
    assert (active(s3).provisional, active(s3).challenger_id, active(s3).since) == (False, "m2", SINCE)
    again = promote_model(verdict(champion="m3", promote=None, proves_champion=True), s3, BUCKET, NOW)
    assert again["status"] == "outdated"


def test_rolling_back_skips_models_that_cannot_serve(s3: Any, models: list[str]) -> None:
    for name in models:
        promote(s3, name)
    save_model(s3, "m2", feature_hash="of-another-code")
    pointer = model_registry.roll_back(s3, BUCKET, SINCE)
    assert (pointer.model_id, pointer.previous) == ("m1", [])


class Deaf(Rival):
    """S3 whose answer to the first write is lost: the client sends it again, and that one is refused."""

    def put_object(self, **request: Any) -> Any:
        self.writes += 1
        answer = self._s3.put_object(**request)
        return self._s3.put_object(**request) if self.writes == 1 else answer


def test_a_write_whose_response_is_lost_is_not_repeated(s3: Any, models: list[str]) -> None:
    for name in models:
        promote(s3, name)
    deaf = Deaf(s3, [])
    assert model_registry.roll_back(deaf, BUCKET, SINCE).model_id == "m2"  # one step, not two
    assert (deaf.writes, active(s3).model_id) == (1, "m2")


def test_without_a_servable_previous_model_rolling_back_is_refused(s3: Any, models: list[str]) -> None:
    save_model(s3, "m1", feature_hash="of-another-code")
    promote(s3, "m1"), promote(s3, "m2")
    with pytest.raises(RegistryError, match="model m1 was trained on features of-another-code"):
        model_registry.roll_back(s3, BUCKET, SINCE)
    s3.delete_object(Bucket=BUCKET, Key=POINTER)
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        model_registry.roll_back(s3, BUCKET, SINCE)


def test_a_lost_race_is_retried_on_the_new_pointer(s3: Any, models: list[str]) -> None:
    promote(s3, "m1")
    rival = Rival(s3, ["m2"])
    pointer = promote(rival, "m3")
    assert rival.writes == 2
    assert [each.model_id for each in pointer.previous] == ["m2"]  # not what was read first


def test_two_first_promotions_at_once_are_a_race(s3: Any, models: list[str]) -> None:
    assert [each.model_id for each in promote(Rival(s3, ["m1"]), "m2").previous] == ["m1"]


def test_losing_every_race_is_an_error(s3: Any, models: list[str]) -> None:
    with pytest.raises(PointerRace, match="try again"):
        promote(Rival(s3, ["m1", "m2"] * 10), "m3")
    assert active(s3).model_id != "m3"


def test_other_errors_of_s3_are_not_retried(s3: Any) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        model_registry.promote(s3, "no-such-bucket", "m1", SINCE)


def verdict(**more: Any) -> dict[str, Any]:
    return {"model_id": "m2", "champion": "m1", "promote": "m2", "shadow": None, "provisional": False} | more


def test_a_promotion_moves_the_pointer(s3: Any, models: list[str]) -> None:
    promote(s3, "m1", challenger="m3")
    moved = promote_model(verdict(), s3, BUCKET, NOW)
    assert moved == {"status": "promoted", "in_force": "m2", "challenger": None, "previous": "m1"}
    assert (active(s3).provisional, active(s3).by) == (False, "the gate")
    assert active(s3).since == NOW.isoformat()


def test_a_refused_challenger_runs_in_shadow_until_the_next_decision(s3: Any, models: list[str]) -> None:
    promote(s3, "m1")
    kept = promote_model(verdict(promote=None, shadow="m2"), s3, BUCKET, NOW)
    assert kept == {"status": "kept", "in_force": "m1", "challenger": "m2", "previous": None}
    assert active(s3).since == SINCE
    kept = promote_model(verdict(promote=None, shadow=None), s3, BUCKET, NOW)
    assert (kept["challenger"], active(s3).challenger) == (None, None)


@pytest.mark.parametrize("decided", [{}, {"promote": None, "shadow": "m2"}])
def test_a_decision_against_another_champion_is_outdated(
    s3: Any, models: list[str], decided: dict[str, Any]
) -> None:
    promote(s3, "m3")
    assert promote_model(verdict(**decided), s3, BUCKET, NOW)["status"] == "outdated"
    assert (active(s3).model_id, active(s3).challenger) == ("m3", None)


def test_a_champion_replaced_during_the_promotion_makes_it_outdated(s3: Any, models: list[str]) -> None:
    promote(s3, "m1")
    moved = promote_model(verdict(), Rival(s3, ["m3"]), BUCKET, NOW)
    assert (moved["status"], active(s3).model_id) == ("outdated", "m3")


def test_the_first_of_all_models_needs_no_champion(s3: Any, models: list[str]) -> None:
    assert promote_model(verdict(champion=None), s3, BUCKET, NOW)["status"] == "promoted"
    s3.delete_object(Bucket=BUCKET, Key=POINTER)
    kept = promote_model(verdict(champion=None, promote=None), s3, BUCKET, NOW)
    assert (kept["status"], kept["in_force"]) == ("kept", None)


def test_a_promotion_that_is_impossible_is_refused_with_the_reason(s3: Any, models: list[str]) -> None:
    with pytest.raises(RequestError, match="champion, promote, shadow missing"):
        promote_model({}, s3, BUCKET, NOW)
    save_model(s3, "m2", feature_hash="of-another-code")
    with pytest.raises(RegistryError, match="of-another-code.*cannot serve"):
        promote_model(verdict(champion=None), s3, BUCKET, NOW)
    s3.delete_object(Bucket=BUCKET, Key="models/m3/model.onnx")
    with pytest.raises(RegistryError, match="model.onnx is not there"):
        model_registry.check_servable(s3, BUCKET, "m3")
    with pytest.raises(RegistryError, match="there is no model 'm9'"):
        model_registry.check_servable(s3, BUCKET, "m9")


def test_a_damaged_pointer_or_card_is_named(s3: Any, models: list[str]) -> None:
    s3.put_object(Bucket=BUCKET, Key=POINTER, Body=b"[]")
    with pytest.raises(RegistryError, match="models/current.json is damaged"):
        promote(s3, "m1")
    s3.put_object(Bucket=BUCKET, Key="models/m2/card.json", Body=b"no card")
    s3.put_object(Bucket=BUCKET, Key="models/m4/card.json", Body=b"[]")
    found = {card.model_id: card.problem or "" for card in model_registry.cards(s3, BUCKET)}
    assert list(found) == ["m4", "m3", "m2", "m1"]
    assert "is no card" in found["m4"] and "is not JSON" in found["m2"]
    assert found["m1"] == found["m3"] == ""


BROKEN = {"1": {"direction_slope": math.nan, "interval_width": 1.0}}


def put_raw_card(s3: Any, model_id: str, **changed: Any) -> None:
    """A card as Python alone would write it, numbers that are none included."""
    body = json.dumps(CARD | {"model_id": model_id} | changed).encode()
    s3.put_object(Bucket=BUCKET, Key=f"models/{model_id}/card.json", Body=body)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"calibration": CARD["calibration"] | BROKEN}, "calibration.1.direction_slope is nan"),
        ({"test": {"1": {"skill": math.inf}}}, "test.1.skill is inf"),
        (
            {"calibration": CARD["calibration"] | {"5": {}}},
            "required field `direction_slope` - at ",
        ),
    ],
)
def test_a_card_with_unusable_numbers_is_never_promoted(
    s3: Any, models: list[str], changed: dict[str, Any], why: str
) -> None:
    promote(s3, "m1")
    put_raw_card(s3, "m2", **changed)
    with pytest.raises(RegistryError, match=why):
        model_registry.check_servable(s3, BUCKET, "m2")
    with pytest.raises(RegistryError, match=why):
        promote_model(verdict(champion="m1", promote="m2"), s3, BUCKET, NOW)
    with pytest.raises(RegistryError, match=why):
        promote_model(verdict(champion="m1", promote=None, shadow="m2"), s3, BUCKET, NOW)
    assert (active(s3).model_id, active(s3).challenger) == ("m1", None)


def test_an_unknown_figure_is_null_on_the_card(s3: Any) -> None:
    save_model(s3, "m1")
    document = model_registry.card_document(s3, BUCKET, "m1")
    model_registry.save_card(s3, BUCKET, document | {"test": {"1": {"skill": math.nan}}})
    card = model_registry.check_servable(s3, BUCKET, "m1")
    assert card.test == {1: HorizonScore(skill=None)}
    assert "| 1 s | - | - | - |" in page(card)  # and is read and written again


def test_the_api_lists_models_and_names_broken_cards(s3: Any, models: list[str]) -> None:
    promote(s3, "m1")
    put_raw_card(s3, "m2", calibration=CARD["calibration"] | BROKEN)
    save_model(s3, "m3", feature_hash="of-another-code")
    answer = Response(200, ModelCatalog(lambda: s3, BUCKET, lambda: 0.0)(), cache_control="private")

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    found = json.loads(answer.as_proxy_response()["body"], parse_constant=refuse)
    problems = {card["model_id"]: card.get("problem") for card in found["models"]}
    assert problems["m1"] is None
    assert "calibration.1.direction_slope is nan" in problems["m2"]
    assert "it cannot serve: model m3 was trained on features of-another-code" in problems["m3"]


def test_a_page_has_the_contents_of_its_card() -> None:
    assert page(Card(model_id="m1")).startswith("# Model m1\n\nNot evaluated by the gate.")
    skill = GateSkill(skill=0.1234, ci=(-0.01, 0.25))
    figures = {"all": {"champion": skill}, "1": {"champion": skill, "no_change": skill}}
    gate = GateRecord(judged_at="then", sentence="Champion kept.", reasons=["x"], figures=figures)
    text = page(Card(model_id="m1", gate=gate, provisional=True, data=TrainingData(markets=["sim/BTCUSDT"])))
    assert "**Not promoted** (then): Champion kept." in text
    assert "| 1 s | +0.123 [-0.010, +0.250] | +0.123 [-0.010, +0.250] |" in text
    assert "| all | +0.123 [-0.010, +0.250] | - |" in text
    assert "sim/BTCUSDT" in text and "provisional" in text


def test_a_stored_card_is_changed_without_losing_fields(s3: Any) -> None:
    """One of the code before cards had types, with fields that only later code will know."""
    stored = json.loads((EVENTS / "registry" / "card.json").read_text("utf-8"))
    stored |= {"of_later_code": {"a": [1, None]}}
    stored["calibration"]["1"]["shape"] = 3.0
    stored["gate"]["figures"]["all"]["champion"]["p_value"] = 0.5
    key = f"models/{stored['model_id']}/card.json"
    s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(stored).encode())
    card = model_registry.read_card(s3, BUCKET, stored["model_id"])
    assert card.calibration[1].interval_width == stored["calibration"]["1"]["interval_width"]
    assert card.gate is not None and card.gate.reasons == ["not_above_champion"]
    document = model_registry.card_document(s3, BUCKET, stored["model_id"])
    model_registry.save_card(s3, BUCKET, document | {"provisional": False})
    assert json.load(s3.get_object(Bucket=BUCKET, Key=key)["Body"]) == stored | {"provisional": False}
    page_of_it = s3.get_object(Bucket=BUCKET, Key=key.replace(".json", ".md"))["Body"].read().decode()
    assert "| 1 s | 0.128 | 0.814 | 599 |" in page_of_it


def test_a_stored_pointer_is_moved_without_losing_fields(s3: Any, models: list[str]) -> None:
    stored = json.loads((EVENTS / "registry" / "pointer.json").read_text("utf-8"))
    stored |= {"of_later_code": 1}
    stored["previous"][1]["of_later_code"] = 2
    s3.put_object(Bucket=BUCKET, Key=POINTER, Body=json.dumps(stored).encode())
    model_registry.shadow(s3, BUCKET, "m1")
    assert read_pointer(s3) == stored | {"challenger": {"model_id": "m1"}}
    promote(s3, "m2", provisional=True, by="the gate")
    before = {name: stored[name] for name in ("model_id", "since")}  # by hand: as provisional as its card
    assert read_pointer(s3) == {
        "model_id": "m2",
        "key": "models/m2/model.onnx",
        "since": SINCE,
        "challenger": None,
        "previous": [before, *stored["previous"]],
        "by": "the gate",
        "provisional": True,
    }


def read_pointer(s3: Any) -> Any:
    return json.load(s3.get_object(Bucket=BUCKET, Key=POINTER)["Body"])


def test_a_model_serves_whatever_the_fields_are_that_it_does_not_serve_by(s3: Any, models: list[str]) -> None:
    put_raw_card(s3, "m1", epochs="many", reason=None, line=None, rows=5)
    assert model_registry.check_servable(s3, BUCKET, "m1").rows == 5
    promote(s3, "m1"), promote(s3, "m2")
    assert model_registry.roll_back(s3, BUCKET, SINCE).model_id == "m1"
    document = model_registry.card_document(s3, BUCKET, "m1")
    model_registry.save_card(s3, BUCKET, document | {"provisional": False})
    assert model_registry.card_document(s3, BUCKET, "m1") == document | {"provisional": False}


@pytest.mark.parametrize(
    ("odd", "previous"),
    [
        ({"previous": None}, []),
        ({"previous": 7}, []),
        ({"previous": ["m3", None, {}, {"model_id": "m1", "since": 5, "provisional": None}]}, ["m1"]),
        ({"previous": [{"model_id": "../m1"}, {"model_id": "m3"}, {"model_id": "m1"}]}, ["m3", "m1"]),
        ({"since": 5, "by": None, "key": [], "challenger": {"model_id": "m3", "problem": 2}}, []),
    ],
)
def test_a_pointer_is_read_whatever_the_fields_are_that_no_model_is_served_by(
    s3: Any, models: list[str], odd: dict[str, Any], previous: list[str]
) -> None:
    s3.put_object(Bucket=BUCKET, Key=POINTER, Body=json.dumps({"model_id": "m2"} | odd).encode())
    assert [each.model_id for each in active(s3).previous] == previous
    assert active(s3).since is None
    shadowed = model_registry.shadow(s3, BUCKET, "m3")
    assert shadowed is not None and shadowed.challenger_id == "m3"
    assert [each.model_id for each in promote(s3, "m3").previous] == ["m2", *previous]
    for expected in ["m2", *previous]:
        assert model_registry.roll_back(s3, BUCKET, SINCE).model_id == expected
