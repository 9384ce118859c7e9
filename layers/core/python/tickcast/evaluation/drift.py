"""Drift: whether the model in force still meets the market it was trained for, and when to train anew.

Two kinds of evidence, both by size and not by significance, for on a day of rows everything is significant:

- **Features.** The population stability index of each input, Σ (a - e) ln(a / e) over the ten bins that the
  training rows filled alike: e their shares, a those of what is served (Siddiqi 2006: below .1 the same,
  above .25 another population).
- **Skill.** What was served falls below its *band*: the whole 95 % interval of live skill against no change
  lies below the worst that the gate had seen of this market (`evaluation.gate.bands`; never below zero),
  or that against the line through book imbalance, as fitted in training, below zero.

A verdict asks for patience: evidence has to stand for `raise_after` looks in a row, and goes only after as
many without, feature drift moreover below a lower mark than it came by (hysteresis). Nothing is said on fewer
than `min_scored` outcomes, and no training is asked for within the cool-down after the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from tickcast.features.vector import FEATURE_NAMES, Floats

BINS = 10
_PRIOR = 0.5  # added to each bin's count: an empty one is no infinity

Distribution = Mapping[
    str, Mapping[str, list[float]]
]  # by feature: `edges` between its bins, `shares` of them
Counts = npt.NDArray[np.int64]  # (features, BINS)


@dataclass(frozen=True)
class DriftPolicy:
    """When drift is believed, and how often it may ask for a training."""

    min_scored: int = 3600  # outcomes of one symbol and horizon, and rows of features: an hour of them
    stability_high: float = 0.25
    stability_low: float = 0.1
    raise_after: int = 30  # looks in a row, a minute apart
    cool_down_s: int = 12 * 3600


@dataclass(frozen=True)
class DriftEvidence:
    """What is known of one symbol's model in force. `stability` by feature; the others None where nothing can
    be said."""

    scored: int
    stability: Mapping[str, float] = field(default_factory=dict)
    skill_high: float | None = None  # upper end of the interval of live skill against no change
    against_line_high: float | None = None  # likewise against the line through book imbalance
    band_low: float = 0.0  # the worst skill that the gate had seen


class DriftState(Struct, frozen=True):
    """What is remembered of one symbol from look to look."""

    model_id: str = ""
    looks: int = 0  # in a row that contradict `is_drifting`
    is_drifting: bool = False
    reasons: tuple[str, ...] = ()  # of the newest look


def distribution(features: Floats, names: tuple[str, ...]) -> dict[str, dict[str, list[float]]]:
    """How the features called `names` lie in `features` (N, F): the edges of bins of equal counts, as far as
    repeated values allow, and what share of rows fell into each. Empty without rows."""
    found = {}
    for name in names if len(features) else ():
        values = _values(features, name)
        edges = np.quantile(values, np.arange(1, BINS) / BINS, method="inverted_cdf")
        found[name] = {"edges": edges.tolist(), "shares": (_binned(values, edges) / len(values)).tolist()}
    return found


def counts(features: Floats, reference: Distribution) -> Counts:
    """How many of `features` (N, F) fall into each bin of `reference`, its features in their order."""
    found = np.zeros((len(reference), BINS), np.int64)
    for row, (name, bins) in enumerate(reference.items()):
        found[row] = _binned(_values(features, name), np.array(bins["edges"], np.float32))
    return found


def stability(found: Counts, reference: Distribution) -> dict[str, float]:
    """The population stability index of each feature."""
    indices = {}
    for row, (name, bins) in zip(found, reference.items(), strict=True):
        prior = _PRIOR / max(row.sum(), 1)
        actual, expected = row / max(row.sum(), 1) + prior, np.array(bins["shares"]) + prior
        actual, expected = actual / actual.sum(), expected / expected.sum()
        indices[name] = float(np.sum((actual - expected) * np.log(actual / expected)))
    return indices


def update(watch: DriftState, model_id: str, evidence: DriftEvidence, policy: DriftPolicy) -> DriftState:
    """`watch` after one more look. Another model is another story."""
    if watch.model_id != model_id:
        watch = DriftState(model_id)
    if evidence.scored < policy.min_scored:
        return replace(watch, looks=0, reasons=())
    reasons = _reasons(evidence, policy, watch.is_drifting)
    looks = watch.looks + 1 if bool(reasons) is not watch.is_drifting else 0
    if looks >= policy.raise_after:
        return DriftState(model_id, 0, not watch.is_drifting, reasons)
    return replace(watch, looks=looks, reasons=reasons)


def should_retrain(
    watches: Mapping[str, DriftState], last_s: float | None, now_s: float, policy: DriftPolicy
) -> bool:
    """Whether any symbol drifts by the newest look, and the last training that drift asked for, at `last_s`,
    is long ago."""
    is_over = last_s is None or now_s - last_s >= policy.cool_down_s
    return is_over and any(watch.is_drifting and watch.reasons for watch in watches.values())


def _reasons(evidence: DriftEvidence, policy: DriftPolicy, is_drifting: bool) -> tuple[str, ...]:
    """What speaks for drift, as codes; who drifts already has to come lower to be free of it."""
    limit = policy.stability_low if is_drifting else policy.stability_high
    moved = [name for name, index in evidence.stability.items() if index > limit]
    reasons = [f"feature_moved:{name}" for name in moved]
    if evidence.skill_high is not None and evidence.skill_high < max(evidence.band_low, 0.0):
        reasons.append("skill_below_band")
    if evidence.against_line_high is not None and evidence.against_line_high < 0:
        reasons.append("below_linear_imbalance")
    return tuple(reasons)


def _values(features: Floats, name: str) -> npt.NDArray[np.float32]:
    """One feature of all rows, as exactly as history keeps it: a value that comes often, as that of a mid
    just moved, is otherwise now on this side of an edge and now on that."""
    return features[:, FEATURE_NAMES.index(name)].astype(np.float32)


def _binned(values: npt.NDArray[np.float32], edges: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=BINS)
