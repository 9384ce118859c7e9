"""The deployed application on the running embedded system, through AWS's own APIs."""

from __future__ import annotations

import contextlib
import io
import json
import math
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import fastavro
import numpy as np
import psycopg
import pytest
from localstack_client.session import Session
from rich.console import Console

from local.commands import explain, gaps, import_model
from local.commands.command import ExitStatus
from local.commands.deployment import Deployment
from local.system import archived_trades, cloud, http_json
from local.system.api import ApiFailed
from local.system.system import System
from tests.fixtures.imported import document, linear
from tests.fixtures.running_system import eventually
from tickcast.adapters.lake import bronze
from tickcast.adapters.registry import model_registry

pytestmark = pytest.mark.integration

FILES = 3  # of bronze: the first may begin in the middle of a batch


def prediction_of_model(system: System, symbol: str) -> dict[str, Any]:
    def ask() -> Any:
        answer = system.api.get(f"predictions/{symbol}")
        return answer.body if answer.status == 200 and answer.body["source"] == "model" else None

    found: dict[str, Any] = eventually(ask)
    return found


def test_both_consumers_read_the_stream(system: System, aws: Session) -> None:
    mappings = aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    assert {m["State"] for m in mappings} == {"Enabled"}
    assert sorted(m["FunctionArn"].rpartition(":")[2].split("-")[3][:12] for m in mappings) == [
        "ArchiveTicks",
        "PredictStrea",
    ]
    streams = {m["EventSourceArn"].rpartition("/")[2] for m in mappings}
    assert streams == {system.outputs["StreamName"]}
    summary = aws.client("kinesis").describe_stream_summary(StreamName=system.outputs["StreamName"])
    assert summary["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE"


def test_the_champion_was_trained_by_the_function(system: System, aws: Session) -> None:
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    pointer = json.load(s3.get_object(Bucket=bucket, Key="models/current.json")["Body"])
    card = json.load(s3.get_object(Bucket=bucket, Key=f"models/{pointer['model_id']}/card.json")["Body"])
    assert card["model_id"] == pointer["model_id"]
    assert card["provisional"] is True
    assert sorted(card["data"]["markets"]) == [f"sim/{symbol}" for symbol in sorted(system.symbols)]


def test_ingest_brings_the_perpetuals_quotes_along(system: System, aws: Session) -> None:
    """From the exchange's second address to bronze, under a source of its own."""
    [address, *_] = system.ingest.values()
    reference = http_json.get(f"{address}/health").body["reference"]
    assert (reference["wanted"], reference["live"], reference["why"]) == (True, True, "")
    assert set(reference["age_s"]) == set(system.symbols)
    assert all(age_s < 10 for age_s in reference["age_s"].values())
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    for symbol in system.symbols:
        prefix = f"bronze/source=sim_usdm/symbol={symbol}/"

        def streamed(prefix: str = prefix) -> list[str]:
            found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
            return [each["Key"] for each in found if "/history-" not in each["Key"]]

        key = eventually(streamed)[-1]
        rows: list[Any] = list(
            fastavro.reader(io.BytesIO(s3.get_object(Bucket=bucket, Key=key)["Body"].read()))
        )
        assert {row["kind"] for row in rows} == {"quote"}


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_predictions_are_served_by_the_model(system: System, symbol: str) -> None:
    served = prediction_of_model(system, symbol)
    assert served["symbol"] == symbol
    assert served["environment"] == "local"
    assert served["lower"] <= served["predicted_price"] <= served["upper"]
    assert 0 <= served["confidence"] <= 1
    assert served["timestamp"] <= served["as_of"]
    assert served["target_time"] == served["as_of"] + 1000 * served["horizon_s"]


def test_a_served_prediction_is_recomputed_from_bronze(system: System) -> None:
    id_ = prediction_of_model(system, "BTCUSDT")["id"]

    def explained() -> bool:
        status = explain.show(id_, system.api_url, system.api_key, Console(file=io.StringIO()))
        assert status is not ExitStatus.FAILED
        return status is ExitStatus.OK

    # Inconclusive until bronze has a later event: where windows are kept, as on LocalStack, that is the next
    # minute's.
    eventually(explained, 180)


def test_features_are_stored_by_their_second_for_a_minute(system: System) -> None:
    prediction_of_model(system, "BTCUSDT")
    with system.redis() as store:
        newest: Any = store.get("features:BTCUSDT:latest")
        features = json.loads(newest)
        key = f"features:BTCUSDT:{features['timestamp']}"
        assert 0 < store.ttl(key) <= 60
        stored: Any = store.get(key)
        assert json.loads(stored) == features
    assert {"price", "volume", "vwap", "price_change", "timestamp"} <= features.keys()


def test_without_a_key_there_is_no_prediction(system: System) -> None:
    answer = http_json.get(f"{system.api_url}predictions/BTCUSDT")
    assert answer.status == 403


@pytest.mark.parametrize(
    ("path", "status"),
    [("predictions/DOGEUSDT", 404), ("predictions/BTCUSDT?horizon=7", 400), ("predictions/BTCUSDT?x=1", 400)],
)
def test_a_wrong_request_gets_a_problem_with_the_reason(system: System, path: str, status: int) -> None:
    answer = http_json.get(f"{system.api_url}{path}", {"x-api-key": system.api_key})
    assert answer.status == status
    assert answer.body["status"] == status
    assert answer.body["detail"]


def test_health_needs_no_key(system: System) -> None:
    prediction_of_model(system, "ETHUSDT")
    answer = http_json.get(f"{system.api_url}health")
    assert (answer.status, answer.body["status"]) == (200, "ok")


def test_bronze_holds_market_data(system: System, aws: Session) -> None:
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]

    def archived() -> list[str]:
        found = s3.list_objects_v2(Bucket=bucket, Prefix="bronze/source=sim/symbol=BTCUSDT/")
        return [o["Key"] for o in found.get("Contents", []) if "/history-" not in o["Key"]]

    key = eventually(archived)[0]
    body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    for record in fastavro.reader(io.BytesIO(body)):
        assert isinstance(record, dict)
        assert (record["symbol"], record["source"]) == ("BTCUSDT", "sim")
        assert math.isnan(record["bid_price"]) == (record["kind"] == "trade")
        assert math.isnan(record["price"]) == (record["kind"] == "quote")


