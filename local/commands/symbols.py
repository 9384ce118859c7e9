"""`make symbols`: which symbols a deployment serves; `ADD=` and `REMOVE=` change them while it runs.

A change is checked first: the exchange has to trade the symbol, and the deployment to have room for it. Then
one object in S3 is written (`tickcast.adapters.registry.served_symbols`), which ingest and the functions
follow within seconds, without a restart. The command waits until `/health` shows that they do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from cdk.config import load
from local.commands import deployment, symbol_checks
from local.commands.command import Command, ExitStatus, passed, print_last_line, symbols_of
from local.commands.deployment import Deployment
from local.commands.symbol_checks import Markets
from local.system import progress
from local.system.api import Api, ApiFailed
from local.system.progress import Progress
from operations.failures import OperationFailed, OperationRefused
from tickcast.adapters.registry import served_symbols
from tickcast.adapters.registry.served_symbols import ServedSymbols
from tickcast.adapters.rest.binance import BinanceRest
from tickcast.market.symbols import listed

BY = "make symbols"
_PATIENCE_S = 180.0  # until /health shows the change: up to a minute until ingest looks, and its connection
_POLL_S = 1.0
_EXCHANGE_TIMEOUT_S = 5.0
_FEED, _STREAM = "feed:", "predict_stream:"


@dataclass(frozen=True)
class Request:
    """What is to be changed. `dry`: only checked and priced."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    dry: bool = False


@dataclass
class Change:
    """The result of a request: the symbols served now, and by symbol after how many seconds `/health` first
    showed an added one fed and processed, and no longer showed a removed one."""

    served: ServedSymbols
    added: dict[str, float | None] = field(default_factory=dict)
    removed: dict[str, float | None] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Those whose change `/health` never showed."""
        return [symbol for symbol, seconds in {**self.added, **self.removed}.items() if seconds is None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--add", default="", help="symbols to serve from now on, like SOLUSDT,XRPUSDT")
    parser.add_argument("--remove", default="", help="symbols to stop serving")
    parser.add_argument("--dry", action="store_true", help="check and price it, change nothing")
    deployment.add_aws_argument(parser)


def run(given: argparse.Namespace) -> ExitStatus:
    """List the symbols, or change them; the last line is JSON."""
    request = Request(symbols_of("ADD", given.add), symbols_of("REMOVE", given.remove), given.dry)
    aws = deployment.aws_environment(given)
    there, steps = deployment.existing(aws), progress.to_stderr()
    if not (request.add or request.remove):
        served = serving(there)
        progress.wide_console(stderr=True).print(table(there, served))
        print_last_line(about(there, served))
        return ExitStatus.OK
    check(there, request, aws, exchange_of(there), steps)
    if request.dry:
        steps.say("DRY=1: nothing was changed")
        print_last_line(about(there, serving(there)))
        return ExitStatus.OK
    change = apply(there, request)
    follow(there, change, steps)
    for sentence in advice(there, change, aws):
        steps.say(sentence)
    print_last_line(about(there, change.served) | {"added_s": change.added, "removed_s": change.removed})
    return passed(not change.missing)


COMMAND = Command(
    "symbols",
    "list the symbols that are served, or change them while the system runs; the last line is JSON",
    add_arguments,
    run,
)


def configured(there: Deployment) -> tuple[str, ...]:
    """The symbols that were deployed. Raises `DeploymentNotFound` for a deployment that cannot be changed."""
    _require_output(there, "Symbols")
    return tuple(there.outputs["Symbols"].split(","))


def serving(there: Deployment) -> ServedSymbols:
    """The symbols that are served; version 0: those deployed. Raises `SymbolsError`."""
    found = served_symbols.read_served(there.s3, there.bucket)
    return found or ServedSymbols(symbols=configured(there))


def exchange_of(there: Deployment) -> BinanceRest:
    """The exchange that the deployment fetches history from."""
    _require_output(there, "RestUrl")
    return BinanceRest(there.outputs["RestUrl"], timeout_s=_EXCHANGE_TIMEOUT_S, tries=2)


def check(there: Deployment, request: Request, aws: str, exchange: Markets, steps: Progress) -> None:
    """Say what the change costs. Raises `SymbolRefused` and `ExchangeSilent`."""
    served, deployed = serving(there).symbols, configured(there)
    after = symbol_checks.changed(served, request.add, request.remove)
    symbol_checks.check_markets(exchange, request.add)
    if aws:
        symbol_checks.check_room(aws, deployed, after)
        steps.say(_cost(aws, len(served), len(after)))
    else:
        steps.say(f"{len(after)} instead of {len(served)} symbols, on this machine: no cost")


def _cost(aws: str, before: int, after: int) -> str:
    from operations.cost.more_symbols import symbol_cost  # starts Node, which no other use of this needs

    try:
        return symbol_cost(load(aws), before, after).sentence()
    except (OperationFailed, OperationRefused, ValueError) as error:
        return f"what it costs could not be computed ({error}): make cost ENV={aws} SYMBOLS={after}"


def apply(there: Deployment, request: Request) -> Change:
    """Write the change. Raises `SymbolRefused` where others made it impossible meanwhile, `SymbolsRace`,
    `SymbolsError`."""
    served = served_symbols.change_served(
        there.s3,
        there.bucket,
        configured(there),
        lambda served: symbol_checks.changed(served, request.add, request.remove),
        since=datetime.now(UTC).isoformat(timespec="milliseconds"),
        by=BY,
    )
    return Change(served, dict.fromkeys(request.add), dict.fromkeys(request.remove))


def follow(
    there: Deployment,
    change: Change,
    steps: Progress,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until `/health` shows the change, and enter the seconds. An API that does not respond is asked
    again."""
    api, started_s = Api(there.outputs["ApiUrl"]), clock_s()
    with steps.step("ingest and the functions follow"):
        while change.missing and (passed_s := clock_s() - started_s) < _PATIENCE_S:
            try:
                _enter(change, api.services(), passed_s)
            except ApiFailed as error:
                steps.say(f"  {error}")
            if change.missing:
                sleep(_POLL_S)


