"""The registry of models in S3: a folder each with the network and its card, and the pointer
(`registry.pointer`).

The pointer is moved by conditional write only: if it has moved since it was read, the decision is repeated
on the new one. Rolling back is moving it back, and holds: else the next night would promote the same model
again. Nothing here needs onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

from tickcast.adapters import json_text
from tickcast.adapters.lake.objects import first_key, list_objects
from tickcast.adapters.registry import card_markdown
from tickcast.adapters.registry.pointer import LIFTED, POINTER, Pointer, pointer_from, without_odd_fields
from tickcast.model.card import Card, card_from, new_document, serving_card
from tickcast.model.forecast import ModelError

KEPT_PREVIOUS = 10
_ATTEMPTS = 5
# 409: another conditional write was under way; 404: the object that was to be matched is gone.
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404")

Document = dict[str, Any]  # JSON values, with fields of later code that are kept
Check = Callable[[Pointer | None], None]  # may raise where the decision was made by another pointer


class RegistryError(RuntimeError):
    """A request that the registry cannot carry out; the message says why, and what would work."""


class ModelHeld(RegistryError):
    """The pointer is held, and only a person moves it to another model."""


class PointerRace(RuntimeError):
    """Others moved the pointer each time between reading and writing it: to be tried again."""


def save(s3: Any, bucket: str, onnx_file: bytes, card: Card) -> None:
    """Put a model and its card; nothing points at it yet."""
    save_document(s3, bucket, onnx_file, new_document(card))


def save_document(s3: Any, bucket: str, onnx_file: bytes, document: Document) -> None:
    """The same with the card's JSON values."""
    s3.put_object(Bucket=bucket, Key=f"models/{document['model_id']}/model.onnx", Body=onnx_file)
    save_card(s3, bucket, document)


def save_card(s3: Any, bucket: str, document: Document) -> None:
    """The card as JSON, and as a page for people."""
    for name, body, kind in (
        ("card.md", card_markdown.page(card_from(document)), "text/markdown; charset=utf-8"),
        ("card.json", json_text.text(document, indent=2), "application/json"),
    ):
        key = f"models/{document['model_id']}/{name}"
        s3.put_object(Bucket=bucket, Key=key, Body=body.encode(), ContentType=kind)


def read_card(s3: Any, bucket: str, model_id: str) -> Card:
    """Raises `RegistryError` where there is none, or a field that it serves by is of another type."""
    try:
        return card_from(card_document(s3, bucket, model_id))
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
    document = card_document(s3, bucket, model_id)
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
    now: datetime | None = None,
    check: Check = lambda pointer: None,
) -> Pointer:
    """Make `model_id` the active model, with `challenger` in its shadow; the one before is remembered.

    `provisional`, where given, overrides the card. With the time, `now`, the promotion is not by a person,
    and refused while the pointer is held; a hold stays either way. Returns the pointer. Raises `PointerRace`,
    `ModelHeld`, `RegistryError`, and what `check` raises.
    """

    def promoted(pointer: Pointer | None, document: Document) -> Document:
        check(pointer)
        if pointer and now and pointer.model_id != model_id and pointer.is_held(now):
            raise ModelHeld(
                f"model {pointer.model_id} is held until {pointer.hold_until}: `make lift` ends that, "
                f"`make promote ID={model_id}` overrides it"
            )
        previous = document.get("previous", [])
        if pointer and pointer.model_id != model_id:  # a model that is promoted twice is no step
            step = {name: document.get(name) for name in ("model_id", "since", "provisional")}
            previous = [{name: value for name, value in step.items() if value is not None}, *previous]
        moved = _pointer_to(model_id, since, challenger, previous[:KEPT_PREVIOUS], by, provisional)
        return moved | _hold(document.get("hold_until"))

    return _move(s3, bucket, promoted)


def hold(s3: Any, bucket: str, until: str | None) -> Pointer:
    """Hold the active model `until` then (ISO 8601, or `LIFTED`), or with None no longer. Raises
    `PointerRace`, `RegistryError`."""

    def held(pointer: Pointer | None, document: Document) -> Document:
        if pointer is None:
            raise RegistryError("no model is active that could be held")
        return {name: value for name, value in document.items() if name != "hold_until"} | _hold(until)

    return _move(s3, bucket, held)


