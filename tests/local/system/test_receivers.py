"""The file of receivers: what is wrong with it is named, and no secret of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest

from local.system.options import OptionsError
from local.system.receivers import put_receivers, read_receivers
from tests.fixtures.receiver import KEY
from tickcast.adapters.receiver_secrets import ReceiverSecrets
from tickcast.adapters.webhooks import Receiver
from tickcast.serving.signals import Signals

SIGNALS = msgspec.convert(
    {
        "destinations": [{"name": "desk"}, {"name": "phone", "template": "telegram"}],
        "rules": [
            {"name": "a", "when": "drift", "to": "desk"},
            {"name": "b", "when": "drift", "to": "phone"},
        ],
    },
    Signals,
)
DESK = {"url": "https://example.com/hook", "key": KEY}


def test_they_are_read_back_by_the_function(tmp_path: Path, s3: Any) -> None:
    path = tmp_path / "destinations.json"
    path.write_text(json.dumps({"desk": DESK}), "utf-8")
    ssm = boto3.client("ssm", region_name="us-east-1")
    for _ in range(2):  # the second replaces the first
        put_receivers(ssm, "dev", read_receivers(path, SIGNALS, "dev"))
    parameter = ssm.get_parameter(Name="/tickcast/dev/signals/desk")["Parameter"]
    assert parameter["Type"] == "SecureString"
    assert ReceiverSecrets(ssm, "dev", lambda: 1e12).read(SIGNALS.destinations[0]) == Receiver(**DESK)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("{", "is no JSON like"),
        ("[]", "should be JSON like"),
        ("{}", "should be JSON like"),
        ('{"disk": {}}', "has 'disk', and the destinations of the rules are desk, phone"),
        ('{"desk": "secret"}', "desk: it should be JSON like"),
        ('{"desk": {"url": "https://example.com/secret"}}', "desk: key is missing"),
        ('{"desk": {"url": "http://127.0.0.1/secret", "key": "secret"}}', r"url should begin with https://$"),
        ('{"phone": {"token": "secret"}}', "phone: chat is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, found: str, said: str) -> None:
    path = tmp_path / "destinations.json"
    path.write_text(found, "utf-8")
    with pytest.raises(OptionsError, match=f"DESTINATIONS: .*{said}") as refused:
        read_receivers(path, SIGNALS, "dev")
    assert "secret" not in str(refused.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="cannot be read: No such file"):
        read_receivers(tmp_path / "none.json", SIGNALS, "dev")
