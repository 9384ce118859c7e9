"""Signals of the running system: from a prediction to the receiver, and what becomes of one that is lost."""

from __future__ import annotations

import base64
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from local.commands import deployment, notify_test
from local.commands.command import ExitStatus
from local.commands.deployment import Deployment
from local.system.system import System
from tests.fixtures.receiver import KEY, Receiver, Request
from tests.fixtures.running_system import eventually
from tickcast.adapters.webhooks import signature
from tickcast.serving.signals import Signal, SignalledForecast, object_key

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PATIENCE_S = 180  # until there is a forecast, and the function has started


def first_signal(system: System, receiver: Receiver) -> Request:
    """Once there is one of each symbol: none of those comes later then."""

    def signals() -> list[Request]:
        return [each for each in list(receiver.requests) if data_of(each).get("symbol")]

    eventually(lambda: {data_of(each)["symbol"] for each in signals()} >= set(system.symbols), PATIENCE_S)
    return signals()[0]


def data_of(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = request.json["data"]
    return found


def test_a_forecast_that_matches_a_rule_reaches_its_receiver(
    system: System, there: Deployment, signal_receiver: Receiver
) -> None:
    first = first_signal(system, signal_receiver)
    data = data_of(first)
    assert (data["rule"], data["environment"]) == ("any-forecast", "local")
    assert data["forecast"]["id"] in data["text"]
    assert data["links"]["dashboard"] == system.api_url
    key = base64.b64decode(KEY.removeprefix("whsec_"))
    timestamp_s = int(first.headers["webhook-timestamp"])
    expected = signature(key, first.headers["webhook-id"], timestamp_s, first.body)
    assert first.headers["webhook-signature"] == expected
    written = there.s3.list_objects_v2(Bucket=there.bucket, Prefix="signals/any-forecast/")["Contents"]
    assert {each["Key"].split("/")[2] for each in written} >= set(system.symbols)


def test_a_test_message(
    there: Deployment,
    signal_receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(deployment, "existing", lambda aws: there)
    path = tmp_path / "destinations.json"
    path.write_text(json.dumps({"desk": {"url": signal_receiver.url, "key": KEY}}), "utf-8")
    before = len(signal_receiver.requests)
    status = notify_test.run(Namespace(destinations=path, aws=""))
    output = capsys.readouterr()
    last = json.loads(output.out.splitlines()[-1])
    assert (status, last["ok"]) == (ExitStatus.OK, True)
    assert [(each["destination"], each["became"]) for each in last["destinations"]] == [("desk", "sent")]
    assert "desk: sent" in output.err
    assert signal_receiver.url not in output.out + output.err
    assert "signal.test" in [each.json["type"] for each in signal_receiver.requests[before:]]


def test_what_its_receiver_refuses_is_in_the_queue_with_the_reason(
    system: System, there: Deployment, signal_receiver: Receiver
) -> None:
    first_signal(system, signal_receiver)
    forecast = SignalledForecast(
        id="TEST-1", horizon_s=2, target_time=3000, basis_price=1.0, predicted_price=1.0
    )
    signal = Signal(
        id="any-forecast-TEST-0",
        rule="any-forecast",
        when="confidence",
        at_ms=1000,
        symbol="TEST",
        forecast=forecast,
    )
    queue, sqs = there.outputs["LostSignalsQueue"], there.client("sqs")
    signal_receiver.answer(410)
    try:
        body = msgspec.json.encode(signal)
        there.s3.put_object(Bucket=there.bucket, Key=object_key(signal), Body=body)
        found: list[Any] = []

        def is_lost() -> bool:
            found[:] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1).get("Messages", [])
            return bool(found)

        eventually(is_lost, PATIENCE_S)
        lost = json.loads(found[0]["Body"])
        assert (lost["why"], lost["destination"], lost["signal"]["symbol"]) == (
            "it answers 410",
            "desk",
            "TEST",
        )
    finally:
        signal_receiver.answers.clear()
        sqs.purge_queue(QueueUrl=queue)
        there.s3.delete_object(Bucket=there.bucket, Key=object_key(signal))
