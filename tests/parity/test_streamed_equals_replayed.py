"""What was computed live, batch by batch, is what history computes of the same ticks, to the last bit."""

import numpy as np
import pytest

from tests.market import DATA, batches, random_ticks, recorded_ticks
from tickcast import wire
from tickcast.adapters import bronze
from tickcast.bars import BAR, BAR_US, BarRing, bar_index, summarise
from tickcast.features import feature_rows
from tickcast.state import decode_ring, encode_ring
from tickcast.ticks import Quotes, Trades

LATENESS_US = 100_000
RECORDINGS = ["spot_btcusdt_20240808.gz", "spot_ethusdt_20240808.gz"]


def streamed(trades: Trades, quotes: Quotes, cuts_us: list[int]) -> dict[int, bytes]:
    """Feature bits by instant, through everything a batch goes through live: wire bytes and Redis bytes."""
    ring, rows = BarRing(LATENESS_US), {}
    for piece in batches(trades, quotes, cuts_us):
        for instant_us in ring.fold(wire.decode(wire.encode(piece)), 1_000_000):
            rows[instant_us] = feature_rows(ring.bars, 1)[0].tobytes()
        ring = decode_ring(encode_ring(ring), LATENESS_US)
    assert (ring.late_trades, ring.late_quotes) == (0, 0)
    return rows


def replayed(trades: Trades, quotes: Quotes) -> dict[int, bytes]:
    """The same from history: bronze files read back, all bars at once."""
    archived = bronze.write_file(bronze.market_data(wire.TickBatch("BTCUSDT", "sim", "a", 0, trades, quotes)))
    trades, quotes = bronze.ticks_from(bronze.read_file(archived, "archived"))
    start_us = min(int(trades["time_us"].min()), int(quotes["time_us"].min()))
    end_us = max(int(trades["time_us"].max()), int(quotes["time_us"].max()))
    first = bar_index(start_us - LATENESS_US)  # where a live ring begins
    bars = summarise(trades, quotes, first, bar_index(end_us) + 1 - first, np.zeros(1, BAR)[0])
    rows = feature_rows(bars, len(bars))
    return {(first + k + 1) * BAR_US: row.tobytes() for k, row in enumerate(rows)}


def assert_same(trades: Trades, quotes: Quotes, seed: int, at_least: int) -> None:
    rng = np.random.default_rng(seed)
    start_us, end_us = int(quotes["time_us"][0]), int(quotes["time_us"].max())
    live = streamed(trades, quotes, rng.integers(start_us, end_us, 300).tolist())
    history = replayed(trades, quotes)
    assert len(live) >= at_least
    for instant_us, bits in live.items():
        assert bits == history[instant_us], instant_us


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_market(seed: int) -> None:
    assert_same(*random_ticks(seed, 100), seed, at_least=95)


@pytest.mark.skipif(not DATA.exists(), reason=f"recordings not found at {DATA}")
@pytest.mark.parametrize("name", RECORDINGS)
def test_recording(name: str) -> None:
    assert_same(*recorded_ticks(name), 1, at_least=330)
