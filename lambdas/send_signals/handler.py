"""Signals → their destinations: webhooks, Slack, Telegram."""

import time
from dataclasses import asdict
from typing import Any

import boto3
import urllib3

from tickcast.adapters.receiver_secrets import ReceiverSecrets
from tickcast.adapters.settings import SendSignalsSettings
from tickcast.adapters.telemetry import structured_logger
from tickcast.adapters.variables import read
from tickcast.adapters.webhooks import Courier, DeliveryFailed, keep_out_of_logs
from tickcast.functions.send_signals import SendSignals


def now_ms() -> float:
    return time.time() * 1000


keep_out_of_logs()
logger = structured_logger()
settings = read(SendSignalsSettings)
send_signals = SendSignals(
    settings,
    boto3.client("s3"),
    boto3.client("sqs"),
    ReceiverSecrets(boto3.client("ssm"), settings.environment, now_ms),
    Courier(urllib3.PoolManager(), now_ms, time.sleep),
    now_ms,
)


def handler(event: dict[str, Any], context: Any) -> list[dict[str, Any]]:
    try:
        sent = send_signals(event, context.get_remaining_time_in_millis)
    except DeliveryFailed as failure:
        logger.warning("signal", extra={"became": "retried", "why": str(failure)})
        raise
    for each in sent:
        log = logger.error if each.became == "failed" else logger.info
        log("signal", extra=asdict(each))
    return [asdict(each) for each in sent]
