"""A state that is lost, of another version, damaged or older than what was written: what is recovered, and
which trades are missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis

from tests.fixtures.hot_path import (
    SETTINGS,
    START_MS,
    Clock,
    due,
    hot_path,
    outcomes_in,
    put_model,
    save_model,
    state_bytes,
    stored,
)
from tests.fixtures.kinesis_events import batch_event
from tests.fixtures.market import START_US, batch, random_ticks
from tickcast.adapters.redis.hot_store import HotStore, StoreFull, StoreWentBack
from tickcast.functions.predict_stream import PredictStream, Result
from tickcast.market import wire
from tickcast.model.forecast import HORIZONS_S
from tickcast.serving.state import STATE_LOST, VERSION, WRITES_LOST

TRADES, QUOTES = random_ticks(1, 60)
HOLE_S = 20  # the trades of this second never arrive


def second(at: int) -> wire.TickBatch:
    """The ticks of a second, with the claim that they are complete."""
    start_us, end_us = START_US + at * 1_000_000, START_US + (at + 1) * 1_000_000
    trades, quotes = (
        rows[(rows["time_us"] >= start_us) & (rows["time_us"] < end_us)] for rows in (TRADES, QUOTES)
    )
    return batch(trades[:0] if at == HOLE_S else trades, quotes, end_us - 1)


Work = Callable[[int], Result]


@pytest.fixture
def work(predict: PredictStream, s3: Any, clock: Clock) -> Work:
    """Processes one second, with a model and a challenger."""
    save_model(s3, "m2")
    put_model(s3, "m1", challenger="m2")

    def work(at: int) -> Result:
        clock.ms = START_MS + (at + 1) * 1000 + 150.0
        return predict(batch_event(at, second(at)))

    return work


def ids_of(*seconds: int) -> tuple[int, int]:
    """The first and last trade of these seconds."""
    times_s = (TRADES["time_us"] - START_US) // 1_000_000
    ids = TRADES["first_id"][np.isin(times_s, seconds)]
    return int(ids[0]), int(ids[-1])


def lose(client: redis.Redis) -> None:
    client.delete("state:BTCUSDT")


def age(client: redis.Redis) -> None:
    data = state_bytes(client)
    client.hset("state:BTCUSDT", "ring", data.replace(b'"version":%d' % VERSION, b'"version":0'))


def damage(client: redis.Redis) -> None:
    data = state_bytes(client)
    client.hset("state:BTCUSDT", "ring", data[:1000] + b"?" + data[1001:])


@pytest.mark.parametrize(
    ("harm", "problem"),
    [(lose, "Redis has no state of it"), (age, "state of version 0"), (damage, "damaged state")],
)
def test_ledger_outcomes_and_calibrators_survive_a_lost_state(
    work: Work,
    predict: PredictStream,
    store: HotStore,
    redis_client: redis.Redis,
    harm: Callable[[redis.Redis], None],
    problem: str,
) -> None:
    for at in range(35):
        work(at)
    ledger = stored(redis_client, "gaps:BTCUSDT")
    assert [(gap["first_id"], gap["last_id"]) for gap in ledger["gaps"]] == [ids_of(HOLE_S)]
    before = store.load(["BTCUSDT"])[0]["BTCUSDT"].pending
    newest, *_ = store.history("BTCUSDT", 1)
    harm(redis_client)
    predict.states.clear()  # as after a cold start
    problems = work(37).problems  # 35 and 36 never arrive
    assert len(problems) == 1 and problem in problems[0] and "its bars are warmed up again" in problems[0]
    assert work(38).problems == []

    # The ledger: the hole from before, and the one across the loss.
    first, across_ = stored(redis_client, "gaps:BTCUSDT")["gaps"]
    assert first == ledger["gaps"][0]
    lost_first, lost_last = ids_of(35, 36)
    if harm is age:
        assert across_["first_id"] == lost_first  # the state knew of the trades in bars not yet predicted on
    else:
        assert (newest.last_trade_id or 0) + 1 == across_["first_id"] <= lost_first
        assert across_["cause"] == STATE_LOST
    assert across_["last_id"] == lost_last
    assert START_US + 33_900_000 <= across_["from_us"] <= START_US + 35_000_000 <= across_["to_us"]

    # What is pending: all outcomes of the model and the challenger, once each; both calibrations.
    for at in range(39, 60):
        assert work(at).problems == []
    made = store.history("BTCUSDT", 100)
    outcomes = outcomes_in(store)
    entries = [(o.target_time, o.horizon_s) for o in outcomes]
    assert entries == due(made, made[0].timestamp - 1000)
    pending = (newest.timestamp + (newest.latency_ms or 0) + 8000, 10)
    challenger = outcomes[entries.index(pending)].challenger
    assert challenger and challenger.model_id == "m2"
    after = store.load(["BTCUSDT"])[0]["BTCUSDT"].pending
    for model_id in ("m1", "m2"):
        for h in HORIZONS_S:
            lost = before.calibrators[model_id][h].outcomes
            assert after.calibrators[model_id][h].outcomes > lost > 0


def test_calibrators_survive_a_loss_while_warming_up(
    work: Work, store: HotStore, redis_client: redis.Redis
) -> None:
    """The newest receipts are fallbacks, which have none."""
    for at in range(35):
        work(at)
    lose(redis_client)
    work(35)
    for at in range(36, 43):
        assert work(at).predictions[-1].reason == "warming_up"
    lose(redis_client)
    work(43)
    calibrators = store.load(["BTCUSDT"])[0]["BTCUSDT"].pending.calibrators
    assert calibrators["m1"][1].outcomes > 0 and calibrators["m2"][1].outcomes > 0


def test_a_challenger_s_calibrators_survive_a_fallback(
    work: Work, predict: PredictStream, store: HotStore
) -> None:
    for at in range(30):
        work(at)
    before = store.load(["BTCUSDT"])[0]["BTCUSDT"].pending.calibrators["m2"][10].outcomes
    model = predict.models.current()
    assert model
    works = model.run
    object.__setattr__(model, "run", None)
    assert work(30).predictions[-1].horizons == {}
    object.__setattr__(model, "run", works)
    work(31)
    assert store.load(["BTCUSDT"])[0]["BTCUSDT"].pending.calibrators["m2"][10].outcomes == before + 2 > 2


def test_a_store_that_lost_its_newest_writes(work: Work, store: HotStore, redis_client: redis.Redis) -> None:
    """A replica that was behind was promoted: the event is retried on what is left, and the trades of the
    lost writes are in the ledger."""
    for at in range(30):
        work(at)
    older: Any = redis_client.hgetall("state:BTCUSDT")
    for at in range(30, 33):
        work(at)
    redis_client.delete("state:BTCUSDT")
    redis_client.hset("state:BTCUSDT", mapping=older)
    with pytest.raises(StoreWentBack, match="older states than were written: BTCUSDT"):
        work(33)
    result = work(33)
    assert (result.repeated, result.fenced, result.problems) == (0, [], [])
    *_, gap = stored(redis_client, "gaps:BTCUSDT")["gaps"]
    assert (gap["first_id"], gap["last_id"]) == ids_of(30, 31, 32)
    assert gap["cause"] == WRITES_LOST
    assert work(34).problems == []


@pytest.mark.parametrize("write", ["answer", "commit_all"])
def test_a_store_that_goes_back_while_an_event_is_folded(
    work: Work, predict: PredictStream, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    for at in range(30):
        work(at)
    older: Any = redis_client.hgetall("state:BTCUSDT")
    work(30)
    writes = getattr(predict.store, write)

    def fail_over_then_write(items: list[Any]) -> Any:
        redis_client.hset("state:BTCUSDT", mapping=older)
        return writes(items)

    monkeypatch.setattr(predict.store, write, fail_over_then_write)
    with pytest.raises(StoreWentBack):
        work(31)
    monkeypatch.undo()
    assert predict.states == {}
    work(31)
    *_, gap = stored(redis_client, "gaps:BTCUSDT")["gaps"]
    assert (gap["first_id"], gap["last_id"], gap["cause"]) == (*ids_of(30), WRITES_LOST)


def test_two_processes_may_take_turns_with_a_shard(
    work: Work, store: HotStore, redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    """Neither takes the other's writes for a store that went back."""
    other = hot_path(HotStore(redis_client, SETTINGS.lateness_us), s3, clock)
    for at in range(0, 20, 2):
        assert work(at).fenced == []
        clock.ms += 1000
        assert other(batch_event(at + 1, second(at + 1))).fenced == []
    assert stored(redis_client, "gaps:BTCUSDT")["missing_trades"] == 0


