"""The two assets in a symbol's name."""

from __future__ import annotations

_QUOTE_ASSETS = ("USDT", "USDC", "FDUSD", "BUSD", "TUSD", "BTC", "ETH", "EUR")


def assets_of(symbol: str) -> tuple[str, str]:
    """The base and the quote asset of a symbol of the spot market or of the USD-M futures.

    >>> assets_of("BTCUSDT"), assets_of("ETHFDUSD"), assets_of("ETHBTC"), assets_of("XYZABC")
    (('BTC', 'USDT'), ('ETH', 'FDUSD'), ('ETH', 'BTC'), ('XYZ', 'ABC'))
    """
    quote_asset = next((asset for asset in _QUOTE_ASSETS if symbol.endswith(asset)), symbol[-3:])
    return symbol.removesuffix(quote_asset), quote_asset
