"""The hot path against a real Redis: features, predictions, receipts and the fence. S3 is moto's."""

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import redis
from msgspec.structs import asdict, replace
from redis.connection import AbstractConnection

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import (
    SETTINGS,
    START_MS,
    Clock,
    hot_path,
    network,
    newest_forecast,
    put_model,
    receipts_in,
    save_model,
    state_bytes,
    stored,
    ticks_in,
)
from tests.fixtures.kinesis_events import FIRST_SEQUENCE, batch_event, event, record
from tests.fixtures.market import START_US, batch, random_ticks
from tests.fixtures.records import known
from tickcast.adapters.redis.connection import connect
from tickcast.adapters.redis.hot_store import Commit, Committed, HotStore
from tickcast.adapters.registry.onnx_model import OnnxModel
from tickcast.features.ring import BarRing
from tickcast.features.vector import FEATURE_NAMES, feature_rows
from tickcast.functions.predict_stream import GROUP, PredictStream
from tickcast.market import wire
from tickcast.serving.prediction import evaluated
from tickcast.serving.records import StreamHeartbeat, decode
from tickcast.serving.state import decode_state, encode_state


def test_a_prediction_for_each_event_and_the_features_of_each_second(
    predict: PredictStream, store: HotStore, redis_client: redis.Redis, s3: Any
) -> None:
    put_model(s3)
    stream = ticks_in(20)
    results = [predict(batch_event(n, piece)) for n, piece in enumerate(stream)]
    predictions = [p for result in results for p in result.predictions]
    ends_ms = [piece.watermark_us // 1000 + 1 for piece in stream]  # the last millisecond that counts
    assert [p.timestamp for p in predictions] == [
        end_ms for before, end_ms in pairwise([0, *ends_ms]) if end_ms // 100 > before // 100
    ]
    assert predictions[0].reason == "warming_up"
    assert {p.source for p in predictions[-50:]} == {"model"}

    kept = store.history("BTCUSDT", 100)[::-1]
    firsts = {p.timestamp // 1000: p for p in reversed(predictions)}
    assert kept == [firsts[second] for second in sorted(firsts)]
    assert receipts_in(redis_client) == predictions

    newest = kept[-1]
    features = stored(redis_client, f"features:BTCUSDT:{newest.timestamp // 1000}")
    assert {"price", "volume", "vwap", "price_change", "timestamp"} <= features.keys()
    assert 0 < redis_client.ttl(f"features:BTCUSDT:{newest.timestamp // 1000}") <= 60
    assert stored(redis_client, "features:BTCUSDT:latest") == features
    assert newest.basis_price == features["mid"]

    ring = BarRing(SETTINGS.lateness_us)
    for piece in stream[: ends_ms.index(newest.timestamp) + 1]:
        list(ring.fold(piece, 1_000_000))
    view = ring.view()
    vector = feature_rows(view.bars, view.seconds, 1)
    expected = dict(zip(FEATURE_NAMES, vector[0].tolist(), strict=True))
    assert features["features"] == pytest.approx(expected, rel=1e-8)
    assert tuple(features["features"]) == FEATURE_NAMES  # in this order
    move_bp, _, _ = network().forward(vector)
    assert known(newest.path).move_bp == pytest.approx(move_bp[0], rel=1e-4, abs=1e-5)
    assert newest.horizons.keys() == {1, 2, 5, 10}


def test_the_answer_is_the_forecast_of_its_receipt(
    predict: PredictStream, store: HotStore, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    for n, piece in enumerate(ticks_in(15)):
        clock.ms = piece.watermark_us // 1000 + 60.0
        (newest,) = predict(batch_event(n, piece)).predictions or (None,)
        if newest is None:
            continue
        answer = newest_forecast(redis_client)
        assert store.prediction("BTCUSDT", answer.timestamp) == newest
        names = {*answer.__struct_fields__} & {*newest.__struct_fields__}
        assert {name: getattr(answer, name) for name in names} == {
            name: getattr(newest, name) for name in names
        }
        assert newest.latency_ms == 59
        for horizon_s, expected in evaluated(answer, 0.059).items():
            assert asdict(newest.horizons[horizon_s]) == pytest.approx(asdict(expected), rel=1e-8)
        assert newest.target_time == newest.timestamp + 59 + 2000
    assert newest and newest.source == "model"


@pytest.mark.parametrize("every_ms", [100, 300, 1000])
def test_predictions_are_made_at_the_pace_that_is_set(
    store: HotStore, s3: Any, clock: Clock, every_ms: int
) -> None:
    predict = hot_path(store, s3, clock, predict_every_ms=every_ms)
    pieces = ticks_in(4, piece_us=20_000)
    made = [p.timestamp for n, piece in enumerate(pieces) for p in predict(batch_event(n, piece)).predictions]
    steps = [timestamp // every_ms for timestamp in made]
    assert len(steps) == len(set(steps)) == steps[-1] - steps[0] + 1 >= 4000 // every_ms - 1


def test_ten_symbols_the_first_answer_waits_for_its_group_only(
    store: HotStore, redis_client: redis.Redis, s3: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_model(s3)
    symbols = tuple(f"S{n}USDT" for n in range(GROUP + 2))
    predict = hot_path(store, s3, clock, symbols=symbols)
    pieces = [piece._replace(symbol=symbol) for piece in ticks_in(12) for symbol in symbols]
    predict(batch_event(0, *pieces[: 100 * len(symbols)]))
    before = newest_forecast(redis_client, symbols[0]).id
    take, seen = BarRing._take, []

    def watched(ring: BarRing, trades: Any, quotes: Any) -> None:
        seen.append(newest_forecast(redis_client, symbols[0]).id != before)
        take(ring, trades, quotes)

    monkeypatch.setattr(BarRing, "_take", watched)
    result = predict(batch_event(100 * len(symbols), *pieces[100 * len(symbols) :]))
    records = len(pieces) // len(symbols) - 100
    assert seen == [False] * GROUP * records + [True] * 2 * records
    assert {p.symbol for p in result.predictions} == set(symbols)


def test_symbols_of_a_group_share_one_run_of_each_model(
    predict: PredictStream, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(s3, "m2")
    put_model(s3, "m1", challenger="m2")
    pieces = [piece._replace(symbol=symbol) for piece in ticks_in(15) for symbol in ("BTCUSDT", "ETHUSDT")]
    predict(batch_event(0, *pieces[:250]))
    call, rows = OnnxModel.__call__, []

    def counted(model: OnnxModel, features: Any) -> Any:
        rows.append(len(features))
        return call(model, features)

    monkeypatch.setattr(OnnxModel, "__call__", counted)
    result = predict(batch_event(250, *pieces[250:]))
    assert [p.source for p in result.predictions] == ["model", "model"]
    assert all(p.challenger and p.challenger.path for p in result.predictions)
    assert rows == [2, 2]


def test_price_volume_and_vwap_of_the_trades(predict: PredictStream, redis_client: redis.Redis) -> None:
    trades, quotes = random_ticks(2, 12)
    predict(batch_event(0, batch(trades, quotes, START_US + 13_000_000)))
    features = stored(redis_client, "features:BTCUSDT:latest")
    prices, volumes = trades["price"] / 1e8, trades["qty"] / 1e8
    assert features["price"] == prices[-1]
    assert features["volume"] == pytest.approx(volumes.sum(), rel=1e-12)
    assert features["vwap"] == pytest.approx((prices * volumes).sum() / volumes.sum(), rel=1e-9)
    assert features["trade_count"] == len(trades)
    assert features["last_trade_id"] == int(trades["last_id"][-1])


def test_without_a_model_predictions_are_fallbacks(predict: PredictStream, redis_client: redis.Redis) -> None:
    predict(batch_event(0, *ticks_in(15)))
    prediction = receipts_in(redis_client)[-1]
    assert (prediction.source, prediction.reason) == ("fallback", "no_model")
    assert (prediction.confidence, prediction.model_id) == (0.0, None)
    assert prediction.predicted_price == stored(redis_client, "features:BTCUSDT:latest")["mid"]


def test_without_quotes_predictions_are_fallbacks(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    put_model(s3)
    trades, quotes = random_ticks(1, 15)
    predict(batch_event(0, batch(trades, quotes[:0])))
    prediction = newest_forecast(redis_client)
    assert (prediction.source, prediction.reason) == ("fallback", "no_quotes")
    features = stored(redis_client, "features:BTCUSDT:latest")
    assert (features["mid"], prediction.basis_price) == (None, features["proxy_mid"])


def test_a_repeated_event_changes_nothing(predict: PredictStream, redis_client: redis.Redis) -> None:
    event = batch_event(0, *ticks_in(15))
    predict(event)
    before = redis_client.hgetall("state:BTCUSDT"), redis_client.xlen("predictions:BTCUSDT")
    outcome = predict(event)
    assert (redis_client.hgetall("state:BTCUSDT"), redis_client.xlen("predictions:BTCUSDT")) == before
    assert outcome.repeated == outcome.records
    assert outcome.predictions == []


def test_overlapping_events_give_the_same_as_one_pass(
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
    stored_ring = decode_state("BTCUSDT", 0, state_bytes(redis_client), SETTINGS.lateness_us).ring
    assert stored_ring.bars.tobytes() == ring.bars.tobytes()
    assert stored_ring.seconds.tobytes() == ring.seconds.tobytes()
    assert stored_ring.trade_ids.seen.intervals == ring.trade_ids.seen.intervals
    assert int(state[b"sequence"]) == FIRST_SEQUENCE + len(stream) - 1


def test_symbols_do_not_affect_each_other(predict: PredictStream, redis_client: redis.Redis) -> None:
    btc = ticks_in(12, seed=1)
    eth = [piece._replace(symbol="ETHUSDT") for piece in ticks_in(12, seed=2)]
    mixed = [piece for pair in zip(btc, eth, strict=True) for piece in pair]
    predict(batch_event(0, *mixed))
    together = redis_client.hget("state:ETHUSDT", "ring")
    redis_client.flushall()
    predict(batch_event(0, *eth))
    assert redis_client.hget("state:ETHUSDT", "ring") == together


def test_bad_records_go_to_quarantine_and_the_rest_is_processed(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    good_pieces = ticks_in(5)
    good = [record(n, wire.encode(piece)) for n, piece in enumerate(good_pieces)]
    half = wire.encode(ticks_in(1)[0])[:-20]
    stranger = wire.encode(ticks_in(1)[0]._replace(symbol="DOGEUSDT"))
    bad = [record(20, b"garbage"), record(21, half), record(22, stranger)]
    outcome = predict(event(*good[:20], *bad, *good[23:]))
    assert len(outcome.quarantined) == 3
    assert [p.timestamp for p in outcome.predictions] == [good_pieces[-1].watermark_us // 1000 + 1]
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


def test_the_gap_ledger_is_written_with_predictions(
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


def test_redis_out_of_reach_fails_the_invocation(s3: Any, clock: Clock) -> None:
    store = HotStore(connect(replace(SETTINGS.redis, port=1)), SETTINGS.lateness_us)
    predict = hot_path(store, s3, clock)
    with pytest.raises(redis.ConnectionError):
        predict(batch_event(0, *ticks_in(1)))


def test_late_trades_are_listed_in_the_next_prediction(predict: PredictStream) -> None:
    trades, quotes = random_ticks(1, 6)
    cut_us, late_id = START_US + 3_000_000, int(trades["first_id"][4])
    early = trades["time_us"] < cut_us
    rest = np.delete(trades, 4)
    is_early = quotes["time_us"] < cut_us
    predict(batch_event(0, batch(rest[rest["time_us"] < cut_us], quotes[is_early])))
    later = batch(np.concatenate([trades[4:5], trades[~early]]), quotes[~is_early])
    outcome = predict(batch_event(1, later))
    assert outcome.late == 1
    assert outcome.predictions[0].late_ids == [late_id]


def test_a_receipt_that_is_kept_lists_what_was_late_since_the_one_before(predict: PredictStream) -> None:
    stream = ticks_in(5)
    late = stream[5].trades[:1]
    stream[5] = stream[5]._replace(trades=stream[5].trades[1:])
    late_us = stream[32].watermark_us
    stream[33] = stream[33]._replace(trades=np.concatenate([late, stream[33].trades]))
    made = [p for n, piece in enumerate(stream) for p in predict(batch_event(n, piece)).predictions]
    after = [p for p in made if p.timestamp > late_us // 1000 + 1]
    kept_ms = min(p.timestamp for p in after if p.timestamp // 1000 > late_us // 1_000_000)
    for prediction in after:
        expected = late["first_id"].tolist() if prediction.timestamp <= kept_ms else []
        assert prediction.late_ids == expected


def test_a_watermark_from_the_future_closes_nothing(predict: PredictStream) -> None:
    outcome = predict(batch_event(0, batch(*random_ticks(1, 3), START_US + 86_400_000_000)))
    assert any("is ahead of its arrival" in problem for problem in outcome.problems)
    assert outcome.quarantined == []
    assert predict(batch_event(1, *ticks_in(12))).predictions


def test_quotes_that_stopped_are_not_served_as_fresh(predict: PredictStream, s3: Any) -> None:
    """Trades continue without quotes: after five seconds the last book is no basis for a prediction."""
    put_model(s3)
    early = START_US + 15_000_000
    pieces = [piece._replace(quotes=piece.quotes[piece.quotes["time_us"] < early]) for piece in ticks_in(25)]
    results = [predict(batch_event(n, piece)) for n, piece in enumerate(pieces)]
    by_second = {(p.timestamp - START_MS) // 1000: p for result in results for p in result.predictions}
    assert by_second[15].source == "model"
    for second in range(21, 25):
        masked = by_second[second]
        assert (masked.source, masked.reason, masked.model_id) == ("fallback", "no_quotes", "m1")
        assert known(masked.features)["has_quotes"] == known(masked.features)["imbalance"] == 0
        vector = np.array([[known(masked.features)[name] for name in FEATURE_NAMES]])
        assert known(masked.path).move_bp == pytest.approx(
            network().forward(vector)[0][0], rel=1e-4, abs=1e-5
        )
        assert masked.abstains
    last = pieces[-1].trades[-1]
    assert by_second[24].basis_price == pytest.approx(last["price"] / 1e8, rel=1e-4, abs=1e-5)


def arrived_at(events: dict[str, Any], arrived_ms: float) -> dict[str, Any]:
    for each in events["Records"]:
        each["kinesis"]["approximateArrivalTimestamp"] = arrived_ms / 1000
    return events


def test_the_receipt_has_the_inputs_of_the_prediction(predict: PredictStream, s3: Any) -> None:
    put_model(s3)
    stream = ticks_in(15)
    results = [predict(batch_event(n, piece)) for n, piece in enumerate(stream)]
    closing, newest = next(
        (n, r.predictions[0]) for n, r in reversed(list(enumerate(results))) if r.predictions
    )
    trades, quotes = random_ticks(1, 15)
    end_us = newest.timestamp * 1000
    trades, quotes = trades[trades["time_us"] < end_us], quotes[quotes["time_us"] < end_us]
    closed_us = known(newest.closed_us)
    assert end_us - 1_200_000 < closed_us < end_us and closed_us % 100_000 == 0
    for listed, rows, name in (
        (newest.open_ids, trades, "first_id"),
        (newest.open_update_ids, quotes, "update_id"),
    ):
        assert np.cumsum(listed).tolist() == rows[name][rows["time_us"] >= closed_us].tolist()
    assert newest.last_trade_id == trades["last_id"][-1]
    assert newest.update_id == quotes["update_id"][-1]
    assert newest.trade_age_ms == (end_us - int(trades["time_us"][-1])) // 1000
    assert newest.quote_age_ms == (end_us - int(quotes["time_us"][-1])) // 1000
    assert newest.feature_age_ms == min(newest.trade_age_ms, newest.quote_age_ms)
    assert newest.sequence == str(FIRST_SEQUENCE + closing)
    assert 0 <= START_US - known(newest.history_from_us) < 200_000
    assert (newest.late_ids, newest.late_update_ids) == ([], [])


def test_the_parts_of_the_latency(predict: PredictStream, s3: Any, clock: Clock) -> None:
    put_model(s3)
    predict(batch_event(0, *ticks_in(15)[:120]))
    clock.ms, clock.step_ms = START_MS + 12_590.0, 1.25
    arrived_ms = START_MS + 12_540.5
    (prediction,) = predict(arrived_at(batch_event(120, *ticks_in(15)[120:125]), arrived_ms)).predictions
    assert prediction.timing_ms is not None
    timing = asdict(prediction.timing_ms)
    assert timing["to_kinesis"] == pytest.approx(arrived_ms - prediction.timestamp)
    assert timing["to_function"] == pytest.approx(12_591.25 - 12_540.5)
    waits = {name for name, spent_ms in timing.items() if not spent_ms}
    assert waits == {"lateness", "challenger"}  # the answer waits for neither
    assert timing["inference"] > prediction.inference_ms == 1.25
    assert sum(timing.values()) == pytest.approx(prediction.latency_ms, abs=0.51)


def test_an_answer_takes_one_round_trip_and_the_rest_another(
    predict: PredictStream, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_model(s3)
    pieces = [piece for piece in ticks_in(12) if piece.watermark_us % 1_000_000 > 300_000]
    both = [piece._replace(symbol=symbol) for piece in pieces for symbol in ("BTCUSDT", "ETHUSDT")]
    predict(batch_event(0, *both[:100]))
    sent: list[Any] = []
    send: Any = AbstractConnection.send_packed_command

    def counted(connection: AbstractConnection, command: Any, check_health: bool = True) -> Any:
        sent.append(command)
        return send(connection, command, check_health)

    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    result = predict(batch_event(100, *both[100:102]))
    assert {prediction.symbol for prediction in result.predictions} == {"BTCUSDT", "ETHUSDT"}
    assert len(sent) == 2
    assert b"prediction:BTCUSDT:latest" in b"".join(sent[0])


def everything(client: redis.Redis) -> dict[bytes, Any]:
    """All that Redis holds except the state's bytes."""
    held: dict[bytes, Any] = {}
    for key in client.scan_iter():
        kind = client.type(key)
        if kind == b"string":
            held[key] = client.get(key)
        elif kind == b"stream":
            held[key] = client.xrange(key)
        else:
            held[key] = client.hget(key, "sequence")
    return held


def test_a_restart_of_the_function_changes_nothing(
    predict: PredictStream, store: HotStore, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    events = [batch_event(n, *ticks_in(25)[n : n + 7]) for n in range(0, 245, 7)]
    for each in events:
        predict(each)
    at_once = everything(redis_client)
    redis_client.flushall()
    for each in events:
        hot_path(store, s3, clock)(each)
    assert everything(redis_client) == at_once
    assert len(at_once[b"predictions:BTCUSDT"]) > 20 and at_once[b"outcomes:BTCUSDT"]
    assert b"predictions:BTCUSDT:recent" in at_once


def test_warm_states_equal_those_in_redis_wherever_the_stream_is_cut(
    predict: PredictStream, store: HotStore, s3: Any
) -> None:
    """What a process keeps is what another one would read."""
    put_model(s3)
    stream, rng, at = ticks_in(25), np.random.default_rng(1), 0
    while at < len(stream):
        size = int(rng.integers(1, 9))
        predict(batch_event(at, *stream[at : at + size]))
        at += size
        (kept,) = predict.states.values()
        read = HotStore(predict.store._client, SETTINGS.lateness_us).load(["BTCUSDT"])[0]["BTCUSDT"]
        assert encode_state(kept) == encode_state(read)
        assert (kept.sequence, kept.as_of_us) == (read.sequence, read.as_of_us)
        assert vars(kept.ring).keys() == vars(read.ring).keys()


def test_another_invocation_ahead_is_noticed_and_its_state_read(
    predict: PredictStream, store: HotStore, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    """Two processes take turns, each with a state that is too old whenever it is its turn."""
    put_model(s3)
    stream = ticks_in(20)
    other = hot_path(HotStore(redis_client, SETTINGS.lateness_us), s3, clock)
    for n, piece in enumerate(stream):
        result = (predict, other)[n // 3 % 2](batch_event(n, piece))
        assert (result.fenced, result.repeated, len(result.problems)) == ([], 0, 1 if n == 0 else 0)
    taken_in_turns = everything(redis_client)
    redis_client.flushall()
    alone = hot_path(HotStore(redis_client, SETTINGS.lateness_us), s3, clock)
    for n, piece in enumerate(stream):
        alone(batch_event(n, piece))
    assert everything(redis_client) == taken_in_turns


def test_records_that_another_invocation_applied_are_repeated(
    predict: PredictStream, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    stream = ticks_in(20)
    predict(batch_event(0, *stream[:120]))
    other = hot_path(HotStore(redis_client, SETTINGS.lateness_us), s3, clock)
    other(batch_event(120, *stream[120:150]))
    result = predict(batch_event(120, *stream[120:160]))
    assert (result.repeated, result.fenced, len(result.predictions)) == (30, [], 1)


def test_a_crash_between_both_writes_gives_the_same_answer_again(
    predict: PredictStream, redis_client: redis.Redis, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_model(s3)
    stream = ticks_in(20)
    predict(batch_event(0, *stream[:150]))
    state = redis_client.hgetall("state:BTCUSDT")

    def fails(commits: list[Commit]) -> list[bool]:
        raise redis.ConnectionError

    monkeypatch.setattr(predict.store, "commit_all", fails)
    with pytest.raises(redis.ConnectionError):
        predict(batch_event(150, *stream[150:153]))
    answer = newest_forecast(redis_client)
    assert answer.timestamp == stream[152].watermark_us // 1000 + 1
    assert redis_client.hgetall("state:BTCUSDT") == state
    assert all(receipt.id != answer.id for receipt in receipts_in(redis_client))
    monkeypatch.undo()
    (receipt,) = predict(batch_event(150, *stream[150:153])).predictions
    assert newest_forecast(redis_client) == answer
    assert (receipt.id, receipt.path, receipt.calibrator) == (answer.id, answer.path, answer.calibrator)


def test_of_two_concurrent_invocations_one_writes_nothing(
    predict: PredictStream, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    """Both read the same state; the first to write has more records, and the other writes nothing."""
    put_model(s3)
    stream = ticks_in(20)
    predict(batch_event(0, *stream[:120]))

    class Overtaken(HotStore):
        def commit_all(self, commits: list[Commit]) -> list[Committed]:
            assert predict(batch_event(120, *stream[120:])).fenced == []
            self.after_the_winner = everything(redis_client)
            return super().commit_all(commits)

    store = Overtaken(redis_client, SETTINGS.lateness_us)
    loser = hot_path(store, s3, clock)(batch_event(120, *stream[120:150]))
    assert loser.fenced == ["BTCUSDT"]
    assert (loser.predictions, loser.outcomes, loser.ticks, loser.late) == ([], [], 0, 0)
    assert everything(redis_client) == store.after_the_winner
    assert len(receipts_in(redis_client)) == 2


def test_a_state_that_another_invocation_wrote_is_read_again(
    predict: PredictStream, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    """Both have the same records; the second to write finds its own sequence."""
    put_model(s3)
    stream = ticks_in(20)
    predict(batch_event(0, *stream[:120]))

    class Repeated(HotStore):
        def commit_all(self, commits: list[Commit]) -> list[Committed]:
            predict(batch_event(120, *stream[120:150]))
            return super().commit_all(commits)

    second = hot_path(Repeated(redis_client, SETTINGS.lateness_us), s3, clock)
    assert second(batch_event(120, *stream[120:150])).fenced == []
    assert second.states == {}
    assert set(predict.states) == {"BTCUSDT"}


def test_an_answer_does_not_go_back_when_half_a_batch_is_tried_again(
    predict: PredictStream, redis_client: redis.Redis, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_model(s3)
    stream = ticks_in(20)
    predict(batch_event(0, *stream[:120]))

    def fails(commits: list[Commit]) -> list[Committed]:
        raise redis.ConnectionError("lost")

    with monkeypatch.context() as patched, pytest.raises(redis.ConnectionError):
        patched.setattr(predict.store, "commit_all", fails)
        predict(batch_event(120, *stream[120:150]))
    answered = redis_client.get("prediction:BTCUSDT:latest")
    predict(batch_event(120, *stream[120:135]))
    assert redis_client.get("prediction:BTCUSDT:latest") == answered
    predict(batch_event(135, *stream[135:160]))
    assert redis_client.get("prediction:BTCUSDT:latest") != answered


def test_after_a_split_the_stream_continues_in_the_child_shard(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    """A child's sequence numbers are above all of its parent's; the parent's repeated records are
    recognised."""
    put_model(s3)
    data = [wire.encode(piece) for piece in ticks_in(20)]
    parent = [record(n, piece, shard=0) for n, piece in enumerate(data[:120])]
    child = [record(10**20 + n, piece, shard=3) for n, piece in enumerate(data[120:])]
    predict(event(*parent))
    predict(event(*child[:40]))
    before = everything(redis_client)
    again = predict(event(*parent[60:]))
    assert (again.repeated, again.predictions, everything(redis_client)) == (60, [], before)
    predict(event(*child[30:]))
    assert len(receipts_in(redis_client)) == 3
    assert stored(redis_client, "gaps:BTCUSDT")["missing_trades"] == 0


def test_a_lost_redis_is_warmed_up_again_and_reported(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    put_model(s3)
    stream = ticks_in(40)
    predict(batch_event(0, *stream[:200]))
    assert stored(redis_client, "heartbeat:predict_stream:BTCUSDT")["warming_since_ms"] is None
    redis_client.flushall()
    result = predict(batch_event(200, *stream[200:250]))
    assert result.problems == ["BTCUSDT: Redis has no state of it; its bars are warmed up again"]
    assert {prediction.reason for prediction in result.predictions} == {"warming_up"}
    beat = stored(redis_client, "heartbeat:predict_stream:BTCUSDT")
    assert beat["reason"] == "warming_up"
    assert 0 <= START_MS + 20_000 - beat["warming_since_ms"] < 300
    recovered = predict(batch_event(250, *stream[250:]))
    assert recovered.problems == []
    assert recovered.predictions[-1].source == "model"
    assert stored(redis_client, "heartbeat:predict_stream:BTCUSDT")["warming_since_ms"] is None


def test_features_have_the_times_of_their_newest_tick_and_of_quiet(
    predict: PredictStream, redis_client: redis.Redis
) -> None:
    pieces = ticks_in(3)
    pieces[0] = pieces[0]._replace(quiet_us=START_US + 2_500_000)
    predict(batch_event(0, *pieces))
    features = stored(redis_client, "features:BTCUSDT:latest")
    end_us = newest_forecast(redis_client).timestamp * 1000
    times_us = np.concatenate([t["time_us"] for piece in pieces for t in (piece.trades, piece.quotes)])
    assert features["last_tick_us"] == times_us[times_us < end_us].max()
    assert features["quiet_us"] == START_US + 2_500_000


def test_ingest_s_heartbeats_are_passed_on(predict: PredictStream, redis_client: redis.Redis) -> None:
    first, second, *_ = ticks_in(3)
    claimed = second._replace(connection="b", watermark_us=START_US + 123_000)
    events = batch_event(0, first._replace(watermark_us=wire.NO_WATERMARK), claimed)
    predict(arrived_at(events, START_MS + 250.0))
    assert stored(redis_client, "heartbeat:ingest_ecs:BTCUSDT") == {
        "at_ms": START_MS + 250,
        "received_ms": START_MS + 250,
        "watermark_ms": START_MS + 123,
        "source": "sim",
        "connections": ["a", "b"],
        "host_offset_ms": None,
    }
    predict(arrived_at(batch_event(2, second._replace(watermark_us=wire.NO_WATERMARK)), START_MS + 900.0))
    beat = stored(redis_client, "heartbeat:ingest_ecs:BTCUSDT")
    assert (beat["at_ms"], beat["watermark_ms"]) == (START_MS + 900, START_MS + 123)


def test_the_perpetual_s_quotes_are_in_the_features_and_in_the_heartbeat(
    predict: PredictStream, redis_client: redis.Redis, s3: Any
) -> None:
    put_model(s3)
    stream = ticks_in(25, per_s=20)
    result = predict(batch_event(0, *stream[:200]))
    result.add(predict(batch_event(200, *stream[200:])))
    newest = result.predictions[-1]
    features = newest.features or {}
    assert features["has_reference"] == 1 and features["reference_imbalance"] and features["basis_deviation"]
    assert newest.open_reference_ids and not newest.late_reference_ids
    beat = decode(StreamHeartbeat, redis_client.get("heartbeat:predict_stream:BTCUSDT") or b"")
    newest_us = max(int(each.reference["time_us"].max()) for each in stream if len(each.reference))
    assert (beat.reference_ms, beat.late_reference) == (newest_us // 1000, 0)
