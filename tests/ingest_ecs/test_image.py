"""The ingest image's steps without a Docker engine: a clean environment, only what is copied, read-only.

What this cannot show is the base image itself: the Python here is the one the tests run on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from ingest_ecs.settings import IngestSettings
from tests.fixtures.paths import ROOT
from tests.fixtures.settings import environment

pytestmark = pytest.mark.server

DOCKERFILE = (ROOT / "ingest_ecs" / "Dockerfile").read_text("utf-8")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """`/app` as the Dockerfile fills it, without write permission, with an environment of its own."""
    app = tmp_path_factory.mktemp("image") / "app"
    app.mkdir()
    for source, target in re.findall(r"^COPY --chmod=755 (\S+) (\S+)$", DOCKERFILE, re.MULTILINE):
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, app / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, app / Path(source).name)
    subprocess.run([sys.executable, "-m", "venv", app / "venv"], check=True)
    (arguments,) = re.findall(r"^RUN pip install (.*) \\$", DOCKERFILE, re.MULTILINE)
    pip: list[str | Path] = [
        app / "venv" / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
    ]
    subprocess.run([*pip, "install", *arguments.split()], check=True, cwd=app)
    subprocess.run([*pip, "check"], check=True)
    writable = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    folders = [app, *(path for path in app.rglob("*") if path.is_dir() and not path.is_symlink())]
    for folder in folders:
        folder.chmod(folder.stat().st_mode & ~writable)
    yield app
    for folder in folders:
        folder.chmod(folder.stat().st_mode | stat.S_IWUSR)


def start(image: Path, **settings: str) -> subprocess.Popen[str]:
    """`CMD` of the Dockerfile; under its user if that is permitted and the folder is accessible."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(image / "core"),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        **settings,
    }
    (command,) = re.findall(r"^CMD (.*)$", DOCKERFILE, re.MULTILINE)
    python, *arguments = json.loads(command)
    assert python == "python"
    return subprocess.Popen(
        [image / "venv" / "bin" / "python", *arguments],
        cwd=image,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        user=10001 if os.getuid() == 0 and _is_open_to_others(image) else None,
    )


def _is_open_to_others(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def test_missing_settings_are_named(image: Path) -> None:
    with start(image) as task:
        output, _ = task.communicate(timeout=60)
    assert task.returncode == 2
    assert "STREAM_NAME is not set" in output


def test_it_answers_health_and_stops_on_sigterm(image: Path) -> None:
    """Without Kinesis and the exchange the task reports that it cannot replace one that delivers."""
    address = {"STREAM_URL": "ws://127.0.0.1:1", "HEALTH_PORT": "0", "BUCKET": "", "SYMBOLS": "BTCUSDT"}
    with start(image, **environment(IngestSettings, **address)) as task:
        assert task.stdout is not None
        lines = []
        for line in task.stdout:
            lines.append(line)
            if '"health_listening"' in line:
                break
        port = json.loads(lines[-1])["port"]
        with pytest.raises(HTTPError) as unhealthy:
            urlopen(f"http://127.0.0.1:{port}/health", timeout=10)
        report = json.load(unhealthy.value)
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        task.send_signal(signal.SIGTERM)
        rest, _ = task.communicate(timeout=60)
    assert (report["live"], report["ready"]) == (False, False)
    assert "BTCUSDT: no tick yet" in report["why"]
    assert "tickcast_ingest_live 0.0" in metrics
    assert task.returncode == 0
    assert "secret-key" not in "".join(lines) + rest
