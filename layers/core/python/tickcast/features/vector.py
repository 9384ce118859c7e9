"""Features: one row of numbers per bar, a pure function of the minute behind it.

Every window ends at or before the bar's end, so no later data can affect a row. Sums over windows are
differences of running *integer* sums, volatility is a sum of integer squares, and everything after them is
elementwise: a row has the same bits whether it is computed alone (serving) or among a million (history).
Every comparison of quantities is one correctly rounded quotient of exact integers (`market.sums`), so that a
row also has the same bits in whatever unit quantities are counted.
Windows of up to five seconds slide with the bars; the units of features (volatility, depth, volume,
intensity) are those of the last 60 whole seconds of the clock.

The newest bar may be partial (`features.ring.View`). Windows keep their length then: they begin within a bar,
of which that share counts that lies in them. So a sum takes the partial bar, the whole ones, and a share of
the oldest; the price at a window's start lies between those at the ends of two bars. With nothing but whole
bars this is the same, to the last bit.

All features are free of scale: moves are in units of volatility, quantities in units of the minute's mean
depth or volume, so one model serves several markets. A feature without a unit in the minute is 0. The
*odd* features change sign when buying and selling are exchanged, the *even* ones do not; the model relies on
that. `sigma_bp` is the volatility itself: it scales the model's output and is not an input of its network.

A group that is absent is *masked*: its features are 0 and so is its flag. Without quotes (REST history, or
a quote stream that stalled) prices are those of the proxy mid (`tickcast.features.bars.proxy_mids`).

| odd feature | unit | definition (source) |
|---|---|---|
| imbalance | -1..1 | (bid qty - ask qty) / (bid qty + ask qty) at the best quotes |
| log_imbalance | 1 | ln(bid qty / ask qty), clipped to ±6, / 3 |
| microprice | σ√s | microprice - mid, each side weighted by the other's quantity (Stoikov 2018), ±6 |
| imbalance_500ms | -1..1 | time-weighted mean of imbalance over 0.5 s |
| ofi_200ms, _1s, _5s | 1 | asinh(order-flow imbalance / mean depth) / 2 (Cont, Kukanov, Stoikov 2014) |
| trade_flow_500ms, _1s, _5s | 1 | asinh(signed trade flow: bought - sold, over mean volume of √window) / 2 |
| vwap_distance | σ√60s | mid - volume-weighted average price of the minute, ±6 |
| return_500ms, _1s, _5s | σ√window | return of the mid over the window, ±6 |

| even feature | unit | definition |
|---|---|---|
| spread | σ√s | ask - bid |
| volatility_5s | 1 | ln(realised volatility of 100 ms returns over 5 s, + 0.05 bp, / σ) / 2 |
| trade_intensity | 1 | ln(1 + trades in 5 s) - ln(1 + their mean) |
| volume_intensity | 1 | ln(1 + volume in 1 s / mean volume per second) |
| quote_intensity | 1 | ln(1 + quotes in 1 s) - ln(1 + their mean) |
| mid_age, trade_age, quote_age | 1 | ln(seconds since the mid moved, a trade, a quote; ≤ 60; + 0.05) / 2 |
| has_quotes, has_trades | 0, 1 | whether a quote is known; whether a trade came within a minute |
| sigma_bp | bp/√s | sqrt(EWMA of squared 1 s returns of the mid, half-life 30 s, + 0.05²) |
"""

from __future__ import annotations

import hashlib
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.features.bars import (
    BAR_US,
    BARS_PER_S,
    SECOND,
    Bars,
    Ints,
    Seconds,
    TwicePrices,
    twice_mids,
    twice_proxy_mids,
    whole_seconds,
)
from tickcast.market.sums import ratio, running, split
from tickcast.units import SECOND_US

