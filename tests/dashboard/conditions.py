"""Conditions of the system that are rare or take long to come about, as the API reports them: its own
responses, changed as little as the condition asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.dashboard.tab import Answers, Change, Reply

OLD_MS = 12_400
# What an answer has only where a model answers.
_OF_A_FORECAST = (
    "expected_move_bp",
    "p_up",
    "p_down",
    "p_flat",
    "lower",
    "upper",
    "worth_trading",
    "noise_bp",
    "edge_bp",
    "scale_bp",
    "inference_ms",
)


@dataclass(frozen=True)
class Condition:
    """`says` are regular expressions, each of which matches some of what a person then sees; `hides` match
    nothing of it."""

    answers: Answers
    says: tuple[str, ...]
    hides: tuple[str, ...] = ()
    key: str | None = None  # None: the right one


def changed(change: Callable[[Any], None]) -> Change:
    """Change the body of a response, unless it is an error."""

    def apply(reply: Reply) -> Reply:
        body = copy.deepcopy(reply.body)
        if reply.status < 400:
            change(body)
        return Reply(reply.status, body)

    return apply


def problem(status: int, title: str, detail: str) -> Change:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return lambda _: Reply(status, body)


def latest_only(change: Callable[[dict[str, Any]], None]) -> Change:
    """Change the newest prediction, whichever response it is in: lists and receipts have no `age_ms`."""

    def apply(body: dict[str, Any]) -> None:
        several = body["predictions"].values() if isinstance(body.get("predictions"), dict) else [body]
        for each in several:
            if "age_ms" in each:
                change(each)

    return changed(apply)


def proven(latest: dict[str, Any]) -> None:
    latest["provisional"] = False


def fallback(reason: str, **members: Any) -> Change:
    """The newest prediction as a fallback: the last known price, and nothing that a forecast says."""

    def apply(latest: dict[str, Any]) -> None:
        latest |= dict.fromkeys(_OF_A_FORECAST)
        latest |= {"source": "fallback", "reason": reason, "abstains": True, "confidence": 0.0}
        latest |= {"predicted_price": latest["basis_price"], "horizons": {}, **members}

    return latest_only(apply)


def masked(latest: dict[str, Any]) -> None:
    """Without quotes a model answers all the same, by trades alone, and abstains."""
    latest |= {"source": "fallback", "reason": "no_quotes", "abstains": True, "worth_trading": None}
    latest |= dict.fromkeys(("spread_bp", "cost_bp", "edge_bp", "quote_age_ms"))


def abstaining(latest: dict[str, Any]) -> None:
    for each in (latest, *latest["horizons"].values()):
        each |= {"abstains": True, "expected_move_bp": 0.001, "confidence": 0.502, "worth_trading": False}


def worth_trading(latest: dict[str, Any]) -> None:
    for each in (latest, *latest["horizons"].values()):
        each |= {"abstains": False, "worth_trading": True, "expected_move_bp": 31.5, "edge_bp": 11.48}


def quiet(latest: dict[str, Any]) -> None:
    latest |= {"quiet": True, "age_ms": {"claim": 180, "tick": 9_300}}


def fed_by(source: str) -> Change:
    def apply(health: dict[str, Any]) -> None:
        for name, service in health["services"].items():
            if name.startswith("feed:"):
                service["source"] = source

    return changed(apply)


def degraded(reply: Reply) -> Reply:
    """The exchange's stream of one market stalled, and the database has sent no heartbeat for long."""
    body = copy.deepcopy(reply.body)
    body["status"] = "degraded"
    body["services"]["feed:ETHUSDT"] |= {"ok": False, "why": "no tick for 48 s", "age_s": 48.2}
    body["services"]["postgres"] |= {"ok": False, "why": "no heartbeat for 1,260 s", "age_s": 1260.4}
    return Reply(503, body)


def unscored(accuracy: dict[str, Any]) -> None:
    accuracy |= {"summary": None, "scored_ms": None, "scored_age_s": None}


AWAY = Answers(dict.fromkeys(("",), lambda _: None), errors=True)
NO_DATA = problem(404, "No data yet", "no tick of BTCUSDT has arrived so far")
TOO_MANY = problem(429, "Too Many Requests", "more requests than this key may send: wait a second")
UNREADABLE = problem(503, "Store out of reach", "Redis does not answer")

CONDITIONS = {
    "provisional": Condition(Answers(), says=("provisional", "simulated")),
    "healthy": Condition(
        Answers({"predictions/": latest_only(proven), "health": fed_by("sbe")}),
        says=(r"\bok\b|healthy|all well", "worth trading"),
        hides=(r"provisional\b.*\bmodel is not proven", "simulated market", "replayed"),
    ),
    "replay": Condition(Answers({"health": fed_by("replay")}), says=("replay",), hides=("simulated market",)),
    "stale": Condition(
        Answers({"predictions/": fallback("stale_features", age_ms={"claim": OLD_MS, "tick": OLD_MS})}),
        says=("stale|old", r"12(\.4)? s"),
    ),
    "no-quotes": Condition(Answers({"predictions/": latest_only(masked)}), says=("quote",)),
    "warming-up": Condition(
        Answers({"predictions/": fallback("warming_up")}), says=("warming up|history|collecting",)
    ),
    "no-model": Condition(
        Answers({"predictions/": fallback("no_model", model_id=None, provisional=None)}),
        says=("no (active )?model",),
    ),
    "model-refused": Condition(
        Answers({"predictions/": fallback("model_refused", model_id=None, provisional=None)}),
        says=("model",),
    ),
    "outside-support": Condition(
        Answers({"predictions/": fallback("outside_support", outside=["volatility_10s", "spread_bp"])}),
        says=("outside|beyond|trained", "spread"),
    ),
    "abstains": Condition(Answers({"predictions/": latest_only(abstaining)}), says=("abstain|noise",)),
    "worth-trading": Condition(
        Answers({"predictions/": latest_only(worth_trading)}), says=("worth trading", r"31\.50? bp")
    ),
    "quiet": Condition(Answers({"predictions/": latest_only(quiet)}), says=("quiet", r"9\.3 s|9 s")),
    "degraded": Condition(
        Answers({"health": degraded}, errors=True), says=("degraded", "no tick for 48 s", "postgres|database")
    ),
    "no-data": Condition(
        Answers({"predictions/": NO_DATA, "accuracy/": changed(unscored), "data/": NO_DATA}, errors=True),
        says=("no tick of BTCUSDT has arrived",),
    ),
    "unscored": Condition(
        Answers({"accuracy/": changed(unscored)}), says=("not scored yet|no outcomes yet",)
    ),
    "too-many-requests": Condition(
        Answers({"predictions/": TOO_MANY}, errors=True), says=("more requests than this key may send",)
    ),
    "store-away": Condition(
        Answers({"predictions/": UNREADABLE, "accuracy/": UNREADABLE}, errors=True),
        says=("Redis does not answer",),
    ),
    "api-away": Condition(AWAY, says=("does not answer",)),
    "no-key": Condition(Answers(), says=("API key|key",), key=""),
    "wrong-key": Condition(Answers(errors=True), says=("key",), key="wrong"),
}
