"""Calibration: fitted when a model is trained (`fit_calibrations`), then corrected by each outcome
(`Calibrator`).

The card has the width of the intervals and the confidence in the direction as of training; both drift with
the market. Two online estimators, a pair for each horizon, follow it:

- **Interval.** The width q, in units of σ√h, tracks the 80 % quantile of |outcome - move| / σ√h: an outcome
  outside widens it by a step of 0.8, one inside narrows it by 0.2, so that in the long run one in five is
  outside however the market changes (adaptive conformal inference, Gibbs and Candès 2021; the quantile
  tracker of Angelopoulos, Candès and Tibshirani 2023, here on ln q, so that the step is relative and q stays
  > 0). One outcome over a second widens it by 6.6 % or narrows it by 1.6 %, whatever its size.
- **Confidence.** P(right | it moves) = sigmoid(slope · |move| / σ√h). Each outcome that moved is one step of
  online logistic regression, normalised by the mean square of its input (Nagumo and Noda 1967), down to 0,
  never below: a model that is wrong more often than right earns no confidence at all.

The mean square starts from a prior, that of a typical model. A step is normalised by no less than the
outcome's own square and a floor, and changes the slope by at most 5 % of itself plus 0.05. So no single
outcome, not even the first, moves the confidence of a typical forecast (0.15 σ√h) by more than 0.01, nor that
of a forecast of σ√h by more than 0.025: that takes many that agree.

Outcomes a second apart share all but a second of their horizon, so that what one says the next nine say
again: both steps are divided by h. Without that, intervals over ten seconds are an eighth wider for the same
coverage on simulated volatility. Both begin larger and shrink with the outcomes, for a card is of another
session: a slope may be half or twice as steep there at a second, and a third or three times at ten, where so
little is foreseen that the training determines it badly. So the slope's first steps are divided by √h alone.
"""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from tickcast.features.bars import BARS_PER_S
from tickcast.features.vector import Floats
from tickcast.model.forecast import HORIZONS_S, MAX_SLOPE, MAX_WIDTH, Calibration
from tickcast.model.network import sigmoid

COVERAGE = 0.8
MIN_WIDTH = 0.05  # units of σ√h: a market that does not move must not shrink the interval to nothing
WIDTH_STEP = 0.08
SETTLING_OUTCOMES = 60  # after which the width's step is half of the first, unless the horizon asks for more
SLOPE_STEP = 0.02
FIRST_STEP = 0.16  # of the slope over a second, from the card on: sessions differ by a factor of two
SETTLING_S = 60  # outcomes after which the step is half of the first, a horizon of a second
MOST_STEP = 0.05  # of 1 + slope
QUANTILE_OF_NORMAL = 1.2816  # of |x|, at `COVERAGE`
LOGIT_OF_NORMAL = 1.702  # the normal distribution function is nearly sigmoid(1.702 x)
USUAL_STRENGTH = 0.15  # |move| / σ√h of a typical model's forecasts, root mean square: the prior
LEAST_STRENGTH = 0.05  # floor of the normalisation: weaker forecasts must not move the slope faster
_MEMORY = 0.99  # of the mean square
_PRIOR_OUTCOMES = 10  # the weight of the prior


class Calibrator(Struct):
    """One horizon's calibration after `outcomes` of them."""

    direction_slope: float
    interval_width: float
    outcomes: int = 0
    mean_square: float = USUAL_STRENGTH**2  # of |move| / σ√h over the newest outcomes that moved

    @classmethod
    def of(cls, calibration: Calibration) -> Calibrator:
        """As the model's card has it, before the first outcome."""
        return cls(calibration.direction_slope, max(calibration.interval_width, MIN_WIDTH))

    @property
    def calibration(self) -> Calibration:
        return Calibration(self.direction_slope, self.interval_width)

    def learn(self, horizon_s: int, is_inside: bool, is_right: bool | None, strength: float) -> None:
        """Update by one outcome of a forecast over `horizon_s`: whether the price lies inside the interval
        that was given, whether the direction was right (None: there was none, or the price did not move), and
        the strength of the forecast, |move| / σ√h.

        What counts is the interval that was *given*, not the one that would be given now: so the long-run
        share holds although outcomes come `horizon_s` late.
        """
        self.outcomes += 1
        share = max(1 / horizon_s, 1 / (1 + self.outcomes / SETTLING_OUTCOMES))
        step = WIDTH_STEP * share * (COVERAGE - is_inside)
        self.interval_width = min(max(MIN_WIDTH, self.interval_width * math.exp(step)), MAX_WIDTH)
        if is_right is None:
            return
        kept = min(_MEMORY, 1 - 1 / (_PRIOR_OUTCOMES + self.outcomes))
        self.mean_square = kept * self.mean_square + (1 - kept) * strength**2
        surprise = is_right - self.calibration.confidence(strength, 1.0)
        by = max(self.mean_square, strength**2, LEAST_STRENGTH**2)
        settling = 1 + self.outcomes / (SETTLING_S * horizon_s)
        gain = max(SLOPE_STEP / horizon_s, FIRST_STEP / math.sqrt(horizon_s) / settling)
        step = gain * surprise * strength / by
        most = MOST_STEP * (1 + self.direction_slope)
        self.direction_slope = min(max(0.0, self.direction_slope + min(max(-most, step), most)), MAX_SLOPE)


def fit_calibrations(moves: Floats, outcomes: Floats) -> dict[int, Calibration]:
    """By horizon, the calibration that fits out-of-fold predictions (N, H) and their outcomes (N, H), in
    σ√h."""
    return {h: _fit(moves[:, at], outcomes[:, at], h) for at, h in enumerate(HORIZONS_S)}


def _fit(move: Floats, outcome: Floats, horizon_s: int) -> Calibration:
    moved = outcome != 0
    right = (np.sign(move[moved]) == np.sign(outcome[moved])).astype(float)
    residual = np.sort(np.abs(outcome - move))
    # The conformal quantile: ceil((n + 1) q) of n residuals (Vovk et al. 2005).
    rank = min(int(np.ceil((len(residual) + 1) * COVERAGE)), len(residual)) - 1
    width = float(residual[rank])
    # Rows are a bar apart at least, so of so many only one in a horizon's bars is an outcome of its own.
    weight = 1 / (BARS_PER_S * horizon_s)
    return Calibration(_fit_slope(np.abs(move[moved]), right, weight, _usual_slope(width)), width)


def _usual_slope(width: float) -> float:
    """The slope at which errors that are normally distributed, with that width, put the direction right."""
    return LOGIT_OF_NORMAL * QUANTILE_OF_NORMAL / max(width, MIN_WIDTH)


def _fit_slope(strength: Floats, right: Floats, weight: float, usual: float) -> float:
    """The most likely slope of P(right) = sigmoid(slope * strength), never below 0, by bisection of the
    score. Each outcome counts by `weight`; the slope is expected near the `usual`, give or take one."""
    low, high = 0.0, 100.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        score = weight * np.sum((right - sigmoid(middle * strength)) * strength) + usual - middle
        if score > 0:
            low = middle
        else:
            high = middle
    return low
