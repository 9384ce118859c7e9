"""The answers of the API as types. A class has the name that the API's OpenAPI document gives it.

Units: `timestamp`, `target_time`, `as_of` and other instants in milliseconds since 1970 (UTC, the exchange's
clock), `…_us` in microseconds, `…_s` in seconds; prices in quote currency; moves and costs in basis points
(`…_bp`) of the basis price. None is what is not known. Members that a newer API adds are kept, as attributes
without a type.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Source = Literal["model", "fallback"]
Interval = tuple[float, float]


class Answer(BaseModel):
    """The base of all answers: immutable, and open to members that a newer API adds."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        populate_by_name=True,
        protected_namespaces=(),
        use_attribute_docstrings=True,
    )


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int | None = None
    detail: str
    parameter: str | None = None
    """the parameter that is wrong"""
    request_id: str | None = None
    """of the gateway's own problems"""


class Ages(Answer):
    """How old an answer's input is at the moment of reading, in ms."""

    tick: int | None
    """since the newest trade or quote; None: not known"""
    claim: int
    """since `timestamp`, up to which the market was known"""


class HorizonForecast(Answer):
    """A forecast over one horizon."""

    horizon_s: int
    predicted_price: float
    expected_move_bp: float
    scale_bp: float
    confidence: float
    p_flat: float
    lower: float
    upper: float


class HorizonPrediction(HorizonForecast):
    """The same, and what it means for a trader."""

    noise_bp: float | None = None
    """below this, an expected move is noise; None if all is"""
    edge_bp: float | None = None
    """|expected move| less the cost of a round trip; None without quotes"""
    worth_trading: bool | None = None
    """the expected move exceeds spread and fees; None without quotes"""
    abstains: bool = True
    """the expected move is within the noise, or no model answers"""


class HorizonAnswer(HorizonPrediction):
    """The answer for one horizon, from the moment of reading on."""

    target_time: int
    p_up: float
    p_down: float


class ChallengerSummary(Answer):
    """What the challenger forecast in shadow on the same features."""

    model_id: str
    horizons: dict[int, HorizonForecast]


class Timing(Answer):
    """The parts of `latency_ms`, in ms, each from one point in time to the next, from `timestamp` on. The
    first three compare clocks, and may be negative."""

    lateness: float
    to_kinesis: float
    to_function: float
    fold: float
    features: float
    inference: float
    challenger: float
    write: float


class ChallengerOutcome(Answer):
    """What the challenger had forecast over the horizon, and whether it was right."""

    model_id: str | None
    expected_move_bp: float
    scale_bp: float
    half_width_bp: float | None = None
    confidence: float
    p_flat: float
    inside: bool | None = None
    right: bool | None = None


class Outcome(Answer):
    """What came of a prediction over one horizon, from its delivery on."""

    id: str
    symbol: str
    timestamp: int
    basis_price: float
    imbalance: float | None
    source: Source
    reason: str | None
    model_id: str | None
    latency_ms: int | None
    spread_bp: float | None = None
    fee_bp: float | None = None
    horizon_s: int
    target_time: int
    status: Literal["resolved", "unresolved"]
    why: str | None
    """why it is unresolved"""
    delivered_price: float | None = None
    """the mid at the delivery"""
    outcome_price: float | None
    """the mid at target_time"""
    move_bp: float | None
    """of the mid from the delivery to target_time"""
    expected_move_bp: float | None
    scale_bp: float | None
    half_width_bp: float | None = None
    confidence: float | None
    p_flat: float | None
    abstains: bool
    worth_trading: bool | None = None
    spread_paid_bp: float | None = None
    inside: bool | None
    """whether the move lies in the interval"""
    right: bool | None
    """whether the direction was right; None if the mid did not move"""
    hindsight_move_bp: float | None = None
    hindsight_expected_bp: float | None = None
    challenger: ChallengerOutcome | None


