"""The perpetual of a simulated market: its quotes know a little of where the spot market is about to go.

On the recordings the USD-M perpetual leads the spot market by up to some seconds: its book imbalance, and the
deviation of its price from the usual basis, predict what the spot's own book does not. Here cause and effect
are swapped, which shows in no statistic: the spot market is simulated some seconds ahead, unchanged by its
perpetual, and the perpetual's price and its book lean towards the mid that is to come, under noise of their
own. How much is set by `Lead`, fitted to the gain in skill that was measured on recordings: for BTC by both,
for ETH by the basis alone. The perpetual of any other market leads it by nothing.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from local.exchange.events import MarketData, Quote, ReferenceQuote, Tick
from local.exchange.simulator import LOT, endless

AHEAD_US = (100_000, 200_000, 1_500_000, 3_000_000)  # the mean of the mids there is what lies ahead
_QUOTE_GAP_US = 40_000.0  # mean: what a client keeps of the stream, which brings several times as many
_BASIS_BP = -4.0  # a perpetual usually trades below or above the spot market
_BASIS_SD_BP = 1.0
_BASIS_LIFE_S = 120.0
_NOISE_LIFE_S = 1.5  # of the deviation that means nothing
_BOOK_LIFE_S = 0.7  # of the imbalance that means nothing
_BOOK_SD = 2.0  # of the logarithm of the ratio of the two queues
_DEPTH_SD = 0.6  # of the logarithm of the depth


@dataclass(frozen=True, slots=True)
class Lead:
    """How the perpetual of a market leads."""

    tick: int  # of its price, mantissa
    depth: float  # median of both best queues together, lots
    price_share: float  # of the spot's coming move that the price has made already
    noise_bp: float  # standard deviation of the price around that
    book_per_bp: float  # log ratio of the queues for each bp that the spot is about to move


LEADS = {
    "BTCUSDT": Lead(tick=10_000_000, depth=900_000.0, price_share=0.14, noise_bp=0.4, book_per_bp=0.33),
    "ETHUSDT": Lead(tick=1_000_000, depth=15_000_000.0, price_share=0.12, noise_bp=0.4, book_per_bp=0.0),
}
FOLLOWER = Lead(tick=1_000_000, depth=80_000_000.0, price_share=0.0, noise_bp=0.4, book_per_bp=0.0)


def with_perpetual(ticks: Iterator[Tick], symbol: str, seed: int, from_us: int = 0) -> Iterator[MarketData]:
    """`ticks` of the market `symbol` in time order, with the quotes of its perpetual from `from_us` (µs) on
    among them.

    The ticks themselves are unchanged. From `from_us` on they are read some seconds ahead (`AHEAD_US`). The
    same arguments give the same quotes; update ids follow from the time.
    """
    perpetual: _Perpetual | None = None
    held: deque[Tick] = deque()
    for tick in ticks:
        if tick.time_us < from_us:
            yield tick
            continue
        held.append(tick)
        if isinstance(tick, Quote):
            if perpetual is None:
                perpetual = _Perpetual(symbol, LEADS.get(symbol, FOLLOWER), seed, tick)
            else:
                perpetual.see(tick)
        while perpetual and perpetual.due_us + AHEAD_US[-1] < tick.time_us:
            while held[0].time_us <= perpetual.due_us:
                yield held.popleft()
            yield perpetual.quote()


class _Perpetual:
    """The state of one perpetual: the spot's path as far as it is known, and its own deviations."""

    def __init__(self, symbol: str, lead: Lead, seed: int, first: Quote) -> None:
        rng = np.random.default_rng([seed, zlib.crc32(symbol.encode()), zlib.crc32(b"perpetual")])
        self._normal = endless(rng.standard_normal)
        self._exponential = endless(rng.standard_exponential)
        self._symbol, self._lead = symbol, lead
        self._path: deque[tuple[int, float]] = deque([_log_mid(first)])  # from the newest before `due_us` on
        self._dropped = 0  # entries of the path's beginning that are gone
        self._at = [0] * (1 + len(AHEAD_US))  # by instant, the entry of the path that holds there
        self._basis_bp = _BASIS_BP + _BASIS_SD_BP * self._normal()
        self._noise, self._book, self._depth = self._normal(), self._normal(), self._normal()
        self._update_id = first.time_us // 1_000
        self.due_us = first.time_us

    def see(self, quote: Quote) -> None:
        """The spot market's next quote."""
        self._path.append(_log_mid(quote))

    def quote(self) -> ReferenceQuote:
        """The quote due at `due_us`; the next one is due then."""
        lead, time_us = self._lead, self.due_us
        mid, *later = (
            self._log_mid_at(place, time_us + ahead_us) for place, ahead_us in enumerate((0, *AHEAD_US))
        )
        self._forget()
        ahead_bp = (sum(later) / len(later) - mid) * 1e4
        deviation_bp = self._basis_bp + lead.price_share * ahead_bp + lead.noise_bp * self._noise
        bid = int(math.exp(mid + deviation_bp * 1e-4) // lead.tick) * lead.tick
        ratio = 1.0 / (1.0 + math.exp(-(lead.book_per_bp * ahead_bp + _BOOK_SD * self._book)))
        depth = lead.depth * math.exp(_DEPTH_SD * self._depth)
        bid_qty, ask_qty = (max(int(share * depth), 1) * LOT for share in (ratio, 1.0 - ratio))
        self._update_id += 1 + int(2.0 * self._exponential())
        quote = ReferenceQuote(self._symbol, time_us, self._update_id, bid, bid_qty, bid + lead.tick, ask_qty)
        self._wait()
        return quote

    def _wait(self) -> None:
        """Until the next quote, and let the deviations wander meanwhile."""
        wait_us = 1 + int(self._exponential() * _QUOTE_GAP_US)
        self.due_us += wait_us
        seconds = wait_us / 1e6
        self._noise = self._wandered(self._noise, seconds / _NOISE_LIFE_S)
        self._book = self._wandered(self._book, seconds / _BOOK_LIFE_S)
        self._depth = self._wandered(self._depth, seconds / _BOOK_LIFE_S)
        kept = math.exp(-seconds / _BASIS_LIFE_S)
        spread = math.sqrt(1.0 - kept * kept)
        self._basis_bp = (
            _BASIS_BP + kept * (self._basis_bp - _BASIS_BP) + _BASIS_SD_BP * spread * self._normal()
        )

    def _wandered(self, value: float, lifetimes: float) -> float:
        """An Ornstein-Uhlenbeck process of stationary deviation 1."""
        kept = math.exp(-lifetimes)
        return kept * value + math.sqrt(1.0 - kept * kept) * self._normal()

    def _log_mid_at(self, place: int, time_us: int) -> float:
        """The logarithm of the mid at `time_us`, which never decreases from call to call of one `place`."""
        at = self._at[place] - self._dropped
        while at + 1 < len(self._path) and self._path[at + 1][0] <= time_us:
            at += 1
        self._at[place] = at + self._dropped
        return self._path[at][1]

    def _forget(self) -> None:
        while self._dropped < self._at[0]:
            self._path.popleft()
            self._dropped += 1


def _log_mid(quote: Quote) -> tuple[int, float]:
    return quote.time_us, math.log((quote.bid_price + quote.ask_price) / 2)
