"""The hot store in a real Redis: reading by instant, the fence, and entries written once."""

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
import redis
from msgspec import to_builtins
from msgspec.structs import replace

from tests.fixtures import records
from tests.fixtures.hot_path import SETTINGS, commit, commit_of
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import (
    Committed,
    HotStore,
    Overtaken,
    StoreFull,
    StoreWentBack,
    Writes,
    read,
)
from tickcast.features.ring import BarRing
from tickcast.features.trade_ids import TradeIds
from tickcast.market.gaps import GapLedger
from tickcast.serving.records import Outcome, PathForecast, Prediction, StreamHeartbeat, decode
from tickcast.serving.state import WRITES_LOST, SymbolState

T0 = 1_754_000_000_000


def write(store: HotStore, *records: Prediction | Outcome, sequence: int) -> None:
    """Commit `records` as the batch after `sequence` - 1."""
    writes = Writes()
    for record in records:
        if isinstance(record, Outcome):
            writes.outcome(record)
        else:
            writes.prediction(record)
    assert commit(store, state(sequence), sequence - 1, writes)


def state(sequence: int, symbol: str = "BTCUSDT", **trade_ids: Any) -> SymbolState:
    ring = BarRing(SETTINGS.lateness_us, trade_ids=TradeIds(**trade_ids))
    return SymbolState(symbol, ring, sequence=sequence)


def predictions(*seconds: int, **changed: Any) -> list[Prediction]:
    return [records.prediction(T0 + second * 1000, **changed) for second in seconds]


def forecast(second: int, symbol: str = "BTCUSDT") -> PathForecast:
    """A fallback, as the hot path writes it."""
    timestamp = T0 + second * 1000
    return PathForecast(
        id=f"{symbol}-{timestamp}",
        symbol=symbol,
        timestamp=timestamp,
        basis_price=100.0,
        horizon_s=2,
        source="fallback",
        reason="no_model",
    )


def latest(store: HotStore, *symbols: str) -> list[PathForecast | None]:
    found = store.values([keys.latest_prediction(symbol) for symbol in symbols])
    return [read(PathForecast, data) for data in found]


def outcome(second: int, horizon_s: int) -> Outcome:
    return records.outcome(T0 + second * 1000, horizon_s)


