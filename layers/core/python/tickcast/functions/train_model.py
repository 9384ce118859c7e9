"""Training as a function: from rows of history in PostgreSQL to a model with its card.

    {"symbols": ["BTCUSDT"], "days": 7}     without days, all rows there are

Without symbols it trains on those that are served, or on all until these were changed at run time.
The model is a challenger: the gate promotes it, if at all (`evaluate_model`, `promote_model`). With
`"replace": true` it becomes the active model at once, without the gate: so a new system gets its first one.
While the active model is held it stays a challenger, and `why` says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psycopg

import tickcast
from tickcast.adapters.postgres import training_rows
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.model_registry import ModelHeld
from tickcast.adapters.registry.onnx_model import export
from tickcast.adapters.registry.served_symbols import read_served
from tickcast.adapters.settings import MAX_DAYS
from tickcast.evaluation import drift
from tickcast.evaluation.backtest import block_scores
from tickcast.evaluation.baselines import fit_line, fit_scaled_line
from tickcast.evaluation.card_figures import ablation, regimes
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.functions.request import RequestError, check_fields, days_in, symbols_in
from tickcast.model.card import Card, FittedRows, NetworkShape, PerpetualGain, TrainingData, new_document
from tickcast.model.dataset import LABEL_VERSION, ROW_HASH, Rows, mask_quotes, pool
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import HORIZONS_S, PATH_S
from tickcast.model.training import TrainingError, fitted_with_quotes, train
from tickcast.units import DAY_US

_MOST_DAYS = MAX_DAYS + 1  # the most of history, and today


class TrainRequest(msgspec.Struct, frozen=True):
    symbols: list[str] | None = None  # None: all
    days: int | None = None  # the newest; None: all
    provisional: bool = True
    reason: str = ""
    replace: bool = False

    @classmethod
    def of(cls, event: dict[str, Any]) -> TrainRequest:
        """Raises `RequestError`."""
        check_fields(event, cls.__struct_fields__)
        symbols, days = symbols_in(event), days_in(event, _MOST_DAYS)
        try:
            return msgspec.convert(event | {"symbols": symbols, "days": days}, cls)
        except msgspec.ValidationError as error:
            raise RequestError(f'a request should be like {{"reason": "by hand"}}: {error}') from None


class TrainedModel(msgspec.Struct):
    """The result that the state machine and `make retrain` read. `why` is for when nothing was trained,
    or the model did not become active as it was to."""

    model_id: str
    promoted: bool
    why: str | None
    rows: int
    rows_with_quotes: int
    card: dict[str, Any]
    refit_of: str | None = None  # the active model that was asked to be refitted


def train_model(
    event: dict[str, Any], s3: Any, bucket: str, now: datetime, connection: psycopg.Connection[Any]
) -> TrainedModel:
    """Train by `event`, a `TrainRequest`, and put the model and its card into the registry.

    Raises `RequestError`, `TrainingError` when there are too few rows, and what PostgreSQL and S3 raise.
    """
    request = _of_served(TrainRequest.of(event), s3, bucket)
    markets, data = history(request, connection, now)
    settings = replace(TrainingSettings(), test_share=_test_share(list(markets.values())))
    trained_on = with_masked(markets)
    trained = train(trained_on, settings)
    onnx_file = export(trained.network)
    model_id = new_model_id(now, onnx_file)
    parent = model_registry.active_model(s3, bucket)
    trained_at = now.astimezone(UTC).isoformat(timespec="seconds")
    card = Card(
        model_id=model_id,
        trained_at=trained_at,
        provisional=request.provisional,
        reason=request.reason,
        parent=parent.model_id if parent else None,
        code=code_version(),
        label_version=LABEL_VERSION,
        data=data,
        rows=trained.rows,
        rows_with_quotes=trained.rows_with_quotes,
        fitted={symbol: FittedRows(**each._asdict()) for symbol, each in trained.fitted.items()},
        features=list(FEATURE_NAMES),
        feature_hash=FEATURE_HASH,
        horizons_s=list(HORIZONS_S),
        path_s=list(PATH_S),
        network=NetworkShape.of(trained.network),
        epochs=trained.epochs,
        calibration=trained.calibration,
        masked_calibration=trained.masked_calibration,
        support=trained.support,
        reference=trained.references.weights,
        reference_gain={
            symbol: PerpetualGain(gain=each.gain, used=symbol in trained.references.weights)
            for symbol, each in trained.references.gains.items()
        },
        learned_to_us=trained.learned_to_us,
        test=block_scores(trained),
        ablation=ablation(trained_on, trained, settings),
        regimes=regimes(trained),
        **comparisons(trained_on, trained.learned_to_us, settings),
    )
    model_registry.save(s3, bucket, onnx_file, card)
    promoted, why = request.replace, None
    if request.replace:
        try:
            model_registry.promote(
                s3, bucket, model_id, trained_at, by="a first model, not evaluated", now=now
            )
        except ModelHeld as error:
            promoted, why = False, f"trained, not made active: {error}"
    return TrainedModel(model_id, promoted, why, card.rows, card.rows_with_quotes, new_document(card))


def _of_served(request: TrainRequest, s3: Any, bucket: str) -> TrainRequest:
    """`request`; where it names no symbols, for those that are served if they were changed at run time."""
    served = read_served(s3, bucket) if request.symbols is None else None
    return msgspec.structs.replace(request, symbols=list(served.symbols)) if served else request


def new_model_id(now: datetime, onnx_file: bytes) -> str:
    return f"{now:%Y%m%dT%H%M%SZ}-{hashlib.sha256(onnx_file).hexdigest()[:8]}"


def with_masked(markets: Mapping[str, Rows]) -> dict[str, Rows]:
    """The rows of each market as they are, and again without their quotes."""
    return {symbol: pool([rows, mask_quotes(rows)]) for symbol, rows in markets.items()}


def comparisons(
    trained_on: Mapping[str, Rows], learned_to_us: int, settings: TrainingSettings
) -> dict[str, Any]:
    """The fields of a card that a model is compared by later, of the rows it was fitted on."""
    fitted = {symbol: fitted_with_quotes(rows, learned_to_us) for symbol, rows in trained_on.items()}
    quoted = {symbol: rows for symbol, rows in fitted.items() if len(rows.end_us)}
    return {
        "line": {
            symbol: dict(zip(HORIZONS_S, fit_line([rows]).tolist(), strict=True))
            for symbol, rows in quoted.items()
        },
        "scaled_line": {symbol: fit_scaled_line([rows]) for symbol, rows in quoted.items()},
        "distribution": {
            symbol: drift.distribution(rows.features, (*settings.inputs.odd, *settings.inputs.even))
            for symbol, rows in fitted.items()
        },
    }


def history(
    request: TrainRequest, connection: psycopg.Connection[Any], now: datetime
) -> tuple[dict[str, Rows], TrainingData]:
    """The rows of each symbol, and their description for the card."""
    symbols, days = request.symbols, request.days
    from_us = int(now.timestamp()) * 1_000_000 - days * DAY_US if days else 0
    found = training_rows.row_counts(connection, symbols, from_us)
    if not found:
        others = training_rows.rows_left_aside(connection, symbols, from_us)
        raise TrainingError(
            f"PostgreSQL has no feature rows of {', '.join(symbols) if symbols else 'any symbol'}"
            f"{f' of the last {days} days' if days else ''} for the features and labels {ROW_HASH}: "
            + (
                f"{others} rows of an earlier definition are left aside: docs/runbook.md"
                if others
                else "backfill first"
            )
        )
    markets = training_rows.learning_rows(connection, found, from_us)
    used, quoted = (
        sum(int(count) for count in counts)
        for counts in zip(*((len(m.end_us), m.has_quotes.sum()) for m in markets.values()), strict=True)
    )
    return markets, TrainingData(
        markets=sorted({f"{each.origin.label}/{each.symbol}" for each in found}),
        from_us=min(each.first_us for each in found),
        to_us=max(each.last_us for each in found),
        rows_held=sum(each.rows for each in found),
        rows_used=used,
        share_of_rows_with_quotes=quoted / used if used else 0.0,
    )


def _test_share(markets: list[Rows]) -> float:
    """The share of the rows that are as new as the newest 15 % of those with quotes: a model is evaluated on
    these alone."""
    usual = TrainingSettings().test_share
    times_us = np.concatenate([rows.end_us for rows in markets])
    quoted_us = np.concatenate([rows.end_us[rows.has_quotes] for rows in markets])
    if not len(quoted_us):
        return usual
    cut_us = np.quantile(quoted_us, 1 - usual)
    # Each row with quotes is trained on twice: with them, and without.
    newest = np.sum(times_us >= cut_us) + np.sum(quoted_us >= cut_us)
    return float(newest / (len(times_us) + len(quoted_us)))


@cache
def code_version() -> str:
    """A digest of all modules of this package, which identifies code that is not a release."""
    package = Path(tickcast.__file__).parent
    digest = hashlib.sha256()
    for module in sorted(package.rglob("*.py")):
        digest.update(f"{module.relative_to(package).as_posix()}\0".encode())
        digest.update(module.read_bytes())
    return f"sha256:{digest.hexdigest()[:12]}"
