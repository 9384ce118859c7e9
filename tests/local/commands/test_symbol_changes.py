"""`make smoke` with ADD and REMOVE: what is refused, and what has to be in bronze."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from local.commands.symbol_changes import Changed, SymbolChanges
from local.system import archived_trades
from local.system.options import Options, OptionsError


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (SymbolChanges(add=("ETHUSDT",)), "ADD: ETHUSDT is served already"),
        (SymbolChanges(remove=("SOLUSDT",)), "REMOVE: SOLUSDT is not served"),
        (SymbolChanges(add=("NONEUSDT",)), "ADD: the simulated exchange has no NONEUSDT; it has BTCUSDT"),
        (SymbolChanges(add=("SOLUSDT",), remove=("BTCUSDT", "ETHUSDT")), "at least one symbol has to stay"),
    ],
)
def test_changes_that_cannot_be_made_are_refused_before_anything_starts(
    changes: SymbolChanges, why: str
) -> None:
    with pytest.raises(OptionsError, match=why):
        changes.check(Options())


def test_a_replay_has_no_further_markets(tmp_path: Path) -> None:
    recording = tmp_path / "a.gz"
    recording.touch()
    with pytest.raises(OptionsError, match=re.escape("ADD and REMOVE need FEED=sim or live")):
        SymbolChanges(add=("SOLUSDT",)).check(Options("replay", replay=(recording,)))


def test_without_changes_nothing_is_checked_or_said() -> None:
    changes = SymbolChanges()
    changes.check(Options())
    assert not changes
    assert changes.staying(("BTCUSDT",)) == ("BTCUSDT",)


def test_of_a_removed_symbol_what_was_sent_until_then_has_to_be_there() -> None:
    changes = SymbolChanges(remove=("ETHUSDT",))
    changes._sent_of_removed = {"ETHUSDT": {"last_id": 5}}
    sent = {"BTCUSDT": {"last_id": 9}, "ETHUSDT": {"last_id": 9}}
    assert changes.due(sent) == {"BTCUSDT": {"last_id": 9}, "ETHUSDT": {"last_id": 5}}
    assert changes.staying(("BTCUSDT", "ETHUSDT")) == ("BTCUSDT",)


def test_what_was_not_followed_fails() -> None:
    changed = Changed({"SOLUSDT": 3.1, "XRPUSDT": None}, {"SOLUSDT": None}, {"ETHUSDT": None})
    assert changed.failures == [
        "XRPUSDT was not fed after it was added",
        "SOLUSDT was not predicted by the model after it was added",
        "ETHUSDT was still there after it was removed",
    ]


def test_a_market_that_nobody_listened_to_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An added symbol that ingest never followed is reported as such, not as an error of the exchange."""
    sent = {"BTCUSDT": {"trades": 1}}
    monkeypatch.setattr(archived_trades, "_SETTLE_S", 0)
    monkeypatch.setattr("local.system.http_json.get", lambda address: SimpleNamespace(body={"symbols": sent}))
    system: Any = SimpleNamespace(exchange_url="http://exchange", symbols=("BTCUSDT",))
    assert archived_trades.sent_so_far(system, ["SOLUSDT"]) == sent
