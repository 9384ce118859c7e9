"""Signals in the lake: each once, and no prediction waits for S3 twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ConnectTimeoutError

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import Clock
from tickcast.adapters.lake.signal_outbox import SignalMissing, SignalOutbox, read_signal
from tickcast.serving.signals import SignalledDrift, SignalRule, drift_signal, object_key

RULE = SignalRule(name="drifts", when="drift", to="desk", pause_s=60)


def signal(at_ms: int = 60_000, model_id: str = "m1") -> Any:
    return drift_signal(RULE, "BTCUSDT", at_ms, SignalledDrift(model_id=model_id, reasons=[]))


class CountingS3:
    """Counts puts, and raises `error` if there is one."""

    def __init__(self, s3: Any) -> None:
        self._s3, self.puts, self.error = s3, 0, None

    def put_object(self, **request: Any) -> Any:
        self.puts += 1
        if self.error:
            raise self.error
        return self._s3.put_object(**request)


def test_a_window_is_written_once_by_all_processes(s3: Any) -> None:
    counting, clock = CountingS3(s3), Clock()
    first, second = (SignalOutbox(counting, BUCKET, clock) for _ in range(2))
    for outbox, model_id in ((first, "m1"), (first, "m2"), (second, "m3"), (second, "m4")):
        assert outbox.put(RULE, signal(60_000, model_id)) is None
    assert counting.puts == 2  # each process asks once
    found = read_signal(s3, BUCKET, object_key(signal()))
    assert found == signal(60_000, "m1")
    assert first.put(RULE, signal(120_000)) is None
    assert len(s3.list_objects_v2(Bucket=BUCKET, Prefix="signals/")["Contents"]) == 2


def test_a_lake_that_is_away_is_left_alone_for_a_while(s3: Any) -> None:
    counting, clock = CountingS3(s3), Clock()
    counting.error = ConnectTimeoutError(endpoint_url="https://s3")
    outbox = SignalOutbox(counting, BUCKET, clock)
    assert "signal drifts of BTCUSDT is not written: ConnectTimeoutError" in str(outbox.put(RULE, signal()))
    assert outbox.put(RULE, signal()) is None
    assert counting.puts == 1
    counting.error, clock.ms = None, clock.ms + 5000
    assert outbox.put(RULE, signal()) is None
    assert read_signal(s3, BUCKET, object_key(signal())) == signal()


def test_what_no_thread_could_be_started_for_is_written_with_the_next(s3: Any) -> None:
    starts: list[bool] = []

    def start(write: Callable[[], None]) -> None:
        starts.append(True)
        if len(starts) == 1:
            raise RuntimeError("can't start new thread")
        write()

    outbox = SignalOutbox(s3, BUCKET, Clock(), start)
    [problem] = outbox.hand_over([(RULE, signal())])
    assert problem == "signals are not written: RuntimeError: can't start new thread"
    assert outbox.hand_over([]) == outbox.hand_over([(RULE, signal())]) == []
    assert read_signal(s3, BUCKET, object_key(signal())) == signal()
    assert len(starts) == 2  # what is written is not handed over again


def test_what_is_remembered_is_bounded(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tickcast.adapters.lake.signal_outbox._MOST_NAMES", 3)
    outbox = SignalOutbox(CountingS3(s3), BUCKET, Clock())
    for minute in range(10):
        outbox.put(RULE, signal(minute * 60_000))
    assert len(outbox._written) == 3


@pytest.mark.parametrize(
    ("key", "data", "said"),
    [
        ("signals/drifts/BTCUSDT/0.json", None, "no longer there"),
        ("signals/drifts/BTCUSDT/0.json", b"{", "is no signal"),
        ("signals/drifts/BTCUSDT/0.json", json.dumps({"id": "x"}).encode(), "is no signal"),
        ("models/current.json", msgspec.json.encode(signal()), "is not below signals/"),
    ],
)
def test_what_is_no_signal(s3: Any, key: str, data: bytes | None, said: str) -> None:
    if data is not None:
        s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    with pytest.raises(SignalMissing, match=said):
        read_signal(s3, BUCKET, key)
