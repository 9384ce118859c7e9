"""The registry of models in S3: a folder each with the network and its card, and the pointer
(`registry.pointer`).

The pointer is only ever moved by conditional write: who decided by a pointer that has moved since decides
again. Rolling back is moving it back. Nothing here needs the runtime of the models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError
from msgspec.structs import replace

from tickcast.adapters import json_text
from tickcast.adapters.lake.objects import first_key, list_objects
from tickcast.adapters.registry import card_markdown
from tickcast.adapters.registry.pointer import (
    POINTER,
    Challenger,
    Pointer,
    PreviousModel,
    decode_pointer,
    encode_pointer,
)
from tickcast.model import documents
from tickcast.model.card import Card, card_from, serving_card
from tickcast.model.forecast import ModelError

KEPT_PREVIOUS = 10
_ATTEMPTS = 5
# 409: another conditional write was under way; 404: the object that was to be matched is gone.
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404")

Check = Callable[[Pointer | None], None]  # may raise where the pointer is not the one that was decided by


class RegistryError(RuntimeError):
    """What is asked of the registry cannot be done; the message says why and what could be."""


class PointerRace(RuntimeError):
    """Others moved the pointer each time between reading and writing it: to be tried again."""


def save(s3: Any, bucket: str, onnx_file: bytes, card: Card) -> None:
    """Put a model and its card; nothing points at it yet."""
    s3.put_object(Bucket=bucket, Key=f"models/{card.model_id}/model.onnx", Body=onnx_file)
    save_card(s3, bucket, card)


def save_card(s3: Any, bucket: str, card: Card) -> None:
    """The card as JSON, and as a page for people."""
    for name, body, kind in (
        ("card.md", card_markdown.page(card), "text/markdown; charset=utf-8"),
        ("card.json", json_text.text(documents.encode(card), indent=2), "application/json"),
    ):
        key = f"models/{card.model_id}/{name}"
        s3.put_object(Bucket=bucket, Key=key, Body=body.encode(), ContentType=kind)


def read_card(s3: Any, bucket: str, model_id: str) -> Card:
    """Raises `RegistryError` where there is none, or a field of it is of another type."""
    try:
        return card_from(_card_document(s3, bucket, model_id))
    except ModelError as error:
        raise RegistryError(str(error)) from None


def cards(s3: Any, bucket: str) -> list[Card]:
    """All cards, newest first; one that cannot be read says so in `problem`."""
    keys = [stored.key for stored in list_objects(s3, bucket, "models/")]
    found = []
    for model_id in sorted((k.split("/")[1] for k in keys if k.endswith("/card.json")), reverse=True):
        try:
            found.append(read_card(s3, bucket, model_id))
        except RegistryError as error:
            found.append(Card(model_id=model_id, problem=str(error)))
    return found


def check_servable(s3: Any, bucket: str, model_id: str) -> Card:
    """The card of a model that this code can serve. Raises `RegistryError` when it is not there, was made for
    other features, or has a field that cannot be served by."""
    document = _card_document(s3, bucket, model_id)
    try:
        serving_card(document)
        card = card_from(document)
    except ModelError as error:
        raise RegistryError(f"{error}: it cannot serve") from None
    key = f"models/{model_id}/model.onnx"
    if first_key(s3, bucket, key) is None:
        raise RegistryError(f"{key} is not there: model {model_id} cannot serve")
    return card


def active_model(s3: Any, bucket: str) -> Pointer | None:
    """The pointer, or None where no model was ever promoted. Raises `RegistryError` on a damaged one."""
    return _read_pointer(s3, bucket)[0]


def promote(
    s3: Any,
    bucket: str,
    model_id: str,
    since: str,
    challenger: str | None = None,
    *,
    provisional: bool | None = None,
    by: str = "",
    check: Check = lambda pointer: None,
) -> Pointer:
    """Make `model_id` the active model, with `challenger` in its shadow; the one before is remembered.

    `provisional`, where given, overrides the card. Returns the pointer. Raises `PointerRace`,
    `RegistryError`, and what `check` raises.
    """

    def promoted(pointer: Pointer | None) -> Pointer:
        check(pointer)
        previous = _previous(pointer, model_id)
        return _pointer_to(model_id, since, challenger, previous, by, provisional)

    return move(s3, bucket, promoted)


def shadow(
    s3: Any, bucket: str, challenger: str | None, check: Check = lambda pointer: None
) -> Pointer | None:
    """Run `challenger` in the shadow of the active model, or nothing. None where no model is active."""
    if active_model(s3, bucket) is None:
        return None

    def shadowed(pointer: Pointer | None) -> Pointer:
        check(pointer)
        if pointer is None:
            raise RegistryError("no model is active any more that another could run in the shadow of")
        return replace(pointer, challenger=Challenger(model_id=challenger) if challenger else None)

    return move(s3, bucket, shadowed)


def roll_back(s3: Any, bucket: str, since: str) -> Pointer:
    """Make the newest previous model that can serve active again; the present one is not remembered, and no
    model runs in shadow. Raises `RegistryError` when there is nothing to go back to."""

    def rolled_back(pointer: Pointer | None) -> Pointer:
        problems = ["no model was active before this one"]
        previous = list(pointer.previous) if pointer else []
        while pointer and previous:
            back = previous.pop(0)
            try:
                check_servable(s3, bucket, back.model_id)
            except RegistryError as error:
                problems = [*problems[1:], str(error)]
                continue
            by = f"rolled back from {pointer.model_id}"
            return _pointer_to(back.model_id, since, None, previous, by, back.provisional)
        raise RegistryError(f"there is nothing to roll back to: {'; '.join(problems)}")

    return move(s3, bucket, rolled_back)


def move(s3: Any, bucket: str, moved_from: Callable[[Pointer | None], Pointer]) -> Pointer:
    """Write what `moved_from` makes of the pointer, if that is still the one that was read; else try again.

    A race may be lost to oneself, when the response to a write was lost and the client sent it again: then
    the pointer is the one that was written. Raises `PointerRace` after five lost races, and what `moved_from`
    raises.
    """
    moved: Pointer | None = None
    for _ in range(_ATTEMPTS):
        pointer, etag = _read_pointer(s3, bucket)
        if pointer is not None and pointer == moved:
            return pointer
        moved = moved_from(pointer)
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            s3.put_object(
                Bucket=bucket,
                Key=POINTER,
                Body=encode_pointer(moved),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                continue
            raise
        return moved
    raise PointerRace(f"{POINTER} was moved by others {_ATTEMPTS} times in a row: try again")


def _card_document(s3: Any, bucket: str, model_id: str) -> dict[str, Any]:
    """The JSON of a card. Raises `RegistryError` where there is none."""
    try:
        body = s3.get_object(Bucket=bucket, Key=f"models/{model_id}/card.json")["Body"]
        found = json_text.read(body.read())
    except s3.exceptions.NoSuchKey:
        raise RegistryError(f"there is no model {model_id!r}: `make models` lists those there are") from None
    except ValueError as error:
        raise RegistryError(f"the card of model {model_id} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RegistryError(f"the card of model {model_id} is no card: {str(found)[:100]}")
    return found | {"model_id": model_id}


def _read_pointer(s3: Any, bucket: str) -> tuple[Pointer | None, str]:
    """The pointer and its entity tag; None and "" where there is none."""
    try:
        stored = s3.get_object(Bucket=bucket, Key=POINTER)
    except s3.exceptions.NoSuchKey:
        return None, ""
    try:
        pointer = decode_pointer(stored["Body"].read())
    except ValueError as error:
        raise RegistryError(f"{POINTER} is damaged ({error}): remove it, and promote a model again") from None
    return pointer, str(stored["ETag"])


def _pointer_to(
    model_id: str,
    since: str,
    challenger: str | None,
    previous: list[PreviousModel],
    by: str,
    provisional: bool | None,
) -> Pointer:
    return Pointer(
        model_id=model_id,
        key=f"models/{model_id}/model.onnx",
        since=since,
        challenger=Challenger(model_id=challenger) if challenger else None,
        previous=previous,
        by=by,
        provisional=provisional,
    )


def _previous(pointer: Pointer | None, model_id: str) -> list[PreviousModel]:
    """The models that were active before, newest first; a model that is promoted twice is no step."""
    if pointer is None:
        return []
    previous = pointer.previous
    if pointer.model_id != model_id:
        step = PreviousModel(model_id=pointer.model_id, since=pointer.since, provisional=pointer.provisional)
        previous = [step, *previous]
    return previous[:KEPT_PREVIOUS]
