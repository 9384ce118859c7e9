"""From rows in a real PostgreSQL to the active model: training, the gate, promotion. S3 is moto's."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest
from msgspec.structs import replace

from tests.fixtures.aws import BUCKET
from tests.fixtures.filled_history import fill, market
from tests.fixtures.market import START_US
from tickcast.adapters.postgres import training_rows
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import RegistryError
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.registry.pointer import LIFTED
from tickcast.adapters.registry.polling import inline
from tickcast.adapters.settings import DatabaseSettings
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions import train_model as training_function
from tickcast.functions.evaluate_model import evaluate_model
from tickcast.functions.promote_model import promote_model
from tickcast.functions.refit_model import refit_model
from tickcast.functions.request import RequestError
from tickcast.functions.train_model import train_model
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import PATH_S
from tickcast.model.training import GAP_US, TrainingError
from tickcast.units import SECOND_US

pytestmark = pytest.mark.integration

BTC, ETH = "BTCUSDT", "ETHUSDT"
SYMBOLS = (BTC, ETH)
FROM_US = START_US // SECOND_US * SECOND_US
NOW = datetime.fromtimestamp(FROM_US / 1e6, UTC) + timedelta(hours=6)
Connection = psycopg.Connection[Any]
Train = Callable[..., dict[str, Any]]
Evaluate = Callable[[str], dict[str, Any]]


@pytest.fixture
def loader(history_database: Database) -> Connection:
    return history_database.connection()


@pytest.fixture
def reader(loader: Connection, loader_settings: DatabaseSettings) -> Iterator[Connection]:
    """The database as the functions that train and evaluate have it: they may only read."""
    with Database(replace(loader_settings, user="tickcast_reader")) as database:
        yield database.connection()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two members instead of eight."""
    monkeypatch.setattr(
        training_function, "TrainingSettings", lambda **given: TrainingSettings(**{"members": 2} | given)
    )


def page_of(s3: Any, model_id: str) -> str:
    return str(s3.get_object(Bucket=BUCKET, Key=f"models/{model_id}/card.md")["Body"].read().decode())


@pytest.fixture
def train(s3: Any, reader: Connection) -> Train:
    clock = iter(range(1000))

    def run(**request: Any) -> dict[str, Any]:
        now = NOW + timedelta(seconds=next(clock))
        return dict(msgspec.to_builtins(train_model(request, s3, BUCKET, now, reader)))

    return run


@pytest.fixture
def evaluate(s3: Any, reader: Connection) -> Evaluate:
    return lambda model_id: evaluate_model({"model_id": model_id}, s3, BUCKET, reader, SYMBOLS, NOW)


def activate(s3: Any, model_id: str, *, provisional: bool = True) -> None:
    model_registry.promote(s3, BUCKET, model_id, NOW.isoformat(), provisional=provisional)


def without_line(s3: Any, *model_ids: str) -> None:
    """Let the line on these cards expect no move: on a planted market it is the truth, which a model that was
    trained on minutes is below."""
    for model_id in model_ids:
        card = model_registry.card_document(s3, BUCKET, model_id)
        flat = {"usual_sigma": 1.0, "slopes": {"1": 0.0, "2": 0.0, "5": 0.0, "10": 0.0}}
        model_registry.save_card(s3, BUCKET, card | {"scaled_line": dict.fromkeys(SYMBOLS, flat)})


