"""A prediction's receipt, and its comparison with what bronze gives, as lines and tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from tickcast.functions.audit_predictions import Audit
from tickcast.serving.reproduce import ComparedValue, Reproduction

_KEYS_SHOWN = 10

Receipt = dict[str, Any]


def lines(receipt: Receipt) -> Iterator[str]:
    """The receipt, line by line."""
    yield f"[bold]{receipt['id']}[/bold]: {receipt['symbol']} as of {_time(receipt['timestamp'])}"
    yield f"  input        up to trade {receipt['last_trade_id']} and book update {receipt['update_id']}"
    yield f"  bars         {_bars(receipt)}"
    late = [receipt.get(name, []) for name in ("late_ids", "late_update_ids", "late_reference_ids")]
    trades, quotes, reference = map(len, late)
    yield (
        f"  late         for earlier bars, since the last receipt kept: {trades} trades, {quotes} quotes, "
        f"{reference} of the perpetual"
    )
    if any(late):
        yield f"               trades {late[0]}, book updates {late[1]}, of the perpetual {late[2]}"
    yield (
        f"  ages         last trade {_ms(receipt.get('trade_age_ms'))}, last quote "
        f"{_ms(receipt.get('quote_age_ms'))}; history since {_time(receipt['history_from_us'] / 1000)}"
    )
    yield f"  model        {_model(receipt)}"
    for horizon, state in receipt["calibrator"].items():
        yield (
            f"  calibration  {horizon} s: slope {state['direction_slope']:.4g}, "
            f"width {state['interval_width']:.4g} σ√h, after {state['outcomes']} outcomes"
        )
    spent = ", ".join(f"{name} {_ms(ms)}" for name, ms in (receipt.get("timing_ms") or {}).items())
    yield f"  latency      {_ms(receipt.get('latency_ms'))}: {spent or 'no breakdown'}"
    yield f"  forecast     {_forecast(receipt)}"
    yield f"  delivered    {_delivered(receipt)}"
    for horizon, outcome in receipt.get("outcomes", {}).items():
        yield f"  outcome      {horizon} s: {_outcome(outcome)}"
    if not receipt.get("outcomes"):
        yield "  outcome      not known yet"


def tables(reproduction: Reproduction) -> list[Table]:
    """The values compared: the features, and the prediction computed from them."""
    parts = {
        "features": [each for each in reproduction.compared if each.name.startswith("features")],
        "prediction": [each for each in reproduction.compared if not each.name.startswith("features")],
    }
    return [_table(title, compared) for title, compared in parts.items() if compared]


def conclusion(audit: Audit) -> Iterator[str]:
    """The result of the comparison, and what it is based on."""
    reproduction = audit.reproduction
    if audit.objects:
        yield f"recomputed from {len(audit.objects)} objects:"
        shown = [part.key for part in audit.objects]
        if len(shown) > _KEYS_SHOWN:
            shown[_KEYS_SHOWN - 1 : -1] = ["…"]
        yield from (f"  {key}" for key in shown)
    for reason in reproduction.unproven:
        yield f"[yellow]inconclusive:[/yellow] {reason}"
    for caveat in reproduction.caveats if reproduction.differences else ():
        yield f"[yellow]may be no fault:[/yellow] {caveat}"
    count, differences = len(reproduction.compared), len(reproduction.differences)
    if reproduction.same:
        yield f"[bold green]identical to the last bit[/bold green]: {count} values"
    elif reproduction.same is False:
        yield f"[bold red]DIFFERENT[/bold red]: {differences} of {count} values"
    elif not reproduction.compared:
        yield "[bold yellow]nothing could be compared[/bold yellow]: try again in a minute"
    else:
        yield f"[bold yellow]inconclusive[/bold yellow]: {count - differences} of {count} values identical"


def _table(title: str, compared: list[ComparedValue]) -> Table:
    table = Table(title=title)
    for name in ("value", "receipt", "recomputed", ""):
        table.add_column(name, justify="right" if name.startswith("re") else "left")
    for each in compared:
        mark = "[green]same[/green]" if each.is_same else "[bold red]DIFFERENT[/bold red]"
        table.add_row(
            each.name.removeprefix("features."), _value(each.recorded), _value(each.recomputed), mark
        )
    return table


def _model(receipt: Receipt) -> str:
    if not receipt["model_id"]:
        return "none"
    provisional = " (provisional)" if receipt.get("provisional") else ""
    challenger = receipt["challenger"]
    shadow = f"; challenger in shadow: {challenger['model_id']}" if challenger else ""
    return f"{receipt['model_id']}{provisional}{shadow}"


def _bars(receipt: Receipt) -> str:
    """What the newest bars were made from."""
    closed_us = receipt.get("closed_us")
    if closed_us is None:
        return "no word on which ticks of open bars had arrived"
    seen = len(receipt["open_ids"]), len(receipt["open_update_ids"])
    reference = len(receipt.get("open_reference_ids", []))
    return (
        f"closed up to {_time(closed_us / 1000)}; from the {_ms(receipt['timestamp'] - closed_us / 1000)} "
        f"after that, {seen[0]} trades and {seen[1]} quotes had arrived, and of {reference} bars a quote of "
        "the perpetual"
    )


def _delivered(receipt: Receipt) -> str:
    """When it was written, and the instant that it is for."""
    latency_ms = receipt.get("latency_ms")
    if latency_ms is None:
        return "no word on when"
    return (
        f"{_time(receipt['timestamp'] + latency_ms)}; the move from then on is forecast, to "
        f"{_time(receipt['target_time'])}"
    )


def _forecast(receipt: Receipt) -> str:
    basis = f"from {receipt['basis_price']:,.2f}"
    if receipt["source"] == "fallback":
        outside = f" ({', '.join(receipt['outside'])})" if receipt.get("outside") else ""
        return f"none, {basis}: {receipt['reason']}{outside}"
    return (
        f"{basis} to {receipt['predicted_price']:,.2f} in {receipt['horizon_s']} s "
        f"({receipt['expected_move_bp']:+.3f} bp still to come), 80 % interval {receipt['lower']:,.2f} to "
        f"{receipt['upper']:,.2f}, direction right with probability {receipt['confidence']:.0%}"
    )


def _outcome(outcome: Receipt) -> str:
    if outcome["status"] != "resolved":
        return f"unresolved ({outcome['why']})"
    inside = {True: "inside the interval", False: "outside the interval", None: "no interval"}
    right = {True: "direction right", False: "direction wrong", None: "no direction"}
    return (
        f"{outcome['outcome_price']:,.2f} ({outcome['move_bp']:+.3f} bp), "
        f"{inside[outcome['inside']]}, {right[outcome['right']]}"
    )


def _value(value: Any) -> str:
    """All digits of a float."""
    return repr(value) if isinstance(value, float) else str(value)


def _time(time_ms: float) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3] + " UTC"


def _ms(milliseconds: float | None) -> str:
    return "unknown" if milliseconds is None else f"{milliseconds:,.0f} ms"