class PredictionSummary(Answer):
    """A prediction as in lists: as it was delivered, `latency_ms` after `timestamp`."""

    late_ids: list[int] = []
    late_update_ids: list[int] = []
    late_reference_ids: list[int] = []
    history_from_us: int | None = None
    id: str
    symbol: str
    timestamp: int
    horizon_s: int
    target_time: int
    """the instant predicted, horizon_s after the delivery, ms"""
    basis_price: float
    predicted_price: float
    expected_move_bp: float | None = None
    """from the delivery to target_time"""
    scale_bp: float | None = None
    confidence: float
    p_flat: float | None = None
    lower: float | None = None
    upper: float | None = None
    noise_bp: float | None = None
    edge_bp: float | None = None
    worth_trading: bool | None = None
    abstains: bool = True
    spread_bp: float | None = None
    fee_bp: float | None = None
    cost_bp: float | None = None
    source: Source
    reason: str | None = None
    outside: list[str] = []
    model_id: str | None = None
    provisional: bool | None = None
    horizons: dict[int, HorizonPrediction] = {}
    challenger: ChallengerSummary | None = None
    feature_hash: str | None = None
    last_trade_id: int | None = None
    update_id: int | None = None
    trade_age_ms: int | None = None
    quote_age_ms: int | None = None
    feature_age_ms: int | None = None
    latency_ms: int | None = None
    inference_ms: float | None = None
    timing_ms: Timing | None = None
    """the parts of `latency_ms`"""


class OutcomeSummary(Answer):
    """An outcome as in lists."""

    status: Literal["resolved", "unresolved"]
    why: str | None
    """why it is unresolved"""
    move_bp: float | None
    """of the mid from the delivery to the target"""
    outcome_price: float | None
    """the mid at the target"""
    delivered_price: float | None = None
    """the mid at the delivery"""
    inside: bool | None
    """whether the move lies in the interval"""
    right: bool | None
    """whether the direction was right; None if the mid did not move"""


class ListedPrediction(PredictionSummary):
    """The same with its outcomes, if they were asked for."""

    outcomes: dict[int, OutcomeSummary] = {}
    """by horizon, as far as they are known"""


class Latest(Answer):
    """The newest prediction for the moment of reading: what is still to come over `horizon_s` from `as_of`
    on. All horizons are in `horizons`, which is empty where no model answers."""

    symbol: str
    timestamp: int
    """as of this instant of the exchange's clock, ms"""
    predicted_price: float
    """the mid at target_time"""
    confidence: float
    """that the direction is right, given that the price moves; 0 without a forecast"""
    latency_ms: int | None
    """from `timestamp` to the prediction written"""
    id: str
    """of its receipt"""
    as_of: int
    """the moment of reading, on the exchange's clock, ms"""
    horizon_s: int
    target_time: int
    """the instant predicted, ms: as_of + 1000 horizon_s"""
    basis_price: float
    """the mid at `timestamp`, which the path starts from"""
    expected_move_bp: float | None
    """still to come, from as_of to target_time"""
    p_up: float | None
    """that the mid rises from as_of to target_time"""
    p_down: float | None
    p_flat: float | None
    """that it does neither; the three sum to 1"""
    lower: float | None
    """of the 80 % interval at target_time"""
    upper: float | None
    age_ms: Ages
    quiet: bool
    """the newest tick is older than 5 s because the exchange has no newer one"""
    worth_trading: bool | None
    """the expected move exceeds spread and fees; None without quotes or forecast"""
    abstains: bool
    """the move is within the noise, or it is a fallback: do nothing"""
    noise_bp: float | None
    edge_bp: float | None
    """|expected move| less cost_bp"""
    scale_bp: float | None
    """the usual move over this horizon"""
    spread_bp: float | None
    fee_bp: float | None
    cost_bp: float | None
    """of a round trip: the spread and two fees"""
    source: Source
    reason: str | None
    """why it is a fallback"""
    outside: list[str]
    """features beyond what the model was trained on"""
    model_id: str | None
    provisional: bool | None
    """not proven better than the baselines yet"""
    horizons: dict[int, HorizonAnswer]
    feature_hash: str | None
    last_trade_id: int | None
    update_id: int | None
    trade_age_ms: int | None
    quote_age_ms: int | None
    inference_ms: float | None
    environment: str
    history: list[ListedPrediction] = []
    """the first of each second as delivered, newest first, if asked for"""

    @property
    def direction(self) -> Literal["up", "down"] | None:
        """Where the price is expected to move; None without a forecast, or if it expects no move."""
        if not self.expected_move_bp:
            return None
        return "up" if self.expected_move_bp > 0 else "down"


class Several(Answer):
    """The newest predictions of several symbols, read at one moment. Each symbol is in one of the two."""

    as_of: int
    predictions: dict[str, Latest]
    problems: dict[str, Problem]
    """why there is none, by symbol"""


