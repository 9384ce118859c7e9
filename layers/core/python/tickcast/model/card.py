"""A model's card: what it was trained on and how, how it serves, and what the gate decided.

It is stored as `models/<id>/card.json` under these names. A model serves by the fields of `ServingCard`
alone: a card that is damaged elsewhere still serves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import FieldInfo, fields

from tickcast.features.vector import FEATURE_HASH, FEATURE_NAMES
from tickcast.model.forecast import HORIZONS_S, MAX_SLOPE, MAX_WIDTH, PATH_S, Calibration, ModelError
from tickcast.model.network import Network
from tickcast.model.reference import INPUTS, MAX_WEIGHT, ReferenceWeights


class TrainingData(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The data that a model was trained on: files of bronze (`prefixes`), or rows in PostgreSQL."""

    prefixes: list[str] | None = None
    markets: list[str] = []  # `source/SYMBOL`
    from_us: int | None = None  # µs since 1970
    to_us: int | None = None
    rows_held: int | None = None  # in PostgreSQL, of which
    rows_used: int | None = None  # after thinning
    share_of_rows_with_quotes: float | None = None  # 0 to 1
    share_of_bars_with_quotes: float | None = None


class NetworkShape(Struct, frozen=True, kw_only=True):
    """The features that each part of the network reads, and its hidden units."""

    inputs: dict[str, list[str]] = {}  # by part: odd, even, masked, flat
    hidden_units: int | None = None

    @classmethod
    def of(cls, network: Network) -> NetworkShape:
        inputs = {part: list(names) for part, names in asdict(network.inputs).items()}
        return cls(inputs=inputs, hidden_units=len(network.out))


class FittedRows(Struct, frozen=True, kw_only=True):
    """Rows of a market that the network was fitted on, drawn at random from those that it was trained on."""

    with_quotes: int = 0
    without_quotes: int = 0


class PerpetualGain(Struct, frozen=True, kw_only=True):
    """What the perpetual gains in a market on blocks that nothing was fitted on: by horizon (s), the share of
    the squared moves by which the squared error at delivery is less; and whether it is used."""

    gain: dict[int, float] = {}
    used: bool = False


class HorizonScore(Struct, frozen=True, kw_only=True):
    """One horizon's figures on the test block: skill against no change, the share of moves whose direction
    was right, rows. None where a figure is unknown."""

    skill: float | None = None
    direction: float | None = None
    rows: float | None = None


class FeatureBins(Struct, frozen=True, kw_only=True):
    """The distribution of a feature over the rows trained on: the edges between its bins (B - 1,), and the
    share of rows in each (B,)."""

    edges: list[float]
    shares: list[float]


class ScaledLine(Struct, frozen=True, kw_only=True):
    """The line through book imbalance: by horizon (s) the slope in units of σ√h·d(σ), with d as in the
    network, around `usual_sigma` (bp per √s)."""

    usual_sigma: float
    slopes: dict[int, float]


class GateSkill(Struct, frozen=True, kw_only=True):
    """A skill with the ends of its 95 % interval, and the probability of one as far from 0 if it were 0 (None
    on older cards)."""

    skill: float
    ci: tuple[float, float]
    p: float | None = None


class GateBlock(Struct, frozen=True, kw_only=True):
    """The rows that the gate decided on. `seconds` of time, whatever the number of markets."""

    from_us: int | None = None  # µs since 1970; None where there were no rows
    to_us: int | None = None
    seconds: float = 0.0
    rows: int = 0
    symbols: list[str] = []


