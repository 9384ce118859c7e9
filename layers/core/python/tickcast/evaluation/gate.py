"""The gate: whether a challenger takes the champion's place, and why, or why not.

Both are judged on the newest rows with quotes that neither has learnt from, on the same rows and against the
same guesses. A figure is a skill, 1 - Σ ours² / Σ theirs², of what was foretold against what came. Squares
are divided by the mean squared move of their market and horizon, so that each counts alike: "all" is that of
all together. Its 95 % interval (`evaluation.skill`) is by blocks of time: of an instant, all markets' errors
are drawn together, for markets move together.

How much is asked depends on how much time the rows cover:

- *Less than two minutes*: nothing can be said, and the one in force stays.
- *Less than an hour*: no change, the last trade and the champion are to be beaten, all horizons together.
  What wins is provisional, and replaces only what is so too.
- *An hour or more*: no change, the last trade, the microprice and the champion are to be beaten with the
  interval clear of zero, and the line through book imbalance at least matched, all horizons together; and at
  no single horizon, and in no market, may one of these be clearly better.

Paired differences of .01 show in an hour (docs/adr/0018). Where a challenger ran in the champion's shadow for
an hour, it has to have been better there too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.evaluation.backtest import BLOCK_S
from tickcast.evaluation.skill import skill_of_squares
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model.forecast import HORIZONS_S
from tickcast.model.network import SIGMA
from tickcast.units import SECOND_US

LEAST_S = 120.0  # of rows with quotes, for any verdict
LONG_S = 3600.0  # for one that is more than provisional
LEAST_MARGIN = 0.001  # of skill: what is less is a tie, and a tie changes nothing
SHADOW_S = 3600.0  # of outcomes of both, to count
ALL = "all"
_IN = ":"  # in codes, before the horizon or market that they are about
CHAMPION, NO_CHANGE, LAST_TRADE, MICROPRICE, LINE = (
    "champion",
    "no_change",
    "last_trade",
    "microprice",
    "linear_imbalance",
)
_TO_BEAT = (NO_CHANGE, LAST_TRADE, MICROPRICE, CHAMPION)
_TO_BEAT_SHORT = (NO_CHANGE, LAST_TRADE, CHAMPION)
_WORDS = {
    CHAMPION: "the model in force",
    NO_CHANGE: "no change",
    LAST_TRADE: "the last trade",
    MICROPRICE: "the microprice",
    LINE: "the line through book imbalance",
}
_IMBALANCE = FEATURE_NAMES.index("imbalance")
_MICROPRICE = FEATURE_NAMES.index("microprice")

Figures = dict[str, dict[str, dict[str, Any]]]  # by "all", horizon or market, then by opponent: skill, ci


class Block(NamedTuple):
    """What was foretold, and what came: rows (N,) of several markets on one grid, moves in bp (N, H).
    `champion_bp` is None where none is in force. What a guess does not know is NaN."""

    market: npt.NDArray[np.str_]
    end_us: npt.NDArray[np.int64]
    moves_bp: Floats
    challenger_bp: Floats
    champion_bp: Floats | None
    guesses_bp: Mapping[str, Floats]

    @property
    def seconds(self) -> float:
        """How much time the rows cover, whatever the number of markets: instants, and their usual
        distance."""
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
    """`reasons` are for machines: what spoke against it or, if it was promoted, what for it; `sentence` says
    the same to people."""

    promoted: bool
    provisional: bool
    reasons: tuple[str, ...]
    sentence: str
    seconds: float
    rows: int
    figures: Figures
    shadow: dict[str, Any]


def unseen_from_us(cards: Sequence[Mapping[str, Any]]) -> int:
    """From when on a row was learnt from by none of the models of `cards`."""
    return max((int(card["learned_to_us"]) for card in cards), default=0)


def baselines(features: Floats, last_trade_bp: Floats, line: Floats) -> dict[str, Floats]:
    """The obvious guesses of rows with quotes (N, F), in bp from the mid, each (N, H). `line` is the slope of
    each horizon's move on book imbalance, of the rows that the challenger learnt from. Shape (H,)."""
    level = np.ones(len(HORIZONS_S))
    return {
        NO_CHANGE: np.zeros((len(features), len(HORIZONS_S))),
        LAST_TRADE: last_trade_bp[:, None] * level,
        MICROPRICE: (features[:, _MICROPRICE] * features[:, SIGMA])[:, None] * level,
        LINE: features[:, _IMBALANCE, None] * line,
    }


