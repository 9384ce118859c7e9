"""From an event of 100 ms to its answer in Redis: how long it takes, compared with release 0.1.0, and how it
grows with the number of symbols in the event.

Each event holds the ticks of 100 ms of every symbol, and leads to a prediction of each. An answer is readable
when the command that writes it has returned; the invocation ends when the receipt is written too. The release
is taken from its tag, in a process of its own with its own packages: it runs this file (`serve`), and so does
the code of today, by turns. Its predictions are made every 100 ms as well.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

RELEASE = "v0.1.0"
MARK = 2.0
READY = "ready\n"
SYMBOL = "BTCUSDT"
WARM_UP_S, SECONDS = 70, 10
GROWTH_WARM_UP_S, GROWTH_EVENTS = 15, 15
COUNTS = (1, 10, 100)
ROOT = Path(__file__).resolve().parent.parent


class Taken(NamedTuple):
    """Median wall time, µs, from the event to its first answer, its last one, and the invocation's end."""

    first_us: float
    last_us: float
    end_us: float


class EventToRedis(NamedTuple):
    """`vs_release` is None where the release is not at hand; `growth` is by number of symbols."""

    taken: Taken
    vs_release: float | None
    growth: dict[int, Taken]

    @property
    def slope_us(self) -> float:
        """The invocation's µs for a further symbol, from 10 to 100."""
        return (self.growth[100].end_us - self.growth[10].end_us) / 90

    def lines(self) -> list[str]:
        first_us, _, end_us = self.taken
        compared = f"no ratio: the tag {RELEASE} is not in this clone"
        if self.vs_release is not None:
            short = " SHORT" if self.vs_release < MARK else ""
            compared = f"{RELEASE} takes {self.vs_release:.2f} times as long (mark >= {MARK:g}{short})"
        lines = [
            f"from an event of 100 ms to its answer in Redis: {first_us:,.0f} us (median), "
            f"{end_us:,.0f} us to the end; {compared}"
        ]
        lines += [
            f"  {count:>3} symbols in an event: first answer {taken.first_us:,.0f} us, "
            f"last {taken.last_us:,.0f} us, end {taken.end_us:,.0f} us"
            for count, taken in self.growth.items()
        ]
        before_us = (self.growth[10].end_us - self.growth[1].end_us) / 9
        lines.append(f"  a further symbol: {before_us:,.0f} us up to 10, {self.slope_us:,.0f} us up to 100")
        return lines

    def summary(self) -> dict[str, Any]:
        return {
            "event_to_redis_us_p50": round(self.taken.first_us),
            "event_to_redis_end_us_p50": round(self.taken.end_us),
            "event_to_redis_vs_v0_1_0": self.vs_release and round(self.vs_release, 2),
            "event_to_redis_us_per_symbol": round(self.slope_us),
        }


def measure(rounds: int) -> EventToRedis:
    with ExitStack() as stack:
        folders = {"ours": ROOT}
        if release := stack.enter_context(_release()):
            folders["release"] = release
        running = {name: stack.enter_context(_serving(folder)) for name, folder in folders.items()}
        runs: dict[str, list[Taken]] = {name: [] for name in running}
        for _ in range(rounds):
            for name, process in running.items():
                runs[name].append(_run(process))
    ratio = None
    if "release" in runs:
        pairs = zip(runs["release"], runs["ours"], strict=True)
        ratio = statistics.median(theirs.first_us / ours.first_us for theirs, ours in pairs)
    return EventToRedis(_medians(runs["ours"]), ratio, {count: _grown(count) for count in COUNTS})


def _medians(runs: list[Taken]) -> Taken:
    return Taken(*(statistics.median(values) for values in zip(*runs, strict=True)))


@contextmanager
def _release() -> Iterator[Path | None]:
    """A folder with the release's files; None where its tag is not in this clone."""
    command = ["git", "-C", str(ROOT), "archive", RELEASE]
    archive = subprocess.run(command, capture_output=True, check=False)
    if archive.returncode:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            # As the argument `filter`, which Python 3.11 has from 3.11.4 on.
            files.extraction_filter = getattr(tarfile, "data_filter", None)
            files.extractall(folder)
        yield Path(folder)


