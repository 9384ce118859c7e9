"""A model that was trained elsewhere, into the champion's shadow.

    {"model_id": "20260102T030405Z-0a1b2c3d", "files": 1, "description": {…}}

The files lie in the registry already (`staged_key`). The model is completed, checked and calibrated on rows
that it was not trained on; then the gate evaluates it as it does any challenger, but does not promote it: an
imported model runs in the shadow first, and is evaluated again with the next challenger. A model that is no
better than no change stays in the registry alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import psycopg

from tickcast.adapters.lake.objects import first_key
from tickcast.adapters.postgres import training_rows
from tickcast.adapters.postgres.training_rows import RowCount
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.imported_onnx import FlatHead, completed
from tickcast.adapters.registry.model_description import Description, description_from
from tickcast.adapters.registry.onnx_model import OnnxModel
from tickcast.adapters.registry.pointer import Pointer, is_model_id
from tickcast.evaluation import drift
from tickcast.evaluation.backtest import point_scores
from tickcast.evaluation.baselines import fit_line, fit_scaled_line
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.functions.evaluate_model import evaluate_model
from tickcast.functions.promote_model import promote_model
from tickcast.functions.request import RequestError
from tickcast.functions.train_model import code_version, with_masked
from tickcast.model.card import Card, ImportedModel, TrainingData, new_document
from tickcast.model.dataset import LABEL_VERSION, Rows, mask_quotes, pool
from tickcast.model.fit import INPUTS, TrainingSettings, fit_flat
from tickcast.model.forecast import HORIZONS_S, PATH_S, ModelError
from tickcast.model.imported import MIN_ROWS, Checks, calibrations, check
from tickcast.model.thinning import sample
from tickcast.model.training import support
from tickcast.units import SECOND_US


class ImportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model_id: str
    files: int
    description: dict[str, Any]


def staged_key(model_id: str, number: int) -> str:
    """The key of the file that was given, number 0, 1, …"""
    return f"models/{model_id}/imported-{number}.onnx"


def import_model(
    event: Any,
    s3: Any,
    bucket: str,
    now: datetime,
    connection: psycopg.Connection[Any],
    clock_s: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Import by `event`, an `ImportRequest`.

    Returns `imported`, `why` not, what the checks measured, what it was calibrated on, the gate's decision
    and what runs in shadow now. Raises `RequestError`, `RegistryError` and `PointerRace` of the registry, and
    what PostgreSQL and S3 raise.
    """
    try:
        request = msgspec.convert(event, ImportRequest)
    except msgspec.ValidationError as error:
        raise RequestError(f"import: {error}") from None
    if not is_model_id(request.model_id):
        raise RequestError(f"import: model_id is {request.model_id!r}, which names no model")
    parent = model_registry.active_model(s3, bucket)
    _refuse_taken(s3, bucket, request.model_id, parent)
    try:
        description = description_from(request.description, round(now.timestamp() * SECOND_US))
        files = [_staged(s3, bucket, staged_key(request.model_id, n)) for n in range(request.files)]
        found, markets = _held_rows(connection, description)
        onnx_file = completed(files, description, _flat_head(markets))
        run = OnnxModel(onnx_file)
        held = with_masked(markets)
        checks = check(run, np.concatenate([rows.features for rows in held.values()]), clock_s)
        card = _card(request.model_id, description, run, checks, found, markets, now)
    except ModelError as error:
        return {"imported": False, "model_id": request.model_id, "why": str(error)}
    card = msgspec.structs.replace(card, parent=parent.model_id if parent else None)
    model_registry.save(s3, bucket, onnx_file, card)
    decision = evaluate_model(
        {"model_id": request.model_id, "shadow_first": True}, s3, bucket, connection, sorted(markets), now
    )
    moved = promote_model(decision, s3, bucket, now)
    return {
        "imported": True,
        "why": None,
        "card": new_document(card),
        "in_force": moved["in_force"],
        "challenger": moved["challenger"],
        "status": moved["status"],
        **{
            name: decision[name] for name in ("model_id", "reasons", "sentence", "seconds", "rows", "figures")
        },
    }


