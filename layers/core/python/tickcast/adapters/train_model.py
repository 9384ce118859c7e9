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
from tickcast.bars import BAR_US, is_quoted, stretches
from tickcast.ticks import Quotes, Trades
from tickcast.training import Settings, TrainingError, train, training_rows


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
    history = [bars for ticks in markets.values() for bars in stretches(*ticks)]
    network, figures = train([training_rows(bars) for bars in history], Settings())
    onnx_file = export(network)
    digest = hashlib.sha256(onnx_file).hexdigest()[:8]
    model_id = f"{now:%Y%m%dT%H%M%SZ}-{digest}"
    quoted = sum(int(is_quoted(bars).sum()) for bars in history)
    card = {
        "model_id": model_id,
        "trained_at": now.astimezone(UTC).isoformat(timespec="seconds"),
        "provisional": bool(request.get("provisional", True)),
        "reason": str(request.get("reason", "")),
        "data": {
            "prefixes": prefixes,
            "markets": sorted(f"{source}/{symbol}" for source, symbol in markets),
            "from_us": min(int(bars["end_us"][0]) - BAR_US for bars in history),
            "to_us": max(int(bars["end_us"][-1]) for bars in history),
            "share_of_bars_with_quotes": quoted / sum(len(bars) for bars in history),
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