ODD_FEATURES = (
    "imbalance",
    "log_imbalance",
    "microprice",
    "imbalance_500ms",
    "ofi_200ms",
    "ofi_1s",
    "ofi_5s",
    "trade_flow_500ms",
    "trade_flow_1s",
    "trade_flow_5s",
    "vwap_distance",
    "return_500ms",
    "return_1s",
    "return_5s",
)
EVEN_FEATURES = (
    "spread",
    "volatility_5s",
    "trade_intensity",
    "volume_intensity",
    "quote_intensity",
    "mid_age",
    "trade_age",
    "quote_age",
    "has_quotes",
    "has_trades",
)
FEATURE_NAMES = (*ODD_FEATURES, *EVEN_FEATURES, "sigma_bp")
QUOTE_FEATURES = (
    "imbalance",
    "log_imbalance",
    "microprice",
    "imbalance_500ms",
    "ofi_200ms",
    "ofi_1s",
    "ofi_5s",
    "spread",
    "quote_intensity",
    "mid_age",
    "quote_age",
)
TRADE_FEATURES = (
    "trade_flow_500ms",
    "trade_flow_1s",
    "trade_flow_5s",
    "vwap_distance",
    "trade_intensity",
    "volume_intensity",
    "trade_age",
)
# Increased when a definition changes under the same name: models trained on the old one are refused.
_DEFINITION = 3
FEATURE_HASH = hashlib.sha256(f"{_DEFINITION}:{','.join(FEATURE_NAMES)}".encode()).hexdigest()[:16]

MIN_RETURNS = 10  # one-second returns before a row is used
MINUTE = 60  # seconds

_SIGMA_FLOOR_BP = 0.05
_MAX_AGE_US = 60 * SECOND_US
# Volatility is summed in whole squares of 1/10,000 bp with whole weights, so that the order of additions does
# not matter; 60 squares of the largest return there may be (500 bp), times 2^10, stay below 2^63.
_RETURN_STEPS, _RETURN_LIMIT = 10_000, 5_000_000
_WEIGHTS = np.rint(2.0**10 * 0.5 ** (np.arange(MINUTE)[::-1] / 30)).astype(np.int64)  # newest last
_WIDTHS = np.array([2, 5, 10, 50])[:, None]  # of windows, in bars: 0.2, 0.5, 1 and 5 s
_, _AT_500MS, _AT_1S, _AT_5S = range(4)
_OF_FLOWS, _OF_OFI = slice(_AT_500MS, None), [0, _AT_1S, _AT_5S]
_FLOW_WIDTHS = _WIDTHS[_OF_FLOWS]
_ROOT_FLOW_S = np.sqrt(_FLOW_WIDTHS / BARS_PER_S)

Floats = npt.NDArray[np.float64]


def feature_rows(bars: Bars, seconds: Seconds, newest: int) -> Floats:
    """Features as of the last `newest` rows of `bars`, float64 of shape (newest, len(FEATURE_NAMES)).

    `seconds` are the whole seconds up to the last bar. A feature whose window reaches further back than the
    data uses the data there is. A row without a price, or with less than `MIN_RETURNS` of
    them in its minute, is NaN; all others are finite. Raises ValueError when `bars` has fewer rows, and on
    more than one row of bars whose last is partial.
    """
    if newest > len(bars):
        raise ValueError(f"features of {newest} rows asked of {len(bars)} bars")
    if not newest or not len(seconds):
        return np.full((newest, len(FEATURE_NAMES)), np.nan)
    back = _LookBack(bars, newest)
    minute = _minute_of(seconds.tobytes()) if newest == 1 else _Minute(seconds, back.now("end_us"))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = _columns(back, minute)
    table = np.empty((len(FEATURE_NAMES), newest))
    for at, name in enumerate(FEATURE_NAMES):
        table[at] = columns[name]
    rows = np.ascontiguousarray(table.T)
    for flag, group in (("has_quotes", QUOTE_FEATURES), ("has_trades", TRADE_FEATURES)):
        if not columns[flag].all():
            absent = ~columns[flag]
            for name in group:
                rows[absent, FEATURE_NAMES.index(name)] = 0.0
    rows[(back.price <= 0) | (minute.returns < MIN_RETURNS)] = np.nan
    return rows


