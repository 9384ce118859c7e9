"""`make gaps`: the missing trades, as `/health` of a deployment lists them."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from local.commands import deployment
from local.commands.command import Command, ExitStatus
from local.system import progress
from local.system.api import Api

_SYMBOLS = "predict_stream:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="", help="an API elsewhere; default: those running here")


def run(given: argparse.Namespace) -> ExitStatus:
    show(given.url, progress.wide_console())
    return ExitStatus.OK


COMMAND = Command("gaps", "list missing trades and their causes", add_arguments, run)


def show(url: str, console: Console) -> None:
    """Print the gaps of the deployment at `url`, or of all systems that run in this checkout. Raises
    `DeploymentNotFound` and `ApiFailed`."""
    for title, address in deployment.api_urls(url).items():
        services = Api(address).services()
        gaps = table(title, services)
        console.print(gaps if gaps.row_count else f"[bold]{title}[/bold]", *totals(services), sep="\n")


def table(title: str, services: dict[str, Any]) -> Table:
    """The newest gaps of every symbol."""
    shown = Table(title=title)
    for name in ("symbol", "first id", "last id", "trades", "from", "to", "cause"):
        shown.add_column(name, justify="right" if name in ("first id", "last id", "trades") else "left")
    for symbol, health in _by_symbol(services).items():
        for gap in health.get("gaps", []):
            times = (_time(gap["from_us"]), _time(gap["to_us"]))
            ids = (str(gap[name]) for name in ("first_id", "last_id", "trades"))
            shown.add_row(symbol, *ids, *times, gap["cause"])
    return shown


def totals(services: dict[str, Any]) -> list[str]:
    """A line for each symbol, and one for a store that is unavailable."""
    lines = []
    for symbol, health in _by_symbol(services).items():
        if "missing_trades" not in health:
            lines.append(f"{symbol}: {health['why']}")
            continue
        missing, quote_gaps = health["missing_trades"], health["quote_gaps"]
        older = missing - sum(gap["trades"] for gap in health.get("gaps", []))
        beyond = f", {older} of them in older gaps" if older else ""
        lines.append(f"{symbol}: {missing} trades missing{beyond}; {quote_gaps} gaps in quotes")
    if not services["redis"]["ok"]:
        lines.append(f"redis: {services['redis']['why']}")
    return lines


def _by_symbol(services: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix(_SYMBOLS): health for name, health in services.items() if name.startswith(_SYMBOLS)
    }


def _time(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
