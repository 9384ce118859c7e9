"""The whole loop on the running system: history, a challenger, the gate, serving; and that drift, found in
scheduled scores, starts it."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from localstack_client.session import Session
from msgspec.structs import replace
from psycopg.types.json import Jsonb
from rich.console import Console

from local.commands import execution, explain, models, retrain
from local.commands.backfill import BackfillRequest
from local.commands.command import ExitStatus
from local.commands.deployment import Deployment
from local.system import http_json
from local.system.system import System
from tests.fixtures.running_system import eventually, reschedule, schedule_of
from tickcast.adapters.lake.receipt_archive import Folder, ReceiptArchive
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.pointer import Pointer
from tickcast.evaluation.earnings import THRESHOLDS_BP
from tickcast.serving.records import ArchivedReceipt
from tickcast.units import DAY_US

QUARTER_US = 900 * 1_000_000

pytestmark = pytest.mark.integration


@pytest.fixture
def pointer(system: System, aws: Session) -> Callable[[], Pointer]:
    """The pointer now."""
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]

    def now() -> Pointer:
        found = model_registry.active_model(s3, bucket)
        assert found is not None
        return found

    return now


def served_by(system: System, model_id: str) -> Any:
    """The newest prediction, if that model made it."""
    answer = http_json.get(f"{system.api_url}predictions/BTCUSDT", {"x-api-key": system.api_key})
    return answer.status == 200 and answer.body["model_id"] == model_id and answer.body


def test_from_history_to_the_model_that_serves(
    system: System, aws: Session, there: Deployment, pointer: Callable[[], Pointer]
) -> None:
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    champion = pointer().model_id
    started_us = time.time_ns() // 1000
    requested = retrain.request(BackfillRequest(days=1))
    report = execution.watch(there, execution.start(there, requested), Console(file=io.StringIO()))
    assert (report.ok, report.causes) == (True, [])
    result = retrain.outcome(report)
    assert result["champion"] == champion
    assert (model_id := result["model_id"])
    assert result["rows_with_quotes"] is not None and result["rows_with_quotes"] > 10_000

    card = model_registry.read_card(s3, bucket, model_id)
    assert card.parent == champion
    assert card.gate is not None and card.gate.block is not None and card.data is not None
    assert card.gate.reasons == result["reasons"]
    assert (card.gate.block.from_us or 0) >= (card.learned_to_us or 0) > 0
    # What the stream brought is there, up to about the minute that is left to it.
    assert (card.data.to_us or 0) > started_us - 180_000_000
    assert set(card.gate.figures["all"]) >= {"champion", "no_change", "last_trade", "linear_imbalance"}
    page = s3.get_object(Bucket=bucket, Key=f"models/{model_id}/card.md")["Body"].read().decode()
    assert card.gate.sentence in page
    assert result["provisional"] is True  # a simulated market proves nothing

    moved = pointer()
    if result["promoted"]:
        if moved.model_id != model_id:  # fitted again on newer rows, and active instead of the evaluated one
            assert model_registry.read_card(s3, bucket, moved.model_id).refit_of == model_id
            assert model_id in models.roll_back(s3, bucket)
            moved = pointer()
        assert (moved.model_id, moved.previous[0].model_id) == (model_id, champion)
    else:
        assert moved.model_id == champion
        assert moved.challenger_id == result["challenger"]
        models.promote(s3, bucket, model_id)
    eventually(lambda: served_by(system, model_id), 15)
    assert champion in models.roll_back(s3, bucket)
    eventually(lambda: served_by(system, champion), 15)

    def listed() -> Any:
        found = http_json.get(f"{system.api_url}models", {"x-api-key": system.api_key}).body
        return found if found["current"]["model_id"] == champion else None

    found = eventually(listed, 15)
    assert model_id in {model["model_id"] for model in found["models"]}
    assert found["current"]["by"] == f"rolled back from {model_id}"


def test_a_model_of_another_code_is_not_promoted(
    system: System, aws: Session, pointer: Callable[[], Pointer]
) -> None:
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    before = pointer()
    card = model_registry.read_card(s3, bucket, before.model_id)
    misfit = replace(card, model_id="misfit", feature_hash="of-another-code")
    model_registry.save(s3, bucket, b"", misfit)
    with pytest.raises(model_registry.RegistryError, match="of-another-code"):
        models.promote(s3, bucket, "misfit")
    assert pointer() == before


def test_the_schedule_starts_the_same_loop(
    system: System, aws: Session, there: Deployment, pointer: Callable[[], Pointer]
) -> None:
    """The rule as deployed, with its target and input, but every minute instead of daily."""
    machine, deployed = there.outputs["BackfillMachine"], schedule_of(system)

    def executions() -> set[str]:
        found = there.states.list_executions(stateMachineArn=machine)["executions"]
        return {each["executionArn"] for each in found}

    before = executions()
    reschedule(system, "rate(1 minute)")
    (started,) = eventually(lambda: executions() - before, 90)
    reschedule(system, *deployed)  # before another one starts
    report = execution.watch(there, started, Console(file=io.StringIO()))
    assert (report.ok, report.causes) == (True, [])
    card = model_registry.read_card(
        aws.client("s3"), system.outputs["BucketName"], report.trained["model_id"]
    )
    assert card.gate is not None and card.gate.reasons == report.verdict["reasons"]


def test_predictions_are_scored_by_the_schedule(system: System, pointer: Callable[[], Pointer]) -> None:
    """By EventBridge, every minute."""
    key = {"x-api-key": system.api_key}

    def scored() -> Any:
        body = http_json.get(f"{system.api_url}accuracy/BTCUSDT", key).body
        if not body["summary"] or body["horizons"]["1"]["count"] <= 5:
            return None
        return any(each[0]["trades"] for each in body["summary"]["hour"]["earnings"].values()) and body

    body = eventually(scored, 200)
    assert 0 <= body["scored_age_s"] < 130
    hour = body["summary"]["hour"]
    assert hour["first"] < hour["to"] and 0 < hour["availability"] <= 1
    assert 0 < body["horizons"]["2"]["coverage"] <= 1
    assert list(hour["earnings"]) == ["1", "2", "5", "10"]
    for of_horizon in hour["earnings"].values():
        assert [each["threshold_bp"] for each in of_horizon] == [*THRESHOLDS_BP, None]
        for each in of_horizon:
            assert not each["trades"] or (each["fees_bp"], each["spread_bp"] > 0) == (20, True)
    day = body["summary"]["day"]["horizons"]["2"]
    assert sum(each["count"] for each in day["regimes"]["hour"].values()) == day["count"]
    assert day["regimes"]["spread"]["low"]["from_bp"] >= 0
    health = http_json.get(f"{system.api_url}health").body["services"]["score"]
    assert (health["ok"], health["why"]) == (True, None)


def test_receipts_are_archived_by_the_schedule(system: System, aws: Session) -> None:
    """Found by the API once the hot store has dropped them, and recomputed from bronze."""
    s3 = aws.client("s3")
    archive = ReceiptArchive(lambda: s3, system.outputs["BucketName"])
    with system.redis() as store:
        oldest: Any = store.xrange("predictions:BTCUSDT", count=1)
        first_ms = int(oldest[0][0].split(b"-")[0])

        def archived() -> list[ArchivedReceipt]:
            """Those by the model: the first were made before there was one."""
            now_ms = round(time.time() * 1000)
            found = archive.receipts(Folder.SECONDS, "BTCUSDT", first_ms, now_ms)
            return [each for each in found if each.source == "model"]

        # At once, unless the system was started for this test.
        receipt = eventually(archived, patience_s=420)[-1]
        store.xdel("predictions:BTCUSDT", f"{receipt.timestamp}-0")
    found = system.api.body(f"predictions/BTCUSDT/{receipt.id}")
    assert found["features"] == receipt.features
    assert found["outcomes"].keys() == {"1", "2", "5", "10"}
    status = explain.show(receipt.id, system.api_url, system.api_key, Console(file=io.StringIO()))
    assert status is ExitStatus.OK
    hour = system.api.body("accuracy/BTCUSDT", **{"from": receipt.timestamp})
    assert hour["from"] == receipt.timestamp // 3_600_000 * 3_600_000


def test_drift_starts_a_training(
    system: System, aws: Session, there: Deployment, pointer: Callable[[], Pointer]
) -> None:
    """With hours of bad predictions in the database, and all but one of the checks that confirm drift."""
    champion = pointer().model_id
    state = {"model_id": champion, "looks": 29, "is_drifting": False, "reasons": []}
    now_us = time.time_ns() // 1000
    quarters = [now_us // QUARTER_US * QUARTER_US - n * QUARTER_US for n in range(1, 61)]
    with psycopg.connect(system.database_url, autocommit=True) as database:
        for minute_us in quarters:
            database.execute("select tickcast.add_day(%s)", (minute_us // DAY_US * DAY_US,))
            database.execute(
                "insert into tickcast.tallies (symbol, minute_us, horizon_s, model_id, is_model, abstains, "
                "why, bin, first_us, last_us, count, moved, rights, confidence, inside, squared_error, "
                "squared_move, squared_line, line_move, crps, crps_of_no_change) values "
                "(%s, %s, 2, %s, true, false, '', 0, %s, %s, 70, 70, 20, 40, 30, 200, 100, 50, 10, 0, 0)",
                ("ETHUSDT", minute_us, champion, minute_us, minute_us),
            )
        try:
            database.execute(
                "insert into tickcast.drift_watches values ('ETHUSDT', %s) "
                "on conflict (symbol) do update set watch = excluded.watch",
                (Jsonb(state),),
            )
            there.states.start_execution(stateMachineArn=there.outputs["ScoreMachine"], input="{}")
            machine = there.outputs["BackfillMachine"]

            def started() -> Any:
                found = there.states.list_executions(stateMachineArn=machine)["executions"]
                return [each for each in found if each["name"].startswith("drift-")]

            (found,) = eventually(started, 90)
            report = execution.watch(there, found["executionArn"], Console(file=io.StringIO()))
        finally:
            for table in ("drift_watches", "drift_trainings"):
                database.execute(f"delete from tickcast.{table}")
            database.execute("delete from tickcast.tallies where count = 70 and confidence = 40")
    assert (report.ok, report.causes) == (True, [])
    card = model_registry.read_card(
        aws.client("s3"), system.outputs["BucketName"], report.trained["model_id"]
    )
    assert card.reason.startswith("drift: ETHUSDT skill_below_band")
    assert card.gate is not None and card.gate.champion == champion