class ShadowScore(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The challenger's skill against the champion on live outcomes of both, or why these do not count."""

    left_out: str | None = None
    seconds: float | None = None
    skill: float | None = None
    ci: tuple[float, float] | None = None


class GateRecord(Struct, frozen=True, kw_only=True):
    """The gate's decision. `passed`: nothing spoke against the model; `promoted`: it was the best that
    passed, and no hold kept the champion; `held`: it was, and one did."""

    judged_at: str | None = None  # ISO 8601
    champion: str | None = None  # the model it was compared with
    passed: bool = False
    promoted: bool = False
    held: bool = False
    provisional: bool = True
    reasons: list[str] = []  # codes
    sentence: str = ""  # the same for people
    block: GateBlock | None = None
    figures: dict[str, dict[str, GateSkill]] = {}  # by "all", horizon (s) or market, then by opponent
    bands: dict[str, dict[int, float]] = {}  # by market and horizon (s): the lowest hourly skill
    shadow: ShadowScore | None = None


class ImportedModel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a model that was trained elsewhere: what its author says (`model.imported`), and what
    the checks measured."""

    name: str = ""
    description: str = ""
    output: str = ""  # its form
    inputs: list[str] = []
    instants_s: list[float] = []
    symmetrised: bool = False  # by us
    symmetric: bool | None = None  # exchanging buying and selling flips the sign of its moves
    asymmetry: float | None = None  # 0 to 1
    run_ms: float | None = None  # of twenty rows
    calibrated_on: TrainingData | None = None


class ServingCard(Struct, frozen=True, kw_only=True):
    """The fields of a card that its model serves by."""

    provisional: bool  # not proven against all baselines on several days of rows
    calibration: dict[int, Calibration] = {}  # by horizon, s
    masked_calibration: dict[int, Calibration] | None = None  # of rows without quotes
    support: dict[str, tuple[float, float]] = {}  # by input: lowest and highest value to serve on
    reference: dict[str, ReferenceWeights] = {}  # by market: the correction by the perpetual
    row_by_row: bool = False  # its last bits depend on the rows it is run with: it is run on each alone


class Card(ServingCard, frozen=True, kw_only=True):
    """What is known of a model. Defaults are for cards that do not have a field."""

    model_id: str = ""
    trained_at: str | None = None  # ISO 8601
    provisional: bool = True
    reason: str = ""  # of its training
    parent: str | None = None  # the model that was active when it was trained
    code: str | None = None  # a digest of the package
    label_version: int | None = None  # of the definition of the labels it was trained on
    data: TrainingData | None = None
    rows: int = 0
    rows_with_quotes: int = 0
    fitted: dict[str, FittedRows] = {}  # by market
    features: list[str] = []  # of the whole vector, in its order
    feature_hash: str | None = None
    horizons_s: list[int] = []
    path_s: list[float] = []  # the instants of the path that it forecasts
    network: NetworkShape | None = None
    epochs: int | None = None
    refit_of: str | None = None  # the model that was evaluated, of which this is a fit on newer rows as well
    refit_agreement: float | None = None  # the correlation of both models' moves on the newest rows
    learned_to_us: int | None = None  # no label it was trained on reaches beyond; µs since 1970
    test: dict[int, HorizonScore] = {}  # by horizon, s
    reference_gain: dict[str, PerpetualGain] = {}  # by market with a reference
    ablation: dict[str, dict[int, GateSkill]] = {}  # by group of inputs and horizon (s): what they add
    regimes: dict[str, dict[str, dict[int, GateSkill]]] = {}  # by kind of regime, regime and horizon (s)
    line: dict[str, dict[int, float]] = {}  # by market and horizon (s): bp of move per unit of book imbalance
    scaled_line: dict[str, ScaledLine] = {}  # by market: the line that gate and drift compare with
    distribution: dict[str, dict[str, FeatureBins]] = {}  # by market and input
    imported: ImportedModel | None = None  # None: trained here
    gate: GateRecord | None = None
    proof: GateRecord | None = None  # the newest decision on it as the champion: whether it is proven
    problem: str | None = None  # why there is nothing else: the stored card cannot be read


C = TypeVar("C", bound=ServingCard)


def new_document(card: Card) -> dict[str, Any]:
    """A new card as JSON values. A stored card is changed as the document that it is, so that fields of later
    code are kept."""
    document: dict[str, Any] = msgspec.to_builtins(card, str_keys=True)
    return {name: value for name, value in document.items() if name not in ("gate", "proof", "problem")}


def card_from(document: Any) -> Card:
    """The card in JSON values. Fields of another type that no model serves by keep their defaults. Raises
    `ModelError` naming the field that is of another type and served by."""
    try:
        return _decode(document, Card)
    except ModelError:
        if not isinstance(document, dict):
            raise
    odd = [field.encode_name for field in fields(Card) if not _is_readable(document, field)]
    return _decode({name: value for name, value in document.items() if name not in odd}, Card)


def _is_readable(document: dict[str, Any], field: FieldInfo) -> bool:
    """Whether a field of a card has its type, is missing, or is one that no card is read without."""
    if field.encode_name not in document or field.encode_name in ServingCard.__struct_fields__:
        return True
    try:
        msgspec.convert(document[field.encode_name], field.type, str_keys=True)
    except msgspec.ValidationError:
        return False
    return True


def serving_card(document: Any) -> ServingCard:
    """What a card, as JSON values, serves by. Raises `ModelError` naming the field that is missing, of
    another type, not finite or out of range, and when the model reads other features than this code computes
    or forecasts other instants."""
    if isinstance(document, dict):
        model_id, features, path_s = (document.get(key) for key in ("model_id", "feature_hash", "path_s"))
        if features != FEATURE_HASH:
            raise ModelError(
                f"model {model_id} was trained on features {features}, this code computes {FEATURE_HASH}"
            )
        if path_s != list(PATH_S):
            raise ModelError(f"model {model_id} forecasts {_instants(path_s)}, this code {_instants(PATH_S)}")
    card = _decode(document, ServingCard)
    for problem in _problems(card):
        raise ModelError(f"the card of model {document.get('model_id')}: {problem}")
    return card


def _instants(path_s: Any) -> str:
    """A card's `path_s` as text; a model from before there were paths has none."""
    if path_s is None:
        return "no path"
    if not isinstance(path_s, list | tuple):
        return f"the path {str(path_s)[:40]!r}"
    return f"the instants {', '.join(map(str, path_s[: len(PATH_S) + 1]))} s"


def _decode(document: Any, kind: type[C]) -> C:
    if not isinstance(document, dict):
        raise ModelError(f"the card is {str(document)[:40]!r}, it should be a JSON object")
    try:
        return msgspec.convert(document, kind, str_keys=True)
    except msgspec.ValidationError as error:
        raise ModelError(f"the card of model {document.get('model_id')}: {error}") from None


def _problems(card: ServingCard) -> Iterator[str]:
    """What keeps a card whose fields are of the right types from serving."""
    yield from _problems_of_calibrations(card)
    for symbol, of_market in card.reference.items():
        yield from (f"reference.{symbol}{problem}" for problem in _problems_of_weights(of_market))
    if strangers := sorted(set(card.support) - set(FEATURE_NAMES)):
        yield f"its support names {strangers}, which are no features"
    for name, (low, high) in card.support.items():
        if not -math.inf < low <= high < math.inf:
            yield f"support.{name} is from {low} to {high}, it should be the lowest and the highest value"


def _problems_of_calibrations(card: ServingCard) -> Iterator[str]:
    kinds = {"calibration": card.calibration, "masked_calibration": card.masked_calibration}
    for kind, calibrations in kinds.items():
        if calibrations is None:
            continue
        if missing := [h for h in HORIZONS_S if h not in calibrations]:
            yield f"no {kind} for horizons {missing}"
        for h, calibration in calibrations.items():
            slope, width = calibration.direction_slope, calibration.interval_width
            if not 0 <= slope <= MAX_SLOPE:
                yield f"{kind}.{h}.direction_slope is {slope}, it should be from 0 to {MAX_SLOPE:g}"
            if not 0 < width <= MAX_WIDTH:
                yield f"{kind}.{h}.interval_width is {width}, it should be above 0 and up to {MAX_WIDTH:g}"


def _problems_of_weights(of_market: ReferenceWeights) -> Iterator[str]:
    shape = [len(row) for row in of_market.weights]
    if shape != [len(PATH_S)] * len(INPUTS):
        yield f" has rows of {shape} weights, it should have {len(INPUTS)} of {len(PATH_S)}"
    elif not all(abs(each) <= MAX_WEIGHT for row in of_market.weights for each in row):
        yield f" has a weight that is not from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}"
    if not 0 < of_market.usual_sigma_bp < math.inf:
        yield f".usual_sigma_bp is {of_market.usual_sigma_bp}, it should be above 0"
