"""The controls of a running system that a drill has, and its view of the system."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from local.drills.proxy import Proxy
from local.system import http_json
from local.system.processes import Process
from local.system.system import System

_READY_S = 30
_POLL_S = 0.1


class DrillFailed(RuntimeError):
    """A fault could not be injected, or the system did not behave as it should; the message says which."""


@dataclass
class Answers:
    """The API's responses for one symbol during a drill, in the order of time."""

    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fresh(self) -> list[dict[str, Any]]:
        """Those with a model's prediction."""
        return [body for body in self.bodies if body["source"] == "model"]

    @property
    def stale_after_s(self) -> float:
        """The age (s) of the oldest tick served as fresh, unless the market was known to be quiet."""
        return max((tick_age_s(body) for body in self.fresh if not body["quiet"]), default=0.0)


def tick_age_s(body: dict[str, Any]) -> float:
    """The age of the newest tick in a response; 0 if it is not known."""
    return (body["age_ms"]["tick"] or 0) / 1000


class Harness:
    """Controls of a running `system`; `network` is a proxy through which a task can reach Kinesis."""

    def __init__(self, system: System, network: Proxy) -> None:
        self.system = system
        self.network = network
        self.stale_after_s: float | None = None  # if the drill measured it
        self._usual = list(system.ingest)

    # ------------------------------------------------------------------------------------- the exchange

    def inject(self, kind: str, **fields: Any) -> None:
        """Inject a fault into the exchange: see `local.exchange.fault_requests`."""
        answer = http_json.send("POST", self._control, {"kind": kind, **fields})
        if answer.status != 200:
            raise DrillFailed(f"the exchange refused the fault {kind}: {answer.body}")

    def end_faults(self) -> None:
        """End all faults of the exchange."""
        http_json.send("DELETE", self._control)

    def is_active(self, kind: str) -> bool:
        """Whether a fault of this kind is active."""
        return any(fault["kind"] == kind for fault in http_json.get(self._control).body["active"])

    def hits(self) -> int:
        """How often any fault so far took effect."""
        faults = http_json.get(self._control).body
        return sum(fault["hits"] for fault in (*faults["active"], *faults["ended"]))

    @property
    def _control(self) -> str:
        return f"{self.system.exchange_url}/local/faults"

    # ------------------------------------------------------------------------------------- ingest tasks

    @property
    def task(self) -> Process:
        """The oldest running ingest task."""
        return next(iter(self.system.ingest))

    def health(self, task: Process) -> dict[str, Any]:
        """A task's own health report."""
        report: dict[str, Any] = http_json.get(f"{self.system.ingest[task]}/health").body
        return report

    def connections(self) -> int:
        """How many connections the oldest running task has opened so far."""
        count: int = self.health(self.task)["counts"]["connections"]
        return count

    def another_task(self, environment: Mapping[str, str] | None = None) -> Process:
        """Start one more task; it delivers when this returns."""
        task = self.system.start_ingest(environment)
        url = f"{self.system.ingest[task]}/ready"
        self.wait_until(lambda: http_json.get(url).status == 200, f"{task.name} to deliver", _READY_S)
        return task

    def hand_over(self, environment: Mapping[str, str] | None = None) -> None:
        """Replace all tasks by a new one, as a deployment does: it delivers before the old ones stop."""
        before = list(self.system.ingest)
        self.another_task(environment)
        self.system.stop_ingest(*before)

    def restore(self) -> None:
        """Restore the state before the drill: no faults, a working network, one task with usual settings."""
        self.end_faults()
        self.network.restore()
        if not set(self._usual) & set(self.system.ingest):
            self._usual = [self.another_task()]
        if extra := [task for task in self.system.ingest if task not in self._usual]:
            self.system.stop_ingest(*extra)

    # ----------------------------------------------------------------------------------------- the API

    @contextmanager
    def reading(self, symbol: str) -> Iterator[Answers]:
        """Poll the predictions of `symbol` meanwhile, as a user would."""
        answers, is_over = Answers(), threading.Event()

        def read() -> None:
            while not is_over.wait(_POLL_S):
                response = self.system.api.get(f"predictions/{symbol}")
                if response.status == 200:
                    answers.bodies.append(response.body)

        reader = threading.Thread(target=read, daemon=True, name="reader")
        reader.start()
        try:
            yield answers
        finally:
            is_over.set()
            reader.join()
        self.stale_after_s = round(answers.stale_after_s, 1)

    # --------------------------------------------------------------------------------------------- time

    def wait(self, seconds: float) -> None:
        """Wait while all processes run. Raises `ProcessFailed`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.system.check()
            time.sleep(min(_POLL_S, seconds))

    def wait_until(self, is_met: Callable[[], bool], what: str, timeout_s: float) -> float:
        """Wait for a condition; the seconds it took. Raises `DrillFailed` or `ProcessFailed`."""
        started_s = time.monotonic()
        while not is_met():
            if time.monotonic() - started_s > timeout_s:
                raise DrillFailed(f"timeout after {timeout_s:g} s waiting for {what}")
            self.wait(_POLL_S)
        return time.monotonic() - started_s
