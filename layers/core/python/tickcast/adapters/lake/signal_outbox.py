"""Signals in the lake, `signals/{rule}/{symbol}/{window}.json`, each written once.

The bucket's event invokes `send_signals`. Who matches a rule reaches nothing but S3 from the VPC, and waits
for no receiver (docs/adr/0047-signals-leave-by-the-bucket.md).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.redaction import describe
from tickcast.adapters.registry.polling import GIVE_UP_AFTER_MS, Start, in_background
from tickcast.serving.signals import PREFIX, Signal, SignalRule, object_key

_HOLD_OFF_MS = 5000  # after a failure: each attempt may take seconds
_WAIT_S = 0.1  # for signals handed over: usually they are written by then, before Lambda freezes the process
_WRITTEN = ("PreconditionFailed", "ConditionalRequestConflict")  # another process was first, or is just now
_MOST_NAMES = 10_000
_MOST_PROBLEMS = 100


class SignalOutbox:
    """What one process writes. It remembers the windows that it has written, so that a rule that keeps
    matching costs one request for each window. `start` runs what `hand_over` leaves to be written, by default
    in a thread."""

    def __init__(
        self, s3: Any, bucket: str, clock_ms: Callable[[], float], start: Start = in_background
    ) -> None:
        self._s3, self._bucket, self._clock_ms, self._start = s3, bucket, clock_ms, start
        self._written: dict[str, None] = {}  # keys, in the order of writing
        self._held_until_ms = 0.0
        self._lock = threading.Lock()  # of `_waiting`
        self._waiting: dict[str, tuple[SignalRule, Signal]] = {}  # by key, oldest first
        self._problems: deque[str] = deque(maxlen=_MOST_PROBLEMS)
        self._idle, self._started_ms = threading.Event(), 0.0
        self._idle.set()

    def hand_over(self, found: Iterable[tuple[SignalRule, Signal]]) -> list[str]:
        """Have signals written, for callers that wait for nothing: for `_WAIT_S` at most, and not at all
        while earlier ones are being written. Returns why S3 did not take some of this or an earlier call."""
        with self._lock:
            for rule, signal in found:
                key = object_key(signal)
                if key not in self._written and len(self._waiting) < _MOST_NAMES:
                    self._waiting.setdefault(key, (rule, signal))
        now_ms = self._clock_ms()
        is_writing = not self._idle.is_set() and now_ms - self._started_ms < GIVE_UP_AFTER_MS
        if self._waiting and not is_writing:
            self._started_ms = now_ms
            self._idle.clear()
            try:
                self._start(self._write_waiting)
                self._idle.wait(_WAIT_S)
            except RuntimeError as error:  # no further thread can be started
                self._idle.set()
                self._problems.append(f"signals are not written: {describe(error)}")
        return [self._problems.popleft() for _ in range(len(self._problems))]

    def _write_waiting(self) -> None:
        try:
            while found := self._next():
                try:
                    problem = self.put(*found)
                except Exception as error:  # of any kind: the others are written
                    problem = f"signal {found[0].name} of {found[1].symbol}: {describe(error)}"
                if problem:
                    self._problems.append(problem)
        finally:
            self._idle.set()

    def _next(self) -> tuple[SignalRule, Signal] | None:
        with self._lock:
            return self._waiting.pop(next(iter(self._waiting))) if self._waiting else None

    def put(self, rule: SignalRule, signal: Signal) -> str | None:
        """Write `signal`, unless one of its window is there. Returns why S3 did not take it, if so; a later
        match of the same window tries again."""
        key = object_key(signal)
        if key in self._written or self._clock_ms() < self._held_until_ms:
            return None
        try:
            self._s3.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=msgspec.json.encode(signal),
                ContentType="application/json",
                IfNoneMatch="*",
            )
        except (ClientError, BotoCoreError, OSError) as error:
            code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else ""
            if code not in _WRITTEN:
                self._held_until_ms = self._clock_ms() + _HOLD_OFF_MS
                return f"signal {rule.name} of {signal.symbol} is not written: {describe(error)}"
        self._written[key] = None
        if len(self._written) > _MOST_NAMES:
            del self._written[next(iter(self._written))]
        return None


class SignalMissing(LookupError):
    """There is no such signal in the lake, or it cannot be read; the message says why."""


def read_signal(s3: Any, bucket: str, key: str) -> Signal:
    """The signal under `key`. Raises `SignalMissing`, and what boto3 raises where S3 does not answer."""
    if not key.startswith(PREFIX):
        raise SignalMissing(f"{key} is not below {PREFIX}")
    try:
        return msgspec.json.decode(s3.get_object(Bucket=bucket, Key=key)["Body"].read(), type=Signal)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
            raise SignalMissing(f"{key} is no longer there") from None
        raise
    except (msgspec.MsgspecError, ValueError) as error:
        raise SignalMissing(f"{key} is no signal: {describe(error)}") from None