@contextmanager
def _serving(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `serve` with the packages in `folder`."""
    code = f"import runpy; runpy.run_path({str(Path(__file__).resolve())!r})['serve']()"
    path = os.pathsep.join([str(folder / "layers" / "core" / "python"), str(folder)])
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout
    try:
        if process.stdout.readline() != READY:  # one after another: each looks for a free port
            raise RuntimeError(f"the benchmark with the packages in {folder} did not start")
        yield process
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def _run(process: subprocess.Popen[str]) -> Taken:
    assert process.stdin and process.stdout
    process.stdin.write("run\n")
    process.stdin.flush()
    return Taken(*json.loads(process.stdout.readline()))


def serve() -> None:
    """For each line of the input one run of the events of one symbol; prints its `Taken` as JSON. With the
    packages of today or of the release."""
    from benchmarks import tick_to_redis
    from tickcast.functions import predict_stream

    if hasattr(predict_stream, "PREDICT_EVERY_US"):
        predict_stream.PREDICT_EVERY_US = 100_000
    with tick_to_redis._valkey() as client:
        predict = tick_to_redis._ours(client, _model())
        events = _events([SYMBOL], WARM_UP_S + SECONDS)
        for event in events[: WARM_UP_S * 10]:
            predict(event)
        kept: Any = client.dump(f"state:{SYMBOL}")
        print(READY, end="", flush=True)
        for _ in sys.stdin:
            client.flushall()
            client.restore(f"state:{SYMBOL}", 0, kept)
            predict.store = type(predict.store)(client, LATENESS_US)
            getattr(predict, "states", {}).clear()
            taken = [_timed(predict, event) for event in events[WARM_UP_S * 10 :]]
            print(json.dumps(_medians(taken)), flush=True)


def _grown(count: int) -> Taken:
    from benchmarks import tick_to_redis

    symbols = [f"S{n}USDT" for n in range(count)]
    events = _events(symbols, GROWTH_WARM_UP_S + 2)
    with tick_to_redis._valkey() as client:
        predict = tick_to_redis._ours(client, _model(), symbols)
        warm_up = GROWTH_WARM_UP_S * 10
        for at in range(0, warm_up, 10):
            predict({"Records": [record for event in events[at : at + 10] for record in event["Records"]]})
        return _medians([_timed(predict, event) for event in events[warm_up : warm_up + GROWTH_EVENTS]])


def _timed(predict: Any, event: dict[str, Any]) -> Taken:
    """The time that `event` takes; raises AssertionError if it leads to no prediction."""
    store, answered_ns = predict.store, []
    name = "answer" if hasattr(store, "answer") else "commit_all"  # of the release: all in one write
    write = getattr(type(store), name)

    def watched(items: Any) -> Any:
        found = write(store, items)
        answered_ns.append(time.perf_counter_ns())
        return found

    setattr(store, name, watched)
    started_ns = time.perf_counter_ns()
    result = predict(event)
    ended_ns = time.perf_counter_ns()
    assert len(result.predictions) == len({p.symbol for p in result.predictions}) > 0
    return Taken(*((at - started_ns) / 1000 for at in (answered_ns[0], answered_ns[-1], ended_ns)))


LATENESS_US = 100_000


def _model() -> Any:
    from tickcast.adapters.registry.onnx_model import OnnxModel, export
    from tickcast.model.fit import TrainingSettings, initial_network

    return OnnxModel(export(initial_network(TrainingSettings(), 1)))


def _events(symbols: list[str], seconds: int) -> list[dict[str, Any]]:
    """An event for each 100 ms, with a record for each symbol; its claim closes them."""
    from benchmarks import features, handler, tick_to_redis

    trades, quotes = features.market(seconds)
    events: list[dict[str, Any]] = []
    for second in range(seconds):
        whole = features.second_of(trades, quotes, second)
        for n, piece in enumerate(tick_to_redis._pieces(whole)):
            claim_us = features.START_US + second * 1_000_000 + (n + 1) * 100_000 + LATENESS_US
            batches = (piece._replace(symbol=symbol, watermark_us=claim_us) for symbol in symbols)
            events.append(handler.packed(batches, len(events) * len(symbols), claim_us))
    return events
