"""`make gaps`: the missing trades, as `/health` of a deployment lists them, and the condition of the newest
days by symbol, as `/data/{symbol}` has it."""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from local.commands import deployment
from local.commands.command import Command, ExitStatus, secret_variable
from local.system import progress
from local.system.api import Api
from local.system.options import OptionsError
from tickcast.adapters.http.bodies import DAYS_MAX

_SYMBOLS = "predict_stream:"
_DAYS = 14
_COLUMNS = ("day", "condition", "hours", "missing", "repaired", "withheld", "quotes", "why, and causes")
_CAUSES_SHOWN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--url", default="", help="an API elsewhere, its key in KEY; default: the systems running here"
    )
    parser.add_argument("--days", default=str(_DAYS), help=f"the condition of so many days; default: {_DAYS}")


def run(given: argparse.Namespace) -> ExitStatus:
    show(given.url, secret_variable("KEY"), _days(given.days), progress.wide_console())
    return ExitStatus.OK


COMMAND = Command(
    "gaps", "list missing trades, their causes and the condition of each day", add_arguments, run
)


def show(url: str, key: str, days: int, console: Console) -> None:
    """Print the gaps and the condition of the newest `days` of the deployment at `url`, or of all systems
    that run in this checkout. Without a key, which an API elsewhere requires, only the gaps. Raises
    `DeploymentNotFound` and `ApiFailed`."""
    for title, address in deployment.api_urls(url).items():
        services = Api(address).services()
        gaps = table(title, services)
        console.print(gaps if gaps.row_count else f"[bold]{title}[/bold]", *totals(services), sep="\n")
        api = deployment.api_at(address, key)
        if not api.key:
            console.print("the condition by day requires a key: set KEY=…")
            continue
        for symbol in _by_symbol(services):
            found = api.body_or_detail(f"data/{symbol}", days=days)
            console.print(found if isinstance(found, str) else days_table(found))


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


def days_table(found: dict[str, Any]) -> Table:
    """The days of an answer of `/data/{symbol}`, newest first."""
    shown = Table(title=f"{found['symbol']}: data by day (UTC), reported {_time(found['reported'] * 1000)}")
    for name in _COLUMNS:
        shown.add_column(name, justify="right" if name in _COLUMNS[2:7] else "left")
    for day in found["days"]:
        hours, trades, coverage = day["hours"], day["trades"], day["quotes"]["coverage"]
        shown.add_row(
            day["day"] if day["over"] else f"{day['day']} (today)",
            day["condition"],
            f"{hours['expected'] - len(hours['without'])}/{hours['expected']}",
            *(str(trades[name]) for name in ("missing", "repaired", "withheld")),
            "–" if coverage is None else f"{100 * coverage:.2f} %",
            "; ".join([*day["why"], *_causes(day)]),
        )
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


def _causes(day: dict[str, Any]) -> list[str]:
    """The causes of a day's gaps, the most frequent first, each with how many gaps it has."""
    counts = Counter(gap["cause"] for gap in (*day["gaps"], *day["quotes"]["gaps"]))
    shown = [f"{count} × {cause}" for cause, count in counts.most_common(_CAUSES_SHOWN)]
    left = len(counts) - len(shown)
    return [*shown, f"and {left} other causes"] if left else shown


def _days(text: str) -> int:
    """The number of days. Raises `OptionsError`."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= DAYS_MAX):
        raise OptionsError(f"DAYS is {text!r}; it should be a whole number from 1 to {DAYS_MAX}")
    return int(text)


def _time(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
