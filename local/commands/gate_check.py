"""`make gate-check`: how often the gate errs, on simulated markets whose truth is known.

Two markets. Book imbalance and a second input drive the price for a few seconds; volatility clusters for
minutes, returns have heavy tails. The second input works always or, in *spells*, for an hour and then not. A
challenger adds twice the best weight of the second input to the line: so its true skill against the line is
about 0, and its errors differ from the line's. It measures how often a 95 % interval of the skill misses the
skill of all samples together, and how often a first model of four hours is admitted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from rich.table import Table

from local.commands.command import Command, ExitStatus, passed, print_last_line
from local.system import progress
from tickcast.evaluation.baselines import LINE, NO_CHANGE
from tickcast.evaluation.gate import ALL, Block, compare, decide
from tickcast.features.vector import Floats
from tickcast.model.forecast import HORIZONS_S
from tickcast.units import SECOND_US

MOST_CLUSTERED, MOST_IN_SPELLS, LEAST_PROMOTED = 0.08, 0.15, 0.9
SYMBOLS = ("BTCUSDT", "ETHUSDT")
DAY_H, FIRST_H = 25.0, 4.0  # the newest 15 % of a week; a first model
SAMPLES = {1.0: 200, FIRST_H: 200, DAY_H: 400}  # by hours
FIRST_MODELS = 100
_IMBALANCE, _SECOND = 0.3, 0.1  # what each input moves the price by, in σ√s
_INPUT_S, _MINUTES_S, _SPELL_S = 1.5, (60.0, 600.0), 3600.0  # how long each lasts
_HEAVY_TAILS = 3.5  # degrees of freedom of Student's t
_STEP = 3  # seconds between the rows that are compared


class Market(NamedTuple):
    """A second each: both inputs (N,), and the moves over each horizon (N, H)."""

    imbalance: Floats
    second: Floats
    moves_bp: Floats


class Slopes(NamedTuple):
    """By horizon, the moves for each input, by least squares over a long time. (H,) each."""

    imbalance: Floats
    second: Floats


class MissRate(NamedTuple):
    """How often intervals leave out the truth, their mean half width, and the spread of the figures."""

    rate: float
    half_width: float
    deviation: float


def simulate(rng: np.random.Generator, seconds: int, *, in_spells: bool) -> Market:
    slow, quick = (_lasting(rng, seconds, each) for each in reversed(_MINUTES_S))
    sigma = np.exp(0.4 * slow + 0.3 * quick)
    imbalance = np.tanh(1.2 * _lasting(rng, seconds, _INPUT_S))
    second = _lasting(rng, seconds, _INPUT_S)
    works = 1 + np.sign(_lasting(rng, seconds, _SPELL_S)) if in_spells else np.ones(seconds)
    noise = rng.standard_t(_HEAVY_TAILS, seconds) / np.sqrt(_HEAVY_TAILS / (_HEAVY_TAILS - 2))
    price = np.cumsum(sigma * (_IMBALANCE * imbalance + _SECOND * works * second + noise))
    price = np.concatenate([[0.0], price])
    rows = seconds - max(HORIZONS_S)
    moves_bp = np.stack([price[h : h + rows] - price[:rows] for h in HORIZONS_S], axis=1)
    return Market(imbalance[:rows], second[:rows], moves_bp)


def fitted(hours: float) -> Slopes:
    market = simulate(np.random.default_rng(0), round(hours * 3600), in_spells=False)
    return Slopes(
        *(x @ market.moves_bp / float(x @ x) for x in (market.imbalance, market.second)),
    )


def blocks(
    hours: float, samples: int, *, in_spells: bool, forecast: Callable[[Market], Floats], slopes: Slopes
) -> Iterator[Block]:
    """Samples of both markets, with the moves that `forecast` expects (N, H) as the challenger's."""
    for sample in range(samples):
        rng = np.random.default_rng([round(hours * 3600), sample, in_spells])
        markets = []
        for _ in SYMBOLS:
            whole = simulate(rng, round(hours * 3600), in_spells=in_spells)
            markets.append(Market(*(column[::_STEP] for column in whole)))
        rows = len(markets[0].imbalance)
        moves_bp = np.concatenate([each.moves_bp for each in markets])
        line = np.concatenate([each.imbalance[:, None] * slopes.imbalance for each in markets])
        yield Block(
            market=np.repeat(SYMBOLS, rows),
            end_us=np.tile(np.arange(1, rows + 1) * _STEP * SECOND_US, len(SYMBOLS)),
            moves_bp=moves_bp,
            challenger_bp=np.concatenate([forecast(each) for each in markets]),
            champion_bp=None,
            baselines_bp={NO_CHANGE: np.zeros_like(moves_bp), LINE: line},
        )