def history_rows(bars: Bars) -> Floats:
    """Features as of every row of a segment of history. Shape (bars, len(FEATURE_NAMES))."""
    return feature_rows(bars, whole_seconds(bars), len(bars))


def _columns(back: _LookBack, minute: _Minute) -> dict[str, npt.NDArray[Any]]:
    """Every feature by name, before the absent groups are masked; each of shape (rows,)."""
    sigma, now, totals, parts = minute.sigma_bp, back.now, back.totals, back.parts
    bid_qty, ask_qty, end_us = split(now("bid_qty")), split(now("ask_qty")), now("end_us")
    imbalance = ratio(bid_qty - ask_qty, bid_qty + ask_qty)
    spread = (now("ask_price") - now("bid_price")) / back.price * 1e4 / sigma
    from_vwap = (back.price / minute.vwap - 1) * 1e4 / (sigma * np.sqrt(MINUTE))
    bought, sold = totals["buy_qty"], totals["sell_qty"]
    volume_1s = bought[:, _AT_1S] + sold[:, _AT_1S]
    trades_5s, quotes_1s = totals["trade_count"][_AT_5S], totals["quote_count"][_AT_1S]

    flows = np.arcsinh(minute.by_volume((bought - sold)[:, _OF_FLOWS]) / parts / _ROOT_FLOW_S) / 2
    ofis = np.arcsinh(minute.by_depth(totals["ofi"][:, _OF_OFI]) / parts) / 2
    returns = _limited(back.returns_bp(_FLOW_WIDTHS) / (sigma * _ROOT_FLOW_S))
    since_us = np.stack([now("mid_change_us"), now("last_trade_us"), now("last_quote_us")])
    ages = np.log(np.minimum(end_us - since_us, _MAX_AGE_US) / SECOND_US + 0.05) / 2
    trade_us = since_us[1]
    return {
        "imbalance": imbalance,
        "log_imbalance": _limited(np.log(ratio(bid_qty, ask_qty))) / 3,
        "microprice": _limited(imbalance * spread / 2),
        "imbalance_500ms": totals["imbalance_us"][_AT_500MS] / totals["quoted_us"][_AT_500MS] / 1e6,
        "ofi_200ms": ofis[0],
        "ofi_1s": ofis[1],
        "ofi_5s": ofis[2],
        "trade_flow_500ms": flows[0],
        "trade_flow_1s": flows[1],
        "trade_flow_5s": flows[2],
        "vwap_distance": np.where(minute.vwap > 0, _limited(from_vwap), 0.0),
        "return_500ms": returns[0],
        "return_1s": returns[1],
        "return_5s": returns[2],
        "spread": spread,
        "volatility_5s": np.log((back.volatility_bp(_WIDTHS[_AT_5S:]) + _SIGMA_FLOOR_BP) / sigma) / 2,
        "trade_intensity": np.log1p(trades_5s / parts) - np.log1p(5 * minute.per_second("trade_count")),
        "volume_intensity": np.log1p(minute.by_volume(volume_1s) / parts),
        "quote_intensity": np.log1p(quotes_1s / parts) - np.log1p(minute.per_second("quote_count")),
        "mid_age": ages[0],
        "trade_age": ages[1],
        "quote_age": ages[2],
        "has_quotes": back.is_quoted,
        "has_trades": (trade_us > 0) & (end_us - trade_us <= _MAX_AGE_US),
        "sigma_bp": sigma,
    }


def _limited(values: Floats) -> Floats:
    return np.minimum(np.maximum(values, -6.0), 6.0)  # as np.clip, at a third of its fixed cost


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


