"""Events to deliveries: what is sent, repeated, given up, dropped and ignored."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3
import msgspec
import pytest
import urllib3

from tests.fixtures.aws import BUCKET
from tests.fixtures.receiver import KEY, Receiver, receiving
from tests.fixtures.settings import configured
from tickcast.adapters.receiver_secrets import ReceiverSecrets, parameter_name
from tickcast.adapters.settings import SendSignalsSettings
from tickcast.adapters.webhooks import Courier, DeliveryFailed, keep_out_of_logs
from tickcast.functions.send_signals import SendSignals
from tickcast.serving.signals import Signal, SignalledForecast, object_key

pytestmark = pytest.mark.server

NOW_MS = 1_767_225_600_000
SIGNALS = {
    "destinations": [{"name": "desk"}, {"name": "phone", "template": "telegram"}],
    "rules": [
        {"name": "worth-it", "when": "worth_trading", "to": "desk"},
        {"name": "timely", "when": "worth_trading", "to": "desk", "late": "drop"},
        {"name": "models", "when": "alarm", "to": "phone", "alarms": ["NoModel"]},
    ],
}
ALARM = {
    "id": "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
    "source": "aws.cloudwatch",
    "detail-type": "CloudWatch Alarm State Change",
    "time": "2026-01-01T00:00:00Z",
    "detail": {
        "alarmName": "tickcast-dev-app-MonitoringAlarmsNoModel1A2B3C4D-Xy12Zw34Ab56",
        "state": {"value": "ALARM", "reason": "Threshold Crossed: 6 datapoints"},
        "previousState": {"value": "OK"},
        "configuration": {"description": "No model has been active for 6 hours.", "metrics": []},
    },
}


@dataclass
class Sender:
    """The function, with a clock that only waiting advances."""

    s3: Any
    ssm: Any
    sqs: Any
    queue_url: str
    now_ms: float = NOW_MS + 1000.0
    waited_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = configured(
            SendSignalsSettings,
            ENVIRONMENT="local",
            API_URL="https://api.example.com/v1/",
            SIGNALS=json.dumps(SIGNALS),
            DEAD_LETTER_QUEUE_URL=self.queue_url,
        )
        courier = Courier(urllib3.PoolManager(), self.clock_ms, self.wait, lambda: 1.0)
        secrets = ReceiverSecrets(self.ssm, "local", self.clock_ms)
        self.function = SendSignals(settings, self.s3, self.sqs, secrets, courier, self.clock_ms)

    def clock_ms(self) -> float:
        return self.now_ms

    def wait(self, seconds: float) -> None:
        self.waited_s.append(seconds)
        self.now_ms += 1000 * seconds

    def __call__(self, event: dict[str, Any]) -> Any:
        return self.function(event, lambda: 60_000)

    def keep(self, destination: str, **secret: str) -> None:
        name = parameter_name("local", destination)
        self.ssm.put_parameter(Name=name, Value=json.dumps(secret), Type="SecureString", Overwrite=True)

    def written(self, rule: str = "worth-it") -> dict[str, Any]:
        """The bucket's event on a signal of `rule`, whose horizon ends two seconds later."""
        forecast = SignalledForecast(
            id=f"BTCUSDT-{NOW_MS}",
            horizon_s=2,
            target_time=NOW_MS + 2000,
            basis_price=1.0,
            predicted_price=1.0,
        )
        signal = Signal(
            id=f"{rule}-BTCUSDT-{NOW_MS}", rule=rule, when="worth_trading", at_ms=NOW_MS, symbol="BTCUSDT",
            forecast=forecast,
        )  # fmt: skip
        key = object_key(signal)
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=msgspec.json.encode(signal))
        return {"source": "aws.s3", "detail": {"bucket": {"name": BUCKET}, "object": {"key": key}}}

    def lost(self) -> list[Any]:
        messages = self.sqs.receive_message(QueueUrl=self.queue_url, MaxNumberOfMessages=10)
        return [json.loads(each["Body"]) for each in messages.get("Messages", ())]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def send(s3: Any, receiver: Receiver) -> Sender:
    ssm, sqs = (boto3.client(name, region_name="us-east-1") for name in ("ssm", "sqs"))
    sender = Sender(s3, ssm, sqs, sqs.create_queue(QueueName=f"lost-{uuid4()}")["QueueUrl"])
    sender.keep("desk", url=receiver.url, key=KEY)
    sender.keep("phone", url=receiver.url, token="123456:ABC-DEF", chat="-42")
    return sender


def test_a_signal_of_the_lake_is_sent(send: Sender, receiver: Receiver) -> None:
    [sent] = send(send.written())
    assert (sent.became, sent.destination, sent.rule, sent.attempts, sent.late) == (
        ("sent", "desk", "worth-it", 1, False)
    )
    [request] = receiver.requests
    assert request.headers["webhook-id"] == f"worth-it-BTCUSDT-{NOW_MS}"
    assert request.json["data"]["links"]["dashboard"] == "https://api.example.com/v1/"


