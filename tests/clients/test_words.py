"""Answers in words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fixtures import client_api, records
from tests.fixtures.client_api import SKILL, START_MS
from tickcast.adapters.http.responses import as_json
from tickcast.serving import outcomes
from tickcast.serving.prediction import REASONS as SERVED_REASONS
from tickcast_client import in_words
from tickcast_client.models import Accuracy, HealthReport, Latest, ListedPrediction, Models, Receipt, Several
from tickcast_client.words import REASONS, UNRESOLVED, price


def latest(**changed: Any) -> str:
    return in_words(Latest.model_validate(client_api.latest(**changed)))


def test_every_reason_has_words() -> None:
    assert REASONS.keys() == set(SERVED_REASONS)
    assert UNRESOLVED.keys() == {outcomes.GAP, outcomes.NO_MID, outcomes.STALE}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (61384.6158124, "61,384.62"),
        (60000.0, "60,000.00"),
        (142.12345, "142.123"),
        (9.5, "9.50"),
        (0.000012345678, "0.0000123457"),
        (0.0, "0.00"),
    ],
)
def test_a_price_has_as_many_digits_as_tell_it_apart(value: float, text: str) -> None:
    assert price(value) == text


def test_a_prediction_says_what_to_do() -> None:
    assert latest() == (
        "BTCUSDT is expected at 60,001.74 in 2 s (at 2026-01-01 00:00:02.187 UTC): +0.23 bp still to come, "
        "between "
        "59,994.32 and 60,009.17. Chances: up 21.7 %, down 9.4 %, unchanged 68.9 %. The move is less than "
        "the cost "
        "of 20 bp for spread and fees: not worth trading. The market is known up to 187 ms before the "
        "reading."
    )
    assert "more than the cost of 0.1 bp" in latest(worth_trading=True, cost_bp=0.1)
    assert "more than the cost is not known" in latest(worth_trading=None, cost_bp=None)
    assert "within the noise: do nothing" in latest(abstains=True)
    assert "is provisional" in latest(provisional=True)
    unknown = dict.fromkeys(["expected_move_bp", "p_up", "p_down", "p_flat", "lower", "upper"])
    assert latest(**unknown, source="fallback", reason="stale_features") == (
        "BTCUSDT: no forecast, because the market's data is more than 5 s old. The last known price is "
        "60,000.00. Do "
        "nothing."
    )
    assert "a fallback, because no quotes arrive: do nothing" in latest(source="fallback", reason="no_quotes")


def test_several_are_a_line_each() -> None:
    response = client_api.several(client_api.latest(), ETHUSDT="no tick of ETHUSDT has arrived so far")
    lines = in_words(Several.model_validate_json(response.content)).splitlines()
    assert lines[0].startswith("BTCUSDT is expected")
    assert lines[1:] == ["ETHUSDT: no prediction, because no tick of ETHUSDT has arrived so far."]


def receipt(**changed: Any) -> str:
    return in_words(Receipt.model_validate(client_api.receipt(**changed)))


def test_a_receipt_says_what_it_was_made_from_and_what_came_of_it() -> None:
    assert receipt(trade_age_ms=70, quote_age_ms=40).splitlines() == [
        "BTCUSDT-1767225600000 (2026-01-01 00:00:00.000 UTC): 100.01 expected at 2026-01-01 00:00:02.130 "
        "UTC, +1 bp "
        "from its delivery on, between 99.98 and 100.04, direction right with probability 70.0 % if the "
        "price "
        "moves. The move is less than the cost of 22 bp for spread and fees: not worth trading.",
        "Made from trades up to id 1000 and book updates up to id 2000; at 2026-01-01 00:00:00.000 UTC the "
        "last "
        "trade 70 ms, the last quote 40 ms old.",
        "Model: m1.",
        "Delivered 130 ms after that.",
        "Outcome over 1 s: the mid moved +1 bp of +1 bp expected, inside the interval, direction right.",
        "Outcome over 2 s: the mid moved +1 bp of +1 bp expected, inside the interval, direction right.",
    ]


def test_a_receipt_without_outcomes_says_so() -> None:
    body = client_api.receipt() | {"outcomes": {}}
    assert "Outcomes: none known." in in_words(Receipt.model_validate(body))
    unresolved = as_json(records.outcome(START_MS, 2, status="unresolved", why="gap", move_bp=None))
    body["outcomes"] = {"2": unresolved}
    text = in_words(Receipt.model_validate(body))
    assert "Outcome over 2 s: unknown, because the stream did not close the bar of its delivery" in text


def test_a_prediction_of_a_list_has_words() -> None:
    assert in_words(ListedPrediction.model_validate(client_api.listed(START_MS))).startswith(
        "BTCUSDT-1767225600000 (2026-01-01 00:00:00.000 UTC): 100.01 expected"
    )


def accuracy(skill: dict[str, Any] | None, challenger_skill: dict[str, Any] | None = None) -> str:
    return in_words(Accuracy.model_validate(client_api.accuracy(skill, challenger_skill)))


def test_accuracy_says_what_its_uncertainty_allows() -> None:
    assert accuracy(SKILL).splitlines() == [
        "Accuracy of BTCUSDT, as scored at 2026-01-01 00:00:00.000 UTC:",
        "last hour, 2 s ahead: 3000 outcomes, skill 0.120 (0.020 to 0.200: better than no change), "
        "direction right "
        "in 60.0 % of 900 that moved, 81.0 % inside the 80 % interval, 7 answers were fallbacks.",
        "last day: no outcome is known.",
        "last week: no outcome is known.",
    ]
    assert (
        "last hour, 2 s ahead, model m2 in shadow: 900 outcomes of both, its skill against the active "
        "model 0.120 "
        "(0.020 to 0.200: better than the active model)." in accuracy(SKILL, challenger_skill=SKILL)
    )
    assert "-0.050 to 0.200: inconclusive" in accuracy(SKILL | {"low": -0.05})
    assert "worse than no change" in accuracy({"value": -0.1, "low": -0.2, "high": -0.01})
    assert "too little data for an interval" in accuracy({"value": 0.1, "low": None, "high": None})


def test_health_names_what_is_wrong() -> None:
    def words(status: str, **services: dict[str, Any]) -> list[str]:
        report = json.loads(client_api.health(status, **services).content)
        return in_words(HealthReport.model_validate(report)).splitlines()

    assert words("ok") == ["All parts are healthy."]
    wrong = {"ok": False, "why": "no heartbeat for 900 s"}
    feed = {"ok": True, "why": None, "source": "sim"}
    unseen: dict[str, Any] = {"ok": None, "why": None}
    assert words("degraded", score=wrong, audit=unseen, **{"feed:BTCUSDT": feed}) == [
        "Something is wrong:",
        "score: no heartbeat for 900 s",
        "Not seen so far: audit.",
        "This is not a live market: it is simulated.",
    ]


def test_other_answers_have_no_words() -> None:
    with pytest.raises(TypeError, match="no words for Models"):
        in_words(Models(current=None, models=[], total=0))
