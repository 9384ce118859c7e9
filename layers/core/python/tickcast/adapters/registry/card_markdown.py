"""A model's card as a page for people, in Markdown: what the JSON beside it says, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any


def page(card: dict[str, Any]) -> str:
    """The page of a card; what an older or damaged card does not have is left out."""
    parts = [
        f"# Model {card.get('model_id', '?')}",
        _verdict(card.get("gate")),
        _table(("what", "is"), _about(card)),
        _gate_figures(card.get("gate")),
        _test_figures(card.get("test")),
        _features(card),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(card: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    data = card.get("data") or {}
    yield "trained", card.get("trained_at")
    yield "because", card.get("reason") or None
    yield "state", "provisional: not held against all baselines yet" if card.get("provisional") else "proven"
    yield "parent", card.get("parent") or "none"
    yield "code", card.get("code")
    yield "data", f"{time(data.get('from_us'))} to {time(data.get('to_us'))}"
    yield "markets", ", ".join(data.get("markets", []))
    yield "learned up to", time(card.get("learned_to_us"))
    yield "rows", f"{card.get('rows', 0):,}, of which {card.get('rows_with_quotes', 0):,} with quotes"
    share = data.get("share_of_rows_with_quotes", data.get("share_of_bars_with_quotes"))
    yield "share with quotes", None if share is None else f"{share:.1%}"
    yield "epochs", card.get("epochs")


def _verdict(gate: dict[str, Any] | None) -> str:
    if not gate:
        return "Not judged by the gate."
    word = "Promoted" if gate.get("promoted") else "Not promoted"
    return f"**{word}** ({gate.get('judged_at')}): {gate.get('sentence')}"


def _gate_figures(gate: dict[str, Any] | None) -> str:
    figures = (gate or {}).get("figures") or {}
    against = sorted({name for of_horizon in figures.values() for name in of_horizon})
    rows = [
        (
            f"{horizon} s" if horizon.isdigit() else horizon,
            *(with_interval(found[name]) if name in found else "-" for name in against),
        )
        for horizon, found in figures.items()
    ]
    if not rows:
        return ""
    block = (gate or {}).get("block") or {}
    span = f"{time(block.get('from_us'))} to {time(block.get('to_us'))}, {block.get('seconds', 0):,.0f} s"
    head = ("skill against", *(name.replace("_", " ") for name in against))
    return f"## On the newest block that it had not seen\n\n{span}\n\n{_table(head, rows)}"


def _test_figures(test: dict[str, Any] | None) -> str:
    rows = [
        (
            f"{horizon} s",
            figure(found.get("skill"), ".3f"),
            figure(found.get("direction"), ".3f"),
            figure(found.get("rows"), ",.0f"),
        )
        for horizon, found in (test or {}).items()
    ]
    if not rows:
        return ""
    return f"## When it was trained\n\n{_table(('horizon', 'skill', 'direction', 'rows'), rows)}"


def _features(card: dict[str, Any]) -> str:
    inputs = (card.get("network") or {}).get("inputs") or {}
    rows = [(part, ", ".join(names)) for part, names in inputs.items()]
    return f"## What it reads\n\n{_table(('part', 'features'), rows)}" if rows else ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(row for row in rows if row[-1] is not None)]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def with_interval(found: dict[str, Any]) -> str:
    """A skill with its interval."""
    low, high = (figure(end, "+.3f") for end in found["ci"])
    return f"{figure(found['skill'], '+.3f')} [{low}, {high}]"


def figure(value: float | None, form: str) -> str:
    """A number in that `form`; "-" where it is not known."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def time(time_us: int | None) -> str:
    """An instant in UTC, for people; "?" where it is not known."""
    return "?" if time_us is None else f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"
