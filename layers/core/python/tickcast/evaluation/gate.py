"""The gate: whether a challenger replaces the champion, and whether the champion is proven.

Models are compared at delivery, on the newest rows with quotes that neither was trained on, on the same rows
and against the same baselines. A figure is a skill, 1 - Σ ours² / Σ theirs², of squared errors. Squares are
divided by the mean squared move of their market and horizon, so that each counts alike: "all" is that of all
together. Its 95 % interval is by few long blocks of time (`evaluation.skill`), of all markets together, since
markets move together. "Clearly" means that the interval leaves out zero.

More evidence never leaves the API without a model:

- *No active model*, or a provisional champion that is not itself clearly better than no change: what is
  clearly better than no change, and better than that champion, becomes active.
- *A provisional champion*: a challenger has to be clearly better than no change and than the champion.
- *A proven champion* is replaced on half a day of rows or more alone, by a challenger that also meets all
  baselines.
- A challenger is at no horizon and in no market clearly, and by more than .005, worse than the champion. So
  many comparisons would find something by chance: they are corrected for their number (Holm 1979).

A model is *proven*, no longer provisional, when it meets all baselines on several days of rows that it was
not trained on: clearly better than no change, the last trade and the microprice, not worse than the
line through book imbalance by more than .005, and at no horizon and in no market clearly so than any of
them. A provisional champion is evaluated for that each time (`prove`).

A challenger that ran in the champion's shadow for an hour has to have been better there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.baselines import LAST_TRADE, LINE, MICROPRICE, NO_CHANGE
from tickcast.evaluation.skill import LEVEL, block_count, skill_of_blocks
from tickcast.features.vector import Floats
from tickcast.model.card import GateSkill, ShadowScore
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import HOUR_US, SECOND_US

LEAST_S = 120.0  # of rows with quotes, for any decision
LONG_S = 12 * 3600.0  # to replace a champion that is proven: the intervals are of blocks of an hour by then
PROVEN_S = 3 * 86400.0  # to be proven: hours and days differ by more than chance
LEAST_MARGIN = 0.001  # of skill: less is a tie, and a tie changes nothing
LOSS_MARGIN = 0.005  # of skill: to be worse by less is no loss, however clear it is on many days
GAP_S = 60.0  # rows that are further apart, on a grid that is finer, do not cover the time between
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
_TO_BEAT = (NO_CHANGE, LAST_TRADE, MICROPRICE)
_BASELINES = (*_TO_BEAT, LINE)

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
        """The time that the rows cover, whatever the number of markets and the grid."""
        instants_us = np.unique(self.end_us)
        return float(_covered_s(instants_us)[-1]) if len(instants_us) > 1 else 0.0


class Shadow(NamedTuple):
    """Live outcomes of champion and challenger, paired; all (N, H), NaN where a horizon has none."""

    timestamp_us: npt.NDArray[np.int64]  # (N,)
    moves_bp: Floats
    challenger_bp: Floats
    champion_bp: Floats


@dataclass(frozen=True)
class GateDecision:
    """`reasons` are codes: those against the model or, where there are none, those for it. `unproven` are the
    codes for which it is provisional. `seconds` and `rows` are of the block."""

    promoted: bool
    provisional: bool
    reasons: tuple[str, ...]
    unproven: tuple[str, ...]
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
    compared = compare(block)
    live = _shadow_score(shadow)
    against = _not_decidable(block, seen_to_us)
    unproven = _unproven(compared, block.seconds, is_real)
    if not against:
        against = _not_above(compared, NO_CHANGE)
        if block.champion_bp is not None:
            against += _objections(compared, _skill_of_champion(block), champion_is_provisional)
            if not champion_is_provisional:
                against += ["champion_is_proven"] if block.seconds < LONG_S else []
                against += [code for code in _missed_baselines(compared) if code not in against]
        if live.skill is not None and live.skill <= 0:
            against.append("not_above_champion_in_shadow")
    in_favour = [
        "first_model" if block.champion_bp is None else "beats_champion",
        "beats_no_change" if _missed_baselines(compared) else "beats_baselines",
    ]
    return GateDecision(
        promoted=not against,
        provisional=bool(unproven),
        reasons=tuple(against or in_favour),
        unproven=tuple(unproven),
        seconds=round(block.seconds, 1),
        rows=len(block.end_us),
        figures=compared,
        shadow=live,
    )


def prove(block: Block, seen_to_us: int, *, is_real: bool = True) -> GateDecision:
    """Whether the champion is proven on `block`, in which it is the challenger, and nothing the champion.
    `promoted`: it is."""
    compared = compare(block)
    unproven = _not_decidable(block, seen_to_us) or _unproven(compared, block.seconds, is_real)
    return GateDecision(
        promoted=not unproven,
        provisional=bool(unproven),
        reasons=tuple(unproven or ["proven"]),
        unproven=tuple(unproven),
        seconds=round(block.seconds, 1),
        rows=len(block.end_us),
        figures=compared,
        shadow=ShadowScore(left_out="it is the champion"),
    )


def _not_decidable(block: Block, seen_to_us: int) -> list[str]:
    if len(block.end_us) and int(block.end_us.min()) < seen_to_us:
        return ["seen_block"]
    return ["too_few_rows"] if block.seconds < LEAST_S else []


def _not_above(figures: Figures, name: str) -> list[str]:
    """The code for which a model is not clearly better than `name`, if there is one."""
    found = figures[ALL].get(name)
    if found is None:  # no trade was ever known
        return []
    if found.skill < LEAST_MARGIN:
        return [f"not_above_{name}"]
    return [f"not_clearly_above_{name}"] if found.ci[0] <= 0 else []


def _objections(figures: Figures, champion: GateSkill, champion_is_provisional: bool) -> list[str]:
    """What the comparison with the champion says against the challenger; `champion` is the champion's own
    skill against no change."""
    against = _not_above(figures, CHAMPION)
    if champion_is_provisional and champion.ci[0] <= 0:  # it has not earned its place
        against = [code for code in against if not code.startswith("not_clearly")]
    return against + _clearly_below(figures, (CHAMPION,))


def _missed_baselines(figures: Figures) -> list[str]:
    """The codes for which a model does not meet all baselines."""
    against = [code for name in _TO_BEAT for code in _not_above(figures, name)]
    line = figures[ALL].get(LINE)
    if line is not None and line.skill < -LOSS_MARGIN:
        against.append(f"below_{LINE}")
    return against + _clearly_below(figures, _BASELINES)


def _unproven(figures: Figures, seconds: float, is_real: bool) -> list[str]:
    """The codes for which a model is provisional."""
    against = [] if is_real else ["simulated_market"]
    against += ["too_short_to_prove"] if seconds < PROVEN_S else []
    return against + _missed_baselines(figures)


def _clearly_below(figures: Figures, opponents: Sequence[str]) -> list[str]:
    """The horizons and markets in which a model is clearly worse than one of `opponents`: from the least
    probable comparison on, while its probability is below the level divided by the number of those left."""
    compared = [
        (1.0 if found.p is None else found.p, found.skill, f"clearly_below_{name}{IN}{part}")
        for part, of_part in figures.items()
        if part != ALL
        for name, found in of_part.items()
        if name in opponents
    ]
    codes = []
    for number, (p, skill, code) in enumerate(sorted(compared)):
        if p > LEVEL / (len(compared) - number):
            break
        if skill < -LOSS_MARGIN:
            codes.append(code)
    return codes


def _skill_of_champion(block: Block) -> GateSkill:
    """The champion's own skill against no change."""
    assert block.champion_bp is not None
    no_change = {NO_CHANGE: block.baselines_bp[NO_CHANGE]}
    alone = block._replace(challenger_bp=block.champion_bp, champion_bp=None, baselines_bp=no_change)
    return compare(alone)[ALL][NO_CHANGE]


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
        if not known.any():  # no trade was ever known, or there are no rows
            continue
        ours, theirs = (
            weights[known] * (block.moves_bp[known] - expected_bp[known]) ** 2
            for expected_bp in (block.challenger_bp, opponent_bp)
        )
        at, market = block.end_us[known], block.market[known]
        figures[ALL][name] = _skill(at, ours.sum(axis=1), theirs.sum(axis=1))
        for column, horizon_s in enumerate(HORIZONS_S):
            figures[str(horizon_s)][name] = _skill(at, ours[:, column], theirs[:, column])
        for each in markets:
            mine = market == each
            if mine.any():
                together = ours[mine].sum(axis=1), theirs[mine].sum(axis=1)
                figures[each][name] = _skill(at[mine], *together)
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


