"""The task as a process whose secret holds no key: it takes the public mirror, and says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from ingest_ecs.settings import NO_KEY, IngestSettings
from tests.fixtures.paths import ROOT
from tests.fixtures.settings import environment

pytestmark = pytest.mark.server


@pytest.mark.parametrize(("key", "source"), [(NO_KEY, "public_json"), ("an-ed25519-key", "sbe")])
def test_health_says_which_stream_is_taken(key: str, source: str) -> None:
    variables = environment(
        IngestSettings,
        PROTOCOL="auto",
        BINANCE_API_KEY=key,
        STREAM_URL="ws://127.0.0.1:1",
        PUBLIC_STREAM_URL="ws://127.0.0.1:1/json",
        REST_URL="http://127.0.0.1:1",
        BUCKET="",
        HEALTH_PORT=0,
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers" / "core" / "python")])
    aws = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    lines = []
    with subprocess.Popen(
        [sys.executable, "-m", "ingest_ecs"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "BINANCE_API_KEY": key, **aws, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as task:
        try:
            assert task.stdout is not None
            for line in task.stdout:
                lines.append(line)
                if '"health_listening"' in line:
                    break
            with pytest.raises(HTTPError) as unhealthy:  # no data yet
                urlopen(f"http://127.0.0.1:{json.loads(lines[-1])['port']}/health", timeout=10)
            report = json.load(unhealthy.value)
        finally:
            task.terminate()
            rest, _ = task.communicate(timeout=60)
    assert report["source"] == source
    assert "an-ed25519-key" not in "".join(lines) + rest
