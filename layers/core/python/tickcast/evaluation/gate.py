"""The gate: whether a challenger replaces the champion, by which figures, and for which reasons.

Both are compared on the newest rows with quotes that neither was trained on, on the same rows and against the
same baselines. A figure is a skill, 1 - Σ ours² / Σ theirs², of squared errors. Squares are divided by the
mean squared move of their market and horizon, so that each counts alike: "all" is that of all together. Its
95 % interval (`evaluation.skill`) is by blocks of time: all markets' errors of an instant are drawn together,
since markets move together.

How much is required depends on how much time the rows cover:

- *Less than two minutes*: inconclusive, the champion is kept.
- *Less than an hour*: the challenger has to beat no change, the last trade and the champion, all horizons
  together. It is provisional then, and replaces only a provisional champion.
- *An hour or more*: it has to beat no change, the last trade, the microprice and the champion with the
  interval clear of zero, and at least to match the line through book imbalance, all horizons together; and
  none of these may be clearly better at any single horizon or in any market.

Paired differences of .01 show in an hour (docs/adr/0018). A challenger that ran in the champion's shadow for
an hour has to have been better there too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.baselines import LAST_TRADE, LINE, MICROPRICE, NO_CHANGE
from tickcast.evaluation.skill import block_s, skill_of_squares
from tickcast.features.vector import Floats
from tickcast.model.card import GateSkill, ShadowScore
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import HOUR_US, SECOND_US

LEAST_S = 120.0  # of rows with quotes, for any decision
LONG_S = 3600.0  # for one that is more than provisional
LEAST_MARGIN = 0.001  # of skill: less is a tie, and a tie changes nothing
SHADOW_S = 3600.0  # of live outcomes of both, to count
ALL = "all"
IN = ":"  # in codes, before the horizon or market that they are about
CHAMPION = "champion"
WORDS = {
    CHAMPION: "the champion",
    NO_CHANGE: "no change",
    LAST_TRADE: "the last trade",
    MICROPRICE: "the microprice",
    LINE: "the line through book imbalance",
}
# How a code relates the challenger to an opponent.
_RELATIONS = {
    "not_above": "does not beat",
    "not_clearly_above": "does not clearly beat",
    "below": "is worse than",
    "clearly_below": "is clearly worse than",
}
_TO_BEAT = (NO_CHANGE, LAST_TRADE, MICROPRICE, CHAMPION)
_TO_BEAT_SHORT = (NO_CHANGE, LAST_TRADE, CHAMPION)

Figures = dict[str, dict[str, GateSkill]]  # by "all", horizon or market, then by opponent


class Block(NamedTuple):
    """Predictions and outcomes: rows (N,) of several markets on one grid, moves in bp (N, H). `champion_bp`
    is None where no model is active. NaN where a baseline is not known."""

    market: npt.NDArray[np.str_]
    end_us: npt.NDArray[np.int64]
    moves_bp: Floats
    challenger_bp: Floats
    champion_bp: Floats | None
    baselines_bp: Mapping[str, Floats]

    @property
    def seconds(self) -> float:
        """The time that the rows cover, whatever the number of markets: the number of instants times their
        median distance."""
        instants_us = np.unique(self.end_us)
        return len(instants_us) * _step_s(instants_us) if len(instants_us) > 1 else 0.0


class Shadow(NamedTuple):
    """Live outcomes of champion and challenger, paired; all (N, H), NaN where a horizon has none."""

    timestamp_us: npt.NDArray[np.int64]  # (N,)
    moves_bp: Floats
    challenger_bp: Floats
    champion_bp: Floats


@dataclass(frozen=True)
class GateDecision:
    """`reasons` are codes: those against the challenger or, if it is promoted, those for it. `seconds` and
    `rows` are of the block."""

    promoted: bool
    provisional: bool
    reasons: tuple[str, ...]
    seconds: float
    rows: int
    figures: Figures
    shadow: ShadowScore


def decide(
    block: Block,
    seen_to_us: int,
    *,
    champion_is_provisional: bool = False,
    is_real: bool = True,
    shadow: Shadow | None = None,
) -> GateDecision:
    """The decision on `block`. Up to `seen_to_us` one of the models may have been trained on it: no row may
    be older.

    `is_real`: no row is of a simulated market, on which a model never becomes more than provisional.
    """
    seconds, rows = block.seconds, len(block.end_us)
    is_long = seconds >= LONG_S
    compared = compare(block) if rows else {}
    live = _shadow_score(shadow)
    against = _objections(compared, is_long, block.champion_bp is not None and not champion_is_provisional)
    if rows and int(block.end_us.min()) < seen_to_us:
        against = ["seen_block"]
    elif seconds < LEAST_S:
        against = ["too_few_rows"]
    elif live.skill is not None and live.skill <= 0:
        against.append("not_above_champion_in_shadow")
    in_favour = ["first_model" if block.champion_bp is None else "beats_champion"]
    in_favour.append("beats_baselines" if is_long else "beats_no_change_and_last_trade")
    return GateDecision(
        promoted=not against,
        provisional=not (is_long and is_real),
        reasons=tuple(against or in_favour),
        seconds=round(seconds, 1),
        rows=rows,
        figures=compared,
        shadow=live,
    )


def compare(block: Block) -> Figures:
    """The skill of the challenger against each opponent: all together, by horizon, by market."""
    opponents = dict(block.baselines_bp)
    if block.champion_bp is not None:
        opponents[CHAMPION] = block.champion_bp
    markets = np.unique(block.market).tolist()
    figures: Figures = {name: {} for name in (ALL, *map(str, HORIZONS_S), *markets)}
    weights = _weights(block)
    for name, opponent_bp in opponents.items():
        known = np.isfinite(opponent_bp).all(axis=1)
        if not known.any():
            continue
        ours, theirs = (
            weights[known] * (block.moves_bp[known] - expected_bp[known]) ** 2
            for expected_bp in (block.challenger_bp, opponent_bp)
        )
        at, market = block.end_us[known], block.market[known]
        figures[ALL][name] = _skill(at, ours.sum(axis=1), theirs.sum(axis=1), max(HORIZONS_S))
        for column, horizon_s in enumerate(HORIZONS_S):
            figures[str(horizon_s)][name] = _skill(at, ours[:, column], theirs[:, column], horizon_s)
        for each in markets:
            mine = market == each
            if mine.any():
                together = ours[mine].sum(axis=1), theirs[mine].sum(axis=1)
                figures[each][name] = _skill(at[mine], *together, max(HORIZONS_S))
    return figures


def bands(block: Block) -> dict[str, dict[int, float]]:
    """By market and horizon, the lowest skill against no change in any hour of the block, or in any sixth of
    it where it is shorter than six hours: live skill below it is drift. An interval of the whole would be too
    narrow: hours differ by more than chance."""
    found: dict[str, dict[int, float]] = {}
    for market in np.unique(block.market).tolist():
        mine = block.market == market
        end_us = block.end_us[mine]
        pieces = max(6, round((end_us.max() - end_us.min()) / HOUR_US))
        edges = np.linspace(end_us.min(), end_us.max() + 1, pieces + 1)[1:-1]
        piece = np.searchsorted(edges, end_us, side="right")
        ours, theirs = (
            np.stack([np.bincount(piece, column, pieces) for column in squares.T], axis=1)
            for squares in (
                (block.moves_bp[mine] - block.challenger_bp[mine]) ** 2,
                block.moves_bp[mine] ** 2,
            )
        )
        lowest = (1 - ours[theirs.all(axis=1)] / theirs[theirs.all(axis=1)]).min(axis=0, initial=1.0)
        found[market] = {h: round(float(low), 5) for h, low in zip(HORIZONS_S, lowest, strict=True)}
    return found


def _weights(block: Block) -> Floats:
    """One over the mean squared move of each row's market, by horizon. Shape (N, H)."""
    weights = np.empty_like(block.moves_bp)
    for market in np.unique(block.market):
        mine = block.market == market
        weights[mine] = 1 / np.maximum((block.moves_bp[mine] ** 2).mean(axis=0), 1e-12)
    return weights


