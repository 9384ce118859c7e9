"""The exchange's clock, estimated from the ticks of one connection: which of their times are plausible.

A tick cannot be ahead of the exchange's clock, and the ticks of one connection arrive in its order. The
offset of the exchange's clock from the local one is estimated from the ticks, so a host clock that is off by
a constant causes no refusals. A delayed tick is valid, however old, unless it falls behind the ticks before
it.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tickcast.units import DAY_US

AHEAD_US = 2_000_000  # of the estimated exchange clock
BEHIND_US = 5_000_000  # the earlier ticks of the same connection
MAX_CLOCK_ERROR_US = DAY_US  # a time further off is in another unit, or damaged
AGREEING_FRAMES = 3  # with the same new offset, and none with the known one: the clock is off
UNDECIDED_FRAMES = 16  # after this many without agreement they are refused
CLAIM_SPARE_US = 250_000  # a tick may arrive this much faster than usual

_CLOCK_SAMPLES, _SAMPLE_US = 60, 1_000_000  # a minute of one median a second
_UPPER_QUARTILE = 0.75  # ticks are delayed for seconds now and then, and never early

Ints = npt.NDArray[np.int64]
Timings = npt.NDArray[np.int8]  # of `Timing`


class Timing(IntEnum):
    """How the time of a tick compares with the exchange's clock."""

    FITS = 0
    AHEAD = 1
    BEHIND = 2
    UNDECIDED = 3  # not enough ticks yet


TIMING_REASONS = {
    Timing.AHEAD: "a time ahead of the clock",
    Timing.BEHIND: "a time behind the ticks before it",
}


class ExchangeClock:
    """The offset of the exchange's clock from the local one, estimated from the ticks of one connection."""

    def __init__(self) -> None:
        self.offset_us = 0.0  # exchange minus local, including the usual delay; 0 before the first tick
        self._samples: deque[float] = deque(maxlen=_CLOCK_SAMPLES)
        self._sampled_us = -1
        self._newest_us: int | None = None  # exchange time of the newest tick that fits

    def classify(self, time_us: Ints, received_us: Ints) -> Timings:
        """The `Timing` of each tick, by its exchange time and local receive time (µs). Shapes (ticks,).

        Pass undecided ticks again together with the next ones, until some fit or enough agree on another
        offset.
        """
        ahead_us = time_us - received_us
        error_us = ahead_us - self.offset_us
        if ((error_us <= AHEAD_US) & (error_us >= -BEHIND_US)).all():
            timings = np.zeros(len(time_us), np.int8)
        else:
            timings = self._one_by_one(time_us, received_us)
            if not (timings == Timing.FITS).any():
                self._reset_offset(time_us, received_us, timings)
        fits = timings == Timing.FITS
        if fits.any():
            self._update(time_us[fits], received_us[fits])
        return timings

    def latest_us(self, received_us: int) -> int:
        """The latest exchange time (µs) that may be claimed when the newest tick was received at
        `received_us`: a tick further ahead may still pass, but proves nothing about the other streams."""
        return received_us + int(self.offset_us) + CLAIM_SPARE_US

    def _one_by_one(self, time_us: Ints, received_us: Ints) -> Timings:
        """Classify tick by tick: after a stall, a late tick may still continue those before it."""
        timings, newest_us = np.zeros(len(time_us), np.int8), self._newest_us
        order = np.argsort(received_us, kind="stable")
        for row, at_us, received_at_us in zip(
            order.tolist(), time_us[order].tolist(), received_us[order].tolist(), strict=True
        ):
            error_us = at_us - received_at_us - self.offset_us
            continues = newest_us is not None and at_us >= newest_us - BEHIND_US
            if error_us > AHEAD_US:
                timings[row] = Timing.AHEAD
            elif error_us < -BEHIND_US and not continues:
                timings[row] = Timing.BEHIND
            else:
                newest_us = at_us if newest_us is None else max(newest_us, at_us)
        return timings

    def _reset_offset(self, time_us: Ints, received_us: Ints, timings: Timings) -> None:
        """No tick fits: adopt another offset if enough frames agree on it. Changes `timings` in place."""
        ahead_us = (time_us - received_us).astype(float)
        possible = np.abs(ahead_us) <= MAX_CLOCK_ERROR_US
        if not possible.any():
            return
        offset_us = float(np.median(ahead_us[possible]))
        agrees = possible & (np.abs(ahead_us - offset_us) <= AHEAD_US)
        if _frames(time_us[agrees], received_us[agrees]) >= AGREEING_FRAMES:
            self.offset_us, self._newest_us = offset_us, None
            self._samples.clear()
            self._sampled_us = -1
            timings[agrees] = Timing.FITS
        elif _frames(time_us[possible], received_us[possible]) < UNDECIDED_FRAMES:
            timings[possible] = Timing.UNDECIDED

    def _update(self, time_us: Ints, received_us: Ints) -> None:
        newest_us, received_at_us = int(time_us.max()), int(received_us.max())
        self._newest_us = newest_us if self._newest_us is None else max(self._newest_us, newest_us)
        if received_at_us - self._sampled_us >= _SAMPLE_US or self._sampled_us < 0:
            self._sampled_us = received_at_us
            self._samples.append(float(np.median(time_us - received_us)))
            self.offset_us = float(np.quantile(self._samples, _UPPER_QUARTILE))


def _frames(time_us: Ints, received_us: Ints) -> int:
    """How many frames the ticks came in: the ticks of a frame share both times."""
    return len(set(zip(time_us.tolist(), received_us.tolist(), strict=True)))
