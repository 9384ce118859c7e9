"""A model's card as a page for people, in Markdown: the contents of `card.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from tickcast.model.card import (
    Card,
    GateRecord,
    GateSkill,
    HorizonScore,
    ImportedModel,
    NetworkShape,
    TrainingData,
)

_HELD = "Not promoted because the champion is held; runs in shadow"


def page(card: Card) -> str:
    """The page of a card; fields that it does not have are left out."""
    parts = [
        f"# Model {card.model_id}",
        _decision(card.gate),
        _table(("field", "value"), _about(card)),
        _gate_figures(card.gate),
        _test_figures(card.test),
        _skills("What each group of inputs adds", "skill against a network without", card.ablation),
        *(_skills(f"By {kind}", f"skill by {kind}", found) for kind, found in card.regimes.items()),
        _perpetual(card),
        _inputs(card.network),
        _imported(card.imported),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(card: Card) -> Iterable[tuple[str, Any]]:
    data = card.data or TrainingData()
    yield "trained", card.trained_at
    yield "reason", card.reason or None
    yield "state", "provisional: not yet proven against all baselines" if card.provisional else "proven"
    yield "parent", card.parent or "none"
    yield "refit", _refit(card)
    yield "code", card.code
    yield "data", f"{time(data.from_us)} to {time(data.to_us)}"
    yield "markets", ", ".join(data.markets)
    yield "trained on labels up to", time(card.learned_to_us)
    yield "rows", f"{card.rows:,}, of which {card.rows_with_quotes:,} with quotes"
    share = share_with_quotes(card)
    yield "share with quotes", None if share is None else f"{share:.1%}"
    yield "fitted on", ", ".join(_fitted(card)) or None
    yield "epochs", card.epochs


def _refit(card: Card) -> str | None:
    if card.refit_of is None:
        return None
    return (
        f"of the evaluated model {card.refit_of} on all rows up to now; the gate's figures, those of the "
        "test block and the calibration are that model's; moves correlate by "
        f"{figure(card.refit_agreement, '.3f')}"
    )


def _fitted(card: Card) -> Iterable[str]:
    for symbol, rows in card.fitted.items():
        yield f"{symbol} {rows.with_quotes:,} with quotes, {rows.without_quotes:,} without"


def share_with_quotes(card: Card) -> float | None:
    """The share of its rows, or bars, with quotes, 0 to 1."""
    data = card.data or TrainingData()
    rows, bars = data.share_of_rows_with_quotes, data.share_of_bars_with_quotes
    return bars if rows is None else rows


def _decision(gate: GateRecord | None) -> str:
    if gate is None:
        return "Not evaluated by the gate."
    decision = "Promoted" if gate.promoted else _HELD if gate.held else "Not promoted"
    return f"**{decision}** ({gate.judged_at}): {gate.sentence}"


def _gate_figures(gate: GateRecord | None) -> str:
    if gate is None or not gate.figures:
        return ""
    opponents = sorted({name for of_part in gate.figures.values() for name in of_part})
    rows = [
        (
            f"{part} s" if part.isdigit() else part,
            *(with_interval(found[name]) if name in found else "-" for name in opponents),
        )
        for part, found in gate.figures.items()
    ]
    head = ("skill against", *(name.replace("_", " ") for name in opponents))
    span = ""
    if gate.block:
        span = f"{time(gate.block.from_us)} to {time(gate.block.to_us)}, {gate.block.seconds:,.0f} s\n\n"
    return f"## On the newest rows that it was not trained on\n\n{span}{_table(head, rows)}"


def _test_figures(test: dict[int, HorizonScore]) -> str:
    rows = [
        (
            f"{horizon_s} s",
            figure(found.skill, ".3f"),
            figure(found.direction, ".3f"),
            figure(found.rows, ",.0f"),
        )
        for horizon_s, found in test.items()
    ]
    if not rows:
        return ""
    return f"## On its test block\n\n{_table(('horizon', 'skill', 'direction', 'rows'), rows)}"


def _skills(title: str, head: str, found: dict[str, dict[int, GateSkill]]) -> str:
    """A table of skills on the test block, by row and horizon."""
    horizons = sorted({horizon_s for of_row in found.values() for horizon_s in of_row})
    if not horizons:
        return ""
    rows = [
        (name, *(with_interval(of_row[h]) if h in of_row else "-" for h in horizons))
        for name, of_row in found.items()
    ]
    return f"## {title}\n\n{_table((head, *(f'{h} s' for h in horizons)), rows)}"


def _perpetual(card: Card) -> str:
    """What the perpetual gains, by market; empty where no market has one."""
    horizons = sorted({horizon_s for each in card.reference_gain.values() for horizon_s in each.gain})
    rows = [
        (symbol, *(figure(each.gain.get(h), "+.3f") for h in horizons), "yes" if each.used else "no")
        for symbol, each in card.reference_gain.items()
    ]
    if not rows:
        return ""
    return f"## The perpetual\n\n{_table(('gain', *(f'{h} s' for h in horizons), 'used'), rows)}"


def _inputs(network: NetworkShape | None) -> str:
    rows = [(part, ", ".join(names)) for part, names in network.inputs.items()] if network else []
    return f"## Inputs\n\n{_table(('part', 'features'), rows)}" if rows else ""


def _imported(found: ImportedModel | None) -> str:
    """What is known of a model that was trained elsewhere."""
    if found is None:
        return ""
    data = found.calibrated_on or TrainingData()
    symmetry = (
        "yes" if found.symmetric else f"no: moves differ by {figure(found.asymmetry, '.0%')} of their size"
    )
    rows = [
        ("name", found.name),
        ("description", found.description or None),
        ("output", found.output),
        ("inputs", ", ".join(found.inputs)),
        ("instants, s", ", ".join(f"{t:g}" for t in found.instants_s) if found.output != "path" else None),
        ("symmetric", "made so" if found.symmetrised else symmetry),
        ("20 rows take", f"{figure(found.run_ms, '.3f')} ms"),
        ("calibrated on", f"{data.rows_used or 0:,} rows, {time(data.from_us)} to {time(data.to_us)}"),
    ]
    return f"## Imported\n\n{_table(('what', 'value'), rows)}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [head, ("---",) * len(head), *(row for row in rows if row[-1] is not None)]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |"
        for line in lines
    )


def with_interval(found: GateSkill) -> str:
    """A skill with its interval."""
    low, high = found.ci
    return f"{found.skill:+.3f} [{low:+.3f}, {high:+.3f}]"


def figure(value: float | None, form: str) -> str:
    """A number in that `form`; "-" where it is not known."""
    return "-" if value is None or not math.isfinite(value) else format(value, form)


def time(time_us: int | None) -> str:
    """An instant in UTC, for people; "?" where it is not known."""
    return "?" if time_us is None else f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m-%d %H:%M:%S}"