def days_of(system: System, symbol: str) -> list[dict[str, Any]] | None:
    """The newest day of a symbol's data; None while the API does not respond, as after a cold start."""
    with contextlib.suppress(ApiFailed):
        found: list[dict[str, Any]] = system.api.body(f"data/{symbol}", days=1)["days"]
        return found
    return None


def test_the_condition_of_the_data_is_reported_and_shown(system: System, aws: Session) -> None:
    """Of a market that other tests may have left with gaps."""
    name = system.outputs["ReportConditionFunction"]
    result = cloud.invoke(aws.client("lambda"), name, {})
    assert (result["complete"], result["failures"]) == (True, {})
    for symbol in system.symbols:
        [day] = eventually(partial(days_of, system, symbol))
        assert "sim" in day["sources"]
        assert day["hours"]["derived"] + day["hours"]["waiting"] > 0
        assert day["trades"]["condition"] != "missing"
    console = Console(file=io.StringIO(), width=200)
    gaps.show(system.api_url, system.api_key, 1, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "BTCUSDT: data by day (UTC)" in text
    assert day["day"] in text


def test_the_archive_waits_for_its_batch_where_the_emulator_does(system: System, aws: Session) -> None:
    """By the market's own times, of the trades and quotes that are in a file together."""
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    emulator = system.cloud.emulator
    mappings = aws.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    window_s = max(mapping["MaximumBatchingWindowInSeconds"] for mapping in mappings)
    assert system.cloud.batch_window_s() == (window_s if emulator.applies_batch_windows else 0)

    def files() -> Any:
        found = archived_trades.bronze_files(system, "BTCUSDT")
        keys = sorted(key for key in found if "/history-" not in key)
        return keys if len(keys) >= FILES else None

    spans_s = []
    for key in eventually(files, FILES * (window_s + 15)):
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        times_us = [record["timestamp"] for record in bronze.read_file(body, key)]
        spans_s.append((max(times_us) - min(times_us)) / 1_000_000)
    assert (median(spans_s) > window_s / 2) == emulator.applies_batch_windows


def test_a_bad_record_goes_to_quarantine_and_the_stream_continues(system: System, aws: Session) -> None:
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    rubbish = b"not a batch of ticks"
    aws.client("kinesis").put_record(
        StreamName=system.outputs["StreamName"], Data=rubbish, PartitionKey="BTCUSDT"
    )
    eventually(lambda: s3.list_objects_v2(Bucket=bucket, Prefix="quarantine/").get("Contents"))
    before = prediction_of_model(system, "BTCUSDT")["timestamp"]
    eventually(lambda: prediction_of_model(system, "BTCUSDT")["timestamp"] > before)


def test_a_model_of_ones_own_runs_in_the_champion_s_shadow(
    system: System, there: Deployment, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(linear(np.array([[0.1] * 4, [0.0] * 4])))
    now = datetime.now(UTC)
    learned_to = (now - timedelta(days=1)).isoformat()
    (tmp_path / "card.json").write_text(json.dumps(document(learned_to=learned_to)), "utf-8")
    submitted = import_model.submission([tmp_path / "model.onnx"], tmp_path / "card.json", now)
    champion = model_registry.active_model(there.s3, there.bucket)
    found = import_model.submit(there, submitted)
    assert found["imported"], found["why"]
    assert champion and found["in_force"] == champion.model_id and found["seconds"] > 0
    assert found["challenger"] == submitted.model_id, found["sentence"]

    def shadowed() -> Any:
        id_ = prediction_of_model(system, "BTCUSDT")["id"]
        found = system.api.get(f"predictions/BTCUSDT/{id_}").body.get("challenger")
        return found if found and found["model_id"] == submitted.model_id else None

    challenger = eventually(shadowed)
    assert set(challenger["horizons"]) == {"1", "2", "5", "10"}


def test_the_database_is_a_real_one(system: System) -> None:
    with psycopg.connect(system.database_url) as connection:
        row = connection.execute("select version()").fetchone()
    assert row is not None
    assert row[0].startswith("PostgreSQL 18")
