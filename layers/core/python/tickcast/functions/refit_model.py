"""After a promotion: the promoted model fitted again on all rows up to now, and served in its place.

What was evaluated is the recipe and a fit on the rows up to the test block. The refit takes from it what was
chosen on unseen rows (inputs, epochs, calibration, which markets the perpetual's correction is used for) and
sees the newest rows as well. It has no evaluation of its own; so it serves only where it forecasts nearly
what the evaluated model does on the newest rows, and its card names that model. A rollback leads back to it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import psycopg

from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import ModelHeld
from tickcast.adapters.registry.model_watcher import load
from tickcast.adapters.registry.onnx_model import export
from tickcast.adapters.registry.pointer import Pointer
from tickcast.features.vector import Floats
from tickcast.functions.train_model import (
    TrainedModel,
    TrainRequest,
    comparisons,
    history,
    new_model_id,
    with_masked,
)
from tickcast.model.card import FittedRows, NetworkShape, card_from, new_document
from tickcast.model.dataset import Rows
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import DELIVERY_S, remaining_moves
from tickcast.model.network import SIGMA
from tickcast.model.thinning import Markets
from tickcast.model.training import Refit, TrainingError, paths_bp, refit
from tickcast.serving.prediction import ServingModel
from tickcast.units import DAY_US

LEAST_AGREEMENT = 0.9  # the correlation of both models' moves on the newest rows
_NEWEST_ROWS = 5000  # of each market


class _Outdated(Exception):
    """The model to refit is not the active one."""


def refit_model(
    model_id: str, s3: Any, bucket: str, now: datetime, connection: psycopg.Connection[Any]
) -> TrainedModel:
    """Refit `model_id`, the active model, and make the refit the active one.

    Where that is not to be, `promoted` is false and `why` says why. Raises `RegistryError` where there is no
    such model, `PointerRace`, `TrainingError` without rows, and what PostgreSQL and S3 raise.
    """
    document = model_registry.card_document(s3, bucket, model_id)
    evaluated = card_from(document)
    if evaluated.refit_of:
        return _left(model_id, "it is a refit itself")
    if evaluated.imported:
        return _left(model_id, "it was imported: import a newer fit of it (`make import-model`)")
    if not evaluated.fitted or evaluated.epochs is None or evaluated.data is None:
        return _left(model_id, "its card does not say how it was fitted")
    days = (int(now.timestamp() * 1e6) - (evaluated.data.from_us or 0)) // DAY_US + 1
    markets, data = history(TrainRequest(symbols=sorted(evaluated.fitted), days=days), connection, now)
    if not any(rows.end_us.max() > (evaluated.learned_to_us or 0) for rows in markets.values()):
        return _left(model_id, "there are no rows that it was not fitted on")
    settings = TrainingSettings()
    learnable = with_masked(markets)
    found = refit(learnable, settings, evaluated.epochs, evaluated.reference)
    agreement = _agreement(load(s3, bucket, model_id), found, markets)
    if not agreement >= LEAST_AGREEMENT:
        return _left(
            model_id,
            f"the refit's moves correlate by {agreement:.2f} with those of the evaluated model, "
            f"it should be {LEAST_AGREEMENT} at least",
        )
    onnx_file = export(found.network)
    card = msgspec.structs.replace(
        evaluated,
        model_id=new_model_id(now, onnx_file),
        trained_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        parent=model_id,
        refit_of=model_id,
        refit_agreement=round(agreement, 4),
        data=data,
        rows=found.rows,
        rows_with_quotes=found.rows_with_quotes,
        fitted={symbol: FittedRows(**each._asdict()) for symbol, each in found.fitted.items()},
        network=NetworkShape.of(found.network),
        support=found.support,
        reference=found.weights,
        learned_to_us=found.learned_to_us,
        **comparisons(learnable, found.learned_to_us, settings),
    )
    gate = {"gate": document["gate"]} if "gate" in document else {}
    model_registry.save_document(s3, bucket, onnx_file, new_document(card) | gate)
    try:
        _promote(s3, bucket, model_id, card.model_id, now)
    except _Outdated:
        return _left(model_id, "it is not the active model any more")
    except ModelHeld as error:
        return _left(model_id, str(error))
    return TrainedModel(
        card.model_id, True, None, card.rows, card.rows_with_quotes, new_document(card), model_id
    )


def _left(model_id: str, why: str) -> TrainedModel:
    return TrainedModel(model_id, False, f"not refitted: {why}", 0, 0, {}, model_id)


def _promote(s3: Any, bucket: str, evaluated: str, refitted: str, now: datetime) -> None:
    def check(pointer: Pointer | None) -> None:
        if pointer is None or pointer.model_id != evaluated:
            raise _Outdated

    pointer = model_registry.active_model(s3, bucket)
    check(pointer)
    assert pointer is not None
    model_registry.check_servable(s3, bucket, refitted)
    since = now.astimezone(UTC).isoformat(timespec="seconds")
    model_registry.promote(
        s3,
        bucket,
        refitted,
        since,
        pointer.challenger_id,
        provisional=pointer.provisional,
        by=f"refit of {evaluated}",
        now=now,
        check=check,
    )


def _agreement(evaluated: ServingModel, found: Refit, markets: Markets) -> float:
    """The correlation of the remaining moves at delivery, in σ√h, that both forecast of the newest rows."""
    ours: list[Floats] = []
    theirs: list[Floats] = []
    for symbol, rows in markets.items():
        newest: Rows = rows.chosen(slice(-_NEWEST_ROWS, None))
        sigma_bp = newest.features[:, [SIGMA]]
        paths = (
            paths_bp(found.network, symbol, newest, found.weights),
            evaluated.paths([symbol] * len(newest.end_us), newest.features)[0],
        )
        for moves, path in zip((ours, theirs), paths, strict=True):
            moves.append((remaining_moves(path, DELIVERY_S) / sigma_bp).ravel())
    one, other = np.concatenate(ours), np.concatenate(theirs)
    if not one.any() or not other.any():
        raise TrainingError("there is nothing that the refit and the evaluated model both forecast")
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))