def test_rows_are_read_as_stored(loader: Connection, reader: Connection) -> None:
    stored = {BTC: market(1, 300, FROM_US), ETH: market(2, 200, FROM_US, has_quotes=False, step_ms=1000)}
    for symbol, rows in stored.items():
        fill(loader, symbol, rows)
    found = training_rows.row_counts(reader, None, 0)
    assert [(h.symbol, h.has_quotes, h.origin.label, h.rows) for h in found] == [
        (BTC, True, "stream", 3000),
        (ETH, False, "stream", 200),
    ]
    read = training_rows.learning_rows(reader, found, 0)
    for symbol, rows in stored.items():
        assert (read[symbol].end_us == rows.end_us).all()
        assert (read[symbol].features == rows.features.astype(np.float16)).all()
        assert (read[symbol].moves_bp == rows.moves_bp.astype(np.float16)).all()
    later = training_rows.learning_rows(reader, found, FROM_US + 100 * SECOND_US)
    assert later[BTC].end_us.min() == FROM_US + 100 * SECOND_US
    assert [each.symbol for each in training_rows.row_counts(reader, [ETH], 0)] == [ETH]
    # From within an hour on, rows are counted one by one.
    from_us = FROM_US + 100 * SECOND_US
    counts = [(each.rows, each.first_us) for each in training_rows.row_counts(reader, None, from_us)]
    assert counts == [(2001, from_us), (101, from_us)]


def test_the_gate_reads_all_markets_on_one_grid(loader: Connection, reader: Connection) -> None:
    fill(loader, BTC, market(1, 1000, FROM_US), last_trade_bp=-1.0)
    fill(loader, ETH, market(2, 300, FROM_US + 600 * SECOND_US))
    found = training_rows.row_counts(reader, None, 0)
    btc, eth = training_rows.gate_rows(reader, found, FROM_US + 10 * SECOND_US, most=4000)
    assert set(np.diff(btc.rows.end_us)) == set(np.diff(eth.rows.end_us)) == {500_000}
    assert (btc.rows.end_us[0], len(eth.rows.end_us)) == (FROM_US + 10 * SECOND_US, 600)
    assert btc.last_trade_bp == pytest.approx(-1.0) and btc.last_trade_bp.shape == btc.rows.end_us.shape


def test_more_rows_than_fit_are_drawn_from_all_of_the_span(loader: Connection, reader: Connection) -> None:
    fill(loader, BTC, market(1, 600, FROM_US))
    fill(loader, BTC, market(2, 900, FROM_US + 3600 * SECOND_US, has_quotes=False, step_ms=1000))
    found = training_rows.row_counts(reader, [BTC], 0)
    rows = training_rows.learning_rows(reader, found, 0, quoted_rows=2000, unquoted_rows=300)[BTC]
    quoted, others = rows.chosen(rows.has_quotes), rows.chosen(~rows.has_quotes)
    assert (len(quoted.end_us), len(others.end_us)) == (2000, 300)
    for times_us, from_us, seconds in (
        (quoted.end_us, FROM_US, 600),
        (others.end_us, FROM_US + 3600 * SECOND_US, 900),
    ):
        assert (np.diff(times_us) > 0).all()
        of_thirds, _ = np.histogram(times_us, 3, (from_us, from_us + seconds * SECOND_US))
        assert of_thirds == pytest.approx(len(times_us) / 3, rel=0.25)
    again = training_rows.learning_rows(reader, found, 0, quoted_rows=2000, unquoted_rows=300)[BTC]
    assert (again.end_us == rows.end_us).all()


def test_no_grid_is_missed_and_no_market_left_out(loader: Connection, reader: Connection) -> None:
    """Rows a second apart, of which there are more than the cap; the other market has less than its share."""
    fill(loader, BTC, market(1, 500, FROM_US, step_ms=1000))
    fill(loader, ETH, market(2, 30, FROM_US, step_ms=1000))
    found = training_rows.row_counts(reader, None, 0)
    markets = training_rows.learning_rows(reader, found, 0, quoted_rows=100)
    assert {symbol: len(rows.end_us) for symbol, rows in markets.items()} == {BTC: 70, ETH: 30}
    assert np.ptp(markets[BTC].end_us) > 450 * SECOND_US


def test_memory_is_bounded_by_the_caps(loader: Connection, reader: Connection) -> None:
    fill(loader, BTC, market(1, 6000, FROM_US))  # 60,000 rows: 14 MB as numbers, far more as Python's
    found = training_rows.row_counts(reader, [BTC], 0)
    tracemalloc.start()
    try:
        rows = training_rows.learning_rows(reader, found, 0, quoted_rows=60_000)[BTC]
        _, all_of_them = tracemalloc.get_traced_memory()
        del rows
        tracemalloc.reset_peak()
        training_rows.learning_rows(reader, found, 0, quoted_rows=6000)
        _, a_tenth = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    values = 60_000 * (len(FEATURE_NAMES) + len(PATH_S) + 1) * 8
    assert all_of_them < 3 * values + 10_000_000  # in pieces, joined, in order; and one block from the cursor
    assert a_tenth < 0.3 * values + 10_000_000


