"""Drift: the size of a shift, and the evidence that it takes to report one."""

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


def updated(
    *evidence: DriftEvidence, state: DriftState | None = None, policy: DriftPolicy = POLICY
) -> DriftState:
    state = state or DriftState("m")
    for each in evidence:
        state = update(state, "m", each, policy)
    return state


def test_bins_have_equal_counts() -> None:
    found = drift.distribution(features(20_000), NAMES)
    assert list(found) == list(NAMES)
    for bins in found.values():
        assert bins.shares == pytest.approx([0.1] * drift.BINS, abs=1e-3)
        assert bins.edges == sorted(bins.edges)
    assert drift.distribution(features(0), NAMES) == {}


def test_a_frequent_value_falls_into_the_same_bin_live() -> None:
    """The age of a mid that has just moved: exact in the 32 bits of training, not in the 64 of serving."""
    rows = features(1000)
    rows[:600, FEATURE_NAMES.index("mid_age")] = np.log(0.05) / 2
    reference = drift.distribution(rows.astype(np.float32).astype(float), NAMES)
    found = drift.counts(rows, reference)
    assert (found[1] / 1000).tolist() == pytest.approx(reference["mid_age"].shares)
    assert max(drift.stability(found, reference).values()) < 0.001


def test_the_stability_index_follows_its_formula() -> None:
    """Two halves that become 9 : 1."""
    reference = {"imbalance": FeatureBins(edges=[0.0] * 9, shares=[0.5, *[0.0] * 8, 0.5])}
    found = np.array([[900_000, *[0] * 8, 100_000]])
    expected = (0.9 - 0.5) * np.log(0.9 / 0.5) + (0.1 - 0.5) * np.log(0.1 / 0.5)
    assert drift.stability(found, reference)["imbalance"] == pytest.approx(expected, abs=1e-4)


def test_the_stability_index_grows_with_the_shift_not_with_the_rows() -> None:
    """A tenth of a standard deviation is significant on enough rows, and still negligible."""
    assert index(0.0)["imbalance"] < 0.02
    assert index(0.1, 500_000)["imbalance"] < 0.05
    assert index(0.1)["imbalance"] == pytest.approx(index(0.1, 500_000)["imbalance"], abs=0.02)
    assert index(0.7)["imbalance"] > 0.25
    assert index(0.7)["mid_age"] < 0.02


def test_an_empty_bin_keeps_the_index_finite() -> None:
    assert 1 < index(50.0)["imbalance"] < 100


def test_drift_needs_evidence_at_several_updates_in_a_row() -> None:
    assert not updated(MOVED, MOVED).is_drifting
    assert not updated(MOVED, MOVED, CALM, MOVED, MOVED).is_drifting
    found = updated(MOVED, MOVED, MOVED)
    assert (found.is_drifting, found.reasons) == (True, ("feature_moved:mid_age",))


def test_drift_ends_below_a_lower_limit_than_it_began_at() -> None:
    drifting = updated(MOVED, MOVED, MOVED)
    between = replace(CALM, stability={"mid_age": 0.2})
    assert not updated(*[between] * 10).is_drifting
    assert updated(*[between] * 10, state=drifting).is_drifting
    assert updated(CALM, CALM, state=drifting).is_drifting
    assert not updated(CALM, CALM, CALM, state=drifting).is_drifting


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (replace(CALM, skill_high=0.09), "skill_below_band"),
        (
            replace(CALM, band_low=-0.3, skill_high=-0.01),
            "skill_below_band",
        ),  # a band ends at 0
        (replace(CALM, against_line_high=-0.001), "below_linear_imbalance"),
    ],
)
def test_skill_below_its_band_is_drift(evidence: DriftEvidence, reason: str) -> None:
    assert updated(evidence, evidence, evidence).reasons == (reason,)


def test_unknown_evidence_changes_nothing() -> None:
    unknown = DriftEvidence(scored=10_000)
    assert updated(*[unknown] * 10) == DriftState("m")


def test_too_few_outcomes_are_inconclusive() -> None:
    few = replace(MOVED, scored=99)
    assert not updated(*[few] * 10).is_drifting
    drifting = updated(MOVED, MOVED, MOVED)
    silent = updated(*[replace(CALM, scored=99)] * 10, state=drifting)
    assert silent.is_drifting  # nor is drift over
    assert should_retrain({"BTCUSDT": drifting}, None, 0, POLICY)
    assert not should_retrain({"BTCUSDT": silent}, None, 0, POLICY)  # nor is a training started
    assert not updated(MOVED, MOVED, few, MOVED).is_drifting  # an inconclusive update ends the streak


def test_another_model_starts_from_an_empty_state() -> None:
    drifting = updated(MOVED, MOVED, MOVED)
    assert update(drifting, "m2", MOVED, POLICY) == DriftState("m2", 1, False, ("feature_moved:mid_age",))


def test_drift_starts_one_training_per_cool_down() -> None:
    states = {
        "BTCUSDT": DriftState("m"),
        "ETHUSDT": DriftState("m", is_drifting=True, reasons=("skill_below_band",)),
    }
    assert should_retrain(states, None, 10_000, POLICY)
    assert not should_retrain(states, 10_000 - 3599, 10_000, POLICY)
    assert should_retrain(states, 10_000 - 3600, 10_000, POLICY)
    assert not should_retrain({"BTCUSDT": DriftState("m")}, None, 10_000, POLICY)
    assert not should_retrain({}, None, 10_000, POLICY)


def test_a_state_survives_storage() -> None:
    state = updated(MOVED, MOVED, MOVED)
    assert json.decode(json.encode(state), type=DriftState) == state
