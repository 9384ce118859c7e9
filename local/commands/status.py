"""The live status of a running system: a table on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import redis
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from local.system import http_json
from local.system.progress import Progress
from local.system.system import System
from tickcast.adapters.redis import keys

_REFRESH_S = 1.0
_LINE_EVERY_S = 5.0
_SETTLE_S = 0.5  # a part that dies closes its sockets before its exit status can be had


@dataclass(frozen=True)
class Row:
    """What is known of one symbol. `prediction` is what the API answers now; empty before the first."""

    symbol: str
    prediction: dict[str, Any]
    age_s: float  # of what the prediction was made on
    accuracy: dict[str, Any]  # as scored last; empty before that

    @property
    def what(self) -> str:
        """The prediction in words."""
        p = self.prediction
        if not p:
            return "waiting for the first bars"
        if p["source"] == "fallback":
            return f"fallback: {p['reason']}"
        return (
            f"{p['predicted_price']:,.2f} in {p['horizon_s']} s ({p['expected_move_bp']:+.2f} bp), "
            f"confidence {p['confidence']:.0%}"
        )

    @property
    def live_skill(self) -> str:
        """Of the last hour, over the horizon shown, with its interval once there is one."""
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
    ingest: str  # what is wrong with it, or "connected"


class Watch:
    """Looks at the system from outside, once for each call of `look`."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._redis = system.redis()
        self._ticks: int | None = None  # at the look before
        self._at_s = 0.0

    def look(self) -> Status:
        """The status now. Raises `PartFailed` when a part has ended."""
        try:
            return self._look()
        except (OSError, ValueError, redis.RedisError) as error:
            time.sleep(_SETTLE_S)
            self._system.check()
            return Status([], 0.0, f"or the hot store does not answer ({type(error).__name__})")

    def _look(self) -> Status:
        (ingest_url,) = self._system.ingest.values()
        health = http_json.get(f"{ingest_url}/health").body
        ticks, at_s = health["counts"]["ticks_in"], time.monotonic()
        ticks_per_s = 0.0 if self._ticks is None else (ticks - self._ticks) / (at_s - self._at_s)
        self._ticks, self._at_s = ticks, at_s
        symbols = self._system.symbols
        predictions = [self._prediction(symbol) for symbol in symbols]
        accuracies = self._records([keys.accuracy(symbol) for symbol in symbols])
        rows = [
            Row(symbol, prediction, prediction.get("claim_age_s", 0.0), accuracy)
            for symbol, prediction, accuracy in zip(symbols, predictions, accuracies, strict=True)
        ]
        return Status(rows, ticks_per_s, "connected" if health["ready"] else health["why"])

    def _prediction(self, symbol: str) -> dict[str, Any]:
        """What a user is answered; empty while nothing is known."""
        url = f"{self._system.api_url}predictions/{symbol}"
        answer = http_json.get(url, {"x-api-key": self._system.api_key})
        return answer.body if answer.status == 200 else {}

    def _records(self, keys: list[str]) -> list[dict[str, Any]]:
        found: list[Any] = self._redis.mget(keys)
        return [json.loads(text) if text else {} for text in found]


def show(system: System, progress: Progress) -> None:
    """Show the status until interrupted. Raises `PartFailed` when a part ends."""
    progress.say(_how_to_ask(system))
    watch = Watch(system)
    if not progress.console.is_terminal:
        while True:
            progress.say(line(watch.look()))
            _wait(system, _LINE_EVERY_S)
    with Live(console=progress.console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(table(system, watch.look()), refresh=True)
            _wait(system, _REFRESH_S)


def line(status: Status) -> str:
    """The status in one line."""
    parts = [f"ingest {status.ingest}, {status.ticks_per_s:.0f} ticks/s"]
    for row in status.rows:
        p = row.prediction
        known = f" {p['basis_price']:,.2f} → {row.what}, {row.age_s:.1f} s ago" if p else f" {row.what}"
        parts.append(f"{row.symbol}{known}")
    return " · ".join(parts)


def table(system: System, status: Status) -> Group:
    """The status as a table with a heading and a footer."""
    heading = Text.assemble(
        ("tickcast ", "bold"),
        (system.options.label, "bold yellow" if system.options.feed == "sim" else "bold green"),
        f"   ingest {status.ingest}, {status.ticks_per_s:.0f} ticks/s",
    )
    rows = Table()
    for title in ("symbol", "price", "prediction", "80 % interval", "model", "live skill", "age", "latency"):
        rows.add_column(title, justify="right" if title in ("price", "age", "latency") else "left")
    for row in status.rows:
        p = row.prediction
        if not p:
            rows.add_row(row.symbol, "", row.what)
            continue
        interval = f"{p['lower']:,.2f} – {p['upper']:,.2f}" if p.get("lower") is not None else ""
        model = f"{p['model_id'] or 'none'}{' (provisional)' if p.get('provisional') else ''}"
        age = f"{row.age_s:.1f} s"
        latency = f"{p['latency_ms']} ms"
        rows.add_row(
            row.symbol, f"{p['basis_price']:,.2f}", row.what, interval, model, row.live_skill, age, latency
        )
    return Group(heading, rows, Text("Ctrl-C stops everything", style="dim"))


def _how_to_ask(system: System) -> str:
    return (
        f"\n[bold]running[/bold]; the API, from another terminal:\n"
        f"  export API={system.api_url.rstrip('/')} KEY={system.api_key}\n"
        f'  curl -s -H "x-api-key: $KEY" "$API/predictions/{system.symbols[0]}"\n'
        f'  curl -s "$API/health"\n'
        f"  logs: {system.state.logs}\n"
    )


def _wait(system: System, seconds: float) -> None:
    """Let time pass while all parts run."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        system.check()
        time.sleep(0.2)