def _enter(change: Change, services: dict[str, Any], passed_s: float) -> None:
    """Enter what `/health` shows after so many seconds."""
    for symbol in change.missing:
        parts = [services.get(prefix + symbol) for prefix in (_FEED, _STREAM)]
        if symbol in change.added and all(_came_since(part, passed_s) for part in parts):
            change.added[symbol] = round(passed_s, 1)
        elif symbol in change.removed and not any(parts):
            change.removed[symbol] = round(passed_s, 1)


def _came_since(part: dict[str, Any] | None, passed_s: float) -> bool:
    """Whether something came within so many seconds. What was never seen is null; one that lags, as all do on
    a busy machine, is fed all the same. What came before is of an earlier time that the symbol was served.
    Records without a tick bring no prediction; a release that does not say so has one."""
    return (
        part is not None
        and part["ok"] is not None
        and part.get("age_s", 0.0) <= passed_s
        and part.get("predicted", True)
    )


def advice(there: Deployment, change: Change, aws: str) -> list[str]:
    """What to know and to do after a change."""
    where = f" AWS={aws}" if aws else ""
    lines = [f"served now: {', '.join(change.served.symbols)} (version {change.served.version})"]
    for symbol, seconds in change.added.items():
        if seconds is not None:
            lines.append(
                f"{symbol} is fed and answered after {seconds:g} s, by fallbacks until its bars are warm "
                f"(some 15 s). History follows by schedule, or now by `make backfill SYMBOL={symbol} "
                f"DAYS=7{where}`; the next training includes it."
            )
    if change.missing:
        doctor = f"`make doctor ENV={aws}`" if aws else "`make gaps` and the log of ingest"
        lines.append(
            f"/health did not show {listed(change.missing)} within {_PATIENCE_S:g} s: the change is stored, "
            f"and {doctor} may say why nothing follows it"
        )
    if aws and (difference := symbol_checks.differs(configured(there), change.served.symbols)):
        lines.append(f"{difference}: put the same into symbols of cdk/config/{aws}.yaml before a next deploy")
    return lines


def table(there: Deployment, served: ServedSymbols) -> Table:
    """The symbols, one a line, with the health of each."""
    deployed, services = configured(there), _services(there)
    shown = Table(title=f"{there.title}: {len(served.symbols)} served", title_justify="left")
    for name in ("symbol", "deployed", "feed", "predictions"):
        shown.add_column(name, no_wrap=name == "symbol")
    for symbol in dict.fromkeys((*served.symbols, *deployed)):
        if symbol not in served.symbols:
            shown.add_row(symbol, "yes, removed since", "", "")
            continue
        parts = (services.get(prefix + symbol) for prefix in (_FEED, _STREAM))
        origin = "yes" if symbol in deployed else "no, added since"
        shown.add_row(symbol, origin, *(_state(part) for part in parts))
    shown.caption = (
        f"version {served.version} of {served_symbols.SERVED}, since {served.since}, by {served.by}"
        if served.version
        else "as deployed: the symbols were never changed at run time"
    )
    shown.caption_justify = "left"
    return shown


def about(there: Deployment, served: ServedSymbols) -> dict[str, Any]:
    """The last line."""
    return {
        "symbols": list(served.symbols),
        "version": served.version,
        "since": served.since,
        "by": served.by,
        "configured": list(configured(there)),
    }


def _services(there: Deployment) -> dict[str, Any]:
    """By `/health`; empty while the API does not respond, which the list can do without."""
    try:
        return Api(there.outputs["ApiUrl"]).services()
    except ApiFailed:
        return {}


def _state(part: dict[str, Any] | None) -> str:
    if part is None:
        return "not known"
    return str(part.get("why") or part.get("reason") or "ok")


def _require_output(there: Deployment, name: str) -> None:
    if name not in there.outputs:
        raise deployment.DeploymentNotFound(
            f"{there.title} was deployed by a version whose symbols cannot be changed at run time: deploy it "
            "again, or stop it and `make run`"
        )