def decide(
    block: Block,
    seen_to_us: int,
    *,
    champion_is_provisional: bool = False,
    is_real: bool = True,
    shadow: Shadow | None = None,
) -> GateDecision:
    """The verdict on `block`, of which nothing up to `seen_to_us` may have been seen by either model.

    `is_real`: no row is of a simulated market, on which a model never becomes more than provisional.
    """
    seconds, rows = block.seconds, len(block.end_us)
    is_long = seconds >= LONG_S
    compared = compare(block) if rows else {}
    live = _in_shadow(shadow)
    against = _objections(compared, is_long, block.champion_bp is not None and not champion_is_provisional)
    if rows and int(block.end_us.min()) < seen_to_us:
        against = ["seen_block"]
    elif seconds < LEAST_S:
        against = ["too_few_rows"]
    elif live.get("skill", 1.0) <= 0:
        against.append("not_above_champion_in_shadow")
    in_favour = ["first_model" if block.champion_bp is None else "beats_champion"]
    in_favour.append("beats_baselines" if is_long else "beats_no_change_and_last_trade")
    return GateDecision(
        promoted=not against,
        provisional=not (is_long and is_real),
        reasons=tuple(against or in_favour),
        sentence=_sentence(against, compared, seconds, is_long and is_real, live),
        seconds=round(seconds, 1),
        rows=rows,
        figures=compared,
        shadow=live,
    )


