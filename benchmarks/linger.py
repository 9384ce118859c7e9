"""`python -m benchmarks.linger RECORDING…`: what the linger costs a reader.

Replays a recording by its arrival times: a record leaves at the end of each linger in which ticks came. An
answer is made where its newest tick passed another `PREDICT_EVERY_MS`, and can be read `READY_MS` later. At
random moments the mid of then is compared with the mid that the newest answer knew. The root mean square of
that missed move is also that of a reader who gets every tick after a constant delay, the equivalent delay.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.latency_budget import PREDICT_EVERY_MS
from local.exchange.events import Quote, Trade
from local.exchange.recording import inspect, merge

READY_MS = 100
LINGERS_MS = (10, 25, 50, 75, 100, 150)
PACKING_MS = 0.7  # on top of the linger
MOMENTS = 200_000
_EDGE_MS = 2000.0  # left out at both ends

Floats = npt.NDArray[np.float64]


class Market(NamedTuple):
    """Arrivals in ms, ascending, and the log of the mid then, basis points. Shapes (ticks,)."""

    ms: Floats
    mid_bp: Floats


class Row(NamedTuple):
    linger_ms: int
    answers_per_s: float
    missed_bp: float  # root mean square
    equivalent_ms: float
    age_ms: float  # of the claim of what is read, median


def market(path: Path) -> Market:
    """The market in a recording. Raises `RecordingError`."""
    ms, mid, known = [], [], None
    for sending in merge([inspect(path)]):
        if isinstance(sending.event, Quote):
            known = (sending.event.bid_price + sending.event.ask_price) / 2
        if isinstance(sending.event, Quote | Trade) and known is not None:
            ms.append(sending.due_us / 1000)
            mid.append(known)
    return Market(np.array(ms), np.log(np.array(mid)) * 1e4)


def study(found: Market, moments: int = MOMENTS) -> list[Row]:
    """A row for each linger."""
    first_ms, last_ms = found.ms[0] + _EDGE_MS, found.ms[-1] - _EDGE_MS
    reads_ms = np.random.default_rng(1).uniform(first_ms, last_ms, moments)
    mid_bp = found.mid_bp[_newest(found.ms, reads_ms)]

    def missed_bp(known: npt.NDArray[np.int64]) -> float:
        return float(np.sqrt(np.mean((mid_bp - found.mid_bp[known]) ** 2)))

    delays_ms = np.arange(0, 400, 10)
    delayed_bp = [missed_bp(_newest(found.ms, reads_ms - delay_ms)) for delay_ms in delays_ms]
    rows = []
    for linger_ms in LINGERS_MS:
        known, ready_ms = _answers(found.ms, linger_ms)
        read = known[np.maximum(_newest(ready_ms, reads_ms), 0)]
        missed = missed_bp(read)
        equivalent_ms = float(np.interp(missed, delayed_bp, delays_ms))
        seconds = (found.ms[-1] - found.ms[0]) / 1000
        age_ms = float(np.median(reads_ms - found.ms[read]))
        rows.append(Row(linger_ms, len(known) / seconds, missed, equivalent_ms, age_ms))
    return rows


def _answers(ms: Floats, linger_ms: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """The newest tick that each answer knows, and when it is readable. Shapes (answers,)."""
    leaves_ms = np.arange(ms[0], ms[-1], linger_ms + PACKING_MS)
    newest = _newest(ms, leaves_ms)
    passed = ms[newest] // PREDICT_EVERY_MS
    is_made = np.diff(passed, prepend=-1.0) > 0  # passes never fall, so a record without ticks makes none
    return newest[is_made], leaves_ms[is_made] + READY_MS


def _newest(ms: Floats, at_ms: Floats) -> npt.NDArray[np.int64]:
    return np.searchsorted(ms, at_ms, side="right") - 1


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        print(f"{path.stem}\n\n| linger ms | answers/s | missed bp | equivalent delay ms | age ms |")
        print("|---:|---:|---:|---:|---:|")
        for row in study(market(path)):
            values = (
                f"{row.answers_per_s:.1f} | {row.missed_bp:.2f} | {row.equivalent_ms:.0f} | {row.age_ms:.0f}"
            )
            print(f"| {row.linger_ms} | {values} |")
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
