"""What docs/signals.md shows is true: its files are accepted, its receiver verifies."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3
import yaml

from cdk.config import load, parse
from local.system.receivers import read_receivers
from local.system.servers import free_ports
from tests.fixtures.paths import ROOT
from tickcast.adapters.webhooks import Courier, DeliveryFailed, Receiver

pytestmark = pytest.mark.server

PAGE = (ROOT / "docs" / "signals.md").read_text("utf-8")
FOREIGN = "whsec_OTg3NjU0MzIxMDk4NzY1NDMyMTA5ODc2NTQzMjEwOTg="
DEADLINE_S = 20


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)
    return str(found)


def test_its_files_are_accepted(tmp_path: Path) -> None:
    signals, destinations = tmp_path / "signals.yaml", tmp_path / "destinations.json"
    signals.write_text(block("yaml"), "utf-8")
    destinations.write_text(block("json"), "utf-8")
    environment = load("local", signals=str(signals))
    assert [rule.name for rule in environment.signals.rules] == ["confident", "no-model"]
    assert read_receivers(destinations, environment.signals, "local").keys() == {"desk"}
    assert parse({"name": "dev", "aws": {}, "signals": yaml.safe_load(block("yaml"))}).signals.rules


def test_its_receiver_takes_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    program = tmp_path / "receiver.py"
    program.write_text(block("python").replace("8000", str(port)), "utf-8")
    key = json.loads(block("json"))["desk"]["key"]
    process = subprocess.Popen(
        [sys.executable, program], stdout=subprocess.PIPE, env=os.environ | {"SIGNING_KEY": key}, text=True
    )
    try:
        assert process.stdout is not None
        deliver(port, key, "a signal")
        assert process.stdout.readline() == "a signal\n"
        with pytest.raises(DeliveryFailed, match="401"):
            deliver(port, FOREIGN, "not from here")
        deliver(port, key, "a recording", late_s=-600)
        deliver(port, key, "another signal")
        assert process.stdout.readline() == "another signal\n"
    finally:
        process.kill()
        process.communicate()


def deliver(port: int, key: str, text: str, late_s: float = 0.0) -> None:
    """Post as `send_signals` does, once the receiver listens."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    courier = Courier(urllib3.PoolManager(), lambda: (time.time() + late_s) * 1000, time.sleep)
    receiver = Receiver(url=f"http://127.0.0.1:{port}/", key=key)
    courier.deliver(receiver, "json", "an-id", lambda: {"data": {"text": text}}, lambda: DEADLINE_S)
