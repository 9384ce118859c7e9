"""Drift: the size of a shift, and what it takes to believe in one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec import json

from tickcast.evaluation import drift
from tickcast.evaluation.drift import DriftEvidence, DriftPolicy, DriftState, should_retrain, update
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.card import FeatureBins

POLICY = DriftPolicy(min_scored=100, stability_high=0.25, stability_low=0.1, raise_after=3, cool_down_s=3600)
NAMES = ("imbalance", "mid_age")
CALM = DriftEvidence(
    scored=100, stability={"imbalance": 0.02}, skill_high=0.2, against_line_high=0.05, band_low=0.1
)
MOVED = replace(CALM, stability={"imbalance": 0.02, "mid_age": 0.3})


def features(rows: int, shift: float = 0.0, seed: int = 1) -> Floats:
    found = np.random.default_rng(seed).normal(size=(rows, len(FEATURE_NAMES)))
    found[:, FEATURE_NAMES.index("imbalance")] += shift
    return found


def index(shift: float, rows: int = 5000) -> dict[str, float]:
    reference = drift.distribution(features(20_000), NAMES)
    return drift.stability(drift.counts(features(rows, shift, seed=2), reference), reference)


def looks(
    *evidence: DriftEvidence, watch: DriftState | None = None, policy: DriftPolicy = POLICY
) -> DriftState:
    watch = watch or DriftState("m")
    for each in evidence:
        watch = update(watch, "m", each, policy)
    return watch


def test_bins_are_filled_alike() -> None:
    found = drift.distribution(features(20_000), NAMES)
    assert list(found) == list(NAMES)
    for bins in found.values():
        assert bins.shares == pytest.approx([0.1] * drift.BINS, abs=1e-3)
        assert bins.edges == sorted(bins.edges)
    assert drift.distribution(features(0), NAMES) == {}


def test_a_value_that_comes_often_falls_where_it_fell_before() -> None:
    """That of a mid just moved: exact in training's 32 bits, not quite in the 64 of live."""
    rows = features(1000)
    rows[:600, FEATURE_NAMES.index("mid_age")] = np.log(0.05) / 2
    reference = drift.distribution(rows.astype(np.float32).astype(float), NAMES)
    found = drift.counts(rows, reference)
    assert (found[1] / 1000).tolist() == pytest.approx(reference["mid_age"].shares)
    assert max(drift.stability(found, reference).values()) < 0.001


def test_the_index_is_that_of_the_shares() -> None:
    """Two halves that become 9 : 1, by the formula."""
    reference = {"imbalance": FeatureBins(edges=[0.0] * 9, shares=[0.5, *[0.0] * 8, 0.5])}
    found = np.array([[900_000, *[0] * 8, 100_000]])
    expected = (0.9 - 0.5) * np.log(0.9 / 0.5) + (0.1 - 0.5) * np.log(0.1 / 0.5)
    assert drift.stability(found, reference)["imbalance"] == pytest.approx(expected, abs=1e-4)


def test_it_grows_with_the_shift_and_not_with_the_rows() -> None:
    """A tenth of a deviation is significant on enough rows, and still nothing."""
    assert index(0.0)["imbalance"] < 0.02
    assert index(0.1, 500_000)["imbalance"] < 0.05
    assert index(0.1)["imbalance"] == pytest.approx(index(0.1, 500_000)["imbalance"], abs=0.02)
    assert index(0.7)["imbalance"] > 0.25
    assert index(0.7)["mid_age"] < 0.02


def test_an_empty_bin_is_no_infinity() -> None:
    assert 1 < index(50.0)["imbalance"] < 100


def test_evidence_has_to_last() -> None:
    assert not looks(MOVED, MOVED).is_drifting
    assert not looks(MOVED, MOVED, CALM, MOVED, MOVED).is_drifting
    found = looks(MOVED, MOVED, MOVED)
    assert (found.is_drifting, found.reasons) == (True, ("feature_moved:mid_age",))


def test_it_goes_by_a_lower_mark_than_it_came_by() -> None:
    drifting = looks(MOVED, MOVED, MOVED)
    between = replace(CALM, stability={"mid_age": 0.2})
    assert not looks(*[between] * 10).is_drifting
    assert looks(*[between] * 10, watch=drifting).is_drifting
    assert looks(CALM, CALM, watch=drifting).is_drifting
    assert not looks(CALM, CALM, CALM, watch=drifting).is_drifting


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (replace(CALM, skill_high=0.09), "skill_below_band"),
        (replace(CALM, band_low=-0.3, skill_high=-0.01), "skill_below_band"),  # the band ends at no change
        (replace(CALM, against_line_high=-0.001), "below_linear_imbalance"),
    ],
)
def test_skill_below_its_band(evidence: DriftEvidence, reason: str) -> None:
    assert looks(evidence, evidence, evidence).reasons == (reason,)


def test_what_cannot_be_said_says_nothing() -> None:
    unknown = DriftEvidence(scored=10_000)
    assert looks(*[unknown] * 10) == DriftState("m")


def test_nothing_on_too_few() -> None:
    few = replace(MOVED, scored=99)
    assert not looks(*[few] * 10).is_drifting
    drifting = looks(MOVED, MOVED, MOVED)
    silent = looks(*[replace(CALM, scored=99)] * 10, watch=drifting)
    assert silent.is_drifting  # nor that it is over
    assert should_retrain({"BTCUSDT": drifting}, None, 0, POLICY)
    assert not should_retrain({"BTCUSDT": silent}, None, 0, POLICY)  # but of nothing nothing is learnt
    assert not looks(MOVED, MOVED, few, MOVED).is_drifting  # what was before a silence is not "in a row"


def test_another_model_begins_anew() -> None:
    drifting = looks(MOVED, MOVED, MOVED)
    assert update(drifting, "m2", MOVED, POLICY) == DriftState("m2", 1, False, ("feature_moved:mid_age",))


def test_a_training_is_asked_for_once_in_the_cool_down() -> None:
    watches = {
        "BTCUSDT": DriftState("m"),
        "ETHUSDT": DriftState("m", is_drifting=True, reasons=("skill_below_band",)),
    }
    assert should_retrain(watches, None, 10_000, POLICY)
    assert not should_retrain(watches, 10_000 - 3599, 10_000, POLICY)
    assert should_retrain(watches, 10_000 - 3600, 10_000, POLICY)
    assert not should_retrain({"BTCUSDT": DriftState("m")}, None, 10_000, POLICY)
    assert not should_retrain({}, None, 10_000, POLICY)


def test_a_watch_survives_being_written_down() -> None:
    watch = looks(MOVED, MOVED, MOVED)
    assert json.decode(json.encode(watch), type=DriftState) == watch
