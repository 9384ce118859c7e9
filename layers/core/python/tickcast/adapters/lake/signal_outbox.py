"""Signals in the lake, `signals/{rule}/{symbol}/{window}.json`, each written once.

The bucket's event invokes `send_signals`. Who matches a rule reaches nothing but S3 from the VPC, and waits
for no receiver (docs/adr/0047-signals-leave-by-the-bucket.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.redaction import describe
from tickcast.serving.signals import PREFIX, Signal, SignalRule, object_key

_HOLD_OFF_MS = 5000  # after a failure: each attempt may take seconds, which the next predictions wait for
_WRITTEN = ("PreconditionFailed", "ConditionalRequestConflict")  # another process was first, or is just now
_MOST_NAMES = 10_000


class SignalOutbox:
    """What one process writes. It remembers the windows that it has written, so that a rule that keeps
    matching costs one request for each window."""

    def __init__(self, s3: Any, bucket: str, clock_ms: Callable[[], float]) -> None:
        self._s3, self._bucket, self._clock_ms = s3, bucket, clock_ms
        self._written: dict[str, None] = {}  # keys, in the order of writing
        self._held_until_ms = 0.0

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
