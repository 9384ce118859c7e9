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
    in_all_looks: bool = False  # not only on a bright desktop


def changed(change: Callable[[Any], None]) -> Change:
    """Change the body of a response, unless it is an error."""

    def apply(reply: Reply) -> Reply:
        body = copy.deepcopy(reply.body)
        if reply.status < 400:
            change(body)
        return Reply(reply.status, body)

    return apply


def both(first: Change, second: Change) -> Change:
    def apply(reply: Reply) -> Reply | None:
        changed_once = first(reply)
        return changed_once and second(changed_once)

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


def all_proven(models: dict[str, Any]) -> None:
    """As the gate leaves a champion that beat all on enough rows."""
    for card in models["models"]:
        card["provisional"] = False
        card["gate"] = (card.get("gate") or {}) | {"passed": True, "promoted": True, "sentence": PROVEN}
        card["proof"] = None  # of an evaluation on simulated rows, which says so


def fallback(reason: str, **members: Any) -> Change:
    """The newest prediction as a fallback: the last known price, and nothing that a forecast says."""

    def apply(latest: dict[str, Any]) -> None:
        latest |= dict.fromkeys(_OF_A_FORECAST)
        latest |= {"source": "fallback", "reason": reason, "abstains": True, "confidence": 0.0}
        latest |= {"predicted_price": latest["basis_price"], "horizons": {}, **members}

    return latest_only(apply)


def stale(latest: dict[str, Any]) -> None:
    """The stream stalled a while ago: nothing is known of the market since then."""
    stalled_ms = latest["as_of"] - OLD_MS
    latest |= {"timestamp": stalled_ms, "age_ms": {"claim": OLD_MS, "tick": OLD_MS + 30}}
    if history := latest.get("history"):
        known = [each for each in history if each["timestamp"] < stalled_ms]
        latest |= {"history": known, "basis_price": (known or history[-1:])[0]["basis_price"]}


def masked(latest: dict[str, Any]) -> None:
    """Without quotes a model answers all the same, by trades alone, and abstains."""
    latest |= {"source": "fallback", "reason": "no_quotes"}
    latest |= dict.fromkeys(("spread_bp", "cost_bp", "quote_age_ms"))
    for each in (latest, *latest["horizons"].values()):
        each |= {"abstains": True, "worth_trading": None, "edge_bp": None}


def moving(expected_bp: float, confidence: float, **members: Any) -> Callable[[dict[str, Any]], None]:
    """A forecast of that move over every horizon, with the same interval around it."""

    def apply(latest: dict[str, Any]) -> None:
        if latest["source"] == "fallback":
            return  # of a machine that is too busy: the next one may be the model's
        for each in (latest, *latest["horizons"].values()):
            half, price = (each["upper"] - each["lower"]) / 2, latest["basis_price"] * (1 + expected_bp / 1e4)
            moves = 1 - each["p_flat"]
            each |= {"expected_move_bp": expected_bp, "confidence": confidence, "predicted_price": price}
            each |= {"lower": price - half, "upper": price + half, "edge_bp": expected_bp - latest["cost_bp"]}
            each |= {"p_up": moves * confidence, "p_down": moves * (1 - confidence), **members}

    return apply


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

PROVEN = (
    "Challenger beats no change by 0.081, the line through book imbalance by 0.012 on 26.4 h of rows with "
    "quotes that it was not trained on."
)

CONDITIONS = {
    "provisional": Condition(Answers(), says=("provisional", "simulated"), in_all_looks=True),
    "healthy": Condition(
        Answers(
            {"predictions/": latest_only(proven), "health": fed_by("sbe"), "models": changed(all_proven)}
        ),
        says=("all well", "worth trading|abstains", "on 26.4 h of rows"),
        hides=("provisional", "simulated market", "replayed"),
    ),
    "replay": Condition(
        Answers({"health": fed_by("replay"), "models": changed(all_proven)}),
        says=("replay",),
        hides=("simulated market",),
    ),
    "stale": Condition(
        Answers({"predictions/": both(latest_only(stale), fallback("stale_features"))}),
        says=("older than 5 s", r"12\.4 s ago"),
        in_all_looks=True,
    ),
    "no-quotes": Condition(
        Answers({"predictions/": latest_only(masked)}), says=("the quote stream is silent", "abstains")
    ),
    "warming-up": Condition(Answers({"predictions/": fallback("warming_up")}), says=("too little history",)),
    "no-model": Condition(
        Answers({"predictions/": fallback("no_model", model_id=None, provisional=None)}),
        says=("no model is active",),
    ),
    "model-refused": Condition(
        Answers({"predictions/": fallback("model_refused", model_id=None, provisional=None)}),
        says=("the active model cannot serve",),
    ),
    "outside-support": Condition(
        Answers({"predictions/": fallback("outside_support", outside=["volatility_10s", "spread_bp"])}),
        says=("outside the range that the model was trained on: volatility_10s, spread_bp",),
    ),
    "abstains": Condition(
        Answers({"predictions/": latest_only(moving(0.004, 0.502, abstains=True, worth_trading=False))}),
        says=("within the noise",),
    ),
    "worth-trading": Condition(
        Answers({"predictions/": latest_only(moving(31.5, 0.83, abstains=False, worth_trading=True))}),
        says=("worth trading: it expects 11.* more", r"31\.50 bp"),
    ),
    "quiet": Condition(Answers({"predictions/": latest_only(quiet)}), says=(r"quiet for 9\.3 s",)),
    "degraded": Condition(
        Answers({"health": degraded}, errors=True),
        says=("degraded", "no tick for 48 s", "no heartbeat for 1,260 s"),
        in_all_looks=True,
    ),
    "no-data": Condition(
        Answers({"predictions/": NO_DATA, "accuracy/": changed(unscored), "data/": NO_DATA}, errors=True),
        says=("no tick of BTCUSDT has arrived",),
    ),
    "unscored": Condition(Answers({"accuracy/": changed(unscored)}), says=("not scored yet",)),
    "too-many-requests": Condition(
        Answers({"predictions/": TOO_MANY}, errors=True), says=("too many requests with this key",)
    ),
    "store-away": Condition(
        Answers({"predictions/": UNREADABLE, "accuracy/": UNREADABLE}, errors=True),
        says=("Redis does not answer",),
    ),
    "api-away": Condition(AWAY, says=("does not answer",)),
    "no-key": Condition(Answers(), says=("forecasts need a key",), key="", in_all_looks=True),
    "wrong-key": Condition(Answers(errors=True), says=("refused this key",), key="wrong"),
}
