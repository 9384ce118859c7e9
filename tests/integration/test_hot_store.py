"""What Redis holds, read back by instant; the fence; and entries that are written once."""

from typing import Any

import pytest
import redis

from tests.hot_path import SETTINGS
from tickcast.adapters.hot_store import PREDICTIONS_KEPT, Commit, HotStore, Writes
from tickcast.bars import BarRing
from tickcast.state import SymbolState

T0 = 1_754_000_000_000


def write(store: HotStore, *records: dict[str, Any], sequence: int) -> None:
    """Commit `records` (outcomes, if they have a target) as the batch after `sequence` - 1."""
    writes = Writes()
    for record in records:
        (writes.outcome if "target_time" in record else writes.prediction)({"symbol": "BTCUSDT"} | record)
    assert store.commit(state(sequence), sequence - 1, writes)


def state(sequence: int, symbol: str = "BTCUSDT", **ring: Any) -> SymbolState:
    return SymbolState(symbol, BarRing(SETTINGS.lateness_us, **ring), sequence=sequence)


def predictions(*seconds: int, **more: Any) -> list[dict[str, Any]]:
    return [{"timestamp": T0 + second * 1000} | more for second in seconds]


def outcome(second: int, horizon_s: int) -> dict[str, Any]:
    return {
        "timestamp": T0 + second * 1000,
        "horizon_s": horizon_s,
        "target_time": T0 + (second + horizon_s) * 1000,
    }


def seconds_of(records: list[dict[str, Any]]) -> list[int]:
    return [(record["timestamp"] - T0) // 1000 for record in records]


def test_predictions_by_time_newest_first(store: HotStore) -> None:
    write(store, *predictions(*range(10)), sequence=1)
    found = store.predictions("BTCUSDT", T0 + 2000, T0 + 5000, 100)
    assert seconds_of(found) == [5, 4, 3, 2]
    assert seconds_of(store.predictions("BTCUSDT", 0, T0 + 5999, 2)) == [5, 4]
    assert store.predictions("BTCUSDT", T0 + 60_000, T0 + 70_000, 5) == []
    assert store.predictions("ETHUSDT", 0, T0 + 60_000, 5) == []


def test_a_prediction_by_its_instant(store: HotStore) -> None:
    write(store, *predictions(3, 4), sequence=1)
    assert store.prediction("BTCUSDT", T0 + 3000) == {"symbol": "BTCUSDT", "timestamp": T0 + 3000}
    assert store.prediction("BTCUSDT", T0 + 3500) is None


def test_outcomes_of_a_prediction_and_by_target(store: HotStore) -> None:
    write(store, outcome(3, 1), outcome(2, 2), outcome(3, 2), outcome(0, 5), outcome(3, 5), sequence=1)
    found = store.outcomes("BTCUSDT", T0 + 3000, (1, 2, 5, 10))
    assert seconds_of(list(found.values())) == [3, 3, 3]
    assert list(found) == [1, 2, 5]
    behind = store.outcomes_after("BTCUSDT", f"{T0 + 4000}-1", 2)
    assert [id_ for id_, _ in behind] == [f"{T0 + 4000}-2", f"{T0 + 5000}-2"]
    targets = [((each["target_time"] - T0) // 1000, each["horizon_s"]) for _, each in behind]
    assert targets == [(4, 2), (5, 2)]
    assert len(store.outcomes_after("BTCUSDT", "0-0", 100)) == 5


def test_records_by_key(store: HotStore, redis_client: redis.Redis) -> None:
    redis_client.set("accuracy:BTCUSDT", '{"rows": 5}')
    assert store.record("accuracy:BTCUSDT") == {"rows": 5}
    assert store.record("accuracy:ETHUSDT") is None


def test_a_second_is_never_written_twice(store: HotStore) -> None:
    """As when a state is lost, and the stream delivers again what was predicted on already."""
    write(store, *predictions(1, 2, 3, of="the first"), sequence=1)
    write(store, *predictions(2, 3, 4, of="the second"), outcome(3, 1), outcome(3, 1), sequence=2)
    kept = store.history("BTCUSDT", 10)
    assert seconds_of(kept) == [4, 3, 2, 1]
    assert [prediction["of"] for prediction in kept] == ["the second", *["the first"] * 3]
    assert len(store.outcomes_after("BTCUSDT", "0-0", 10)) == 1
    assert [id_ for id_, _ in store.predictions_after("BTCUSDT", f"{T0 + 2000}-0", 10)] == [
        f"{T0 + 3000}-0",
        f"{T0 + 4000}-0",
    ]


def test_any_other_fault_of_an_entry_is_told(store: HotStore, redis_client: redis.Redis) -> None:
    redis_client.set("predictions:BTCUSDT", "not a stream")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        write(store, *predictions(1), sequence=1)


def test_streams_are_capped(store: HotStore, redis_client: redis.Redis) -> None:
    write(store, *predictions(*range(PREDICTIONS_KEPT + 500)), sequence=1)
    assert PREDICTIONS_KEPT <= redis_client.xlen("predictions:BTCUSDT") < PREDICTIONS_KEPT + 500


def test_a_commit_on_another_s_sequence_writes_nothing(store: HotStore, redis_client: redis.Redis) -> None:
    assert store.commit(state(5, late_trades=1), 0, Writes())
    writes = Writes()
    writes.prediction(predictions(1)[0] | {"symbol": "BTCUSDT"})
    assert not store.commit(state(6, late_trades=99), 0, writes)
    again, problems = store.load(["BTCUSDT"])
    assert (again["BTCUSDT"].sequence, again["BTCUSDT"].ring.late_trades, problems) == (5, 1, [])
    assert redis_client.get("prediction:BTCUSDT:latest") is None


def test_of_several_symbols_each_stands_or_falls_by_itself(store: HotStore) -> None:
    assert store.commit(state(5), 0, Writes())
    commits = [Commit(state(6), 4, Writes()), Commit(state(6, "ETHUSDT"), 0, Writes())]
    assert store.commit_all(commits) == [False, True]
    states, _ = store.load(["BTCUSDT", "ETHUSDT"])
    assert [each.sequence for each in states.values()] == [5, 6]
    assert store.commit_all([]) == []


def test_a_commit_whose_answer_was_lost_is_done_when_sent_again(
    store: HotStore, redis_client: redis.Redis
) -> None:
    write(store, *predictions(1), sequence=1)
    write(store, *predictions(1), sequence=1)
    assert redis_client.xlen("predictions:BTCUSDT") == 1


def test_a_server_that_forgot_the_script_learns_it_again(store: HotStore, redis_client: redis.Redis) -> None:
    write(store, *predictions(1), sequence=1)
    redis_client.script_flush()
    write(store, *predictions(2), sequence=2)
    assert redis_client.xlen("predictions:BTCUSDT") == 2


def test_repairs_are_told_to_the_ledger_when_the_state_is_read(
    store: HotStore, redis_client: redis.Redis
) -> None:
    first = state(1)
    first.ring.gaps.missing(5, 9, 10, 20)
    assert store.commit(first, 0, Writes())
    redis_client.set("repaired:BTCUSDT", '{"repaired": [[5, 7]], "withheld": [[8, 9]]}')
    states, problems = store.load(["BTCUSDT", "ETHUSDT"])
    assert [(gap.first_id, gap.last_id, gap.cause) for gap in states["BTCUSDT"].ring.gaps.gaps] == [
        (8, 9, "withheld by the exchange")
    ]
    assert not states["ETHUSDT"].ring.gaps.gaps
    assert [problem.partition(":")[0] for problem in problems] == ["ETHUSDT"]
