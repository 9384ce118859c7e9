"""A signal in words, and as the body of a request in each destination's form."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from tickcast.serving.signals import Signal, SignalledForecast, Template

_REASONS = {
    "no_quotes": "there are no quotes",
    "warming_up": "features are warming up",
    "no_model": "there is no active model",
    "model_refused": "the active model cannot serve",
    "outside_support": "the market is beyond what the model was trained on",
}
MOST_CHARACTERS = 3500  # of a text: Telegram takes 4096, Slack more


@dataclass(frozen=True)
class Sending:
    """What is known when a signal is sent: which deployment, the address of its API (ends with a slash), and
    the time, ms since the epoch."""

    environment: str
    api_url: str
    now_ms: float


def late_ms(signal: Signal, now_ms: float) -> float | None:
    """How long ago the signal expired; None: not yet, or never."""
    expires_ms = signal.expires_ms
    return now_ms - expires_ms if expires_ms is not None and now_ms >= expires_ms else None


def in_words(signal: Signal, sending: Sending) -> str:
    """What happened, how sure that is, what it costs, for when, and where to look."""
    if signal.alarm:
        alarm = signal.alarm
        first = f"{alarm.alarm}: {'raised' if alarm.state == 'ALARM' else 'over'}. {alarm.meaning}".strip()
        lines = [first, alarm.why]
    elif signal.drift:
        lines = [
            f"{signal.symbol}: the model drifts: {', '.join(signal.drift.reasons) or 'not over yet'}.",
            f"Model {signal.drift.model_id}; do not rely on its figures until it is over.",
        ]
    elif signal.forecast and signal.when == "fallback":
        why = _REASONS.get(signal.forecast.reason or "", signal.forecast.reason)
        price = _price(signal.forecast.basis_price)
        lines = [f"{signal.symbol}: no model answers, for {why}. Last known price {price}."]
    elif signal.forecast:
        lines = _of_forecast(signal, signal.forecast, sending.now_ms)
    else:
        lines = [f"Rule {signal.rule}: a test of tickcast's signals. Nothing has happened."]
    lines.append(_where(signal, sending))
    return "\n".join(line for line in lines if line)[:MOST_CHARACTERS]


def _of_forecast(signal: Signal, forecast: SignalledForecast, now_ms: float) -> list[str]:
    bounds = (
        f", 80 % between {_price(forecast.lower)} and {_price(forecast.upper)}"
        if forecast.lower is not None and forecast.upper is not None
        else ""
    )
    lines = [
        f"{signal.symbol}: {forecast.expected_move_bp or 0:+.2f} bp expected in {forecast.horizon_s} s, to "
        f"{_price(forecast.predicted_price)}{bounds}.",
        f"The direction is right with a probability of {100 * (forecast.confidence or 0):.0f} %, if the "
        "price moves."
        + (" The forecast abstains: the move is within the noise." if forecast.abstains else ""),
    ]
    if forecast.cost_bp is not None and forecast.edge_bp is not None:
        edge_bp = forecast.edge_bp
        left = f"{edge_bp:.2f} bp are left" if edge_bp > 0 else f"{-edge_bp:.2f} bp more than the move"
        lines.append(f"A round trip costs {forecast.cost_bp:.2f} bp: {left}.")
    over_ms, target = late_ms(signal, now_ms), _time(forecast.target_time)
    if over_ms is None:
        lines.append(f"For {target}.")
    else:
        lines.append(f"LATE: it was for {target}, {over_ms / 1000:.1f} s before this was sent.")
    if forecast.provisional:
        lines.append("The model is provisional: not proven better than the baselines yet.")
    return lines


def payload(signal: Signal, sending: Sending) -> dict[str, Any]:
    """The JSON of the template `json`: `type`, `timestamp` and `data`, as Standard Webhooks recommends."""
    over_ms = late_ms(signal, sending.now_ms)
    data: dict[str, Any] = msgspec.to_builtins(signal)
    return {
        "type": f"signal.{signal.when}" if not is_test(signal) else "signal.test",
        "timestamp": datetime.fromtimestamp(signal.at_ms / 1000, UTC).isoformat().replace("+00:00", "Z"),
        "data": data
        | {
            "environment": sending.environment,
            "text": in_words(signal, sending),
            "expires_ms": signal.expires_ms,
            "late": over_ms is not None,
            "links": {"dashboard": sending.api_url, "receipt": receipt_url(signal, sending)},
        },
    }


def is_test(signal: Signal) -> bool:
    return not (signal.forecast or signal.drift or signal.alarm)


def body(template: Template, signal: Signal, sending: Sending, chat: str = "") -> dict[str, Any]:
    """What is posted; `chat` is Telegram's."""
    if template == "slack":
        return {"text": _escaped(in_words(signal, sending)), "unfurl_links": False}
    if template == "telegram":
        options = {"link_preview_options": {"is_disabled": True}}
        return {"chat_id": chat, "text": in_words(signal, sending), **options}
    return payload(signal, sending)


def receipt_url(signal: Signal, sending: Sending) -> str | None:
    if not signal.forecast:
        return None
    return f"{sending.api_url}predictions/{quote(signal.symbol or '')}/{quote(signal.forecast.id)}"


def _where(signal: Signal, sending: Sending) -> str:
    """Which rule, and where the dashboard opens the receipt (docs/dashboard.md)."""
    receipt = f"#receipt={quote(signal.forecast.id)}" if signal.forecast else ""
    return f"tickcast {sending.environment}, rule {signal.rule}: {sending.api_url}{receipt}"


def _escaped(text: str) -> str:
    """Slack's three control characters ("Formatting text for app surfaces")."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _price(value: float | None) -> str:
    """With as many digits as single precision tells apart."""
    if value is None:
        return "?"
    digits = 2 if abs(value) >= 100 else 4 if abs(value) >= 1 else 8
    return f"{value:,.{digits}f}"


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%H:%M:%S} UTC"
