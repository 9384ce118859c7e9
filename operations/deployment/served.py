"""The symbols that a deployment serves: those of its configuration, until they were changed at run time."""

from __future__ import annotations

from local.commands import symbol_checks
from local.commands.symbol_checks import SymbolRefused
from operations.deployment.account import Account
from operations.deployment.first_model import bucket
from operations.failures import OperationFailed
from tickcast.adapters.registry.served_symbols import ServedSymbols, SymbolsError, read_served


def served(account: Account) -> ServedSymbols:
    """Version 0 is the configured ones. Raises `OperationFailed` where the object is damaged, and what S3
    raises."""
    try:
        found = read_served(account.client("s3"), bucket(account))
    except SymbolsError as error:
        raise OperationFailed(str(error)) from None
    return found or ServedSymbols(symbols=account.environment.symbols)


def difference(account: Account, found: ServedSymbols) -> str:
    """How the configuration in this checkout differs, in words; empty if it does not."""
    return symbol_checks.differs(account.environment.symbols, found.symbols)


def room_problem(account: Account, found: ServedSymbols) -> str:
    """Why the configuration has no room for what is served; empty if it has."""
    try:
        symbol_checks.check_room(account.name, account.environment.symbols, found.symbols)
    except SymbolRefused as error:
        return str(error)
    return ""
