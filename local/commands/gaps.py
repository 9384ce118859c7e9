"""`make gaps`: the trades that are missing, as a running system's `/health` tells them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from local.system import http_json
from local.system.state_folder import LOCAL, StateFolder
from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe

_SYMBOLS = "predict_stream:"


class NotRunning(RuntimeError):
    """There is no system to ask, or it does not answer; the message says what to do."""


def show(url: str, console: Console) -> int:
    """Print the gaps of the system at `url`, or of those that run in this checkout. Raises `NotRunning`."""
    for title, address in {url: url}.items() if url else running().items():
        services = health(address)
        console.print(table(title, services), *totals(services), sep="\n")
    return 0


def running() -> dict[str, str]:
    """The systems that run in this checkout, by feed: the addresses of their APIs. Raises `NotRunning`."""
    found = {}
    for path in sorted(LOCAL.glob("*/system.json")):
        state = StateFolder(path.parent.name)
        if not state.is_abandoned():
            about = json.loads(path.read_text("utf-8"))
            found[f"{about['feed']} ({path.parent.name})"] = about["api_url"]
    if not found:
        raise NotRunning("nothing is running here: `make run` starts it, or name an API with URL=https://…")
    return found


def health(address: str) -> dict[str, Any]:
    """The services in the answer of `/health`. Raises `NotRunning`."""
    url = f"{address.rstrip('/').removesuffix('/health')}/health"
    try:
        body = http_json.get(url).body
    except (OSError, ValueError) as error:
        raise NotRunning(f"{url} does not answer: {describe(error)}") from None
    if not isinstance(body, dict) or "services" not in body:
        raise NotRunning(f"{url} is not the health of this system: {json_text.text(body)[:200]}")
    services: dict[str, Any] = body["services"]
    return services


def table(title: str, services: dict[str, Any]) -> Table:
    """The newest gaps of every symbol."""
    shown = Table(title=title)
    for name in ("symbol", "first id", "last id", "trades", "from", "to", "cause"):
        shown.add_column(name, justify="right" if name in ("first id", "last id", "trades") else "left")
    for symbol, about in _by_symbol(services).items():
        for gap in about.get("gaps", []):
            times = (_time(gap["from_us"]), _time(gap["to_us"]))
            ids = (str(gap[name]) for name in ("first_id", "last_id", "trades"))
            shown.add_row(symbol, *ids, *times, gap["cause"])
    return shown


def totals(services: dict[str, Any]) -> list[str]:
    """A line for each symbol, and one for a store that does not answer."""
    lines = []
    for symbol, about in _by_symbol(services).items():
        if "missing_trades" not in about:
            lines.append(f"{symbol}: {about['why']}")
            continue
        missing, quote_gaps = about["missing_trades"], about["quote_gaps"]
        older = missing - sum(gap["trades"] for gap in about.get("gaps", []))
        beyond = f", {older} of them in older gaps" if older else ""
        lines.append(f"{symbol}: {missing} trades missing{beyond}; {quote_gaps} times without quotes")
    if not services["redis"]["ok"]:
        lines.append(f"redis: {services['redis']['why']}")
    return lines


def _by_symbol(services: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(_SYMBOLS): it for name, it in services.items() if name.startswith(_SYMBOLS)}


def _time(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
