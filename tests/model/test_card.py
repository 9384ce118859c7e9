"""Cards: the fields that a model serves by are checked one by one, the others by type."""

import itertools
import json
import math
from typing import Any

import pytest

from tests.fixtures.paths import EVENTS
from tickcast.features.vector import FEATURE_HASH
from tickcast.model.card import Card, card_from, new_document, serving_card
from tickcast.model.forecast import HORIZONS_S, PATH_S, Calibration, ModelError

GOOD = {"direction_slope": 2.0, "interval_width": 1.2}


def card(**changed: Any) -> dict[str, Any]:
    calibration = {str(h): GOOD for h in HORIZONS_S}
    about = {"model_id": "m1", "provisional": True, "feature_hash": FEATURE_HASH, "path_s": list(PATH_S)}
    return about | {"calibration": calibration} | changed


def calibrated(horizon: str, **changed: Any) -> dict[str, Any]:
    return {str(h): GOOD | changed if str(h) == horizon else GOOD for h in HORIZONS_S}


def test_a_card_serves_by_its_own_numbers() -> None:
    masked = {str(h): {"direction_slope": 0, "interval_width": 9} for h in HORIZONS_S}
    found = serving_card(card(masked_calibration=masked, support={"imbalance": [-1, 1]}, provisional=False))
    assert found.provisional is False
    assert set(found.calibration.values()) == {Calibration(2.0, 1.2)}
    assert found.masked_calibration == {h: Calibration(0.0, 9.0) for h in HORIZONS_S}
    assert found.support == {"imbalance": (-1.0, 1.0)}
    assert serving_card(card()).masked_calibration is None


@pytest.mark.parametrize("kind", ["calibration", "masked_calibration"])
@pytest.mark.parametrize("horizon", ["1", "10"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(["direction_slope"], (math.nan, math.inf, -0.1, 1001)),
        *itertools.product(["interval_width"], (math.nan, -math.inf, 0, -1.0, 51)),
    ],
)
def test_a_calibration_out_of_range_is_named(kind: str, horizon: str, name: str, value: float) -> None:
    broken = card(**{kind: calibrated(horizon, **{name: value})})
    with pytest.raises(ModelError, match=rf"^the card of model m1: {kind}\.{horizon}\.{name} is "):
        serving_card(broken)


@pytest.mark.parametrize("kind", ["calibration", "masked_calibration"])
@pytest.mark.parametrize("name", ["direction_slope", "interval_width"])
@pytest.mark.parametrize("value", ["2", None, True, [2.0], {}])
def test_a_calibration_of_another_type_is_named(kind: str, name: str, value: Any) -> None:
    broken = card(**{kind: calibrated("2", **{name: value})})
    with pytest.raises(ModelError, match=rf"model m1: Expected `float`.* at `\$\.{kind}\[\.\.\.\]\.{name}`$"):
        serving_card(broken)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"calibration": None}, r"card of model m1: Expected `object`, got `null` - at `\$.calibration`"),
        ({"calibration": []}, r"at `\$.calibration`"),
        ({"calibration": {**calibrated("1"), "2": 7}}, r"at `\$.calibration\[...\]`"),
        ({"calibration": {"1": GOOD}}, r"no calibration for horizons \[2, 5, 10\]"),
        ({"masked_calibration": {"1": GOOD}}, r"no masked_calibration for horizons \[2, 5, 10\]"),
        ({"provisional": None}, r"Expected `bool`, got `null` - at `\$.provisional`"),
        ({"provisional": "false"}, "provisional"),
        ({"support": []}, r"at `\$.support`"),
        ({"support": {"rainfall": [0, 1]}}, r"names \['rainfall'\], which are no features"),
        ({"support": {"imbalance": [1, -1]}}, "support.imbalance is from 1.0 to -1.0"),
        ({"support": {"imbalance": [0]}}, r"length 2, got 1 - at `\$.support"),
        ({"support": {"imbalance": [0, math.nan]}}, "support.imbalance is from 0.0 to nan"),
        ({"support": {"imbalance": ["0", "1"]}}, r"at `\$.support\[...\]\[0\]`"),
        ({"feature_hash": None}, "was trained on features None"),
        ({"feature_hash": "abc", "calibration": None}, "model m1 was trained on features abc"),
        ({"path_s": None}, "model m1 forecasts no path, this code the instants 0.1, 0.2, .* 15.0 s$"),
        ({"path_s": [1, 2, 5, 10]}, "model m1 forecasts the instants 1, 2, 5, 10 s, this code the instants"),
        ({"path_s": "short", "calibration": None}, "model m1 forecasts the path 'short', this code"),
    ],
)
def test_an_unusable_field_is_named(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        serving_card(card(**changed))


@pytest.mark.parametrize("value", [None, [], "card", 7])
def test_anything_but_an_object_is_refused(value: Any) -> None:
    for read in (serving_card, card_from):
        with pytest.raises(ModelError, match="it should be a JSON object"):
            read(value)


def test_a_new_card_has_all_fields_of_a_stored_one_but_the_gate_s() -> None:
    stored = json.loads((EVENTS / "registry" / "card.json").read_text("utf-8"))
    later: dict[str, Any] = {
        "label_version": None,
        "path_s": [],
        "fitted": {},
        "scaled_line": {},
        "reference": {},
        "ablation": {},
        "refit_of": None,
        "refit_agreement": None,
        "regimes": {},
        "reference_gain": {},
        "imported": None,
        "row_by_row": False,
    }
    assert new_document(Card(model_id="m1")).keys() - later.keys() == stored.keys() - {"gate"}
    written = json.loads(json.dumps(new_document(card_from(stored))))
    assert written | {"gate": stored["gate"]} == stored | later


@pytest.mark.parametrize(
    "changed",
    [
        {"learned_to_us": "now"},
        {"epochs": 13.5},
        {"reason": None},
        {"line": None},
        {"test": {"1": {"skill": "good"}}},
        {"gate": {"figures": {"all": {"champion": {"skill": None, "ci": [0, 1]}}}}},
        {"line": {"BTCUSDT": {"one": 1.0}}},
    ],
)
def test_a_field_of_another_type_that_no_model_serves_by_keeps_its_default(changed: dict[str, Any]) -> None:
    found = card_from(card(**{"rows": 7, "parent": "m0"} | changed))
    assert found == card_from(card(rows=7, parent="m0"))
    assert (found.rows, found.parent) == (7, "m0")


def test_a_field_of_another_type_that_a_model_serves_by_is_named() -> None:
    with pytest.raises(ModelError, match=r"card of model m1: .* at `\$.provisional`"):
        card_from(card(provisional="yes", epochs="many"))
