"""An estimate as Markdown tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.latency_budget import Preset, skill_at
from operations.cost import storage
from operations.cost.estimate import TARGETS_USD, Estimate
from operations.cost.settings import in_words, settings
from operations.cost.what_ifs import WHAT_IFS

LINGERS_MS = (25, 50, 100, 500, 1000)
MEMORIES_MB = (512, 1024, 1769)


@dataclass(frozen=True)
class Choice:
    """A preset of latency in this environment: the whole month, and the skill of an answer of that age when
    it is read (docs/latency.md)."""

    preset: Preset
    month_usd: float
    is_configured: bool

    @property
    def skill(self) -> tuple[float, float]:
        """At horizons of 1 and 2 s."""
        return skill_at(self.preset.age_ms)


def line_table(estimate: Estimate) -> str:
    """Every line that costs something, and the sum."""
    rows = ["| line | quantity | unit | price | confidence | $ a month |", "|---|---:|---|---:|---|---:|"]
    for line in sorted(estimate.lines, key=lambda line: -line.usd):
        if line.usd == 0:
            continue
        each = f"{line.usd / line.quantity:.10f}".rstrip("0").rstrip(".")
        rows.append(
            f"| {line.what} | {_quantity(line.quantity)} | {line.unit} | {each} | "
            f"{line.confidence} | {_usd(line.usd)} |"
        )
    rows.append(f"| **all** | | | | | **{_usd(estimate.month_usd)}** |")
    rows.append(
        f"| 1,000 of {_quantity(estimate.predictions)} predictions | | | | | "
        f"{estimate.per_1000_predictions_usd:.5f} |"
    )
    return "\n".join(rows)


def confidence_table(estimate: Estimate) -> str:
    """How much of the sum rests on prices of which confidence."""
    rows = ["| confidence of the price | $ a month | share |", "|---|---:|---:|"]
    for confidence in "ABCD":
        usd = sum(line.usd for line in estimate.lines if line.confidence == confidence)
        rows.append(f"| {confidence} | {_usd(usd)} | {usd / estimate.month_usd:.0%} |")
    return "\n".join(rows)


def what_if_table(estimate: Estimate) -> str:
    """What one change makes of it, and how it is configured; what changes nothing is as configured."""
    rows = [
        "| what if | $ a month | difference | $ for 1,000 predictions | settings |",
        "|---|---:|---:|---:|---|",
    ]
    for what_if in WHAT_IFS:
        changed = what_if.of(estimate)
        difference = changed.month_usd - estimate.month_usd
        found = settings(estimate.environment, estimate.inventory, changed.inventory)
        is_same = changed.inventory == estimate.inventory and changed.load == estimate.load
        rows.append(
            f"| {what_if.what} | {_usd(changed.month_usd)} | "
            f"{'as it is' if is_same else f'{difference:+.2f}'} | {changed.per_1000_predictions_usd:.5f} | "
            f"{in_words(found)} |"
        )
    return "\n".join(rows)


def choices(estimate: Estimate) -> Iterator[Choice]:
    """The presets: polling or fan-out, linger and cadence, memory of the function."""
    inventory = estimate.inventory
    current = inventory.functions["predict_stream"]
    for fan_out in (False, True):
        for linger_ms in LINGERS_MS:
            for memory_mb in MEMORIES_MB:
                preset = Preset(fan_out, linger_ms, memory_mb)
                changed = replace(
                    inventory,
                    fan_out=fan_out,
                    linger_ms=linger_ms,
                    predict_every_ms=max(inventory.predict_every_ms, linger_ms),
                    functions=inventory.functions | {"predict_stream": replace(current, memory_mb=memory_mb)},
                )
                yield Choice(
                    preset, replace(estimate, inventory=changed).month_usd, is_configured=changed == inventory
                )


def skill_table(estimate: Estimate) -> str:
    """Dollars against skill; the configured preset is bold."""
    rows = [
        "| delivery | linger ms | memory MB | age when read, ms | skill 1 s | 2 s | $ a month | "
        "$ for .01 of skill at 1 s |",
        "|---|" + "---:|" * 7,
    ]
    for choice in choices(estimate):
        one, two = choice.skill
        preset, bold = choice.preset, "**" * choice.is_configured
        rows.append(
            f"| {bold}{'fan-out' if preset.fan_out else 'polling'}{bold} | {preset.linger_ms} | "
            f"{preset.memory_mb} | {preset.age_ms:.0f} | {one:.3f} | {two:.3f} | "
            f"{bold}{_usd(choice.month_usd)}{bold} | {choice.month_usd / one / 100:.2f} |"
        )
    return "\n".join(rows)


def target_sentence(estimate: Estimate) -> str:
    """What one symbol with 200 ticks a second costs, and whether that keeps the target."""
    target, usd = TARGETS_USD[estimate.name], estimate.of_target.month_usd
    kept = (
        f"within the target of ${target}"
        if usd <= target
        else f"${usd - target:.2f} above the target of ${target}"
    )
    return f"One symbol at 200 ticks a second (SYMBOLS=1): ${_usd(usd)} a month, {kept}."


def as_json(estimate: Estimate) -> dict[str, Any]:
    """The result for programs; names of lines and what-ifs are stable."""
    inventory, load = estimate.inventory, estimate.load
    return {
        "environment": estimate.name,
        "region": estimate.prices.region,
        "symbols": inventory.symbols,
        "ticks_per_s": load.ticks_per_s,
        "month_usd": round(estimate.month_usd, 2),
        "one_symbol_month_usd": round(estimate.of_target.month_usd, 2),
        "target_usd": TARGETS_USD[estimate.name],
        "predictions": round(estimate.predictions),
        "per_1000_predictions_usd": round(estimate.per_1000_predictions_usd, 6),
        "warnings": estimate.warnings,
        "database": storage.as_json(inventory, load),
        "lines": [
            {
                "name": line.name,
                "usd": round(line.usd, 4),
                "quantity": line.quantity,
                "unit": line.unit,
                "price": line.price_id,
                "confidence": line.confidence,
            }
            for line in estimate.lines
        ],
        "what_ifs": {what_if.name: round(what_if.of(estimate).month_usd, 2) for what_if in WHAT_IFS},
    }


def _usd(value: float) -> str:
    """To the cent; half a cent is one more, which 14.235 is not in binary."""
    return f"{value + 1e-9:.2f}"


def _quantity(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:,.2f} M"
    return f"{value:,.0f}" if value >= 100 else f"{value:g}" if value == int(value) else f"{value:.2f}"