class Path(NamedTuple):
    """The model's output at 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.2, 1.5, 2, 2.2, 3, 5, 5.2, 7.5, 10, 10.2 and 15
    s."""

    move_bp: list[float]
    scale_bp: list[float]
    p_flat: list[float]


class Calibrator(Answer):
    """The calibration that a forecast was made with."""

    direction_slope: float
    interval_width: float
    outcomes: int
    mean_square: float


class ChallengerForecast(ChallengerSummary):
    """The challenger's forecast with its path and calibrators, which older receipts lack."""

    path: Path | None = None
    calibrator: dict[int, Calibrator] = {}


class Receipt(PredictionSummary):
    """A prediction with all that it was made from, and its outcomes."""

    path: Path | None = None
    closed_us: int | None = None
    open_ids: list[int] = []
    open_update_ids: list[int] = []
    open_reference_ids: list[int] = []
    challenger: ChallengerForecast | None = None
    calibrator: dict[int, Calibrator] = {}
    features: dict[str, float] | None = None
    sequence: str | None = None
    environment: str
    outcomes: dict[int, Outcome]
    """by horizon, as far as they are known"""


class History(Answer):
    """A page of predictions, newest first."""

    symbol: str
    horizon_s: int
    from_: int = Field(alias="from")
    to: int
    count: int
    next: str | None
    """address of the next page, relative to this one's; None on the last page"""
    predictions: list[ListedPrediction]


class Skill(Answer):
    """1 - squared error / the baseline's, with its 95 % interval where there is enough data."""

    value: float
    low: float | None
    high: float | None


class Figures(Answer):
    """Of a set of the model's predictions with a known outcome."""

    count: int
    moved: int
    """of those, where the mid moved"""
    direction: float | None
    """share with the sign right, where the mid moved"""
    skill: Skill | None
    """against no change"""


class RegimeFigures(Figures):
    """The figures of a regime of the market, by minutes."""

    from_bp: float | None = None
    to_bp: float | None = None


class CalibrationBin(Answer):
    """The forecasts of similar confidence where the mid moved."""

    confidence: float
    """the mean of them"""
    right: float
    """the share of them that had the direction right"""
    count: int


class SkillAtAge(Answer):
    """How good what is left of a forecast is at an age."""

    age_s: int
    """seconds after the delivery"""
    count: int
    skill: Skill | None
    """of the move left until the target, against no change"""


class HorizonAccuracy(Figures):
    """The figures of one horizon."""

    horizon_s: int
    direction_ci: Interval | None
    coverage: float | None
    """share of outcomes inside the 80 % interval"""
    coverage_ci: Interval | None
    skill_vs_linear: Skill | None
    skill_in_hindsight: Skill | None
    crps_bp: float | None
    crps_skill: Skill | None
    interval_score_bp: float | None
    interval_score_skill: Skill | None
    calibration_error: float | None
    """mean distance of confidence from the share that was right"""
    calibration_floor: float | None
    """its value expected by chance"""
    bins: list[CalibrationBin] = []
    """of ten bins of confidence, those that are not empty"""
    by_age: list[SkillAtAge] = []
    """at the delivery and at the shorter horizons, as far as outcomes are known"""
    abstained: int
    decided: Figures
    """the same without those"""
    fallbacks: int
    fallback_share: float | None
    unresolved: dict[str, int]
    """not in `count`, by why"""
    regimes: dict[str, dict[str, RegimeFigures]] = {}
    """by `volatility`, `spread` and `hour` (UTC), then by regime; empty of an hour"""


class Earnings(Answer):
    """What acting on the forecasts would have earned, in bp: means of a trade."""

    threshold_bp: float | None
    """trades are the forecasts of such a move at least; None: those worth trading"""
    trades: int
    gross_bp: float | None
    spread_bp: float | None
    fees_bp: float | None
    net_bp: float | None
    net_ci: Interval | None
    break_even_fee_bp: float | None
    shuffled_p: float | None


class AccuracyStep(Answer):
    """The figures of a step of a series."""

    from_: int = Field(alias="from")
    to: int
    count: int
    skill: Skill | None
    coverage: float | None


