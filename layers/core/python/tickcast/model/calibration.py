"""Calibration that follows the market: each outcome corrects the width of the interval and the confidence.

A model's card says how wide its intervals were and how far its direction could be trusted when it was
trained; both drift with the market. Two small online estimators, one pair for each horizon, keep them true:

- **Interval.** The width q, in units of σ√h, tracks the 80 % quantile of |outcome - move| / σ√h: an outcome
  outside widens it by a step of 0.8, one inside narrows it by 0.2, so that in the long run one in five is
  outside whatever the market does (adaptive conformal inference, Gibbs and Candès 2021; the quantile tracker
  of Angelopoulos, Candès and Tibshirani 2023, here on ln q, so that the step is relative and q stays > 0).
  One outcome widens it by 6.6 % and narrows it by 1.6 %, whatever it was.
- **Confidence.** P(right | it moves) = sigmoid(slope · |move| / σ√h). Each outcome that moved is one step of
  online logistic regression, normalised by the mean square of its input (Nagumo and Noda 1967), down to 0,
  never below: a model that is wrong more often than right earns no confidence at all.

The mean square starts from a prior, a usual model's. A step is normalised by no less than the outcome's own
square and a least one, and changes the slope by 5 % of itself and 0.05 at the most. So no single outcome, the
first as little as any, moves the confidence of a usual forecast (0.15 σ√h) by more than 0.01, nor that of one
as far as σ√h by more than 0.025: it takes many that agree.

Outcomes a second apart share all but a second of their horizon: the confidence's step is divided by h.
"""

from __future__ import annotations

import math

from msgspec import Struct

from tickcast.model.forecast import MAX_SLOPE, MAX_WIDTH, Calibration

COVERAGE = 0.8
MIN_WIDTH = 0.05  # units of σ√h: a market at rest must not close the interval altogether
WIDTH_STEP = 0.08
SLOPE_STEP = 0.02
MOST_STEP = 0.05  # of 1 + slope
USUAL_STRENGTH = 0.15  # |move| / σ√h of a usual model's forecasts, root mean square: what is assumed at first
LEAST_STRENGTH = 0.05  # of weaker forecasts nothing is learnt faster than of these
_MEMORY = 0.99  # of the mean square
_PRIOR_OUTCOMES = 10  # what the first mean square counts for


class Calibrator(Struct):
    """One horizon's calibration as it stands after so many `outcomes`."""

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
        """Take in one outcome of a forecast over `horizon_s`: whether the price came to lie inside the
        interval that was given, whether the direction was right (None: there was none, or the price did not
        move), and how far the forecast went, |move| / σ√h.

        It is the interval as it was *given* that counts, not as it would be now: then the long-run share
        holds although outcomes come `horizon_s` late.
        """
        self.outcomes += 1
        step = WIDTH_STEP * (COVERAGE - is_inside)
        self.interval_width = min(max(MIN_WIDTH, self.interval_width * math.exp(step)), MAX_WIDTH)
        if is_right is None:
            return
        kept = min(_MEMORY, 1 - 1 / (_PRIOR_OUTCOMES + self.outcomes))
        self.mean_square = kept * self.mean_square + (1 - kept) * strength**2
        surprise = is_right - self.calibration.confidence(strength, 1.0)
        by = max(self.mean_square, strength**2, LEAST_STRENGTH**2)
        step = SLOPE_STEP / horizon_s * surprise * strength / by
        most = MOST_STEP * (1 + self.direction_slope)
        self.direction_slope = min(max(0.0, self.direction_slope + min(max(-most, step), most)), MAX_SLOPE)
