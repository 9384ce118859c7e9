"""The auditor over a real Redis: the records of predict_stream compared with those of archive_ticks."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import redis
from msgspec import UNSET
from msgspec.structs import replace

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import Clock, hot_path
from tests.fixtures.kinesis_events import batch_event
from tests.fixtures.market import START_US, batches, random_ticks
from tests.fixtures.settings import configured
from tests.fixtures.store_at import StoreAt
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.lake import bronze
from tickcast.adapters.postgres.connection import Database
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.onnx_model import export
from tickcast.adapters.settings import (
    AuditPredictionsSettings,
    DatabaseSettings,
    ServePredictionsSettings,
)
from tickcast.features.vector import FEATURE_HASH
from tickcast.functions import audit_predictions
from tickcast.functions.archive_ticks import archive
from tickcast.functions.audit_predictions import (
    MODELS_KEPT,
    Auditor,
    AuditPredictions,
    Result,
    sample_slices,
)
from tickcast.functions.health import Health
from tickcast.market.wire import TickBatch
from tickcast.model.card import Card
from tickcast.model.forecast import HORIZONS_S, PATH_S, Calibration
from tickcast.model.network import Inputs, Network
from tickcast.units import HOUR_US

MINUTE_US = 60_000_000
SECONDS = 200
SETTINGS = configured(AuditPredictionsSettings, SYMBOLS="BTCUSDT", AUDIT_EVERY_MINUTES=1, AUDIT_SAMPLE=3)
STREAMS = ("predictions:BTCUSDT", "predictions:BTCUSDT:recent")
NOW_MS = START_US / 1000 + SECONDS * 1000 + 180_000

NO_DATABASE = Database(configured(DatabaseSettings, DATABASE_PORT=9))


def put_model(s3: Any, model_id: str, seed: int) -> None:
    """A model of random weights, with a matching card."""
    inputs = Inputs(
        odd=("imbalance", "microprice"), even=("spread",), masked=("return_1s",), flat=("trade_age",)
    )
    network, rng = Network.zeros(inputs, hidden=4), np.random.default_rng(seed)
    for values in network.weights.values():
        values += rng.normal(0, 0.3, values.shape)
    calibration = {h: Calibration(direction_slope=2.0, interval_width=1.0) for h in HORIZONS_S}
    card = Card(model_id=model_id, feature_hash=FEATURE_HASH, path_s=list(PATH_S), calibration=calibration)
    model_registry.save(s3, BUCKET, export(network), card)


def audit(
    client: redis.Redis,
    s3: Any,
    settings: AuditPredictionsSettings = SETTINGS,
) -> Result:
    """Three minutes after the market's end."""
    return AuditPredictions(settings, client, s3, NO_DATABASE, lambda: NOW_MS)(lambda: 120_000)


