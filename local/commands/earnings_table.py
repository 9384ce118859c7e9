"""The table of `make evaluate` that says what acting on the forecasts would have earned."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def earnings_table(earnings: dict[str, list[dict[str, Any]]], fee_bp: float) -> Table:
    """`earnings` as in the last line: by horizon, the figures of each threshold."""
    cost = f"spread and a fee of {fee_bp:g} bp a side"
    table = Table(title=f"acting on the forecasts at delivery, bp a trade: net of {cost}")
    table.add_column("acted on from")
    for horizon in earnings:
        table.add_column(f"{horizon} s", justify="right")
    for of_threshold in zip(*earnings.values(), strict=True):
        threshold_bp = of_threshold[0]["threshold_bp"]
        name = "spread and fees on" if threshold_bp is None else f"{threshold_bp:g} bp on"
        table.add_row(name, *map(_cell, of_threshold))
    return table


def _cell(figures: dict[str, Any]) -> str:
    """Net with its interval, then gross, the share of shuffles that earn as much, and trades."""
    if not figures["trades"]:
        return "no trades"
    net, gross = f"{figures['net_bp']:+.3f}", f"gross {figures['gross_bp']:+.3f}"
    if figures["net_ci"]:
        low, high = figures["net_ci"]
        net, gross = f"{net} [{low:+.3f}, {high:+.3f}]", f"{gross}, p {figures['shuffled_p']:.3f}"
    return f"{net}\n{gross}, {figures['trades']} trades"