def test_one_that_expires_while_it_is_repeated_says_so(send: Sender, receiver: Receiver) -> None:
    receiver.answer(503)
    [sent] = send(send.written())
    assert (sent.became, sent.attempts, sent.late) == ("sent", 2, True)
    assert [request.json["data"]["late"] for request in receiver.requests] == [False, True]


def test_or_is_dropped_where_its_rule_says_so(send: Sender, receiver: Receiver) -> None:
    receiver.answer(503)
    [sent] = send(send.written("timely"))
    assert (sent.became, len(receiver.requests), send.lost()) == ("expired", 1, [])
    [sent] = send(send.written("timely"))
    assert (sent.became, len(receiver.requests)) == ("expired", 1)


def test_a_receiver_that_is_down_is_lambda_s_to_repeat(send: Sender, receiver: Receiver) -> None:
    for _ in range(3):
        receiver.answer(500)
    with pytest.raises(DeliveryFailed, match="desk: it answers 500"):
        send(send.written())
    assert send.lost() == []  # Lambda puts the event there, after its own repetitions


def test_what_no_repetition_mends_is_given_up_at_once(send: Sender, receiver: Receiver) -> None:
    receiver.answer(404)
    [sent] = send(send.written())
    assert (sent.became, sent.why, len(receiver.requests)) == ("failed", "it answers 404", 1)
    [lost] = send.lost()
    assert (lost["why"], lost["destination"]) == ("it answers 404", "desk")
    assert lost["signal"]["id"] == f"worth-it-BTCUSDT-{NOW_MS}"
    assert receiver.url not in json.dumps(lost)


def test_a_receiver_s_wish_to_be_left_alone_outlasts_the_invocation(send: Sender, receiver: Receiver) -> None:
    receiver.answer(429, retry_after="120")
    for _ in range(2):
        with pytest.raises(DeliveryFailed):
            send(send.written())
    assert len(receiver.requests) == 1
    send.now_ms += 120_000
    assert send(send.written())[0].became == "sent"


def test_a_missing_receiver_is_named(send: Sender) -> None:
    send.ssm.delete_parameter(Name=parameter_name("local", "desk"))
    [sent] = send(send.written())
    assert sent.became == "failed"
    assert "there is no parameter /tickcast/local/signals/desk" in sent.why
    assert len(send.lost()) == 1


def test_a_refused_receiver_is_read_again(send: Sender, receiver: Receiver) -> None:
    receiver.answer(401)
    send(send.written())
    with receiving() as moved:
        send.keep("desk", url=moved.url, key=KEY)
        assert send(send.written())[0].became == "sent"
        assert len(moved.requests) == 1


def test_an_alarm(send: Sender, receiver: Receiver) -> None:
    [sent] = send({"rule": "models", "event": ALARM})
    assert (sent.became, sent.destination) == ("sent", "phone")
    [request] = receiver.requests
    assert request.path == "/hook/bot123456:ABC-DEF/sendMessage"
    text = request.json["text"].splitlines()
    assert text[:2] == [
        "NoModel: raised. No model has been active for 6 hours.",
        "Threshold Crossed: 6 datapoints",
    ]
    assert request.headers["webhook-id"] == f"models-{ALARM['id']}"


def test_no_secret_is_in_the_logs_whatever_their_level(
    send: Sender, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "botocore"):  # restored after the test
        caplog.set_level(logging.DEBUG, name)
    keep_out_of_logs()
    receiver.answer(401)
    assert send({"rule": "models", "event": ALARM})[0].became == "failed"
    assert "ABC-DEF" not in caplog.text


def test_an_alarm_that_the_rule_does_not_name(send: Sender, receiver: Receiver) -> None:
    other = {"alarmName": "tickcast-dev-app-MonitoringAlarmsNoModelAtAll1A2B3C4D-Xy12Zw34Ab56"}
    [sent] = send({"rule": "models", "event": ALARM | {"detail": ALARM["detail"] | other}})  # type: ignore[operator]
    assert (sent.became, receiver.requests) == ("ignored", [])


def test_a_rule_that_is_gone_since(send: Sender, receiver: Receiver) -> None:
    [sent] = send(send.written("removed"))
    assert (sent.became, sent.why) == ("ignored", "there is no such rule any more")
    assert (receiver.requests, send.lost()) == ([], [])


def test_a_test_message_to_each_destination(send: Sender, receiver: Receiver) -> None:
    receiver.answer(200)
    receiver.answer(403)
    desk, phone = send({"test": True})
    assert (desk.became, desk.destination) == ("sent", "desk")
    assert (phone.became, phone.why) == ("failed", "it answers 403")
    assert receiver.requests[0].json["type"] == "signal.test"
    assert send.lost() == []


@pytest.mark.parametrize(
    "event", [{}, {"test": "yes"}, {"source": "aws.s3"}, {"rule": "models", "event": {}}]
)
def test_an_event_of_another_kind_is_an_error(send: Sender, event: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="none of the bucket's, of an alarm or of a test"):
        send(event)
