import json
from typing import Any

import pytest

from tests.fixtures.aws import BUCKET
from tests.fixtures.kinesis_events import FIRST_SEQUENCE, batch_event, event, record
from tests.fixtures.market import START_US, batch, batches, random_reference, random_ticks
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.lake import bronze
from tickcast.adapters.lake.bronze_reader import BronzeReader, fetch, objects_of, ticks_of
from tickcast.functions.archive_ticks import ArchiveResult, archive
from tickcast.market import wire
from tickcast.market.sources import Origin
from tickcast.market.ticks import Quotes, Trades, span_us


def run(s3: Any, sent: dict[str, Any]) -> ArchiveResult:
    return archive(sent, s3, BUCKET, SchemaRegistry(s3, BUCKET))


def keys(s3: Any, prefix: str = "") -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]


def archived(s3: Any, prefix: str = "bronze/") -> tuple[Trades, Quotes, Quotes]:
    rows: list[dict[str, Any]] = []
    for key in keys(s3, prefix):
        rows += bronze.read_file(s3.get_object(Bucket=BUCKET, Key=key)["Body"].read(), key)
    return bronze.ticks_from(rows)


def test_every_tick_is_in_bronze_exactly(s3: Any) -> None:
    trades, quotes = random_ticks(1, 5)
    stream = list(batches(trades, quotes, [START_US + k * 100_000 for k in range(50)]))
    outcome = run(s3, batch_event(0, *stream))
    got_trades, got_quotes, _ = archived(s3)
    assert got_trades.tobytes() == trades.tobytes()
    assert got_quotes.tobytes() == quotes.tobytes()
    assert outcome.ticks == len(trades) + len(quotes)
    last = FIRST_SEQUENCE + len(stream) - 1
    folder = "bronze/source=sim/symbol=BTCUSDT/date=2025-07-31/hour=22/"
    first_us, last_us = span_us(trades, quotes) or (0, 0)
    name = f"shardId-000000000000-{FIRST_SEQUENCE}-{last}-{first_us}-{last_us}.avro"
    assert outcome.files == [folder + name]
    assert bronze.stream_part(folder + name) == (
        *(folder + name, "shardId-000000000000", FIRST_SEQUENCE, last),
        *(first_us, last_us),
    )
    assert bronze.stream_part(f"{folder}history-000001.avro") is None


def test_a_repeated_event_overwrites_its_own_files(s3: Any) -> None:
    sent = batch_event(0, batch(*random_ticks(1, 2)))
    run(s3, sent)
    before = {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys(s3)}
    run(s3, sent)
    assert {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys(s3)} == before


def test_an_event_is_split_by_hour_symbol_and_source(s3: Any) -> None:
    trades, quotes = random_ticks(1, 20)
    for rows in (trades, quotes):  # around the full hour before
        rows["time_us"] -= START_US % (3600 * 1_000_000) + 10_000_000
    btc = batch(trades, quotes)
    outcome = run(s3, batch_event(0, btc, btc._replace(symbol="ETHUSDT", source="json")))
    assert sorted(key.rsplit("/", 1)[0] for key in outcome.files) == [
        f"bronze/source={source}/symbol={symbol}/date=2025-07-31/hour={hour}"
        for source, symbol in (("json", "ETHUSDT"), ("sim", "BTCUSDT"))
        for hour in (21, 22)
    ]
    got_trades, *_ = archived(s3, "bronze/source=sim/")
    assert sorted(got_trades["first_id"]) == trades["first_id"].tolist()


def test_reference_quotes_are_kept_apart_from_those_of_spot(s3: Any) -> None:
    trades, quotes = random_ticks(1, 5)
    reference = random_reference(1, quotes)
    outcome = run(s3, batch_event(0, batch(trades, quotes, reference=reference)._replace(source="json")))
    assert outcome.ticks == len(trades) + len(quotes) + len(reference)
    folders = ("bronze/source=json/symbol=BTCUSDT/", "bronze/source=usdm/symbol=BTCUSDT/")
    assert [key for key in outcome.files if not key.startswith(folders)] == []
    spot, perpetual = (archived(s3, folder) for folder in folders)
    assert [rows.tobytes() for rows in spot] == [trades.tobytes(), quotes.tobytes(), b""]
    assert [rows.tobytes() for rows in perpetual] == [b"", b"", reference.tobytes()]
    reader = BronzeReader(s3, BUCKET)
    parts = reader.parts("BTCUSDT", START_US, START_US + 5_000_000, FIRST_SEQUENCE)
    read = reader.ticks("BTCUSDT", parts)
    assert [rows.tobytes() for rows in read] == [each.tobytes() for each in (trades, quotes, reference)]
    objects = [about for folder in folders for about in objects_of(s3, BUCKET, folder)]
    assert len(objects) == 2
    for about in objects:
        ticks = ticks_of(fetch(s3, BUCKET, about.key, about.etag), about)
        assert ticks.origin is Origin.STREAM
        assert (len(ticks.reference) > 0) == about.source.is_reference == (len(ticks.quotes) == 0)


def test_reference_quotes_of_a_source_that_has_none_are_set_aside(s3: Any) -> None:
    trades, quotes = random_ticks(1, 1)
    sent = batch(trades, quotes, reference=random_reference(1, quotes))._replace(source="rest")
    outcome = run(s3, batch_event(0, sent))
    assert outcome.ticks == len(trades) + len(quotes)
    assert "reference quote from source rest, which has none" in outcome.quarantined[0]


def test_a_bad_record_is_quarantined_and_the_rest_archived(s3: Any) -> None:
    trades, quotes = random_ticks(1, 1)
    good = wire.encode(batch(trades, quotes))
    outcome = run(s3, event(record(0, b"garbage"), record(1, good), record(2, good[:50])))
    assert len(outcome.quarantined) == 2
    assert len(archived(s3)[0]) == len(trades)
    assert len(keys(s3, "quarantine/archive_ticks/")) == 4


