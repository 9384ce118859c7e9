"""Recipes of the model on sessions that they were not trained on: the evidence in docs/model.md.

    python -m benchmarks.recipes FOLDER        the folder with the recordings

Leave-one-session-out: each model is trained on recordings of one day, the markets of one exchange together,
and evaluated on those of another day, by remaining moves at delivery. The same for 30 and 60 s ahead, by the
ridge regression that half of the model is.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np

from local.commands.evaluate import Segment, bars_of
from local.exchange.recording import inspect
from tickcast.evaluation.backtest_figures import block_rows
from tickcast.evaluation.baselines import fit_line
from tickcast.evaluation.skill import skill
from tickcast.features.bars import BARS_PER_S, Bars, mids
from tickcast.features.vector import FEATURE_NAMES, Floats
from tickcast.model import network as network_module
from tickcast.model.dataset import Rows, training_rows
from tickcast.model.fit import INPUTS, TrainingSettings, fit, ridge, usual_sigma
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, PATH_S, remaining_moves
from tickcast.model.network import DAMPING, SIGMA, places
from tickcast.model.thinning import by_symbol, sample

GROUPS = ("spot", "usdm", "cm")
LONG_S = (10, 30, 60)
RIDGE_INPUTS = TrainingSettings().ridge_inputs
IMBALANCE = FEATURE_NAMES.index("imbalance")


@dataclass(frozen=True)
class Session:
    """The markets of one exchange on one day, by symbol: rows with quotes, and bars."""

    name: str
    day: str
    markets: dict[str, Rows]
    bars: dict[str, Bars]


@dataclass(frozen=True)
class Recipe:
    name: str
    settings: TrainingSettings
    damping: Floats


_M = TrainingSettings()
_EVEN = replace(INPUTS, even=("volatility_5s", "mid_age"))
_QUARTER = np.full(len(PATH_S), -0.25)
RECIPES = (
    Recipe(
        "before: even inputs, damping 1/4, no ridge", replace(_M, inputs=_EVEN, ridge_share=0.0), _QUARTER
    ),
    Recipe("no even inputs", replace(_M, ridge_share=0.0), _QUARTER),
    Recipe("no even inputs, damping by horizon", replace(_M, ridge_share=0.0), DAMPING),
    Recipe("even inputs, damping by horizon, half ridge", replace(_M, inputs=_EVEN), DAMPING),
    Recipe("M: no even inputs, damping by horizon, half ridge", _M, DAMPING),
    Recipe("ridge alone", replace(_M, ridge_share=1.0), DAMPING),
)


def sessions(folder: Path) -> list[Session]:
    found: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.glob("*.gz")):
        group, _, rest = path.name.partition("_")
        if group in GROUPS:
            day = next(part for part in rest.removesuffix(".gz").split("_") if part.isdigit())
            found.setdefault((group, day), []).append(path)
    return [
        _session(group, day, bars_of([inspect(path) for path in paths]))
        for (group, day), paths in found.items()
    ]


def _session(group: str, day: str, segments: list[Segment]) -> Session:
    rows = by_symbol((each.symbol, training_rows(each.bars)) for each in segments)
    quoted = {symbol: each.chosen(each.has_quotes) for symbol, each in rows.items()}
    return Session(group, day, quoted, {each.symbol: each.bars for each in segments})


def pairs(found: list[Session]) -> Iterator[tuple[Session, Session]]:
    """A session to train on and one of another day to evaluate on."""
    return ((one, other) for one in found for other in found if one.day != other.day)


def compare(found: list[Session]) -> None:
    print("| recipe | " + " | ".join(f"{h} s" for h in HORIZONS_S) + " |")
    print("|---|" + "---|" * len(HORIZONS_S))
    line, outcomes = _by_line(found)
    before: list[Floats] = []
    for recipe in RECIPES:
        expected = [_expected(recipe, one, other) for one, other in pairs(found)]
        before = before or expected
        cells = []
        for at, horizon_s in enumerate(HORIZONS_S):
            mean = np.mean(
                [_skill(o, e, 0 * e, at, horizon_s)[0] for o, e in zip(outcomes, expected, strict=True)]
            )
            moves, ours, first, lines = (
                np.concatenate([part[:, at] for part in parts])
                for parts in (outcomes, expected, before, line)
            )
            _, (low, high) = skill(moves, ours, first, block_rows(horizon_s))
            over_line = skill(moves, ours, lines, block_rows(horizon_s))[0]
            cells.append(f"{mean:+.3f} [{low:+.3f}, {high:+.3f}] {over_line:+.3f}")
        print(f"| {recipe.name} | {' | '.join(cells)} |", flush=True)


def _expected(recipe: Recipe, one: Session, other: Session) -> Floats:
    """What a model trained on `one` expects of the rows of `other`, (N, H)."""
    with mock.patch.object(network_module, "DAMPING", recipe.damping):
        rows = sample(one.markets, recipe.settings.max_rows, recipe.settings.seed).rows
        network = fit(rows, recipe.settings, recipe.settings.least_epochs)
        return np.concatenate(
            [
                remaining_moves(network.forward(each.features)[0], DELIVERY_S)
                for each in other.markets.values()
            ]
        )


def _by_line(found: list[Session]) -> tuple[list[Floats], list[Floats]]:
    """By pair, the line's expectation and the outcomes, (N, H)."""
    lines, outcomes = [], []
    for one, other in pairs(found):
        slope = fit_line(list(one.markets.values()))
        imbalance = np.concatenate([rows.features[:, IMBALANCE] for rows in other.markets.values()])
        lines.append(imbalance[:, None] * slope)
        outcomes.append(
            np.concatenate([remaining_moves(rows.moves_bp, DELIVERY_S) for rows in other.markets.values()])
        )
    return lines, outcomes


