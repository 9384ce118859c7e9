"""The features as most people would write them: a minute of ticks in a deque, turned into arrays each second.

The definitions are those of `features.vector`, in floats and for a market that has trades and quotes.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Tick = tuple[float, ...]
_KEPT_S = 66.0


class UsualFeatures:
    """Keeps the ticks of the last minute; a trade is (time s, price, qty, side), a quote (time s, bid, bid
    qty, ask, ask qty)."""

    def __init__(self) -> None:
        self.trades: deque[Tick] = deque()
        self.quotes: deque[Tick] = deque()

    def update(self, trades: list[Tick], quotes: list[Tick]) -> None:
        for kept, ticks in ((self.trades, trades), (self.quotes, quotes)):
            kept.extend(ticks)
            while kept[0][0] < kept[-1][0] - _KEPT_S:
                kept.popleft()

    def row(self, now_s: float) -> dict[str, float]:
        """The features as of the whole second `now_s`, up to which all ticks are in."""
        return row_of(np.array(self.trades), np.array(self.quotes), now_s)


class _Units(NamedTuple):
    """The scales of features, over the last minute."""

    sigma: float  # bp/√s
    depth: float
    volume: float  # a second
    vwap: float


def row_of(trades: Floats, quotes: Floats, now_s: float) -> dict[str, float]:
    """The same of arrays, of shapes (ticks, 4) and (ticks, 5)."""
    t, price, qty, _ = trades.T
    at, bid, bid_qty, ask, ask_qty = quotes.T
    mid = (bid + ask) / 2
    seconds = now_s - np.arange(61.0)
    returns = (_mids_at(at, mid, seconds[:-1]) / _mids_at(at, mid, seconds[1:]) - 1) * 1e4
    weights = 0.5 ** (np.arange(60) / 30)
    minute = t >= now_s - 60
    books = np.searchsorted(at, now_s - np.arange(600) / 10) - 1
    units = _Units(
        np.sqrt(np.sum(weights * returns**2) / np.sum(weights) + 0.05**2),
        np.mean((bid_qty + ask_qty)[books]) / 2,
        np.sum(qty[minute]) / 60,
        np.sum(price[minute] * qty[minute]) / np.sum(qty[minute]),
    )
    return _quote_features(quotes, mid, now_s, units) | _trade_features(trades, mid[-1], now_s, units)


def _quote_features(quotes: Floats, mid: Floats, now_s: float, units: _Units) -> dict[str, float]:
    at, bid, bid_qty, ask, ask_qty = quotes.T
    sigma = units.sigma
    imbalances = (bid_qty - ask_qty) / (bid_qty + ask_qty)
    micro = (bid_qty[-1] * ask[-1] + ask_qty[-1] * bid[-1]) / (bid_qty[-1] + ask_qty[-1])
    flows = (
        np.where(bid[1:] >= bid[:-1], bid_qty[1:], 0)
        - np.where(bid[1:] <= bid[:-1], bid_qty[:-1], 0)
        - np.where(ask[1:] <= ask[:-1], ask_qty[1:], 0)
        + np.where(ask[1:] >= ask[:-1], ask_qty[:-1], 0)
    )

    def ofi(width_s: float) -> float:
        return float(np.arcsinh(np.sum(flows[at[1:] >= now_s - width_s]) / units.depth) / 2)

    def scaled_return(width_s: float) -> float:
        move = (mid[-1] / _mids_at(at, mid, np.array([now_s - width_s]))[0] - 1) * 1e4
        return float(np.clip(move / (sigma * np.sqrt(width_s)), -6, 6))

    half = at >= now_s - 0.5
    edges = np.concatenate([[now_s - 0.5], at[half], [now_s]])
    levels = np.concatenate([[imbalances[~half][-1]], imbalances[half]])
    steps = _mids_at(at, mid, now_s - np.arange(51) / 10)
    realised = np.sqrt(np.sum(((steps[:-1] / steps[1:] - 1) * 1e4) ** 2) / 5)
    moved = np.flatnonzero(np.diff(mid))
    return {
        "imbalance": float(imbalances[-1]),
        "log_imbalance": float(np.clip(np.log(bid_qty[-1] / ask_qty[-1]), -6, 6) / 3),
        "microprice": float(np.clip((micro / mid[-1] - 1) * 1e4 / sigma, -6, 6)),
        "imbalance_500ms": float(np.sum(levels * np.diff(edges)) / 0.5),
        "ofi_200ms": ofi(0.2),
        "ofi_1s": ofi(1),
        "ofi_5s": ofi(5),
        "return_500ms": scaled_return(0.5),
        "return_1s": scaled_return(1),
        "return_5s": scaled_return(5),
        "spread": float((ask[-1] - bid[-1]) / mid[-1] * 1e4 / sigma),
        "volatility_5s": float(np.log((realised + 0.05) / sigma) / 2),
        "quote_intensity": _more_than_usual(at, 1, now_s),
        "mid_age": _age(float(at[moved[-1] + 1]), now_s),
        "quote_age": _age(float(at[-1]), now_s),
        "has_quotes": 1.0,
        "sigma_bp": float(sigma),
        # No perpetual is known in this market.
        "reference_imbalance": 0.0,
        "basis_deviation": 0.0,
        "has_reference": 0.0,
    }


def _trade_features(trades: Floats, mid: float, now_s: float, units: _Units) -> dict[str, float]:
    t, _, qty, side = trades.T

    def flow(width_s: float) -> float:
        recent = t >= now_s - width_s
        return float(np.arcsinh(np.sum((qty * side)[recent]) / (units.volume * np.sqrt(width_s))) / 2)

    return {
        "trade_flow_500ms": flow(0.5),
        "trade_flow_1s": flow(1),
        "trade_flow_5s": flow(5),
        "vwap_distance": float(np.clip((mid / units.vwap - 1) * 1e4 / (units.sigma * np.sqrt(60)), -6, 6)),
        "trade_intensity": _more_than_usual(t, 5, now_s),
        "volume_intensity": float(np.log1p(np.sum(qty[t >= now_s - 1]) / units.volume)),
        "trade_age": _age(float(t[-1]), now_s),
        "has_trades": 1.0,
    }


def _mids_at(at: Floats, mid: Floats, times: Floats) -> Floats:
    return np.asarray(mid[np.searchsorted(at, times) - 1])


def _more_than_usual(times: Floats, width_s: float, now_s: float) -> float:
    count, usual = (int(np.sum(times >= now_s - width)) for width in (width_s, 60))
    return float(np.log1p(count) - np.log1p(usual / 60 * width_s))


def _age(since_s: float, now_s: float) -> float:
    return float(np.log(min(now_s - since_s, 60) + 0.05) / 2)
