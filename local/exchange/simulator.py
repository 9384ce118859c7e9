"""A simulated market: deterministic by seed, endless, and shaped like the real one.

What moves the price is the book itself. Taker orders come in clusters (a Hawkes process) and in runs of
one side, preferring the side that faces the thinner queue. Most take a part of the best queue. One that
takes all of it sets off a *sweep*: within some milliseconds the best prices step on by a heavy-tailed
distance, taking levels on the way, until the spread is a single tick again. Since the thin queue breaks
first, the imbalance of the book predicts the next move, as strongly as on the recordings that the profiles
were fitted to. Between orders the queues drift, are refilled and flicker in
volleys of quotes; volatility wanders slowly.

The clusters are drawn exactly, without thinning: Dassios and Zhao (2013), "Exact simulation of Hawkes
process with exponentially decaying intensity".

Internally prices are in ticks and quantities in lots; events have mantissas at 1e-8.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from local.exchange.events import Quote, Tick, Trade

TICK = 1_000_000  # mantissa of 0.01
LOT = 1_000  # mantissa of 0.00001

_BLOCK = 1 << 14  # random numbers drawn at a time
_DECAY_PER_S = 6.0  # of the excitation that an order leaves behind
_VOLATILITY_RATE_PER_S = 1 / 90
_VOLATILITY_SD = 0.35  # of its logarithm
_DEPTH_RATE_PER_S = 0.2
_DEPTH_SD = 0.45  # of the logarithm of the depth
_SIDE_MEMORY = 0.2  # chance that an order repeats the side of the one before
_FLICKER_SD = 0.12  # of the logarithm of a queue, from one quote to the next
_QUOTE_GAP_US = 900.0  # mean, within a volley
_SWEEP_GAP_US = 600.0  # median, roughly, between the steps of a sweep
_GREED_EXPONENT = 12  # how thin "nearly empty" is: see Profile.greed
_MAX_FILLS = 300


@dataclass(frozen=True, slots=True)
class Profile:
    """What distinguishes one market from another. Rates are per second, quantities in lots."""

    price: int  # at the start, ticks
    min_fill: int  # the smallest trade or queue
    orders: float  # taker orders that no other order set off
    clustering: float  # share of taker orders set off by earlier ones
    order_qty: float  # median
    order_qty_sd: float  # of its logarithm
    fills_tail: float  # exponent of the number of fills of an order
    sweep_fills_tail: float  # the same within a sweep
    side_pull: float  # how strongly orders prefer the thin side, 0..1
    greed: float  # chance that an order takes the whole queue when that is nearly empty, 0..1
    volleys: float  # of quotes that no order set off
    volley_quotes: float  # mean quotes in a volley
    depth: float  # median of both best queues together
    pressure_sd: float  # of the log ratio of the two queues
    pressure_rate: float  # at which that ratio reverts to even
    momentum: float  # mean log ratio, in the direction of the move, after a sweep
    sweep_bp: float  # median length of a sweep
    sweep_sd: float  # of its logarithm
    sweep_steps: float  # mean steps of each side


BTCUSDT = Profile(
    price=6_180_000,
    min_fill=9,
    orders=2.1,
    clustering=0.7,
    order_qty=350.0,
    order_qty_sd=2.5,
    fills_tail=1.35,
    sweep_fills_tail=1.05,
    side_pull=0.65,
    greed=0.8,
    volleys=3.6,
    volley_quotes=4.0,
    depth=330_000.0,
    pressure_sd=2.5,
    pressure_rate=0.2,
    momentum=1.5,
    sweep_bp=0.44,
    sweep_sd=0.85,
    sweep_steps=3.5,
)
ETHUSDT = Profile(
    price=268_000,
    min_fill=200,
    orders=1.35,
    clustering=0.65,
    order_qty=5_000.0,
    order_qty_sd=2.6,
    fills_tail=1.35,
    sweep_fills_tail=1.05,
    side_pull=0.8,
    greed=1.0,
    volleys=5.2,
    volley_quotes=4.0,
    depth=1_900_000.0,
    pressure_sd=2.8,
    pressure_rate=0.3,
    momentum=1.2,
    sweep_bp=0.6,
    sweep_sd=0.55,
    sweep_steps=3.5,
)
# Any other symbol: a thinner, slower market around 100.
OTHER = Profile(
    price=10_000,
    min_fill=5_000,
    orders=0.8,
    clustering=0.6,
    order_qty=100_000.0,
    order_qty_sd=2.4,
    fills_tail=1.5,
    sweep_fills_tail=1.2,
    side_pull=0.6,
    greed=0.6,
    volleys=3.0,
    volley_quotes=3.0,
    depth=40_000_000.0,
    pressure_sd=2.0,
    pressure_rate=0.4,
    momentum=0.8,
    sweep_bp=1.0,
    sweep_sd=0.6,
    sweep_steps=2.0,
)
PROFILES = {"BTCUSDT": BTCUSDT, "ETHUSDT": ETHUSDT}
# The markets of an exchange for which none are named.
LISTED = tuple(
    f"{asset}USDT"
    for asset in (
        *(
            "BTC",
            "ETH",
            "BNB",
            "SOL",
            "XRP",
            "ADA",
            "DOGE",
            "AVAX",
            "DOT",
            "LINK",
            "LTC",
            "BCH",
            "TRX",
            "UNI",
        ),
        *(
            "ATOM",
            "XLM",
            "ETC",
            "FIL",
            "NEAR",
            "APT",
            "ARB",
            "OP",
            "SUI",
            "TON",
            "ICP",
            "AAVE",
            "ALGO",
            "HBAR",
        ),
    )
)


def simulate(symbol: str, seed: int, start_us: int) -> Iterator[Tick]:
    """The endless market of `symbol` from `start_us` (µs) on, in time order, opening with a quote.

    The same arguments give the same events. Ids are derived from `start_us`, so that a market started
    later never reuses those of an earlier one.
    """
    market = _Market(symbol, PROFILES.get(symbol, OTHER), seed, start_us)
    yield market.quote()
    while True:
        yield from market.advance()


def endless(draw: Callable[[int], npt.NDArray[np.float64]]) -> Callable[[], float]:
    """A function that returns the numbers of blocks from `draw` one by one."""

    def numbers() -> Iterator[float]:
        while True:
            yield from draw(_BLOCK).tolist()

    return numbers().__next__


class _Market:
    """The state of one simulated market: best prices, their queues, and the next events."""

    def __init__(self, symbol: str, profile: Profile, seed: int, start_us: int) -> None:
        rng = np.random.default_rng([seed, zlib.crc32(symbol.encode())])
        self.uniform = endless(rng.random)
        self.normal = endless(rng.standard_normal)
        self.exponential = endless(rng.standard_exponential)
        self.symbol = symbol
        self.profile = profile
        self.time_us = start_us
        # At most 100 trades and 1000 updates a second on average: see `simulate`.
        self.trade_id = start_us // 10_000
        self.update_id = start_us // 1_000
        self.bid = profile.price - 1
        self.ask = profile.price
        self.last_side = 1  # of the taker: +1 bought, -1 sold
        self.volatility = self.normal() * _VOLATILITY_SD  # logarithm
        self.pressure = self.normal() * profile.pressure_sd  # log ratio of the bid to the ask queue
        self.depth = self.normal()  # of both queues together, in standard deviations of its logarithm
        self.bid_qty = self._wanted_qty(1)
        self.ask_qty = self._wanted_qty(-1)
        self.drifted_us = start_us
        self.excitation = 0.0  # orders per second that earlier orders set off
        self.volley = 0  # quotes still to come in quick succession
        self.order_us = self._next_order_us()
        self.requote_us = self._next_requote_us()

    def advance(self) -> list[Tick]:
        """The next event: an order or a change of a queue."""
        if self.order_us <= self.requote_us:
            return self._order()
        return self._requote()

    def quote(self) -> Quote:
        """The current best bid and ask, under a new update id."""
        self.update_id += 1 + int(2.0 * self.exponential())
        return Quote(
            self.symbol,
            self.time_us,
            self.update_id,
            self.bid * TICK,
            self.bid_qty * LOT,
            self.ask * TICK,
            self.ask_qty * LOT,
        )

    # ------------------------------------------------------------------------------------- the queues

    def _requote(self) -> list[Tick]:
        """An order joins or leaves one of the best queues."""
        self.time_us = self.requote_us
        self._drift()
        if self.uniform() < 0.5:
            self.bid_qty = self._changed_qty(self.bid_qty, 1)
        else:
            self.ask_qty = self._changed_qty(self.ask_qty, -1)
        self.requote_us = self._next_requote_us()
        return [self.quote()]

    def _next_requote_us(self) -> int:
        if self.volley > 0:
            self.volley -= 1
            return self.time_us + 1 + int(self.exponential() * _QUOTE_GAP_US)
        self.volley = self._volley_length()
        return self.time_us + 1 + int(self.exponential() * 1e6 / self.profile.volleys)

    def _volley_length(self) -> int:
        return int(self.exponential() * self.profile.volley_quotes)

    def _drift(self) -> None:
        """Move pressure and depth over the time since the last call."""
        profile = self.profile
        seconds = (self.time_us - self.drifted_us) / 1e6
        self.drifted_us = self.time_us
        self.pressure = self._wandered(self.pressure, profile.pressure_sd, profile.pressure_rate * seconds)
        self.depth = self._wandered(self.depth, 1.0, _DEPTH_RATE_PER_S * seconds)

    def _wandered(self, value: float, sd: float, time: float) -> float:
        """An Ornstein-Uhlenbeck process of stationary deviation `sd`, `time` mean lifetimes later."""
        kept = math.exp(-time)
        return kept * value + sd * math.sqrt(1.0 - kept * kept) * self.normal()

    def _wanted_qty(self, side: int) -> int:
        """The quantity that the queue of the bid (+1) or the ask (-1) tends to, lots."""
        total = self.profile.depth * math.exp(_DEPTH_SD * self.depth)
        qty = total / (1.0 + math.exp(-side * self.pressure))
        return max(int(qty * math.exp(_FLICKER_SD * self.normal())), self.profile.min_fill)

    def _changed_qty(self, qty: int, side: int) -> int:
        wanted = self._wanted_qty(side)
        return wanted if wanted != qty else qty + 1

    # ------------------------------------------------------------------------------------- the orders

    def _order(self) -> list[Tick]:
        """A taker order: part of the best queue, or all of it and the sweep that follows."""
        self.time_us = self.order_us
        self.excitation += self.profile.clustering * _DECAY_PER_S
        self._drift()
        side = self.last_side = self._taker_side()
        queue = self._queue(side)
        qty = self._order_qty(queue)
        tail = self.profile.sweep_fills_tail if qty == queue else self.profile.fills_tail
        ticks = self._fills(side, qty, tail)
        if qty == queue:
            self._sweep(side, ticks)
        else:
            self._take(side, qty)
            ticks.append(self.quote())
        self.volley += 1 + self._volley_length()
        self.requote_us = self._next_requote_us()
        self.order_us = self._next_order_us()
        return ticks

    def _next_order_us(self) -> int:
        """When the next order arrives: the earlier of a spontaneous one and one set off by others."""
        wait = self.exponential() / (self.profile.orders * math.exp(self.volatility))
        if self.excitation > 0.0:
            survival = 1.0 - _DECAY_PER_S * self.exponential() / self.excitation
            if survival > 0.0:
                wait = min(wait, -math.log(survival) / _DECAY_PER_S)
        self.excitation *= math.exp(-_DECAY_PER_S * wait)
        self.volatility = self._wandered(self.volatility, _VOLATILITY_SD, _VOLATILITY_RATE_PER_S * wait)
        return self.time_us + 1 + int(wait * 1e6)

    def _taker_side(self) -> int:
        if self.uniform() < _SIDE_MEMORY:
            return self.last_side
        imbalance = (self.bid_qty - self.ask_qty) / (self.bid_qty + self.ask_qty)
        return 1 if self.uniform() < 0.5 + 0.5 * self.profile.side_pull * imbalance else -1

    def _queue(self, side: int) -> int:
        """The lots that a buyer (+1) or a seller (-1) finds at the best price."""
        return self.ask_qty if side > 0 else self.bid_qty

    def _order_qty(self, queue: int) -> int:
        """Lots of an order into a queue of `queue` lots; the thinner it is, the likelier all of it."""
        thinness = 1.0 - queue / (self.bid_qty + self.ask_qty)
        if self.uniform() < self.profile.greed * thinness**_GREED_EXPONENT:
            return queue
        wanted = self.profile.order_qty * math.exp(self.profile.order_qty_sd * self.normal())
        qty = max(int(min(wanted, queue)), self.profile.min_fill)
        return qty if queue - qty >= self.profile.min_fill else queue

    def _fills(self, side: int, qty: int, tail: float) -> list[Tick]:
        """`qty` lots taken at the best price, in one trade for every resting order that was hit."""
        min_fill = self.profile.min_fill
        count = min(int((1.0 - self.uniform()) ** (-1.0 / tail)), qty // min_fill, _MAX_FILLS)
        price = (self.ask if side > 0 else self.bid) * TICK
        fills: list[Tick] = []
        for left in range(count, 0, -1):
            # Up to twice the mean of the rest, leaving at least the smallest fill for each of the others.
            share = qty if left == 1 else max(int(2.0 * self.uniform() * qty / left), min_fill)
            share = min(share, qty - (left - 1) * min_fill)
            qty -= share
            self.trade_id += 1
            fills.append(Trade(self.symbol, self.time_us, self.trade_id, price, share * LOT, side < 0))
        return fills

    def _take(self, side: int, qty: int) -> None:
        """Reduce the queue by what was taken; the pressure changes accordingly."""
        if side > 0:
            self.pressure += math.log(self.ask_qty / (self.ask_qty - qty))
            self.ask_qty -= qty
        else:
            self.pressure -= math.log(self.bid_qty / (self.bid_qty - qty))
            self.bid_qty -= qty

    # ------------------------------------------------------------------------------------- the sweeps

    def _sweep(self, side: int, ticks: list[Tick]) -> None:
        """Move both best prices in the direction of `side`: the emptied one leads, the other follows."""
        profile = self.profile
        length = profile.sweep_bp * math.exp(self.volatility + profile.sweep_sd * self.normal())
        distance = max(int(self.bid * length * 1e-4), 1)
        stride = max(int(distance / (1.0 + self.exponential() * (profile.sweep_steps - 1.0))), 1)
        self.pressure = side * profile.momentum + profile.pressure_sd * self.normal()
        lead = lag = distance
        while lag:
            if lead and (lead == lag or self.uniform() < 0.5):
                if lead < distance and self.uniform() < 0.6:  # else its orders are withdrawn
                    ticks.extend(self._fills(side, self._queue(side), profile.sweep_fills_tail))
                step = min(self._stride(stride), lead)
                lead -= step
                self._move(side, side * step, settled=lead == 0)
            else:
                step = min(self._stride(stride), lag - lead)
                lag -= step
                self._move(-side, side * step, settled=lag == 0)
            ticks.append(self.quote())
            self.time_us += int(self.exponential() * self.exponential() * 2 * _SWEEP_GAP_US)

    def _stride(self, mean: int) -> int:
        return 1 + int(self.uniform() * (2 * mean - 1))

    def _move(self, taker_side: int, ticks: int, settled: bool) -> None:
        """Put the ask (+1) or the bid (-1) `ticks` further, to its lasting queue or to a thin one."""
        if taker_side > 0:
            self.ask += ticks
            self.ask_qty = self._wanted_qty(-1) if settled else self._thin_qty()
        else:
            self.bid += ticks
            self.bid_qty = self._wanted_qty(1) if settled else self._thin_qty()

    def _thin_qty(self) -> int:
        return max(int(self.profile.depth * 0.02 * math.exp(1.2 * self.normal())), self.profile.min_fill)
