"""Polling an object in S3 off the hot path.

A poll runs in a thread of its own, which is started after an event's results were written; no prediction
waits for it, however long S3 takes. Lambda freezes a process between events, and the thread with it: it
continues in the next event, and its timeouts include the time in between, so that a poll may fail that would
have succeeded. A failure only delays the update until the next poll
(docs/adr/0023-input-is-checked-at-the-boundary.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tickcast.adapters.redaction import describe

# From the end of a poll that succeeded to the start of the next: while S3 answers and events come, an object
# that was changed is picked up within 5 s.
POLL_EVERY_MS = 3000
BACK_OFF_MS = (3000, 30_000)  # from the end of a first failure to the next poll, doubled up to the second
REPORT_AFTER_MS = 10_000  # an object last read longer ago is a problem, once a poll has failed or hangs
GIVE_UP_AFTER_MS = 60_000  # a poll that has taken longer may hang for good: another is started then
FIRST_POLL_S = 3.0  # the longest wait for the very first poll, the only one that is waited for

NEVER_MS = float("-inf")

Start = Callable[[Callable[[], None]], None]


def in_background(poll: Callable[[], None]) -> None:
    """Run `poll` in a thread that keeps no process alive."""
    threading.Thread(target=poll, daemon=True, name="poll").start()


def inline(poll: Callable[[], None]) -> None:
    """Run `poll` in the calling thread: for callers that have nothing else to do."""
    poll()


class Polling:
    """Calls `read`, which raises on a failure, every `every_ms`, and further apart after failures; `key` is
    the object, for messages. `start` runs a poll, by default in a thread. All else is for one thread alone.
    """

    def __init__(
        self,
        read: Callable[[], object],
        key: str,
        clock_ms: Callable[[], float],
        start: Start = in_background,
        every_ms: float = POLL_EVERY_MS,
    ) -> None:
        self._read = read
        self._key = key
        self._clock_ms = clock_ms
        self.start = start
        self._every_ms = every_ms
        self._is_polling = False
        self._first_ended = threading.Event()
        self._is_first_over = False
        self._started_ms = self._ended_ms = NEVER_MS
        self.read_ms = NEVER_MS  # when a poll last succeeded
        self._failures = 0  # in a row
        self._outage = ""

    def wait_for_first(self) -> None:
        """Wait for the very first poll, for `FIRST_POLL_S` at most; later calls do not wait."""
        if not self._is_first_over:
            self.poll_if_due()
            self._first_ended.wait(FIRST_POLL_S)
            self._is_first_over = True

    def poll_if_due(self) -> None:
        """Start a poll if it is due and none is under way. To be called when nothing waits for it: after the
        results were written."""
        now_ms = self._clock_ms()
        if self._is_polling and now_ms - self._started_ms < GIVE_UP_AFTER_MS:
            return
        if now_ms - self._ended_ms < self._pause_ms():
            return
        self._is_polling, self._started_ms = True, now_ms
        try:
            self.start(self._run)
        except RuntimeError as error:  # no further thread can be started
            self._failed(error)
            self._end()

    def hasten(self) -> None:
        """Have the next `poll_if_due` start a poll."""
        self._ended_ms = NEVER_MS

    def problem(self) -> str | None:
        """The problem of an object that has not been read for a long time."""
        waiting = self._is_polling and self._clock_ms() - self._started_ms > REPORT_AFTER_MS
        if not (self._failures or waiting):
            return None
        outage = self._outage if self._failures else "S3 has not answered yet"
        if self.read_ms == NEVER_MS:
            return f"{self._key} was never read: {outage}"
        age_ms = self._clock_ms() - self.read_ms
        if age_ms <= REPORT_AFTER_MS:
            return None
        return f"{self._key} was last read {age_ms / 1000:.0f} s ago: {outage}"

    def _pause_ms(self) -> float:
        if not self._failures:
            return self._every_ms
        first_ms, most_ms = BACK_OFF_MS
        return min(float(first_ms << min(self._failures - 1, 30)), most_ms)

    def _run(self) -> None:
        try:
            self._read()
            self.read_ms, self._failures = self._clock_ms(), 0
        except Exception as error:  # of any kind: it ends this poll alone
            self._failed(error)
        finally:
            self._end()

    def _failed(self, error: Exception) -> None:
        self._outage, self._failures = describe(error), self._failures + 1

    def _end(self) -> None:
        self._ended_ms, self._is_polling = self._clock_ms(), False
        self._first_ended.set()
