"""What features are computed from: sums and returns over windows of bars, and the units of the minute.

Formulas are written for `AnyWindows` and `AnyMinute`. These have two forms with, for whole bars, the same
results to the last bit: `Windows` and `Minutes` are arrays for many rows (history), `NewestWindows` and
`NewestMinute` are numbers for the newest row (serving). Exact integers are limbs in the one (`market.sums`),
Python's integers in the other.

The newest bar may be partial (`features.ring.View`). Windows keep their length then: they begin within a bar,
of which that share counts that lies in them. So a sum takes the partial bar, the whole ones, and a share of
the oldest; the price at a window's start lies between those at the ends of two bars. With nothing but whole
bars this is the same, to the last bit. Only the newest row can have such a bar behind it.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tickcast.features.bars import (
    BAR,
    BAR_US,
    BARS_PER_S,
    BASIS_STEPS,
    REFERENCE_LIFE_US,
    SECOND,
    Bars,
    Ints,
    Seconds,
    TwicePrices,
    basis,
    deviations,
    mean_weights,
    twice_mids,
    twice_proxy_mids,
)
from tickcast.market.sums import LIMB_BITS, ratio, running, split

WIDTHS = (2, 5, 10, 50)  # of windows, in bars: 0.2, 0.5, 1 and 5 s
MINUTE = 60  # seconds
SIGMA_FLOOR_BP = 0.05
DEVIATION_FLOOR_BP = 0.05
MIN_DEVIATIONS = 10  # of the basis, at the ends of seconds, before it has a unit

# Volatility is summed in whole squares of 1/10,000 bp with whole weights, so that the order of additions does
# not matter; 60 squares of the largest return there may be (500 bp), times 2^10, stay below 2^63.
_RETURN_STEPS, _RETURN_LIMIT = 10_000, 5_000_000
_WEIGHTS, _DEVIATION_WEIGHTS = (  # newest last
    np.rint(2.0**10 * 0.5 ** (np.arange(MINUTE)[::-1] / half_life)).astype(np.int64) for half_life in (30, 60)
)

Floats = npt.NDArray[np.float64]
Numbers = Any  # a number of the newest row, or an array of many rows


class _Fields:
    """Some fields of a row's type, each of one word of 64 bits, or of several such limbs (`market.sums`)."""

    def __init__(self, dtype: np.dtype[Any], *names: str) -> None:
        assert dtype.fields is not None
        self._places: dict[str, slice] = {}  # by name, its place among the columns
        self.limbs: dict[str, range] = {}  # by name, the places of its limbs, the highest first
        self._words: list[int] = []  # where the columns are in a row
        for name in names:
            kind, offset = dtype.fields[name][:2]
            found, first = range(offset // 8, (offset + kind.itemsize) // 8), len(self._words)
            self._words += found
            self._places[name] = slice(first, first + len(found))
            self.limbs[name] = range(first, first + len(found))[::-1]

    def columns(self, rows: Bars | Seconds) -> Ints:
        """The fields of `rows` as columns, one for each limb. Shape (columns, rows)."""
        words = rows.view(np.int64).reshape(len(rows), -1)
        return np.ascontiguousarray(words[:, self._words].T)

    def newest(self, rows: Bars | Seconds) -> dict[str, int]:
        """The last of `rows` by name, where all fields are of one word."""
        words: list[int] = rows[-1:].view(np.int64).tolist()
        return {name: words[at] for name, at in zip(self._places, self._words, strict=True)}

    def by_name(self, columns: Ints) -> dict[str, Ints]:
        """`columns` by name: those with limbs together."""
        found = {name: columns[place] for name, place in self._places.items()}
        return {name: limbs if len(limbs) > 1 else limbs[0] for name, limbs in found.items()}

    def integers(self, row: list[int]) -> dict[str, int]:
        """The values of one row of columns, by name."""
        found = {}
        for name, place in self._places.items():
            *lower, value = row[place]
            for limb in reversed(lower):
                value = (value << LIMB_BITS) + limb
            found[name] = value
        return found


_OF_BAR = _Fields(
    BAR, "trade_count", "quote_count", "buy_qty", "sell_qty", "ofi", "imbalance_us", "quoted_us"
)
_OF_SECOND = _Fields(
    SECOND, "trade_count", "quote_count", "buy_qty", "sell_qty", "notional", "depth", "quoted_bars"
)
_NOW = _Fields(
    BAR,
    *("end_us", "bid_price", "bid_qty", "ask_price", "ask_qty"),
    *("last_trade_us", "last_quote_us", "mid_change_us"),
    *("reference_bid_price", "reference_bid_qty", "reference_ask_price", "reference_ask_qty", "reference_us"),
)


class AnyWindows(Protocol):
    """The bars up to a row; `width` counts bars and is one of `WIDTHS`. Quantities and sums are exact."""

    is_quoted: Numbers  # whether the mid is known
    price: Numbers  # the mid, else the proxy mid, 1e-8; 0 where neither is known
    has_reference: Numbers  # whether the basis is known
    deviation_bp: Numbers  # of the basis from its mean; 0 where it is not known

    @property
    def parts(self) -> int:
        """Sums are in units of 1/`parts`."""

    def now(self, name: str) -> Numbers:
        """A field of the newest bar."""

    def quantity(self, name: str) -> Numbers:
        """A quantity of the newest bar."""

    def total(self, name: str, width: int) -> Numbers:
        """The sum of a field over `width` bars, times `parts`."""

    def ratio(self, numerator: Numbers, denominator: Numbers) -> Numbers:
        """The quotient of quantities, correctly rounded; 0 where the denominator is."""

    def mean_imbalance(self, width: int) -> Numbers:
        """The time-weighted mean of the book's imbalance; NaN where no book was known."""

    def distance_bp(self, price: Numbers) -> Numbers:
        """How far the price is above `price`, in bp; 0 where that is 0."""

    def return_bp(self, width: int) -> Numbers:
        """The return of the price, in bp; 0 where it was not known from the same source at its start."""

    def volatility_bp(self, width: int) -> Numbers:
        """Realised volatility of the returns from bar to bar, in bp per √s."""


class AnyMinute(Protocol):
    """The units of features: the last 60 whole seconds before a row. Means are over those with a price."""

    returns: Numbers  # the number of one-second returns that are known
    sigma_bp: Numbers  # volatility in bp per √s
    deviation_bp: Numbers  # root mean square of the basis' deviations; ∞ with too few of them

    @property
    def vwap(self) -> Numbers:
        """Volume-weighted average price, 1e-8; 0 without a trade."""

    def per_second(self, name: str) -> Numbers:
        """The mean of a count over a second."""

    def by_volume(self, qty: Numbers) -> Numbers:
        """A quantity in units of the mean volume of a second; 0 without a trade."""

    def by_depth(self, qty: Numbers) -> Numbers:
        """A quantity in units of the mean of (bid quantity + ask quantity) / 2 over the quoted bars; 0 where
        there are none."""


class Windows:
    """The bars behind each of the last `newest` ones, all of them whole. Shapes (newest,), of quantities (2,
    newest)."""

    parts = 1  # sums are in units of 1/`parts`

    def __init__(self, bars: Bars, newest: int) -> None:
        if int(bars["end_us"][-1]) % BAR_US:
            raise ValueError(f"{newest} rows of features requested, but the last bar is partial")
        self._bars = bars
        self._newest = newest
        self._rows = np.arange(len(bars) - newest, len(bars))
        self._twice, self._proxy = _twice_prices(bars)
        self._sums = _OF_BAR.by_name(running(_OF_BAR.columns(bars)))
        self.is_quoted = self._twice[-newest:] > 0
        self.price: Floats = self._prices(self._rows)
        self.has_reference, self.deviation_bp = np.zeros(newest, bool), np.zeros(newest)
        if bars["reference_us"][-newest:].any():
            steps, known = basis(bars, self._twice)
            self.has_reference = known[-newest:] > 0
            self.deviation_bp = deviations(steps, known)[-newest:] / BASIS_STEPS

    def now(self, name: str) -> Ints:
        return np.asarray(self._bars[name][-self._newest :])

    def quantity(self, name: str) -> Ints:
        return split(self.now(name))

    def total(self, name: str, width: int) -> Ints:
        return self._window(self._sums[name], width)

    def ratio(self, numerator: Ints, denominator: Ints) -> Floats:
        return ratio(numerator, denominator)

    def mean_imbalance(self, width: int) -> Floats:
        return np.asarray(self.total("imbalance_us", width) / self.total("quoted_us", width) / 1e6)

    def distance_bp(self, price: Floats) -> Floats:
        return np.where(price > 0, (self.price / price - 1) * 1e4, 0.0)

    def return_bp(self, width: int) -> Floats:
        start = self._rows - width
        before = self._prices(np.maximum(start, 0))
        is_known = (before > 0) & (start >= 0)
        return np.where(is_known, (self.price / np.maximum(before, 1) - 1) * 1e4, 0.0)

    def volatility_bp(self, width: int) -> Floats:
        squares, _ = _squared_returns(self._twice, self._proxy)
        total = self._window(running(squares), width)
        return np.asarray(np.sqrt(total / (width / BARS_PER_S)) / _RETURN_STEPS)

    def _prices(self, rows: Ints) -> Floats:
        """Of the source of the newest rows' prices; 0 where unknown."""
        return np.where(self.is_quoted, self._twice[rows], self._proxy[rows]) / 2

    def _window(self, sums: Ints, width: int) -> Ints:
        """Of running `sums` along the last axis, those over windows."""
        rows = self._rows + 1
        return np.asarray(sums[..., rows] - sums[..., np.maximum(rows - width, 0)])


class NewestWindows:
    """The bars behind the newest one, which may be partial.

    All sums are in units of 1/`parts`: where the last bar is partial, in those of 1/100, the share of a bar
    that is a millisecond's.
    """

    def __init__(self, bars: Bars) -> None:
        self._newest = _NOW.newest(bars)
        self._elapsed_ms = self.now("end_us") % BAR_US // 1000  # of the partial bar; 0: it is whole
        self.parts = BAR_US // 1000 if self._elapsed_ms else 1
        self._twice_prices = _twice_prices(bars)
        twice: list[int] = self._twice_prices[0].tolist()
        self.is_quoted = twice[-1] > 0
        self._prices = twice if self.is_quoted else self._twice_prices[1].tolist()
        self.price: float = self._prices[-1] / 2
        self.has_reference, self.deviation_bp = self._basis(bars)
        starts = [max(len(bars) - width, 0) for width in WIDTHS]
        sums = running(_OF_BAR.columns(bars)).T
        # Up to the end, up to each window's start, and up to the bar before that.
        end, *others = sums[[len(bars), *starts, *(max(start - 1, 0) for start in starts)]].tolist()
        self._end: list[int] = end
        self._starts: dict[int, tuple[list[int], list[int]]] = dict(
            zip(WIDTHS, zip(others[: len(WIDTHS)], others[len(WIDTHS) :], strict=True), strict=True)
        )

    def _basis(self, bars: Bars) -> tuple[bool, float]:
        """Whether the basis is known, and its deviation, bp."""
        if not self.is_quoted or self.now("end_us") - self.now("reference_us") > REFERENCE_LIFE_US:
            return False, 0.0
        weights = mean_weights(self._elapsed_ms)[-len(bars) :]
        steps, known = basis(bars[-len(weights) :], self._twice_prices[0][-len(weights) :])
        if not known[-1]:
            return False, 0.0
        mean = int(steps @ weights) / int(known @ weights)
        return True, (int(steps[-1]) - mean) / BASIS_STEPS

    def now(self, name: str) -> int:
        return self._newest[name]

    def quantity(self, name: str) -> int:
        return self.now(name)

    def total(self, name: str, width: int) -> int:
        start, before = self._starts[width]
        total = 0
        for place in _OF_BAR.limbs[name]:  # the highest first
            limb = self._end[place] - start[place]
            if self._elapsed_ms:
                limb = self.parts * limb + (self.parts - self._elapsed_ms) * (start[place] - before[place])
            total = (total << LIMB_BITS) + limb
        return total

    def ratio(self, numerator: int, denominator: int) -> float:
        return numerator / denominator if denominator else 0.0

    def mean_imbalance(self, width: int) -> float:
        quoted_us = self.total("quoted_us", width)
        return self.total("imbalance_us", width) / quoted_us / 1e6 if quoted_us else math.nan

    def distance_bp(self, price: float) -> float:
        return (self.price / price - 1) * 1e4 if price > 0 else 0.0

    def return_bp(self, width: int) -> float:
        start = len(self._prices) - 1 - width
        if start < (1 if self._elapsed_ms else 0):
            return 0.0
        before = self._prices[start] / 2
        if self._elapsed_ms:  # the window begins within the bar that ends at `start`
            earlier = self._prices[start - 1] / 2
            if earlier <= 0:
                return 0.0
            share = self._elapsed_ms / self.parts
            before, is_known = earlier + (before - earlier) * share, before > 0
        else:
            is_known = before > 0
        return (self.price / max(before, 1) - 1) * 1e4 if is_known else 0.0

    def volatility_bp(self, width: int) -> float:
        squares, _ = _squared_returns(*self._twice_prices)
        start = max(len(squares) - width, 0)
        total = int(squares[start:].sum()) * self.parts
        if self._elapsed_ms and start:
            total += int(squares[start - 1]) * (self.parts - self._elapsed_ms)
        return math.sqrt(float(total) / self.parts / (width / BARS_PER_S)) / _RETURN_STEPS


class Minutes:
    """The minutes before each of `ends_us`, in its shape; quantities have limbs before it."""

    def __init__(self, seconds: Seconds, ends_us: Ints) -> None:
        squares, known = _squared_returns(seconds["mid2"], seconds["proxy2"])
        is_priced = (seconds["mid2"] > 0) | (seconds["proxy2"] > 0)
        columns = _OF_SECOND.columns(seconds)
        deviations_known = seconds["deviation_known"]
        sums = running(np.concatenate([columns, is_priced[None], known[None], deviations_known[None]]))
        # The number of whole seconds before each; without any the row will be NaN.
        count = np.searchsorted(seconds["end_us"], ends_us, side="right")
        totals = sums[:, count] - sums[:, np.maximum(count - MINUTE, 0)]
        self.totals = totals[:-3]
        self.sums = _OF_SECOND.by_name(self.totals)
        self.spans = np.maximum(totals[-3], 1)
        self.returns: Ints = totals[-2]
        at = np.maximum(count - 1, 0)
        variance = _ewma(squares, known, at, _WEIGHTS) / _RETURN_STEPS**2
        self.sigma_bp: Floats = np.sqrt(variance + SIGMA_FLOOR_BP**2)
        is_enough = totals[-1] >= MIN_DEVIATIONS
        self.deviation_bp: Floats = np.full(is_enough.shape, np.inf)
        if is_enough.any():
            squared = _ewma(seconds["deviation"] ** 2, deviations_known, at, _DEVIATION_WEIGHTS)
            found = np.maximum(np.sqrt(squared) / BASIS_STEPS, DEVIATION_FLOOR_BP)
            self.deviation_bp = np.where(is_enough, found, np.inf)

    def per_second(self, name: str) -> Floats:
        return np.asarray(self.sums[name] / self.spans)

    def by_volume(self, qty: Ints) -> Floats:
        return ratio(qty, self.volume, self.spans)

    def by_depth(self, qty: Ints) -> Floats:
        return ratio(qty, self.sums["depth"], 2 * self.sums["quoted_bars"])

    @cached_property
    def vwap(self) -> Floats:
        return ratio(self.sums["notional"], self.volume)

    @cached_property
    def volume(self) -> Ints:
        return np.asarray(self.sums["buy_qty"] + self.sums["sell_qty"])


class NewestMinute:
    """`Minutes` of the last of `seconds` alone, as numbers."""

    def __init__(self, seconds: Seconds) -> None:
        minute = Minutes(seconds, seconds["end_us"][-1:])
        self._sums = _OF_SECOND.integers(minute.totals[:, 0].tolist())
        self._spans = int(minute.spans[0])
        self._volume = self._sums["buy_qty"] + self._sums["sell_qty"]
        self.returns = int(minute.returns[0])
        self.sigma_bp = float(minute.sigma_bp[0])
        self.deviation_bp = float(minute.deviation_bp[0])
        self.vwap = float(minute.vwap[0])

    def per_second(self, name: str) -> float:
        return self._sums[name] / self._spans

    def by_volume(self, qty: int) -> float:
        return qty * self._spans / self._volume if self._volume else 0.0

    def by_depth(self, qty: int) -> float:
        depth = self._sums["depth"]
        return qty * 2 * self._sums["quoted_bars"] / depth if depth else 0.0


def _twice_prices(bars: Bars) -> tuple[TwicePrices, TwicePrices]:
    """Twice the mids and the proxy mids of `bars`; the mids in place of these where all are known, for then
    nothing asks for a proxy."""
    twice = twice_mids(bars)
    return twice, twice if twice.all() else twice_proxy_mids(bars)


def _squared_returns(twice: TwicePrices, proxy: TwicePrices) -> tuple[Ints, Ints]:
    """Squared returns from row to row in (1/10,000 bp)², and 1 where they are known: both ends from quotes,
    or both from the proxy. `twice` and `proxy` are twice the price, 0 where unknown. Shapes (rows,)."""
    returns, known = np.zeros(len(twice)), np.zeros(len(twice), np.int64)
    if twice.all():  # as below, without the masks
        returns[1:], known[1:] = (twice[1:] / twice[:-1] - 1) * 1e4, 1
    else:
        for prices in (proxy, twice):  # quotes last: they take precedence
            start, end = prices[:-1], prices[1:]
            both = (start > 0) & (end > 0)
            returns[1:] = np.where(both, (end / np.maximum(start, 1) - 1) * 1e4, returns[1:])
            known[1:] |= both
    limit = _RETURN_LIMIT
    steps = np.rint(np.minimum(np.maximum(returns * _RETURN_STEPS, -limit), limit)).astype(np.int64)
    return steps * steps, known


def _ewma(squares: Ints, known: Ints, at: Ints, weights: Ints) -> Floats:
    """The weighted mean of the known ones of `squares` in the minute up to each of the seconds `at`, which
    rise. Shape of `at`."""
    first = int(at[0])
    seconds = np.arange(first, int(at[-1]) + 1)
    padded = np.zeros((2, MINUTE - 1 + len(squares)), np.int64)
    padded[0, MINUTE - 1 :], padded[1, MINUTE - 1 :] = squares, known
    total, weight = padded[:, seconds[:, None] + np.arange(MINUTE)] @ weights
    return np.asarray((total / np.maximum(weight, weights[-1]))[at - first])
