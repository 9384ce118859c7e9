"""Carry out the gate's decision: move the pointer to the model it promotes, put a challenger into shadow, or
note that the champion is proven.

While the pointer is held (`hold_until`, as after a rollback) no model takes the champion's place: the answer
is `held`, and the model that was to be promoted runs in shadow. The pointer is moved only if the champion is
still the one that was compared with: else the answer is `outdated`, and the evaluation has to run again.
Carrying out a decision twice is harmless: a model that is active already is not promoted again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import Check, ModelHeld
from tickcast.adapters.registry.pointer import Pointer
from tickcast.functions.request import RequestError


class _Outdated(Exception):
    """The active model is not the one that was compared with."""


def promote_model(request: dict[str, Any], s3: Any, bucket: str, now: datetime) -> dict[str, Any]:
    """Carry out the answer of `evaluate_model`.

    Returns `status` (`promoted`, `kept`, `held` or `outdated`), `in_force` and `challenger` as they are now,
    and `previous`: where a rollback leads. Raises `RequestError`, `RegistryError` when the model cannot
    serve, `PointerRace` when others moved the pointer each time.
    """
    if missing := {"champion", "promote", "shadow"} - request.keys():
        raise RequestError(
            f"{', '.join(sorted(missing))} missing: a request is what evaluate_model answered, with "
            "champion, promote and shadow"
        )

    def check(pointer: Pointer | None) -> None:
        if (pointer.model_id if pointer else None) != request["champion"]:
            raise _Outdated

    model_id, shadow = request["promote"], request["shadow"]
    is_proven = request.get("proves_champion") is True
    try:
        if not model_id:
            return _answer("kept", _kept(s3, bucket, shadow, is_proven, check))
        pointer = model_registry.active_model(s3, bucket)
        if pointer is None or pointer.model_id != model_id:
            model_registry.check_servable(s3, bucket, model_id)
            pointer = model_registry.promote(
                s3,
                bucket,
                model_id,
                now.astimezone(UTC).isoformat(timespec="seconds"),
                provisional=bool(request.get("provisional", True)),
                by="the gate",
                now=now,
                check=check,
            )
        return _answer("promoted", pointer)
    except ModelHeld:
        try:
            return _answer("held", _kept(s3, bucket, model_id, is_proven, check))
        except _Outdated:
            return _answer("outdated", model_registry.active_model(s3, bucket))
    except _Outdated:
        return _answer("outdated", model_registry.active_model(s3, bucket))


def _kept(s3: Any, bucket: str, shadow: str | None, is_proven: bool, check: Check) -> Pointer | None:
    """The champion stays, with `shadow` in its shadow."""
    if shadow:
        model_registry.check_servable(s3, bucket, shadow)
    return model_registry.shadow(s3, bucket, shadow, check, is_proven=is_proven)


def _answer(status: str, pointer: Pointer | None) -> dict[str, Any]:
    return {
        "status": status,
        "in_force": pointer.model_id if pointer else None,
        "challenger": pointer.challenger_id if pointer else None,
        "previous": pointer.previous[0].model_id if pointer and pointer.previous else None,
    }
