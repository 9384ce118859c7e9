"""Training as a function: bronze in, a model with its card out, the pointer moved.

The ticks of each market are folded into the same bars and features as live. A model trained where there
is nothing to hold it against yet is `provisional` and says so in every answer.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from tickcast.adapters import bronze, model_store
from tickcast.adapters.onnx_model import export
from tickcast.bars import BAR, BAR_US, Bars, bar_index, summarise
from tickcast.ticks import Quotes, Trades
from tickcast.training import Settings, TrainingError, rows_from_bars, train

_MAX_STRETCH_GAP_US = 60 * 1_000_000  # a longer silence ends a stretch: no feature looks across it


class RequestError(ValueError):
    """A request that cannot be carried out; the message says what it should have held."""


def train_model(request: dict[str, Any], s3: Any, bucket: str, now: datetime) -> dict[str, Any]:
    """Train on the bronze files under `request["prefixes"]` and put the model in force.

    Returns `model_id`, `promoted`, `rows` and the `card`. Raises `RequestError` on a request without
    prefixes, `TrainingError` when the files hold too little, `bronze.BronzeError` on a damaged file.
    """
    prefixes = request.get("prefixes")
    if not isinstance(prefixes, list) or not all(
        isinstance(p, str) and p.startswith("bronze/") for p in prefixes
    ):
        raise RequestError('prefixes should be a list like ["bronze/source=sbe/symbol=BTCUSDT/"]')
    markets = _read_markets(s3, bucket, prefixes)
    if not markets:
        raise TrainingError(f"no ticks in bronze under {', '.join(prefixes) or 'no prefix'}")
    stretches = [stretch for ticks in markets.values() for stretch in _stretches(*ticks)]
    network, figures = train([rows_from_bars(bars) for bars in stretches], Settings())
    onnx_file = export(network)
    digest = hashlib.sha256(onnx_file).hexdigest()[:8]
    model_id = f"{now:%Y%m%dT%H%M%SZ}-{digest}"
    quoted = sum(int((bars["quoted_us"] > 0).sum()) for bars in stretches)
    card = {
        "model_id": model_id,
        "trained_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "provisional": bool(request.get("provisional", True)),
        "reason": str(request.get("reason", "")),
        "data": {
            "prefixes": prefixes,
            "markets": sorted(f"{source}/{symbol}" for source, symbol in markets),
            "from_us": min(int(bars["end_us"][0]) - BAR_US for bars in stretches),
            "to_us": max(int(bars["end_us"][-1]) for bars in stretches),
            "share_of_bars_with_quotes": quoted / sum(len(bars) for bars in stretches),
        },
        **figures,
    }
    model_store.save(s3, bucket, model_id, onnx_file, card)
    model_store.promote(s3, bucket, model_id, card["trained_at"])
    return {"model_id": model_id, "promoted": True, "rows": card["rows"], "card": card}


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


def _stretches(trades: Trades, quotes: Quotes) -> list[Bars]:
    """Bars of each unbroken stretch of a market's ticks, duplicates removed."""
    trades = trades[np.unique(trades["first_id"], return_index=True)[1]]
    quotes = quotes[np.unique(quotes["update_id"], return_index=True)[1]]
    times_us = np.sort(np.concatenate([trades["time_us"], quotes["time_us"]]))
    breaks = np.flatnonzero(np.diff(times_us) > _MAX_STRETCH_GAP_US)
    starts = np.concatenate([times_us[:1], times_us[breaks + 1]])
    ends = np.concatenate([times_us[breaks], times_us[-1:]])
    stretches = []
    for start_us, end_us in zip(starts.tolist(), ends.tolist(), strict=True):
        first = bar_index(start_us)
        count = bar_index(end_us) + 1 - first
        inside = [
            ticks[(ticks["time_us"] >= start_us) & (ticks["time_us"] <= end_us)] for ticks in (trades, quotes)
        ]
        stretches.append(summarise(inside[0], inside[1], first, count, np.zeros(1, BAR)[0]))
    return stretches
