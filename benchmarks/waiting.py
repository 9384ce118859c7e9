"""`python -m benchmarks.waiting --train FILE… --session FILE…`: whether a prediction waits for complete bars.

Replays recordings by their arrival times. In every 200 ms, at a random instant, a forecast is made from what
had arrived, and read a delay later: its remaining move is compared with the mid at reading and at target.

- `wait L`: as of the newest bar that is closed, by a lateness of L ms.
- `bars`: as of the newest claim's bar boundary, with open bars as far as their ticks have come.
- `newest`: as of the newest claim; the last bar is partial.

With a linger, ticks arrive together at its end. Spot quotes have no time of their own: they count as of their
arrival, so that only trades can be late there. With `--half`, the model is trained on the first half of the
time and evaluated on the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from local.commands.evaluate import bars_of
from local.exchange.events import Quote, Tick, Trade
from local.exchange.recording import inspect, merge
from local.system.seed import tick_arrays
from tickcast.evaluation.skill import block_s, skill
from tickcast.features.bars import BAR_US
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_NAMES, feature_rows
from tickcast.market.ticks import Quotes, Trades
from tickcast.market.wire import TickBatch
from tickcast.model.dataset import training_rows
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import HORIZONS_S, PATH_S
from tickcast.model.network import Network
from tickcast.model.thinning import by_symbol
from tickcast.model.training import GAP_US, between, train

LATENESS_MS = (0, 20, 50, 100, 200)
LINGERS_MS = (0, 25, 50, 100)
CLOSING_MS = 100  # the lateness by which bars close where nothing waits
DELAYS_MS = (100, 200)  # from the row to its reader
EVERY_US = 200_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Market(NamedTuple):
    """One symbol's ticks in the order of arrival, and when each arrived (µs, the exchange's clock)."""

    trades: Trades
    quotes: Quotes
    trades_us: Ints
    quotes_us: Ints

    @property
    def span_us(self) -> tuple[int, int]:
        return int(self.quotes_us[0]), int(self.quotes_us[-1])

    def mid_at(self, time_us: Ints) -> Floats:
        """The mid of the newest quote at each instant. Shape of `time_us`."""
        happened_us = np.maximum.accumulate(self.quotes["time_us"])
        at = np.searchsorted(happened_us, time_us, side="right") - 1
        mid = (self.quotes["bid_price"] + self.quotes["ask_price"]) / 2
        return np.asarray(mid[np.maximum(at, 0)])


class Variant(NamedTuple):
    """Features (N, F) as of `as_of_us` (N,), known at the instants (N,); `late` is the share of ticks."""

    name: str
    linger_ms: int
    late: float
    as_of_us: Ints
    features: Floats


class Score(NamedTuple):
    """A horizon's skill against no change, with its interval."""

    skill: float
    interval: list[float]


def market(path: Path) -> Market:
    """The market in a recording of one symbol. Raises `RecordingError`."""
    ticks: list[Tick] = []
    trades_us: list[int] = []
    quotes_us: list[int] = []
    for sending in merge([inspect(path)]):
        if isinstance(sending.event, Trade | Quote):
            ticks.append(sending.event)
            (trades_us if isinstance(sending.event, Trade) else quotes_us).append(sending.due_us)
    return Market(*tick_arrays(ticks), np.array(trades_us), np.array(quotes_us))


def instants(found: Market) -> Ints:
    """A random instant in each 200 ms, µs: the phase of events and readers is not that of the bars."""
    first_us, last_us = found.span_us
    grid = np.arange(first_us, last_us - round(max(HORIZONS_S) * 1e6) - 500_000, EVERY_US)
    return np.asarray(grid + np.random.default_rng(1).integers(0, EVERY_US, len(grid)))


