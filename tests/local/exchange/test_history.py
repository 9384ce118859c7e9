from __future__ import annotations

from local.exchange.events import Quote, Trade
from local.exchange.history import SETTLED_AFTER_US, AggTrade, QuoteHistory, TradeHistory

LATER_US = 10**15
ONE = 10**8


def trade(id_: int, time_us: int, price: int = 100, is_buyer_maker: bool = False) -> Trade:
    return Trade("BTCUSDT", time_us, id_, price * ONE, ONE, is_buyer_maker)


def history(*trades: Trade, capacity: int = 100) -> TradeHistory:
    found = TradeHistory(capacity)
    for one in trades:
        found.append(one)
    return found


def test_fills_of_one_order_at_one_price_are_one_aggregate() -> None:
    found = history(
        trade(50, 1_000),
        trade(51, 1_000),
        trade(52, 1_000, price=101),
        trade(53, 1_000, price=101, is_buyer_maker=True),
        trade(54, 2_000, price=101, is_buyer_maker=True),
    )
    assert found.from_id(0, 10, LATER_US) == [
        AggTrade(50, 100 * ONE, 2 * ONE, 50, 51, 1_000, False),
        AggTrade(51, 101 * ONE, ONE, 52, 52, 1_000, False),
        AggTrade(52, 101 * ONE, ONE, 53, 53, 1_000, True),
        AggTrade(53, 101 * ONE, ONE, 54, 54, 2_000, True),
    ]


def test_an_aggregate_that_may_still_grow_is_not_served() -> None:
    found = history(trade(1, 1_000), trade(2, 2_000))
    assert [row.first_id for row in found.from_id(0, 10, 2_000)] == [1]
    found.append(trade(3, 2_000))
    assert [row.first_id for row in found.between(None, None, 10, 2_000)] == [1]
    rows = found.between(None, None, 10, 2_000 + SETTLED_AFTER_US)
    assert [(row.first_id, row.last_id) for row in rows] == [(1, 1), (2, 3)]


def test_by_time_both_ends_count() -> None:
    found = history(*(trade(n, 1_000 * n) for n in range(1, 10)))
    assert [row.first_id for row in found.between(3_000, 5_000, 10, LATER_US)] == [3, 4, 5]
    assert [row.first_id for row in found.between(3_000, None, 2, LATER_US)] == [3, 4]
    assert [row.first_id for row in found.between(None, 5_000, 2, LATER_US)] == [4, 5]
    assert [row.first_id for row in found.between(None, None, 2, LATER_US)] == [8, 9]
    assert found.between(9_001, None, 2, LATER_US) == []


def test_memory_is_bounded_and_ids_stay() -> None:
    found = history(*(trade(n, 1_000 * n) for n in range(1, 1_001)), capacity=100)
    rows = found.from_id(0, 1_000, LATER_US)
    assert 100 <= len(rows) <= 113
    assert rows[-1].id == rows[-1].first_id == 1_000
    assert [row.id for row in found.from_id(995, 3, LATER_US)] == [995, 996, 997]


def test_the_quote_and_trade_as_of_an_instant() -> None:
    quotes = QuoteHistory("BTCUSDT")
    for n in (1, 2, 3):
        quotes.append(Quote("BTCUSDT", 1_000 * n, n, n, n, n + 1, n))
    assert quotes.as_of(999) is None
    found = map(quotes.as_of, (1_000, 1_999, 2_000, 9_000))
    assert [quote and quote.update_id for quote in found] == [1, 1, 2, 3]
    trades = history(trade(1, 1_000), trade(2, 2_000))
    assert trades.last_before(999) is None
    last = trades.last_before(1_500)
    assert last is not None and last.last_id == 1


def test_the_mids_within_a_span_are_those_newest_at_some_instant_of_it() -> None:
    quotes = QuoteHistory("BTCUSDT")
    for n, price in enumerate((10, 20, 20, 30), 1):
        quotes.append(Quote("BTCUSDT", 1_000 * n, n, price * 10**8, 1, (price + 1) * 10**8, 1))
    assert quotes.mids_within(0, 999) == []
    assert quotes.mids_within(0, 1_000) == quotes.mids_within(1_999, 1_999) == [10.5]
    assert quotes.mids_within(1_999, 3_999) == [10.5, 20.5]
    assert quotes.mids_within(2_000, 9_000) == [20.5, 30.5]
    assert quotes.mids_within(8_000, 9_000) == [30.5]