def entries_of(client: redis.Redis, stream: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: Any = client.xrange(stream)
    return list(found)


def ms(entry: bytes) -> int:
    return int(entry.partition(b"-")[0])


def sampled_ms(client: redis.Redis) -> list[int]:
    """The instants of the predictions that are audited: the first in each slice."""
    kept_ms = sorted(ms(entry) for stream in STREAMS for entry, _ in entries_of(client, stream))
    slices = sample_slices(NOW_MS, SETTINGS.audit_every_ms, SETTINGS.audit_sample)
    return [next(at_ms for at_ms in kept_ms if start <= at_ms < end) for start, end in slices]


def predict_all(client: redis.Redis, s3: Any, stream: list[TickBatch]) -> None:
    """Run the hot path over a stream."""
    clock = Clock()
    predict = hot_path(HotStore(client, SETTINGS.lateness_us), s3, clock)
    for n, piece in enumerate(stream):
        clock.ms = piece.watermark_us / 1000 + 150
        result = predict(batch_event(n, piece))
        assert n == 0 or not result.problems, result.problems


# By key: what Redis dumps of it, and its time to live in ms, 0 where it does not expire.
Stored = dict[bytes, tuple[bytes, int]]


def stored(client: redis.Redis) -> Stored:
    keys: Any = client.keys()
    times: Any = [client.pttl(key) for key in keys]
    dumps: Any = [client.dump(key) for key in keys]
    return {key: (dump, max(ms, 0)) for key, dump, ms in zip(keys, dumps, times, strict=True) if dump}


@pytest.fixture(scope="module")
def predicted() -> Stored:
    """What the hot path leaves in Redis: the first test that runs it enters it, since it takes seconds."""
    return {}


@pytest.fixture
def run(redis_client: redis.Redis, s3: Any, predicted: Stored) -> Callable[..., Result]:
    """Runs the hot path and the archive over a market, and audits it some minutes later."""
    put_model(s3, "m1", 1)
    put_model(s3, "m2", 2)
    model_registry.promote(s3, BUCKET, "m1", "2026-01-01T00:00:00+00:00", challenger="m2")
    cuts = [START_US + k * 250_000 for k in range(SECONDS * 4)]
    stream = list(batches(*random_ticks(1, SECONDS, trades_s=10, quotes_s=20), cuts))
    if not predicted:
        predict_all(redis_client, s3, stream)
        predicted |= stored(redis_client)
    redis_client.flushall()
    for key, (dumped, ttl_ms) in predicted.items():
        redis_client.restore(key, ttl_ms, dumped)

    def audited(archived_us: int = SECONDS * 1_000_000, every: int = 60) -> Result:
        for start in range(0, len(stream), every):
            pieces = [
                piece
                for piece in stream[start : start + every]
                if piece.watermark_us <= START_US + archived_us
            ]
            if pieces:
                archive(batch_event(start, *pieces), s3, BUCKET, SchemaRegistry(s3, BUCKET))
        return audit(redis_client, s3)

    return audited


def heartbeat(client: redis.Redis, service: str) -> dict[str, Any]:
    text = client.get(f"heartbeat:{service}")
    assert text is not None, service
    found: dict[str, Any] = json.loads(text)
    return found


def bronze_keys(s3: Any) -> list[str]:
    return [i["Key"] for i in s3.list_objects_v2(Bucket=BUCKET, Prefix="bronze/").get("Contents", [])]


def archived(s3: Any) -> list[bronze.StreamPart]:
    """The objects of trades and quotes, in the order of the stream."""
    keys = [key for key in bronze_keys(s3) if key.startswith("bronze/source=sim/")]
    parts = [part for key in keys if (part := bronze.stream_part(key))]
    return sorted(parts, key=lambda part: part.first_sequence)


def put_reference(s3: Any, part: bronze.StreamPart) -> None:
    """Put the object of reference quotes of the event of `part`."""
    folder = bronze.prefix("sim_usdm", "BTCUSDT", part.from_us)
    s3.put_object(Bucket=BUCKET, Key=folder + part.key.rpartition("/")[2], Body=bronze.write_file([]))


def test_a_sample_is_reproduced(run: Callable[..., Result], redis_client: redis.Redis, s3: Any) -> None:
    result = run()
    assert (result.audited, result.differences, result.pending) == (3, [], {})
    beat = heartbeat(redis_client, "audit_predictions")
    assert (beat["ok"], beat["why"], beat["audited"], beat["differences"]) == (True, None, 3, 0)
    assert beat["at_ms"] == START_US // 1000 + SECONDS * 1000 + 180_000
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="audit/")
    archive_beat = heartbeat(redis_client, "archive_ticks")
    assert (archive_beat["ok"], archive_beat["objects"]) == (True, len(bronze_keys(s3)))
    newest_us = archive_beat["newest_us"]["BTCUSDT"]
    assert START_US + (SECONDS - 1) * 1_000_000 < newest_us <= START_US + SECONDS * 1_000_000
    store = StoreAt(redis_client, SETTINGS.lateness_us)
    store.at_ms = lambda: beat["at_ms"]
    settings = configured(ServePredictionsSettings, SYMBOLS="BTCUSDT")
    health = Health(settings, store, store.at_ms, SymbolSet(settings.symbols))().body
    assert health["services"]["audit"]["ok"] and health["services"]["archive"]["ok"]


