"""Signals: which predictions, drifts and alarms are sent to whom, by the rules of a configuration.

A rule matches one kind of event and names one destination. What it matches becomes a `Signal`, at most one
of each rule and symbol within the rule's pause: windows of that length of the exchange's clock, so that every
process gives the same signal the same name, and whoever comes second finds it written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta, Struct

from tickcast.market.symbols import ascii_name, is_symbol, listed

if TYPE_CHECKING:  # every function's settings import this module, and few need numpy
    from tickcast.serving.records import HorizonPrediction, Prediction

When = Literal["worth_trading", "confidence", "fallback", "drift", "alarm"]
OF_PREDICTIONS: tuple[When, ...] = ("worth_trading", "confidence", "fallback")
# Those of `serving.prediction` that the stream gives; `stale_features` is found by who reads.
Reason = Literal["no_quotes", "warming_up", "no_model", "model_refused", "outside_support"]
Template = Literal["json", "slack", "telegram"]
SignalName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z][a-z0-9-]{0,31}$",
        description="a name of up to 32 lower-case letters, digits and hyphens, like worth-it",
    ),
]
PauseS = Annotated[int, Meta(ge=1, le=86_400)]
HorizonS = Literal[1, 2, 5, 10]  # tickcast.model.forecast.HORIZONS_S
AlarmName = Annotated[
    str, Meta(pattern=r"^[A-Za-z]{1,64}$", description="the name of an alarm, like NoPredictions")
]
# Of an environment variable: Lambda's limit of all of a function's together is 4 KB.
MOST_CHARACTERS = 2000

# Without `pause_s`. A drift lasts, and is signalled as often as it may start a training.
PAUSES_S: dict[When, int] = {"worth_trading": 60, "confidence": 60, "fallback": 900, "drift": 43_200}
LASTING_S = 3  # without `lasting_s`: shorter fallbacks come and go

# Which of a rule's keys are for which kind alone; the others are for all.
_ONLY_FOR: dict[str, tuple[When, ...]] = {
    "symbols": (*OF_PREDICTIONS, "drift"),
    "pause_s": (*OF_PREDICTIONS, "drift"),
    "horizon_s": ("worth_trading", "confidence"),
    "min_edge_bp": ("worth_trading",),
    "min_confidence": ("confidence",),
    "abstaining": ("worth_trading", "confidence"),
    "late": ("worth_trading", "confidence"),
    "reasons": ("fallback",),
    "lasting_s": ("fallback",),
    "alarms": ("alarm",),
}


class SignalRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is signalled to which destination.

    `when`: `worth_trading`, the expected move exceeds spread and fees (by `min_edge_bp`); `confidence`, that
    in the direction is at least `min_confidence`; both at `horizon_s` (default: the primary one), without
    forecasts that abstain unless `abstaining`. `fallback`: for `lasting_s` no model has answered, for one of
    `reasons`. `drift`: the active model drifts. `alarm`: one of `alarms` is raised or over, in an account.
    What is not named is not restricted.

    `pause_s`: at most one signal of a symbol in so many seconds; by default a minute, of a fallback 15, of a
    drift half a day. A signal that is sent after its horizon ended says so, or with `late: drop` is not sent.
    """

    name: SignalName
    when: When
    to: SignalName
    symbols: Annotated[
        tuple[str, ...] | None, Meta(description="null or a list of symbols, like [BTCUSDT]")
    ] = None
    horizon_s: HorizonS | None = None
    pause_s: PauseS | None = None
    min_edge_bp: Annotated[float, Meta(ge=0, le=1000)] | None = None
    min_confidence: Annotated[float, Meta(ge=0.5, lt=1)] | None = None
    abstaining: bool = False
    reasons: tuple[Reason, ...] | None = None
    lasting_s: Annotated[int, Meta(ge=0, le=3600)] | None = None
    alarms: tuple[AlarmName, ...] | None = None
    late: Literal["mark", "drop"] = "mark"

    def __post_init__(self) -> None:
        for key, kinds in _ONLY_FOR.items():
            default = {"abstaining": False, "late": "mark"}.get(key)
            if getattr(self, key) != default and self.when not in kinds:
                raise ValueError(
                    f"rule {self.name}: {key} is for rules of {' and '.join(kinds)}, and this one is of "
                    f"{self.when}; leave it out"
                )
        if self.when == "confidence" and self.min_confidence is None:
            raise ValueError(
                f"rule {self.name}: min_confidence is missing; it should be a number from 0.5 to below 1"
            )
        for symbol in self.symbols or ():
            if not is_symbol(symbol):
                raise ValueError(
                    f"rule {self.name}: {symbol[:50]!r} is not a symbol; it should be like BTCUSDT, "
                    "in upper case"
                )
        for key in ("symbols", "reasons", "alarms"):
            if getattr(self, key) == ():
                raise ValueError(f"rule {self.name}: {key} is an empty list, which matches nothing; "
                                 "name some, or leave it out for all")  # fmt: skip

    @property
    def pause_ms(self) -> int:
        return 1000 * (self.pause_s or PAUSES_S[self.when])

    def is_for(self, symbol: str) -> bool:
        return self.symbols is None or symbol in self.symbols


