"""What a new model's card says of it beyond skill as a whole: what each group of inputs adds, and how
skill depends on the market's regime. All on the test block, which nothing was fitted on, at delivery.

Intervals are 95 %, by a bootstrap of blocks of time; all markets of the same minutes are in one block, for
they move together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.regimes import HOUR, NAMES, SPREAD, VOLATILITY, hours, terciles
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.card import GateSkill
from tickcast.model.fit import TrainingSettings, fit
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, remaining_moves
from tickcast.model.network import Inputs, Network
from tickcast.model.reference import ReferenceWeights, has_reference
from tickcast.model.thinning import Markets, sample
from tickcast.model.training import Training, paths_bp, split_newest
from tickcast.units import SECOND_US

# The inputs of the move, by what they are measured on.
GROUPS = {
    "book imbalance": ("imbalance", "log_imbalance", "imbalance_500ms"),
    "order flow": ("ofi_200ms",),
    "trade flow": ("trade_flow_500ms",),
    "return": ("return_500ms",),
}
PERPETUAL = "perpetual"
_MEMBERS = 2  # of the networks that are compared: each is fitted once per group
_LEAST_BLOCKS = 8
_LEAST_BLOCK_S = 10
_MOST_BLOCKS = 200
_DRAWS = 1000
_PERCENT = (2.5, 97.5)

Skills = dict[int, GateSkill]  # by horizon, s


class Errors(NamedTuple):
    """Of rows of all markets, in any order, at delivery in bp: outcomes and forecasts (N, H)."""

    end_us: npt.NDArray[np.int64]
    features: Floats
    moves_bp: Floats
    expected_bp: Floats


def errors(network: Network, markets: Markets, references: Mapping[str, ReferenceWeights]) -> Errors:
    """What `network` forecasts of `markets`."""
    found = [(paths_bp(network, symbol, rows, references), rows) for symbol, rows in markets.items()]
    return Errors(
        np.concatenate([rows.end_us for _, rows in found]),
        np.concatenate([rows.features for _, rows in found]),
        remaining_moves(np.concatenate([rows.moves_bp for _, rows in found]), DELIVERY_S),
        remaining_moves(np.concatenate([expected_bp for expected_bp, _ in found]), DELIVERY_S),
    )


def skills(found: Errors, baseline_bp: Floats | None = None) -> Skills:
    """Skill against `baseline_bp` (N, H), or against no change, with its interval; nothing where the rows
    are too few or too close together for blocks."""
    if not len(found.end_us):
        return {}
    answers = {}
    theirs_bp = np.zeros_like(found.moves_bp) if baseline_bp is None else baseline_bp
    for at, horizon_s in enumerate(HORIZONS_S):
        sums = block_sums(
            found.end_us,
            (found.moves_bp[:, at] - found.expected_bp[:, at]) ** 2,
            (found.moves_bp[:, at] - theirs_bp[:, at]) ** 2,
            max(_LEAST_BLOCK_S, 2 * horizon_s),
        )
        if sums is not None and sums[1].sum() > 0:
            answers[horizon_s] = _with_interval(sums)
    return answers


def block_sums(end_us: npt.NDArray[np.int64], ours: Floats, theirs: Floats, least_s: int) -> Floats | None:
    """Sums of `ours` and `theirs` (N,) by blocks of time of at least `least_s`. Shape (2, blocks); None where
    there are too few."""
    span_us = int(np.ptp(end_us)) + 1
    width_us = max(least_s * SECOND_US, -(-span_us // _MOST_BLOCKS))
    _, block = np.unique((end_us - end_us.min()) // width_us, return_inverse=True)
    if block.max() + 1 < _LEAST_BLOCKS:
        return None
    return np.array([np.bincount(block, each) for each in (ours, theirs)])


def _with_interval(sums: Floats) -> GateSkill:
    blocks = sums.shape[1]
    drawn = np.random.default_rng(0).integers(0, blocks, (_DRAWS, blocks))
    ours, theirs = (each[drawn].sum(axis=1) for each in sums)  # (draws,)
    low, high = np.percentile(1 - ours / np.maximum(theirs, 1e-12), _PERCENT)
    value = 1 - sums[0].sum() / sums[1].sum()
    return GateSkill(skill=_short(value), ci=(_short(low), _short(high)))


def _short(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


def ablation(markets: Markets, training: Training, settings: TrainingSettings) -> dict[str, Skills]:
    """By group of inputs, the skill of a network with all of them against one that was fitted without; and of
    the model against itself without the correction by the perpetual, on rows that have one."""
    if not any(len(rows.end_us) for rows in training.test.values()):
        return {}
    worth = _by_group(markets, training, settings) if training.network.knows_quotes else {}
    corrected = {
        symbol: rows.chosen(has_reference(rows.features))
        for symbol, rows in training.test.items()
        if symbol in training.references.weights
    }
    if corrected:
        ours, theirs = (
            errors(training.network, corrected, weights) for weights in (training.references.weights, {})
        )
        worth[PERPETUAL] = skills(ours, theirs.expected_bp)
    return {group: found for group, found in worth.items() if found}


def _by_group(markets: Markets, training: Training, settings: TrainingSettings) -> dict[str, Skills]:
    learn, _ = split_newest(markets, settings.test_share)
    rows = sample(learn, settings.max_rows, settings.seed).rows
    few = replace(settings, members=_MEMBERS)
    whole = errors(fit(rows, few, training.epochs), training.test, {})
    worth = {}
    for group, names in GROUPS.items():
        if set(names) & set(settings.inputs.odd):
            network = fit(rows, _without(few, names), training.epochs)
            worth[group] = skills(whole, errors(network, training.test, {}).expected_bp)
    return worth


def _without(settings: TrainingSettings, names: tuple[str, ...]) -> TrainingSettings:
    """`settings` for a network that does not read `names`."""

    def left(inputs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in inputs if name not in names)

    inputs: Inputs = replace(settings.inputs, odd=left(settings.inputs.odd))
    return replace(
        settings,
        inputs=inputs,
        ridge_inputs=left(settings.ridge_inputs),
        imbalance_only=left(settings.imbalance_only) or inputs.odd,
        ridge_share=settings.ridge_share if left(settings.ridge_inputs) else 0.0,
    )


def regimes(training: Training) -> dict[str, dict[str, Skills]]:
    """Skill against no change by terciles of volatility and of the spread, and by the hour of the day."""
    found = errors(training.network, training.test, training.references.weights)
    if not len(found.end_us):
        return {}
    sigma_bp, spread = (found.features[:, FEATURE_NAMES.index(name)] for name in ("sigma_bp", "spread"))
    labels = {
        VOLATILITY: terciles(VOLATILITY, sigma_bp),
        SPREAD: terciles(SPREAD, spread * sigma_bp),
        HOUR: hours(found.end_us),
    }
    answers: dict[str, dict[str, Skills]] = {}
    for regime, label in labels.items():
        for number, name in enumerate(NAMES[regime]):
            of_regime = skills(Errors(*(column[label == number] for column in found)))
            if of_regime:
                answers.setdefault(regime, {})[name] = of_regime
    return answers
