"""How many ticks a second one shard's path takes: exchange → socket → ingest → Kinesis → function → state.

The embedded system is started with throw-away state, then a recording is replayed faster and faster, each
time by a fresh exchange to a fresh ingest task. What counts is what stands in the hot state: the ticks in the
bars that were closed meanwhile. A rate is sustained if no stage falls further behind while it lasts; at the
first one that is not, the stage that fell behind most is the bottleneck. All of it shares this
machine's cores with an emulated Kinesis and Lambda: the figure is a lower bound for the code, and says
nothing of AWS.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psutil
from rich.console import Console

from local.commands.options import Options
from local.system import cloud, http_json, servers
from local.system.cloud import FunctionFailed
from local.system.processes import MARK, Process, Processes, ProcessFailed
from local.system.progress import Progress
from local.system.state_folder import BUILD, ROOT, throw_away
from local.system.system import System
from tickcast.features.ring import BarRing
from tickcast.serving.state import decode_state
from tickcast.units import SECOND_US

RECORDING = ROOT.parent / "shared" / "data" / "recordings" / "spot_btcusdt_20240808.gz"
SYMBOL = "BTCUSDT"
SPEEDS = (40, 80, 120, 160, 200, 240, 300)  # times some 110 ticks a second
SETTLE_S, MEASURE_S, STATE_S = 4.0, 8.0, 30.0
FALLING_BEHIND = 0.05  # seconds a second: a stage that loses more does not keep up
_PREPARED = (BUILD / "ministack-venv" / ".stamp", ROOT / "node_modules" / ".bin" / "cdk", RECORDING)
_STAGES = ("local exchange", "socket and ingest", "put into Kinesis", "Kinesis to state")
_PROGRAMS = {"-m local.exchange": "exchange", "-m ingest_ecs": "ingest", "-m ministack": "emulated AWS"}


class Throughput(NamedTuple):
    """`ticks_per_s` and `bottleneck` are None when nothing was measured; `note` then says why."""

    ticks_per_s: int | None
    bottleneck: str | None
    note: str
    has_failed: bool = False


class Sight(NamedTuple):
    """Everything at one moment. `behind_s` is by stage; `cpu_s` by program."""

    at_s: float
    closed_us: int
    behind_s: dict[str, float]
    cpu_s: dict[str, float]


class Rung(NamedTuple):
    speed: float
    ticks_per_s: float
    falling_behind: dict[str, float]  # by stage, seconds a second
    cores: dict[str, float]  # by program

    @property
    def is_sustained(self) -> bool:
        return max(self.falling_behind.values()) <= FALLING_BEHIND

    @property
    def worst(self) -> str:
        return max(self.falling_behind, key=self.falling_behind.__getitem__)

    @property
    def load(self) -> str:
        return ", ".join(f"{name} {cores:.0%}" for name, cores in self.cores.items())


def measure(console: Console) -> Throughput:
    missing = [str(path) for path in _PREPARED if not path.exists()]
    if missing:
        return Throughput(None, None, f"not measured: {', '.join(missing)} is missing")
    state, is_ok = throw_away("bench"), False
    try:
        with System(Options(feed="replay", replay=(RECORDING,)), state, Progress(console)) as system:
            system.stop_ingest()
            found = _climb(system, console)
        is_ok = True
        return found
    except (ProcessFailed, FunctionFailed, TimeoutError) as error:
        return Throughput(None, None, f"failed: {error}; logs are in {state.logs}", has_failed=True)
    finally:
        state.discard(keep_logs=not is_ok)


def _climb(system: System, console: Console) -> Throughput:
    best: Rung | None = None
    for speed, attempt in itertools.product(SPEEDS, (1, 2)):
        if best and best.speed == speed:
            continue
        rung = _rung(system, speed, attempt)
        console.print(
            f"  {speed:>4} times as fast: {rung.ticks_per_s:8,.0f} ticks/s in the state, "
            f"{'sustained' if rung.is_sustained else f'{rung.worst} falls behind'} ({rung.load})",
            soft_wrap=True,
        )
        if rung.is_sustained:
            best = rung
        elif attempt == 2:  # once may have been another program's doing
            sustained = round(best.ticks_per_s) if best else 0
            return Throughput(sustained, rung.worst, f"at {rung.ticks_per_s:,.0f} ticks/s: {rung.load}")
    assert best is not None
    return Throughput(round(best.ticks_per_s), "none found", f"up to {SPEEDS[-1]} times the recorded pace")


def _rung(system: System, speed: float, attempt: int) -> Rung:
    with _replay(system, speed, f"speed-{speed:g}-{attempt}") as (exchange_url, task):
        _wait_for_state(system)
        _wait(system, SETTLE_S)
        before = _look(system, exchange_url, task)
        _wait(system, MEASURE_S)
        after = _look(system, exchange_url, task)
        ticks_per_s = _ticks_per_s(system, before.closed_us, after.closed_us)
    seconds = after.at_s - before.at_s
    return Rung(
        speed,
        ticks_per_s,
        {stage: (after.behind_s[stage] - before.behind_s[stage]) / seconds for stage in _STAGES},
        {name: (after.cpu_s[name] - before.cpu_s.get(name, 0.0)) / seconds for name in after.cpu_s},
    )


@contextmanager
def _replay(system: System, speed: float, name: str) -> Iterator[tuple[str, Process]]:
    """An exchange that replays at `speed` to an ingest task of its own; the symbol's state begins anew."""
    state = system.state
    logs = state.logs / name
    logs.mkdir()
    parts = Processes(state.path, logs, cloud.environment(system.cloud.endpoint_url, state))
    try:
        exchange = servers.start_exchange(
            parts, symbols=(SYMBOL,), recordings=(RECORDING,), speed=speed, seed=0, epoch_us=0
        )
        port = parts.wait_for_event(exchange, "listening", 60)["port"]
        system.redis().delete(f"state:{SYMBOL}")
        task = system.start_ingest({"STREAM_URL": f"ws://{servers.HOST}:{port}"})
        yield f"http://{servers.HOST}:{port}", task
        system.kill_ingest(task)
    finally:
        parts.stop_all()