class SignalDestination(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A receiver by its name, and the form in which it gets signals. Where it is and its keys are secrets,
    kept apart under that name (docs/signals.md)."""

    name: SignalName
    template: Template = "json"


class Signals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is signalled (docs/signals.md). Without rules nothing is, and there is no resource for it."""

    destinations: tuple[SignalDestination, ...] = ()
    rules: tuple[SignalRule, ...] = ()

    def __post_init__(self) -> None:
        known = [each.name for each in self.destinations]
        for what, found in (("destinations", known), ("rules", [rule.name for rule in self.rules])):
            if twice := sorted({name for name in found if found.count(name) > 1}):
                raise ValueError(f"{what}: {listed(twice)} more than once; each needs a name of its own")
        for rule in self.rules:
            if rule.to not in known:
                there = f"one of {listed(known)}" if known else "there, and there are no destinations"
                raise ValueError(f"rule {rule.name}: it is sent to {rule.to!r}, which should be {there}")
        if unused := sorted(set(known) - {rule.to for rule in self.rules}):
            raise ValueError(f"destinations: no rule is sent to {listed(unused)}; leave it out or add a rule")

    def of(self, *kinds: When) -> tuple[SignalRule, ...]:
        """The rules of these kinds."""
        return tuple(rule for rule in self.rules if rule.when in kinds)

    def rule(self, name: str) -> SignalRule | None:
        return next((rule for rule in self.rules if rule.name == name), None)

    def destination(self, name: str) -> SignalDestination | None:
        return next((each for each in self.destinations if each.name == name), None)


class SignalledForecast(Struct, frozen=True, kw_only=True):
    """Of the prediction that matched, at the rule's horizon as it was delivered; null where no model
    answers. `target_time` is the instant predicted, ms."""

    id: str
    horizon_s: int
    target_time: int
    basis_price: float
    predicted_price: float
    lower: float | None = None
    upper: float | None = None
    expected_move_bp: float | None = None
    confidence: float | None = None
    cost_bp: float | None = None
    edge_bp: float | None = None
    abstains: bool = True
    reason: str | None = None
    model_id: str | None = None
    provisional: bool | None = None


class SignalledDrift(Struct, frozen=True, kw_only=True):
    """Why the active model counts as drifting."""

    model_id: str
    reasons: list[str]


class SignalledAlarm(Struct, frozen=True, kw_only=True):
    """An alarm that was raised (`state` is ALARM) or is over (OK), its meaning, and CloudWatch's reason."""

    alarm: str
    state: str
    meaning: str
    why: str


class Signal(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one rule has matched. `at_ms`: when, by the exchange's clock (an alarm's by AWS's)."""

    id: str
    rule: str
    when: When
    at_ms: int
    symbol: str | None = None
    forecast: SignalledForecast | None = None
    drift: SignalledDrift | None = None
    alarm: SignalledAlarm | None = None

    @property
    def expires_ms(self) -> int | None:
        """From when on there is nothing left to act on; None: it does not expire."""
        is_timely = self.forecast is not None and self.when != "fallback"
        return self.forecast.target_time if self.forecast and is_timely else None


@dataclass
class SignalMatcher:
    """The rules of predictions. It keeps since when each symbol's fallback lasts; a new process counts from
    its first prediction on."""

    rules: Sequence[SignalRule]
    _since_ms: dict[tuple[str, str], int] = field(default_factory=dict)

    def matches(self, prediction: Prediction) -> Iterator[tuple[SignalRule, Signal]]:
        """What `prediction`, as delivered, matches."""
        for rule in self.rules:
            if not rule.is_for(prediction.symbol):
                continue
            if rule.when == "fallback":
                if self._has_lasted(rule, prediction):
                    yield rule, _signal(rule, prediction, None)
                continue
            answer = prediction.horizons.get(rule.horizon_s or prediction.horizon_s)
            if answer and (rule.abstaining or not answer.abstains) and _is_match(rule, answer):
                yield rule, _signal(rule, prediction, answer)

    def _has_lasted(self, rule: SignalRule, prediction: Prediction) -> bool:
        which = rule.name, prediction.symbol
        reason = prediction.reason
        if prediction.source != "fallback" or (rule.reasons is not None and reason not in rule.reasons):
            self._since_ms.pop(which, None)
            return False
        since_ms = self._since_ms.setdefault(which, prediction.timestamp)
        return prediction.timestamp - since_ms >= 1000 * (
            LASTING_S if rule.lasting_s is None else rule.lasting_s
        )


def drift_signal(rule: SignalRule, symbol: str, at_ms: int, drift: SignalledDrift) -> Signal:
    return Signal(
        id=_id(rule, symbol, at_ms), rule=rule.name, when=rule.when, at_ms=at_ms, symbol=symbol, drift=drift
    )


def object_key(signal: Signal) -> str:
    """The key in the lake, by rule, symbol and window of the pause: a second signal of it finds the first."""
    return f"{PREFIX}{signal.rule}/{signal.symbol}/{signal.id.rpartition('-')[2]}.json"


PREFIX = "signals/"  # in the lake


def _is_match(rule: SignalRule, answer: HorizonPrediction) -> bool:
    if rule.when == "confidence":
        return rule.min_confidence is not None and answer.confidence >= rule.min_confidence
    edge_bp = answer.edge_bp
    return bool(answer.worth_trading) and edge_bp is not None and edge_bp >= (rule.min_edge_bp or 0)


def _signal(rule: SignalRule, prediction: Prediction, answer: HorizonPrediction | None) -> Signal:
    horizon_s = answer.horizon_s if answer else prediction.horizon_s
    delivered_ms = prediction.target_time - 1000 * prediction.horizon_s
    shown = answer or prediction
    return Signal(
        id=_id(rule, prediction.symbol, prediction.timestamp),
        rule=rule.name,
        when=rule.when,
        at_ms=prediction.timestamp,
        symbol=prediction.symbol,
        forecast=SignalledForecast(
            id=prediction.id,
            horizon_s=horizon_s,
            target_time=delivered_ms + 1000 * horizon_s,
            basis_price=prediction.basis_price,
            predicted_price=shown.predicted_price,
            lower=shown.lower,
            upper=shown.upper,
            expected_move_bp=shown.expected_move_bp,
            confidence=shown.confidence if answer else None,
            cost_bp=prediction.cost_bp,
            edge_bp=shown.edge_bp,
            abstains=shown.abstains,
            reason=prediction.reason,
            model_id=prediction.model_id,
            provisional=prediction.provisional,
        ),
    )


def _id(rule: SignalRule, symbol: str, at_ms: int) -> str:
    """ASCII, for it becomes a header: `{rule}-{symbol}-{start of the window, ms}`."""
    return f"{rule.name}-{ascii_name(symbol)}-{at_ms // rule.pause_ms * rule.pause_ms}"
