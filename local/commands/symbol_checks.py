"""What is checked before the symbols of a deployment are changed: that the exchange trades them, and that the
deployment has room for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cdk.config import DAY_S, POLLS_OF_ONE_SYMBOL_PER_S, ConfigError, Environment, load
from local.system.options import OptionsError
from tickcast.adapters.rest.binance import RequestRefused, RestError
from tickcast.market.symbols import listed

TRADING = "TRADING"


class SymbolRefused(OptionsError):
    """A change of the symbols that cannot be made; the message says why, and what to do. Nothing was
    changed."""


class ExchangeSilent(RuntimeError):
    """The exchange did not say whether it trades a symbol, so that nothing was changed."""


class Markets(Protocol):
    """The exchange's REST API, as far as it is used here (`tickcast.adapters.rest.binance.BinanceRest`)."""

    def market_status(self, symbol: str) -> str | None: ...


def changed(served: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> tuple[str, ...]:
    """The symbols after the change, in their order, new ones last. Raises `SymbolRefused`."""
    if both := sorted(set(add) & set(remove)):
        raise SymbolRefused(f"{listed(both)} in ADD and in REMOVE: name each in one of them")
    if there := [symbol for symbol in add if symbol in served]:
        raise SymbolRefused(f"ADD: {listed(there)} {_are(there)} served already")
    if missing := [symbol for symbol in remove if symbol not in served]:
        raise SymbolRefused(
            f"REMOVE: {listed(missing)} {_are(missing)} not served; served are {listed(served)}"
        )
    after = (*(symbol for symbol in served if symbol not in remove), *add)
    if not after:
        raise SymbolRefused("REMOVE: that would leave no symbol at all; ADD another one with it")
    return after


def check_markets(exchange: Markets, symbols: Sequence[str]) -> None:
    """Raises `SymbolRefused` unless the exchange has all of `symbols` and trades them, `ExchangeSilent` where
    it does not say."""
    wrong = []
    for symbol in symbols:
        try:
            status = exchange.market_status(symbol)
        except RequestRefused as error:
            wrong.append(f"{symbol} is unknown to the exchange, so check its spelling ({error})")
        except RestError as error:
            raise ExchangeSilent(f"{symbol} could not be checked, nothing was changed: {error}") from None
        else:
            if status is None:
                raise ExchangeSilent(f"the exchange does not say whether it trades {symbol}: try again")
            if status != TRADING:
                wrong.append(f"{symbol} is not traded now (the exchange says {status}): add it when it is")
    if wrong:
        raise SymbolRefused(f"ADD: {'; '.join(wrong)}")


def check_room(environment: str, deployed: Sequence[str], after: Sequence[str]) -> None:
    """Raises `SymbolRefused`, naming the setting, unless `environment` as deployed, for the symbols
    `deployed`, has room for those of `after`: in the cache, in the address of the exchange's stream, and in
    the API's quotas."""
    try:
        load(environment, symbols=",".join(after))
    except ConfigError as error:
        raise SymbolRefused(f"{environment} has no room for {listed(after)}: {error}") from None
    if problem := quota_problem(load(environment), len(deployed), len(after)):
        raise SymbolRefused(f"{problem} in cdk/config/{environment}.yaml, then make deploy ENV={environment}")


def differs(deployed: Sequence[str], served: Sequence[str]) -> str:
    """How what is served differs from what was deployed, in words; empty if it does not."""
    added = [symbol for symbol in served if symbol not in deployed]
    removed = [symbol for symbol in deployed if symbol not in served]
    parts = [f"{listed(added)} added" if added else "", f"{listed(removed)} removed" if removed else ""]
    found = ", ".join(part for part in parts if part)
    return f"at run time {found}" if found else ""


def quota_problem(environment: Environment, deployed: int, after: int) -> str:
    """Which quota of an API that was deployed for so many symbols is too low for its callers to poll each of
    `after` symbols once a second; empty if none is. One that is set explicitly is as its owner wants it."""
    limits, api = environment.api.for_symbols(deployed), environment.api
    polls_per_s = max(after, POLLS_OF_ONE_SYMBOL_PER_S) + 1
    has_keys = api.authorisation == "api_key"
    quotas = (
        ("key_requests_per_day", has_keys, limits.key_requests_per_day, polls_per_s * DAY_S, "a day"),
        ("key_requests_per_s", has_keys, limits.key_requests_per_s, polls_per_s, "a second"),
        ("requests_per_s", True, limits.requests_per_s, polls_per_s, "a second"),
    )
    for name, applies, limit, needed, unit in quotas:
        if applies and getattr(api, name) is None and limit < needed:
            return (
                f"{after} symbols polled once a second take {needed:,} requests {unit}, and the API was "
                f"deployed for {deployed} with {limit:,}: set api.{name}, or list the symbols under symbols,"
            )
    return ""


def _are(symbols: Sequence[str]) -> str:
    return "is" if len(symbols) == 1 else "are"
