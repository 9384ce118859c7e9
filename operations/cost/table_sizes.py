"""What each table of PostgreSQL takes, a day and in all: the one place for bytes a row.

Measured with PostgreSQL 18, a day's partition with its indices (pg_total_relation_size), unless it says
assumed. Tables of some rows an hour are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from operations.cost import measured

DAY_S = 86_400


class RowSize(NamedTuple):
    """Bytes of a row in PostgreSQL, with its share of the indices, and where the figure is from."""

    bytes: float
    source: str


ROW_SIZES = {
    "trades": RowSize(142, "200,000 rows of single trades"),
    "feature_blocks": RowSize(
        90,
        "four recordings in blocks of 2,250 rows: 78 with 25 features and 17 moves in float16, three more",
    ),
    "outcomes": RowSize(289, "200,000 rows, one for each horizon"),
    "bars_1s": RowSize(209, "86,400 rows, with free space"),
    "tallies": RowSize(300, "assumed, by its columns"),
    "earnings": RowSize(200, "10,000 rows"),
    "remainders": RowSize(130, "8,500 rows, a day"),
    "shadows": RowSize(155, "5,700 rows, a day"),
}
OUTCOMES_PER_S = 4  # horizons of the prediction that is kept each second
TALLIES_PER_MINUTE = 40  # assumed: ten bins of confidence for each horizon
EARNINGS_PER_MINUTE = 12  # three steps of the expected move for each horizon
REMAINDERS_PER_MINUTE = 6  # each horizon at every shorter one
SHADOWS_PER_MINUTE = 4  # horizons; while a challenger runs


class Rates(NamedTuple):
    """What decides how many rows there are: ticks a second of all symbols together, and how many ms apart a
    symbol's feature rows with quotes are."""

    symbols: int
    ticks_per_s: float
    grid_ms: float


class Kept(NamedTuple):
    """How many days are kept: of all tables, and of trades; None: indefinitely."""

    days: int | None
    trades_days: int | None

    def of(self, table: str) -> int | None:
        known = [each for each in (self.days, self.trades_days) if each is not None]
        return min(known, default=None) if table == "trades" else self.days


@dataclass(frozen=True)
class TableSize:
    """A table after a year; `days`: how many of them are kept, None is all."""

    name: str
    rows_a_day: float
    row_bytes: float
    days: int | None

    @property
    def day_gb(self) -> float:
        return self.rows_a_day * self.row_bytes / 1e9

    @property
    def year_gb(self) -> float:
        """What it holds after a year."""
        return self.day_gb * min(self.days or measured.LIFETIME_DAYS, measured.LIFETIME_DAYS)


def table_sizes(rates: Rates, kept: Kept) -> list[TableSize]:
    """All tables, the largest first."""
    a_second = {
        "trades": rates.ticks_per_s * measured.TRADE_SHARE,
        "feature_blocks": rates.symbols * 1000 / rates.grid_ms,
        "outcomes": rates.symbols * OUTCOMES_PER_S,
        "bars_1s": rates.symbols,
        "tallies": rates.symbols * TALLIES_PER_MINUTE / 60,
        "earnings": rates.symbols * EARNINGS_PER_MINUTE / 60,
        "remainders": rates.symbols * REMAINDERS_PER_MINUTE / 60,
        "shadows": rates.symbols * SHADOWS_PER_MINUTE / 60,
    }
    sizes = [
        TableSize(name, rate * DAY_S, ROW_SIZES[name].bytes, kept.of(name)) for name, rate in a_second.items()
    ]
    return sorted(sizes, key=lambda size: -size.year_gb)


def day_gb(sizes: list[TableSize]) -> float:
    return sum(size.day_gb for size in sizes)


def year_gb(sizes: list[TableSize]) -> float:
    """What is held after a year."""
    return sum(size.year_gb for size in sizes)
