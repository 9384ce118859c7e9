"""Names of markets: upper case, in letters of any script (the exchange has one called 币安人生USDT)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

MAX_LISTED = 10
MAX_LENGTH = 50  # characters, as the exchange's own REST documentation has it


def upper(text: str) -> str:
    """`text` as the exchange writes symbols: upper case and composed (Unicode NFC).

    A letter without an upper case of one character stays: ``ß`` is not ``SS``, which is another market.

    >>> upper("btcusdt"), upper("ßusdt")
    ('BTCUSDT', 'ßUSDT')
    """
    composed = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", "".join(_one(each, each.upper()) for each in composed))


def lower(symbol: str) -> str:
    """`symbol` as the exchange's stream names have it; character by character, as `upper`."""
    return "".join(_one(each, each.lower()) for each in symbol)


def is_symbol(text: str) -> bool:
    """Whether `text` could be a symbol as `upper` gives it: letters and digits of any script."""
    return 0 < len(text) <= MAX_LENGTH and text.isalnum() and upper(text) == text


def ascii_name(symbol: str) -> str:
    """`symbol` where only ASCII is allowed, such as a CloudWatch dimension: percent-encoded UTF-8, so that no
    two symbols share a name and ASCII symbols keep theirs.

    >>> ascii_name("BTCUSDT"), ascii_name("币USDT")
    ('BTCUSDT', '%E5%B8%81USDT')
    """
    return "".join(
        each if each.isascii() else "".join(f"%{byte:02X}" for byte in each.encode()) for each in symbol
    )


def listed(symbols: Sequence[str]) -> str:
    """`symbols` for a message: all of a few, of many the first ones and how many there are.

    >>> listed(["BTCUSDT", "ETHUSDT"])
    'BTCUSDT, ETHUSDT'
    """
    if len(symbols) <= MAX_LISTED:
        return ", ".join(symbols)
    return f"{', '.join(symbols[:MAX_LISTED])} and {len(symbols) - MAX_LISTED} more"


def _one(before: str, after: str) -> str:
    return after if len(after) == 1 else before
