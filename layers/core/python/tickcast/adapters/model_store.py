"""Models in S3: a folder each with the network and its card, and one small object that points at the one
in force. Whoever serves follows the pointer; going back is pointing back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from tickcast.adapters.onnx_model import OnnxModel
from tickcast.model import calibrations_from
from tickcast.prediction import MODEL_REFUSED, ServingModel

POINTER = "models/current.json"
FOLLOW_EVERY_MS = 3000


def save(s3: Any, bucket: str, model_id: str, onnx_file: bytes, card: dict[str, Any]) -> None:
    s3.put_object(Bucket=bucket, Key=f"models/{model_id}/model.onnx", Body=onnx_file)
    s3.put_object(
        Bucket=bucket,
        Key=f"models/{model_id}/card.json",
        Body=json.dumps(card, indent=2).encode(),
        ContentType="application/json",
    )


def promote(s3: Any, bucket: str, model_id: str, since: str) -> None:
    """Put `model_id` in force."""
    pointer = {"model_id": model_id, "key": f"models/{model_id}/model.onnx", "since": since}
    s3.put_object(
        Bucket=bucket, Key=POINTER, Body=json.dumps(pointer).encode(), ContentType="application/json"
    )


class ModelFollower:
    """The model in force, looked up anew every few seconds and swapped without a restart.

    A model that cannot be loaded or does not fit the features is refused: the one before it goes on
    serving and `problem` says what was wrong.
    """

    def __init__(self, s3: Any, bucket: str, clock_ms: Callable[[], float]) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._clock_ms = clock_ms
        self._looked_ms = float("-inf")
        self._etag = ""
        self._model: ServingModel | None = None
        self.problem: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why there is no model, beyond there being none: for the fallback's `reason`."""
        return MODEL_REFUSED if self.problem else None

    def current(self) -> ServingModel | None:
        now_ms = self._clock_ms()
        if now_ms - self._looked_ms >= FOLLOW_EVERY_MS:
            self._looked_ms = now_ms
            try:
                self._look()
            except (ValueError, KeyError, TypeError, AttributeError, BotoCoreError, ClientError) as error:
                self.problem = f"{type(error).__name__}: {error}"
        return self._model

    def _look(self) -> None:
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=POINTER)
        except self._s3.exceptions.NoSuchKey:
            self.problem = None
            return
        if answer["ETag"] == self._etag:
            self.problem = None
            return
        pointer = json.loads(answer["Body"].read())
        model_id = pointer["model_id"]
        card = json.loads(self._read(f"models/{model_id}/card.json"))
        self._model = ServingModel(
            model_id=model_id,
            provisional=bool(card["provisional"]),
            calibrations=calibrations_from(card),
            run=OnnxModel(self._read(pointer["key"])),
        )
        # Only now: a pointer whose model failed to load is tried again at the next look.
        self._etag, self.problem = answer["ETag"], None

    def _read(self, key: str) -> bytes:
        data: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return data