def _step_s(instants_us: npt.NDArray[np.int64]) -> float:
    return float(np.median(np.diff(instants_us))) / SECOND_US


def _skill(at_us: npt.NDArray[np.int64], ours: Floats, theirs: Floats, horizon_s: int) -> GateSkill:
    """1 - Σ ours / Σ theirs of squares (N,), with its interval."""
    instants_us, place = np.unique(at_us, return_inverse=True)
    step_s = _step_s(instants_us) if len(instants_us) > 1 else 1.0
    sums = [np.bincount(place, weights=squares).astype(float) for squares in (ours, theirs)]
    block_rows = round(block_s(horizon_s) / step_s)
    value, (low, high) = skill_of_squares(sums[0], sums[1], block_rows)
    return GateSkill(skill=round(value, 5), ci=(round(low, 5), round(high, 5)))


def _objections(figures: Figures, is_long: bool, champion_is_proven: bool) -> list[str]:
    """The reasons against the challenger on the block, as codes."""
    if not figures:
        return []
    against = []
    for name in _TO_BEAT if is_long else _TO_BEAT_SHORT:
        found = figures[ALL].get(name)
        if found is None:  # no champion, or no trade was ever known
            continue
        if found.skill < LEAST_MARGIN:
            against.append(f"not_above_{name}")
        elif is_long and found.ci[0] <= 0:
            against.append(f"not_clearly_above_{name}")
    if not is_long:
        return [*against, "champion_is_proven"] if champion_is_proven else against
    if figures[ALL][LINE].skill < 0:
        against.append(f"below_{LINE}")
    for part, of_part in figures.items():
        worse = [name for name, found in of_part.items() if part != ALL and found.ci[1] < 0]
        against += [f"clearly_below_{name}{IN}{part}" for name in worse]
    return against


