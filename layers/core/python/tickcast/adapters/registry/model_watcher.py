"""The active model and its challenger, for processes that serve: polled by the registry's pointer
(`tickcast.adapters.registry.polling`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters import json_text
from tickcast.adapters.redaction import describe
from tickcast.adapters.registry.onnx_model import OnnxModel, row_by_row
from tickcast.adapters.registry.pointer import POINTER, Pointer, pointer_from
from tickcast.adapters.registry.polling import Polling, Start, in_background
from tickcast.features.vector import FEATURE_NAMES
from tickcast.model.card import serving_card
from tickcast.model.forecast import ModelError
from tickcast.serving.prediction import MODEL_REFUSED, ServingModel, run

# Raised by a pointer, a card or a network that does not have the expected shape.
LOAD_ERRORS = (ValueError, KeyError, TypeError, AttributeError, IndexError)
_OUTAGES = (BotoCoreError, ClientError)


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
        self._active = ActiveModels()
        self._polled = ActiveModels()  # becomes active between predictions, never within one
        self.polling = Polling(self._read_pointer, POINTER, clock_ms, start)

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
        return self._active.refusal or self.polling.problem()

    def current(self) -> ServingModel | None:
        """The active model as of the newest poll that succeeded. Waits for the very first poll, for
        `polling.FIRST_POLL_S` at most, and for no other."""
        self.polling.wait_for_first()
        self._active = self._polled
        return self._active.model

    def poll(self) -> None:
        """Start a poll if it is due and none is under way. To be called when nothing waits for it: after the
        results were written."""
        self.polling.poll_if_due()
        self._active = self._polled

    def _read_pointer(self) -> None:
        self._polled = self._poll_pointer(self._polled)

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