def _covered_s(instants_us: npt.NDArray[np.int64]) -> Floats:
    """The seconds that the rows up to each of `instants_us` (T,) cover: not the time between rows that are
    further apart than rows are (`GAP_S`)."""
    steps_us = np.diff(instants_us)
    usual_us = int(np.median(steps_us)) if len(steps_us) else SECOND_US
    steps_us[steps_us > max(GAP_S * SECOND_US, usual_us)] = usual_us
    return np.asarray(np.cumsum(np.concatenate([[usual_us], steps_us])) / SECOND_US)


def _skill(at_us: npt.NDArray[np.int64], ours: Floats, theirs: Floats) -> GateSkill:
    """1 - Σ ours / Σ theirs of squares (N,), with its interval by blocks of as much time each."""
    instants_us, place = np.unique(at_us, return_inverse=True)
    covered_s = _covered_s(instants_us)
    blocks = min(block_count(float(covered_s[-1])), len(instants_us))
    block = np.minimum(covered_s / covered_s[-1] * blocks, blocks - 1).astype(np.int64)[place]
    found = skill_of_blocks(
        *(np.bincount(block, squares, blocks).astype(float) for squares in (ours, theirs))
    )
    return GateSkill(
        skill=round(found.skill, 5),
        ci=(round(found.low, 5), round(min(found.high, 1.0), 5)),
        p=float(f"{found.p:.3g}"),
    )


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
    found = _skill(shadow.timestamp_us[whole], ours, theirs)
    return ShadowScore(seconds=seconds, skill=found.skill, ci=found.ci)


