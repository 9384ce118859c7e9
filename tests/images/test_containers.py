"""The images themselves: built, and run as ECS runs them, read-only and without rights.

Skipped where nothing builds and runs images, or the base image is not to be had; `IMAGES=required` makes that
a failure. BUILDER, BASE and BUILD_OPTIONS are those of `make images`; RUN_OPTIONS are further options of
`docker run` or `podman run`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import psycopg
import pytest

from cdk.variables import chosen
from ingest_ecs.settings import IngestSettings
from local.system import cloud, http_json, servers
from local.system.variables import local_variables
from operations.failures import OperationRefused
from operations.images import builders
from operations.images.builders import IMAGES
from tests.fixtures.paths import ROOT

pytestmark = [pytest.mark.images, pytest.mark.slow, pytest.mark.server]

USER = "10001"
AS_ON_ECS = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init", "--network=host")
BUILD_S = 1200
START_S = 120
WRITE = """
import errno, pathlib
try:
    pathlib.Path("/app/x").touch()
except OSError as error:
    print(errno.errorcode[error.errno])
"""


class Engine(NamedTuple):
    """What runs the images: docker or podman."""

    name: str

    def __call__(self, *arguments: str, timeout_s: float = 60) -> str:
        """The output of a command that has to succeed."""
        command = [self.name, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
        return done.stdout

    @contextmanager
    def container(self, image: str, variables: dict[str, str]) -> Iterator[str]:
        """The name of a running container of `image`, which is removed at the end."""
        name = f"{image}-test-{uuid.uuid4().hex[:8]}"
        given = [f"--env={key}={value}" for key, value in variables.items()]
        options = shlex.split(os.environ.get("RUN_OPTIONS", ""))
        health = ["--no-healthcheck"]  # podman asks systemd to run it; the test runs the command itself
        self("run", "--detach", f"--name={name}", *AS_ON_ECS, *health, *options, *given, image)
        try:
            yield name
        finally:
            subprocess.run([self.name, "rm", "--force", name], capture_output=True, timeout=60)

    def logs(self, container: str) -> str:
        done = subprocess.run([self.name, "logs", container], capture_output=True, text=True, timeout=60)
        return done.stdout + done.stderr


def give_up(reason: str) -> NoReturn:
    """Skip, or fail with IMAGES=required."""
    if os.environ.get("IMAGES") == "required":
        pytest.fail(f"IMAGES=required, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def engine() -> Engine:
    """The engine that has the images, just built."""
    try:
        builder = builders.choose(os.environ.get("BUILDER", ""))
    except OperationRefused as error:
        give_up(str(error))
    name = "podman" if builder == "buildah" else builder
    if not builders.works(name):
        give_up(f"{builder} builds images, but nothing here runs them: install podman")
    base = os.environ.get("BASE", "")
    pinned = re.findall(r"^FROM (\S+)$", (ROOT / IMAGES[0].dockerfile).read_text("utf-8"), re.MULTILINE)[0]
    if subprocess.run([name, "image", "inspect", base or pinned], capture_output=True).returncode:
        fetched = subprocess.run(
            [name, "pull", base or pinned], capture_output=True, text=True, timeout=BUILD_S
        )
        if fetched.returncode:
            give_up(f"the base image cannot be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    options = shlex.split(os.environ.get("BUILD_OPTIONS", ""))
    for image in IMAGES:
        builders.build(builders.build_command(builder, image, base=base, options=options), image)
    return Engine(name)


def wait_until(is_so: Callable[[], bool], describe: Callable[[], str]) -> None:
    deadline_s = time.monotonic() + START_S
    while not is_so():
        assert time.monotonic() < deadline_s, describe()
        time.sleep(0.2)


@pytest.fixture
def exchange_port() -> Iterator[int]:
    """The port of a simulated exchange."""
    command = [sys.executable, "-m", "local.exchange", "--symbols", "BTCUSDT", "--history-s", "0"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "layers" / "core" / "python")])
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            listening = next(line for line in process.stdout if '"listening"' in line)
            yield json.loads(listening)["port"]
        finally:
            process.terminate()
            process.communicate(timeout=30)


def health_check() -> list[str]:
    """The command of the Dockerfile's HEALTHCHECK."""
    text = (ROOT / IMAGES[0].dockerfile).read_text("utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^HEALTHCHECK .* CMD (\[.*\])$", text, re.MULTILINE)
    return list(json.loads(command))


