"""The exported tables, as types: one row each, its fields the columns, their descriptions the dictionary.

Names and units are those of docs/contracts.md: times in whole µs (`…_us`) or ms (`timestamp`, `target_time`)
since 1970, prices in quote currency, quantities in base currency, moves in bp. Receipts and outcomes are the
records of `serving.records` as they are stored.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct, defstruct

from tickcast.features import vector
from tickcast.features.vector import FEATURE_NAMES
from tickcast.model.forecast import PATH_S
from tickcast.serving.records import Outcome, Prediction

TimeUs = Annotated[int, Meta(description="by the exchange's clock, µs since 1970")]
Origin = Annotated[
    Literal["stream", "replay", "sim", "rest"],
    Meta(description="the exchange's stream, a recording, a simulated market, or REST history"),
]
Count = Annotated[int, Meta(ge=0)]
Float32 = Annotated[float, Meta(extra={"single": True})]
Single = Annotated[float | None, Meta(extra={"single": True})]

_FEATURE_LINE = re.compile(r"^\| ([a-z][\w, ]*?) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
_SUFFIX = re.compile(r"_[^_]+$")


class Trade(Struct, kw_only=True):
    """Every trade once, as of all that bronze has: single trades, or what is left of an aggregate."""

    symbol: str
    time_us: TimeUs
    first_id: Annotated[int, Meta(description="of the exchange")]
    last_id: Annotated[int, Meta(description="the same, but for an aggregate of REST history")]
    trades: Annotated[Count, Meta(description="how many ids the row stands for")]
    price: Annotated[float, Meta(description="quote currency")]
    qty: Annotated[float, Meta(description="base currency")]
    side: Annotated[Literal["buy", "sell"], Meta(description="the aggressor's")]
    origin: Origin


class Quote(Struct, kw_only=True):
    """Best bid and ask of the spot market after each change. The side of an empty book is null."""

    symbol: str
    time_us: TimeUs
    receive_time_us: Annotated[int, Meta(description="when it was received, by the receiver's clock, µs")]
    update_id: Annotated[int, Meta(description="of the book update, by the exchange")]
    bid_price: Annotated[float | None, Meta(description="quote currency; null: no bid")]
    bid_qty: Annotated[float | None, Meta(description="base currency; null: no bid")]
    ask_price: Annotated[float | None, Meta(description="quote currency; null: no ask")]
    ask_qty: Annotated[float | None, Meta(description="base currency; null: no ask")]
    origin: Origin


class ReferenceQuote(Quote, kw_only=True):
    """Best bid and ask of the USD-M perpetual of the same base, the newest of each 50 ms."""


class Bar(Struct, kw_only=True):
    """Sums over one second, and the last trade and the book as they stood at its end."""

    symbol: str
    end_us: Annotated[int, Meta(description="the end of the second, µs since 1970")]
    has_quotes: Annotated[bool, Meta(description="whether the book was known at its end")]
    trade_count: Count
    buy_qty: Annotated[float, Meta(description="bought by aggressors, base currency")]
    sell_qty: Annotated[float, Meta(description="sold by aggressors, base currency")]
    notional: Annotated[float, Meta(description="sum of price times quantity, quote currency")]
    quote_count: Count
    last_trade_id: Annotated[int | None, Meta(description="null: none yet")]
    last_trade_price: Annotated[float | None, Meta(description="quote currency; null: none yet")]
    update_id: Annotated[int | None, Meta(description="of the newest book update; null: none yet")]
    bid_price: Annotated[float | None, Meta(description="quote currency; null: no bid")]
    bid_qty: Annotated[float | None, Meta(description="base currency; null: no bid")]
    ask_price: Annotated[float | None, Meta(description="quote currency; null: no ask")]
    ask_qty: Annotated[float | None, Meta(description="base currency; null: no ask")]


def feature_meanings() -> dict[str, str]:
    """What each feature is, by the tables in the docstring of `tickcast.features.vector`."""
    found = {}
    for names, unit, meaning in _FEATURE_LINE.findall(vector.__doc__ or ""):
        first, *others = names.split(", ")
        for name in (first, *(_SUFFIX.sub(each, first) if each[0] == "_" else each for each in others)):
            found[name] = f"{meaning} ({unit})"
    return found


def move_column(time_s: float) -> str:
    """The column of the move up to that instant of a path: `move_0_5s_bp`, `move_10s_bp`."""
    return f"move_{f'{time_s:g}'.replace('.', '_')}s_bp"


MOVE_COLUMNS = tuple(map(move_column, PATH_S))


def _feature_row() -> type[Struct]:
    meanings = feature_meanings()
    fields: list[tuple[str, Any]] = [
        ("symbol", str),
        ("end_us", Annotated[int, Meta(description="when the features were known, µs since 1970")]),
    ]
    for name in FEATURE_NAMES:
        fields.append((name, Annotated[Float32, Meta(description=meanings[name])]))
    for name, time_s in zip(MOVE_COLUMNS, PATH_S, strict=True):
        meaning = f"label: the move of the mid from `end_us` to {time_s:g} s later, bp"
        fields.append((name, Annotated[Float32, Meta(description=meaning)]))
    last_trade = Meta(description="how far the last trade was from the mid, bp; null: unknown")
    fields.append(("last_trade_bp", Annotated[Single, last_trade]))
    made = defstruct("FeatureRow", fields, kw_only=True)
    made.__doc__ = (
        "What a model is trained on: features as of an instant, and the moves that followed. Every 100 ms "
        "with quotes (`has_quotes` is 1), else every second and from the proxy mid, as the deployment's "
        "`tables` configures it. Rows with an unknown feature or move are left out."
    )
    return made


FeatureRow = _feature_row()


# What columns mean whose types do not say so: by name, or where a name means several things by its type too.
MEANINGS = {
    "symbol": "of the spot market",
    "horizon_s": "seconds ahead",
    "trade_count": "how many trades",
    "quote_count": "how many quotes",
    "last_trade_id": "the newest trade in the features",
    "update_id": "the newest book update in the features",
    "quote_age_ms": "of the last quote, at `timestamp`",
    "basis_price": "the mid at `timestamp`, which the path starts from",
    "source": "model, or fallback and `reason` why",
    "reason": "why it is a fallback",
    "status": "resolved, or unresolved and `why`",
    "model_id": "which model answered",
    "path": "the model's output; null where no model answers",
    "expected_move_bp": "from the delivery to `target_time`",
    "scale_bp": "σ√h, the usual size of a move over the horizon",
    "half_width_bp": "of the 80 % interval around the expected move",
    "upper": "of the 80 % conformal interval",
    "confidence": "that the direction is right, given that the price moves",
    "p_flat": "probability that the mid does not move",
    "noise_bp": "below it an expected move is noise; null: all is",
    "abstains": "the move is within the noise, or no model answers",
    "inside": "whether the move lies in the interval",
    "right": "the direction; null if the mid did not move",
    "spread_bp": "ask less bid, of the mid",
    "inference_ms": "how long the model took",
    "timing_ms": "the parts of `latency_ms`",
    "challenger": "what the model in shadow forecast; null without one",
    "ChallengerForecast.model_id": "which model ran in shadow",
    "ChallengerForecast.horizons": "its forecast for every horizon, by s",
    "ChallengerForecast.calibrator": "its calibrators as used, by horizon",
    "ChallengerOutcome.model_id": "which model ran in shadow",
    "Path.move_bp": f"expected move since `timestamp`, after {', '.join(f'{t:g}' for t in PATH_S)} s",
    "Path.scale_bp": "the scale of the move, σ√t, at the same instants",
    "Path.p_flat": "probability that there is no move, at the same instants",
    "direction_slope": "confidence is sigmoid(slope · |move| / scale)",
    "interval_width": "half the width of the 80 % interval, in scales",
    "outcomes": "how many outcomes it has been corrected by",
    "mean_square": "of |move| / scale, which steps are normalised by",
    "Timing.features": "… the features were computed",
    "Timing.inference": "… the model had answered",
    "Timing.challenger": "0: it runs after the write",
}


class Table(NamedTuple):
    """A table of the export: its folder's name, and the type of a row."""

    name: str
    kind: type[Struct]


TRADES = Table("trades", Trade)
QUOTES = Table("quotes", Quote)
REFERENCE_QUOTES = Table("reference_quotes", ReferenceQuote)
BARS = Table("bars", Bar)
FEATURE_ROWS = Table("feature_rows", FeatureRow)
RECEIPTS = Table("receipts", Prediction)
OUTCOMES = Table("outcomes", Outcome)
TABLES = (TRADES, QUOTES, REFERENCE_QUOTES, BARS, FEATURE_ROWS, RECEIPTS, OUTCOMES)
