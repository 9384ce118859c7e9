"""`make run`: start a system and show its status until a signal stops it: a table on a terminal, a line every
few seconds elsewhere."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import redis
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from local.commands.command import Command, ExitStatus, add_system_arguments, system_options
from local.system import http_json
from local.system.progress import Progress
from local.system.state_folder import StateFolder
from local.system.system import System
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.symbol_set import SymbolSet

_REFRESH_S = 1.0
_LINE_EVERY_S = 5.0
_WIDE = 150  # columns of a terminal that have room for the whole table
_DETAILS = ("80 % interval", "model", "latency")  # left out of a narrower one
_SETTLE_S = 0.5  # a process that dies closes its sockets before its exit status is known


def run(given: argparse.Namespace) -> ExitStatus:
    options, progress = system_options(given), Progress(Console())
    progress.say(f"[bold]tickcast[/bold]: starting, feed: {options.label}")
    state = StateFolder(options.feed)
    progress.say(f"  logs: {state.logs}")
    try:
        with System(options, state, progress) as system:
            try:
                show(system, progress)
            finally:
                progress.say("stopping …")
    except KeyboardInterrupt:
        progress.say("stopped")
    return ExitStatus.OK


COMMAND = Command("run", "start a system, show its status until Ctrl-C", add_system_arguments, run)


@dataclass(frozen=True)
class Row:
    """The status of one symbol. `prediction` is the API's response now; empty before the first."""

    symbol: str
    prediction: dict[str, Any]
    age_s: float  # since the instant up to which the prediction knows the market
    accuracy: dict[str, Any]  # the latest scores; empty before the first

    @property
    def text(self) -> str:
        """The prediction in words."""
        p = self.prediction
        if not p:
            return "waiting for the first bars"
        if p["source"] == "fallback":
            return f"fallback: {p['reason']}"
        return (
            f"{p['predicted_price']:,.2f} in {p['horizon_s']} s ({p['expected_move_bp']:+z.2f} bp), "
            f"confidence {p['confidence']:.0%}"
        )

    @property
    def live_skill(self) -> str:
        """Skill over the last hour at the horizon shown, with its interval if there is one."""
        figures = self.accuracy.get("hour", {}).get("horizons", {})
        skill = figures.get(str(self.prediction.get("horizon_s")), {}).get("skill")
        if not skill:
            return "-"
        interval = "" if skill["low"] is None else f" [{skill['low']:+.2f}, {skill['high']:+.2f}]"
        return f"{skill['value']:+.3f}{interval}"


@dataclass(frozen=True)
class Status:
    rows: list[Row]
    ticks_per_s: float
    ingest: str  # "connected", or the reason why it is not