def seconds_of(found: Iterable[Prediction | Outcome]) -> list[int]:
    return [(record.timestamp - T0) // 1000 for record in found]


def test_predictions_by_time_newest_first(store: HotStore) -> None:
    write(store, *predictions(*range(10)), sequence=1)
    found = store.predictions("BTCUSDT", T0 + 2000, T0 + 5000, 100)
    assert seconds_of(found) == [5, 4, 3, 2]
    assert seconds_of(store.predictions("BTCUSDT", 0, T0 + 5999, 2)) == [5, 4]
    assert store.predictions("BTCUSDT", T0 + 60_000, T0 + 70_000, 5) == []
    assert store.predictions("ETHUSDT", 0, T0 + 60_000, 5) == []


def test_a_prediction_by_its_instant(store: HotStore) -> None:
    write(store, *predictions(3, 4), sequence=1)
    assert store.prediction("BTCUSDT", T0 + 3000) == records.prediction(T0 + 3000)
    assert store.prediction("BTCUSDT", T0 + 3500) is None


def test_a_prediction_in_between_is_found_by_its_instant(store: HotStore, redis_client: redis.Redis) -> None:
    writes, receipt = Writes(), records.prediction(T0 + 3400)
    writes.recent(receipt)
    assert commit(store, state(1), 0, writes)
    assert store.prediction("BTCUSDT", T0 + 3400) == receipt
    assert store.history("BTCUSDT", 10) == []
    assert redis_client.xlen("predictions:BTCUSDT:recent") == 1


def test_the_newest_forecasts_come_with_the_time_of_the_store(
    store: HotStore, redis_client: redis.Redis
) -> None:
    assert store.answer([("BTCUSDT", 0, forecast(1)), ("ETHUSDT", 0, None)]) == [0, 0]
    assert latest(store, "ETHUSDT", "BTCUSDT") == [None, forecast(1)]
    _, time_ms = store.values_at(["prediction:BTCUSDT:latest"])
    seconds, _ = redis_client.time()
    assert abs(time_ms / 1000 - seconds) < 60


def test_an_answer_on_an_outdated_sequence_is_not_written(store: HotStore) -> None:
    assert store.answer([("BTCUSDT", 0, forecast(1))]) == [0]
    assert commit(store, state(5), 0)
    answers = [("BTCUSDT", 4, forecast(2)), ("ETHUSDT", 0, forecast(3, "ETHUSDT"))]
    assert store.answer(answers) == [5, 0]
    assert latest(store, "BTCUSDT", "ETHUSDT") == [forecast(1), forecast(3, "ETHUSDT")]
    assert store.answer([("BTCUSDT", 5, forecast(2))]) == [5]
    assert latest(store, "BTCUSDT") == [forecast(2)]


def test_a_commit_says_what_time_it_is_in_the_store(store: HotStore, redis_client: redis.Redis) -> None:
    assert store.time_us == -1
    assert commit(store, state(5), 0)
    seconds, _ = redis_client.time()
    assert abs(store.time_us / 1e6 - seconds) < 60


def test_outcomes_of_a_prediction_and_by_target(store: HotStore) -> None:
    write(store, outcome(3, 1), outcome(2, 2), outcome(3, 2), outcome(0, 5), outcome(3, 5), sequence=1)
    delivered_ms = outcome(3, 1).target_time - 1000
    found = store.outcomes("BTCUSDT", delivered_ms, (1, 2, 5, 10))
    assert seconds_of(list(found.values())) == [3, 3, 3]
    assert list(found) == [1, 2, 5]
    behind = store.entries_after("outcomes:BTCUSDT", f"{delivered_ms + 1000}-1", 2)
    assert [id_ for id_, _ in behind] == [
        f"{delivered_ms + 1000}-2",
        f"{delivered_ms + 2000}-2",
    ]
    outcomes = [decode(Outcome, data) for _, data in behind]
    targets = [((each.target_time - T0) // 1000, each.horizon_s) for each in outcomes]
    assert targets == [(4, 2), (5, 2)]
    assert len(store.entries_after("outcomes:BTCUSDT", "0-0", 100)) == 5


def test_a_record_that_lacks_a_field_is_an_error_that_names_it(
    store: HotStore, redis_client: redis.Redis
) -> None:
    redis_client.set("accuracy:BTCUSDT", '{"symbol": "BTCUSDT"}')
    with pytest.raises(ValueError, match="scored_ms"):
        store.accuracy("BTCUSDT")
    assert store.accuracy("ETHUSDT") is None
    redis_client.set("accuracy:BTCUSDT", "{}")
    assert store.accuracy("BTCUSDT") is None


@pytest.mark.parametrize(
    "receipt",
    [
        "{",
        "[]",
        "{}",
        '{"timestamp": "noon", "last_trade_id": "x"}',
        '{"id": "BTCUSDT-1", "timestamp": 1, "symbol": "BTCUSDT"}',
        json.dumps(to_builtins(records.prediction(T0 + 1000), str_keys=True) | {"calibrator": [1]}),
        json.dumps(to_builtins(records.prediction(T0 + 1000), str_keys=True) | {"trade_age_ms": "x"}),
    ],
)
@pytest.mark.parametrize(
    "ledger",
    ["[]", "{}", '{"gaps": 1, "quote_gaps": []}', '{"gaps": [{}], "quote_gaps": [], "forgotten_trades": 0}'],
)
def test_unreadable_receipts_and_ledgers_are_not_recalled(
    store: HotStore, redis_client: redis.Redis, receipt: str, ledger: str
) -> None:
    """Among them a receipt of an older version, which lacks fields."""
    write(store, *predictions(0), sequence=1)
    redis_client.xadd("predictions:BTCUSDT", {"json": receipt}, id=f"{T0 + 1000}-0")
    redis_client.set("gaps:BTCUSDT", ledger)
    recalled = store.recall("BTCUSDT")
    assert [pending.timestamp for pending in recalled.pending.pending] == [T0]
    assert recalled.ring.gaps.gaps == []


def test_a_second_is_never_written_twice(store: HotStore) -> None:
    """As when a state is lost, and the stream delivers again seconds that have predictions already."""
    write(store, *predictions(1, 2, 3, model_id="first"), sequence=1)
    write(store, *predictions(2, 3, 4, model_id="second"), outcome(3, 1), outcome(3, 1), sequence=2)
    kept = store.history("BTCUSDT", 10)
    assert seconds_of(kept) == [4, 3, 2, 1]
    assert [prediction.model_id for prediction in kept] == ["second", *["first"] * 3]
    assert len(store.entries_after("outcomes:BTCUSDT", "0-0", 10)) == 1
    assert [id_ for id_, _ in store.entries_after("predictions:BTCUSDT", f"{T0 + 2000}-0", 10)] == [
        f"{T0 + 3000}-0",
        f"{T0 + 4000}-0",
    ]


@pytest.mark.parametrize("key", ["predictions:BTCUSDT", "outcomes:BTCUSDT", "state:BTCUSDT", "gaps:BTCUSDT"])
def test_a_key_of_another_type_is_replaced(store: HotStore, redis_client: redis.Redis, key: str) -> None:
    write(store, *predictions(0), outcome(0, 1), sequence=1)
    redis_client.delete(key)
    redis_client.lpush(key, "not what it should be")
    states, _ = store.load(["BTCUSDT"])
    writes = Writes()
    writes.prediction(predictions(1)[0])
    writes.outcome(outcome(1, 1))
    writes.gaps("BTCUSDT", GapLedger().record())
    assert commit(store, state(2), states["BTCUSDT"].sequence, writes)
    assert seconds_of(store.history("BTCUSDT", 1)) == [1]
    assert len(store.entries_after("outcomes:BTCUSDT", f"{T0}-0", 10)) >= 1
    assert store.load(["BTCUSDT"])[0]["BTCUSDT"].sequence == 2
    assert store.answer([("BTCUSDT", 2, forecast(1))]) == [2]
    assert store.gaps(["BTCUSDT"]) == {"BTCUSDT": GapLedger().record()}


def test_a_number_that_is_not_finite_is_written_as_null_or_not_at_all() -> None:
    writes = Writes()
    (prediction,) = predictions(1, inference_ms=math.nan)
    writes.prediction(prediction)
    assert [json.loads(data)["inference_ms"] for *_, data in writes.append] == [None]
    for name in ("confidence", "basis_price"):
        with pytest.raises(ValueError, match=name):
            writes.prediction(replace(prediction, **{name: math.inf}))


def test_streams_are_capped(store: HotStore, redis_client: redis.Redis) -> None:
    write(store, *predictions(*range(keys.PREDICTIONS_KEPT + 500)), sequence=1)
    assert keys.PREDICTIONS_KEPT <= redis_client.xlen("predictions:BTCUSDT") < keys.PREDICTIONS_KEPT + 500


def test_a_commit_on_an_outdated_sequence_writes_nothing(store: HotStore, redis_client: redis.Redis) -> None:
    assert commit(store, state(5, late_count=1), 0)
    writes = Writes()
    writes.prediction(predictions(1)[0])
    assert not commit(store, state(4, late_count=99), 0, writes)
    again, problems = store.load(["BTCUSDT"])
    assert (again["BTCUSDT"].sequence, again["BTCUSDT"].ring.trade_ids.late_count, problems) == (5, 1, [])
    assert redis_client.get("prediction:BTCUSDT:latest") is None


def test_a_commit_that_is_neither_written_nor_overtaken_is_tried_again(store: HotStore) -> None:
    """Another invocation wrote a part of the batch: acknowledging it would lose the rest."""
    assert commit(store, state(5), 0)
    commits = [commit_of(state(7), 4), commit_of(state(7, "ETHUSDT"), 0)]
    with pytest.raises(Overtaken, match="a part of the batch: BTCUSDT$"):
        store.commit_all(commits)
    states, _ = store.load(["BTCUSDT", "ETHUSDT"])
    assert [each.sequence for each in states.values()] == [5, 7]
    # Nothing was lost, and no ledger says so.
    assert states["BTCUSDT"].ring.gaps.notices == []
    states["BTCUSDT"].sequence = 7
    assert commit(store, states["BTCUSDT"], 5)


def test_a_store_that_went_back_is_distinguished_from_another_invocation(
    store: HotStore, redis_client: redis.Redis
) -> None:
    """Only the symbol whose stored state is older than the one that was read has lost something."""
    states = [state(6, symbol, newest_us=10**15) for symbol in ("BTCUSDT", "ETHUSDT")]
    assert store.commit_all([commit_of(each, 0) for each in states]) == [Committed.WRITTEN] * 2
    redis_client.hset("state:BTCUSDT", "sequence", 3)
    commits = [commit_of(state(9), 6), commit_of(state(9, "ETHUSDT"), 5)]
    with pytest.raises(StoreWentBack, match="than were read: BTCUSDT$"):
        store.commit_all(commits)
    loaded, _ = store.load(["BTCUSDT", "ETHUSDT"])
    causes = {s: [notice.cause for notice in each.ring.gaps.notices] for s, each in loaded.items()}
    assert causes == {"BTCUSDT": [WRITES_LOST], "ETHUSDT": []}


@pytest.mark.parametrize("stored", [b"5", None])
def test_a_store_that_went_back_between_reading_and_writing(
    store: HotStore, redis_client: redis.Redis, stored: bytes | None
) -> None:
    assert commit(store, state(6), 0)
    redis_client.delete("state:BTCUSDT")
    if stored:
        redis_client.hset("state:BTCUSDT", "sequence", stored)
    with pytest.raises(StoreWentBack):
        commit(store, state(7), 6)


def test_an_older_state_is_reported_once_and_then_accepted(
    store: HotStore, redis_client: redis.Redis
) -> None:
    assert commit(store, state(5, newest_us=10**15), 0)
    older: Any = redis_client.hgetall("state:BTCUSDT")
    assert commit(store, state(6), 5)
    redis_client.hset("state:BTCUSDT", mapping=older)
    with pytest.raises(StoreWentBack, match="BTCUSDT"):
        store.load(["BTCUSDT", "ETHUSDT"])
    for _ in range(2):  # until it was written
        states, problems = store.load(["BTCUSDT", "ETHUSDT"])
        assert states["BTCUSDT"].sequence == 5
        assert [notice.cause for notice in states["BTCUSDT"].ring.gaps.notices] == [WRITES_LOST]
        assert states["ETHUSDT"].ring.gaps.notices == []
    states["BTCUSDT"].sequence = 7
    assert commit(store, states["BTCUSDT"], 5)
    assert len(store.load(["BTCUSDT"])[0]["BTCUSDT"].ring.gaps.notices) == 1


def test_a_process_that_is_ahead_is_not_a_store_that_went_back(
    store: HotStore, redis_client: redis.Redis
) -> None:
    other = HotStore(redis_client, SETTINGS.lateness_us)
    assert commit(store, state(5), 0)
    assert commit(other, state(9), 5)
    assert not commit(store, state(8), 5)
    assert store.load(["BTCUSDT"])[0]["BTCUSDT"].sequence == 9


def test_a_full_store_refuses_whole_symbols_and_recovers(store: HotStore, redis_client: redis.Redis) -> None:
    write(store, *predictions(1), sequence=1)
    before = redis_client.hgetall("state:BTCUSDT")
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreFull, match="the store is full"):
            write(store, *predictions(2), outcome(1, 1), sequence=2)
        with pytest.raises(StoreFull):
            store.answer([("BTCUSDT", 1, forecast(1))])
        assert records.known(store.fullness()) > 1
        assert redis_client.hgetall("state:BTCUSDT") == before
        assert seconds_of(store.history("BTCUSDT", 10)) == [1]
        assert not redis_client.exists("outcomes:BTCUSDT")
    finally:
        redis_client.config_set("maxmemory", 0)
    assert store.fullness() is None
    write(store, *predictions(2), outcome(1, 1), sequence=2)
    assert seconds_of(store.history("BTCUSDT", 10)) == [2, 1]


def test_every_key_of_a_symbol_expires(store: HotStore, redis_client: redis.Redis) -> None:
    writes = Writes()
    writes.features(records.features(1), 60)
    writes.prediction(predictions(1)[0])
    writes.outcome(outcome(1, 1))
    beat = StreamHeartbeat(at_ms=1, watermark_ms=1, received_ms=1, model_problem=None)
    writes.heartbeat("predict_stream", "BTCUSDT", beat)
    writes.gaps("BTCUSDT", GapLedger().record())
    writes.recent(predictions(2)[0])
    assert store.answer([("BTCUSDT", 0, forecast(1))]) == [0]
    assert commit(store, state(1), 0, writes)
    lives = {key: redis_client.ttl(key) for key in redis_client.scan_iter()}
    assert len(lives) == 9
    assert all(0 < life <= 24 * 3600 for life in lives.values()), lives


def test_symbols_are_committed_independently(store: HotStore) -> None:
    assert commit(store, state(5), 0)
    commits = [commit_of(state(4), 3), commit_of(state(6, "ETHUSDT"), 0)]
    assert store.commit_all(commits) == [Committed.FENCED, Committed.WRITTEN]
    assert store.commit_all(commits[1:]) == [Committed.FOUND]
    states, _ = store.load(["BTCUSDT", "ETHUSDT"])
    assert [each.sequence for each in states.values()] == [5, 6]
    assert store.commit_all([]) == []


def test_a_commit_sent_twice_is_written_once(store: HotStore, redis_client: redis.Redis) -> None:
    write(store, *predictions(1), sequence=1)
    write(store, *predictions(1), sequence=1)
    assert redis_client.xlen("predictions:BTCUSDT") == 1


def test_a_script_the_server_lost_is_loaded_again(store: HotStore, redis_client: redis.Redis) -> None:
    write(store, *predictions(1), sequence=1)
    redis_client.script_flush()
    write(store, *predictions(2), sequence=2)
    assert redis_client.xlen("predictions:BTCUSDT") == 2


@pytest.mark.parametrize(
    "stored",
    [
        '{"repaired": [[5, 7, 10, 20]], "withheld": [[8, 9, 10, 20]]}',
        '{"repaired": [[5, 7]], "withheld": [[8, 9]]}',  # as older versions wrote it
    ],
    ids=["with times", "without"],
)
def test_repairs_are_entered_into_the_ledger_when_the_state_is_read(
    store: HotStore, redis_client: redis.Redis, stored: str
) -> None:
    first = state(1)
    first.ring.gaps.missing(5, 9, 10, 20)
    assert commit(store, first, 0)
    redis_client.set("repaired:BTCUSDT", stored)
    states, problems = store.load(["BTCUSDT", "ETHUSDT"])
    assert [(gap.first_id, gap.last_id, gap.cause) for gap in states["BTCUSDT"].ring.gaps.gaps] == [
        (8, 9, "withheld by the exchange")
    ]
    assert not states["ETHUSDT"].ring.gaps.gaps
    assert [problem.partition(":")[0] for problem in problems] == ["ETHUSDT"]
