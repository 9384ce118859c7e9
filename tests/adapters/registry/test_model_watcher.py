"""Polling the pointer while S3 is slow, hangs, or is out of reach: no prediction waits for it."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from tests.fixtures.hot_path import CARD, Clock, network
from tickcast.adapters.registry import model_watcher, polling
from tickcast.adapters.registry.model_watcher import ModelWatcher
from tickcast.adapters.registry.onnx_model import export
from tickcast.adapters.registry.pointer import POINTER
from tickcast.adapters.registry.polling import BACK_OFF_MS, POLL_EVERY_MS, REPORT_AFTER_MS

SECOND_MS = 1000


class Bucket:
    """S3 with a pointer to m1 and models m1 and m2; a request takes `takes_ms` of the clock, and fails or
    blocks where a test says so."""

    class exceptions:
        class NoSuchKey(Exception):
            pass

    def __init__(self, clock: Clock) -> None:
        self.clock, self.takes_ms = clock, 0.0
        self.is_down = False
        self.gate = threading.Event()  # what requests wait for
        self.gate.set()
        self.requests: list[dict[str, Any]] = []
        self.objects: dict[str, bytes] = {}
        for model_id in ("m1", "m2"):
            self.objects[f"models/{model_id}/model.onnx"] = export(network())
            self.put(f"models/{model_id}/card.json", CARD | {"model_id": model_id})
        self.point_at("m1")

    def put(self, key: str, value: Any) -> None:
        self.objects[key] = json.dumps(value).encode()

    def point_at(self, model_id: str, **more: Any) -> None:
        self.put(POINTER, {"model_id": model_id, **more})

    def polls(self) -> int:
        return sum(request["Key"] == POINTER for request in self.requests)

    def get_object(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        self.clock.ms += self.takes_ms
        assert self.gate.wait(30)
        if self.is_down:
            raise ReadTimeoutError(endpoint_url="https://s3/?X-Amz-Signature=secret-of-nobody")
        if request["Key"] not in self.objects:
            raise self.exceptions.NoSuchKey
        data = self.objects[request["Key"]]
        etag = f'"{hash(data)}"'
        if request.get("IfNoneMatch") == etag:
            raise ClientError({"Error": {"Code": "304", "Message": "Not Modified"}}, "GetObject")
        return {"Body": io.BytesIO(data), "ETag": etag}


class Started:
    """Polls that were started, to be run when a test says so: as by a thread at its own pace."""

    def __init__(self) -> None:
        self.polls: list[Callable[[], None]] = []

    def __call__(self, poll: Callable[[], None]) -> None:
        self.polls.append(poll)

    def run(self) -> None:
        self.polls.pop(0)()


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.ms = 0.0
    return clock


@pytest.fixture
def bucket(clock: Clock) -> Bucket:
    return Bucket(clock)


@pytest.fixture
def watcher(bucket: Bucket, clock: Clock) -> ModelWatcher:
    return ModelWatcher(bucket, "b", clock, polling.inline)


def model_id(watcher: ModelWatcher) -> str | None:
    model = watcher.current()
    return model.model_id if model else None


def test_the_first_poll_is_waited_for(bucket: Bucket, clock: Clock) -> None:
    assert model_id(ModelWatcher(bucket, "b", clock)) == "m1"


def test_a_store_that_hangs_at_the_start_is_waited_for_once(
    bucket: Bucket, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "FIRST_POLL_S", 0.01)
    bucket.gate.clear()
    watcher = ModelWatcher(bucket, "b", clock)
    try:
        assert [model_id(watcher) for _ in range(3)] == [None] * 3
        watcher.poll()
        assert (bucket.polls(), watcher.is_refused) == (1, False)
        clock.ms += REPORT_AFTER_MS + 1
        assert watcher.problem == "models/current.json was never read: S3 has not answered yet"
    finally:
        bucket.gate.set()


def test_a_poll_that_hangs_delays_no_prediction_and_no_second_is_started(
    bucket: Bucket, clock: Clock
) -> None:
    started = Started()
    watcher = ModelWatcher(bucket, "b", clock, polling.inline)
    assert model_id(watcher) == "m1"
    watcher.polling.start = started
    bucket.point_at("m2")
    for _ in range(20):
        clock.ms += SECOND_MS
        assert model_id(watcher) == "m1"
        watcher.poll()
    assert len(started.polls) == 1
    assert watcher.problem == "models/current.json was last read 20 s ago: S3 has not answered yet"
    started.run()
    assert model_id(watcher) == "m2"
    problem = watcher.problem
    assert problem is None


def test_a_poll_that_never_ends_is_given_up(bucket: Bucket, clock: Clock) -> None:
    started = Started()
    watcher = ModelWatcher(bucket, "b", clock, polling.inline)
    watcher.current()
    watcher.polling.start = started
    clock.ms += POLL_EVERY_MS
    for _ in range(2 * polling.GIVE_UP_AFTER_MS // SECOND_MS):
        watcher.poll()
        clock.ms += SECOND_MS
    assert len(started.polls) == 2


def test_models_are_swapped_between_predictions_and_never_within_one(bucket: Bucket, clock: Clock) -> None:
    bucket.point_at("m1", challenger={"model_id": "m2"})
    started = Started()
    watcher = ModelWatcher(bucket, "b", clock, polling.inline)
    assert model_id(watcher) == "m1"
    watcher.polling.start = started
    clock.ms += POLL_EVERY_MS
    watcher.poll()
    bucket.point_at("m2")
    started.run()
    assert watcher.challenger is not None and watcher.challenger.model_id == "m2"
    assert model_id(watcher) == "m2"
    challenger = watcher.challenger
    assert challenger is None


def test_an_unchanged_pointer_is_requested_by_its_tag(
    bucket: Bucket, watcher: ModelWatcher, clock: Clock
) -> None:
    watcher.current()
    read = len(bucket.requests)
    for _ in range(3):
        clock.ms += POLL_EVERY_MS
        watcher.poll()
    assert [request["Key"] for request in bucket.requests[read:]] == [POINTER] * 3
    assert len({request["IfNoneMatch"] for request in bucket.requests[read:]}) == 1
    assert (model_id(watcher), watcher.problem) == ("m1", None)
    bucket.point_at("m2")
    clock.ms += POLL_EVERY_MS
    watcher.poll()
    assert model_id(watcher) == "m2"


def test_failures_back_off_from_their_end(bucket: Bucket, watcher: ModelWatcher, clock: Clock) -> None:
    watcher.current()
    bucket.is_down, bucket.takes_ms = True, 4000.0
    started_ms: list[float] = []
    while clock.ms < 200 * SECOND_MS:
        clock.ms += 100
        before, polls = clock.ms, bucket.polls()
        watcher.poll()
        if bucket.polls() > polls:
            started_ms.append(before)
        assert model_id(watcher) == "m1"
    pauses = [later - earlier - 4000 for earlier, later in zip(started_ms, started_ms[1:], strict=False)]
    first_ms, most_ms = BACK_OFF_MS
    assert pauses == [min(first_ms * 2**n, most_ms) for n in range(len(pauses))]
    assert pauses[-1] == most_ms
    assert str(watcher.problem).startswith("models/current.json was last read 2")
    assert "ReadTimeoutError" in str(watcher.problem)
    assert "secret-of-nobody" not in str(watcher.problem)
    bucket.is_down = False
    clock.ms += most_ms
    watcher.poll()
    assert watcher.problem is None


def test_a_single_failure_is_not_reported_yet(bucket: Bucket, watcher: ModelWatcher, clock: Clock) -> None:
    watcher.current()
    bucket.is_down = True
    clock.ms += POLL_EVERY_MS
    watcher.poll()
    assert watcher.problem is None
    clock.ms += REPORT_AFTER_MS
    assert "was last read 13 s ago" in str(watcher.problem)


def test_a_thread_that_cannot_start_counts_as_a_failure(
    bucket: Bucket, watcher: ModelWatcher, clock: Clock
) -> None:
    watcher.current()

    def refuse(poll: Callable[[], None]) -> None:
        raise RuntimeError("can't start new thread")

    watcher.polling.start = refuse
    clock.ms += REPORT_AFTER_MS + 1
    watcher.poll()
    assert "can't start new thread" in str(watcher.problem)
    assert model_id(watcher) == "m1"


def test_a_challenger_out_of_reach_is_tried_again(
    bucket: Bucket, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.point_at("m1", challenger={"model_id": "m2"})
    load = model_watcher.load

    def load_some(s3: Any, name: str, id_: str) -> Any:
        if id_ == "m2":
            raise ReadTimeoutError(endpoint_url="https://s3")
        return load(s3, name, id_)

    monkeypatch.setattr(model_watcher, "load", load_some)
    watcher = ModelWatcher(bucket, "b", clock, polling.inline)
    assert (model_id(watcher), watcher.challenger) == ("m1", None)
    assert "ReadTimeoutError" in str(watcher.challenger_problem)
    monkeypatch.setattr(model_watcher, "load", load)
    clock.ms += POLL_EVERY_MS
    watcher.poll()
    assert watcher.challenger is not None and watcher.challenger_problem is None


@pytest.mark.parametrize("named", ["m2", 7, {}, {"model_id": None}, {"model_id": "../m2"}, [1]])
def test_an_invalid_challenger_does_not_affect_the_champion(bucket: Bucket, clock: Clock, named: Any) -> None:
    bucket.point_at("m1", challenger=named)
    watcher = ModelWatcher(bucket, "b", clock, polling.inline)
    assert (model_id(watcher), watcher.is_refused) == ("m1", False)
    assert "the pointer names" in str(watcher.challenger_problem)


@pytest.mark.parametrize(
    ("pointer", "why"),
    [
        ([], "it should be a JSON object"),
        ({}, "model_id is 'None', it should name a model"),
        ({"model_id": "m1/../m2"}, "it should name a model"),
        ({"model_id": ["m1"]}, "it should name a model"),
        ({"model_id": "m2", "provisional": "no"}, "provisional is no, it should be true or false"),
        ({"model_id": "m2", "since": float("nan")}, "since is nan"),
    ],
)
def test_an_invalid_pointer_is_refused_by_its_field(
    bucket: Bucket, watcher: ModelWatcher, clock: Clock, pointer: Any, why: str
) -> None:
    watcher.current()
    bucket.put(POINTER, pointer)
    clock.ms += POLL_EVERY_MS
    watcher.poll()
    assert (model_id(watcher), watcher.is_refused) == ("m1", True)
    assert why in str(watcher.problem)
