"""A symbol is added to the running system and removed again, as `make symbols` does it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from local.commands import symbols
from local.commands.deployment import Deployment
from local.commands.symbol_checks import SymbolRefused
from local.commands.symbols import Request
from local.system import archived_trades, http_json
from local.system.progress import Progress
from local.system.system import System
from tests.fixtures.running_system import eventually

pytestmark = pytest.mark.integration

NEW = "SOLUSDT"
QUIET = Progress(Console(file=io.StringIO()))


def change(there: Deployment, request: Request) -> None:
    symbols.check(there, request, "", symbols.exchange_of(there), QUIET)
    made = symbols.apply(there, request)
    symbols.follow(there, made, QUIET)
    assert not made.missing


def test_a_symbol_is_added_and_removed_and_no_other_loses_a_trade(system: System, there: Deployment) -> None:
    with pytest.raises(SymbolRefused, match="NONEUSDT is unknown to the exchange"):
        change(there, Request(add=("NONEUSDT",)))
    change(there, Request(add=(NEW,)))
    assert system.api.get(f"predictions/{NEW}").status == 200
    several = system.api.get("predictions").body["predictions"]
    assert set(several) == {*system.symbols, NEW}
    # Predictions come from quotes alone, too: its first trade may be later.
    assert eventually(lambda: archived_trades.sent_so_far(system, [NEW])[NEW]["trades"])
    sent = archived_trades.sent_so_far(system, [NEW])
    change(there, Request(remove=(NEW,)))
    assert eventually(lambda: system.api.get(f"predictions/{NEW}").status == 404)
    [address, *_] = system.ingest.values()
    assert eventually(lambda: NEW not in http_json.get(f"{address}/health").body["reference"]["age_s"])
    served = symbols.serving(there)
    assert (served.symbols, served.by) == (system.symbols, symbols.BY)
    assert archived_trades.trades_lost(system, sent | archived_trades.sent_so_far(system)) == 0
