"""The whole system on one machine, as one context manager.

    exchange ─▶ ingest ─▶ emulated AWS: Kinesis, Lambda, S3, API ─▶ Valkey

Servers start in parallel on free ports while the app is synthesised; then it is deployed, ingest starts, and
unless the champion is of the requested origin a model is trained by the deployed function while the first
bars fill. Leaving stops everything, ingest first, so that it flushes its buffer.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import FrameType, TracebackType

import redis
from botocore.exceptions import BotoCoreError, ClientError

from cdk.config import load
from cdk.variables import chosen
from ingest_ecs.settings import IngestSettings
from local.system import cloud, database, model_backup, servers
from local.system.api import Api
from local.system.cloud import Cloud
from local.system.emulator import EMULATORS
from local.system.first_model import FirstModel
from local.system.options import HISTORY_S, LIVE_SYMBOLS, Options
from local.system.processes import Process, Processes, ProcessFailed, sweep
from local.system.progress import Progress
from local.system.receivers import Receivers, put_receivers, read_receivers
from local.system.servers import HOST
from local.system.state_folder import BUILD, StateFolder, StateInUse, lock, throw_away
from local.system.variables import local_variables
from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe

_PREVIOUS_RUN_S = 8  # for a previous run to stop: it takes about two seconds
_LAYERS_S = 900
_EXCHANGE_S = 120  # with half an hour's history
_INGEST_S = 60
_PUBLIC_MIRROR = "wss://data-stream.binance.vision"  # JSON, and no key


class System:
    """A running system. Its attributes are set once it has started."""

    symbols: tuple[str, ...]
    exchange_url: str | None  # None with the live feed
    ingest: dict[Process, str]  # the running ingest tasks, oldest first, with their health addresses
    api_url: str  # ends with a slash
    api_key: str
    outputs: dict[str, str]

    def __init__(self, options: Options, state: StateFolder, progress: Progress) -> None:
        self.options = options
        self.state = state
        self._progress = progress
        self.valkey_port, self.postgres_port, cloud_port = servers.free_ports(3)
        endpoint_url = f"http://{HOST}:{cloud_port}"
        self._parts = Processes(state.path, state.logs, cloud.environment(endpoint_url, state))
        self.cloud = Cloud(EMULATORS[options.emulator], endpoint_url, self._parts, state)
        self._epoch_us = time.time_ns() // 1000 - options.history_s * 1_000_000
        self.ingest = {}
        self._ingest_started = 0
        self._leaving = ExitStack()

    def __enter__(self) -> System:
        """Start everything, or nothing. Raises `StateInUse`, `ProcessFailed` or `FunctionFailed`,
        and `ConfigError` or `OptionsError` for signals that cannot be used."""
        try:
            self._start()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def check(self) -> None:
        """Raise `ProcessFailed` if any process has ended by itself."""
        self._parts.check()

    def redis(self) -> redis.Redis:
        """A client of the hot store."""
        return redis.Redis(host=HOST, port=self.valkey_port, socket_timeout=5)

    @property
    def api(self) -> Api:
        """A client of the API, with its key."""
        return Api(self.api_url, self.api_key)

    @property
    def database_url(self) -> str:
        return servers.database_url(self.postgres_port)

    def start_ingest(self, environment: Mapping[str, str] | None = None) -> Process:
        """Start one more ingest task, with `environment` added to its usual variables."""
        self._ingest_started += 1
        name = "ingest" if self._ingest_started == 1 else f"ingest-{self._ingest_started}"
        command = [sys.executable, "-m", "ingest_ecs"]
        variables = self._ingest_variables() | dict(environment or {})
        task = self._parts.start(name, command, environment=variables, grace_s=25)
        listening = self._parts.wait_for_event(task, "health_listening", _INGEST_S)
        self.ingest[task] = f"http://{HOST}:{listening['port']}"
        return task

    def stop_ingest(self, *tasks: Process) -> None:
        """Stop `tasks`, by default all, gracefully.

        Raises `ProcessFailed` if one reports that it left something unsent.
        """
        for task in tasks or list(self.ingest):
            del self.ingest[task]
            if task.status is not None:  # found dead by `check`
                continue
            status = self._parts.stop(task)
            if status != 0:
                raise ProcessFailed(task.name, f"ended with exit status {status} when stopped", task.log)

    def kill_ingest(self, task: Process) -> None:
        """Kill a task, as a machine failure would: it cannot flush its buffer."""
        del self.ingest[task]
        self._parts.stop(task, signal.SIGKILL)

    def wait_for_end(self, task: Process, timeout_s: float) -> int:
        """The exit status of an ingest task that ends by itself. Raises `ProcessFailed` if it does not."""
        try:
            task.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise ProcessFailed(task.name, f"still runs after {timeout_s:g} s", task.log) from None
        del self.ingest[task]
        return self._parts.stop(task)

    def _start(self) -> None:
        receivers = self._receivers()
        try:
            self.state.open()
        except StateInUse:
            with self._progress.step("waiting for the previous run to stop"):
                self.state.open(_PREVIOUS_RUN_S)
        self._leaving.callback(self.state.close)
        if leftovers := sweep(self.state.path):
            self._progress.say(f"  killed processes left by an earlier run: {', '.join(leftovers)}")
        self.state.prepare()
        model_backup.save(self.state)
        self._leaving.callback(sweep, self.state.path)
        self._leaving.callback(self._parts.stop_all)

        step = self._progress.step
        valkey = servers.start_valkey(self._parts, self.valkey_port, self.state.temp)
        postgres = servers.start_postgres(self._parts, self.postgres_port, self.state.postgres)
        emulator = self.cloud.start()
        exchange = self._start_exchange()
        with step("Lambda layers"):
            self._build_layers()
        with step(f"Valkey, PostgreSQL, {self.cloud.emulator.title}, exchange"):
            servers.wait_for_valkey(self._parts, valkey, self.valkey_port)
            servers.wait_for_postgres(self._parts, postgres, self.postgres_port)
            database.clear(self.database_url)  # it was loaded from the previous run's bronze, which is gone
            database.migrate(self.database_url)
            self.cloud.wait(emulator)
            self._wait_for_exchange(exchange)
        with step("CDK synthesis and bootstrap"):
            context = {
                "redis_host": HOST,
                "redis_port": str(self.valkey_port),
                "database_host": HOST,
                "database_port": str(self.postgres_port),
                "symbols": ",".join(self.symbols),
            }
            if self.exchange_url:
                context["rest_url"] = self.exchange_url
            if self.options.signals:
                context["signals"] = str(self.options.signals.resolve())
            self.cloud.finish(self.cloud.start_bootstrap(), self.cloud.start_synthesis(context))
        with step("CloudFormation deployment"):
            self.cloud.deploy()
            self.outputs = self.cloud.outputs()
            self.api_url = self.outputs["ApiUrl"]
            self.api_key = self.cloud.api_key(self.outputs["ApiKeyId"])
            put_receivers(self.cloud.client("ssm"), "local", receivers)
        if not self.cloud.emulator.keeps_objects:
            self._leaving.callback(self._fetch_models)
        restored = model_backup.restore(self.state, self.cloud.client("s3"), self.outputs["BucketName"])
        if restored:
            self._progress.say(f"  restored {restored} model{'s' if restored > 1 else ''} of earlier runs")
        with step("ingest"):
            self.start_ingest()
        self._ensure_model()
        about = {"feed": self.options.feed, "api_url": self.api_url}
        self.state.about.write_text(json_text.text(about), "utf-8")

    def _receivers(self) -> Receivers:
        """Of the destinations of signals. Raises `ConfigError` and `OptionsError`, before anything starts."""
        signals = load("local", signals=str(self.options.signals or "")).signals
        path = self.options.destinations
        return read_receivers(path, signals, "local") if path else {}

    def _leave(self) -> None:
        with _signals_ignored(), self._leaving.pop_all():
            try:
                self.stop_ingest()
            except ProcessFailed as failure:
                self._progress.say(f"[yellow]{failure}[/yellow]")

    def _fetch_models(self) -> None:
        try:
            model_backup.fetch(self.state, self.cloud.client("s3"), self.outputs["BucketName"])
        except (BotoCoreError, ClientError, OSError) as error:
            self._progress.say(f"[yellow]models of this run are not saved: {describe(error)}[/yellow]")

    def _build_layers(self) -> None:
        with lock(BUILD / "layers.lock"):  # a smoke test may start during a run
            command = [sys.executable, "-m", "layers.build", "--target", "local"]
            self._parts.finish(self._parts.start("layers", command, is_step=True), _LAYERS_S)

    def _start_exchange(self) -> Process | None:
        if self.options.feed == "live":
            return None
        return servers.start_exchange(
            self._parts,
            symbols=self.options.symbols,
            recordings=self.options.replay,
            references=self.options.reference,
            speed=self.options.speed,
            seed=self.options.seed,
            epoch_us=self._epoch_us,
            clock_offset_ms=self.options.clock_offset_ms,
        )

    def _wait_for_exchange(self, exchange: Process | None) -> None:
        if exchange is None:
            self.symbols, self.exchange_url = self.options.symbols or LIVE_SYMBOLS, None
            return
        patience_s = _EXCHANGE_S * self.options.history_s / HISTORY_S
        listening = self._parts.wait_for_event(exchange, "listening", patience_s)
        self.symbols, self.exchange_url = tuple(listening["symbols"]), f"http://{HOST}:{listening['port']}"
        self._has_perpetuals = bool(listening["has_perpetuals"])

    def _ingest_variables(self) -> dict[str, str]:
        """As the CDK passes them to the task on AWS, with the feed of this run."""
        variables = local_variables(
            bucket=self.outputs["BucketName"],
            stream=self.outputs["StreamName"],
            symbols=",".join(self.symbols),
            rest_url=self.exchange_url or "",
        ) | {
            "PROTOCOL": self.options.protocol,
            "SOURCE": self.options.source,
            "HEALTH_PORT": "0",
            "POWERTOOLS_SERVICE_NAME": "ingest_ecs",
            "BINANCE_API_KEY": self.options.live_key,
        }
        if self.exchange_url:
            variables["BUSY_SYMBOL"] = self.symbols[0]
            variables |= servers.stream_variables(self.exchange_url, has_perpetuals=self._has_perpetuals)
            variables["BINANCE_API_KEY"] = servers.EXCHANGE_API_KEY
        elif self.options.protocol == "json":
            variables["STREAM_URL"] = _PUBLIC_MIRROR
        return chosen(IngestSettings, variables)

    def _ensure_model(self) -> None:
        """Train a first model unless the champion is of the requested origin and this code can serve it."""
        first = FirstModel(
            self.symbols,
            self.options.train,
            self.options.reference if self.options.train else (),
            self.options.seed,
            self._epoch_us,
            self.state.path / "model-origin",
        )
        if first.has_champion(self.cloud, self.outputs, self._progress):
            return
        if self.options.feed == "live" and not self.options.train:
            self._progress.say(
                "  no model for this market, all predictions are fallbacks: set TRAIN= to recordings of it"
            )
            return
        self.check()
        first.train(self.cloud, self.outputs, self._progress)


@contextlib.contextmanager
def temporary_system(kind: str, options: Options, progress: Progress) -> Iterator[System]:
    """A system whose state folder is removed afterwards: all of it, or all but the logs after an error or if
    the folder's `keeps_logs` is set. Raises as entering a `System` does."""
    state = throw_away(kind)
    try:
        with System(options, state, progress) as system:
            yield system
    except BaseException:
        state.keeps_logs = True
        raise
    finally:
        state.discard(keep_logs=state.keeps_logs)
        if state.keeps_logs:
            progress.say(f"logs: {state.logs}")


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Stopping must not be interrupted: it takes bounded time, and processes left running would stay."""

    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ignore) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
