"""`make symbols`: what is refused, what is written, and what is said of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from cdk.config import load
from local.commands import symbol_checks, symbols
from local.commands.deployment import Deployment, DeploymentNotFound
from local.commands.symbol_checks import ExchangeSilent, SymbolRefused, quota_problem
from local.commands.symbols import Request
from local.system.progress import Progress
from tests.fixtures.aws import BUCKET
from tickcast.adapters.registry.served_symbols import read_served
from tickcast.adapters.rest.binance import ExchangeUnavailable, RequestRefused

OUTPUTS = {
    "BucketName": BUCKET,
    "ApiUrl": "http://nowhere.invalid/",
    "RestUrl": "http://exchange",
    "Symbols": "BTCUSDT,ETHUSDT",
}
QUIET = Progress(Console(file=io.StringIO()))


class Exchange:
    def market_status(self, symbol: str) -> str | None:
        match symbol:
            case "NONEUSDT":
                raise RequestRefused("the exchange answers 400: Invalid symbol.")
            case "DOWNUSDT":
                raise ExchangeUnavailable("it does not answer")
            case "OLDUSDT":
                return "BREAK"
            case "ODDUSDT":
                return None
        return "TRADING"


@pytest.fixture
def there(s3: Any) -> Deployment:
    return Deployment("here", dict(OUTPUTS), lambda service: s3)


def check(there: Deployment, request: Request, aws: str = "") -> None:
    symbols.check(there, request, aws, Exchange(), QUIET)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (Request(add=("ETHUSDT",)), "ADD: ETHUSDT is served already"),
        (Request(remove=("SOLUSDT",)), "REMOVE: SOLUSDT is not served; served are BTCUSDT, ETHUSDT"),
        (Request(remove=("BTCUSDT", "ETHUSDT")), "would leave no symbol at all"),
        (Request(add=("SOLUSDT",), remove=("SOLUSDT",)), "SOLUSDT in ADD and in REMOVE"),
        (Request(add=("NONEUSDT",)), "NONEUSDT is unknown to the exchange, so check its spelling"),
        (Request(add=("OLDUSDT",)), "OLDUSDT is not traded now (the exchange says BREAK)"),
        (Request(add=("NONEUSDT", "SOLUSDT", "OLDUSDT")), "NONEUSDT is unknown .*; OLDUSDT is not traded"),
    ],
)
def test_what_cannot_be_changed_is_refused_with_the_reason(
    there: Deployment, request_: Request, why: str
) -> None:
    with pytest.raises(SymbolRefused, match=why.replace("(", r"\(").replace(")", r"\)")):
        check(there, request_)
    assert read_served(there.s3, BUCKET) is None


@pytest.mark.parametrize("symbol", ["DOWNUSDT", "ODDUSDT"])
def test_an_exchange_that_says_nothing_is_no_consent(there: Deployment, symbol: str) -> None:
    with pytest.raises(ExchangeSilent, match=symbol):
        check(there, Request(add=(symbol,)))


def test_a_deployment_of_an_older_version_is_named(there: Deployment) -> None:
    del there.outputs["Symbols"]
    with pytest.raises(DeploymentNotFound, match="cannot be changed at run time: deploy it again"):
        check(there, Request(add=("SOLUSDT",)))


def test_more_than_the_cache_holds_is_refused_by_the_settings_name(there: Deployment) -> None:
    many = tuple(f"S{n}USDT" for n in range(5))
    with pytest.raises(SymbolRefused, match=r"7 symbols need 301 MB .* take a larger aws.cache.node_type"):
        check(there, Request(add=many), "dev")


def test_more_than_the_quotas_carry_is_refused_unless_they_were_set() -> None:
    dev = load("dev")
    assert quota_problem(dev, 2, 10) == ""  # a key may poll one symbol ten times a second
    assert "11 symbols polled once a second take 1,036,800 requests a day" in quota_problem(dev, 2, 11)
    assert "set api.key_requests_per_day" in quota_problem(dev, 2, 11)
    assert quota_problem(dev, 11, 11) == ""
    by_owner = replace(dev, api=replace(dev.api, key_requests_per_day=1000))
    assert quota_problem(by_owner, 2, 11) == ""
    assert "set api.key_requests_per_s" in quota_problem(by_owner, 2, 30)
    signed = replace(dev, api=replace(dev.api, authorisation="iam"))
    assert quota_problem(signed, 2, 90) == ""
    assert "set api.requests_per_s" in quota_problem(signed, 2, 120)


def answers(*healths: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    left = list(healths)
    return lambda api: left.pop(0) if len(left) > 1 else left[0]


def health(*fed: str, ok: bool | None = True) -> dict[str, Any]:
    parts = {f"{part}:{symbol}" for symbol in fed for part in ("feed", "predict_stream")}
    return {name: {"ok": ok, "why": None} for name in parts}


def followed(there: Deployment, change: symbols.Change) -> None:
    seconds = iter(range(1000))
    symbols.follow(there, change, QUIET, lambda: float(next(seconds)), lambda _: None)


def test_a_change_is_written_and_followed(there: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = answers(
        health("BTCUSDT", "ETHUSDT"),
        health("BTCUSDT") | health("SOLUSDT", ok=None),
        health("BTCUSDT", "SOLUSDT"),
    )
    monkeypatch.setattr("local.system.api.Api.services", seen)
    change = symbols.apply(there, Request(add=("SOLUSDT",), remove=("ETHUSDT",)))
    followed(there, change)
    assert (change.added, change.removed, change.missing) == ({"SOLUSDT": 3}, {"ETHUSDT": 2}, [])
    found = read_served(there.s3, BUCKET)
    assert found is not None
    assert (found.symbols, found.version, found.by) == (("BTCUSDT", "SOLUSDT"), 1, "make symbols")
    said = "\n".join(symbols.advice(there, change, "dev"))
    assert "make backfill SYMBOL=SOLUSDT DAYS=7 AWS=dev" in said
    assert "at run time SOLUSDT added, ETHUSDT removed" in said
    shown = Console(file=io.StringIO(), width=120)
    shown.print(symbols.table(there, found))
    assert isinstance(shown.file, io.StringIO)
    lines = {symbol: line for line in shown.file.getvalue().splitlines() for symbol in line.split()[1:2]}
    assert "no, added since" in lines["SOLUSDT"] and "yes, removed since" in lines["ETHUSDT"]
    assert json.loads(json.dumps(symbols.about(there, found)))["configured"] == ["BTCUSDT", "ETHUSDT"]


def test_what_came_before_a_symbol_was_added_again_is_no_sign_of_it(
    there: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def aged(age_s: float) -> dict[str, Any]:
        return {name: {**part, "age_s": age_s} for name, part in health("SOLUSDT", ok=False).items()}

    monkeypatch.setattr("local.system.api.Api.services", answers(aged(3600), aged(3601), aged(2.5)))
    change = symbols.apply(there, Request(add=("SOLUSDT",)))
    followed(there, change)
    assert change.added == {"SOLUSDT": 3}


def test_records_without_a_tick_are_no_sign_of_an_added_symbol(
    there: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predicted(is_so: bool) -> dict[str, Any]:
        return {name: {**part, "predicted": is_so} for name, part in health("SOLUSDT").items()}

    monkeypatch.setattr("local.system.api.Api.services", answers(predicted(False), predicted(True)))
    change = symbols.apply(there, Request(add=("SOLUSDT",)))
    followed(there, change)
    assert change.added == {"SOLUSDT": 2}


def test_what_nothing_follows_is_said(there: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.system.api.Api.services", answers(health("BTCUSDT", "ETHUSDT")))
    change = symbols.apply(there, Request(add=("SOLUSDT",)))
    followed(there, change)
    assert change.missing == ["SOLUSDT"]
    assert "/health did not show SOLUSDT" in symbols.advice(there, change, "")[1]


def test_a_change_is_checked_again_on_what_others_wrote(there: Deployment) -> None:
    symbols.apply(there, Request(add=("SOLUSDT",)))
    with pytest.raises(SymbolRefused, match="SOLUSDT is served already"):
        symbols.apply(there, Request(add=("SOLUSDT",)))


def test_the_difference_from_the_configuration_in_words() -> None:
    assert symbol_checks.differs(["A"], ["A"]) == ""
    assert symbol_checks.differs(["A", "B"], ["A", "C"]) == "at run time C added, B removed"
