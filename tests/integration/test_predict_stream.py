"""The hot path against a real Redis: features, predictions, and the fence. S3 is moto's."""

import json
from dataclasses import replace
from typing import Any

import boto3
import numpy as np
import pytest
import redis
from botocore.config import Config

from tests.aws import BUCKET
from tests.kinesis_events import FIRST_SEQUENCE, batch_event, event, record
from tests.market import START_US, batch, batches, random_ticks
from tests.unit.test_model import random_network
from tickcast import wire
from tickcast.adapters import model_store
from tickcast.adapters.hot_store import HotStore, Writes
from tickcast.adapters.model_store import ModelFollower
from tickcast.adapters.onnx_model import export
from tickcast.adapters.predict_stream import PredictStream
from tickcast.adapters.redis_connection import connect
from tickcast.adapters.schema_book import SchemaBook
from tickcast.adapters.settings import Settings
from tickcast.bars import BarRing
from tickcast.features import FEATURE_HASH, FEATURE_NAMES, feature_rows
from tickcast.model import HORIZONS_S
from tickcast.state import SymbolState, encode_ring

SETTINGS = Settings.from_environment({"ENVIRONMENT": "test", "BUCKET": BUCKET, "SYMBOLS": "BTCUSDT,ETHUSDT"})
CARD = {
    "model_id": "m1",
    "provisional": True,
    "feature_hash": FEATURE_HASH,
    "calibration": {str(h): {"direction_slope": 2.0, "interval_width": 1.0} for h in HORIZONS_S},
}
NETWORK = random_network(1)


class Clock:
    """A clock that stands where it is put, µs precision in ms."""

    def __init__(self) -> None:
        self.ms = START_US / 1000

    def __call__(self) -> float:
        return self.ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def predict(redis_client: redis.Redis, s3: Any, clock: Clock) -> PredictStream:
    store = HotStore(redis_client, SETTINGS.lateness_us)
    return PredictStream(SETTINGS, store, ModelFollower(s3, BUCKET, clock), SchemaBook(s3, BUCKET), s3, clock)


def put_model(s3: Any, model_id: str = "m1", **card: Any) -> None:
    model_store.save(s3, BUCKET, model_id, export(NETWORK), CARD | {"model_id": model_id} | card)
    model_store.promote(s3, BUCKET, model_id, "2026-01-01T00:00:00+00:00")


def ticks_in(seconds: int, piece_us: int = 100_000, seed: int = 1) -> list[wire.TickBatch]:
    return list(
        batches(*random_ticks(seed, seconds), [START_US + t for t in range(0, seconds * 10**6, piece_us)])
    )


def stored(client: redis.Redis, key: str) -> dict[str, Any]:
    text = client.get(key)
    assert text is not None, key
    return json.loads(text)


