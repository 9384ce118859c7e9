"""Which perpetual of the USD-M futures has the same base asset as a spot market."""

from __future__ import annotations

# Spot markets in dollars of one kind or another; in any other asset the perpetual's price says little.
_DOLLARS = ("USDT", "USDC", "FDUSD", "TUSD", "USD1")
# Bases of which the futures trade a thousand at once.
_BY_THE_THOUSAND = {"BONK", "FLOKI", "LUNC", "PEPE", "SHIB", "XEC"}


def perpetual_of(symbol: str) -> str | None:
    """The perpetual of the base asset of the spot market `symbol`; None if that is not one in dollars.

    Whether the exchange has it is not known: the stream of one that it does not have is silent.

    >>> [perpetual_of(symbol) for symbol in ("BTCUSDT", "ETHFDUSD", "PEPEUSDC", "ETHBTC")]
    ['BTCUSDT', 'ETHUSDT', '1000PEPEUSDT', None]
    """
    for dollar in _DOLLARS:
        base = symbol.removesuffix(dollar)
        if base and base != symbol:
            return f"1000{base}USDT" if base in _BY_THE_THOUSAND else f"{base}USDT"
    return None