def _shadow_score(shadow: Shadow | None) -> ShadowScore:
    """The skill on live outcomes, or why they do not count."""
    if shadow is None:
        return ShadowScore(left_out="no outcomes of both models are kept")
    whole = np.isfinite([shadow.moves_bp, shadow.challenger_bp, shadow.champion_bp]).all(axis=(0, 2))
    moves_bp, seconds = shadow.moves_bp[whole], float(len(np.unique(shadow.timestamp_us[whole])))
    if seconds < SHADOW_S:
        return ShadowScore(
            left_out=f"{seconds:.0f} s of outcomes of both models, {SHADOW_S:.0f} s are needed"
        )
    weights = 1 / np.maximum((moves_bp**2).mean(axis=0), 1e-12)
    ours, theirs = (
        ((moves_bp - expected_bp[whole]) ** 2) @ weights
        for expected_bp in (shadow.challenger_bp, shadow.champion_bp)
    )
    found = _skill(shadow.timestamp_us[whole], ours, theirs, max(HORIZONS_S))
    return ShadowScore(seconds=seconds, skill=found.skill, ci=found.ci)


def sentence(decision: GateDecision) -> str:
    """What was decided, and why."""
    if not decision.promoted:
        return f"Champion kept: {'; '.join(_objection(code, decision) for code in decision.reasons)}."
    together = decision.figures[ALL]
    beaten = [
        f"{words} by {together[name].skill:.3f}"
        for name, words in WORDS.items()
        if name in together and together[name].skill > 0
    ]
    line = together[LINE].skill if LINE in together else 0.0
    beaten += [f"but {WORDS[LINE]} is better by {-line:.3f}"] if line < 0 else []
    caveat = "; provisional: less than an hour, or a simulated market" if decision.provisional else ""
    return f"Challenger beats {', '.join(beaten)} {_on(decision)}{caveat}."


def _on(decision: GateDecision) -> str:
    seconds = decision.seconds
    span = f"{seconds / 3600:.1f} h" if seconds >= LONG_S else f"{seconds:.0f} s"
    return f"on {span} of rows with quotes that neither model was trained on"


def _objection(code: str, decision: GateDecision) -> str:
    """A reason against the challenger, in words."""
    if code == "seen_block":
        return "one of the two models was trained on the rows they were to be compared on"
    if code == "too_few_rows":
        return f"inconclusive {_on(decision)}: {LEAST_S:.0f} s are needed"
    if code == "champion_is_proven":
        return f"it is proven, and not replaced {_on(decision)}: an hour is needed"
    if code == "not_above_champion_in_shadow":
        return f"challenger does not beat it in its shadow (skill {decision.shadow.skill:+.3f})"
    relation_and_name, _, part = code.partition(IN)
    name = next(each for each in WORDS if relation_and_name.endswith(each))
    relation = _RELATIONS[relation_and_name.removesuffix(f"_{name}")]
    found = decision.figures[part or ALL][name]
    low, high = found.ci
    place = f" at {part} s" if part.isdigit() else f" in {part}" if part else ""
    skill = f"skill against it {found.skill:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"challenger {relation} {WORDS[name]}{place} {_on(decision)} ({skill})"
