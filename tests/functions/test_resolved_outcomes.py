"""Outcomes as the hot path writes them: from the quotes of the stream, once each, across gaps and losses."""

import math
from typing import Any

import numpy as np
import pytest
import redis

from tests.fixtures.hot_path import START_MS, Clock, due, outcomes_in, put_model, ticks_in
from tests.fixtures.kinesis_events import batch_event
from tests.fixtures.market import random_ticks
from tests.fixtures.records import known
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.features.bars import BAR_US
from tickcast.functions.predict_stream import PredictStream, Result
from tickcast.market.ticks import Quotes
from tickcast.model.forecast import HORIZONS_S, PATH_S
from tickcast.serving.records import Outcome


def fold(
    predict: PredictStream, clock: Clock, stream: list[Any], first: int = 0, latency_ms: float = 130
) -> list[Result]:
    """The pieces of `stream` one by one, each with a claim up to the end of its bar, written `latency_ms`
    after that."""
    results = []
    for n, piece in enumerate(stream):
        end_us = (
            int(piece.quotes["time_us"][0] if len(piece.quotes) else piece.trades["time_us"][0])
        ) // BAR_US
        piece = piece._replace(watermark_us=(end_us + 1) * BAR_US - 1)
        clock.ms = piece.watermark_us / 1000 + latency_ms
        results.append(predict(batch_event(first + n, piece)))
    return results


def mid(quotes: Quotes, instant_ms: int) -> float:
    """The mid at the end of the bar that `instant_ms` falls into."""
    last = quotes[quotes["time_us"] < math.ceil(instant_ms * 1000 / BAR_US) * BAR_US][-1]
    return (int(last["bid_price"]) + int(last["ask_price"])) / 2 / 1e8


def entries(outcomes: list[Outcome]) -> list[tuple[int, int]]:
    return [(outcome.target_time, outcome.horizon_s) for outcome in outcomes]


