"""Which ticks of a record are plausible: books, trades and times by themselves, independent of earlier ones.

An outlier must cost its own row and nothing else, so every check is about rows. Ticks are checked twice: on
arrival (`ingest_ecs`, one connection at a time, by its `ExchangeClock` and by `IdSeries`), and by the
consumers, which must not trust a record (`screen`, then `IdSeries` again where all connections meet).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tickcast.market import symbols
from tickcast.market.exchange_clock import AGREEING_FRAMES, MAX_CLOCK_ERROR_US
from tickcast.market.sources import REFERENCES
from tickcast.market.ticks import TRADE, Quotes, TickArray, Trades, bounds
from tickcast.market.wire import NO_WATERMARK, QUIET_UNKNOWN, SENT_UNKNOWN, TickBatch, WireError
from tickcast.units import SECOND_US

ARRIVAL_AHEAD_US = 5 * SECOND_US  # of the arrival at Kinesis, whose clock is another one
OLDEST_US = 1_483_228_800 * SECOND_US  # 2017: no tick of these markets is older
MAX_IDS_A_ROW = 100_000
MAX_CONNECTION = 64  # characters
MAX_BASIS = 0.05  # a reference price further from spot is an error, as in `features.bars`
FEW_PRICES = 3  # of spot, before they say so

_SOURCE = re.compile(r"\w{1,32}", re.ASCII)

Flags = npt.NDArray[np.bool_]


class Fault(NamedTuple):
    reason: str
    is_faulty: Flags  # shape (rows,)


def trade_faults(trades: Trades) -> list[Fault]:
    """The faults that are visible in a trade by itself. Flags of shape (trades,)."""
    ids = trades["last_id"] - trades["first_id"]  # beyond the first; of single trades 0
    return [
        Fault("a trade without a price or quantity", (trades["price"] <= 0) | (trades["qty"] <= 0)),
        Fault("impossible trade ids", (trades["first_id"] < 0) | (ids < 0) | (ids > MAX_IDS_A_ROW)),
        Fault("a side that is neither buy nor sell", np.abs(trades["side"]) != 1),
    ]


def quote_faults(quotes: Quotes) -> list[Fault]:
    """The faults that are visible in a quote by itself. A side may be missing, with price and quantity 0;
    half a side is a fault. Flags of shape (quotes,)."""
    bid, ask = quotes["bid_price"], quotes["ask_price"]
    bid_qty, ask_qty = quotes["bid_qty"], quotes["ask_qty"]
    is_half = ((bid > 0) != (bid_qty > 0)) | ((ask > 0) != (ask_qty > 0))
    is_negative = (bid < 0) | (bid_qty < 0) | (ask < 0) | (ask_qty < 0)
    return [
        Fault("half a side of the book", is_half | is_negative),
        Fault("a crossed book", (bid > 0) & (ask > 0) & (bid >= ask)),
        Fault("an impossible book update id", quotes["update_id"] < 0),
    ]


def time_faults(rows: TickArray, arrived_us: int) -> list[Fault]:
    """Times that are impossible in a record that arrived at `arrived_us`. Flags of shape (rows,).

    Old ticks are valid: a record may have waited for minutes. A tick is ahead if it is ahead of the arrival,
    or, as that may be much later, ahead of its own receipt by more than the others in the record (the clock
    of ingest's host may be off) and by more than a correct clock allows.
    """
    time_us, received_us = rows["time_us"], rows["receive_time_us"]
    ahead_us = time_us - received_us
    is_ahead = ahead_us > ARRIVAL_AHEAD_US
    if is_ahead.any():
        usual_us = max(float(np.median(ahead_us)), 0.0) if len(rows) >= AGREEING_FRAMES else np.inf
        is_ahead = ahead_us > usual_us + ARRIVAL_AHEAD_US
    return [
        Fault("a time before 2017", time_us < OLDEST_US),
        Fault("a time ahead of its arrival", time_us > arrived_us + ARRIVAL_AHEAD_US),
        Fault("a time ahead of its receipt", is_ahead),
        Fault("a receipt long after its arrival", received_us > arrived_us + MAX_CLOCK_ERROR_US),
    ]


def are_plain(rows: TickArray, arrived_us: int) -> bool:
    """Whether all of `rows` (at least one) pass a quick check for faults. If not, the fault functions find
    which do not, at several times the cost."""
    (oldest_us, _, *lowest), (newest_us, received_us, *_) = bounds(rows)
    in_time = (
        oldest_us >= OLDEST_US
        and newest_us <= arrived_us + ARRIVAL_AHEAD_US
        and received_us <= arrived_us + MAX_CLOCK_ERROR_US
        and (rows["time_us"] - rows["receive_time_us"]).max() <= ARRIVAL_AHEAD_US
    )
    if not in_time:
        return False
    least_id, *prices_and_sizes = lowest
    if least_id < 0 or min(prices_and_sizes) <= 0:  # trade 0 is left to the faults
        return False
    if rows.dtype == TRADE:
        return bool((rows["last_id"] == rows["first_id"]).all() and (np.abs(rows["side"]) == 1).all())
    return bool((rows["bid_price"] < rows["ask_price"]).all())


class Screened(NamedTuple):
    """A batch without its impossible rows. `refused` holds only those, or is None; `reason` says why."""

    batch: TickBatch
    refused: TickBatch | None = None
    reason: str = ""


def screen(batch: TickBatch, arrived_us: int) -> Screened:
    """`batch` without what is impossible in a record that arrived at `arrived_us`: ticks with such times,
    ids, prices or books, claims, notices or evidence of quiet from ahead of the arrival, and an instant of
    sending that is a day off.

    Raises `WireError` if its symbol, source or connection is impossible: they become parts of keys.

    One tick from the future would close the bars up to its time and make every later tick late.
    """
    if fault := _name_fault(batch.symbol, batch.source):
        raise WireError(fault)
    if len(batch.connection) > MAX_CONNECTION:
        raise WireError(
            f"its connection has {len(batch.connection)} characters, not at most {MAX_CONNECTION}"
        )
    counts: dict[str, int] = {}
    good_trades, bad_trades = _split(batch.trades, trade_faults, arrived_us, counts)
    good_quotes, bad_quotes = _split(batch.quotes, quote_faults, arrived_us, counts)
    good_reference, bad_reference = _reference(batch, arrived_us, counts)
    latest_us = arrived_us + ARRIVAL_AHEAD_US
    watermark_us, quiet_us = batch.watermark_us, batch.quiet_us
    if watermark_us > latest_us:
        counts[f"the watermark {watermark_us} is ahead of its arrival at {arrived_us}"] = 1
        watermark_us = NO_WATERMARK
    if quiet_us > latest_us:
        counts[f"the market was quiet at {quiet_us}, ahead of its arrival at {arrived_us}"] = 1
        quiet_us = QUIET_UNKNOWN
    sent_us = batch.sent_us
    if sent_us >= 0 and abs(sent_us - arrived_us) > MAX_CLOCK_ERROR_US:
        counts[f"it was sent at {sent_us}, a day or more from its arrival at {arrived_us}"] = 1
        sent_us = SENT_UNKNOWN
    # A notice about the future would explain losses that have not happened yet.
    notices = tuple(n for n in batch.notices if n.to_us <= latest_us)
    if len(notices) < len(batch.notices):
        counts["a notice ahead of its arrival"] = len(batch.notices) - len(notices)
    if not counts:
        return Screened(batch)
    good = batch._replace(
        trades=good_trades,
        quotes=good_quotes,
        reference=good_reference,
        watermark_us=watermark_us,
        notices=notices,
        quiet_us=quiet_us,
        sent_us=sent_us,
    )
    bad = batch._replace(trades=bad_trades, quotes=bad_quotes, reference=bad_reference, notices=())
    reason = "; ".join(f"{why} ({count})" for why, count in counts.items())
    return Screened(good, bad if bad.tick_count else None, f"{batch.symbol}: {reason}")


def _reference(batch: TickBatch, arrived_us: int, counts: dict[str, int]) -> tuple[Quotes, Quotes]:
    """The plausible reference quotes of `batch`, and the others, which are added to `counts` by reason: those
    that no quote can be, that are far off the spot prices of the same batch (if there are enough of these for
    one to be wrong), and all of them with a source that has none."""
    rows = batch.reference
    if not len(rows):
        return rows, rows
    if batch.source not in REFERENCES:
        counts[f"a reference quote from source {batch.source}, which has none"] = len(rows)
        return rows[:0], rows
    found: dict[str, int] = {}
    good, bad = _split(rows, quote_faults, arrived_us, found)
    spot = np.concatenate([batch.trades["price"], batch.quotes["bid_price"]]).astype(float)
    if len(good) and len(spot) >= FEW_PRICES:
        usual = float(np.median(spot))
        is_off = np.zeros(len(good), bool)
        for name in ("bid_price", "ask_price"):
            is_off |= (good[name] > 0) & (np.abs(good[name] - usual) > usual * MAX_BASIS)
        if count := int(is_off.sum()):
            found["a price far off spot"] = count
            good, bad = good[~is_off], np.concatenate([bad, good[is_off]])
    for reason, count in found.items():
        counts[f"reference: {reason}"] = count
    return good, bad


@functools.lru_cache(maxsize=1024)
def _name_fault(symbol: str, source: str) -> str | None:
    """What is wrong with the names of a batch, bounded in length; None: nothing."""
    if not symbols.is_symbol(symbol):
        return f"symbol {symbol[: symbols.MAX_LENGTH]!r} cannot be a market's"
    if not _SOURCE.fullmatch(source):
        return f"source {source[:32]!r} is not 1 to 32 ASCII letters, digits and underscores"
    return None


def _split(
    rows: TickArray, faults_of: Callable[[TickArray], list[Fault]], arrived_us: int, counts: dict[str, int]
) -> tuple[TickArray, TickArray]:
    """The plausible ones of `rows`, and the others, which are added to `counts` by reason."""
    if not len(rows) or are_plain(rows, arrived_us):
        return rows, rows[:0]
    bad: Flags | None = None
    for reason, is_faulty in (*faults_of(rows), *time_faults(rows, arrived_us)):
        if not is_faulty.any():
            continue
        bad = np.zeros(len(rows), bool) if bad is None else bad
        if count := int(np.count_nonzero(is_faulty & ~bad)):
            counts[reason] = counts.get(reason, 0) + count
        bad |= is_faulty
    return (rows, rows[:0]) if bad is None else (rows[~bad], rows[bad])
