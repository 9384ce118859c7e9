"""The trainer against a reference library: the same rows and inputs, scikit-learn's MLPRegressor.

Both fit the move in units of σ√h on the same samples, with as many members of the same width, and are
evaluated on later rows. Two things are measured: how long the training of one member takes, as a ratio, and
the skill of both. The advantage over the reference is in the symmetry, the skip connection and the loss, not
in the optimiser; the reference gets the same standardised inputs, without which it would not converge.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.side_by_side import Comparison, Effort, Work, comparison, side_by_side
from local.exchange.simulator import simulate
from local.system.seed import tick_arrays
from tickcast.evaluation.skill import point_skill
from tickcast.features.bars import Bars, segments
from tickcast.model.dataset import Rows, rows_from_bars
from tickcast.model.fit import Scaler, TrainingSettings, epoch_by_epoch
from tickcast.model.forecast import DELIVERY_S, HORIZONS_S, PATH_S, remaining_moves
from tickcast.model.network import SIGMA, Network
from tickcast.model.training import GAP_US

SECONDS = 420  # of the simulated market
TRAINED_S = 240
EPOCHS = 10
MEMBERS = 2
START_US = 1_754_000_000_000_000
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Skill on later rows, by horizon."""

    ours: list[float]
    reference: list[float]

    def line(self) -> str:
        pairs = zip(HORIZONS_S, self.ours, self.reference, strict=True)
        skills = ", ".join(f"{h} s {ours:+.3f} against {theirs:+.3f}" for h, ours, theirs in pairs)
        return f"trainer's skill on later rows, against scikit-learn's: {skills}"

    def as_dict(self) -> dict[str, dict[str, float]]:
        pairs = zip(HORIZONS_S, self.ours, self.reference, strict=True)
        return {str(h): {"ours": round(a, 4), "reference": round(b, 4)} for h, a, b in pairs}


def measure(effort: Effort) -> tuple[Comparison, Quality]:
    """`train_vs_reference` and the quality of both."""
    rows = rows_from_bars(_simulated(SECONDS))
    cut_us = START_US + TRAINED_S * 1_000_000
    learn = rows.chosen(rows.end_us < cut_us - GAP_US)
    later = rows.chosen(rows.end_us >= cut_us)
    settings = TrainingSettings(members=MEMBERS, epochs=EPOCHS)
    items = MEMBERS * EPOCHS * len(learn.end_us)
    times = side_by_side(
        {
            "tickcast.model.training": Work(lambda: _ours(learn, settings), items),
            "scikit-learn": Work(lambda: _reference(learn, settings), items),
        },
        Effort(rounds=min(effort.rounds, 5), turn_s=0.0),
    )
    compared = comparison(times, "train_vs_reference", "tickcast.model.training", "scikit-learn")
    ours = _skill(_ours(learn, settings).forward(later.features)[0], later)
    scaler = Scaler.of(learn, settings.inputs)
    predicted = np.mean(
        [each.predict(_inputs(later, scaler)) for each in _reference(learn, settings)], axis=0
    )
    reference = _skill(predicted * later.features[:, [SIGMA]] * np.sqrt(np.array(PATH_S)), later)
    return compared, Quality(ours, reference)


def _ours(rows: Rows, settings: TrainingSettings) -> Network:
    *_, network = epoch_by_epoch(rows, settings)
    return network


def _reference(rows: Rows, settings: TrainingSettings) -> list[Any]:
    """The same number of networks of the same width, trained for the same number of epochs."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    scaler = Scaler.of(rows, settings.inputs)
    inputs = _inputs(rows, scaler)
    target = scaler.samples(rows, settings.inputs).target
    networks = []
    for member in range(settings.members):
        network = MLPRegressor(
            hidden_layer_sizes=(settings.hidden,),
            alpha=1.0,
            batch_size=settings.batch_rows,
            learning_rate_init=settings.learning_rate,
            max_iter=settings.epochs,
            random_state=member,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
            networks.append(network.fit(inputs, target))
    return networks


def _inputs(rows: Rows, scaler: Scaler) -> Floats:
    odd, even, _ = scaler.samples(rows, TrainingSettings().inputs)
    return np.column_stack([odd, even])


def _skill(predicted_bp: Floats, rows: Rows) -> list[float]:
    """Of paths (N, J): the skill of what is still to come at delivery, by horizon."""
    moves, expected = (remaining_moves(paths, DELIVERY_S).T for paths in (rows.moves_bp, predicted_bp))
    return [point_skill(*columns) for columns in zip(moves, expected, strict=True)]


def _simulated(seconds: int) -> Bars:
    end_us = START_US + seconds * 1_000_000
    ticks = itertools.takewhile(lambda tick: tick.time_us < end_us, simulate("BTCUSDT", 7, START_US))
    (bars,) = segments(*tick_arrays(ticks))
    return bars