def test_ingest_runs_read_only_and_without_rights(engine: Engine, emulator: str, exchange_port: int) -> None:
    stream, bucket = "images-test", "images-test"
    kinesis = cloud.client_of(emulator, "kinesis")
    kinesis.create_stream(StreamName=stream, ShardCount=1)
    kinesis.get_waiter("stream_exists").wait(StreamName=stream)
    cloud.client_of(emulator, "s3").create_bucket(Bucket=bucket)
    (port,) = servers.free_ports(1)
    exchange = f"127.0.0.1:{exchange_port}"
    variables = local_variables(
        bucket=bucket, stream=stream, symbols="BTCUSDT", rest_url=f"http://{exchange}"
    )
    settings = chosen(
        IngestSettings,
        variables
        | {
            **servers.stream_variables(f"http://{exchange}"),
            "BUSY_SYMBOL": "BTCUSDT",
            "HEALTH_PORT": str(port),
            "BINANCE_API_KEY": servers.EXCHANGE_API_KEY,
        },
    )
    aws = {**cloud.CREDENTIALS, "AWS_DEFAULT_REGION": cloud.REGION, "AWS_ENDPOINT_URL": emulator}
    with engine.container("tickcast-ingest", settings | aws | {"POWERTOOLS_SERVICE_NAME": "ingest"}) as name:

        def is_ready() -> bool:
            try:
                return http_json.get(f"http://127.0.0.1:{port}/ready", timeout_s=2).status == 200
            except (OSError, ValueError):
                return False

        wait_until(is_ready, lambda: engine.logs(name))
        engine("exec", name, *health_check())
        assert engine("exec", name, "id", "-u").strip() == USER
        assert engine("exec", name, "python", "-c", WRITE).strip() == "EROFS"
        engine("stop", name)  # SIGTERM, and a kill after ten seconds
        status = engine("inspect", "--format", "{{.State.ExitCode}}", name).strip()
        log = engine.logs(name)
    assert status == "0", log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    (stopped,) = [line for line in lines if line["message"] == "stopped"]
    assert stopped["waiting_records"] == 0
    assert records_in(kinesis, stream) == stopped["records_put"] > 0


def records_in(kinesis: Any, stream: str) -> int:
    (shard,) = kinesis.list_shards(StreamName=stream)["Shards"]
    at = kinesis.get_shard_iterator(
        StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    count = 0
    while found := (answer := kinesis.get_records(ShardIterator=at))["Records"]:
        count, at = count + len(found), answer["NextShardIterator"]
    return count


def test_migrations_bring_an_empty_database_to_the_newest_schema(engine: Engine, postgres_port: int) -> None:
    name = f"images_test_{uuid.uuid4().hex[:8]}"
    server = f"postgres://postgres@127.0.0.1:{postgres_port}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"create database {name}".encode())
    address = {"DATABASE_URL": f"postgres://127.0.0.1:{postgres_port}/{name}?sslmode=disable"}
    with engine.container("tickcast-migrations", address | {"PGUSER": "postgres", "PGPASSWORD": "x"}) as task:
        status = engine("wait", task).strip()
        log = engine.logs(task)
    assert status == "0", log
    with psycopg.connect(f"{server}/{name}") as connection:
        applied = connection.execute("select version from schema_migrations order by version").fetchall()
    files = sorted((ROOT / "migrations").glob("*.sql"))
    assert [version for (version,) in applied] == [file.name.partition("_")[0] for file in files]
