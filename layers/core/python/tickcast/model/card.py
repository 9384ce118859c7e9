"""A model's card: what it was trained on and how, how it serves, and what the gate decided.

It is stored as `models/<id>/card.json` under these names. A model serves by four fields alone, which
`serving_card` checks one by one; a card that is damaged elsewhere still serves.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeGuard

from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model import documents
from tickcast.model.documents import Document
from tickcast.model.forecast import HORIZONS_S, MAX_SLOPE, MAX_WIDTH, Calibration, ModelError
from tickcast.model.network import Network


class TrainingData(Document, frozen=True, kw_only=True):
    """The data that a model was trained on: files of bronze (`prefixes`), or rows in PostgreSQL."""

    omitted_if_none: ClassVar[frozenset[str]] = frozenset(
        [
            *("prefixes", "from_us", "to_us", "rows_held", "rows_used"),
            *("share_of_rows_with_quotes", "share_of_bars_with_quotes"),
        ]
    )
    prefixes: list[str] | None = None
    markets: list[str] = []  # `source/SYMBOL`
    from_us: int | None = None  # µs since 1970
    to_us: int | None = None
    rows_held: int | None = None  # in PostgreSQL, of which
    rows_used: int | None = None  # after thinning
    share_of_rows_with_quotes: float | None = None  # 0 to 1
    share_of_bars_with_quotes: float | None = None


class NetworkShape(Document, frozen=True, kw_only=True):
    """The features that each part of the network reads, and its hidden units."""

    inputs: dict[str, list[str]] = {}  # by part: odd, even, masked, flat
    hidden_units: int | None = None

    @classmethod
    def of(cls, network: Network) -> NetworkShape:
        inputs = {part: list(names) for part, names in asdict(network.inputs).items()}
        return cls(inputs=inputs, hidden_units=len(network.out))


class HorizonScore(Document, frozen=True, kw_only=True):
    """One horizon's figures on the test block: skill against no change, the share of moves whose direction
    was right, rows. None where a figure is not known."""

    skill: float | None = None
    direction: float | None = None
    rows: float | None = None


class FeatureBins(Document, frozen=True, kw_only=True):
    """The distribution of a feature over the rows trained on: the edges between its bins (B - 1,), and the
    share of rows in each (B,)."""

    edges: list[float]
    shares: list[float]


class GateSkill(Document, frozen=True, kw_only=True):
    """A skill with the ends of its 95 % interval."""

    skill: float
    ci: tuple[float, float]


class GateBlock(Document, frozen=True, kw_only=True):
    """The rows that the gate decided on. `seconds` of time, whatever the number of markets."""

    from_us: int | None = None  # µs since 1970; None where there were no rows
    to_us: int | None = None
    seconds: float = 0.0
    rows: int = 0
    symbols: list[str] = []


class ShadowScore(Document, frozen=True, kw_only=True):
    """The challenger's skill against the champion on live outcomes of both, or why these do not count."""

    omitted_if_none: ClassVar[frozenset[str]] = frozenset({"left_out", "seconds", "skill", "ci"})
    left_out: str | None = None
    seconds: float | None = None
    skill: float | None = None
    ci: tuple[float, float] | None = None


class GateRecord(Document, frozen=True, kw_only=True):
    """The gate's decision. `passed`: nothing spoke against the model; `promoted`: it was the best that
    passed."""

    judged_at: str | None = None  # ISO 8601
    champion: str | None = None  # the model it was compared with
    passed: bool = False
    promoted: bool = False
    provisional: bool = True
    reasons: list[str] = []  # codes
    sentence: str = ""  # the same for people
    block: GateBlock | None = None
    figures: dict[str, dict[str, GateSkill]] = {}  # by "all", horizon (s) or market, then by opponent
    bands: dict[str, dict[int, float]] = {}  # by market and horizon (s): the lowest hourly skill
    shadow: ShadowScore | None = None


class Card(Document, frozen=True, kw_only=True):
    """What is known of a model. Defaults are for cards that do not have a field."""

    omitted_if_none: ClassVar[frozenset[str]] = frozenset({"label_version", "gate", "problem"})
    model_id: str = ""
    trained_at: str | None = None  # ISO 8601
    provisional: bool = True  # not proven against all baselines on an hour of rows
    reason: str = ""  # of its training
    parent: str | None = None  # the model that was active when it was trained
    code: str | None = None  # a digest of the package
    label_version: int | None = None  # of the definition of the labels it was trained on
    data: TrainingData | None = None
    rows: int = 0
    rows_with_quotes: int = 0
    features: list[str] = []  # of the whole vector, in its order
    feature_hash: str | None = None
    horizons_s: list[int] = []
    network: NetworkShape | None = None
    epochs: int | None = None
    calibration: dict[int, Calibration] = {}  # by horizon, s
    masked_calibration: dict[int, Calibration] | None = None  # of rows without quotes
    support: dict[str, tuple[float, float]] = {}  # by input: lowest and highest value it may be asked on
    learned_to_us: int | None = None  # no label it was trained on reaches beyond; µs since 1970
    test: dict[int, HorizonScore] = {}  # by horizon, s
    line: dict[str, dict[int, float]] = {}  # by market and horizon (s): bp of move per unit of book imbalance
    distribution: dict[str, dict[str, FeatureBins]] = {}  # by market and input
    gate: GateRecord | None = None
    problem: str | None = None  # why there is nothing else: the stored card cannot be read


