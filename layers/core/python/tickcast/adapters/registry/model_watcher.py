"""The active model and its challenger, for processes that serve: polled by the registry's pointer.

S3 is polled off the hot path. A poll runs in a thread of its own, which is started after an event's results
were written; no prediction waits for it, however long S3 takes. Lambda freezes a process between events, and
the thread with it: it continues in the next event, and its timeouts include the time in between, so that a
poll may fail that would have succeeded. A failure only delays the update until the next poll
(docs/adr/0023-input-is-checked-at-the-boundary.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe
from tickcast.adapters.registry.onnx_model import OnnxModel, row_by_row
from tickcast.adapters.registry.pointer import POINTER, Pointer, pointer_from
from tickcast.features.vector import FEATURE_NAMES
from tickcast.model.card import serving_card
from tickcast.model.forecast import ModelError
from tickcast.serving.prediction import MODEL_REFUSED, ServingModel, run

# From the end of a poll that succeeded to the start of the next: while S3 answers and events come, a pointer
# that was moved is picked up within 5 s.
POLL_EVERY_MS = 3000
BACK_OFF_MS = (3000, 30_000)  # from the end of a first failure to the next poll, doubled up to the second
REPORT_AFTER_MS = 10_000  # a pointer last read longer ago is a problem, once a poll has failed or hangs
GIVE_UP_AFTER_MS = 60_000  # a poll that has taken longer may hang for good: another is started then
FIRST_POLL_S = 3.0  # the longest wait for the very first poll, the only one that is waited for

# Raised by a pointer, a card or a network that does not have the expected shape.
LOAD_ERRORS = (ValueError, KeyError, TypeError, AttributeError, IndexError)
_OUTAGES = (BotoCoreError, ClientError)

Start = Callable[[Callable[[], None]], None]


def in_background(poll: Callable[[], None]) -> None:
    """Run `poll` in a thread that keeps no process alive."""
    threading.Thread(target=poll, daemon=True, name="model-poll").start()


def inline(poll: Callable[[], None]) -> None:
    """Run `poll` in the calling thread: for callers that have nothing else to do."""
    poll()


@dataclass(frozen=True)
class ActiveModels:
    """The result of a poll: always whole, so that a model and its challenger belong together."""

    model: ServingModel | None = None
    challenger: ServingModel | None = None
    etag: str = ""  # of a pointer all of whose models were loaded
    refusal: str | None = None  # why the model that the pointer names is refused
    challenger_problem: str | None = None


class ModelWatcher:
    """The active model and its challenger, polled every few seconds and swapped without a restart.

    A model that cannot be loaded, does not fit the features or gives no numbers is refused: the one before it
    keeps serving, and `problem` says what was wrong. A challenger that is refused does not run; its
    `challenger_problem` affects nothing else. The models are those of the newest poll that succeeded; when
    that is long ago because S3 does not answer, `problem` says how long.

    `start` runs a poll, by default in a thread. `current` and `poll` are for one thread alone.
    """

    def __init__(
        self, s3: Any, bucket: str, clock_ms: Callable[[], float], start: Start = in_background
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._clock_ms = clock_ms
        self._start = start
        self._active = ActiveModels()
        self._polled = ActiveModels()  # becomes active between predictions, never within one
        self._is_polling = False
        self._first_ended = threading.Event()
        self._is_first_over = False
        self._started_ms = self._read_ms = self._ended_ms = float("-inf")
        self._failures = 0  # in a row
        self._outage = ""

    @property
    def challenger(self) -> ServingModel | None:
        return self._active.challenger

    @property
    def challenger_problem(self) -> str | None:
        return self._active.challenger_problem

    @property
    def is_refused(self) -> bool:
        """Whether the model that the pointer names is refused; not so when S3 is merely out of reach."""
        return self._active.refusal is not None

    @property
    def refusal(self) -> str | None:
        """The fallback's `reason` where a model is refused and none was active before."""
        return MODEL_REFUSED if self.is_refused else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the model that the pointer names, or with reading the pointer."""
        return self._active.refusal or self._outage_problem()

    def current(self) -> ServingModel | None:
        """The active model as of the newest poll that succeeded. Waits for the very first poll, for
        `FIRST_POLL_S` at most, and for no other."""
        if not self._is_first_over:
            self._poll_if_due()
            self._first_ended.wait(FIRST_POLL_S)
            self._is_first_over = True
        self._active = self._polled
        return self._active.model

    def poll(self) -> None:
        """Start a poll if it is due and none is under way. To be called when nothing waits for it: after the
        results were written."""
        self._poll_if_due()
        self._active = self._polled

    def _poll_if_due(self) -> None:
        now_ms = self._clock_ms()
        if self._is_polling and now_ms - self._started_ms < GIVE_UP_AFTER_MS:
            return
        if now_ms - self._ended_ms < self._pause_ms():
            return
        self._is_polling, self._started_ms = True, now_ms
        try:
            self._start(self._run_poll)
        except RuntimeError as error:  # no further thread can be started
            self._failed(error)
            self._end_poll()

    def _pause_ms(self) -> float:
        if not self._failures:
            return POLL_EVERY_MS
        first_ms, most_ms = BACK_OFF_MS
        return min(float(first_ms << min(self._failures - 1, 30)), most_ms)

    def _outage_problem(self) -> str | None:
        """The problem of a pointer that has not been read for a long time."""
        waiting = self._is_polling and self._clock_ms() - self._started_ms > REPORT_AFTER_MS
        if not (self._failures or waiting):
            return None
        outage = self._outage if self._failures else "S3 has not answered yet"
        if self._read_ms == float("-inf"):
            return f"{POINTER} was never read: {outage}"
        age_ms = self._clock_ms() - self._read_ms
        if age_ms <= REPORT_AFTER_MS:
            return None
        return f"{POINTER} was last read {age_ms / 1000:.0f} s ago: {outage}"

    def _run_poll(self) -> None:
        try:
            self._polled = self._poll_pointer(self._polled)
            self._read_ms, self._failures = self._clock_ms(), 0
        except Exception as error:  # of any kind: it ends this poll alone
            self._failed(error)
        finally:
            self._end_poll()

    def _failed(self, error: Exception) -> None:
        self._outage, self._failures = describe(error), self._failures + 1

    def _end_poll(self) -> None:
        self._ended_ms, self._is_polling = self._clock_ms(), False
        self._first_ended.set()

    def _poll_pointer(self, before: ActiveModels) -> ActiveModels:
        """The models to serve now. Raises S3's errors where it is out of reach."""
        condition = {"IfNoneMatch": before.etag} if before.etag else {}
        try:
            stored = self._s3.get_object(Bucket=self._bucket, Key=POINTER, **condition)
        except self._s3.exceptions.NoSuchKey:
            return replace(before, refusal=None, etag="")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("304", "NotModified"):
                raise
            return replace(before, refusal=None)
        if stored["ETag"] == before.etag:
            return replace(before, refusal=None)
        try:
            pointer = pointer_from(json_text.read(stored["Body"].read()))
            model = self._model(before, pointer.model_id)
        except LOAD_ERRORS as error:
            # The challenger keeps running: it is the active model that could not be replaced.
            return replace(before, refusal=describe(error))
        # The card of a challenger was read before the gate decided on it: the pointer has the decision.
        if pointer.provisional is not None:
            model = replace(model, provisional=pointer.provisional)
        return self._with_challenger(replace(before, model=model, refusal=None), pointer, stored["ETag"])

    def _with_challenger(self, models: ActiveModels, pointer: Pointer, etag: str) -> ActiveModels:
        if pointer.challenger is None:
            return replace(models, challenger=None, challenger_problem=None, etag=etag)
        challenger, problem = None, None
        try:
            if pointer.challenger.problem:
                raise ModelError(pointer.challenger.problem)
            challenger = self._model(self._polled, pointer.challenger.model_id)
        except _OUTAGES as error:
            # The next poll tries again; the active model need not wait for that.
            problem, etag = f"challenger: {describe(error)}", ""
        except LOAD_ERRORS as error:
            problem = f"challenger: {describe(error)}"
        return replace(models, challenger=challenger, challenger_problem=problem, etag=etag)

    def _model(self, before: ActiveModels, model_id: str) -> ServingModel:
        for known in (before.model, before.challenger):
            if known is not None and known.model_id == model_id:
                return known
        return load(self._s3, self._bucket, model_id)


def load(s3: Any, bucket: str, model_id: str) -> ServingModel:
    """The model under `model_id`, run once. Raises one of `LOAD_ERRORS` when it must not serve."""
    card = serving_card(json_text.read(_read(s3, bucket, f"models/{model_id}/card.json")))
    run_model = OnnxModel(_read(s3, bucket, f"models/{model_id}/model.onnx"))
    model = ServingModel(
        model_id=model_id,
        provisional=card.provisional,
        calibrations=card.calibration,
        masked_calibrations=card.masked_calibration,
        run=row_by_row(run_model) if card.row_by_row else run_model,
        support=card.support,
        reference=card.reference,
    )
    try:
        widest = max(calibration.interval_width for calibration in model.calibrations.values())
        (path,) = run(model, [next(iter(model.reference), "")], np.ones((1, len(FEATURE_NAMES))), [widest])
        if isinstance(path, ModelError):
            raise path
    except Exception as error:  # onnxruntime raises its own classes, with no common base
        raise ModelError(f"model {model_id} does not answer: {error}") from error
    return model


def _read(s3: Any, bucket: str, key: str) -> bytes:
    try:
        data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey as error:
        raise ModelError(f"{key} is not there") from error
    return data