def sentence(decision: GateDecision) -> str:
    """What was decided, and why."""
    if not decision.promoted:
        kept = "Champion kept" if CHAMPION in decision.figures[ALL] else "Not promoted"
        why = "; ".join(_objection(code, decision, "the challenger") for code in decision.reasons)
        return f"{kept}: {why}."
    together = decision.figures[ALL]
    beaten = [
        f"{words} by {together[name].skill:.3f}"
        for name, words in WORDS.items()
        if name in together and together[name].skill > 0
    ]
    line = together[LINE].skill if LINE in together else 0.0
    beaten += [f"but {WORDS[LINE]} is better by {-line:.3f}"] if line < 0 else []
    why = "; ".join(_objection(code, decision) for code in decision.unproven)
    caveat = f"; provisional: {why}" if decision.provisional else ""
    return f"Challenger beats {', '.join(beaten)} {_on(decision)}{caveat}."


def sentence_of_proof(decision: GateDecision) -> str:
    """Whether the champion is proven, and why not."""
    if decision.promoted:
        return f"The champion is proven {_on(decision)}."
    return (
        f"The champion is provisional: {'; '.join(_objection(code, decision) for code in decision.reasons)}."
    )


def _on(decision: GateDecision) -> str:
    seconds = decision.seconds
    span = f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
    return f"on {span} of rows with quotes that it was not trained on"


_PLAIN = {
    "seen_block": "a model was trained on the rows that it was to be compared on",
    "too_few_rows": f"inconclusive, {LEAST_S:.0f} s are needed",
    "too_short_to_prove": f"{PROVEN_S / 3600:.0f} h of a real market are needed to prove it",
    "simulated_market": "a simulated market proves nothing",
    "champion_is_proven": f"the champion is proven, and replaced on {LONG_S / 3600:.0f} h or more only",
}


def _objection(code: str, decision: GateDecision, model: str = "it") -> str:
    """A reason against the model, in words that call it `model`."""
    if code in _PLAIN:
        return f"{_PLAIN[code]} ({_on(decision)})" if code == "too_few_rows" else _PLAIN[code]
    if code == "not_above_champion_in_shadow":
        return f"{model} does not beat the champion in its shadow (skill {decision.shadow.skill:+.3f})"
    relation_and_name, _, part = code.partition(IN)
    name = next(each for each in WORDS if relation_and_name.endswith(each))
    relation = _RELATIONS[relation_and_name.removesuffix(f"_{name}")]
    found = decision.figures[part or ALL][name]
    low, high = found.ci
    place = f" at {part} s" if part.isdigit() else f" in {part}" if part else ""
    skill = f"skill against it {found.skill:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"{model} {relation} {WORDS[name]}{place} {_on(decision)} ({skill})"
