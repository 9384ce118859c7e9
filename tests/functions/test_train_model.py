"""Training as a function: from bronze files to a model in force."""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from local.system.seed import seed_bronze
from tests.fixtures.aws import BUCKET
from tests.fixtures.market import START_US, batch, random_ticks
from tests.fixtures.recordings import CAPTURED
from tickcast.adapters.lake import bronze
from tickcast.adapters.registry import model_registry, model_watcher
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions.train_model import RequestError, train_model
from tickcast.model.training import TrainingError

pytestmark = pytest.mark.slow  # all of it together

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def put(s3: Any, key: str, seed: int, seconds: float, shift_us: int = 0) -> None:
    trades, quotes = random_ticks(seed, seconds)
    for rows, ids in ((trades, ("first_id", "last_id")), (quotes, ("update_id",))):
        for name in ("time_us", *ids):
            rows[name] += shift_us
    s3.put_object(Bucket=BUCKET, Key=key, Body=bronze.write_file(bronze.market_data(batch(trades, quotes))))


def test_the_simulator_s_past_trains_a_model_that_serves(s3: Any) -> None:
    prefixes = seed_bronze(s3, BUCKET, ["BTCUSDT"], 7, START_US, 400, [])
    trained = train_model(
        {"prefixes": prefixes, "provisional": True, "reason": "first start"}, s3, BUCKET, NOW
    )
    card = json.loads(
        s3.get_object(Bucket=BUCKET, Key=f"models/{trained['model_id']}/card.json")["Body"].read()
    )
    assert card == trained["card"]
    assert card["data"]["markets"] == ["sim/BTCUSDT"]
    assert card["data"]["share_of_bars_with_quotes"] > 0.99
    assert (card["provisional"], card["reason"]) == (True, "first start")
    assert card["test"]["1"]["direction"] > 0.6  # the simulated book does foretell moves
    assert card["rows_with_quotes"] == card["rows"] > 3000
    assert card["masked_calibration"].keys() == card["calibration"].keys() == {"1", "2", "5", "10"}
    assert set(card["distribution"]) == {market.partition("/")[2] for market in card["data"]["markets"]}
    assert set(card["network"]["inputs"]["odd"]) <= card["support"].keys() <= set(FEATURE_NAMES)
    assert card["learned_to_us"] < card["data"]["to_us"]  # the newest rows are left for the test
    follower = ModelWatcher(s3, BUCKET, lambda: 0.0)
    model = follower.current()
    assert model is not None, follower.problem
    assert (model.model_id, model.provisional) == (trained["model_id"], True)
    move_bp, _, _ = model.run(np.ones((1, len(FEATURE_NAMES))))
    assert np.isfinite(move_bp).all()


def test_an_hour_s_silence_is_not_looked_across(s3: Any) -> None:
    put(s3, "bronze/a.avro", 1, 240)
    put(s3, "bronze/b.avro", 2, 240, shift_us=3600 * 1_000_000)
    trained = train_model({"prefixes": ["bronze/"]}, s3, BUCKET, NOW)
    # Each stretch loses its warm-up of 10 s and the longest horizon of 10 s, nothing in between counts.
    assert 2 * 2150 <= trained["rows"] <= 2 * 2210


def test_ticks_that_are_stored_twice_count_once(s3: Any) -> None:
    put(s3, "bronze/a.avro", 1, 240)
    once = train_model({"prefixes": ["bronze/a"]}, s3, BUCKET, NOW)
    put(s3, "bronze/b.avro", 1, 240)
    twice = train_model({"prefixes": ["bronze/"]}, s3, BUCKET, NOW)
    assert once["model_id"] == twice["model_id"]  # the id carries the hash of the weights


def test_a_first_model_displaces_nothing_that_serves(s3: Any) -> None:
    def in_force() -> str:
        pointer = model_registry.active_model(s3, BUCKET)
        assert pointer is not None
        return str(pointer["model_id"])

    put(s3, "bronze/a.avro", 1, 240)
    put(s3, "bronze/b.avro", 2, 240, shift_us=3600 * 1_000_000)
    first = train_model({"prefixes": ["bronze/a"]}, s3, BUCKET, NOW)
    second = train_model({"prefixes": ["bronze/b"]}, s3, BUCKET, NOW)
    assert (second["promoted"], in_force()) == (False, first["model_id"])
    asked = train_model({"prefixes": ["bronze/b"], "replace": True}, s3, BUCKET, NOW)
    assert (asked["promoted"], in_force()) == (True, second["model_id"])
    card = model_registry.read_card(s3, BUCKET, in_force()) | {"feature_hash": "of-another-code"}
    model_registry.save_card(s3, BUCKET, in_force(), card)
    assert train_model({"prefixes": ["bronze/a"]}, s3, BUCKET, NOW)["promoted"] is True  # nothing serves


@pytest.mark.parametrize(
    "request_body", [{}, {"prefixes": "bronze/"}, {"prefixes": ["models/"]}, {"prefixes": [1]}]
)
def test_a_request_without_bronze_prefixes_is_refused(s3: Any, request_body: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="prefixes should be a list like"):
        train_model(request_body, s3, BUCKET, NOW)


def test_nothing_to_train_on_is_named_and_the_pointer_stays(s3: Any) -> None:
    with pytest.raises(TrainingError, match="no ticks in bronze under bronze/none/"):
        train_model({"prefixes": ["bronze/none/"]}, s3, BUCKET, NOW)
    put(s3, "bronze/a.avro", 1, 60)
    with pytest.raises(TrainingError, match="usable rows, training needs"):
        train_model({"prefixes": ["bronze/"]}, s3, BUCKET, NOW)
    s3.put_object(Bucket=BUCKET, Key="bronze/c.avro", Body=b"damaged")
    with pytest.raises(bronze.BronzeError, match="bronze/c.avro"):
        train_model({"prefixes": ["bronze/"]}, s3, BUCKET, NOW)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=model_watcher.POINTER)


def test_recordings_are_a_history_of_their_own_source(s3: Any) -> None:
    prefixes = seed_bronze(s3, BUCKET, ["XRPUSDT"], 7, START_US, 60, list(CAPTURED.values()))
    assert prefixes == [
        f"bronze/source=replay/symbol={symbol}/date=2024-08-08/hour=23/history-" for symbol in CAPTURED
    ]
    trained = train_model({"prefixes": prefixes}, s3, BUCKET, NOW)
    assert trained["rows"] > 1000
