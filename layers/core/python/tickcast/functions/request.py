"""Requests to functions: the error of one that cannot be carried out, and the checks that several share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tickcast.market.symbols import is_symbol


class RequestError(ValueError):
    """A request that cannot be carried out; the message says what it should be."""


def check_fields(request: Mapping[str, Any], known: Collection[str]) -> None:
    """Raises `RequestError` where a request has other fields than those `known`."""
    if unknown := request.keys() - set(known):
        raise RequestError(f"unknown: {', '.join(sorted(unknown))}; a request has {', '.join(sorted(known))}")


def symbols_in(request: Mapping[str, Any]) -> list[str] | None:
    """The field `symbols`, each once; None where there is none. Raises `RequestError`."""
    symbols = request.get("symbols")
    if symbols is None:
        return None
    is_list = isinstance(symbols, list) and bool(symbols)
    if not is_list or not all(isinstance(symbol, str) and is_symbol(symbol) for symbol in symbols):
        raise RequestError(f'symbols should be a list like ["BTCUSDT"], not {symbols!r}')
    return list(dict.fromkeys(symbols))


def days_in(request: Mapping[str, Any], most: int) -> int | None:
    """The field `days`; None where there is none. Raises `RequestError`."""
    days = request.get("days")
    if days is not None and (type(days) is not int or not 1 <= days <= most):
        raise RequestError(f"days should be a whole number from 1 to {most}, not {days!r}")
    return days
