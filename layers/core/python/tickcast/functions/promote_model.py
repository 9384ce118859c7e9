"""The verdict carried out: the pointer moved to what has earned it, or a challenger put into the shadow.

It is moved only if what was judged against is still in force: else the answer is `outdated`, and the
judgement is to be made again, against what is. What is in force already is not moved again: a verdict may be
carried out twice.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import Pointer
from tickcast.functions.request import RequestError


class _Outdated(Exception):
    """Another model is in force than was judged against."""


def promote_model(request: dict[str, Any], s3: Any, bucket: str, now: datetime) -> dict[str, Any]:
    """Carry out what `evaluate_model` answered.

    Returns `status` (`promoted`, `kept` or `outdated`), `in_force` and `challenger` as they stand now, and
    `previous`: what a rollback leads to. Raises `RequestError`, `RegistryError` when the model cannot serve,
    `PointerRace` when others moved the pointer each time.
    """
    if missing := {"champion", "promote", "shadow"} - request.keys():
        raise RequestError(
            f"{', '.join(sorted(missing))} missing: a request is what evaluate_model answered, with "
            "champion, promote and shadow"
        )

    def over(pointer: Pointer | None) -> None:
        if (pointer and pointer["model_id"]) != request["champion"]:
            raise _Outdated

    model_id = request["promote"]
    try:
        if not model_id:
            if request["shadow"]:
                model_registry.check_servable(s3, bucket, request["shadow"])
            return _answer("kept", model_registry.shadow(s3, bucket, request["shadow"], over))
        pointer = model_registry.active_model(s3, bucket)
        if pointer is None or pointer["model_id"] != model_id:
            model_registry.check_servable(s3, bucket, model_id)
            pointer = model_registry.promote(
                s3,
                bucket,
                model_id,
                now.astimezone(UTC).isoformat(timespec="seconds"),
                provisional=bool(request.get("provisional", True)),
                by="the gate",
                over=over,
            )
        return _answer("promoted", pointer)
    except _Outdated:
        return _answer("outdated", model_registry.active_model(s3, bucket))


def _answer(status: str, pointer: Pointer | None) -> dict[str, Any]:
    pointer = pointer or {}
    previous = pointer.get("previous") or []
    return {
        "status": status,
        "in_force": pointer.get("model_id"),
        "challenger": (pointer.get("challenger") or {}).get("model_id"),
        "previous": previous[0]["model_id"] if previous else None,
    }