class _LookBack:
    """The bars behind each of the last `newest` ones; widths count bars of 100 ms. Shapes (newest,).

    All sums are in units of 1/`parts`: where the last bar is partial, in those of 1/100, the share of a bar
    that is a millisecond's.
    """

    _SUMMED = ("trade_count", "quote_count", "buy_qty", "sell_qty", "ofi", "imbalance_us", "quoted_us")

    def __init__(self, bars: Bars, newest: int) -> None:
        self._bars = bars
        self._newest = newest
        self._rows = np.arange(len(bars) - newest, len(bars))
        self._elapsed_ms = int(bars["end_us"][-1]) % BAR_US // 1000  # of the partial bar; 0: it is whole
        self.parts = BAR_US // 1000 if self._elapsed_ms else 1
        if self._elapsed_ms and newest > 1:
            raise ValueError(f"features of {newest} rows asked of bars whose last is partial")
        self._twice = twice_mids(bars)
        # The proxy is for rows without quotes: with none of these, nothing asks for it.
        self._proxy = self._twice if self._twice.all() else twice_proxy_mids(bars)
        windows = self._windows(running(_columns_of(bars, self._SUMMED)), _WIDTHS)
        # The sums over windows, times `parts`, by name: ([limbs,] widths, newest).
        self.totals = _by_name(windows, bars.dtype, self._SUMMED)
        self.is_quoted = self._twice[-newest:] > 0
        self.price: Floats = np.where(self.is_quoted, self._twice[-newest:], self._proxy[-newest:]) / 2

    def now(self, name: str) -> Ints:
        return np.asarray(self._bars[name][-self._newest :])

    def returns_bp(self, widths: Ints) -> Floats:
        """Returns over `widths`, (widths, 1), in bp; 0 if the price was not known from the same source at its
        start. Shape (widths, newest)."""
        start = self._rows - widths
        inside = np.maximum(start, 0)
        before = np.where(self.is_quoted, self._twice[inside], self._proxy[inside]) / 2
        is_known = (before > 0) & (start >= 0)
        if self._elapsed_ms:  # the window begins within the bar that ends at `start`
            earlier = np.maximum(start - 1, 0)
            at_its_start = np.where(self.is_quoted, self._twice[earlier], self._proxy[earlier]) / 2
            is_known &= (at_its_start > 0) & (start >= 1)
            before = at_its_start + (before - at_its_start) * (self._elapsed_ms / self.parts)
        return np.where(is_known, (self.price / np.maximum(before, 1) - 1) * 1e4, 0.0)

    def volatility_bp(self, width: Ints) -> Floats:
        """Realised volatility of the returns from bar to bar over `width` bars, (1, 1), in bp per √s."""
        squares, _ = _squared_returns(self._twice, self._proxy)
        total = self._windows(running(squares), width) / self.parts
        return np.asarray(np.sqrt(total[0] / (width[0] / BARS_PER_S)) / _RETURN_STEPS)

    def _windows(self, sums: Ints, widths: Ints) -> Ints:
        """Of running `sums` along the last axis, those over windows of `widths`, (widths, 1), times `parts`.
        Shape (..., widths, newest)."""
        rows = self._rows + 1
        start = np.maximum(rows - widths, 0)
        totals = np.asarray(sums[..., rows[None]] - sums[..., start])
        if self._elapsed_ms:
            oldest = sums[..., start] - sums[..., np.maximum(start - 1, 0)]
            totals = self.parts * totals + (self.parts - self._elapsed_ms) * oldest
        return totals


