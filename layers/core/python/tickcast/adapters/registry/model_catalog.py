"""The model cards in S3 and the pointer to the active model: the content of `/models`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tickcast.adapters import json_text
from tickcast.adapters.http.bodies import CARDS_SHOWN
from tickcast.adapters.http.responses import ApiError, that_fit
from tickcast.adapters.lake.objects import StoredObject, list_objects
from tickcast.adapters.registry.pointer import POINTER
from tickcast.model.card import serving_card
from tickcast.model.forecast import ModelError

REFRESH_EVERY_MS = 3000
_SHOWN = 200  # characters of a card's problem


class ModelCatalog:
    """The newest cards, listed again every few seconds; a card is read again only once it has changed.

    `connect` gives the S3 client, which is made when it is first needed: few requests are for models, and the
    others should not wait for it, nor for the import of boto3.
    """

    def __init__(self, connect: Callable[[], Any], bucket: str, clock_ms: Callable[[], float]) -> None:
        self._connect = connect
        self._bucket = bucket
        self._clock_ms = clock_ms
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
        objects = list(list_objects(self._connect(), self._bucket, "models/"))
        cards = [stored for stored in objects if stored.key.endswith("/card.json")]
        cards.sort(key=lambda stored: (stored.modified, stored.key), reverse=True)
        has_pointer = any(stored.key == POINTER for stored in objects)
        self._cards = {(stored.key, stored.etag): self._card(stored) for stored in cards[:CARDS_SHOWN]}
        shown = list(self._cards.values())
        return {
            "current": self._read(POINTER) if has_pointer else None,
            "models": shown[: that_fit(shown)],
            "total": len(cards),
        }

    def _card(self, stored: StoredObject) -> dict[str, Any]:
        if known := self._cards.get((stored.key, stored.etag)):
            return known
        card = {"model_id": stored.key.split("/")[1]} | self._read(stored.key)
        try:
            serving_card(card)
        except ModelError as error:
            card = {"problem": f"it cannot serve: {error}"[:_SHOWN]} | card
        return card

    def _read(self, key: str) -> dict[str, Any]:
        """The JSON object under `key`, or its problem, so that one damaged card does not hide the rest."""
        text = self._connect().get_object(Bucket=self._bucket, Key=key)["Body"].read()
        try:
            found = json_text.read(text)
        except ValueError as error:
            found = f"not JSON: {error}"
        return found if isinstance(found, dict) else {"problem": f"{key} is not a card: {found}"[:_SHOWN]}