def arrived(found: Market, at_us: Ints, linger_ms: int) -> Iterator[TickBatch]:
    """What arrives up to each instant since the one before."""

    def delivered(times_us: Ints) -> Ints:
        step = max(1, linger_ms * 1000)
        return np.asarray(np.searchsorted(-(-times_us // step) * step, at_us, side="right"))

    trades_until, quotes_until = delivered(found.trades_us), delivered(found.quotes_us)
    first_trade = first_quote = 0
    newest_us = -1
    for trade, quote in zip(trades_until.tolist(), quotes_until.tolist(), strict=True):
        trades, quotes = found.trades[first_trade:trade], found.quotes[first_quote:quote]
        for ticks in (trades, quotes):
            newest_us = max(newest_us, int(ticks["time_us"].max(initial=-1)))
        yield batch(trades, quotes, newest_us)
        first_trade, first_quote = trade, quote


def variants(found: Market, at_us: Ints, lateness_ms: int, linger_ms: int) -> list[Variant]:
    """The variant that waits for `lateness_ms`; with `CLOSING_MS` also those that do not wait."""
    ring = BarRing(lateness_ms * 1000)
    names = [f"wait {lateness_ms}", *(["bars", "newest"] if lateness_ms == CLOSING_MS else [])]
    rows: dict[str, list[Floats]] = {name: [] for name in names}
    as_of: dict[str, list[int]] = {name: [] for name in names}
    for each in arrived(found, at_us, linger_ms):
        for _ in ring.fold(each, BAR_US):
            pass
        ends_us = (ring.closed_us, ring.as_of_us // BAR_US * BAR_US, ring.as_of_us)
        for name, end_us in zip(names, ends_us, strict=False):
            view = ring.view(end_us)
            row = feature_rows(view.bars, view.seconds, min(1, len(view.bars)))
            rows[name].append(row[0] if len(row) else np.full(len(FEATURE_NAMES), np.nan))
            as_of[name].append(view.as_of_us)
    late = late_share(found, lateness_ms, linger_ms)
    return [Variant(name, linger_ms, late, np.array(as_of[name]), np.array(rows[name])) for name in names]


def late_share(found: Market, lateness_ms: int, linger_ms: int) -> float:
    """The share of ticks whose bar was closed when they were delivered. Apart from the replay, which folds
    all that came between two instants at once and so would miss some."""
    arrived_us = np.concatenate([found.trades_us, found.quotes_us])
    time_us = np.concatenate([found.trades["time_us"], found.quotes["time_us"]])
    step = max(1, linger_ms * 1000)
    batch_of = -(-arrived_us // step)
    order = np.argsort(batch_of, kind="stable")
    batch_of, time_us = batch_of[order], time_us[order]
    claims_us = np.concatenate([[0], np.maximum.accumulate(time_us)])
    before_us = claims_us[np.searchsorted(batch_of, batch_of)]  # the claim when the batch arrived
    return float(np.mean(time_us // BAR_US < (before_us - lateness_ms * 1000) // BAR_US))


def remaining_bp(paths_bp: Floats, age_s: Floats, horizon_s: int) -> Floats:
    """What is still to come of paths (N, J), each at its own age (N,). Shape (N,)."""
    times, values = np.array([0.0, *PATH_S]), np.column_stack([np.zeros(len(paths_bp)), paths_bp])

    def at(time_s: Floats) -> Floats:
        time_s = np.clip(time_s, 0, times[-1])
        place = np.clip(np.searchsorted(times, time_s), 1, len(times) - 1)
        share = (time_s - times[place - 1]) / (times[place] - times[place - 1])
        row = np.arange(len(values))
        return np.asarray(values[row, place - 1] * (1 - share) + values[row, place] * share)

    return at(age_s + horizon_s) - at(age_s)


def scores(
    network: Network, found: Market, at_us: Ints, variant: Variant, used: npt.NDArray[np.bool_], delay_ms: int
) -> dict[int, Score]:
    """By horizon, the skill of what a reader reads `delay_ms` after each of the instants `used`."""
    read_us = at_us[used] + delay_ms * 1000
    age_s = (read_us - variant.as_of_us[used]) / 1e6
    paths_bp = network.forward(variant.features[used])[0]
    found_scores = {}
    for horizon_s in HORIZONS_S:
        outcome = (found.mid_at(read_us + horizon_s * 1_000_000) / found.mid_at(read_us) - 1) * 1e4
        expected = remaining_bp(paths_bp, age_s, horizon_s)
        block_rows = block_s(horizon_s) * 1_000_000 // EVERY_US
        found_scores[horizon_s] = Score(*skill(outcome, expected, np.zeros(len(outcome)), block_rows))
    return found_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--session", nargs="+", type=Path, required=True, metavar="FILE")
    parser.add_argument("--half", action="store_true", help="train on the first half of the time")
    given = parser.parse_args()
    if set(given.train) & set(given.session) and not given.half:
        parser.error("a model is not evaluated on what it was trained on: use --half, or other files")
    recordings = [inspect(path) for path in given.train]
    markets = by_symbol((each.symbol, training_rows(each.bars)) for each in bars_of(recordings))
    cut_us = 0
    if given.half:
        ends = [int(rows.end_us[at]) for rows in markets.values() for at in (0, -1)]
        cut_us = (min(ends) + max(ends)) // 2
        markets = between(markets, -np.inf, cut_us - GAP_US)
    network = train(markets, replace(TrainingSettings(), test_share=0.0)).network
    for path in given.session:
        report(path, network, cut_us)


def report(path: Path, network: Network, cut_us: int) -> None:
    found = market(path)
    at_us = instants(found)
    # Every lateness without a linger, and every linger with the lateness that is used.
    settings = [(ms, 0) for ms in LATENESS_MS] + [(CLOSING_MS, ms) for ms in LINGERS_MS if ms]
    everything = [each for setting in settings for each in variants(found, at_us, *setting)]
    used = at_us > cut_us
    for each in everything:  # all variants on the same rows
        used = used & np.isfinite(each.features).all(axis=1)
    print(f"\n{path.name}: {used.sum()} instants; skill at {' / '.join(map(str, HORIZONS_S))} s")
    print("| linger ms | variant | late ticks | delay ms | age ms, p50 / p90 | 1 s | 2 s | 5 s | 10 s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for each in everything:
        for delay_ms in DELAYS_MS:
            ages_ms = (at_us - each.as_of_us)[used] / 1000 + delay_ms
            by_horizon = scores(network, found, at_us, each, used, delay_ms)
            cells = [f"{s.skill:.3f} [{s.interval[0]:.3f}, {s.interval[1]:.3f}]" for s in by_horizon.values()]
            age = " / ".join(f"{value:.0f}" for value in np.percentile(ages_ms, [50, 90]))
            head = [str(each.linger_ms), each.name, f"{each.late:.2%}", str(delay_ms), age]
            print(f"| {' | '.join([*head, *cells])} |", flush=True)


def batch(trades: Trades, quotes: Quotes, newest_us: int) -> TickBatch:
    """What one connection delivers, with its claim."""
    return TickBatch("BTCUSDT", "replay", "a", newest_us, trades, quotes)


if __name__ == "__main__":
    main()