class ChallengerFigures(Answer):
    """Of the outcomes over one horizon that both models had forecast."""

    count: int
    skill: Skill | None
    """the challenger's, against no change"""
    skill_vs_champion: Skill | None
    """above 0: its squared error is less than the champion's"""


class ChallengerAccuracy(Answer):
    """The accuracy of the model in shadow, by horizon."""

    model_id: str
    horizons: dict[int, ChallengerFigures]


class SpanAccuracy(Answer):
    """The figures of a span of time, by horizon."""

    from_: int = Field(alias="from")
    to: int
    first: int | None
    availability: float | None
    """share of the seconds since `first` that a model answered"""
    horizons: dict[int, HorizonAccuracy]
    earnings: dict[int, list[Earnings]] = {}
    series: dict[int, list[AccuracyStep]] = {}
    """by horizon, oldest first: of 5 min in the hour, 1 h in the day, 1 day in the week"""
    challenger: ChallengerAccuracy | None = None
    """the model in shadow; None without one"""


class AccuracySummary(Answer):
    """How good the predictions of a symbol were, as scored at `scored_ms`."""

    symbol: str
    scored_ms: int
    hour: SpanAccuracy
    day: SpanAccuracy
    week: SpanAccuracy


class Accuracy(Answer):
    """The figures of the last hour, or of the span asked for; those of hour, day and week in `summary`."""

    symbol: str
    environment: str
    from_: int = Field(alias="from")
    to: int
    horizons: dict[int, HorizonAccuracy]
    scored_age_s: float | None
    """how long ago it was scored; None if never"""
    summary: AccuracySummary | None
    first: int | None = None
    """of a span asked for: since when there are outcomes of it"""
    availability: float | None = None
    note: str | None = None
    """of a span asked for: how it was rounded, why it is empty, what it has not"""


class HoursOfDay(Answer):
    """The hours of a day, in numbers."""

    expected: int
    derived: int
    waiting: int
    without: list[int]
    """those without any data"""


class TradesOfDay(Answer):
    """The trades of a day."""

    condition: str
    rows: int
    missing: int
    repaired: int
    withheld: int


class QuoteGap(Answer):
    """A span without quotes."""

    from_us: int
    to_us: int
    cause: str


class QuotesOfDay(Answer):
    """The quotes of a day."""

    condition: str
    rows: int
    coverage: float | None
    """share of the seconds whose end has a known book"""
    gaps: list[QuoteGap]


class DayGap(Answer):
    """Trades that are, or were, missing."""

    first_id: int
    last_id: int
    from_us: int
    to_us: int
    cause: str
    trades: int
    status: str


class DayCondition(Answer):
    """The condition of a day's data: `available`, `repaired`, `degraded` or `missing`."""

    day: str
    reported_ms: int
    condition: str
    why: list[str]
    over: bool
    sources: list[str]
    hours: HoursOfDay
    trades: TradesOfDay
    quotes: QuotesOfDay
    gaps: list[DayGap]
    gaps_left_out: int
    quarantined: int


class Data(Answer):
    """The condition of the data of a symbol by day, newest first."""

    symbol: str
    environment: str
    reported: int
    days: list[DayCondition]
    total: int
    """the number of days in all"""


class ModelCard(Answer):
    """A model's card; all that is on it is here, as attributes without a type."""

    model_id: str
    problem: str | None = None
    """why it cannot serve"""


class Models(Answer):
    """The active model and the newest cards."""

    current: dict[str, Any] | None
    models: list[ModelCard]
    total: int
    """the number of cards in all"""


class Service(Answer):
    """The health of one part of the system."""

    ok: bool | None
    """None if it has never been seen"""
    why: str | None
    """what is wrong"""
    age_s: float | None = None
    source: str | None = None
    """of a feed: sbe or json; sim and replay are no live market"""
    missing_trades: int | None = None
    quote_gaps: int | None = None
    predicted: bool | None = None
    """of a symbol; False: no tick so far, and nothing to answer"""
    reference_age_s: float | None = None
    note: str | None = None
    gaps: list[dict[str, Any]] = []
    model_id: str | None = None
    provisional: bool | None = None
    reason: str | None = None
    """why the newest prediction is a fallback"""
    offset_ms: float | None = None
    own_offset_ms: float | None = None


class HealthReport(Answer):
    """The health of all parts of the system, each with its reason."""

    status: Literal["ok", "degraded"]
    environment: str
    services: dict[str, Service]