def _look(system: System, exchange_url: str, task: Process) -> Sight:
    sent = http_json.get(f"{exchange_url}/local/sent").body["symbols"][SYMBOL]
    counts = http_json.get(f"{system.ingest[task]}/health").body["counts"]
    now_us = time.time_ns() // 1000
    ring = _ring(system)
    assert ring is not None
    pace = (sent["trades"] + sent["quotes"]) / ((sent["last_time_us"] - sent["first_time_us"]) / 1e6)
    ingested_behind_s = (counts["ticks_in"] - counts["ticks_put"]) / pace
    behind_s = (
        (now_us - sent["last_time_us"]) / 1e6,
        (sent["trades"] + sent["quotes"] - counts["ticks_in"]) / pace,
        ingested_behind_s,
        (now_us - ring.received_us) / 1e6 - ingested_behind_s,
    )
    return Sight(time.monotonic(), ring.closed_us, dict(zip(_STAGES, behind_s, strict=True)), _cpu_s(system))


def _ticks_per_s(system: System, from_us: int, to_us: int) -> float:
    """How many ticks a second stand in the state's whole seconds that were closed between two instants."""
    ring = _ring(system)
    assert ring is not None
    seconds = ring.seconds[(ring.seconds["end_us"] > from_us + SECOND_US) & (ring.seconds["end_us"] <= to_us)]
    return float((seconds["trade_count"] + seconds["quote_count"]).mean())


def _ring(system: System) -> BarRing | None:
    data: Any = system.redis().hget(f"state:{SYMBOL}", "ring")
    return decode_state(SYMBOL, 0, data, 0).ring if data else None


def _wait_for_state(system: System) -> None:
    deadline = time.monotonic() + STATE_S
    while (ring := _ring(system)) is None or not len(ring.bars):
        if time.monotonic() > deadline:
            raise TimeoutError(f"no tick came to the state within {STATE_S:g} s")
        _wait(system, 0.1)


def _cpu_s(system: System) -> dict[str, float]:
    """CPU seconds so far of everything that belongs to the system."""
    spent: dict[str, float] = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) != str(system.state.path) or process.ppid() == 0:
                continue
            words, times = " ".join(process.cmdline()), process.cpu_times()
        except psutil.Error:
            continue
        name = next((name for part, name in _PROGRAMS.items() if part in words), "functions, stores")
        spent[name] = spent.get(name, 0.0) + times.user + times.system
    return spent


def _wait(system: System, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        system.check()
        time.sleep(0.1)