def test_a_challenger_is_trained_of_rows_with_and_without_quotes(
    s3: Any, loader: Connection, train: Train
) -> None:
    fill(loader, BTC, market(1, 900, FROM_US, has_quotes=False, step_ms=1000), origin="rest")
    fill(loader, BTC, market(2, 600, FROM_US + 1000 * SECOND_US))
    fill(loader, ETH, market(3, 600, FROM_US + 1000 * SECOND_US))
    trained = train(symbols=[BTC], days=1, reason="test")
    card = trained["card"]
    assert (trained["promoted"], model_registry.active_model(s3, BUCKET)) == (False, None)
    assert card["data"]["markets"] == ["rest/BTCUSDT", "stream/BTCUSDT"]
    assert (card["data"]["from_us"], card["data"]["to_us"]) == (
        FROM_US + SECOND_US,
        FROM_US + 1600 * SECOND_US,
    )
    assert card["data"]["rows_used"] == card["data"]["rows_held"] == 6900
    assert card["data"]["share_of_rows_with_quotes"] == pytest.approx(6000 / 6900)
    assert card["rows_with_quotes"] == 6000
    # The newest 15 % of the time with quotes are left for the test.
    assert card["learned_to_us"] == pytest.approx(FROM_US + 1510 * SECOND_US, abs=2 * SECOND_US)
    assert 0.03 < card["test"]["1"]["skill"] < 0.1  # at delivery, when a part of the planted move is over
    assert set(card["distribution"]) == {BTC}
    for bins in card["distribution"][BTC].values():
        assert (len(bins["edges"]), sum(bins["shares"])) == (9, pytest.approx(1))
    assert set(card["distribution"][BTC]) <= set(card["support"])
    assert card["masked_calibration"] != card["calibration"]
    assert (card["parent"], card["provisional"], card["code"][:7]) == (None, True, "sha256:")
    page = page_of(s3, card["model_id"])
    for part in (card["model_id"], "Not evaluated", "rest/BTCUSDT, stream/BTCUSDT", "87.0%", "imbalance"):
        assert part in page
    assert train()["card"]["data"]["markets"] == ["rest/BTCUSDT", "stream/BTCUSDT", "stream/ETHUSDT"]