class StatusReader:
    """Reads the status of `system` from its public interfaces, as a user could."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._redis = system.redis()
        self._symbols = SymbolSet(system.symbols)
        self._ticks: int | None = None  # at the previous reading
        self._at_s = 0.0

    def read(self) -> Status:
        """The status now. Raises `ProcessFailed` when a process has ended."""
        try:
            return self._read()
        except (OSError, ValueError, redis.RedisError) as error:
            time.sleep(_SETTLE_S)
            self._system.check()
            return Status([], 0.0, f"or the hot store does not respond ({type(error).__name__})")

    def _read(self) -> Status:
        (ingest_url,) = self._system.ingest.values()
        health = http_json.get(f"{ingest_url}/health").body
        ticks, at_s = health["counts"]["ticks_in"], time.monotonic()
        ticks_per_s = 0.0 if self._ticks is None else (ticks - self._ticks) / (at_s - self._at_s)
        self._ticks, self._at_s = ticks, at_s
        stored: Any = self._redis.get(keys.symbols())
        self._symbols.take(stored)
        symbols = self._symbols.symbols
        predictions = [self._prediction(symbol) for symbol in symbols]
        found: Any = self._redis.mget([keys.accuracy(symbol) for symbol in symbols])
        rows = [
            Row(symbol, prediction, _age_s(prediction), json.loads(accuracy or "{}"))
            for symbol, prediction, accuracy in zip(symbols, predictions, found, strict=True)
        ]
        return Status(rows, ticks_per_s, "connected" if health["ready"] else health["why"])

    def _prediction(self, symbol: str) -> dict[str, Any]:
        """As served; empty while there is none."""
        response = self._system.api.get(f"predictions/{symbol}")
        return response.body if response.status == 200 else {}


def _age_s(prediction: dict[str, Any]) -> float:
    return float(prediction["age_ms"]["claim"]) / 1000 if prediction else 0.0


def show(system: System, progress: Progress) -> None:
    """Show the status until interrupted. Raises `ProcessFailed` when a process ends."""
    url, key = system.api_url.rstrip("/"), system.api_key
    progress.say(how_to_call(url, key, system.symbols[0], is_terminal=progress.console.is_terminal))
    progress.say(f"  logs: {system.state.logs}\n")
    reader = StatusReader(system)
    if not progress.console.is_terminal:
        while True:
            progress.say(line(reader.read()))
            _wait(system, _LINE_EVERY_S)
    with Live(console=progress.console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(table(system, reader.read(), progress.console.width), refresh=True)
            _wait(system, _REFRESH_S)


def line(status: Status) -> str:
    """The status as one line."""
    parts = [f"ingest {status.ingest}, {status.ticks_per_s:.0f} ticks/s"]
    for row in status.rows:
        p = row.prediction
        known = f" {p['basis_price']:,.2f} → {row.text}, age {row.age_s:.1f} s" if p else f" {row.text}"
        parts.append(f"{row.symbol}{known}")
    return " · ".join(parts)


def table(system: System, status: Status, width: int) -> Group:
    """The status as a table of up to `width` columns with a heading and a footer."""
    heading = Text.assemble(
        ("tickcast ", "bold"),
        (system.options.label, "bold yellow" if system.options.feed == "sim" else "bold green"),
        f"   ingest {status.ingest}, {status.ticks_per_s:.0f} ticks/s",
    )
    return Group(heading, predictions(status.rows, width), Text("Ctrl-C stops the system", style="dim"))


def predictions(rows: list[Row], width: int) -> Table:
    """A line for each symbol; without the details where the terminal has no room for them."""
    is_wide = width >= _WIDE
    shown = Table()
    for title in ("symbol", "price", "prediction", "80 % interval", "model", "live skill", "age", "latency"):
        if is_wide or title not in _DETAILS:
            is_short = title in ("price", "age", "latency")
            shown.add_column(
                title, justify="right" if is_short else "left", no_wrap=is_short or title == "symbol"
            )
    for row in rows:
        p = row.prediction
        if not p:
            shown.add_row(row.symbol, "", row.text)
            continue
        cells = [row.symbol, f"{p['basis_price']:,.2f}", row.text]
        if is_wide:
            cells.append(f"{p['lower']:,.2f} – {p['upper']:,.2f}" if p.get("lower") is not None else "")
            cells.append(f"{p['model_id'] or 'none'}{' (provisional)' if p.get('provisional') else ''}")
        cells += [row.live_skill, f"{row.age_s:.1f} s"]
        shown.add_row(*cells, *([f"{p['latency_ms']} ms"] if is_wide else []))
    return shown


def how_to_call(url: str, key: str, symbol: str, *, is_terminal: bool) -> str:
    """Where the dashboard is, and how to call the API at `url`. The link has the key, as the fragment that
    a browser sends to no server, unless the output is stored in a file."""
    fragment = f"#key={quote(key, safe='')}" if is_terminal else "  (asks for the key)"
    return (
        f"\n[bold]running[/bold]; the dashboard:\n"
        f"  {url}/{fragment}\n"
        f"or call the API from another terminal:\n"
        f"  export API={url} KEY={key}\n"
        f'  curl -s -H "x-api-key: $KEY" "$API/predictions/{symbol}"\n'
        f'  curl -s "$API/health"'
    )


def _wait(system: System, seconds: float) -> None:
    """Wait while all processes run."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        system.check()
        time.sleep(0.2)