def test_features_and_predictions_of_each_second(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    put_model(s3)
    stream = ticks_in(20)
    outcomes = [predict(batch_event(n, piece)) for n, piece in enumerate(stream)]
    predictions = [p for outcome in outcomes for p in outcome.predictions]
    assert [p["timestamp"] for p in predictions] == [START_US // 1000 + 1000 * k for k in range(1, 20)]
    assert {p["reason"] for p in predictions[:9]} == {"warming_up"}
    assert {p["source"] for p in predictions[11:]} == {"model"}

    newest = predictions[-1]
    second = newest["timestamp"] // 1000
    features = stored(redis_client, f"features:BTCUSDT:{second}")
    assert {"price", "volume", "vwap", "price_change", "timestamp"} <= features.keys()
    assert 0 < redis_client.ttl(f"features:BTCUSDT:{second}") <= 60
    assert stored(redis_client, "features:BTCUSDT:latest") == features
    assert stored(redis_client, "prediction:BTCUSDT:latest") == newest
    assert redis_client.xlen("predictions:BTCUSDT") == 19

    ring = BarRing(SETTINGS.lateness_us)
    for piece in stream:
        for instant_us in ring.fold(piece, 1_000_000):
            if instant_us == newest["timestamp"] * 1000:
                vector = feature_rows(ring.bars, 1)
    assert list(features["features"].values()) == vector[0].tolist()
    move_bp, _, _ = NETWORK.forward(vector)
    at = HORIZONS_S.index(SETTINGS.primary_horizon_s)
    assert newest["expected_move_bp"] == pytest.approx(move_bp[0, at], rel=1e-4)
    assert newest["predicted_price"] == pytest.approx(newest["basis_price"] * (1 + move_bp[0, at] / 1e4))
    assert newest["basis_price"] == features["mid"]
    assert newest["target_time"] == newest["timestamp"] + 2000
    assert newest["horizons"].keys() == {"1", "2", "5", "10"}


def test_price_volume_and_vwap_are_what_was_traded(predict: PredictStream, redis_client: redis.Redis) -> None:
    trades, quotes = random_ticks(2, 12)
    predict(batch_event(0, batch(trades, quotes, START_US + 13_000_000)))
    features = stored(redis_client, "features:BTCUSDT:latest")
    prices, volumes = trades["price"] / 1e8, trades["qty"] / 1e8
    assert features["price"] == prices[-1]
    assert features["volume"] == pytest.approx(volumes.sum(), rel=1e-12)
    assert features["vwap"] == pytest.approx((prices * volumes).sum() / volumes.sum(), rel=1e-9)
    assert features["trade_count"] == len(trades)
    assert features["last_trade_id"] == int(trades["last_id"][-1])


def test_without_a_model_it_falls_back_and_says_so(predict: PredictStream, redis_client: redis.Redis) -> None:
    predict(batch_event(0, *ticks_in(15)))
    prediction = stored(redis_client, "prediction:BTCUSDT:latest")
    assert (prediction["source"], prediction["reason"]) == ("fallback", "no_model")
    assert (prediction["confidence"], prediction["model_id"]) == (0.0, None)
    assert prediction["predicted_price"] == stored(redis_client, "features:BTCUSDT:latest")["mid"]


def test_trades_alone_are_no_ground_for_a_prediction(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    put_model(s3)
    trades, quotes = random_ticks(1, 15)
    predict(batch_event(0, batch(trades, quotes[:0])))
    prediction = stored(redis_client, "prediction:BTCUSDT:latest")
    assert (prediction["source"], prediction["reason"]) == ("fallback", "no_quotes")
    assert prediction["basis_price"] == stored(redis_client, "features:BTCUSDT:latest")["price"]


def test_a_repeated_event_changes_nothing(predict: PredictStream, redis_client: redis.Redis) -> None:
    event = batch_event(0, *ticks_in(15))
    predict(event)
    before = redis_client.hgetall("state:BTCUSDT"), redis_client.xlen("predictions:BTCUSDT")
    outcome = predict(event)
    assert (redis_client.hgetall("state:BTCUSDT"), redis_client.xlen("predictions:BTCUSDT")) == before
    assert outcome.repeated == outcome.records
    assert outcome.predictions == []


def test_overlapping_events_give_what_one_pass_gives(
    predict: PredictStream, redis_client: redis.Redis
) -> None:
    """Lambda's retry after a partial failure delivers later records again, in other groups."""
    stream = ticks_in(15)
    for start, stop in ((0, 60), (30, 90), (0, 90), (80, 150)):
        predict(batch_event(start, *stream[start:stop]))
    ring = BarRing(SETTINGS.lateness_us)
    for piece in stream:
        list(ring.fold(piece, 1_000_000))
    state = redis_client.hgetall("state:BTCUSDT")
    ring.late_ids = []
    assert state[b"ring"] == encode_ring(ring)
    assert int(state[b"sequence"]) == FIRST_SEQUENCE + len(stream) - 1
    assert redis_client.xlen("predictions:BTCUSDT") == 14


def test_of_two_invocations_at_once_one_loses_cleanly(redis_client: redis.Redis) -> None:
    store = HotStore(redis_client, SETTINGS.lateness_us)
    states, _ = store.load(["BTCUSDT"])
    winner, loser = states["BTCUSDT"], SymbolState("BTCUSDT", BarRing(0, late_trades=99))
    winner.sequence, loser.sequence = 5, 6
    writes = Writes()
    writes.prediction({"symbol": "BTCUSDT", "of": "the loser"})
    assert store.commit(winner, 0, Writes())
    assert not store.commit(loser, 0, writes)
    again, problems = store.load(["BTCUSDT"])
    assert (again["BTCUSDT"].sequence, again["BTCUSDT"].ring.late_trades, problems) == (5, 0, [])
    assert redis_client.get("prediction:BTCUSDT:latest") is None


def test_a_commit_whose_answer_was_lost_is_done_when_sent_again(redis_client: redis.Redis) -> None:
    store, writes = HotStore(redis_client, SETTINGS.lateness_us), Writes()
    writes.prediction({"symbol": "BTCUSDT"})
    state = SymbolState("BTCUSDT", BarRing(0), sequence=5)
    assert store.commit(state, 0, writes)
    assert store.commit(state, 0, writes)
    assert redis_client.xlen("predictions:BTCUSDT") == 1


def test_symbols_do_not_touch_each_other(predict: PredictStream, redis_client: redis.Redis) -> None:
    btc = ticks_in(12, seed=1)
    eth = [piece._replace(symbol="ETHUSDT") for piece in ticks_in(12, seed=2)]
    mixed = [piece for pair in zip(btc, eth, strict=True) for piece in pair]
    predict(batch_event(0, *mixed))
    together = redis_client.hget("state:ETHUSDT", "ring")
    redis_client.flushall()
    predict(batch_event(0, *eth))
    assert redis_client.hget("state:ETHUSDT", "ring") == together


def test_bad_records_go_to_quarantine_and_hold_up_nothing(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    good = [record(n, wire.encode(piece)) for n, piece in enumerate(ticks_in(5))]
    half = wire.encode(ticks_in(1)[0])[:-20]
    stranger = wire.encode(ticks_in(1)[0]._replace(symbol="DOGEUSDT"))
    bad = [record(20, b"garbage"), record(21, half), record(22, stranger)]
    outcome = predict(event(*good[:20], *bad, *good[23:]))
    assert len(outcome.quarantined) == 3
    assert redis_client.xlen("predictions:BTCUSDT") == 4
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="quarantine/")["Contents"]]
    assert len(keys) == 6  # the bytes and the reason of each
    reasons = [
        json.loads(s3.get_object(Bucket=BUCKET, Key=k)["Body"].read())["reason"]
        for k in keys
        if k.endswith("json")
    ]
    assert any("not an Avro single object" in reason for reason in reasons)
    assert any("truncated" in reason for reason in reasons)
    assert any("'DOGEUSDT' is not one of" in reason for reason in reasons)


def test_the_gap_ledger_stands_beside_the_predictions(
    predict: PredictStream, redis_client: redis.Redis
) -> None:
    trades, quotes = random_ticks(1, 6)
    lost = wire.Notice("reset by peer", int(trades["time_us"][19]), int(trades["time_us"][22]))
    outcome = predict(batch_event(0, batch(np.delete(trades, [20, 21]), quotes)._replace(notices=(lost,))))
    assert outcome.missing_trades == {"BTCUSDT": 2}
    ledger = stored(redis_client, "gaps:BTCUSDT")
    assert ledger["missing_trades"] == 2
    (gap,) = ledger["gaps"]
    assert (gap["trades"], gap["cause"]) == (2, "reset by peer")
    assert (gap["first_id"], gap["last_id"]) == tuple(trades["first_id"][[20, 21]].tolist())
    assert redis_client.ttl("gaps:BTCUSDT") > 23 * 3600
    assert stored(redis_client, "heartbeat:predict_stream:BTCUSDT")["missing_trades"] == 2


def test_an_old_state_version_is_warmed_up_anew_and_said(
    predict: PredictStream, redis_client: redis.Redis
) -> None:
    predict(batch_event(0, *ticks_in(5)))
    data = redis_client.hget("state:BTCUSDT", "ring").replace(b'"version": 1', b'"version": 0')
    redis_client.hset("state:BTCUSDT", "ring", data)
    outcome = predict(batch_event(100, *ticks_in(12)[60:]))
    assert any("state of version 0" in problem for problem in outcome.problems)
    assert outcome.predictions


def test_redis_out_of_reach_fails_the_invocation(s3: Any, clock: Clock) -> None:
    store = HotStore(connect(replace(SETTINGS, redis_host="127.0.0.1", redis_port=1)), SETTINGS.lateness_us)
    predict = PredictStream(
        SETTINGS, store, ModelFollower(s3, BUCKET, clock), SchemaBook(s3, BUCKET), s3, clock
    )
    with pytest.raises(redis.ConnectionError):
        predict(batch_event(0, *ticks_in(1)))


def test_the_pointer_is_followed_and_a_misfit_refused(predict: PredictStream, s3: Any, clock: Clock) -> None:
    stream = ticks_in(40)

    def predicted(start: int, stop: int) -> dict[str, Any]:
        clock.ms += 5000
        return predict(batch_event(start, *stream[start:stop])).predictions[-1]

    put_model(s3, "m1")
    assert predicted(0, 150)["model_id"] == "m1"
    put_model(s3, "m2", provisional=False)
    newer = predicted(150, 200)
    assert (newer["model_id"], newer["provisional"]) == ("m2", False)
    put_model(s3, "m3", feature_hash="of-another-code")
    assert predicted(200, 250)["model_id"] == "m2"
    assert "of-another-code" in str(predict.models.problem)
    s3.put_object(Bucket=BUCKET, Key=model_store.POINTER, Body=b"{not json")
    assert predicted(250, 300)["model_id"] == "m2"
    put_model(s3, "m4")
    assert predicted(300, 350)["model_id"] == "m4"
    assert predict.models.problem is None


def test_a_first_model_that_does_not_fit_is_a_reason_of_its_own(predict: PredictStream, s3: Any) -> None:
    put_model(s3, "m1", feature_hash="of-another-code")
    assert predict(batch_event(0, *ticks_in(15))).predictions[-1]["reason"] == "model_refused"


def test_late_trades_are_listed_in_the_next_prediction(predict: PredictStream) -> None:
    trades, quotes = random_ticks(1, 6)
    early, late_id = trades["time_us"] < START_US + 3_000_000, int(trades["first_id"][4])
    rest = np.delete(trades, 4)
    predict(
        batch_event(
            0,
            batch(
                rest[rest["time_us"] < START_US + 3_000_000], quotes[quotes["time_us"] < START_US + 3_000_000]
            ),
        )
    )
    outcome = predict(
        batch_event(
            1,
            batch(
                np.concatenate([trades[4:5], trades[~early]]),
                quotes[quotes["time_us"] >= START_US + 3_000_000],
            ),
        )
    )
    assert outcome.late == 1
    assert outcome.predictions[0]["late_ids"] == [late_id]
    assert all(p["late_ids"] == [] for p in outcome.predictions[1:])


def test_feature_names_are_what_is_stored(predict: PredictStream, redis_client: redis.Redis) -> None:
    predict(batch_event(0, *ticks_in(15)))
    assert tuple(stored(redis_client, "features:BTCUSDT:latest")["features"]) == FEATURE_NAMES


def test_a_watermark_from_the_future_closes_nothing(predict: PredictStream) -> None:
    outcome = predict(batch_event(0, batch(*random_ticks(1, 3), START_US + 86_400_000_000)))
    assert "is ahead of its arrival" in outcome.quarantined[0]
    assert predict(batch_event(1, *ticks_in(12))).predictions


def test_quotes_that_stopped_are_not_served_as_fresh(predict: PredictStream, s3: Any) -> None:
    """Trades go on, the last book stands still: after five seconds it is no basis for a prediction."""
    put_model(s3)
    trades, quotes = random_ticks(1, 25)
    early = quotes[quotes["time_us"] < START_US + 15_000_000]
    predictions = predict(batch_event(0, batch(trades, early))).predictions
    by_second = {(p["timestamp"] - START_US // 1000) // 1000: p for p in predictions}
    assert by_second[15]["source"] == "model"
    assert {by_second[s]["reason"] for s in range(21, 25)} == {"no_quotes"}
    assert by_second[24]["basis_price"] == pytest.approx(trades["price"][-1] / 1e8, rel=1e-4)


def test_a_passing_failure_to_look_at_the_model_is_forgotten(
    predict: PredictStream, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    assert predict.models.current()
    once = Config(retries={"total_max_attempts": 1})
    nowhere = boto3.client("s3", endpoint_url="http://127.0.0.1:1", region_name="us-east-1", config=once)
    good, predict.models._s3 = predict.models._s3, nowhere
    clock.ms += 5000
    assert predict.models.current() and predict.models.problem
    predict.models._s3 = good
    clock.ms += 5000
    assert predict.models.current() and predict.models.problem is None


@pytest.mark.parametrize("card", [[], {"calibration": {"1": {"slope": 1}}}, "text"])
def test_a_card_of_another_shape_is_refused(predict: PredictStream, s3: Any, card: Any) -> None:
    put_model(s3)
    body = json.dumps(CARD | card if isinstance(card, dict) else card).encode()
    s3.put_object(Bucket=BUCKET, Key="models/m1/card.json", Body=body)
    prediction = predict(batch_event(0, *ticks_in(15))).predictions[-1]
    assert (prediction["source"], prediction["reason"]) == ("fallback", "model_refused")