@pytest.mark.parametrize(
    ("request_", "error", "why"),
    [
        ({"symbols": "BTCUSDT"}, RequestError, "symbols should be a list"),
        ({"symbols": []}, RequestError, "symbols should be a list"),
        ({"days": 0}, RequestError, "days should be a whole number"),
        ({"days": True}, RequestError, "days should be a whole number"),
        ({"day": 1}, RequestError, "unknown: day;"),
        ({"prefixes": ["bronze/"]}, RequestError, "unknown: prefixes;"),
        ({"replace": "yes"}, RequestError, "a request should be like"),
        (
            {"symbols": ["DOGEUSDT"]},
            TrainingError,
            "no feature rows of DOGEUSDT for .*backfill first",
        ),
        ({"days": 3}, TrainingError, "no feature rows of any symbol of the last 3 days"),
    ],
)
def test_a_request_that_cannot_be_trained_says_why(
    train: Train, request_: dict[str, Any], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        train(**request_)


def test_the_loop_from_rows_to_the_active_model(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    """A model without skill is active; the market becomes predictable; the next model takes over."""
    fill(loader, BTC, market(1, 600, FROM_US, strength=0.0))
    first = train()["model_id"]
    activate(s3, first)
    watcher = ModelWatcher(s3, BUCKET, lambda: float(next(clock)), inline)
    clock = iter(range(0, 10**6, 10_000))
    model = watcher.current()
    assert model is not None and model.model_id == first
    fill(loader, BTC, market(2, 1200, FROM_US + 700 * SECOND_US))
    trained = train()
    assert trained["card"]["parent"] == first
    verdict = evaluate(trained["model_id"])
    assert (verdict["champion"], verdict["promote"], verdict["provisional"]) == (
        first,
        trained["model_id"],
        True,
    )
    assert verdict["reasons"][0] == "beats_champion"
    assert verdict["seconds"] == pytest.approx(270, abs=1)  # 15 % of the half hour with quotes
    assert promote_model(verdict, s3, BUCKET, NOW) == {
        "status": "promoted",
        "in_force": trained["model_id"],
        "challenger": None,
        "previous": first,
    }
    watcher.poll()
    model = watcher.current()
    assert model is not None and (model.model_id, model.provisional) == (trained["model_id"], True)
    card = model_registry.read_card(s3, BUCKET, trained["model_id"])
    assert card.gate is not None and card.gate.block is not None and card.gate.shadow is not None
    assert card.gate.champion == first
    assert (card.gate.block.from_us or 0) >= (card.learned_to_us or 0) > 0
    assert card.gate.figures["1"]["champion"].ci[0] > 0
    assert card.gate.shadow.left_out
    page = page_of(s3, trained["model_id"])
    assert "**Promoted**" in page and "skill against" in page


def test_a_proven_champion_is_replaced_on_half_a_day_of_rows_alone(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    fill(loader, BTC, market(1, 300, FROM_US, strength=0.0))
    activate(s3, train()["model_id"], provisional=False)
    fill(loader, BTC, market(2, 1200, FROM_US + 400 * SECOND_US))
    better = train()["model_id"]
    verdict = evaluate(better)
    assert (verdict["promote"], verdict["shadow"]) == (None, better)
    assert "champion_is_proven" in verdict["reasons"]
    moved = promote_model(verdict, s3, BUCKET, NOW)
    assert (moved["status"], moved["challenger"]) == ("kept", better)
    fill(loader, ETH, market(3, 13 * 3600, FROM_US + 1600 * SECOND_US, step_ms=2000))
    # Now there is half a day that neither was trained on: the one in shadow is evaluated with the next one.
    newest = train(symbols=[BTC])["model_id"]
    without_line(s3, better, newest)
    verdict = evaluate(newest)
    assert verdict["seconds"] >= 12 * 3600
    assert (verdict["promote"] is not None, verdict["provisional"]) == (True, True)
    promote_model(verdict, s3, BUCKET, NOW)
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and (pointer.provisional, pointer.challenger) == (True, None)


def test_a_challenger_is_evaluated_on_all_that_is_newer_than_itself_and_the_champion(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    """However new the other challenger is: the one in shadow gathers evidence night by night."""
    fill(loader, BTC, market(1, 600, FROM_US))
    activate(s3, train()["model_id"], provisional=False)
    in_shadow = train()["model_id"]
    model_registry.shadow(s3, BUCKET, in_shadow)
    fill(loader, BTC, market(2, 1200, FROM_US + 700 * SECOND_US))
    newest = train()["model_id"]
    evaluate(newest)
    cards = [model_registry.read_card(s3, BUCKET, each) for each in (in_shadow, newest)]
    seconds = [card.gate.block.seconds for card in cards if card.gate and card.gate.block]
    assert seconds[0] > 1200 and seconds[1] == pytest.approx(270, abs=3)


def test_a_champion_becomes_proven_on_days_that_it_was_not_trained_on(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    fill(loader, BTC, market(1, 1200, FROM_US))
    champion = train()["model_id"]
    without_line(s3, champion)
    activate(s3, champion)
    days = market(2, 3 * 86_400, FROM_US + 1300 * SECOND_US, step_ms=10_000)
    first, rest = days.chosen(slice(0, 8640)), days.chosen(slice(8640, None))
    fill(loader, BTC, first, last_trade_bp=0.3)
    challenger = train(days=2000)["model_id"]
    verdict = evaluate(challenger)
    assert verdict["proves_champion"] is False
    card = model_registry.read_card(s3, BUCKET, champion)
    assert card.proof is not None and "too_short_to_prove" in card.proof.reasons
    fill(loader, BTC, rest, last_trade_bp=0.3)
    verdict = evaluate(challenger)
    assert (verdict["promote"], verdict["proves_champion"]) == (None, True)
    promote_model(verdict, s3, BUCKET, NOW)
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and (pointer.model_id, pointer.provisional) == (champion, False)
    card = model_registry.read_card(s3, BUCKET, champion)
    assert (card.provisional, card.gate) == (False, None)
    assert card.proof is not None and card.proof.sentence.startswith("The champion is proven on 72.")
    assert evaluate(challenger)["proves_champion"] is False  # it is, already


@pytest.mark.slow
def test_a_refit_becomes_proven_although_each_night_trains_another(
    s3: Any, loader: Connection, reader: Connection, train: Train, evaluate: Evaluate
) -> None:
    """Its days count from the newest row that it was fitted on, and no night's training starts them again."""
    fill(loader, BTC, market(1, 1200, FROM_US))
    evaluated = train()["model_id"]
    activate(s3, evaluated)
    champion = refit_model(evaluated, s3, BUCKET, NOW - timedelta(hours=1), reader).model_id
    without_line(s3, champion)
    is_provisional = []
    for night in range(4):
        from_us = FROM_US + (1300 + night * 86_400) * SECOND_US
        fill(loader, BTC, market(2 + night, 86_400, from_us, step_ms=10_000), last_trade_bp=0.3)
        verdict = evaluate(train()["model_id"])
        promoted = promote_model(verdict, s3, BUCKET, NOW)
        assert (promoted["status"], promoted["in_force"]) == ("kept", champion), verdict["sentence"]
        pointer = model_registry.active_model(s3, BUCKET)
        assert pointer is not None
        is_provisional.append(pointer.provisional)
    assert is_provisional == [True, True, False, False]


@pytest.mark.slow
def test_once_a_model_is_in_force_there_is_always_one(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    """The first nights: train, evaluate, promote, each time with more of the same market."""
    at_s, in_force = 0, None
    for minutes, step_ms in ((10, 100), (50, 200), (120, 1000), (300, 2000), (960, 5000)):
        for number, symbol in enumerate(SYMBOLS):
            seed = at_s % 997 + number
            rows = market(seed, minutes * 60, FROM_US + at_s * SECOND_US, strength=0.3, step_ms=step_ms)
            fill(loader, symbol, rows)
        at_s += minutes * 60
        model_id = train()["model_id"]
        verdict = evaluate(model_id)
        promoted = promote_model(verdict, s3, BUCKET, NOW)
        if in_force or at_s >= 3600:
            assert promoted["in_force"] is not None, (at_s, verdict["reasons"])
        if in_force is not None and promoted["in_force"] != in_force:
            assert verdict["figures"]["champion"]["skill"] > 0  # only ever for a better one
        in_force = promoted["in_force"]
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and pointer.provisional  # a day proves nothing


def test_the_active_model_is_refitted_on_the_newest_rows(
    s3: Any, loader: Connection, reader: Connection, train: Train
) -> None:
    """By what was chosen for the evaluated one, which its card names and a rollback leads to."""
    fill(loader, BTC, market(1, 600, FROM_US))
    evaluated = train()
    activate(s3, evaluated["model_id"], provisional=False)
    fill(loader, BTC, market(2, 300, FROM_US + 600 * SECOND_US))
    found = refit_model(evaluated["model_id"], s3, BUCKET, NOW + timedelta(hours=1), reader)
    assert (found.promoted, found.why) == (True, None)
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and (pointer.model_id, pointer.provisional) == (found.model_id, False)
    before, after = (
        model_registry.read_card(s3, BUCKET, each) for each in (evaluated["model_id"], found.model_id)
    )
    assert (after.refit_of, after.parent) == (before.model_id, before.model_id)
    assert after.learned_to_us == FROM_US + 900 * SECOND_US + GAP_US > (before.learned_to_us or 0)
    assert (after.epochs, after.calibration, after.test) == (before.epochs, before.calibration, before.test)
    assert after.rows == 9000 and after.refit_agreement is not None and after.refit_agreement > 0.9
    body = s3.get_object(Bucket=BUCKET, Key=f"models/{found.model_id}/card.md")["Body"].read().decode()
    assert f"of the evaluated model {before.model_id}" in body
    again = refit_model(found.model_id, s3, BUCKET, NOW + timedelta(hours=2), reader)
    assert (again.promoted, again.why) == (False, "not refitted: it is a refit itself")
    outdated = refit_model(evaluated["model_id"], s3, BUCKET, NOW + timedelta(hours=2), reader)
    assert outdated.why == "not refitted: it is not the active model any more"
    assert model_registry.roll_back(s3, BUCKET, NOW.isoformat()).model_id == before.model_id


def test_no_training_replaces_a_model_that_is_held(
    s3: Any, loader: Connection, reader: Connection, train: Train
) -> None:
    fill(loader, BTC, market(1, 600, FROM_US))
    first = train(replace=True)
    assert (first["promoted"], first["why"]) == (True, None)
    model_registry.hold(s3, BUCKET, LIFTED)
    other = train(replace=True)
    assert other["promoted"] is False
    assert f"not made active: model {first['model_id']} is held until lifted" in other["why"]
    fill(loader, BTC, market(2, 300, FROM_US + 600 * SECOND_US))
    refitted = refit_model(first["model_id"], s3, BUCKET, NOW + timedelta(hours=1), reader)
    assert not refitted.promoted and "is held until lifted" in (refitted.why or "")
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and pointer.model_id == first["model_id"]


def test_a_champion_that_is_held_is_evaluated_although_another_passed(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    fill(loader, BTC, market(1, 600, FROM_US, strength=0.0))
    champion = train()["model_id"]
    activate(s3, champion)
    fill(loader, BTC, market(2, 1200, FROM_US + 700 * SECOND_US))
    better = train()["model_id"]
    assert evaluate(better)["promote"] == better
    assert model_registry.read_card(s3, BUCKET, champion).proof is None
    model_registry.hold(s3, BUCKET, LIFTED)
    verdict = evaluate(better)
    assert verdict["promote"] == better
    assert model_registry.read_card(s3, BUCKET, champion).proof is not None
    answer = promote_model(verdict, s3, BUCKET, NOW)
    assert (answer["status"], answer["challenger"]) == ("held", better)
    gate = model_registry.read_card(s3, BUCKET, better).gate
    assert gate is not None and (gate.passed, gate.promoted, gate.held) == (True, False, True)
    assert "**Not promoted because the champion is held; runs in shadow**" in page_of(s3, better)


def test_models_are_compared_with_what_the_perpetual_adds(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    """As they serve: weights on a card that correct wrongly cost it the comparison."""
    rows = market(1, 900, FROM_US)
    rows.features[:, FEATURE_NAMES.index("has_reference")] = 1.0
    fill(loader, BTC, rows)
    trained = train()["model_id"]
    before = evaluate(trained)["figures"]["no_change"]["skill"]
    card = model_registry.card_document(s3, BUCKET, trained)
    wrong = {"usual_sigma_bp": 1.0, "weights": [[-0.5] * len(PATH_S)] * 3}
    model_registry.save_card(s3, BUCKET, card | {"reference": {BTC: wrong}})
    assert evaluate(trained)["figures"]["no_change"]["skill"] < before - 0.05


def test_a_refit_that_forecasts_something_else_is_not_served(
    s3: Any, loader: Connection, reader: Connection, train: Train
) -> None:
    fill(loader, BTC, market(1, 300, FROM_US))
    evaluated = train()["model_id"]
    activate(s3, evaluated)
    fill(loader, BTC, market(2, 3000, FROM_US + 300 * SECOND_US, strength=-0.6))
    found = refit_model(evaluated, s3, BUCKET, NOW, reader)
    assert not found.promoted and "the refit's moves correlate by" in (found.why or "")
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and pointer.model_id == evaluated


def test_without_newer_rows_nothing_is_fitted(
    s3: Any, loader: Connection, reader: Connection, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(loader, BTC, market(1, 300, FROM_US))
    card = train()["card"]
    model_registry.save_card(s3, BUCKET, card | {"learned_to_us": FROM_US + 300 * SECOND_US})
    activate(s3, card["model_id"])
    monkeypatch.delattr("tickcast.functions.refit_model.refit")
    found = refit_model(card["model_id"], s3, BUCKET, NOW, reader)
    assert (found.promoted, found.why) == (False, "not refitted: there are no rows that it was not fitted on")


def test_a_worse_model_is_not_promoted_and_its_card_says_why(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    fill(loader, BTC, market(1, 1200, FROM_US))
    activate(s3, train()["model_id"])
    fill(loader, ETH, market(2, 1500, FROM_US, strength=0.0), last_trade_bp=0.1)
    worse = train(symbols=[ETH])["model_id"]
    fill(loader, BTC, market(3, 400, FROM_US + 1500 * SECOND_US))
    verdict = evaluate(worse)
    assert verdict["promote"] is None
    assert "not_above_champion" in verdict["reasons"]
    gate = model_registry.read_card(s3, BUCKET, worse).gate
    assert gate is not None
    assert (gate.promoted, gate.reasons) == (False, verdict["reasons"])
    assert gate.sentence.startswith("Champion kept: ")


def test_a_champion_with_an_odd_card_is_compared_with_or_named(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    fill(loader, BTC, market(1, 600, FROM_US))
    first = train()["model_id"]
    activate(s3, first)
    fill(loader, BTC, market(2, 600, FROM_US + 700 * SECOND_US))
    trained = train()["model_id"]
    card = model_registry.card_document(s3, BUCKET, first)
    model_registry.save_card(s3, BUCKET, card | {"epochs": "many", "reason": None, "line": None})
    assert "champion" in evaluate(trained)["figures"]
    model_registry.save_card(s3, BUCKET, card | {"learned_to_us": "now"})
    with pytest.raises(RegistryError, match=f"learned_to_us on the card of model {first} is 'now'"):
        evaluate(trained)


def test_simulated_rows_and_rows_without_quotes_decide_nothing(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    fill(loader, BTC, market(1, 900, FROM_US))
    trained = train()["model_id"]
    fill(
        loader, ETH, market(2, 7200, FROM_US + 900 * SECOND_US, has_quotes=False, step_ms=1000), origin="rest"
    )
    assert evaluate(trained)["seconds"] < 200  # rows without quotes decide nothing
    fill(loader, ETH, market(3, 4000, FROM_US + 9000 * SECOND_US), origin="sim")
    assert evaluate(trained)["seconds"] < 200  # nor do simulated ones, where there are real ones
    loader.execute("delete from tickcast.feature_blocks where origin = 'stream'")
    verdict = evaluate(trained)  # REST is no evidence of a real market: a simulated exchange has one too
    assert verdict["seconds"] > 3900
    assert (verdict["promote"], verdict["provisional"]) == (trained, True)
    fill(loader, BTC, market(4, 600, FROM_US + 20_000 * SECOND_US), origin="replay")
    card = train()["card"]
    assert card["data"]["markets"] == ["replay/BTCUSDT", "rest/ETHUSDT"]
    assert card["data"]["rows_used"] == 6000 + 7200


def test_a_request_that_cannot_be_evaluated_says_why(
    s3: Any, loader: Connection, train: Train, evaluate: Evaluate
) -> None:
    with pytest.raises(RequestError, match="model_id should name a model"):
        evaluate("")
    with pytest.raises(model_registry.RegistryError, match="there is no model 'm9'"):
        evaluate("m9")
    fill(loader, BTC, market(1, 600, FROM_US))
    trained = train()["model_id"]
    activate(s3, trained)
    with pytest.raises(RequestError, match="is active already"):
        evaluate(trained)
    again = train()
    assert evaluate(again["model_id"])["reasons"] == ["too_few_rows"]
