"""Features: one row of numbers per bar, a pure function of the minute behind it.

Every window ends at or before the bar's end, so no later data can affect a row. Sums over windows are
differences of running *integer* sums, volatility is a sum of integer squares, and everything after them is
elementwise: a row has the same bits whether it is computed alone (serving) or among a million (history). Both
use the formulas below, once with numbers and once with arrays.
Every comparison of quantities is one correctly rounded quotient of exact integers (`market.sums`), so that a
row also has the same bits in whatever unit quantities are counted.
Windows of up to five seconds slide with the bars; the units of features (volatility, depth, volume,
intensity) are those of the last 60 whole seconds of the clock (`features.windows`).

All features are free of scale: moves are in units of volatility, quantities in units of the minute's mean
depth or volume, so one model serves several markets. A feature without a unit in the minute is 0. The
*odd* features change sign when buying and selling are exchanged, the *even* ones do not; the model relies on
that. `sigma_bp` is the volatility itself: it scales the model's output and is not an input of its network.

The perpetual of the same base leads: its best prices, the *reference*, give two odd features of their own.
They are no inputs of the network, but of a correction on top of it (`model.reference`). The basis is
b = ln(perpetual's mid / mid) in bp, its deviation b - EWMA(b, half-life 2 s), over the bars of five seconds;
that over its root mean square (EWMA of its squares at the ends of the minute's seconds, half-life 60 s; at
least 0.05 bp) is the feature, 0 until ten of these seconds are known.

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
| reference_imbalance | 1 | log_imbalance of the perpetual |
| basis_deviation | its rms | deviation of the basis from its mean, ±3 |

| even feature | unit | definition |
|---|---|---|
| spread | σ√s | ask - bid |
| volatility_5s | 1 | ln(realised volatility of 100 ms returns over 5 s, + 0.05 bp, / σ) / 2 |
| trade_intensity | 1 | ln(1 + trades in 5 s) - ln(1 + their mean) |
| volume_intensity | 1 | ln(1 + volume in 1 s / mean volume per second) |
| quote_intensity | 1 | ln(1 + quotes in 1 s) - ln(1 + their mean) |
| mid_age, trade_age, quote_age | 1 | ln(seconds since the mid moved, a trade, a quote; ≤ 60; + 0.05) / 2 |
| has_quotes, has_trades | 0, 1 | whether a quote is known; whether a trade came within a minute |
| has_reference | 0, 1 | whether the basis is known: both mids, and a reference quote of the last 2 s |
| sigma_bp | bp/√s | sqrt(EWMA of squared 1 s returns of the mid, half-life 30 s, + 0.05²) |
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tickcast.features.bars import BARS_PER_S, SECOND, Bars, Seconds, whole_seconds
from tickcast.features.windows import (
    MINUTE,
    SIGMA_FLOOR_BP,
    AnyMinute,
    AnyWindows,
    Minutes,
    NewestMinute,
    NewestWindows,
    Numbers,
    Windows,
)
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
REFERENCE_FEATURES = ("reference_imbalance", "basis_deviation")  # odd
FEATURE_NAMES = (*ODD_FEATURES, *EVEN_FEATURES, "sigma_bp", *REFERENCE_FEATURES, "has_reference")
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

_MASKED_BY = {
    "has_quotes": QUOTE_FEATURES,
    "has_trades": TRADE_FEATURES,
    "has_reference": REFERENCE_FEATURES,
}
_MAX_AGE_US = 60 * SECOND_US
_200MS, _500MS, _1S, _5S = 2, 5, 10, 50  # windows, in bars
_ROOT_S = {width: math.sqrt(width / BARS_PER_S) for width in (_500MS, _1S, _5S)}
_ROOT_MINUTE = math.sqrt(MINUTE)

Floats = npt.NDArray[np.float64]


def feature_rows(bars: Bars, seconds: Seconds, newest: int) -> Floats:
    """Features as of the last `newest` rows of `bars`, float64 of shape (newest, len(FEATURE_NAMES)).

    `seconds` are the whole seconds up to the last bar. A feature whose window reaches further back than the
    data uses the data there is. A row without a price, or with less than `MIN_RETURNS` of
    them in its minute, is NaN; all others are finite. Raises ValueError when `bars` has fewer rows, and on
    more than one row of bars whose last is partial.
    """
    if newest > len(bars):
        raise ValueError(f"{newest} rows of features requested of {len(bars)} bars")
    if newest == 1:
        return np.array([newest_row(NewestWindows(bars), seconds)])
    if not newest or not len(seconds):
        return np.full((newest, len(FEATURE_NAMES)), np.nan)
    windows = Windows(bars, newest)
    minutes = Minutes(seconds, windows.now("end_us"))
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = _columns(windows, minutes)
    table = np.empty((len(FEATURE_NAMES), newest))
    for at, name in enumerate(FEATURE_NAMES):
        table[at] = columns[name]
    rows = np.ascontiguousarray(table.T)
    for flag, group in _MASKED_BY.items():
        if not columns[flag].all():
            absent = ~columns[flag]
            for name in group:
                rows[absent, FEATURE_NAMES.index(name)] = 0.0
    rows[(windows.price <= 0) | (minutes.returns < MIN_RETURNS)] = np.nan
    return rows


def newest_row(windows: NewestWindows, seconds: Seconds) -> list[float]:
    """The only row of `feature_rows` of the bars behind `windows`, to the last bit. Numpy's fixed cost of
    a call is many times that of an operation on numbers, so one row is computed with numbers."""
    if not len(seconds):
        return [np.nan] * len(FEATURE_NAMES)
    minute = _minute_of(seconds.tobytes())
    if windows.price <= 0 or minute.returns < MIN_RETURNS:
        return [np.nan] * len(FEATURE_NAMES)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = _columns(windows, minute)
    for flag, group in _MASKED_BY.items():
        if not columns[flag]:
            columns |= dict.fromkeys(group, 0.0)
    return [float(columns[name]) for name in FEATURE_NAMES]


def history_rows(bars: Bars) -> Floats:
    """Features as of every row of a segment of history. Shape (bars, len(FEATURE_NAMES))."""
    return feature_rows(bars, whole_seconds(bars), len(bars))


def _columns(windows: AnyWindows, minute: AnyMinute) -> dict[str, Numbers]:
    """Every feature by name, before the absent groups are masked: numbers, or arrays of shape (rows,)."""
    sigma, parts, now, total = minute.sigma_bp, windows.parts, windows.now, windows.total
    bid_qty, ask_qty, end_us = windows.quantity("bid_qty"), windows.quantity("ask_qty"), now("end_us")
    imbalance = windows.ratio(bid_qty - ask_qty, bid_qty + ask_qty)
    spread = (now("ask_price") - now("bid_price")) / windows.price * 1e4 / sigma
    volume_1s = total("buy_qty", _1S) + total("sell_qty", _1S)
    trades_5s, quotes_1s = total("trade_count", _5S), total("quote_count", _1S)
    volatility_bp = windows.volatility_bp(_5S) + SIGMA_FLOOR_BP
    trade_age_us = end_us - now("last_trade_us")

    def order_flow(width: int) -> Numbers:
        return np.arcsinh(minute.by_depth(total("ofi", width)) / parts) / 2

    def trade_flow(width: int) -> Numbers:
        signed = total("buy_qty", width) - total("sell_qty", width)
        return np.arcsinh(minute.by_volume(signed) / parts / _ROOT_S[width]) / 2

    def move(width: int) -> Numbers:
        return _limited(windows.return_bp(width) / (sigma * _ROOT_S[width]))

    def log_imbalance(bid_qty: Numbers, ask_qty: Numbers) -> Numbers:
        return _limited(np.log(windows.ratio(bid_qty, ask_qty))) / 3

    def age(us: Numbers) -> Numbers:
        return np.log(_at_most(us, _MAX_AGE_US) / SECOND_US + 0.05) / 2

    return {
        "imbalance": imbalance,
        "log_imbalance": log_imbalance(bid_qty, ask_qty),
        "microprice": _limited(imbalance * spread / 2),
        "imbalance_500ms": windows.mean_imbalance(_500MS),
        "ofi_200ms": order_flow(_200MS),
        "ofi_1s": order_flow(_1S),
        "ofi_5s": order_flow(_5S),
        "trade_flow_500ms": trade_flow(_500MS),
        "trade_flow_1s": trade_flow(_1S),
        "trade_flow_5s": trade_flow(_5S),
        "vwap_distance": _limited(windows.distance_bp(minute.vwap) / (sigma * _ROOT_MINUTE)),
        "return_500ms": move(_500MS),
        "return_1s": move(_1S),
        "return_5s": move(_5S),
        "spread": spread,
        "volatility_5s": np.log(volatility_bp / sigma) / 2,
        "trade_intensity": np.log1p(trades_5s / parts) - np.log1p(5 * minute.per_second("trade_count")),
        "volume_intensity": np.log1p(minute.by_volume(volume_1s) / parts),
        "quote_intensity": np.log1p(quotes_1s / parts) - np.log1p(minute.per_second("quote_count")),
        "mid_age": age(end_us - now("mid_change_us")),
        "trade_age": age(trade_age_us),
        "quote_age": age(end_us - now("last_quote_us")),
        "has_quotes": windows.is_quoted,
        "has_trades": (now("last_trade_us") > 0) & (trade_age_us <= _MAX_AGE_US),
        "sigma_bp": sigma,
        "reference_imbalance": log_imbalance(
            windows.quantity("reference_bid_qty"), windows.quantity("reference_ask_qty")
        ),
        "basis_deviation": _limited(windows.deviation_bp / minute.deviation_bp, 3.0),
        "has_reference": windows.has_reference,
    }


def _limited(values: Numbers, limit: float = 6.0) -> Numbers:
    if isinstance(values, np.ndarray):
        return np.minimum(np.maximum(values, -limit), limit)  # as np.clip, at a third of its fixed cost
    return min(max(values, -limit), limit)


def _at_most(values: Numbers, limit: int) -> Numbers:
    return np.minimum(values, limit) if isinstance(values, np.ndarray) else min(values, limit)


@lru_cache(maxsize=256)
def _minute_of(seconds: bytes) -> NewestMinute:
    """The minute up to the last of `seconds`, the bytes of their rows. Serving asks for it ten times before
    there is another second."""
    return NewestMinute(np.frombuffer(seconds, SECOND))
