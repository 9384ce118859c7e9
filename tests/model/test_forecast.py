"""What a model says: answers that hold together, and cards that fit."""

import math
from typing import Any

import numpy as np
import pytest

from tests.model.test_network import random_features, random_network
from tickcast.features.vector import FEATURE_HASH
from tickcast.model.forecast import (
    HORIZONS_S,
    Calibration,
    ModelError,
    calibrations_from,
    forecast,
    serving_card,
)

CALIBRATIONS = {h: Calibration(direction_slope=3.0, interval_width=1.2) for h in HORIZONS_S}


def test_forecast_holds_together() -> None:
    move, scale, p_flat = random_network(7).forward(random_features(8, 1))
    answers = forecast(60_000.0, move[0], scale[0], p_flat[0], CALIBRATIONS)
    assert [answer.horizon_s for answer in answers] == list(HORIZONS_S)
    for answer, bp in zip(answers, move[0], strict=True):
        assert answer.lower < answer.predicted_price < answer.upper
        assert answer.predicted_price == pytest.approx(60_000 * (1 + bp / 1e4))
        assert 0.5 <= answer.confidence < 1
        assert 0 < answer.p_flat < 1


def test_no_move_is_no_confidence() -> None:
    zeros = np.zeros(len(HORIZONS_S))
    answer = forecast(100.0, zeros, zeros + 1, zeros, CALIBRATIONS)[0]
    assert (answer.predicted_price, answer.confidence) == (100.0, 0.5)


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
        *(("direction_slope", value) for value in (math.nan, math.inf, -0.1, 1001, "2", None, True, [2.0])),
        *(("interval_width", value) for value in (math.nan, -math.inf, 0, -1.0, 51, "1", None, False, {})),
    ],
)
def test_a_number_that_none_is_calibrated_by_is_named(kind: str, horizon: str, name: str, value: Any) -> None:
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
def test_a_field_that_nothing_is_served_by_is_named(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=why):
        serving_card(card(**changed))


@pytest.mark.parametrize("value", [None, [], "card", 7])
def test_what_is_no_card(value: Any) -> None:
    with pytest.raises(ModelError, match="it should be a JSON object"):
        serving_card(value)