def _hold(until: str | None) -> Document:
    return {} if until is None else {"hold_until": until}


def shadow(
    s3: Any,
    bucket: str,
    challenger: str | None,
    check: Check = lambda pointer: None,
    *,
    is_proven: bool = False,
) -> Pointer | None:
    """Run `challenger` in the shadow of the active model, or nothing; the active model is no longer
    provisional if it `is_proven`. None where no model is active."""
    if active_model(s3, bucket) is None:
        return None

    def shadowed(pointer: Pointer | None, document: Document) -> Document:
        check(pointer)
        if pointer is None:
            raise RegistryError("no model is active any more that another could run in the shadow of")
        proven = {"provisional": False} if is_proven else {}
        return document | proven | {"challenger": {"model_id": challenger} if challenger else None}

    return _move(s3, bucket, shadowed)


def roll_back(s3: Any, bucket: str, since: str) -> Pointer:
    """Make the newest previous model that can serve active again, and hold it until that is lifted; the
    present one is not remembered, and no model runs in shadow. Raises `RegistryError` when there is nothing
    to go back to."""

    def rolled_back(pointer: Pointer | None, document: Document) -> Document:
        problems = []
        for number, back in enumerate(pointer.previous if pointer else [], 1):
            try:
                check_servable(s3, bucket, back.model_id)
            except RegistryError as error:
                problems.append(str(error))
                continue
            previous, by = document["previous"][number:], f"rolled back from {document['model_id']}"
            moved = _pointer_to(back.model_id, since, None, previous, by, back.provisional)
            return moved | _hold(LIFTED)
        reasons = "; ".join(problems) or "no model was active before this one"
        raise RegistryError(f"there is nothing to roll back to: {reasons}")

    return _move(s3, bucket, rolled_back)


def card_document(s3: Any, bucket: str, model_id: str) -> Document:
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


def _move(s3: Any, bucket: str, moved_from: Callable[[Pointer | None, Document], Document]) -> Pointer:
    """Write what `moved_from` makes of the pointer, if that is still the one that was read; else try again.

    A race may be lost to oneself, when the response to a write was lost and the client sent it again: then
    the pointer is the one that was written. Raises `PointerRace` after five lost races, and what `moved_from`
    raises.
    """
    moved: Document | None = None
    for _ in range(_ATTEMPTS):
        pointer, document, etag = _read_pointer(s3, bucket)
        if pointer is not None and document == moved:
            return pointer
        moved = moved_from(pointer, document)
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        body = json_text.strict(moved).encode()
        try:
            s3.put_object(Bucket=bucket, Key=POINTER, Body=body, ContentType="application/json", **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                continue
            raise
        return pointer_from(moved)
    raise PointerRace(f"{POINTER} was moved by others {_ATTEMPTS} times in a row: try again")


def _read_pointer(s3: Any, bucket: str) -> tuple[Pointer | None, Document, str]:
    """The pointer, its document and its entity tag; None and empty ones where there is none."""
    try:
        stored = s3.get_object(Bucket=bucket, Key=POINTER)
    except s3.exceptions.NoSuchKey:
        return None, {}, ""
    try:
        document = json_text.read(stored["Body"].read())
        return pointer_from(document), without_odd_fields(document), str(stored["ETag"])
    except ValueError as error:
        raise RegistryError(f"{POINTER} is damaged ({error}): remove it, and promote a model again") from None


def _pointer_to(
    model_id: str,
    since: str,
    challenger: str | None,
    previous: list[Document],
    by: str,
    provisional: bool | None,
) -> Document:
    document = {
        "model_id": model_id,
        "key": f"models/{model_id}/model.onnx",
        "since": since,
        "challenger": {"model_id": challenger} if challenger else None,
        "previous": previous,
        "by": by,
    }
    return document if provisional is None else document | {"provisional": provisional}
