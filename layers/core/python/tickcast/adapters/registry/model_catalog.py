"""The models, from their cards in S3, and which one is active: what `/models` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tickcast.adapters import json_text
from tickcast.adapters.http.bodies import CARDS_SHOWN
from tickcast.adapters.http.responses import ApiError, that_fit
from tickcast.model.forecast import ModelError, serving_card

POINTER = "models/current.json"  # as in `model_registry`, which would bring botocore along
REFRESH_EVERY_MS = 3000
_SHOWN = 200  # characters of what is wrong with a card


class ModelCatalog:
    """The newest cards, listed again every few seconds; a card is fetched once, as it is written once.

    `connect` makes the S3 client when it is first needed: few callers ask for models, and the others should
    not pay for it, nor for importing boto3.
    """

    def __init__(self, connect: Callable[[], Any], bucket: str, clock_ms: Callable[[], float]) -> None:
        self._connect = connect
        self._bucket = bucket
        self._clock_ms = clock_ms
        self._s3: Any = None
        self._cards: dict[tuple[str, str], dict[str, Any]] = {}  # by key and entity tag
        self._refreshed_ms = float("-inf")
        self._found: dict[str, Any] = {}

    def __call__(self) -> dict[str, Any]:
        """`current` (the pointer, or None), `models` (cards, newest first), `total`. Raises `ApiError`."""
        from botocore.exceptions import BotoCoreError, ClientError

        now_ms = self._clock_ms()
        if now_ms - self._refreshed_ms >= REFRESH_EVERY_MS:
            try:
                self._found = self._refresh()
            except (BotoCoreError, ClientError) as error:
                detail = f"S3 does not answer ({type(error).__name__}); try again"
                raise ApiError(503, "Models unavailable", detail) from None
            self._refreshed_ms = now_ms
        return self._found

    def _refresh(self) -> dict[str, Any]:
        self._s3 = self._s3 or self._connect()
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix="models/")
        objects = [item for page in pages for item in page.get("Contents", [])]
        cards = [item for item in objects if item["Key"].endswith("/card.json")]
        cards.sort(key=lambda item: (item["LastModified"], item["Key"]), reverse=True)
        has_pointer = any(item["Key"] == POINTER for item in objects)
        # Only what is shown is kept.
        self._cards = {_identity(item): self._card(item) for item in cards[:CARDS_SHOWN]}
        shown = list(self._cards.values())
        return {
            "current": self._read(POINTER) if has_pointer else None,
            "models": shown[: that_fit(shown)],
            "total": len(cards),
        }

    def _card(self, item: dict[str, Any]) -> dict[str, Any]:
        if known := self._cards.get(_identity(item)):
            return known
        card = {"model_id": item["Key"].split("/")[1]} | self._read(item["Key"])
        try:
            serving_card(card)
        except ModelError as error:
            card = {"problem": f"it cannot serve: {error}"[:_SHOWN]} | card
        return card

    def _read(self, key: str) -> dict[str, Any]:
        """The JSON object under `key`, or what is wrong with it, so that one does not hide the rest."""
        text = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        try:
            found = json_text.read(text)
        except ValueError as error:
            found = f"not JSON: {error}"
        return found if isinstance(found, dict) else {"problem": f"{key} is not a card: {found}"[:_SHOWN]}


def _identity(item: dict[str, Any]) -> tuple[str, str]:
    return item["Key"], item["ETag"]
