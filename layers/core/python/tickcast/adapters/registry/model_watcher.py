"""The model in force, as whoever serves has it: followed by the registry's pointer (`model_registry`).

S3 is looked at off the hot path. A look runs in a thread of its own, which is started after an event's
results were written; no prediction waits for it, however long S3 takes. Lambda freezes a process between
events, the thread with it: it continues in the next event, and its timeouts count the time in between, so
that a look may fail that would have succeeded. A failure costs nothing but the wait for the next look
(docs/adr/0023-input-is-checked-at-the-boundary.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe
from tickcast.adapters.registry.model_registry import POINTER, Pointer, is_model_id, pointer_in
from tickcast.adapters.registry.onnx_model import OnnxModel
from tickcast.features.vector import FEATURE_NAMES
from tickcast.model.forecast import ModelError, serving_card
from tickcast.serving.prediction import MODEL_REFUSED, ServingModel, run

# From the end of a look that succeeded to the start of the next: while S3 answers and events come, a pointer
# that was moved is followed within 5 s.
FOLLOW_EVERY_MS = 3000
BACK_OFF_MS = (3000, 30_000)  # from the end of a first failure to the next look, doubled up to the second
REPORT_AFTER_MS = 10_000  # a pointer last read longer ago is a problem, once a look has failed or hangs
GIVE_UP_AFTER_MS = 60_000  # a look that has taken longer may hang for good: another is started then
FIRST_LOOK_S = 3.0  # the very first look alone is waited for, so long at most

# What a pointer, a card or a network of another shape than ours raises.
LOAD_ERRORS = (ValueError, KeyError, TypeError, AttributeError, IndexError)
_OUTAGES = (BotoCoreError, ClientError)

Start = Callable[[Callable[[], None]], None]


def in_background(look: Callable[[], None]) -> None:
    """Run `look` in a thread that keeps no process alive."""
    threading.Thread(target=look, daemon=True, name="model-look").start()


def at_once(look: Callable[[], None]) -> None:
    """Run `look` here and now: for whoever has nothing else to do."""
    look()


@dataclass(frozen=True)
class Followed:
    """What a look found: always whole, so that a model and its challenger belong together."""

    model: ServingModel | None = None
    challenger: ServingModel | None = None
    etag: str = ""  # of a pointer all of which was loaded
    refusal: str | None = None  # what is wrong with the model that the pointer names
    challenger_problem: str | None = None


class ModelWatcher:
    """The model in force and its challenger, looked up again every few seconds and swapped without a restart.

    A model that cannot be loaded, does not fit the features or gives no numbers is refused: the one before it
    serves on, and `problem` says what was wrong. A challenger that is refused is simply not there; its
    `challenger_problem` harms nobody. What is served is as of the newest look that succeeded; when that is
    long ago because S3 does not answer, `problem` says how long.

    `start` runs a look, by default in a thread. `current` and `follow` are for one thread alone.
    """

    def __init__(
        self, s3: Any, bucket: str, clock_ms: Callable[[], float], start: Start = in_background
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._clock_ms = clock_ms
        self._start = start
        self._adopted = Followed()
        self._found = Followed()  # by the newest look: adopted between predictions, never within one
        self._is_looking = False
        self._first_ended = threading.Event()
        self._is_first_over = False
        self._started_ms = self._read_ms = self._ended_ms = float("-inf")
        self._failures = 0  # in a row
        self._outage = ""

    @property
    def challenger(self) -> ServingModel | None:
        return self._adopted.challenger

    @property
    def challenger_problem(self) -> str | None:
        return self._adopted.challenger_problem

    @property
    def is_refused(self) -> bool:
        """Whether the model that the pointer names is; not so when S3 is merely out of reach."""
        return self._adopted.refusal is not None

    @property
    def refusal(self) -> str | None:
        """Why there is no model, beyond there being none: for the fallback's `reason`."""
        return MODEL_REFUSED if self.is_refused else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the model that the pointer names, or with reading the pointer."""
        return self._adopted.refusal or self._silence()

    def current(self) -> ServingModel | None:
        """The model in force as of the newest look that succeeded. Waits for the very first look, for
        `FIRST_LOOK_S` at most, and for no other."""
        if not self._is_first_over:
            self._look_if_due()
            self._first_ended.wait(FIRST_LOOK_S)
            self._is_first_over = True
        self._adopted = self._found
        return self._adopted.model

    def follow(self) -> None:
        """Start a look if it is time and none is under way. Called when there is time: after the writing."""
        self._look_if_due()
        self._adopted = self._found

    def _look_if_due(self) -> None:
        now_ms = self._clock_ms()
        if self._is_looking and now_ms - self._started_ms < GIVE_UP_AFTER_MS:
            return
        if now_ms - self._ended_ms < self._pause_ms():
            return
        self._is_looking, self._started_ms = True, now_ms
        try:
            self._start(self._look)
        except RuntimeError as error:  # no further thread can be started
            self._failed(error)
            self._end_look()

    def _pause_ms(self) -> float:
        if not self._failures:
            return FOLLOW_EVERY_MS
        first_ms, most_ms = BACK_OFF_MS
        return min(float(first_ms << min(self._failures - 1, 30)), most_ms)

    def _silence(self) -> str | None:
        """What is to be said of a pointer that could not be read for long."""
        waiting = self._is_looking and self._clock_ms() - self._started_ms > REPORT_AFTER_MS
        if not (self._failures or waiting):
            return None
        outage = self._outage if self._failures else "S3 has not answered yet"
        if self._read_ms == float("-inf"):
            return f"{POINTER} was never read: {outage}"
        age_ms = self._clock_ms() - self._read_ms
        if age_ms <= REPORT_AFTER_MS:
            return None
        return f"{POINTER} was last read {age_ms / 1000:.0f} s ago: {outage}"

    def _look(self) -> None:
        try:
            self._found = self._followed(self._found)
            self._read_ms, self._failures = self._clock_ms(), 0
        except Exception as error:  # whatever it is, it ends this look alone
            self._failed(error)
        finally:
            self._end_look()

    def _failed(self, error: Exception) -> None:
        self._outage, self._failures = describe(error), self._failures + 1

    def _end_look(self) -> None:
        self._ended_ms, self._is_looking = self._clock_ms(), False
        self._first_ended.set()

    def _followed(self, before: Followed) -> Followed:
        """What is to be served now. Raises S3's errors where it is out of reach."""
        condition = {"IfNoneMatch": before.etag} if before.etag else {}
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=POINTER, **condition)
        except self._s3.exceptions.NoSuchKey:
            return replace(before, refusal=None, etag="")
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("304", "NotModified"):
                raise
            return replace(before, refusal=None)
        if answer["ETag"] == before.etag:
            return replace(before, refusal=None)
        try:
            pointer = pointer_in(answer["Body"].read())
            model = self._model(before, pointer["model_id"])
        except LOAD_ERRORS as error:
            # A challenger that was found before runs on: it is the model in force that could not be replaced.
            return replace(before, refusal=describe(error))
        # A challenger that was put in force is what the gate said of it since its card was read.
        model = replace(model, provisional=pointer.get("provisional", model.provisional))
        return self._with_challenger(replace(before, model=model, refusal=None), pointer, answer["ETag"])

    def _with_challenger(self, found: Followed, pointer: Pointer, etag: str) -> Followed:
        named = pointer.get("challenger")
        if named is None:
            return replace(found, challenger=None, challenger_problem=None, etag=etag)
        model_id = named.get("model_id") if isinstance(named, dict) else None
        challenger, problem = None, None
        try:
            if not is_model_id(model_id):
                raise ModelError(f"the pointer names {str(named)[:60]}")
            challenger = self._model(self._found, str(model_id))
        except _OUTAGES as error:
            # It is looked for again with the pointer; the model in force need not wait for that.
            problem, etag = f"challenger: {describe(error)}", ""
        except LOAD_ERRORS as error:
            problem = f"challenger: {describe(error)}"
        return replace(
            found,
            challenger=challenger,
            challenger_problem=problem,
            etag=etag,
        )

    def _model(self, before: Followed, model_id: str) -> ServingModel:
        for known in (before.model, before.challenger):
            if known is not None and known.model_id == model_id:
                return known
        return load(self._s3, self._bucket, model_id)


def load(s3: Any, bucket: str, model_id: str) -> ServingModel:
    """The model under `model_id`, tried once. Raises one of `MISFITS` when it must not serve."""
    card = serving_card(json_text.read(_read(s3, bucket, f"models/{model_id}/card.json")))
    model = ServingModel(
        model_id=model_id,
        provisional=card.provisional,
        calibrations=card.calibrations,
        masked_calibrations=card.masked_calibrations,
        run=OnnxModel(_read(s3, bucket, f"models/{model_id}/model.onnx")),
        support=card.support,
    )
    try:
        run(model, dict.fromkeys(FEATURE_NAMES, 1.0), 1.0, model.calibrations)
    except Exception as error:  # onnxruntime raises its own classes, with no common base
        raise ModelError(f"model {model_id} does not answer: {error}") from error
    return model


def _read(s3: Any, bucket: str, key: str) -> bytes:
    try:
        data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey as error:
        raise ModelError(f"{key} is not there") from error
    return data
