"""Features: one row of numbers per closed bar, a pure function of the last minute of bars.

Every window ends at the bar's end, so nothing from later can reach a row. Sums over windows are
differences of running *integer* sums and everything after them is elementwise, so a row has the same
bits whether it is computed alone (live) or among a million (history).

All features are free of scale: moves are in units of volatility, quantities in units of the minute's
mean depth or volume. That lets one model serve several markets. The *odd* features change sign when
buying and selling are exchanged, the *even* ones do not; the model relies on that. `sigma_bp` is the
volatility itself: it scales the model's output and is no input to its network.

| feature | unit | definition |
|---|---|---|
| imbalance | -1..1 | (bid qty - ask qty) / (bid qty + ask qty) at the bar's end |
| log_imbalance | 1 | ln(bid qty / ask qty), clipped to ±6, / 3 |
| imbalance_500ms | -1..1 | time-weighted mean of imbalance over 0.5 s |
| ofi_200ms, ofi_1s | 1 | asinh(order-flow imbalance / mean depth of a minute) / 2 (Cont et al. 2014) |
| trade_flow_500ms | 1 | asinh(bought - sold over 0.5 s, in half-second mean volumes times √0.5) / 2 |
| return_500ms | σ√s | return of the mid over 0.5 s in units of its volatility, clipped to ±6 |
| spread | σ√s | spread over volatility |
| trade_intensity | 1 | ln(1 + trades in 5 s) - ln(1 + their minute mean) |
| volume_intensity | 1 | ln(1 + volume in 1 s / mean volume per second) |
| mid_age | 1 | ln(seconds since the mid moved + 0.05) / 2 |
| sigma_bp | bp/√s | sqrt(EWMA of squared 1 s mid returns, half-life 30 s, + 0.05²) |
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from tickcast.bars import BAR_US, WINDOW_BARS, Bars, mids

ODD_FEATURES = (
    "imbalance",
    "log_imbalance",
    "imbalance_500ms",
    "ofi_200ms",
    "ofi_1s",
    "trade_flow_500ms",
    "return_500ms",
)
EVEN_FEATURES = ("spread", "trade_intensity", "volume_intensity", "mid_age")
FEATURE_NAMES = (*ODD_FEATURES, *EVEN_FEATURES, "sigma_bp")
# Rises when a definition changes without its name: a model trained on the old one is then refused.
_DEFINITION = 1
FEATURE_HASH = hashlib.sha256(f"{_DEFINITION}:{','.join(FEATURE_NAMES)}".encode()).hexdigest()[:16]

MIN_QUOTED_BARS = 100  # ten seconds of quotes before a row is worth anything

_SECOND = 1_000_000 // BAR_US  # bars
_RETURNS = WINDOW_BARS // _SECOND - 1  # one-second returns that fit into the look-back
_DECAY = 0.5 ** (1 / 30)
_SIGMA_FLOOR_BP = 0.05

Floats = npt.NDArray[np.float64]


def feature_rows(bars: Bars, newest: int) -> Floats:
    """Features as of the last `newest` rows of `bars`, float64 of shape (newest, len(FEATURE_NAMES)).

    A row without a quote, or with less than `MIN_QUOTED_BARS` of them in the minute behind it, is NaN. A
    row looks back over `WINDOW_BARS` bars, itself included, or as many as there are. Raises ValueError
    when `bars` has fewer than `newest` rows.
    """
    if newest > len(bars):
        raise ValueError(f"features of {newest} rows asked of {len(bars)} bars")
    back = _LookBack(bars, newest)
    bid_qty, ask_qty = back.now("bid_qty"), back.now("ask_qty")
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma_bp = back.sigma_bp()
        mean_depth = back.mean_depth()
        mean_volume = np.maximum((back.minute("buy_qty") + back.minute("sell_qty")) / back.span_s, 1.0)
        mean_trades = back.minute("trade_count") / back.span_s
        signed_volume = back.total("buy_qty", 5) - back.total("sell_qty", 5)
        columns = {
            "imbalance": (bid_qty - ask_qty) / (bid_qty + ask_qty),
            "log_imbalance": np.clip(np.log(bid_qty / ask_qty), -6, 6) / 3,
            "imbalance_500ms": back.total("imbalance_us", 5) / back.total("quoted_us", 5) / 1e6,
            "ofi_200ms": np.arcsinh(back.total("ofi", 2) / mean_depth) / 2,
            "ofi_1s": np.arcsinh(back.total("ofi", 10) / mean_depth) / 2,
            "trade_flow_500ms": np.arcsinh(signed_volume / (mean_volume * np.sqrt(0.5))) / 2,
            "return_500ms": np.clip(back.return_bp(5) / (sigma_bp * np.sqrt(0.5)), -6, 6),
            "spread": back.spread_bp() / sigma_bp,
            "trade_intensity": np.log1p(back.total("trade_count", 50)) - np.log1p(5 * mean_trades),
            "volume_intensity": np.log1p(
                (back.total("buy_qty", 10) + back.total("sell_qty", 10)) / mean_volume
            ),
            "mid_age": np.log((back.now("end_us") - back.now("mid_change_us")) / 1e6 + 0.05) / 2,
            "sigma_bp": sigma_bp,
        }
    rows = np.stack([columns[name] for name in FEATURE_NAMES], axis=1)
    rows[~back.is_quoted[-newest:] | (back.quoted_bars < MIN_QUOTED_BARS)] = np.nan
    return rows


class _LookBack:
    """The bars behind each of the last `newest` ones; widths count bars of 100 ms. Shapes (newest,)."""

    def __init__(self, bars: Bars, newest: int) -> None:
        self.bars = bars
        self.newest = newest
        self.rows = np.arange(len(bars) - newest, len(bars))
        self.mid = mids(bars)
        self.is_quoted = ~np.isnan(self.mid)
        self.quoted_bars = self._sum(self.is_quoted, WINDOW_BARS)
        self.span_s = np.maximum(self.quoted_bars, 1) / _SECOND

    def now(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(self.bars[name][-self.newest :])

    def total(self, name: str, width: int) -> npt.NDArray[Any]:
        return self._sum(self.bars[name], width)

    def minute(self, name: str) -> npt.NDArray[Any]:
        return self._sum(self.bars[name], WINDOW_BARS)

    def mean_depth(self) -> Floats:
        """Mean of (bid quantity + ask quantity) / 2 over the minute's quoted bars, 1e-8."""
        depth = self._sum(
            np.where(self.is_quoted, self.bars["bid_qty"] + self.bars["ask_qty"], 0), WINDOW_BARS
        )
        return np.asarray(np.maximum(depth / (2 * np.maximum(self.quoted_bars, 1)), 1.0))

    def spread_bp(self) -> Floats:
        spread = self.now("ask_price") - self.now("bid_price")
        return np.asarray(spread / self.mid[-self.newest :] * 1e4)

    def return_bp(self, width: int) -> Floats:
        """Return of the mid over `width` bars, bp; 0 where the mid was not known yet."""
        return np.asarray(np.nan_to_num(self._returns_bp(width)[-self.newest :]))

    def sigma_bp(self) -> Floats:
        """EWMA of squared one-second returns over the minute, newest weighing most, as bp per √s."""
        squared = self._returns_bp(_SECOND) ** 2
        known = ~np.isnan(squared)
        squared = np.where(known, squared, 0.0)
        total, weight = np.zeros(self.newest), np.zeros(self.newest)
        # One lag after the other, elementwise: the order of additions, and so the bits, are the same
        # for one row and for a million.
        for lag in range(_RETURNS - 1, -1, -1):
            at = np.maximum(self.rows - lag * _SECOND, 0)  # bar 0 has no return behind it: adds nothing
            total = total * _DECAY + squared[at]
            weight = weight * _DECAY + known[at]
        return np.asarray(np.sqrt(total / np.maximum(weight, 1.0) + _SIGMA_FLOOR_BP**2))

    def _returns_bp(self, width: int) -> Floats:
        """Return of the mid over `width` bars for every bar, NaN where it is not known. Shape (bars,)."""
        returns = np.full(len(self.mid), np.nan)
        if len(self.mid) > width:
            returns[width:] = (self.mid[width:] / self.mid[:-width] - 1) * 1e4
        return returns

    def _sum(self, values: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
        running = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.asarray(running[self.rows + 1] - running[np.maximum(self.rows + 1 - width, 0)])
