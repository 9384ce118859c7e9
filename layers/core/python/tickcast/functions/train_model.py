"""Training as a function: rows of history in, a model with its card out.

What it learns from is named in one of two ways:

    {"symbols": ["BTCUSDT"], "days": 7}     rows in PostgreSQL; without symbols or days, of all there are
    {"prefixes": ["bronze/source=…/"]}      ticks in bronze, folded into the same bars and features as live

It is a challenger: the gate puts it in force, if at all (`evaluate_model`, `promote_model`). But where
nothing is in force that can serve, one of bronze is put in force at once, held against nothing, and
`provisional`; and so it is where the request says `"replace": true`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

import tickcast
from tickcast.adapters.lake import bronze
from tickcast.adapters.postgres import training_rows
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.onnx_model import export
from tickcast.evaluation import drift
from tickcast.evaluation.backtest import block_scores
from tickcast.evaluation.baselines import fit_line
from tickcast.features.bars import BAR_US, Bars, is_quoted, segments
from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.market.symbols import is_symbol
from tickcast.market.ticks import Quotes, Trades
from tickcast.model import documents
from tickcast.model.card import Card, FeatureBins, NetworkShape, TrainingData
from tickcast.model.dataset import Rows, mask_quotes, pool
from tickcast.model.dataset import training_rows as rows_of_bars
from tickcast.model.fit import TrainingSettings
from tickcast.model.forecast import HORIZONS_S
from tickcast.model.network import Inputs
from tickcast.model.training import TrainingError, fitted_with_quotes, train
from tickcast.units import DAY_US

_KNOWN = {"symbols", "days", "prefixes", "provisional", "reason", "replace"}


class RequestError(ValueError):
    """A request that cannot be carried out; the message says what it should have held."""


def train_model(
    request: dict[str, Any],
    s3: Any,
    bucket: str,
    now: datetime,
    connect: Callable[[], psycopg.Connection[Any]] | None = None,
) -> dict[str, Any]:
    """Train on what `request` names. `connect` gives the database, for those who ask for its rows.

    Returns `model_id`, `promoted`, `why` (None: it was trained), `rows`, `rows_with_quotes` and the `card`.
    Raises `RequestError` on a request that names nothing, `TrainingError` when there is too little,
    `bronze.BronzeError` on a damaged file, and what PostgreSQL raises.
    """
    if unknown := request.keys() - _KNOWN:
        raise RequestError(
            f"unknown: {', '.join(sorted(unknown))}; a request has {', '.join(sorted(_KNOWN))}"
        )
    if "prefixes" in request:
        return _train_first(request, s3, bucket, now)
    if connect is None:
        raise RequestError('prefixes should be a list like ["bronze/source=sbe/symbol=BTCUSDT/"]')
    markets, data = _history(request, connect(), now)
    settings = replace(TrainingSettings(), test_share=_test_share(list(markets.values())))
    learned = {symbol: [pool([rows, mask_quotes(rows)])] for symbol, rows in markets.items()}
    return _keep(learned, data, settings, request, s3, bucket, now)


def _train_first(request: dict[str, Any], s3: Any, bucket: str, now: datetime) -> dict[str, Any]:
    """A model of bronze; put in force at once where nothing is that can serve, or where that is asked."""
    prefixes = request["prefixes"]
    if not isinstance(prefixes, list) or not all(
        isinstance(p, str) and p.startswith("bronze/") for p in prefixes
    ):
        raise RequestError('prefixes should be a list like ["bronze/source=sbe/symbol=BTCUSDT/"]')
    if {"symbols", "days"} & request.keys():
        raise RequestError("ask for prefixes, or for symbols and days: for one of them alone")
    markets = _read_markets(s3, bucket, prefixes)
    if not markets:
        raise TrainingError(f"no ticks in bronze under {', '.join(prefixes) or 'no prefix'}")
    by_symbol: dict[str, list[Bars]] = {}
    for (_, symbol), ticks in markets.items():
        by_symbol.setdefault(symbol, []).extend(segments(*ticks))
    history = [bars for mine in by_symbol.values() for bars in mine]
    quoted = sum(int(is_quoted(bars).sum()) for bars in history)
    data = TrainingData(
        prefixes=prefixes,
        markets=sorted(f"{source}/{symbol}" for source, symbol in markets),
        from_us=min(int(bars["end_us"][0]) - BAR_US for bars in history),
        to_us=max(int(bars["end_us"][-1]) for bars in history),
        share_of_bars_with_quotes=quoted / sum(len(bars) for bars in history),
    )
    learned = {symbol: [rows_of_bars(bars) for bars in mine] for symbol, mine in by_symbol.items()}
    trained = _keep(learned, data, TrainingSettings(), request, s3, bucket, now)
    if not request.get("replace") and model_registry.is_servable(s3, bucket):
        return trained
    since, by = trained["card"]["trained_at"], "a first model, held against nothing"
    model_registry.promote(s3, bucket, trained["model_id"], since, by=by)
    return trained | {"promoted": True}


def _history(
    request: dict[str, Any], connection: psycopg.Connection[Any], now: datetime
) -> tuple[dict[str, Rows], TrainingData]:
    """The rows of each symbol, and what the card says of them."""
    symbols, days = request.get("symbols"), request.get("days")
    if symbols is not None and not (
        isinstance(symbols, list) and symbols and all(isinstance(s, str) and is_symbol(s) for s in symbols)
    ):
        raise RequestError(f'symbols should be a list like ["BTCUSDT"], not {symbols!r}')
    if days is not None and (not isinstance(days, int) or isinstance(days, bool) or days < 1):
        raise RequestError(f"days should be a whole number from 1 on, not {days!r}")
    from_us = int(now.timestamp()) * 1_000_000 - days * DAY_US if days else 0
    found = training_rows.row_counts(connection, symbols, from_us)
    if not found:
        raise TrainingError(
            f"PostgreSQL holds no feature rows of {', '.join(symbols) if symbols else 'any symbol'}"
            f"{f' of the last {days} days' if days else ''} for the features {FEATURE_HASH}: backfill first"
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
    """The share of the rows to learn from that are as new as the newest 15 % of those with quotes, by which
    alone a model is judged."""
    usual = TrainingSettings().test_share
    times_us = np.concatenate([rows.end_us for rows in markets])
    quoted_us = np.concatenate([rows.end_us[rows.has_quotes] for rows in markets])
    if not len(quoted_us):
        return usual
    cut_us = np.quantile(quoted_us, 1 - usual)
    # Each row with quotes is learnt from twice: with them, and without.
    newest = np.sum(times_us >= cut_us) + np.sum(quoted_us >= cut_us)
    return float(newest / (len(times_us) + len(quoted_us)))


def _keep(
    markets: dict[str, list[Rows]],
    data: TrainingData,
    settings: TrainingSettings,
    request: dict[str, Any],
    s3: Any,
    bucket: str,
    now: datetime,
) -> dict[str, Any]:
    """Train on `markets` by symbol, and put the model and its card into the registry."""
    trained = train([rows for parts in markets.values() for rows in parts], settings)
    onnx_file = export(trained.network)
    model_id = f"{now:%Y%m%dT%H%M%SZ}-{hashlib.sha256(onnx_file).hexdigest()[:8]}"
    parent = model_registry.active_model(s3, bucket)
    line, distribution = _of_markets(markets, trained.learned_to_us, settings.inputs)
    card = Card(
        model_id=model_id,
        trained_at=now.astimezone(UTC).isoformat(timespec="seconds"),
        provisional=bool(request.get("provisional", True)),
        reason=str(request.get("reason", "")),
        parent=parent.model_id if parent else None,
        code=code_version(),
        data=data,
        rows=trained.rows,
        rows_with_quotes=trained.rows_with_quotes,
        features=list(FEATURE_NAMES),
        feature_hash=FEATURE_HASH,
        horizons_s=list(HORIZONS_S),
        network=NetworkShape.of(trained.network),
        epochs=trained.epochs,
        calibration=trained.calibration,
        masked_calibration=trained.masked_calibration,
        support=trained.support,
        learned_to_us=trained.learned_to_us,
        test=block_scores(trained.network, trained.test),
        line=line,
        distribution=distribution,
    )
    model_registry.save(s3, bucket, onnx_file, card)
    return {
        "model_id": model_id,
        "promoted": False,
        "why": None,
        "rows": card.rows,
        "rows_with_quotes": card.rows_with_quotes,
        "card": documents.encode(card),
    }


def _of_markets(
    markets: dict[str, list[Rows]], learned_to_us: int, inputs: Inputs
) -> tuple[dict[str, dict[int, float]], dict[str, dict[str, FeatureBins]]]:
    """What the card says of each market by itself, for a model may well have learnt from several that
    differ: the line through book imbalance, which the gate asks for, and how inputs lie, which drift is
    measured by."""
    learned = {symbol: fitted_with_quotes(pool(parts), learned_to_us) for symbol, parts in markets.items()}
    line = {
        symbol: dict(zip(HORIZONS_S, fit_line([rows]).tolist(), strict=True))
        for symbol, rows in learned.items()
        if len(rows.end_us)
    }
    return line, {
        symbol: drift.distribution(rows.features, (*inputs.odd, *inputs.even))
        for symbol, rows in learned.items()
    }


@cache
def code_version() -> str:
    """A digest of all modules of this package: code that is no release has no other name."""
    package = Path(tickcast.__file__).parent
    digest = hashlib.sha256()
    for module in sorted(package.rglob("*.py")):
        digest.update(f"{module.relative_to(package).as_posix()}\0".encode())
        digest.update(module.read_bytes())
    return f"sha256:{digest.hexdigest()[:12]}"


def _read_markets(s3: Any, bucket: str, prefixes: list[str]) -> dict[tuple[str, str], tuple[Trades, Quotes]]:
    """All ticks under `prefixes` by (source, symbol)."""
    parts: dict[tuple[str, str], list[tuple[Trades, Quotes]]] = defaultdict(list)
    pages = s3.get_paginator("list_objects_v2")
    for prefix in prefixes:
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                data = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                records = list(bronze.read_file(data, item["Key"]))
                for market in {(r["source"], r["symbol"]) for r in records}:
                    mine = [r for r in records if (r["source"], r["symbol"]) == market]
                    parts[market].append(bronze.ticks_from(mine))
    return {
        market: (np.concatenate([t for t, _ in ticks]), np.concatenate([q for _, q in ticks]))
        for market, ticks in parts.items()
    }
