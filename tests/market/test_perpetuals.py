import pytest

from tickcast.market.perpetuals import perpetual_of


@pytest.mark.parametrize(
    ("symbol", "perpetual"),
    [
        ("BTCUSDT", "BTCUSDT"),
        ("BTCFDUSD", "BTCUSDT"),
        ("ETHUSDC", "ETHUSDT"),
        ("USDCUSDT", "USDCUSDT"),
        ("1000SATSUSDT", "1000SATSUSDT"),
        ("币安人生USDT", "币安人生USDT"),
        ("ETHBTC", None),
        ("BTCEUR", None),
        ("USDT", None),
    ],
)
def test_a_market_in_dollars_has_the_perpetual_of_its_base(symbol: str, perpetual: str | None) -> None:
    assert perpetual_of(symbol) == perpetual
