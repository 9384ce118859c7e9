"""A full shard to measure with: quotes and trades as received from the socket, the same in every run."""

from __future__ import annotations

import numpy as np

from tickcast import sbe

SYMBOL = "BTCUSDT"
START_US = 1_743_671_488_500_000
TICKS_PER_S = 17_000  # what a shard carries; the recorded average is 143
TRADE_SHARE = 0.21  # of the recorded ticks


def quote_events(count: int, seed: int = 1) -> list[sbe.BestBidAskEvent]:
    rng = np.random.default_rng(seed)
    bids = 6_183_763_000_000 + np.cumsum(rng.choice([-1, 0, 0, 0, 1], count)) * 10**6
    qtys = rng.integers(1, 10**6, (count, 2)) * 1000
    return [
        sbe.BestBidAskEvent(
            START_US + n * 1_000_000 // TICKS_PER_S,
            65_505_155_818 + 3 * n,
            -8,
            -8,
            bid,
            bid_qty,
            bid + 10**6,
            ask_qty,
            SYMBOL,
        )
        for n, (bid, (bid_qty, ask_qty)) in enumerate(zip(bids.tolist(), qtys.tolist(), strict=True))
    ]


def mixed_frames(count: int) -> list[bytes]:
    """SBE frames of one tick each, some of them a trade: `count` of them in the order of time."""
    is_trade = np.random.default_rng(2).random(count) < TRADE_SHARE
    frames, trade_id = [], 3_735_000_000
    for quote, instead in zip(quote_events(count), is_trade.tolist(), strict=True):
        if not instead:
            frames.append(sbe.encode(quote))
            continue
        trade_id += 1
        trade = sbe.SbeTrade(trade_id, quote.ask_price, quote.bid_qty, bool(trade_id % 2))
        time_us = quote.event_time_us
        frames.append(sbe.encode(sbe.TradesEvent(time_us + 500, time_us, -8, -8, (trade,), SYMBOL)))
    return frames
