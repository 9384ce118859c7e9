"""A first model: from bronze into a real PostgreSQL, from there to the active model. S3 is moto's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
import pytest
from msgspec.structs import replace

from local.system.seed import load_requests, seed_bronze
from tests.fixtures.aws import BUCKET
from tests.fixtures.history_tables import SYMBOL, put_hours
from tests.fixtures.market import START_US, random_ticks
from tests.fixtures.recordings import CAPTURED
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.postgres.history_store import OpenStore
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.registry.pointer import POINTER
from tickcast.adapters.registry.served_symbols import change_served
from tickcast.adapters.settings import DatabaseSettings, HistorySettings
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions.load_history import Loaded, LoadHistory
from tickcast.functions.train_model import TrainedModel, train_model
from tickcast.market.ticks import Quotes, Trades
from tickcast.model.dataset import LABEL_VERSION, ROW_HASH
from tickcast.model.forecast import PATH_S
from tickcast.model.training import TrainingError
from tickcast.units import HOUR_US

pytestmark = [pytest.mark.integration, pytest.mark.slow]  # all of it together

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Train = Callable[..., TrainedModel]
Load = Callable[[dict[str, Any]], Loaded]


@pytest.fixture
def load(s3: Any, history_database: Database) -> Load:
    return load_into(history_database, s3)


def load_into(database: Database, s3: Any) -> Load:
    settings = HistorySettings(keep_days=0, grid_ms=1000, quoted_grid_ms=100, trades_keep_days=3)
    loader = LoadHistory(settings, s3, BUCKET, OpenStore(database), lambda: START_US)
    return lambda request: loader(request, lambda: 1e9)


@pytest.fixture
def train(s3: Any, loader_settings: DatabaseSettings) -> Iterator[Train]:
    with Database(replace(loader_settings, user="tickcast_reader")) as database:
        yield lambda **request: train_model(request, s3, BUCKET, NOW, database.connection())


def load_ticks(s3: Any, load: Load, trades: Trades, quotes: Quotes, name: str = "part") -> None:
    keys = put_hours(s3, trades, quotes, name=name)
    times_us = np.concatenate([trades["time_us"], quotes["time_us"]])
    window = {"symbol": SYMBOL, "from_us": int(times_us.min()), "to_us": int(times_us.max()) + 1}
    load({"window": window, "keys": keys})


def later(ticks: tuple[Trades, Quotes], shift_us: int) -> tuple[Trades, Quotes]:
    for rows, ids in zip(ticks, (("first_id", "last_id"), ("update_id",)), strict=True):
        for name in ("time_us", *ids):
            rows[name] += shift_us
    return ticks


def test_the_simulator_s_past_trains_a_model_that_serves(s3: Any, load: Load, train: Train) -> None:
    objects = seed_bronze(s3, BUCKET, [SYMBOL], 7, START_US, 400, [])
    for request in load_requests(objects).values():
        loaded = load(request)
        assert loaded.complete and not loaded.quarantined and not loaded.problems
    trained = train(symbols=[SYMBOL], provisional=True, reason="first start", replace=True)
    card = json.loads(s3.get_object(Bucket=BUCKET, Key=f"models/{trained.model_id}/card.json")["Body"].read())
    assert card == json.loads(json.dumps(trained.card))
    assert card["data"]["markets"] == ["sim/BTCUSDT"]
    assert card["data"]["share_of_rows_with_quotes"] > 0.99
    assert card["label_version"] == LABEL_VERSION
    assert card["path_s"] == list(PATH_S)
    assert (card["provisional"], card["reason"]) == (True, "first start")
    assert card["test"]["1"]["direction"] > 0.6  # the simulated book does predict moves
    assert card["rows_with_quotes"] == card["rows"] > 3000
    assert card["masked_calibration"].keys() == card["calibration"].keys() == {"1", "2", "5", "10"}
    assert set(card["distribution"]) == {market.partition("/")[2] for market in card["data"]["markets"]}
    assert set(card["network"]["inputs"]["odd"]) <= card["support"].keys() <= set(FEATURE_NAMES)
    assert card["learned_to_us"] < card["data"]["to_us"]  # the newest rows are left for the test
    watcher = ModelWatcher(s3, BUCKET, lambda: 0.0)
    model = watcher.current()
    assert model is not None, watcher.problem
    assert (model.model_id, model.provisional) == (trained.model_id, True)
    move_bp, _, _ = model.run(np.ones((1, len(FEATURE_NAMES))))
    assert np.isfinite(move_bp).all()


def test_labels_do_not_reach_across_an_hour_of_silence(s3: Any, load: Load, train: Train) -> None:
    load_ticks(s3, load, *random_ticks(1, 240))
    load_ticks(s3, load, *later(random_ticks(2, 240), HOUR_US))
    # Each segment loses its warm-up of 10 s and a path of 15 s, nothing in between counts.
    assert 2 * 2100 <= train().rows <= 2 * 2160


def test_ticks_that_are_stored_twice_count_once(s3: Any, load: Load, train: Train) -> None:
    load_ticks(s3, load, *random_ticks(1, 240), name="a")
    once = train()
    load_ticks(s3, load, *random_ticks(1, 240), name="b")
    assert once.model_id == train().model_id  # the id has the hash of the weights


def test_only_a_request_to_replace_activates_a_model(s3: Any, load: Load, train: Train) -> None:
    load_ticks(s3, load, *random_ticks(1, 240))
    assert train().promoted is False
    assert model_registry.active_model(s3, BUCKET) is None
    first = train(replace=True)
    load_ticks(s3, load, *later(random_ticks(2, 240), HOUR_US))
    assert train().promoted is False
    pointer = model_registry.active_model(s3, BUCKET)
    assert first.promoted and pointer is not None and pointer.model_id == first.model_id
    second = train(replace=True)
    pointer = model_registry.active_model(s3, BUCKET)
    assert pointer is not None and pointer.model_id == second.model_id != first.model_id


def test_without_rows_training_is_refused_and_the_pointer_stays(s3: Any, load: Load, train: Train) -> None:
    with pytest.raises(TrainingError, match="no feature rows of any symbol"):
        train(replace=True)
    load_ticks(s3, load, *random_ticks(1, 60))
    with pytest.raises(TrainingError, match="usable rows, training needs"):
        train(replace=True)
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix=POINTER)


def test_it_trains_on_what_is_served_unless_symbols_are_named(s3: Any, load: Load, train: Train) -> None:
    change_served(s3, BUCKET, ["BTCUSDT"], lambda served: ["SOLUSDT"], since="2026-01-01", by="me")
    load_ticks(s3, load, *random_ticks(1, 60))
    with pytest.raises(TrainingError, match="no feature rows of SOLUSDT"):
        train()
    with pytest.raises(TrainingError, match="usable rows, training needs"):
        train(symbols=["BTCUSDT"])


def test_rows_of_another_label_definition_are_never_mixed_in(
    s3: Any, load: Load, train: Train, owner: psycopg.Connection[Any], loader_settings: DatabaseSettings
) -> None:
    """Stored before the definition changed: there, but of another set of features and labels."""
    load_ticks(s3, load, *random_ticks(1, 240))
    rows = train().rows
    owner.execute("update tickcast.feature_sets set feature_hash = 'of an older definition'")
    [(others,)] = owner.execute("select sum(feature_rows) from tickcast.feature_blocks")
    left_aside = f"{others} rows of an earlier definition are left aside: docs/runbook.md"
    with pytest.raises(TrainingError, match=f"features and labels {ROW_HASH}: {left_aside}"):
        train()
    # What is loaded next belongs to a set of its own, and is trained on alone.
    with Database(loader_settings) as database:
        load_ticks(s3, load_into(database, s3), *later(random_ticks(2, 240), HOUR_US))
    counts = owner.execute("select count(*) from tickcast.feature_blocks group by feature_set").fetchall()
    assert len(counts) == 2
    assert abs(train().rows - rows) < 60


def test_recordings_are_a_history_of_their_own_source(s3: Any, load: Load, train: Train) -> None:
    objects = seed_bronze(s3, BUCKET, ["XRPUSDT"], 7, START_US, 60, list(CAPTURED.values()))
    assert {each.key.rpartition("/")[0] for each in objects} == {
        f"bronze/source=replay/symbol={symbol}/date=2024-08-08/hour=23" for symbol in CAPTURED
    }
    for request in load_requests(objects).values():
        assert load(request).complete
    trained = train(replace=True)
    assert trained.rows > 1000
    assert trained.card["data"]["markets"] == sorted(f"replay/{symbol}" for symbol in CAPTURED)
