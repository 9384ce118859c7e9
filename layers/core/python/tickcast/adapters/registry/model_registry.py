"""The registry of models in S3: a folder each with the network and its card, and one small object, the
pointer, that says which is in force, which runs in its shadow, and what was in force before.

The pointer is only ever moved by conditional write: whoever decided by a pointer that has moved since decides
anew. Going back is moving it back. Nothing here needs the runtime of the models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from tickcast.adapters import json_text
from tickcast.adapters.lake.objects import first_key, list_objects
from tickcast.adapters.registry import card_markdown
from tickcast.model.forecast import ModelError, serving_card

POINTER = "models/current.json"
KEPT_PREVIOUS = 10
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # a folder of its own in the bucket
_ATTEMPTS = 5
# 409: another conditional write was under way; 404: the object that was to be matched is gone.
_LOST = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "412", "409", "404")

Card = dict[str, Any]
Pointer = dict[str, Any]


class RegistryError(RuntimeError):
    """What is asked of the registry cannot be done; the message says why and what could be."""


class PointerRace(RuntimeError):
    """Others moved the pointer each time between reading and writing it: to be tried again."""


def save(s3: Any, bucket: str, model_id: str, onnx_file: bytes, card: Card) -> None:
    """Put a model and its card; nothing points at it yet."""
    s3.put_object(Bucket=bucket, Key=f"models/{model_id}/model.onnx", Body=onnx_file)
    save_card(s3, bucket, model_id, card)


def save_card(s3: Any, bucket: str, model_id: str, card: Card) -> None:
    """The card as JSON, and as a page for people."""
    for name, body, kind in (
        ("card.md", card_markdown.page(card), "text/markdown; charset=utf-8"),
        ("card.json", json_text.text(card, indent=2), "application/json"),
    ):
        key = f"models/{model_id}/{name}"
        s3.put_object(Bucket=bucket, Key=key, Body=body.encode(), ContentType=kind)


def read_card(s3: Any, bucket: str, model_id: str) -> Card:
    """Raises `RegistryError` where there is none."""
    try:
        answer = s3.get_object(Bucket=bucket, Key=f"models/{model_id}/card.json")
        found = json_text.read(answer["Body"].read())
    except s3.exceptions.NoSuchKey:
        raise RegistryError(f"there is no model {model_id!r}: `make models` lists those there are") from None
    except ValueError as error:
        raise RegistryError(f"the card of model {model_id} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise RegistryError(f"the card of model {model_id} is no card: {str(found)[:100]}")
    return found


def cards(s3: Any, bucket: str) -> list[Card]:
    """All cards, newest first; one that cannot be read says so in `problem`."""
    keys = [stored.key for stored in list_objects(s3, bucket, "models/")]
    found = []
    for model_id in sorted((k.split("/")[1] for k in keys if k.endswith("/card.json")), reverse=True):
        try:
            found.append({"model_id": model_id} | read_card(s3, bucket, model_id))
        except RegistryError as error:
            found.append({"model_id": model_id, "problem": str(error)})
    return found


def check_servable(s3: Any, bucket: str, model_id: str) -> Card:
    """The card of a model that this code can serve. Raises `RegistryError` when it is not there, was made for
    other features, or has a field that nothing could be served by."""
    card = read_card(s3, bucket, model_id)
    try:
        serving_card(card)
    except ModelError as error:
        raise RegistryError(f"{error}: it cannot serve") from None
    key = f"models/{model_id}/model.onnx"
    if first_key(s3, bucket, key) is None:
        raise RegistryError(f"{key} is not there: model {model_id} cannot serve")
    return card


def is_servable(s3: Any, bucket: str) -> bool:
    """Whether a model is in force that this code can serve."""
    try:
        pointer = active_model(s3, bucket)
        return bool(pointer and check_servable(s3, bucket, str(pointer["model_id"])))
    except RegistryError:
        return False


def active_model(s3: Any, bucket: str) -> Pointer | None:
    """The pointer, or None where nothing was ever put in force. Raises `RegistryError` on a damaged one."""
    return _read(s3, bucket)[0]


def promote(
    s3: Any,
    bucket: str,
    model_id: str,
    since: str,
    challenger: str | None = None,
    *,
    provisional: bool | None = None,
    by: str = "",
    over: Callable[[Pointer | None], None] = lambda pointer: None,
) -> Pointer:
    """Put `model_id` in force, with `challenger` in its shadow; the one before is remembered.

    `provisional`, where it is told, goes before what the card says. `over` may raise when it is not what
    stands there that was to be replaced. Returns the pointer. Raises `PointerRace`, `RegistryError`.
    """

    def onward(pointer: Pointer | None) -> Pointer:
        over(pointer)
        moved = _pointer(model_id, since, challenger, _history(pointer, model_id), by)
        return moved if provisional is None else moved | {"provisional": provisional}

    return move(s3, bucket, onward)


def shadow(
    s3: Any,
    bucket: str,
    challenger: str | None,
    over: Callable[[Pointer | None], None] = lambda pointer: None,
) -> Pointer | None:
    """Have `challenger` run in the shadow of what is in force, or nothing. None where nothing is."""
    if active_model(s3, bucket) is None:
        return None

    def onward(pointer: Pointer | None) -> Pointer:
        over(pointer)
        if pointer is None:
            raise RegistryError("nothing is in force any more that a model could run in the shadow of")
        return pointer | {"challenger": {"model_id": challenger} if challenger else None}

    return move(s3, bucket, onward)


def roll_back(s3: Any, bucket: str, since: str) -> Pointer:
    """Put the newest of what was in force before, and can serve, in force again; what is now is forgotten as
    a step, and no model runs in shadow. Raises `RegistryError` when there is nothing to go back to."""

    def onward(pointer: Pointer | None) -> Pointer:
        problems = ["no model was in force before this one"]
        earlier = list((pointer or {}).get("previous") or [])
        while pointer and earlier:
            back = earlier.pop(0)
            try:
                check_servable(s3, bucket, str(back["model_id"]))
            except RegistryError as error:
                problems = [*problems[1:], str(error)]
                continue
            by = f"rolled back from {pointer['model_id']}"
            moved = _pointer(back["model_id"], since, None, earlier, by)
            return moved | {"provisional": back["provisional"]} if "provisional" in back else moved
        raise RegistryError(f"there is nothing to roll back to: {'; '.join(problems)}")

    return move(s3, bucket, onward)


def move(s3: Any, bucket: str, onward: Callable[[Pointer | None], Pointer]) -> Pointer:
    """Write what `onward` makes of the pointer, if that is still the one that was read; else all over again.

    A race may be lost to oneself, when the answer to a write was lost and the client sent it again: then what
    was to be written is there. Raises `PointerRace` after five lost races, and what `onward` raises.
    """
    moved: Pointer | None = None
    for _ in range(_ATTEMPTS):
        pointer, etag = _read(s3, bucket)
        if pointer is not None and pointer == moved:
            return pointer
        moved = onward(pointer)
        condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
        try:
            s3.put_object(
                Bucket=bucket,
                Key=POINTER,
                Body=json_text.strict(moved).encode(),
                ContentType="application/json",
                **condition,
            )
        except ClientError as error:
            if error.response["Error"]["Code"] in _LOST:
                continue
            raise
        return moved
    raise PointerRace(f"{POINTER} was moved by others {_ATTEMPTS} times in a row: try again")


def pointer_in(data: bytes) -> Pointer:
    """The pointer in the bytes of its object. Raises ValueError naming what is wrong with it."""
    pointer = json_text.read(data)
    if not isinstance(pointer, dict):
        raise ValueError(f"it is {str(pointer)[:40]}, it should be a JSON object")
    if not is_model_id(pointer.get("model_id")):
        raise ValueError(f"model_id is {str(pointer.get('model_id'))[:40]!r}, it should name a model")
    if not isinstance(pointer.get("provisional", False), bool):
        raise ValueError(f"provisional is {str(pointer['provisional'])[:40]}, it should be true or false")
    return pointer


def is_model_id(value: Any) -> bool:
    """Whether `value` could name a model: its folder in the bucket."""
    return isinstance(value, str) and bool(_MODEL_ID.fullmatch(value))


def _read(s3: Any, bucket: str) -> tuple[Pointer | None, str]:
    try:
        answer = s3.get_object(Bucket=bucket, Key=POINTER)
    except s3.exceptions.NoSuchKey:
        return None, ""
    try:
        pointer = pointer_in(answer["Body"].read())
    except ValueError as error:
        raise RegistryError(f"{POINTER} is damaged ({error}): remove it, and promote a model again") from None
    return pointer, str(answer["ETag"])


def _pointer(
    model_id: str, since: str, challenger: str | None, previous: list[dict[str, Any]], by: str
) -> Pointer:
    return {
        "model_id": model_id,
        "key": f"models/{model_id}/model.onnx",
        "since": since,
        "challenger": {"model_id": challenger} if challenger else None,
        "previous": previous,
        "by": by,
    }


def _history(pointer: Pointer | None, model_id: str) -> list[dict[str, Any]]:
    """What was in force before, newest first; a model that is promoted twice is no step."""
    if pointer is None:
        return []
    earlier = list(pointer.get("previous") or [])
    if pointer["model_id"] != model_id:
        kept = {name: pointer[name] for name in ("model_id", "since", "provisional") if name in pointer}
        earlier = [kept, *earlier]
    return earlier[:KEPT_PREVIOUS]