def test_a_full_store_fails_the_event_and_loses_nothing(
    work: Work, store: HotStore, redis_client: redis.Redis
) -> None:
    for at in range(15):
        work(at)
    before = redis_client.hgetall("state:BTCUSDT")
    redis_client.config_set("maxmemory", 1)
    try:
        for _ in range(3):
            with pytest.raises(StoreFull):
                work(15)
        assert redis_client.hgetall("state:BTCUSDT") == before
        assert len(store.history("BTCUSDT", 100)) == 15
    finally:
        redis_client.config_set("maxmemory", 0)
    result = work(15)
    assert [p.source for p in result.predictions] == ["model"] and result.problems == []
    assert stored(redis_client, "gaps:BTCUSDT")["missing_trades"] == 0


def test_receipts_with_other_features_stop_no_recall(work: Work, redis_client: redis.Redis) -> None:
    for at in range(20):
        work(at)
    entries: Any = redis_client.xrange("predictions:BTCUSDT")
    redis_client.delete("predictions:BTCUSDT")
    for entry, fields in entries:
        receipt = json.loads(fields[b"json"])
        if receipt["features"]:
            receipt["features"] = {"another": 1.0}
        redis_client.xadd("predictions:BTCUSDT", {"json": json.dumps(receipt)}, id=entry)
    lose(redis_client)
    result = work(20)
    assert len(result.problems) == 1 and "its bars are warmed up again" in result.problems[0]
    assert not result.failed and not result.quarantined
    assert work(21).problems == []