def test_a_changed_tick_in_bronze_is_found_and_kept_for_study(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    run()
    changed = 0
    for key in bronze_keys(s3):
        rows = list(bronze.read_file(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read(), key))
        for row in rows:
            if row["kind"] == "quote" and row["update_id"] % 500 == 5:
                row["bid_qty"] += 1.0
                changed += 1
        s3.put_object(Bucket=BUCKET, Key=key, Body=bronze.write_file(rows))
    assert changed
    result = audit(redis_client, s3)
    assert result.audited == 3 and result.differences
    beat = heartbeat(redis_client, "audit_predictions")
    assert not beat["ok"] and "are not what bronze says" in beat["why"]
    for prediction_id in result.differences:
        body = s3.get_object(Bucket=BUCKET, Key=f"audit/differences/{prediction_id}.json")["Body"]
        study = json.load(body)
        assert study["receipt"]["id"] == prediction_id
        assert study["differences"] and study["bronze"]


def test_another_model_in_the_same_place_is_found(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    run()
    put_model(s3, "m1", 3)
    result = audit(redis_client, s3)
    assert len(result.differences) == 3


def test_predictions_not_archived_yet_are_pending(
    run: Callable[..., Result], redis_client: redis.Redis
) -> None:
    result = run(archived_us=20_000_000)
    assert result.audited == 0 and len(result.pending) == 3
    assert all("bronze does not hold all its ticks yet" in why for why in result.pending.values())
    beat = heartbeat(redis_client, "audit_predictions")
    assert not beat["ok"] and "none of 3 predictions could be audited" in beat["why"]


def test_an_event_of_which_only_some_objects_are_written_is_pending(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    """The archive writes an event's reference quotes, and its ticks of another hour, as other objects."""
    run()
    *_, part = archived(s3)
    s3.delete_object(Bucket=BUCKET, Key=part.key)
    put_reference(s3, part)
    receipts = StoreAt(redis_client, SETTINGS.lateness_us).history("BTCUSDT", 200)
    auditor = Auditor(s3, BUCKET)
    last = next(each for each in receipts if int(each.sequence or 0) > part.first_sequence)
    audited = auditor(last, [], [], auditor.reader())
    assert "bronze does not hold all its ticks yet" in audited.reproduction.unproven[0]


class Listed:
    """S3, and the prefixes that are listed there; `then` is called after the first listing of `first`."""

    def __init__(self, s3: Any, first: str = "", then: Callable[[], object] = lambda: None) -> None:
        self.prefixes: list[str] = []
        self._s3 = s3
        self._first = first
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def get_paginator(self, name: str) -> Any:
        paginator = self._s3.get_paginator(name)

        def paginate(**request: Any) -> Iterator[Any]:
            yield from paginator.paginate(**request)
            self.prefixes.append(prefix := request["Prefix"])
            if prefix == self._first and self.prefixes.count(prefix) == 1:
                self._then()

        return SimpleNamespace(paginate=paginate)


@pytest.mark.parametrize("had_reference", [True, False])
def test_objects_written_while_folders_are_listed_are_read(
    run: Callable[..., Result], s3: Any, had_reference: bool
) -> None:
    """What shows that an event is complete may be listed after the folder that lacks it, and be the first
    object of its source."""
    run()
    *_, zero, first, second = archived(s3)
    late = s3.get_object(Bucket=BUCKET, Key=first.key)["Body"].read()
    s3.delete_object(Bucket=BUCKET, Key=first.key)
    s3.delete_object(Bucket=BUCKET, Key=second.key)
    next_us = first.to_us // HOUR_US * HOUR_US + HOUR_US
    if had_reference:
        put_reference(s3, zero)

    def write() -> None:
        s3.put_object(Bucket=BUCKET, Key=first.key, Body=late)
        put_reference(s3, first)
        if had_reference:
            put_reference(s3, second)
        else:  # a trade of the hour that has just begun
            name = second.key.rpartition("/")[2]
            key = bronze.prefix("sim", "BTCUSDT", next_us) + name
            s3.put_object(Bucket=BUCKET, Key=key, Body=b"")

    folder = bronze.prefix("sim", "BTCUSDT", first.from_us)
    s3_listed = Listed(s3, folder, write)
    reader = Auditor(s3_listed, BUCKET).reader()
    assert reader.reach("BTCUSDT", first.from_us, next_us).complete_below > first.last_sequence
    span = "BTCUSDT", first.from_us, first.to_us + 1
    found = [part.key for part in reader.parts(*span, first.last_sequence)]
    assert first.key in found
    assert any(key.startswith("bronze/source=sim_usdm/") for key in found)
    assert s3_listed.prefixes.count(folder) == 2
    before = list(s3_listed.prefixes)
    reader.parts(*span, first.last_sequence)
    assert s3_listed.prefixes == before


def test_a_folder_that_has_a_later_event_is_listed_once(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    run()
    first, second, *_ = archived(s3)
    put_reference(s3, second)
    s3_listed = Listed(s3)
    assert audit(redis_client, s3_listed).audited == 3
    folders = [each for each in s3_listed.prefixes if each.startswith("bronze/source=sim/")]
    assert len(set(folders)) == len(folders) > 0


def test_an_archive_that_stalls_is_reported(
    run: Callable[..., Result], redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tickcast.functions.audit_predictions.BEHIND_MS", 60_000)
    run(archived_us=100_000_000)
    beat = heartbeat(redis_client, "archive_ticks")
    assert not beat["ok"]
    assert beat["why"].startswith("BTCUSDT: bronze is ") and beat["why"].endswith("s behind the hot path")


def test_only_the_objects_needed_are_read(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    run(every=20)
    read: list[str] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(s3, name)

        def get_object(self, **request: Any) -> Any:
            read.append(request["Key"])
            return s3.get_object(**request)

    auditor = Auditor(Watched(), BUCKET)
    store = HotStore(redis_client, SETTINGS.lateness_us)
    from_ms = START_US // 1000 + 30_000
    receipt = store.predictions("BTCUSDT", from_ms, from_ms + 2000, 10)[-1]
    found = auditor(receipt, [receipt], [], auditor.reader())
    assert found.reproduction.same is True
    from_bronze = [key for key in read if key.startswith("bronze/")]
    assert from_bronze == [each.key for each in found.objects]
    assert 0 < len(from_bronze) < len(bronze_keys(s3)) / 2


def test_fetched_history_and_repairs_are_not_audited_against(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    run()
    key = bronze_keys(s3)[0]
    body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    folder, name = key.rsplit("/", 1)
    for other in (f"{folder}/history-000001.avro", f"{folder.replace('source=sim', 'source=rest')}/{name}"):
        rows = [row | {"bid_qty": 1.0} for row in bronze.read_file(body, key)]
        s3.put_object(Bucket=BUCKET, Key=other, Body=bronze.write_file(rows))
    assert audit(redis_client, s3).audited == 3


def test_without_predictions_there_is_nothing_to_audit_and_nothing_wrong(
    redis_client: redis.Redis, s3: Any
) -> None:
    result = AuditPredictions(SETTINGS, redis_client, s3, NO_DATABASE, lambda: START_US / 1000)(
        lambda: 120_000
    )
    assert (result.audited, result.why) == (0, None)
    assert heartbeat(redis_client, "audit_predictions")["ok"]
    assert heartbeat(redis_client, "archive_ticks")["ok"]


def test_where_time_is_short_each_symbol_has_its_turn(redis_client: redis.Redis, s3: Any) -> None:
    settings = configured(AuditPredictionsSettings, SYMBOLS="BTCUSDT,ETHUSDT", AUDIT_EVERY_MINUTES=1)
    clock, left_out = Clock(), []
    for clock.ms in (NOW_MS, NOW_MS + 60_000):
        result = AuditPredictions(settings, redis_client, s3, NO_DATABASE, clock)(lambda: 0)
        assert all("no time was left" in why for why in result.pending.values())
        left_out.append(list(result.pending))
        assert heartbeat(redis_client, "audit_predictions")["pending"] == 1
    assert sorted(left_out) == [["BTCUSDT"], ["ETHUSDT"]]


def test_slices_are_old_enough_and_shift_with_time() -> None:
    seconds = set()
    for period in range(200):
        now_ms = START_US // 1000 + period * 300_000 + 1234
        slices = sample_slices(now_ms, 300_000, 2)
        assert slices[:-1] == sample_slices(now_ms + 10, 300_000, 2)[:-1]
        assert len(slices) == 2 and slices[-1] == (now_ms - 240_000, now_ms - 180_000)
        assert slices[0][0] >= now_ms - 180_000 - 600_000
        assert all(start < end for start, end in slices)
        seconds.add(slices[0][0] // 1000 % 60)
    assert len(seconds) == 60


def test_whether_postgresql_answers(
    redis_client: redis.Redis, s3: Any, loader_settings: DatabaseSettings
) -> None:
    with Database(loader_settings) as database:
        AuditPredictions(SETTINGS, redis_client, s3, database, lambda: START_US / 1000)(lambda: 120_000)
    assert heartbeat(redis_client, "postgres")["ok"]
    AuditPredictions(SETTINGS, redis_client, s3, NO_DATABASE, lambda: START_US / 1000)(lambda: 120_000)
    beat = heartbeat(redis_client, "postgres")
    assert (beat["ok"], beat["why"]) == (False, "does not answer (OperationalError)")


def test_unreadable_receipts_of_a_symbol_stop_no_other(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    run()
    period_ms = START_US // 1000 + SECONDS * 1000 - 30_000
    for at_ms in range(period_ms - 170_000, period_ms, 1000):
        receipt = {"id": f"ETHUSDT-{at_ms}", "timestamp": at_ms, "symbol": "ETHUSDT"}
        redis_client.xadd("predictions:ETHUSDT", {"json": json.dumps(receipt)}, id=f"{at_ms}-0")
    both = replace(SETTINGS, symbols=("ETHUSDT", "BTCUSDT"))
    result = audit(redis_client, s3, both)
    assert (result.audited, result.differences) == (3, [])
    assert len(result.pending) == 3
    for id_, why in result.pending.items():
        assert id_.startswith("ETHUSDT-") and why.startswith("the receipt cannot be read: ValidationError")
    (failure,) = result.failures  # of how far it has come
    assert failure.startswith("ETHUSDT: ValidationError")
    assert not heartbeat(redis_client, "audit_predictions")["ok"]
    assert heartbeat(redis_client, "archive_ticks")["ok"]


@pytest.mark.parametrize(
    "change",
    [{"basis_price": "high"}, {"cost_bp": UNSET}, {"horizons": UNSET}, {"closed_us": UNSET}],
    ids=["damaged", "old", "older", "of closed bars"],
)
def test_an_unreadable_receipt_is_pending(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any, change: dict[str, Any]
) -> None:
    """What it lacks is no difference, and the others of its symbol are audited."""
    run()
    slices = sample_slices(NOW_MS, SETTINGS.audit_every_ms, SETTINGS.audit_sample)
    at_ms = sampled_ms(redis_client)[1]
    redis_client.set("gaps:BTCUSDT", "not JSON")
    for stream in STREAMS:
        entries = entries_of(redis_client, stream)
        redis_client.delete(stream)
        for entry, fields in entries:
            data = fields[b"json"]
            receipt = json.loads(data if data.startswith(b"{") else zlib.decompress(data))
            if receipt["timestamp"] == at_ms:
                receipt |= change
            kept = {name: value for name, value in receipt.items() if value is not UNSET}
            redis_client.xadd(stream, {"json": json.dumps(kept)}, id=entry)
    assert slices[1][0] <= at_ms < slices[1][1]
    result = audit(redis_client, s3)
    assert (result.audited, result.differences, result.failures) == (2, [], [])
    ((id_, why),) = result.pending.items()
    assert id_ == f"BTCUSDT-{at_ms}" and why.startswith("the receipt cannot be read: ")


def test_predictions_between_the_seconds_are_sampled_while_they_are_kept(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    assert run().audited == 3
    of_the_second = {ms(entry) for entry, _ in entries_of(redis_client, STREAMS[0])}
    assert {at_ms in of_the_second for at_ms in sampled_ms(redis_client)} >= {False}
    redis_client.delete(STREAMS[1])
    assert all(at_ms in of_the_second for at_ms in sampled_ms(redis_client))
    result = audit(redis_client, s3)
    assert (result.audited, result.differences, result.pending) == (3, [], {})


def test_a_failure_is_reported_without_secrets() -> None:
    result = Result()
    with audit_predictions._as_failure_of("BTCUSDT", result):
        raise ValueError("redis://user:hush-hush@cache\nis wrong")
    assert result.failures == ["BTCUSDT: ValueError: redis://***@cache is wrong"]


def test_the_caches_of_an_auditor_are_bounded(
    run: Callable[..., Result], redis_client: redis.Redis, s3: Any
) -> None:
    """Of models promoted one after the other, and of the objects of an hour, which may be tens of
    thousands."""
    run()
    store = HotStore(redis_client, SETTINGS.lateness_us)
    auditor = Auditor(s3, BUCKET)
    for n, receipt in enumerate(store.history("BTCUSDT", 12)):
        put_model(s3, f"m{n}", n)
        auditor(replace(receipt, model_id=f"m{n}"), [receipt], [], auditor.reader())
        assert len(auditor._models) <= MODELS_KEPT
    assert {"m10", "m11"} <= auditor._models.keys()

    newest_us = START_US + SECONDS * 1_000_000
    hour_us = START_US // 3_600_000_000 * 3_600_000_000
    folder = bronze.prefix("sim", "BTCUSDT", hour_us)
    before = len(bronze_keys(s3))
    others_us = range(hour_us, START_US - 60_000_000, 5_000_000)
    for n, at_us in enumerate(others_us):
        key = bronze.stream_part_key(folder, "shardId-000000000009", (str(n), str(n)), (at_us, at_us + 1))
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"")
    reader = auditor.reader(START_US, newest_us)
    assert reader.reach("BTCUSDT", START_US, newest_us).objects == before + len(others_us)
    assert len(reader.parts("BTCUSDT", hour_us, newest_us, 0)) == before > 0
    assert sum(len(each.parts) for each in reader._listings["BTCUSDT"].values()) == before
