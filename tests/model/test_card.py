"""Cards: the fields a model serves by are checked one by one; stored cards are rewritten without a loss."""

import itertools
import json
import math
from typing import Any

import pytest

from tests.fixtures.paths import EVENTS
from tickcast.features.vector import FEATURE_HASH
from tickcast.model import documents
from tickcast.model.card import Card, calibrations_from, card_from, serving_card
from tickcast.model.forecast import HORIZONS_S, Calibration, ModelError


def test_a_model_for_other_features_is_refused() -> None:
    with pytest.raises(ModelError, match="model m1 was trained on features abc"):
        calibrations_from({"model_id": "m1", "feature_hash": "abc"})
    with pytest.raises(ModelError, match=r"no calibration for horizons \[2, 5, 10\]"):
        calibration = {"1": {"direction_slope": 1.0, "interval_width": 1.0}}
        calibrations_from({"model_id": "m1", "feature_hash": FEATURE_HASH, "calibration": calibration})


GOOD = {"direction_slope": 2.0, "interval_width": 1.2}


def card(**changed: Any) -> dict[str, Any]:
    calibration = {str(h): GOOD for h in HORIZONS_S}
    about = {"model_id": "m1", "provisional": True, "feature_hash": FEATURE_HASH, "calibration": calibration}
    return about | changed


def calibrated(horizon: str, **changed: Any) -> dict[str, Any]:
    return {str(h): GOOD | changed if str(h) == horizon else GOOD for h in HORIZONS_S}


def test_a_card_serves_by_its_own_numbers() -> None:
    masked = {str(h): {"direction_slope": 0, "interval_width": 9} for h in HORIZONS_S}
    found = serving_card(card(masked_calibration=masked, support={"imbalance": [-1, 1]}, provisional=False))
    assert found.provisional is False
    assert set(found.calibrations.values()) == {Calibration(2.0, 1.2)}
    assert found.masked_calibrations == {h: Calibration(0.0, 9.0) for h in HORIZONS_S}
    assert found.support == {"imbalance": (-1.0, 1.0)}
    assert serving_card(card()).masked_calibrations is None


@pytest.mark.parametrize("kind", ["calibration", "masked_calibration"])
@pytest.mark.parametrize("horizon", ["1", "10"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["direction_slope"], (math.nan, math.inf, -0.1, 1001, "2", None, True, [2.0])),
        *itertools.product(["interval_width"], (math.nan, -math.inf, 0, -1.0, 51, "1", None, False, {})),
    ],
)
def test_an_unusable_calibration_is_named(kind: str, horizon: str, name: str, value: Any) -> None:
    broken = card(**{kind: calibrated(horizon, **{name: value})})
    with pytest.raises(ModelError, match=rf"^{kind}\.{horizon}\.{name} on the card of model m1 is "):
        serving_card(broken)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"calibration": None}, "calibration on the card of model m1 is None"),
        ({"calibration": []}, "it should be an object by horizon"),
        ({"calibration": {**calibrated("1"), "2": 7}}, "calibration.2 on the card"),
        ({"calibration": {"1": GOOD}}, r"no calibration for horizons \[2, 5, 10\]"),
        ({"masked_calibration": {"1": GOOD}}, r"no masked_calibration for horizons \[2, 5, 10\]"),
        ({"provisional": None}, "provisional on the card of model m1 is None, it should be true or false"),
        ({"provisional": "false"}, "provisional"),
        ({"support": []}, "support on the card"),
        ({"support": {"rainfall": [0, 1]}}, r"names \['rainfall'\], which are no features"),
        ({"support": {"imbalance": [1, -1]}}, "support.imbalance on the card"),
        ({"support": {"imbalance": [0]}}, "support.imbalance"),
        ({"support": {"imbalance": [0, math.nan]}}, "support.imbalance"),
        ({"support": {"imbalance": ["0", "1"]}}, "support.imbalance"),
        ({"feature_hash": None}, "was trained on features None"),
    ],
)
def test_an_unusable_field_is_named(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        serving_card(card(**changed))


@pytest.mark.parametrize("value", [None, [], "card", 7])
def test_what_is_no_card(value: Any) -> None:
    for read in (serving_card, card_from):
        with pytest.raises(ModelError, match="it should be a JSON object"):
            read(value)


STORED = EVENTS / "registry" / "card.json"


def test_a_stored_card_comes_back_as_it_was_with_fields_of_later_code() -> None:
    stored = json.loads(STORED.read_text("utf-8"))
    assert documents.encode(card_from(stored)) == stored
    for part in (stored, stored["data"], stored["network"], stored["gate"], stored["gate"]["block"]):
        part["of_later_code"] = [{"a": None}]
    for part in (
        stored["calibration"]["10"],
        stored["test"]["2"],
        stored["gate"]["figures"]["1"]["no_change"],
    ):
        part["of_later_code"] = 1
    assert documents.encode(card_from(stored)) == stored


def test_a_new_card_has_all_fields_but_those_that_are_not_known_yet() -> None:
    names = json.loads(STORED.read_text("utf-8")).keys()
    assert documents.encode(Card(model_id="m1")).keys() == names - {"gate"}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (
            {"learned_to_us": "now"},
            r"card of model m1: Expected `int \| null`, got `str` - at `\$.learned_to_us`",
        ),
        ({"test": {"1": {"skill": "good"}}}, r"at `\$.test\[...\].skill`"),
        ({"gate": {"figures": {"all": {"champion": {"skill": None, "ci": [0, 1]}}}}}, "figures"),
        ({"line": {"BTCUSDT": {"one": 1.0}}}, "line"),
    ],
)
def test_a_field_of_another_type_is_named(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        card_from(card(**changed))
