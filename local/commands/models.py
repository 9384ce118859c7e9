"""`make models`, `make promote ID=…`, `make rollback`, `make hold`, `make lift`: the registry of a running
system, or of one in AWS."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from local.commands import deployment
from local.commands.command import Command, ExitStatus
from local.system import progress
from local.system.options import OptionsError
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.card_markdown import figure, share_with_quotes, with_interval
from tickcast.adapters.registry.card_markdown import time as at_time
from tickcast.adapters.registry.model_registry import RegistryError
from tickcast.adapters.registry.pointer import LIFTED, Pointer, time_of
from tickcast.evaluation.baselines import NO_CHANGE
from tickcast.evaluation.gate import ALL, CHAMPION
from tickcast.model.card import Card, GateRecord
from tickcast.model.forecast import HORIZONS_S

_SHOWN = 20
_DECISIONS_SHOWN = 5
_PICKED_UP = "serving picks it up within 5 s"


def _add_id_and_aws_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", default="", help="of the model, as `make models` lists it")
    deployment.add_aws_argument(parser)


def _add_until_and_aws_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until", default="", help="a time in UTC, like 2026-12-24 or 2026-12-24T08:00")
    deployment.add_aws_argument(parser)


def run_models(given: argparse.Namespace) -> ExitStatus:
    there, console = deployment.existing(deployment.aws_environment(given)), progress.wide_console()
    cards = model_registry.cards(there.s3, there.bucket)
    pointer = model_registry.active_model(there.s3, there.bucket)
    console.print(table(there.title, cards, pointer))
    for sentence in sentences(cards, pointer):
        console.print(sentence)
    return ExitStatus.OK


def run_hold(given: argparse.Namespace) -> ExitStatus:
    there = deployment.existing(deployment.aws_environment(given))
    progress.wide_console().print(hold(there.s3, there.bucket, given.until))
    return ExitStatus.OK


def run_lift(given: argparse.Namespace) -> ExitStatus:
    there = deployment.existing(deployment.aws_environment(given))
    progress.wide_console().print(lift(there.s3, there.bucket))
    return ExitStatus.OK


def run_promote(given: argparse.Namespace) -> ExitStatus:
    there = deployment.existing(deployment.aws_environment(given))
    progress.wide_console().print(promote(there.s3, there.bucket, given.id))
    return ExitStatus.OK


def run_rollback(given: argparse.Namespace) -> ExitStatus:
    there = deployment.existing(deployment.aws_environment(given))
    progress.wide_console().print(roll_back(there.s3, there.bucket))
    return ExitStatus.OK


COMMANDS = (
    Command(
        "models",
        "list models, the champion and the gate's decisions",
        deployment.add_aws_argument,
        run_models,
    ),
    Command("promote", "make a model the champion by hand", _add_id_and_aws_arguments, run_promote),
    Command(
        "rollback",
        "make the previous champion the champion again, and hold it",
        deployment.add_aws_argument,
        run_rollback,
    ),
    Command("hold", "let no training replace the champion", _add_until_and_aws_arguments, run_hold),
    Command("lift", "let the gate decide again", deployment.add_aws_argument, run_lift),
)


def promote(s3: Any, bucket: str, model_id: str) -> str:
    """Make a model active regardless of the gate; the result in words. Raises `OptionsError`,
    `RegistryError`."""
    if not model_id:
        raise OptionsError("which model? ID=20260101T030000Z-0a1b2c3d, as `make models` has it")
    model_id = _full_id(model_id, s3, bucket)
    card = model_registry.check_servable(s3, bucket, model_id)
    before = model_registry.active_model(s3, bucket)
    if before and before.model_id == model_id:
        raise RegistryError(f"model {model_id} is active already")
    pointer = model_registry.promote(s3, bucket, model_id, _now(), by="hand")
    lines = [f"{model_id} is active; {_PICKED_UP}. `make rollback` takes it back.", *_held(pointer)]
    if not (card.gate and (card.gate.promoted or card.gate.held)):
        why = (card.gate.sentence if card.gate else "") or "the gate has not evaluated it."
        lines.append(f"Promoted by hand, not by the gate: {why}")
    return "\n".join(lines)


def _full_id(prefix: str, s3: Any, bucket: str) -> str:
    """The id with that prefix if there is only one, else the prefix."""
    found = [card.model_id for card in model_registry.cards(s3, bucket) if card.model_id.startswith(prefix)]
    return found[0] if len(found) == 1 else prefix


def roll_back(s3: Any, bucket: str) -> str:
    """Make the previous model active; the result in words. Raises `RegistryError`."""
    before = model_registry.active_model(s3, bucket)
    pointer = model_registry.roll_back(s3, bucket, _now())
    back = f"{pointer.model_id} is active again instead of {before.model_id if before else None}"
    return "\n".join([f"{back}; {_PICKED_UP}.", *_held(pointer)])


def hold(s3: Any, bucket: str, until: str = "") -> str:
    """Hold the active model until then, or until that is lifted; the result in words. Raises `OptionsError`,
    `RegistryError`."""
    time = time_of(until) if until else None
    if until and (time is None or time <= datetime.now(UTC)):
        what = "is no time" if time is None else "has passed"
        raise OptionsError(f"UNTIL is {until!r}, which {what}: a time to come in UTC, like 2026-12-24T08:00")
    ends = time.astimezone(UTC).isoformat(timespec="seconds") if time else LIFTED
    pointer = model_registry.hold(s3, bucket, ends)
    return "\n".join([f"{pointer.model_id} is active.", *_held(pointer)])


def lift(s3: Any, bucket: str) -> str:
    """End a hold; the result in words. Raises `RegistryError`."""
    before = model_registry.active_model(s3, bucket)
    pointer = model_registry.hold(s3, bucket, None)
    if not (before and before.is_held(datetime.now(UTC))):
        return f"{pointer.model_id} is active, and was not held."
    return f"{pointer.model_id} is active, and no longer held: the next training may replace it, by the gate."


def _held(pointer: Pointer | None) -> list[str]:
    """A line about the hold, where there is one."""
    if pointer is None or not pointer.is_held(datetime.now(UTC)):
        return []
    until = pointer.hold_until if pointer.hold_until != LIFTED else "that is lifted"
    return [f"It is held until {until}: no training replaces it. `make lift` ends that."]


def table(title: str, cards: list[Card], pointer: Pointer | None) -> Table:
    """The newest models, one per line."""
    skills = [f"{h} s" for h in HORIZONS_S]
    shown = Table(title=title, title_justify="left", caption_justify="left")
    for name in ("", "model", "state", "trained up to", "quotes", *skills, "vs champion", "gate"):
        is_figure = name in ("quotes", *skills)
        # Ids and figures are copied: they must not be wrapped.
        shown.add_column(
            name,
            justify="right" if is_figure else "left",
            no_wrap=name == "model" or is_figure,
            overflow="fold",
        )
    for card in cards[:_SHOWN]:
        shown.add_row(_role(card, pointer), card.model_id, *_cells(card))
    if len(cards) > _SHOWN:
        shown.add_row("", f"… and {len(cards) - _SHOWN} older")
    shown.caption = "\n".join(
        [
            "Skill against no change, and against the champion of the time, on rows that neither had been "
            "trained on: figures of two models are of different minutes, and not comparable, nor with those "
            "that an import shows, which are of its own test rows.",
            *([] if pointer else ["No model is active."]),
            *(f"{pointer.model_id} is active. {line}" for line in _held(pointer) if pointer),
        ]
    )
    return shown


def sentences(cards: list[Card], pointer: Pointer | None = None) -> list[str]:
    """The gate's decisions in words, with their reasons: on the champion, the challenger, and then the newest
    models, as challengers and as champions."""
    serving = {pointer.model_id: 0, pointer.challenger_id: 1} if pointer else {}
    ordered = sorted(cards[:_SHOWN], key=lambda card: serving.get(card.model_id, 2))
    records = [(card.model_id, record) for card in ordered for record in (card.proof, card.gate)]
    decided = [(model_id, record.sentence) for model_id, record in records if record]
    return [f"{model_id}: {sentence}" for model_id, sentence in decided if sentence][:_DECISIONS_SHOWN]


def _role(card: Card, pointer: Pointer | None) -> str:
    if pointer is None:
        return ""
    if card.model_id == pointer.model_id:
        return "active, held" if pointer.is_held(datetime.now(UTC)) else "active"
    if card.model_id == pointer.challenger_id:
        return "challenger"
    previous = [each.model_id for each in pointer.previous]
    return f"previous: {previous.index(card.model_id) + 1}" if card.model_id in previous else ""


def _cells(card: Card) -> list[str]:
    if card.problem:
        return [card.problem]
    figures = card.gate.figures if card.gate else {}
    share = share_with_quotes(card)
    champion = figures.get(ALL, {}).get(CHAMPION)
    return [
        "provisional" if card.provisional else "proven",
        at_time(card.learned_to_us),
        "?" if share is None else f"{share:.0%}",
        *(_skill(card, horizon_s) for horizon_s in HORIZONS_S),
        "-" if champion is None else with_interval(champion),
        _decision(card.gate),
    ]


def _decision(gate: GateRecord | None) -> str:
    """What the gate decided, in a few words; `sentences` have the reasons."""
    if gate is None or not (gate.sentence or gate.reasons):
        return "not evaluated"
    if gate.promoted:
        return "promoted"
    if gate.held:
        return "passed; a hold kept the champion"
    if gate.passed:
        return "passed; another one was better"
    return "champion kept" if gate.champion else "not promoted"


def _skill(card: Card, horizon_s: int) -> str:
    """Against no change: the gate's figure or, before that, the test block's."""
    by_gate = card.gate.figures.get(str(horizon_s), {}).get(NO_CHANGE) if card.gate else None
    found = by_gate or card.test.get(horizon_s)
    return figure(found.skill if found else None, ".3f")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