class _Minute:
    """The units of features: the last 60 whole seconds before each of `ends_us`, in its shape.

    `returns` counts the known one-second returns in it; all means are over the seconds with a price.
    """

    _SUMMED = ("trade_count", "quote_count", "buy_qty", "sell_qty", "notional", "depth", "quoted_bars")

    def __init__(self, seconds: Seconds, ends_us: Ints) -> None:
        squares, known = _squared_returns(seconds["mid2"], seconds["proxy2"])
        is_priced = (seconds["mid2"] > 0) | (seconds["proxy2"] > 0)
        columns = _columns_of(seconds, self._SUMMED)
        sums = running(np.concatenate([columns, is_priced[None], known[None]]))
        # The number of whole seconds before each; without any the row will be NaN.
        count = np.searchsorted(seconds["end_us"], ends_us, side="right")
        totals = sums[:, count] - sums[:, np.maximum(count - MINUTE, 0)]
        self._sums = _by_name(totals[:-2], seconds.dtype, self._SUMMED)
        self._spans = np.maximum(totals[-2], 1)
        self.returns: Ints = totals[-1]
        self.sigma_bp = _ewma_volatility(squares, known, np.maximum(count - 1, 0))

    def per_second(self, name: str) -> Floats:
        """The mean of a count over a second."""
        return np.asarray(self._sums[name] / self._spans)

    def by_volume(self, qty: Ints) -> Floats:
        """Quantities, as limbs (2, ..., rows), in units of the mean volume of a second; 0 without a trade."""
        return ratio(qty, self._volume, self._spans)

    def by_depth(self, qty: Ints) -> Floats:
        """Quantities, as limbs (2, ..., rows), in units of the mean of (bid quantity + ask quantity) / 2 over
        the quoted bars; 0 where there are none."""
        return ratio(qty, self._sums["depth"], 2 * self._sums["quoted_bars"])

    @cached_property
    def vwap(self) -> Floats:
        """Volume-weighted average price, 1e-8; 0 without a trade."""
        return ratio(self._sums["notional"], self._volume)

    @cached_property
    def _volume(self) -> Ints:
        return np.asarray(self._sums["buy_qty"] + self._sums["sell_qty"])


@lru_cache(maxsize=256)
def _minute_of(seconds: bytes) -> _Minute:
    """The minute up to the last of `seconds`, the bytes of their rows. Serving asks for it ten times before
    there is another second."""
    rows = np.frombuffer(seconds, SECOND)
    return _Minute(rows, rows["end_us"][-1:])


def _columns_of(rows: Bars | Seconds, names: tuple[str, ...]) -> Ints:
    """The fields `names` of `rows` as columns, one for each limb. Shape (columns, rows)."""
    words = rows.view(np.int64).reshape(len(rows), -1)  # every field is of 64 bits, or of several such limbs
    return np.ascontiguousarray(words[:, _places(rows.dtype, names)].T)


@cache
def _places(dtype: np.dtype[Any], names: tuple[str, ...]) -> list[int]:
    """Where the limbs of the fields `names` are in a row, in words of 64 bits."""
    found = []
    for name in names:
        assert dtype.fields is not None
        kind, offset = dtype.fields[name][:2]
        found += [offset // 8 + limb for limb in range(kind.itemsize // 8)]
    return found


def _by_name(columns: Ints, dtype: np.dtype[Any], names: tuple[str, ...]) -> dict[str, Ints]:
    """The consecutive `columns` of the fields `names` of `dtype`, by name: those with limbs together."""
    found, at = {}, 0
    for name in names:
        limbs = dtype[name].shape
        found[name] = columns[at : at + limbs[0]] if limbs else columns[at]
        at += limbs[0] if limbs else 1
    return found


def _ewma_volatility(squares: Ints, known: Ints, at: Ints) -> Floats:
    """Volatility in bp per √s as of each of the seconds `at`, which rise. Shape of `at`."""
    if len(at) == 1:  # as below, without the padding
        back = slice(max(0, int(at[0]) + 1 - MINUTE), int(at[0]) + 1)
        weights = _WEIGHTS[back.start - back.stop :]
        squared, weight = (np.atleast_1d(values[back] @ weights) for values in (squares, known))
        return _root_of_mean(squared, weight)
    first = int(at[0])
    seconds = np.arange(first, int(at[-1]) + 1)
    padded = np.zeros((2, MINUTE - 1 + len(squares)), np.int64)
    padded[0, MINUTE - 1 :], padded[1, MINUTE - 1 :] = squares, known
    squared, weight = padded[:, seconds[:, None] + np.arange(MINUTE)] @ _WEIGHTS
    return _root_of_mean(squared, weight)[at - first]


def _root_of_mean(squared: Ints, weight: Ints) -> Floats:
    """Volatility in bp per √s, of weighted sums of squares and their weights."""
    variance = squared / np.maximum(weight, _WEIGHTS[-1]) / _RETURN_STEPS**2
    return np.asarray(np.sqrt(variance + _SIGMA_FLOOR_BP**2))