def test_outcomes_are_the_mids_of_the_stream(
    predict: PredictStream, store: HotStore, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    fold(predict, clock, ticks_in(30))
    _, quotes = random_ticks(1, 30)
    predictions = {p.id: p for p in store.history("BTCUSDT", 100)}
    outcomes = outcomes_in(store)
    assert entries(outcomes) == due(predictions.values(), START_MS + 29_000)
    assert {outcome.source for outcome in outcomes} == {"model", "fallback"}
    for outcome in outcomes:
        prediction, delivered_ms = predictions[outcome.id], outcome.timestamp + known(outcome.latency_ms)
        delivered, price = mid(quotes, delivered_ms), mid(quotes, outcome.target_time)
        assert outcome.target_time == delivered_ms + 1000 * outcome.horizon_s
        assert (outcome.status, outcome.why) == ("resolved", None)
        assert (outcome.delivered_price, outcome.outcome_price) == (delivered, price)
        move_bp = (price / delivered - 1) * 1e4
        assert outcome.move_bp == pytest.approx(move_bp, abs=1e-9)
        assert (outcome.latency_ms, outcome.spread_bp) == (prediction.latency_ms, prediction.spread_bp)
        in_hindsight = mid(quotes, outcome.timestamp + 1000 * outcome.horizon_s)
        assert outcome.hindsight_move_bp == pytest.approx((in_hindsight / prediction.basis_price - 1) * 1e4)
        forecast = prediction.horizons.get(outcome.horizon_s)
        for name in ("expected_move_bp", "scale_bp", "confidence", "p_flat"):
            assert getattr(outcome, name) == (getattr(forecast, name) if forecast else None)
        if forecast:
            miss_bp = abs(move_bp - forecast.expected_move_bp)
            assert outcome.inside == (miss_bp <= known(outcome.half_width_bp))
            width = prediction.calibrator[outcome.horizon_s].interval_width
            assert outcome.half_width_bp == width * forecast.scale_bp
            assert (
                outcome.hindsight_expected_bp
                == known(prediction.path).move_bp[PATH_S.index(outcome.horizon_s)]
            )
            is_right = bool(np.sign(move_bp) == np.sign(forecast.expected_move_bp))
            assert outcome.right == (is_right if move_bp else None)
            assert outcome.imbalance == known(prediction.features)["imbalance"]


def test_outcomes_update_the_calibrators_in_the_receipt(
    predict: PredictStream, store: HotStore, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    fold(predict, clock, ticks_in(40))
    newest, *_ = store.history("BTCUSDT", 1)
    outcomes = [o for o in outcomes_in(store) if o.source == "model"]
    for horizon_s in HORIZONS_S:
        mine = [o for o in outcomes if o.horizon_s == horizon_s]
        calibrator = newest.calibrator[horizon_s]
        assert calibrator.outcomes == len(mine) > 10
        steps = [0.08 * max(1 / horizon_s, 1 / (1 + n / 60)) for n in range(1, len(mine) + 1)]
        width = math.exp(sum(step * (0.8 - known(o.inside)) for step, o in zip(steps, mine, strict=True)))
        assert calibrator.interval_width == pytest.approx(width)


def test_outcomes_within_an_outage_are_unresolved(
    predict: PredictStream, store: HotStore, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    stream = ticks_in(140)
    fold(predict, clock, stream[:200] + stream[1200:])
    outcomes = outcomes_in(store)
    assert entries(outcomes) == due(store.history("BTCUSDT", 1000), START_MS + 139_000)
    unresolved = [o for o in outcomes if o.status == "unresolved"]
    assert {o.why for o in unresolved} == {"gap"}
    targets = {(o.target_time - START_MS) // 1000 for o in unresolved}
    assert min(targets) == 20 and max(targets) == 30
    assert {getattr(o, name) for o in unresolved for name in ("outcome_price", "move_bp", "inside")} == {None}


def test_without_quotes_there_is_no_outcome(
    predict: PredictStream, store: HotStore, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    stream = ticks_in(40)
    unquoted = [piece._replace(quotes=piece.quotes[:0]) for piece in stream[150:] if len(piece.trades)]
    fold(predict, clock, stream[:150] + unquoted)
    outcomes = outcomes_in(store, START_MS + 21_000)
    assert {(o.status, o.why) for o in outcomes} == {("unresolved", "no_quotes")}
    assert {o.reason for o in outcomes} == {None, "no_quotes"}


@pytest.mark.parametrize("is_all_lost", [False, True])
def test_nothing_is_written_twice_after_a_loss_and_redelivery(
    predict: PredictStream,
    store: HotStore,
    redis_client: redis.Redis,
    s3: Any,
    clock: Clock,
    *,
    is_all_lost: bool,
) -> None:
    """The state is lost with its fence, and the stream delivers the last twenty seconds again."""
    put_model(s3)
    stream = ticks_in(45)
    fold(predict, clock, stream[:300])
    if is_all_lost:
        redis_client.flushall()
    else:
        redis_client.delete("state:BTCUSDT")
    predictions: Any = redis_client.xrange("predictions:BTCUSDT")
    outcomes: Any = redis_client.xrange("outcomes:BTCUSDT")
    fold(predict, clock, stream[100:], first=100)
    predicted: Any = redis_client.xrange("predictions:BTCUSDT")
    resolved: Any = redis_client.xrange("outcomes:BTCUSDT")
    assert predicted[: len(predictions)] == predictions and resolved[: len(outcomes)] == outcomes
    history = store.history("BTCUSDT", 1000)
    assert len({p.timestamp for p in history}) == len(history)
    assert entries(outcomes_in(store)) == due(history, START_MS + 44_000)


def test_pending_outcomes_of_a_lost_state_are_recalled_from_receipts(
    predict: PredictStream, store: HotStore, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    put_model(s3)
    stream = ticks_in(45)
    fold(predict, clock, stream[:300])
    newest, *_ = store.history("BTCUSDT", 1)
    redis_client.delete("state:BTCUSDT")
    results = fold(predict, clock, stream[300:], first=300)
    assert any("Redis has no state of it" in problem for problem in results[0].problems)
    found = outcomes_in(store)
    assert entries(found) == due(store.history("BTCUSDT", 1000), START_MS + 44_000)
    # The prices at deliveries before the loss are lost with the bars; all later outcomes are known.
    lost = [o for o in found if o.status != "resolved"]
    assert {o.why for o in lost} == {"gap"}
    assert {o.timestamp + known(o.latency_ms) for o in found if o.target_time > START_MS + 31_000} - {
        o.timestamp + known(o.latency_ms) for o in lost
    } == {o.timestamp + known(o.latency_ms) for o in found if o.timestamp >= START_MS + 30_000}
    again = next(p for p in reversed(store.history("BTCUSDT", 15)) if p.source == "model")
    assert again.calibrator[10].outcomes >= newest.calibrator[10].outcomes > 0
