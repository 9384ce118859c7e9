"""The memory that a symbol takes in the hot store, which `cdk/config` checks before a deployment.

`python -m pytest tests/adapters/redis/test_store_memory.py -s` prints the figures of docs/performance.md.
"""

from __future__ import annotations

from typing import Any

import redis
from msgspec.structs import replace

from cdk.config import CACHE_MB_PER_SYMBOL
from tests.fixtures import records
from tests.fixtures.hot_path import (
    SETTINGS,
    START_MS,
    Clock,
    commit,
    hot_path,
    outcomes_in,
    put_model,
    receipts_in,
    save_model,
    ticks_in,
)
from tests.fixtures.kinesis_events import batch_event
from tickcast.adapters.redis.hot_store import HotStore, Writes
from tickcast.adapters.redis.keys import OUTCOMES_KEPT, PREDICTIONS_KEPT, RECENT_KEPT
from tickcast.features.trade_ids import MAX_LATE_IDS
from tickcast.market.gaps import MAX_GAPS
from tickcast.serving.records import encode

MADE_S = 30
LATE_SHARE = 10  # one receipt in so many lists the maximum of late ticks


def used(client: redis.Redis) -> int:
    return int(client.info("memory")["used_memory"])


def test_an_hour_of_a_symbol_fits_into_its_memory_budget(
    redis_client: redis.Redis, s3: Any, clock: Clock
) -> None:
    save_model(s3, "20260102-000000-abcdef")
    put_model(s3, "20260101-000000-abcdef", challenger="20260102-000000-abcdef")
    store = HotStore(redis_client, SETTINGS.lateness_us)
    predict = hot_path(store, s3, clock)
    stream = ticks_in(MADE_S, per_s=40)
    predict(batch_event(0, *stream[:10]))  # loads the script and creates the server's own structures
    redis_client.flushall()
    empty = used(redis_client)
    for n, piece in enumerate(stream):
        clock.ms = piece.watermark_us / 1000 + 150.0
        predict(batch_event(n, piece))
    receipts = store.history("BTCUSDT", 10)
    between = [each for each in receipts_in(redis_client) if each.timestamp > receipts[-1].timestamp]
    outcomes = [outcome for outcome in outcomes_in(store) if outcome.challenger][-40:]
    assert all(receipt.challenger for receipt in receipts) and len(outcomes) == 40
    state = store.load(["BTCUSDT"])[0]["BTCUSDT"]
    for n in range(MAX_GAPS):
        state.ring.gaps.missing(10**9 + 2 * n, 10**9 + 2 * n, 10**15, 10**15)
    end = MADE_S + PREDICTIONS_KEPT
    for begin in range(MADE_S, end, 60):  # a minute per batch, to save time
        writes = Writes()
        for second in range(begin, begin + 60):
            late = [10**10 + second] * (MAX_LATE_IDS if second % LATE_SHARE == 0 else 0)
            receipt = replace(
                receipts[second % 10], late_ids=late, late_update_ids=late, late_reference_ids=late[:10]
            )
            writes.prediction(replace(receipt, timestamp=START_MS + second * 1000))
            for horizon_s, outcome in enumerate(outcomes[second % 10 * 4 :][:4]):
                target_ms = START_MS + second * 1000
                writes.outcome(replace(outcome, target_time=target_ms, horizon_s=horizon_s + 1))
            for n in range(10 if begin >= end - 60 * (RECENT_KEPT // 600 + 1) else 0):
                timestamp = START_MS + second * 1000 + n * 100 + 50
                writes.recent(replace(between[(second + n) % 40], timestamp=timestamp, late_ids=late[:10]))
            if begin == end - 60:
                writes.features(records.features(second, features=receipt.features), 60)
        writes.gaps("BTCUSDT", state.ring.gaps.record())
        read, state.sequence = state.sequence, state.sequence + 1
        assert commit(store, state, read, writes)
    assert redis_client.xlen("predictions:BTCUSDT:recent") >= RECENT_KEPT
    counts = (redis_client.xlen("predictions:BTCUSDT"), redis_client.xlen("outcomes:BTCUSDT"))
    assert counts[0] >= PREDICTIONS_KEPT and counts[1] >= OUTCOMES_KEPT - 100
    taken_mb = (used(redis_client) - empty) / 1e6
    by_key = {
        name: round((redis_client.memory_usage(f"{name}:BTCUSDT", samples=0) or 0) / 1e6, 2)
        for name in ("predictions", "outcomes", "state", "gaps")
    }
    between_key = "predictions:BTCUSDT:recent"
    by_key |= {"recent": round((redis_client.memory_usage(between_key, samples=0) or 0) / 1e6, 2)}
    sizes = {"receipt": len(encode(receipts[0])), "outcome": len(encode(outcomes[0]))}
    print(f"a symbol: {taken_mb:.1f} MB, of which {by_key}; bytes {sizes}")
    assert CACHE_MB_PER_SYMBOL / 2 < taken_mb < CACHE_MB_PER_SYMBOL
