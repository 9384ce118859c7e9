"""The whole task, stopped while what it depends on hangs: nothing is lost silently, and it ends in time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from websockets.sync.server import ServerConnection, serve

from ingest_ecs import unsent
from ingest_ecs.__main__ import STOP_S
from ingest_ecs.settings import IngestSettings
from local.system import http_json
from tests.fixtures.frames import trade_frame
from tests.fixtures.paths import ROOT
from tests.fixtures.settings import environment
from tickcast.market import wire

pytestmark = pytest.mark.server

DOCKER_STOP_S = 10  # docker stop's default between SIGTERM and SIGKILL


@pytest.fixture
def hanging() -> Iterator[str]:
    """The address of a server that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as accepted:

        def accept() -> None:
            while True:
                try:
                    accepted.enter_context(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def s3() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of an S3 that keeps what is put, and its objects by path."""
    objects: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:  # noqa: N802 (the library's name)
            objects[self.path.partition("?")[0]] = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not needed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", objects
        server.shutdown()


@pytest.fixture
def stream_url() -> Iterator[str]:
    """The address of a stream of three trades."""

    def talk(connection: ServerConnection) -> None:
        for trade_id in (11, 12, 13):
            connection.send(trade_frame(trade_id, time_us=time.time_ns() // 1000))
        for _ in connection:
            pass

    with serve(talk, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()


def start(**variables: str) -> subprocess.Popen[str]:
    own = environment(
        IngestSettings,
        SYMBOLS="BTCUSDT",
        BUSY_SYMBOL="BTCUSDT",
        HEALTH_PORT="0",
        REST_URL="http://127.0.0.1:1",
    )
    return subprocess.Popen(
        [sys.executable, "-m", "ingest_ecs"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT / "layers" / "core" / "python"),
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            **own,
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def stop(task: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Stop `task`; returns its log from here on."""
    task.send_signal(signal.SIGTERM)
    output, _ = task.communicate(timeout=60)
    print(output)
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def wait_for(task: subprocess.Popen[str], text: str) -> dict[str, Any]:
    """The first line of the log with `text`."""
    assert task.stdout is not None
    return next(json.loads(line) for line in task.stdout if text in line)


def wait_for_ticks(task: subprocess.Popen[str], count: int) -> None:
    port = wait_for(task, '"health_listening"')["port"]
    for _ in range(600):
        ready = http_json.get(f"http://127.0.0.1:{port}/ready")
        if ready.body["counts"]["ticks_in"] == count:
            return
        time.sleep(0.05)
    raise AssertionError(ready.body)


def test_stop_fits_into_docker_stop() -> None:
    assert DOCKER_STOP_S - 1 > STOP_S


def test_what_a_hanging_kinesis_did_not_take_is_kept_and_named(
    hanging: str, s3: tuple[str, dict[str, bytes]], stream_url: str
) -> None:
    s3_url, objects = s3
    with start(
        STREAM_URL=stream_url,
        AWS_ENDPOINT_URL_KINESIS=hanging,
        AWS_ENDPOINT_URL_S3=s3_url,
        BUCKET="lake",
    ) as task:
        wait_for_ticks(task, 3)
        log = stop(task)
    (left,) = [line for line in log if line.get("message") == "ticks not put"]
    assert (left["symbol"], left["ticks"], left["trade_ids"]) == ("BTCUSDT", 3, [11, 13])
    assert task.returncode == 1
    (path,) = [path for path in objects if path.endswith(f"/{left['kept']}")]
    ids = [batch.trades["first_id"] for batch in unsent_batches(objects[path])]
    assert np.concatenate(ids).tolist() == [11, 12, 13]
    stored = json.loads(objects[path.replace(".bin", ".json")])
    assert stored["trade_ids"] == [11, 13]
    # The last minute's metrics are written before S3, which may hang, is tried.
    names = [line.get("message") for line in log]
    (lost,) = [at for at, line in enumerate(log) if line.get("DroppedTicks") == [3.0]]
    assert lost < names.index("ticks not put")


@pytest.mark.slow  # the start waits for S3 as long as it may
def test_what_nobody_took_is_named(hanging: str, stream_url: str) -> None:
    with start(STREAM_URL=stream_url, AWS_ENDPOINT_URL=hanging, BUCKET="lake") as task:
        wait_for_ticks(task, 3)
        log = stop(task)
    (left,) = [line for line in log if line.get("message") == "ticks not put"]
    assert (left["trade_ids"], left["kept"]) == ([11, 13], "")
    assert task.returncode == 1


def test_a_start_that_hangs_can_be_stopped(hanging: str) -> None:
    with start(STREAM_URL="ws://127.0.0.1:1", AWS_ENDPOINT_URL=hanging, BUCKET="lake") as task:
        wait_for(task, '"starting"')
        log = stop(task)
    assert task.returncode == 0
    assert log == []


def unsent_batches(data: bytes) -> list[wire.TickBatch]:
    """The batches in an object of `ingest_ecs.unsent`."""
    batches = []
    while data:
        end = unsent.LENGTH_BYTES + int.from_bytes(data[: unsent.LENGTH_BYTES], "big")
        batches.append(wire.decode(data[unsent.LENGTH_BYTES : end]))
        data = data[end:]
    return batches