def card_from(document: Any) -> Card:
    """The card in JSON values. Raises `ModelError` naming the field that is of another type."""
    if not isinstance(document, dict):
        raise ModelError(f"the card is {str(document)[:40]!r}, it should be a JSON object")
    try:
        return documents.decode(Card, document)
    except ValueError as error:
        raise ModelError(f"the card of model {document.get('model_id')}: {error}") from None


@dataclass(frozen=True)
class ServingCard:
    """The fields of a card that its model serves by. `masked_calibrations` is for rows without quotes; None
    where the card has none."""

    provisional: bool
    calibrations: dict[int, Calibration]
    masked_calibrations: dict[int, Calibration] | None
    support: dict[str, tuple[float, float]]


def serving_card(document: Any) -> ServingCard:
    """What a card, as JSON values, serves by. Raises `ModelError` naming the field that is missing, of
    another type, not finite or beyond reason, and when the model was made for other features."""
    if not isinstance(document, dict):
        raise ModelError(f"the card is {str(document)[:40]!r}, it should be a JSON object")
    calibrations = calibrations_from(document)
    provisional = document.get("provisional")
    if not isinstance(provisional, bool):
        raise _unfit(document, "provisional", provisional, "true or false")
    return ServingCard(
        provisional=provisional,
        calibrations=calibrations,
        masked_calibrations=calibrations_from(document, "masked_calibration")
        if document.get("masked_calibration") is not None
        else None,
        support=_support(document),
    )


def calibrations_from(document: dict[str, Any], kind: str = "calibration") -> dict[int, Calibration]:
    """The calibrations of a `kind` on a model's card: `calibration`, or `masked_calibration` for rows without
    quotes. Raises `ModelError` when it was made for other features, lacks a horizon, or has no number that a
    forecast could be calibrated by."""
    if document.get("feature_hash") != FEATURE_HASH:
        raise ModelError(
            f"model {document.get('model_id')} was trained on features {document.get('feature_hash')}, "
            f"this code computes {FEATURE_HASH}"
        )
    found = document.get(kind, {})
    if not isinstance(found, dict):
        raise _unfit(document, kind, found, "an object by horizon")
    if missing := [h for h in HORIZONS_S if str(h) not in found]:
        raise ModelError(f"the card of model {document.get('model_id')} has no {kind} for horizons {missing}")
    return {h: _calibration(document, f"{kind}.{h}", found[str(h)]) for h in HORIZONS_S}


def _calibration(document: dict[str, Any], place: str, found: Any) -> Calibration:
    if not isinstance(found, dict):
        raise _unfit(document, place, found, "an object")
    slope, width = (found.get(name) for name in ("direction_slope", "interval_width"))
    if not _is_number(slope) or not 0 <= slope <= MAX_SLOPE:
        raise _unfit(document, f"{place}.direction_slope", slope, f"a number from 0 to {MAX_SLOPE:g}")
    if not _is_number(width) or not 0 < width <= MAX_WIDTH:
        raise _unfit(document, f"{place}.interval_width", width, f"a number above 0 and up to {MAX_WIDTH:g}")
    return Calibration(float(slope), float(width))


def _support(document: dict[str, Any]) -> dict[str, tuple[float, float]]:
    found = document.get("support", {})
    if not isinstance(found, dict):
        raise _unfit(document, "support", found, "an object by feature")
    if strangers := sorted(set(found) - set(FEATURE_NAMES)):
        raise ModelError(
            f"the support of model {document.get('model_id')} names {strangers}, which are no features"
        )
    for name, ends in found.items():
        if (
            not isinstance(ends, list | tuple)
            or len(ends) != 2
            or not all(_is_number(end) for end in ends)
            or ends[0] > ends[1]
        ):
            raise _unfit(document, f"support.{name}", ends, "the lowest and the highest value")
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unfit(document: dict[str, Any], place: str, value: Any, should: str) -> ModelError:
    return ModelError(
        f"{place} on the card of model {document.get('model_id')} is {str(value)[:40]}, it should be {should}"
    )
