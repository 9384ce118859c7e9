"""What history takes in PostgreSQL, and whether the configured storage has room for it."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

import pytest

from operations.cost import command, storage
from operations.cost.estimate import Estimate
from operations.cost.inventory import Inventory
from operations.cost.table_sizes import ROW_SIZES, Kept
from operations.cost.usage import Load, Usage
from tests.fixtures.paths import ROOT
from tests.operations.cost.test_usage import SMALL, estimate

DOCUMENT = ROOT / "docs" / "cost.md"

BUSY = Load(storage.BUSY_TICKS_PER_S)
NOT_LARGE = {"feature_counts", "feature_rows"}  # some rows an hour; of an earlier release


@pytest.fixture
def prod(estimates: dict[str, Estimate]) -> Inventory:
    return estimates["prod"].inventory


def test_two_busy_symbols_fit_into_what_prod_has(prod: Inventory) -> None:
    two = Usage(replace(prod, symbols=storage.BUSY_SYMBOLS), BUSY)
    assert two.database_data_gb <= storage.MARK_GB
    assert two.grown_gb <= prod.database_gb
    assert not storage.faults(replace(prod, symbols=storage.BUSY_SYMBOLS), BUSY)


def test_the_limit_of_the_storage_is_that_of_the_template(estimates: dict[str, Estimate]) -> None:
    assert estimates["prod"].inventory.database_limit_gb == 500


def test_every_large_table_is_counted(owner: Any) -> None:
    query = "select relname from pg_class where relkind = 'p' and relnamespace = 'tickcast'::regnamespace"
    assert {name for (name,) in owner.execute(query)} - NOT_LARGE <= set(ROW_SIZES)


def test_a_row_of_trades_takes_what_it_says(owner: Any) -> None:
    """The largest table by day; the figure is the cost of its key, too."""
    day_us, count = 20_000 * 86_400_000_000, 50_000
    owner.execute("select tickcast.add_day(%s)", (day_us,))
    owner.execute(
        "insert into tickcast.trades select 'BTCUSDT', %s + n * 1000, 7000000000 + n, 7000000000 + n, "
        "6000000000000 + n, n, 1, 'stream', 1, null from generate_series(1, %s) n",
        (day_us, count),
    )
    ((size,),) = owner.execute("select pg_total_relation_size('tickcast.trades_20241004')").fetchall()
    assert size / count == pytest.approx(ROW_SIZES["trades"].bytes, rel=0.1)


def test_trades_are_kept_no_longer_than_all_else() -> None:
    for days, trades_days, kept in ((10, 3, 3), (2, 3, 2), (None, 3, 3), (10, None, 10), (None, None, None)):
        assert Kept(days, trades_days).of("trades") == kept
        assert Kept(days, trades_days).of("outcomes") == days


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"database_gb": 100}, None),
        ({"database_gb": 20, "database_limit_gb": 500}, "so RDS enlarges it"),
        ({"database_gb": 20, "database_limit_gb": 50}, "grows to 50 at most: PostgreSQL fills up"),
        ({"database_gb": 20}, "grows to 20 at most: PostgreSQL fills up"),
    ],
    ids=["room", "grows", "beyond the limit", "fixed"],
)
def test_storage_that_is_too_small_is_named(fields: dict[str, int], says: str | None) -> None:
    found = estimate(BUSY, symbols=4, keep_days=90, trades_keep_days=3, **fields)
    warnings = [each for each in found.warnings if "GB of rows" in each]
    assert len(warnings) == (says is not None)
    assert storage.as_json(found.inventory, found.load)["fits"] == (says is None)
    if says:
        assert says in warnings[0] and says in command.text(found)


def test_the_document_has_the_table_of_two_busy_symbols(prod: Inventory) -> None:
    """UPDATE_COST=1 writes it again."""
    two = replace(prod, symbols=storage.BUSY_SYMBOLS)
    text = DOCUMENT.read_text("utf-8")
    table = f"<!-- prod: PostgreSQL -->\n\n{storage.storage_table(two, BUSY)}\n\n{storage.sentence(two)}\n"
    pattern = r"<!-- prod: PostgreSQL -->\n\n(?:\|.*\n)*\n.*\n"
    expected, found = re.subn(pattern, lambda _: table, text)
    assert found == 1
    if os.environ.get("UPDATE_COST"):
        DOCUMENT.write_text(expected, "utf-8")
    else:
        assert text == expected, "docs/cost.md: run this test with UPDATE_COST=1, and read the difference"


def test_the_command_prints_the_tables(estimates: dict[str, Estimate]) -> None:
    text = command.text(estimates["prod"])
    assert storage.storage_table(estimates["prod"].inventory, estimates["prod"].load) in text
    assert "For comparison: two busy symbols (200 ticks a second each) take" in text


def test_the_sums_are_those_of_the_tables() -> None:
    found = storage.as_json(SMALL, BUSY)
    assert found["year_gb"] == pytest.approx(
        sum(each["year_gb"] for each in found["tables"].values()), abs=0.05
    )
    assert found["year_gb"] == pytest.approx(Usage(SMALL, BUSY).database_data_gb, abs=0.01)
