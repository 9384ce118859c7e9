"""History for tests of training: planted feature rows with their seconds, put into a real PostgreSQL."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg

from tests.unit.test_training import FLOW, planted
from tickcast.adapters.history_store import HistoryStore, days_between
from tickcast.bars import SECOND_US
from tickcast.training import Rows

MID = 6_000_000_000_000  # at 1e-8
_BARS = (
    "copy tickcast.bars_1s (symbol, end_us, has_quotes, origin, last_trade_price, bid_price, ask_price, "
    "trade_count, buy_qty, sell_qty, notional, last_trade_id, quote_count, update_id, bid_qty, ask_qty) "
    "from stdin"
)
_ROWS = (
    "copy tickcast.feature_rows (symbol, end_us, feature_set, has_quotes, origin, features, moves_bp) "
    "from stdin"
)


def market(
    seed: int,
    seconds: int,
    from_us: int,
    strength: float = 0.6,
    *,
    has_quotes: bool = True,
    step_ms: int = 100,
) -> Rows:
    """Rows each `step_ms`, in which one feature foretells the move: the imbalance or, where there are no
    quotes, the flow of trades."""
    count = seconds * 1000 // step_ms
    rows = planted(seed, count, strength, 0 if has_quotes else FLOW, float(has_quotes))
    return rows._replace(end_us=from_us + (1 + np.arange(count)) * step_ms * 1000)


def fill(
    connection: psycopg.Connection[Any],
    symbol: str,
    rows: Rows,
    *,
    origin: str = "stream",
    last_trade_bp: float = 0.0,
    mid: int = MID,
) -> None:
    """Put `rows` where `load_history` puts them; the last trades of seconds are so far from `mid` (1e-8)."""
    store = HistoryStore(connection)
    store.add_days(days_between(int(rows.end_us.min()), int(rows.end_us.max())))
    features, moves_bp = (each.astype(np.float32).tolist() for each in (rows.features, rows.moves_bp))
    flags = rows.has_quotes.tolist()
    prices = (round(mid * (1 + last_trade_bp / 1e4)), mid - 1000, mid + 1000)
    with connection.transaction(), connection.cursor() as cursor:
        with cursor.copy(_BARS) as copy:
            for end_us, has_quotes in zip(rows.end_us.tolist(), flags, strict=True):
                if end_us % SECOND_US == 0:
                    copy.write_row((symbol, end_us, has_quotes, origin, *prices, *(1,) * 9))
        with cursor.copy(_ROWS) as copy:
            for end_us, flag, *vectors in zip(rows.end_us.tolist(), flags, features, moves_bp, strict=True):
                copy.write_row((symbol, end_us, store._feature_set, flag, origin, *vectors))
