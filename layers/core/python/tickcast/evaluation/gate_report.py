"""The gate's decision in a sentence, for cards, logs and commands."""

from __future__ import annotations

from tickcast.evaluation.baselines import LAST_TRADE, LINE, MICROPRICE, NO_CHANGE
from tickcast.evaluation.gate import ALL, CHAMPION, IN, LEAST_S, LONG_S, GateDecision

WORDS = {
    CHAMPION: "the champion",
    NO_CHANGE: "no change",
    LAST_TRADE: "the last trade",
    MICROPRICE: "the microprice",
    LINE: "the line through book imbalance",
}
# How a code relates the challenger to an opponent.
_RELATIONS = {
    "not_above": "does not beat",
    "not_clearly_above": "does not clearly beat",
    "below": "is worse than",
    "clearly_below": "is clearly worse than",
}


def sentence(decision: GateDecision) -> str:
    """What was decided, and why."""
    if not decision.promoted:
        return f"Champion kept: {'; '.join(_objection(code, decision) for code in decision.reasons)}."
    together = decision.figures[ALL]
    beaten = [
        f"{words} by {together[name].skill:.3f}"
        for name, words in WORDS.items()
        if name in together and together[name].skill > 0
    ]
    line = together[LINE].skill if LINE in together else 0.0
    beaten += [f"but {WORDS[LINE]} is better by {-line:.3f}"] if line < 0 else []
    caveat = "; provisional: less than an hour, or a simulated market" if decision.provisional else ""
    return f"Challenger beats {', '.join(beaten)} {_on(decision)}{caveat}."


def _on(decision: GateDecision) -> str:
    seconds = decision.seconds
    span = f"{seconds / 3600:.1f} h" if seconds >= LONG_S else f"{seconds:.0f} s"
    return f"on {span} of rows with quotes that neither model was trained on"


def _objection(code: str, decision: GateDecision) -> str:
    """A reason against the challenger, in words."""
    if code == "seen_block":
        return "one of the two models was trained on the rows they were to be compared on"
    if code == "too_few_rows":
        return f"inconclusive {_on(decision)}: {LEAST_S:.0f} s are needed"
    if code == "champion_is_proven":
        return f"it is proven, and not replaced {_on(decision)}: an hour is needed"
    if code == "not_above_champion_in_shadow":
        return f"challenger does not beat it in its shadow (skill {decision.shadow.skill:+.3f})"
    relation_and_name, _, part = code.partition(IN)
    name = next(each for each in WORDS if relation_and_name.endswith(each))
    relation = _RELATIONS[relation_and_name.removesuffix(f"_{name}")]
    found = decision.figures[part or ALL][name]
    low, high = found.ci
    place = f" at {part} s" if part.isdigit() else f" in {part}" if part else ""
    skill = f"skill against it {found.skill:+.3f} [{low:+.3f}, {high:+.3f}]"
    return f"challenger {relation} {WORDS[name]}{place} {_on(decision)} ({skill})"