def miss_rate(hours: float, samples: int, slopes: Slopes, *, in_spells: bool) -> MissRate:
    """Of the intervals of the skill against the line."""

    def forecast(market: Market) -> Floats:
        return np.asarray(
            market.imbalance[:, None] * slopes.imbalance + 2 * market.second[:, None] * slopes.second
        )

    found = []
    for block in blocks(hours, samples, in_spells=in_spells, forecast=forecast, slopes=slopes):
        against_line = block._replace(baselines_bp={LINE: block.baselines_bp[LINE]})
        found.append(compare(against_line)[ALL][LINE])
    skills, ends = np.array([each.skill for each in found]), np.array([each.ci for each in found])
    truth = skills.mean()
    return MissRate(
        rate=float(np.mean((ends[:, 0] > truth) | (ends[:, 1] < truth))),
        half_width=float(np.mean(ends[:, 1] - ends[:, 0]) / 2),
        deviation=float(skills.std()),
    )


def promoted(samples: int, slopes: Slopes, weights: Mapping[str, float]) -> float:
    """The share of first models, evaluated on four hours, that the gate makes active: forecasts that are the
    line and the second input, each times its weight."""

    def forecast(market: Market) -> Floats:
        return np.asarray(
            weights["line"] * market.imbalance[:, None] * slopes.imbalance
            + weights["second"] * market.second[:, None] * slopes.second
        )

    found = blocks(FIRST_H, samples, in_spells=False, forecast=forecast, slopes=slopes)
    return float(np.mean([decide(block, 0).promoted for block in found]))


def run(given: argparse.Namespace) -> ExitStatus:
    slopes, table = fitted(400), Table(title="95 % intervals of the skill against the line")
    for name in ("hours", "markets", "miss the truth", "half width", "spread of the skill"):
        table.add_column(name, justify="left" if name == "markets" else "right")
    rates = {}
    for hours, samples in SAMPLES.items():
        for in_spells in (False, True):
            found = rates[hours, in_spells] = miss_rate(hours, samples, slopes, in_spells=in_spells)
            kind = "in spells of an hour" if in_spells else "clustered volatility"
            table.add_row(f"{hours:g}", kind, *(f"{each:.4f}" for each in found))
    progress.wide_console().print(table)
    report = {
        "miss_rate_clustered": round(rates[DAY_H, False].rate, 4),
        "miss_rate_spells": round(rates[DAY_H, True].rate, 4),
        # As good as the line, which is better than no change, and no better than no change at all.
        "promoted_first_model_4h": promoted(FIRST_MODELS, slopes, {"line": 1.0, "second": 2.0}),
        "promoted_worthless_4h": promoted(FIRST_MODELS, slopes, {"line": 2.0, "second": 0.0}),
        "hours": DAY_H,
        "samples": SAMPLES[DAY_H],
    }
    print_last_line(report)
    return passed(
        report["miss_rate_clustered"] <= MOST_CLUSTERED
        and report["miss_rate_spells"] <= MOST_IN_SPELLS
        and report["promoted_first_model_4h"] >= LEAST_PROMOTED
    )


def _lasting(rng: np.random.Generator, seconds: int, lasts_s: float) -> Floats:
    """A normal process of variance 1 whose correlation falls to 1/e in `lasts_s`. Shape (seconds,)."""
    kept = float(np.exp(-1 / lasts_s))
    found = rng.normal(size=seconds)
    found[1:] *= np.sqrt(1 - kept**2)
    shift = 1  # each pass doubles how far back the sums reach
    while shift < seconds and kept**shift > 1e-7:
        found[shift:] += kept**shift * found[:-shift].copy()
        shift *= 2
    return found


COMMAND = Command(
    "gate-check", "how often the gate errs, by simulation; the last line is JSON", lambda parser: None, run
)
