"""What a drill may do to a running system, and what it may read of it."""

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
    """The fault did not come about, or the system did not do what it should; the message says which."""


@dataclass
class Answers:
    """What the API answered about one symbol, in the order of time, while a drill ran."""

    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def fresh(self) -> list[dict[str, Any]]:
        """Those that a model stands for."""
        return [body for body in self.bodies if body["source"] == "model"]

    @property
    def stale_after_s(self) -> float:
        """The age of the oldest tick that was served as fresh, but for a market known to be quiet."""
        return max((body["tick_age_s"] for body in self.fresh if not body["quiet"]), default=0.0)


class Harness:
    """A running `system`, and `network`, through which a task that is told so reaches Kinesis."""

    def __init__(self, system: System, network: Proxy) -> None:
        self.system = system
        self.network = network
        self.stale_after_s: float | None = None  # what a drill measured of it
        self._usual = list(system.ingest)

    # ------------------------------------------------------------------------------------- the exchange

    def order(self, kind: str, **fields: Any) -> None:
        """Have the exchange misbehave: see `local.exchange.orders`."""
        answer = http_json.send("POST", self._control, {"kind": kind, **fields})
        if answer.status != 200:
            raise DrillFailed(f"the exchange refused to {kind}: {answer.body}")

    def behave(self) -> None:
        """End all orders."""
        http_json.send("DELETE", self._control)

    def is_under(self, kind: str) -> bool:
        """Whether an order of this kind is in force."""
        return any(order["kind"] == kind for order in http_json.get(self._control).body["active"])

    def hits(self) -> int:
        """How often any order so far came to something."""
        orders = http_json.get(self._control).body
        return sum(order["hits"] for order in (*orders["active"], *orders["ended"]))

    @property
    def _control(self) -> str:
        return f"{self.system.exchange_url}/local/misbehave"

    # ------------------------------------------------------------------------------------- ingest tasks

    @property
    def task(self) -> Process:
        """The ingest task that has been running longest."""
        return next(iter(self.system.ingest))

    def health(self, task: Process) -> dict[str, Any]:
        """What a task says of itself."""
        report: dict[str, Any] = http_json.get(f"{self.system.ingest[task]}/health").body
        return report

    def connections(self) -> int:
        """How many connections the longest running task has made so far."""
        count: int = self.health(self.task)["counts"]["connections"]
        return count

    def another_task(self, environment: Mapping[str, str] | None = None) -> Process:
        """Start a task beside those that run; it delivers when this returns."""
        task = self.system.start_ingest(environment)
        url = f"{self.system.ingest[task]}/ready"
        self.wait_until(lambda: http_json.get(url).status == 200, f"{task.name} to deliver", _READY_S)
        return task

    def hand_over(self, environment: Mapping[str, str] | None = None) -> None:
        """Replace all tasks by one, as a deployment does: the new one delivers before the old ones stop."""
        before = list(self.system.ingest)
        self.another_task(environment)
        self.system.stop_ingest(*before)

    def restore(self) -> None:
        """As it was before the drill: an exchange that behaves, a network that works, one usual task."""
        self.behave()
        self.network.mend()
        if not set(self._usual) & set(self.system.ingest):
            self._usual = [self.another_task()]
        if extra := [task for task in self.system.ingest if task not in self._usual]:
            self.system.stop_ingest(*extra)

    # ----------------------------------------------------------------------------------------- the API

    @contextmanager
    def reading(self, symbol: str) -> Iterator[Answers]:
        """Ask for predictions of `symbol` all the time, as a user does."""
        answers, is_over = Answers(), threading.Event()
        url = f"{self.system.api_url}predictions/{symbol}"

        def read() -> None:
            while not is_over.wait(_POLL_S):
                answer = http_json.get(url, {"x-api-key": self.system.api_key})
                if answer.status == 200:
                    answers.bodies.append(answer.body)

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
        """Let time pass while all parts run. Raises `PartFailed`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.system.check()
            time.sleep(min(_POLL_S, seconds))

    def wait_until(self, is_so: Callable[[], bool], what: str, timeout_s: float) -> float:
        """Wait for something; the seconds it took. Raises `DrillFailed` or `PartFailed`."""
        started_s = time.monotonic()
        while not is_so():
            if time.monotonic() - started_s > timeout_s:
                raise DrillFailed(f"waited {timeout_s:g} s in vain for {what}")
            self.wait(_POLL_S)
        return time.monotonic() - started_s