def _skill(moves: Floats, ours: Floats, theirs: Floats, at: int, horizon_s: int) -> tuple[float, list[float]]:
    return skill(moves[:, at], ours[:, at], theirs[:, at], block_rows(horizon_s))


def long_horizons(found: list[Session]) -> None:
    """Skill at delivery of the scaled ridge, over horizons beyond the path."""
    print("| trained on, evaluated on | " + " | ".join(f"{h} s" for h in LONG_S) + " |")
    print("|---|" + "---|" * len(LONG_S))
    for one, other in pairs(found):
        cells = []
        for horizon_s in LONG_S:
            inputs, sigma_bp, moves_bp = _long_rows(one, horizon_s)
            usual_bp = usual_sigma(Rows(np.empty(0, np.int64), _with_sigma(sigma_bp), np.empty((0, 0))))
            weights = ridge(
                inputs, np.clip(moves_bp / _units(sigma_bp, usual_bp, horizon_s), -6, 6), _M.ridge
            )
            inputs, sigma_bp, moves_bp = _long_rows(other, horizon_s)
            expected = (inputs @ weights * _units(sigma_bp, usual_bp, horizon_s))[:, 0]
            value, (low, high) = skill(moves_bp[:, 0], expected, 0 * expected, block_rows(horizon_s))
            cells.append(f"{value:+.3f} [{low:+.3f}, {high:+.3f}]")
        print(f"| {one.name} {one.day}, {other.name} {other.day} | {' | '.join(cells)} |", flush=True)


def _units(sigma_bp: Floats, usual_bp: Floats, horizon_s: int) -> Floats:
    return np.asarray(sigma_bp * np.sqrt(horizon_s) * np.clip(sigma_bp / usual_bp, 0.25, 4) ** DAMPING[-1])


def _with_sigma(sigma_bp: Floats) -> Floats:
    features = np.zeros((len(sigma_bp), len(FEATURE_NAMES)))
    features[:, [SIGMA]] = sigma_bp
    return features


def _long_rows(session: Session, horizon_s: int) -> tuple[Floats, Floats, Floats]:
    """Inputs (N, 2), volatility and remaining moves (N, 1) of the rows that are followed long enough."""
    parts = []
    for symbol, rows in session.markets.items():
        bars, mid = session.bars[symbol], mids(session.bars[symbol])
        read = np.searchsorted(bars["end_us"], rows.end_us) + round(DELIVERY_S * BARS_PER_S)
        known = read + horizon_s * BARS_PER_S < len(bars)
        read, features = read[known], rows.features[known]
        moves_bp = (mid[read + horizon_s * BARS_PER_S] / mid[read] - 1) * 1e4
        is_known = np.isfinite(moves_bp)
        parts.append((features[is_known], moves_bp[is_known, None]))
    features, moves_bp = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return features[:, places(RIDGE_INPUTS)], features[:, [SIGMA]], moves_bp


def main() -> None:
    (folder,) = map(Path, sys.argv[1:])
    found = sessions(folder)
    compare(found)
    print()
    long_horizons(found)


if __name__ == "__main__":
    main()
