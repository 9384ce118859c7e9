"""Drift: whether the market is still the one that the active model was trained on, and when to retrain.

Two kinds of evidence, both by effect size, not by significance: on a day of rows everything is significant.

- **Features.** The population stability index of each input, Σ (a - e) ln(a / e) over the ten bins that the
  training rows filled equally: e their shares, a those of the rows served (Siddiqi 2006: below .1 the same
  population, above .25 another).
- **Skill.** What was served falls below its *band*: the whole 95 % interval of live skill against no change
  lies below the worst that the gate had seen of this market (`evaluation.gate.bands`; never below zero),
  or that against the line through book imbalance, scaled by volatility, as fitted in training, below zero.

Drift begins once there is evidence at `raise_after` updates in a row, and ends after as many without, feature
drift only below a lower limit than it began at (hysteresis). Fewer than `min_scored` outcomes are
inconclusive, and no training is requested within the cool-down after the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.card import FeatureBins

BINS = 10
_PRIOR = 0.5  # added to each bin's count: an empty bin must not make the index infinite

Distribution = Mapping[str, FeatureBins]  # by feature
Counts = npt.NDArray[np.int64]  # (features, BINS)


@dataclass(frozen=True)
class DriftPolicy:
    """When drift is reported, and how often it may start a training."""

    min_scored: int  # outcomes of one symbol and horizon, and rows of features
    stability_high: float
    stability_low: float
    raise_after: int  # updates in a row, a minute apart
    cool_down_s: int


@dataclass(frozen=True)
class DriftEvidence:
    """What is known of one symbol's active model. `stability` by feature; others None where inconclusive."""

    scored: int
    stability: Mapping[str, float] = field(default_factory=dict)
    skill_high: float | None = None  # upper end of the interval of live skill against no change
    against_line_high: float | None = None  # likewise against the line through book imbalance
    band_low: float = 0.0  # the worst skill that the gate had seen


class DriftState(msgspec.Struct, frozen=True):
    """What is stored of one symbol between updates."""

    model_id: str = ""
    streak: int = msgspec.field(default=0, name="looks")  # updates in a row that contradict `is_drifting`
    is_drifting: bool = False
    reasons: tuple[str, ...] = ()  # of the newest update


def distribution(features: Floats, names: tuple[str, ...]) -> dict[str, FeatureBins]:
    """The distribution of the features called `names` in `features` (N, F): the edges of bins of equal
    counts, as far as repeated values allow, and the share of rows in each. Empty without rows."""
    found = {}
    for name in names if len(features) else ():
        values = _values(features, name)
        edges = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
        shares = _binned(values, edges) / len(values)
        found[name] = FeatureBins(edges=edges.tolist(), shares=shares.tolist())
    return found


def counts(features: Floats, reference: Distribution) -> Counts:
    """How many of `features` (N, F) fall into each bin of `reference`, its features in their order."""
    found = np.zeros((len(reference), BINS), np.int64)
    for row, (name, bins) in enumerate(reference.items()):
        found[row] = _binned(_values(features, name), np.array(bins.edges, np.float32))
    return found


def stability(found: Counts, reference: Distribution) -> dict[str, float]:
    """The population stability index of each feature."""
    indices = {}
    for row, (name, bins) in zip(found, reference.items(), strict=True):
        prior = _PRIOR / max(row.sum(), 1)
        actual, expected = row / max(row.sum(), 1) + prior, np.array(bins.shares) + prior
        actual, expected = actual / actual.sum(), expected / expected.sum()
        indices[name] = float(np.sum((actual - expected) * np.log(actual / expected)))
    return indices


def update(state: DriftState, model_id: str, evidence: DriftEvidence, policy: DriftPolicy) -> DriftState:
    """`state` after one more update. Another model starts from an empty state."""
    if state.model_id != model_id:
        state = DriftState(model_id)
    if evidence.scored < policy.min_scored:
        return replace(state, streak=0, reasons=())
    reasons = _reasons(evidence, policy, state.is_drifting)
    streak = state.streak + 1 if bool(reasons) is not state.is_drifting else 0
    if streak >= policy.raise_after:
        return DriftState(model_id, 0, not state.is_drifting, reasons)
    return replace(state, streak=streak, reasons=reasons)


def should_retrain(
    states: Mapping[str, DriftState], last_s: float | None, now_s: float, policy: DriftPolicy
) -> bool:
    """Whether any symbol drifts by the newest update, and the cool-down has passed since the last
    training that drift started, at `last_s`."""
    is_over = last_s is None or now_s - last_s >= policy.cool_down_s
    return is_over and any(state.is_drifting and state.reasons for state in states.values())


def _reasons(evidence: DriftEvidence, policy: DriftPolicy, is_drifting: bool) -> tuple[str, ...]:
    """The evidence of drift, as codes; the limit is lower where there is drift already."""
    limit = policy.stability_low if is_drifting else policy.stability_high
    moved = [name for name, index in evidence.stability.items() if index > limit]
    reasons = [f"feature_moved:{name}" for name in moved]
    if evidence.skill_high is not None and evidence.skill_high < max(evidence.band_low, 0.0):
        reasons.append("skill_below_band")
    if evidence.against_line_high is not None and evidence.against_line_high < 0:
        reasons.append("below_linear_imbalance")
    return tuple(reasons)


def _values(features: Floats, name: str) -> npt.NDArray[np.float32]:
    """One feature of all rows, in the precision of stored history: else a frequent value, like that of a mid
    that has just moved, would fall now on one side of a bin's edge and now on the other."""
    return features[:, FEATURE_NAMES.index(name)].astype(np.float32)


def _binned(values: npt.NDArray[np.float32], edges: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=BINS)
