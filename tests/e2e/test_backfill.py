"""The state machine of history on the embedded system, with the real functions and the exchange's REST.

All names of errors are in tests/state_machines/test_backfill_and_retrain.py, whichever emulator runs here.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from localstack_client.session import Session
from rich.console import Console

from local.commands import execution
from local.commands.deployment import Deployment
from local.commands.execution import Report
from local.system import http_json
from local.system.cloud import FunctionFailed
from local.system.system import System
from tests.fixtures.running_system import eventually
from tickcast.adapters.lake import bronze

pytestmark = pytest.mark.integration

SYMBOL = "BTCUSDT"
Request = dict[str, Any]
Span = Callable[[int, int], Request]


@pytest.fixture
def inject(system: System) -> Callable[..., None]:
    """Injects a fault into the exchange."""
    url = f"{system.exchange_url}/local/faults"

    def begin(**fields: Any) -> None:
        answer = http_json.send("POST", url, {"kind": "rest_status", **fields})
        assert answer.status == 200, answer.body

    return begin


@pytest.fixture(scope="module")
def span() -> Span:
    """A request for so many minutes from so many minutes ago, from one fixed instant: no two overlap.

    The simulated past reaches back half an hour from the start of the system.
    """
    now = datetime.now(UTC).replace(second=0, microsecond=0)

    def of(minutes_ago: int, minutes: int) -> Request:
        start = now - timedelta(minutes=minutes_ago)
        ends = {"from": start.isoformat(), "to": (start + timedelta(minutes=minutes)).isoformat()}
        return {"symbols": [SYMBOL], **ends}

    return of


def run(there: Deployment, request: Request) -> Report:
    return execution.watch(there, execution.start(there, request), Console(file=io.StringIO()))


def fetched(system: System, aws: Session, request: Request) -> list[dict[str, Any]]:
    """The trades in the files that the markers of a span name."""
    s3, bucket = aws.client("s3"), system.outputs["BucketName"]
    from_us, to_us = (
        int(datetime.fromisoformat(request[end]).timestamp()) * 1_000_000 for end in ("from", "to")
    )
    records: list[dict[str, Any]] = []
    found = s3.list_objects_v2(Bucket=bucket, Prefix=bronze.windows_prefix(SYMBOL))
    for key in sorted((item["Key"] for item in found.get("Contents", [])), key=bronze.window_in):
        if from_us <= bronze.window_in(key)[0] < to_us:
            for file in json.load(s3.get_object(Bucket=bucket, Key=key)["Body"])["keys"]:
                body = s3.get_object(Bucket=bucket, Key=file["key"])["Body"].read()
                records += bronze.read_file(body, file["key"])
    return records


def published_by_the_exchange(system: System, request: Request) -> list[tuple[int, int, int]]:
    """(first id, last id, time) of the aggregates of a span, from REST."""
    start, end = (int(datetime.fromisoformat(request[name]).timestamp()) * 1000 for name in ("from", "to"))
    url = f"{system.exchange_url}/api/v3/aggTrades?symbol={SYMBOL}&limit=1000"
    unit = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    page = http_json.get(f"{url}&startTime={start}", unit).body
    rows = []
    while page and page[0]["T"] < end * 1000:
        rows += page
        page = http_json.get(f"{url}&fromId={page[-1]['a'] + 1}", unit).body
    return [(row["f"], row["l"], row["T"]) for row in rows if row["T"] < end * 1000]


def test_history_is_planned_fetched_and_loaded_once(
    system: System, aws: Session, there: Deployment, span: Span
) -> None:
    request = span(28, 5)
    plan = execution.plan(there, request)
    assert plan["windows"] in (1, 2)  # two over midnight
    report = run(there, request)
    assert (report.ok, report.error, report.causes) == (True, None, [])
    assert report.windows_done == report.windows >= plan["windows"]  # and the hours that the stream brought
    assert report.bars > 0
    records = fetched(system, aws, request)
    rows = [(r["first_trade_id"], r["last_trade_id"], r["timestamp"]) for r in records]
    assert rows == published_by_the_exchange(system, request)
    assert all(a[1] + 1 == b[0] for a, b in pairwise(rows))
    assert {(r["source"], r["symbol"], r["kind"]) for r in records} == {("rest", SYMBOL, "trade")}
    assert report.rows == len(rows)

    again = run(there, request)
    assert (again.ok, again.rows) == (True, 0)


def test_the_exchange_s_rate_limit_is_waited_for(
    system: System, there: Deployment, inject: Any, span: Span
) -> None:
    inject(status=429, retry_after_s=2, count=1)
    report = run(there, span(16, 2))
    assert (report.ok, report.rate_limited) == (True, 1)
    assert report.seconds > 2


def test_errors_of_the_exchange_are_retried(there: Deployment, inject: Any, span: Span) -> None:
    inject(status=503, count=2)
    report = run(there, span(13, 2))
    assert (report.ok, report.causes) == (True, [])
    assert report.rows > 0


@pytest.mark.slow
def test_a_refusal_of_the_exchange_ends_the_execution_with_the_reason(
    system: System, aws: Session, there: Deployment, inject: Any, span: Span
) -> None:
    request = span(10, 2)
    inject(status=451)
    report = run(there, request)
    # By its name the refusal ends everything at once; without it the window has failed, and others might not.
    names_errors = system.cloud.emulator.names_errors
    assert (report.ok, report.error) == (False, "RegionRefused" if names_errors else "BackfillIncomplete")
    assert "does not serve this country or region" in " ".join(report.causes)
    assert fetched(system, aws, request) == []
    assert execution.plan(there, request)["totals"]["hours_held"] == 0


def test_a_wrong_request_is_refused(there: Deployment) -> None:
    with pytest.raises(FunctionFailed, match="days should be a whole number"):
        execution.plan(there, {"symbols": [SYMBOL], "days": -1})


@pytest.mark.slow
def test_lost_trades_are_repaired(system: System, there: Deployment, inject: Any) -> None:
    """Trades that no connection got: found by the ledger, filled by REST, and then no longer missing."""

    def missing() -> int:
        return int(system.api.services()[f"predict_stream:{SYMBOL}"]["missing_trades"])

    def lose() -> int:
        """Again where it lost nothing: the market may have had no trade in these seconds."""
        inject(kind="stall", stream="trade", symbol=SYMBOL, seconds=3)
        time.sleep(6)  # until it is over, and the bars after it are closed
        return missing()

    lost = eventually(lose, 90)
    request = {"symbols": [SYMBOL], "repair": True}
    plan = eventually(
        lambda: execution.plan(there, request) if execution.plan(there, request)["totals"]["gaps"] else None,
        90,
    )
    (market,) = plan["markets"]
    assert {window["reason"] for window in market["windows"]} == {"gap"}
    report = run(there, request)
    assert (report.ok, report.causes) == (True, [])
    assert report.repaired_trades >= lost
    eventually(lambda: missing() == 0)
    eventually(lambda: execution.plan(there, request)["windows"] == 0)


@pytest.mark.slow
def test_a_stopped_execution_is_resumed_by_the_next(
    system: System, aws: Session, there: Deployment, span: Span
) -> None:
    """Stopped once a window is being fetched: the next one ends with all of it, each trade once."""
    request = span(20, 3)
    arn = execution.start(there, request)
    eventually(lambda: len([e for e in execution.events(there, arn) if e["type"] == "TaskScheduled"]) > 1)
    there.states.stop_execution(executionArn=arn)
    report = run(there, request)
    assert (report.ok, report.causes) == (True, [])
    rows = [(r["first_trade_id"], r["last_trade_id"], r["timestamp"]) for r in fetched(system, aws, request)]
    assert rows == published_by_the_exchange(system, request)