@pytest.mark.parametrize(
    "name",
    [{"symbol": "BTC/USDT"}, {"symbol": "B" * 1000}, {"symbol": "\x00"}, {"source": "rest/../x"}],
)
def test_an_impossible_name_costs_only_its_record(s3: Any, name: dict[str, Any]) -> None:
    good = batch(*random_ticks(1, 1))
    outcome = run(s3, batch_event(0, good._replace(**name), good))
    assert (outcome.ticks, len(outcome.files), len(outcome.quarantined)) == (good.tick_count, 1, 1)
    assert quarantined(s3) == [f"quarantine/archive_ticks/shardId-000000000000/{FIRST_SEQUENCE}.bin"]


def test_bare_watermarks_make_no_file(s3: Any) -> None:
    trades, quotes = random_ticks(1, 1)
    assert run(s3, batch_event(0, batch(trades[:0], quotes[:0], START_US))).files == []
    assert keys(s3) == []


def test_a_refused_claim_is_reported_and_costs_no_tick(s3: Any) -> None:
    sent = batch(*random_ticks(1, 1), START_US + 86_400_000_000)
    outcome = run(s3, batch_event(0, sent))
    assert len(outcome.problems) == 1 and "the watermark" in outcome.problems[0]
    assert (outcome.ticks, outcome.quarantined) == (sent.tick_count, [])
    assert keys(s3, "quarantine/") == []


@pytest.mark.parametrize("time_us", [2**62, -(2**62), 0, START_US // 1000, START_US + 20_000_000])
def test_an_impossible_time_costs_only_its_row(s3: Any, time_us: int) -> None:
    trades, quotes = random_ticks(1, 1)
    wild = trades.copy()
    wild["time_us"][3] = time_us
    events = batch_event(0, batch(wild, quotes, START_US))
    outcome = run(s3, events)
    assert outcome.ticks == len(trades) + len(quotes) - 1
    assert len(outcome.quarantined) == 1
    kept, reason = (
        s3.get_object(
            Bucket=BUCKET, Key=f"quarantine/archive_ticks/shardId-000000000000/{FIRST_SEQUENCE}-rows.{kind}"
        )
        for kind in ("bin", "json")
    )
    assert wire.decode(kept["Body"].read()).trades.tolist() == [wild[3].item()]
    assert "a time" in json.loads(reason["Body"].read())["reason"]


def quarantined(s3: Any) -> list[str]:
    return [key for key in keys(s3, "quarantine/") if key.endswith(".bin")]


@pytest.mark.parametrize("time_us", [-(10**17), -(10**14), 0])
def test_a_record_of_impossible_times_costs_only_itself(s3: Any, time_us: int) -> None:
    good = batch(*random_ticks(1, 2))
    trades, quotes = random_ticks(2, 1)
    trades["time_us"] = quotes["time_us"] = time_us
    odd = good._replace(trades=trades, quotes=quotes)
    outcome = run(s3, batch_event(0, good._replace(symbol="ETHUSDT"), odd, good))
    got_trades, *_ = archived(s3, "bronze/source=sim/symbol=ETHUSDT/")
    assert got_trades.tobytes() == good.trades.tobytes()
    assert outcome.ticks == 2 * (len(good.trades) + len(good.quotes))
    assert len(outcome.quarantined) == len(quarantined(s3)) == 1


def test_a_record_that_cannot_be_written_costs_only_itself(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trades, quotes = random_ticks(1, 3)
    stream = list(batches(trades, quotes, [START_US + k * 1_000_000 for k in range(1, 3)]))
    bad_id, write_file = int(stream[1].trades["first_id"][0]), bronze.write_file

    def raises(rows: Any) -> bytes:
        if any(row.get("first_trade_id") == bad_id for row in rows):
            raise OverflowError("int too large to convert")
        return write_file(rows)

    monkeypatch.setattr(bronze, "write_file", raises)
    outcome = run(s3, batch_event(0, *stream))
    got_trades, got_quotes, _ = archived(s3)
    kept = [stream[0], stream[2]]
    assert got_trades.tobytes() == b"".join(piece.trades.tobytes() for piece in kept)
    assert outcome.ticks == len(got_trades) + len(got_quotes)
    assert outcome.quarantined == ["OverflowError: int too large to convert"]
    assert quarantined(s3) == [f"quarantine/archive_ticks/shardId-000000000000/{FIRST_SEQUENCE + 1}.bin"]


def test_a_record_and_its_refused_rows_are_both_kept(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(rows: Any) -> bytes:
        raise OverflowError

    trades, quotes = random_ticks(1, 1)
    trades["time_us"][3] = 0
    sent = batch(trades, quotes, START_US)
    monkeypatch.setattr(bronze, "write_file", raises)
    run(s3, batch_event(0, sent))
    folder = f"quarantine/archive_ticks/shardId-000000000000/{FIRST_SEQUENCE}"
    whole, rows = (
        wire.decode(s3.get_object(Bucket=BUCKET, Key=f"{folder}{suffix}.bin")["Body"].read())
        for suffix in ("", "-rows")
    )
    assert whole.trades.tobytes() == trades.tobytes()
    assert rows.trades.tolist() == [trades[3].item()]


def test_records_none_of_which_can_be_written(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(rows: Any) -> bytes:
        raise OverflowError

    monkeypatch.setattr(bronze, "write_file", raises)
    outcome = run(s3, batch_event(0, batch(*random_ticks(1, 1)), batch(*random_ticks(2, 1))))
    assert (outcome.files, outcome.ticks, len(outcome.quarantined)) == ([], 0, 2)
