"""Which perpetual of the USD-M futures has the same base asset as a spot market."""

from __future__ import annotations

# Spot markets in dollars of one kind or another; in any other asset the perpetual's price says little.
_DOLLARS = ("USDT", "USDC", "FDUSD", "TUSD", "USD1")


def perpetual_of(symbol: str) -> str | None:
    """The perpetual of the base asset of the spot market `symbol`; None if that is not one in dollars.

    Whether the exchange has it is not known: the stream of one that it does not have is silent. Of some bases
    it has one by the thousand alone (1000PEPEUSDT), whose prices are no reference as they are.

    >>> [perpetual_of(symbol) for symbol in ("BTCUSDT", "ETHFDUSD", "ETHBTC")]
    ['BTCUSDT', 'ETHUSDT', None]
    """
    for dollar in _DOLLARS:
        base = symbol.removesuffix(dollar)
        if base and base != symbol:
            return f"{base}USDT"
    return None
