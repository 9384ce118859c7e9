"""The model in force, as whoever serves has it: followed by the registry's pointer (`model_registry`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.model_registry import POINTER
from tickcast.adapters.onnx_model import OnnxModel
from tickcast.features import FEATURE_NAMES
from tickcast.model import ModelError, calibrations_from
from tickcast.prediction import MODEL_REFUSED, ServingModel, run

FOLLOW_EVERY_MS = 3000
FOLLOW_WITHIN_MS = 5000  # no prediction is made with what was in force longer ago

# What a pointer, a card or a network of another shape than ours raises.
MISFITS = (ValueError, KeyError, TypeError, AttributeError, IndexError)


class ModelFollower:
    """The model in force and its challenger, looked up anew every few seconds and swapped without a restart.

    A model that cannot be loaded, does not fit the features or gives no numbers is refused: the one before it
    goes on serving, and `problem` says what was wrong. A challenger that is refused is simply not there; its
    `challenger_problem` harms nobody.
    """

    def __init__(self, s3: Any, bucket: str, clock_ms: Callable[[], float]) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._clock_ms = clock_ms
        self._looked_ms = float("-inf")
        self._etag = ""
        self._model: ServingModel | None = None
        self.challenger: ServingModel | None = None
        self.problem: str | None = None
        self.challenger_problem: str | None = None
        self.is_refused = False  # what the pointer names; not so when S3 is merely out of reach

    @property
    def refusal(self) -> str | None:
        """Why there is no model, beyond there being none: for the fallback's `reason`."""
        return MODEL_REFUSED if self.is_refused else None

    def current(self) -> ServingModel | None:
        """The model in force as of at most `FOLLOW_WITHIN_MS` ago."""
        self._look_if_older(FOLLOW_WITHIN_MS)
        return self._model

    def follow(self) -> None:
        """Look whether the pointer moved, if it is time. Called when there is time: after the writing."""
        self._look_if_older(FOLLOW_EVERY_MS)

    def _look_if_older(self, age_ms: float) -> None:
        now_ms = self._clock_ms()
        if now_ms - self._looked_ms < age_ms:
            return
        self._looked_ms = now_ms
        try:
            self._look()
        except (BotoCoreError, ClientError) as error:
            self.problem = f"{type(error).__name__}: {error}"
        except MISFITS as error:
            self.problem, self.is_refused = f"{type(error).__name__}: {error}", True

    def _look(self) -> None:
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=POINTER)
        except self._s3.exceptions.NoSuchKey:
            self.problem, self.is_refused = None, False
            return
        if answer["ETag"] == self._etag:
            self.problem, self.is_refused = None, False
            return
        pointer = json.loads(answer["Body"].read())
        known = {model.model_id: model for model in (self._model, self.challenger) if model}
        model_id = str(pointer["model_id"])
        model = known.get(model_id) or load(self._s3, self._bucket, model_id)
        # A challenger that was put in force is what the gate said of it since its card was read.
        self._model = replace(model, provisional=bool(pointer.get("provisional", model.provisional)))
        self.problem, self.is_refused = None, False
        self._look_at_challenger(pointer.get("challenger"), known)
        # Only now: a pointer whose model failed to load is tried again at the next look.
        self._etag = answer["ETag"]

    def _look_at_challenger(self, named: dict[str, Any] | None, known: dict[str, ServingModel]) -> None:
        self.challenger, self.challenger_problem = None, None
        if named is None:
            return
        try:
            model_id = str(named["model_id"])
            self.challenger = known.get(model_id) or load(self._s3, self._bucket, model_id)
        except MISFITS as error:
            self.challenger_problem = f"challenger: {type(error).__name__}: {error}"


def load(s3: Any, bucket: str, model_id: str) -> ServingModel:
    """The model under `model_id`, tried once. Raises one of `MISFITS` when it must not serve."""
    card = json.loads(_read(s3, bucket, f"models/{model_id}/card.json"))
    model = ServingModel(
        model_id=model_id,
        provisional=bool(card["provisional"]),
        calibrations=calibrations_from(card),
        masked_calibrations=calibrations_from(card, "masked_calibration")
        if "masked_calibration" in card
        else None,
        run=OnnxModel(_read(s3, bucket, f"models/{model_id}/model.onnx")),
        support={name: (float(low), float(high)) for name, (low, high) in card.get("support", {}).items()},
    )
    if strangers := set(model.support) - set(FEATURE_NAMES):
        raise ModelError(f"the support of model {model_id} names {sorted(strangers)}, which are no features")
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