def compare(block: Block) -> Figures:
    """The skill of the challenger against each opponent: all together, by horizon, by market."""
    opponents = dict(block.guesses_bp)
    if block.champion_bp is not None:
        opponents[CHAMPION] = block.champion_bp
    markets = np.unique(block.market).tolist()
    figures: Figures = {name: {} for name in (ALL, *map(str, HORIZONS_S), *markets)}
    weights = _weights(block)
    for name, guess_bp in opponents.items():
        known = np.isfinite(guess_bp).all(axis=1)
        if not known.any():
            continue
        ours, theirs = (
            weights[known] * (block.moves_bp[known] - told_bp[known]) ** 2
            for told_bp in (block.challenger_bp, guess_bp)
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


def bands(block: Block) -> dict[str, dict[str, float]]:
    """By market and horizon, the lowest skill against no change in any hour of the block, or in any sixth of
    it where it is shorter than six hours: what less than is not the same model, or not the same market, any
    more. An interval of the whole would be too narrow: hours differ by more than chance."""
    found: dict[str, dict[str, float]] = {}
    for market in np.unique(block.market).tolist():
        mine = block.market == market
        end_us = block.end_us[mine]
        pieces = max(6, round((end_us.max() - end_us.min()) / (3600 * SECOND_US)))
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
        found[market] = {str(h): round(float(low), 5) for h, low in zip(HORIZONS_S, lowest, strict=True)}
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


def _skill(at_us: npt.NDArray[np.int64], ours: Floats, theirs: Floats, horizon_s: int) -> dict[str, Any]:
    """1 - Σ ours / Σ theirs of squares (N,), with its interval, by blocks as in `evaluation.backtest`."""
    instants_us, place = np.unique(at_us, return_inverse=True)
    step_s = _step_s(instants_us) if len(instants_us) > 1 else 1.0
    sums = [np.bincount(place, weights=squares).astype(float) for squares in (ours, theirs)]
    block_rows = round(max(BLOCK_S, 2 * horizon_s) / step_s)
    value, interval = skill_of_squares(sums[0], sums[1], block_rows)
    return {"skill": round(value, 5), "ci": [round(each, 5) for each in interval]}


def _objections(figures: Figures, is_long: bool, champion_is_proven: bool) -> list[str]:
    """What speaks against the challenger on the block, as codes."""
    if not figures:
        return []
    against = []
    for name in _TO_BEAT if is_long else _TO_BEAT_SHORT:
        found = figures[ALL].get(name)
        if found is None:  # no champion, or no trade was ever known
            continue
        if found["skill"] < LEAST_MARGIN:
            against.append(f"not_above_{name}")
        elif is_long and found["ci"][0] <= 0:
            against.append(f"not_clearly_above_{name}")
    if not is_long:
        return [*against, "champion_is_proven"] if champion_is_proven else against
    if figures[ALL][LINE]["skill"] < 0:
        against.append(f"below_{LINE}")
    for part, of_part in figures.items():
        worse = [name for name, found in of_part.items() if part != ALL and found["ci"][1] < 0]
        against += [f"clearly_below_{name}{_IN}{part}" for name in worse]
    return against


def _in_shadow(shadow: Shadow | None) -> dict[str, Any]:
    """What the live outcomes say; why they are left out, where they are."""
    if shadow is None:
        return {"left_out": "no outcomes of both models are kept"}
    whole = np.isfinite([shadow.moves_bp, shadow.challenger_bp, shadow.champion_bp]).all(axis=(0, 2))
    moves_bp, seconds = shadow.moves_bp[whole], float(len(np.unique(shadow.timestamp_us[whole])))
    if seconds < SHADOW_S:
        return {"left_out": f"{seconds:.0f} s of outcomes of both models, {SHADOW_S:.0f} are asked for"}
    weights = 1 / np.maximum((moves_bp**2).mean(axis=0), 1e-12)
    ours, theirs = (
        ((moves_bp - told[whole]) ** 2) @ weights for told in (shadow.challenger_bp, shadow.champion_bp)
    )
    return {"seconds": seconds, **_skill(shadow.timestamp_us[whole], ours, theirs, max(HORIZONS_S))}


def _sentence(
    against: Sequence[str], figures: Figures, seconds: float, is_proven: bool, live: Mapping[str, Any]
) -> str:
    span = f"{seconds / 3600:.1f} h" if seconds >= LONG_S else f"{seconds:.0f} s"
    on = f"on {span} of rows with quotes that neither had learnt from"
    if not against:
        beaten = [
            f"{words} by {figures[ALL][name]['skill']:.3f}"
            for name, words in _WORDS.items()
            if name in figures[ALL] and figures[ALL][name]["skill"] > 0
        ]
        line = figures[ALL].get(LINE, {"skill": 0.0})["skill"]
        beaten += [f"but {_WORDS[LINE]} is better by {-line:.3f}"] if line < 0 else []
        still = "" if is_proven else "; provisional: less than an hour of them, or a simulated market"
        return f"It is better than {', '.join(beaten)} {on}{still}."
    return f"The one in force stays: {'; '.join(_told(code, figures, on, live) for code in against)}."


def _told(code: str, figures: Figures, on: str, live: Mapping[str, Any]) -> str:
    """A code of `reasons`, against, in words."""
    if code == "seen_block":
        return "one of the two has learnt from the block that they were to be judged on"
    if code == "too_few_rows":
        return f"nothing can be said {on}: {LEAST_S:.0f} s are needed"
    if code == "champion_is_proven":
        return f"it has proven itself, and is not replaced {on}: an hour is needed"
    if code == "not_above_champion_in_shadow":
        return f"in its shadow the challenger was no better (skill against it {live['skill']:+.3f})"
    where, _, part = code.partition(_IN)
    name = next(each for each in _WORDS if where.endswith(each))
    relation = where.removesuffix(f"_{name}")
    found = figures[part or ALL][name]
    low, high = found["ci"]
    skill = f"skill against it {found['skill']:+.3f} [{low:+.3f}, {high:+.3f}]"
    at = f" at {part} s" if part.isdigit() else f" in {part}" if part else ""
    return f"the challenger is {relation.replace('_', ' ')} {_WORDS[name]}{at} {on} ({skill})"
