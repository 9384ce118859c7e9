"""Answers in words, for people and for assistants."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import singledispatch

from tickcast_client.models import (
    Accuracy,
    Answer,
    ChallengerAccuracy,
    HealthReport,
    HorizonAccuracy,
    Latest,
    Outcome,
    OutcomeSummary,
    PredictionSummary,
    Receipt,
    Several,
    Skill,
)

# Why there is no forecast of a model.
REASONS = {
    "no_quotes": "no quotes arrive",
    "warming_up": "there is too little history for features yet",
    "no_model": "there is no active model",
    "model_refused": "the active model cannot serve",
    "outside_support": "the market is outside the range that the model was trained on",
    "stale_features": "the market's data is more than 5 s old",
}
UNRESOLVED = {
    "gap": "the stream did not close the bar of its delivery or target",
    "no_quotes": "there was no mid at its delivery or target",
    "stale": "it was delivered more than 5 s late",
}


@singledispatch
def in_words(answer: Answer) -> str:
    """An answer in words: a `Latest`, `Several`, `Receipt`, `Accuracy` or `HealthReport`, or a prediction of
    a history. Raises TypeError for any other."""
    raise TypeError(f"no words for {type(answer).__name__}")


@in_words.register
def _latest(answer: Latest) -> str:
    until = f"in {answer.horizon_s} s (at {moment(answer.target_time)})"
    if (
        answer.expected_move_bp is None
        or answer.p_up is None
        or answer.p_down is None
        or answer.p_flat is None
    ):
        return (
            f"{answer.symbol}: no forecast, because {_why(answer.reason)}. The last known price is "
            f"{price(answer.basis_price)}. Do nothing."
        )
    sentences = [
        f"{answer.symbol} is expected at {price(answer.predicted_price)} {until}: "
        f"{move(answer.expected_move_bp)} still to come{_between(answer.lower, answer.upper)}.",
        f"Chances: up {share(answer.p_up)}, down {share(answer.p_down)}, unchanged {share(answer.p_flat)}.",
        _advice(answer.abstains, answer.worth_trading, answer.cost_bp, answer.reason),
        f"The market is known up to {answer.age_ms.claim} ms before the reading.",
    ]
    if answer.provisional:
        sentences.append("The model is provisional: it has not been proven better than the baselines.")
    return " ".join(sentences)


@in_words.register
def _several(answer: Several) -> str:
    lines = [_latest(each) for each in answer.predictions.values()]
    lines += [f"{symbol}: no prediction, because {each.detail}." for symbol, each in answer.problems.items()]
    return "\n".join(lines) or "No symbol is served."


@in_words.register
def _delivered(answer: PredictionSummary) -> str:
    if answer.expected_move_bp is None:
        return f"{answer.id}: no forecast, because {_why(answer.reason)}."
    advice = _advice(answer.abstains, answer.worth_trading, answer.cost_bp, answer.reason)
    return (
        f"{answer.id} ({moment(answer.timestamp)}): {price(answer.predicted_price)} expected at "
        f"{moment(answer.target_time)}, {move(answer.expected_move_bp)} from its delivery on"
        f"{_between(answer.lower, answer.upper)}, direction right with probability "
        f"{share(answer.confidence)} if the price moves. {advice}"
    )


@in_words.register
def _receipt(answer: Receipt) -> str:
    return "\n".join(_of_receipt(answer))


def _of_receipt(answer: Receipt) -> Iterator[str]:
    yield _delivered(answer)
    ages = [("trade", answer.trade_age_ms), ("quote", answer.quote_age_ms)]
    known = ", ".join(f"the last {name} {age} ms" for name, age in ages if age is not None)
    yield (
        f"Made from trades up to id {answer.last_trade_id} and book updates up to id {answer.update_id}"
        + (f"; at {moment(answer.timestamp)} {known} old." if known else ".")
    )
    trial = " (provisional)" if answer.provisional else ""
    yield f"Model: {answer.model_id}{trial}." if answer.model_id else "Model: none."
    if answer.challenger:
        yield f"In its shadow, without being answered from: {answer.challenger.model_id}."
    if answer.outside:
        yield f"Features outside the range of training: {', '.join(answer.outside)}."
    if answer.latency_ms is not None:
        parts = answer.timing_ms.model_dump() if answer.timing_ms else {}
        spent = ", ".join(f"{name} {ms:.1f}" for name, ms in parts.items() if ms)
        yield f"Delivered {answer.latency_ms} ms after that" + (f" ({spent} ms)." if spent else ".")
    for horizon_s, outcome in sorted(answer.outcomes.items()):
        yield f"Outcome over {horizon_s} s: {outcome_in_words(outcome)}"
    if not answer.outcomes:
        yield "Outcomes: none known. Only the first prediction of each second gets any, some seconds later."


def outcome_in_words(outcome: Outcome | OutcomeSummary) -> str:
    """What came of a prediction, as a sentence."""
    if outcome.move_bp is None:
        return f"unknown, because {UNRESOLVED.get(outcome.why or '', outcome.why or 'it was not recorded')}."
    expected = outcome.expected_move_bp if isinstance(outcome, Outcome) else None
    said = "" if expected is None else f" of {move(expected)} expected"
    interval = "" if outcome.inside is None else f", {'inside' if outcome.inside else 'outside'} the interval"
    right = "" if outcome.right is None else f", direction {'right' if outcome.right else 'wrong'}"
    return f"the mid moved {move(outcome.move_bp)}{said}{interval}{right}."


@in_words.register
def _accuracy(answer: Accuracy) -> str:
    if answer.summary is None:
        return f"{answer.symbol} has not been scored yet."
    spans = {"hour": answer.summary.hour, "day": answer.summary.day, "week": answer.summary.week}
    lines = [f"Accuracy of {answer.symbol}, as scored at {moment(answer.summary.scored_ms)}:"]
    for name, each in spans.items():
        known = [figures for figures in each.horizons.values() if figures.count]
        lines += [f"last {name}, {figures.horizon_s} s ahead: {_figures(figures)}" for figures in known]
        if not known:
            lines.append(f"last {name}: no outcome is known.")
        lines += [f"last {name}, {text}" for text in _of_challenger(each.challenger)]
    return "\n".join(lines)


def _of_challenger(challenger: ChallengerAccuracy | None) -> Iterator[str]:
    if challenger is None:
        return
    for horizon_s, figures in sorted(challenger.horizons.items()):
        if figures.skill_vs_champion:
            compared = _skill(figures.skill_vs_champion, "the active model")
            yield (
                f"{horizon_s} s ahead, model {challenger.model_id} in shadow: {figures.count} outcomes of "
                f"both, its skill against the active model {compared}."
            )


def _figures(figures: HorizonAccuracy) -> str:
    found = [f"{figures.count} outcomes", f"skill {_skill(figures.skill)}"]
    if figures.direction is not None:
        found.append(f"direction right in {share(figures.direction)} of {figures.moved} that moved")
    if figures.coverage is not None:
        found.append(f"{share(figures.coverage)} inside the 80 % interval")
    if figures.fallbacks:
        found.append(f"{figures.fallbacks} answers were fallbacks")
    return ", ".join(found) + "."


def _skill(skill: Skill | None, baseline: str = "no change") -> str:
    """0 is no better than the baseline, 1 is perfect."""
    if skill is None:
        return "unknown"
    if skill.low is None or skill.high is None:
        return f"{skill.value:.3f} (too little data for an interval)"
    compared = "inconclusive"
    if skill.low > 0:
        compared = f"better than {baseline}"
    elif skill.high < 0:
        compared = f"worse than {baseline}"
    return f"{skill.value:.3f} ({skill.low:.3f} to {skill.high:.3f}: {compared})"


@in_words.register
def _health(answer: HealthReport) -> str:
    wrong = {name: each for name, each in answer.services.items() if each.ok is False}
    unseen = [name for name, each in answer.services.items() if each.ok is None]
    if not wrong:
        lines = ["All parts are healthy." if not unseen else "No part has failed."]
    else:
        lines = ["Something is wrong:"]
        lines += [f"{name}: {each.why or 'failed'}" for name, each in wrong.items()]
    if unseen:
        lines.append(f"Not seen so far: {', '.join(unseen)}.")
    feeds = {each.source for each in answer.services.values() if each.source in ("sim", "replay")}
    lines += [
        f"This is not a live market: it is {'simulated' if feed == 'sim' else 'a replay'}."
        for feed in sorted(feeds)
    ]
    notes = {name: each.note for name, each in answer.services.items() if each.note}
    return "\n".join([*lines, *(f"{name}: {note}" for name, note in notes.items())])


def moment(ms: int) -> str:
    """An instant (ms since 1970) in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "milliseconds").replace("+00:00", " UTC")


def price(value: float) -> str:
    """To six digits, but no less than hundredths: a basis point of any price is seen."""
    decimals = 5 - math.floor(math.log10(abs(value) or 1))
    whole, _, part = f"{value:,.{min(12, max(2, decimals))}f}".partition(".")
    return f"{whole}.{part.rstrip('0'):0<2}"


def move(bp: float) -> str:
    return f"{bp:+.3g} bp"


def share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _between(lower: float | None, upper: float | None) -> str:
    return "" if lower is None or upper is None else f", between {price(lower)} and {price(upper)}"


def _why(reason: str | None) -> str:
    return REASONS.get(reason or "", reason or "no model answers")


def _advice(abstains: bool, worth_trading: bool | None, cost_bp: float | None, reason: str | None) -> str:
    if reason is not None:
        return f"It is a fallback, because {_why(reason)}: do nothing."
    if abstains:
        return "The move is within the noise: do nothing."
    if worth_trading is None and cost_bp is None:
        return "Whether the move is more than the cost is not known."
    cost = "" if cost_bp is None else f" of {cost_bp:.3g} bp for spread and fees"
    if worth_trading:
        return f"The move is more than the cost{cost}."
    return f"The move is less than the cost{cost}: not worth trading."