def _refuse_taken(s3: Any, bucket: str, model_id: str, active: Pointer | None) -> None:
    """Raises `RequestError` where the import would take the place of another model, or of the active one. A
    repeated request takes its own."""
    is_active = active is not None and active.model_id == model_id
    if not is_active and first_key(s3, bucket, f"models/{model_id}/card.json") is None:
        return
    if is_active or model_registry.read_card(s3, bucket, model_id).imported is None:
        raise RequestError(f"import: there is a model {model_id} already: import it under another model_id")


def _staged(s3: Any, bucket: str, key: str) -> bytes:
    try:
        data: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except s3.exceptions.NoSuchKey:
        raise ModelError(f"{key} is not there: import it again") from None
    return data


def _held_rows(
    connection: psycopg.Connection[Any], description: Description
) -> tuple[list[RowCount], dict[str, Rows]]:
    """The rows with quotes newer than all that the model was trained on, by symbol. Raises `ModelError`."""
    from_us = description.learned_to_us
    found = [each for each in training_rows.row_counts(connection, None, from_us) if each.has_quotes]
    if (count := sum(each.rows for each in found)) < MIN_ROWS:
        raise ModelError(
            f"PostgreSQL has {count} rows with quotes that are newer than learned_to, "
            f"{description.learned_to}; {MIN_ROWS} are needed to calibrate it: load newer "
            "ones (`make backfill DAYS=1`), or train on older ones"
        )
    return found, training_rows.learning_rows(connection, found, from_us)


def _flat_head(markets: Mapping[str, Rows]) -> FlatHead:
    rows = sample(with_masked(markets), TrainingSettings().max_rows, TrainingSettings().seed).rows
    return FlatHead(*fit_flat(rows, INPUTS))


def _card(
    model_id: str,
    description: Description,
    run: OnnxModel,
    checks: Checks,
    found: Sequence[RowCount],
    markets: Mapping[str, Rows],
    now: datetime,
) -> Card:
    """What the model serves by and is compared by, all of it from rows that it was not trained on."""
    pooled = pool(list(markets.values()))
    inputs = tuple(name for name in FEATURE_NAMES if name in {*description.inputs, "has_quotes", "sigma_bp"})
    return Card(
        model_id=model_id,
        trained_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        reason="imported",
        code=code_version(),
        label_version=LABEL_VERSION,
        rows=0,
        features=list(FEATURE_NAMES),
        feature_hash=FEATURE_HASH,
        horizons_s=list(HORIZONS_S),
        path_s=list(PATH_S),
        calibration=calibrations(run, pooled),
        masked_calibration=calibrations(run, mask_quotes(pooled)),
        row_by_row=not checks.is_exact,
        support=support(with_masked(markets), inputs),
        learned_to_us=description.learned_to_us,
        test=point_scores(run(pooled.features)[0], pooled.moves_bp),
        line={
            symbol: dict(zip(HORIZONS_S, fit_line([rows]).tolist(), strict=True))
            for symbol, rows in markets.items()
        },
        scaled_line={symbol: fit_scaled_line([rows]) for symbol, rows in markets.items()},
        distribution={symbol: drift.distribution(rows.features, inputs) for symbol, rows in markets.items()},
        imported=ImportedModel(
            name=description.name,
            description=description.description,
            output=description.output,
            inputs=list(description.inputs),
            instants_s=list(description.instants_s),
            symmetrised=description.symmetrise,
            symmetric=checks.is_symmetric,
            asymmetry=round(checks.asymmetry, 5),
            run_ms=checks.run_ms,
            calibrated_on=TrainingData(
                markets=sorted({f"{each.origin.label}/{each.symbol}" for each in found}),
                from_us=min(each.first_us for each in found),
                to_us=max(each.last_us for each in found),
                rows_held=sum(each.rows for each in found),
                rows_used=len(pooled.end_us),
            ),
        ),
    )
