"""`make models`, `make promote ID=…`, `make rollback`: the registry of a running system, or of one in AWS."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from local.commands import deployment
from local.commands.command import Command, ExitStatus
from local.system import progress
from local.system.options import OptionsError
from tickcast.adapters.registry import model_registry
from tickcast.adapters.registry.card_markdown import figure, with_interval
from tickcast.adapters.registry.card_markdown import time as at_time
from tickcast.adapters.registry.model_registry import Card, Pointer, PointerRace, RegistryError
from tickcast.model.forecast import HORIZONS_S

_HELP = {
    "models": "list models, the champion and the gate's verdicts",
    "promote": "make a model the champion by hand",
    "rollback": "make the previous champion the champion again",
}
_SHOWN = 20
_TOLD = 3
_FOLLOWED = "serving picks it up within 5 s"


def add_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    if command == "promote":
        parser.add_argument("id", nargs="?", default="", help="of the model, as `make models` lists it")
    deployment.add_aws_argument(parser)


def run(command: str, given: argparse.Namespace, console: Console) -> ExitStatus:
    """Raises `DeploymentNotFound`, `OptionsError`, `RegistryError`, `PointerRace`."""
    there = deployment.existing(deployment.aws_environment(given))
    s3, bucket = there.s3, there.bucket
    if command == "models":
        cards, pointer = model_registry.cards(s3, bucket), model_registry.active_model(s3, bucket)
        console.print(table(there.title, cards, pointer))
        for verdict in verdicts(cards):
            console.print(verdict)
    elif command == "promote":
        console.print(promote(s3, bucket, given.id))
    else:
        console.print(roll_back(s3, bucket))
    return ExitStatus.OK


def _command(name: str) -> Command:
    return Command(
        name,
        _HELP[name],
        lambda parser: add_arguments(parser, name),
        lambda given: run(name, given, progress.wide_console()),
        failures=(RegistryError, PointerRace),
    )


COMMANDS = tuple(_command(name) for name in _HELP)


def promote(s3: Any, bucket: str, model_id: str) -> str:
    """Put a model in force, whatever the gate says; what was done, in words. Raises `OptionsError`,
    `RegistryError`."""
    if not model_id:
        raise OptionsError("which model? ID=20260101T030000Z-0a1b2c3d, as `make models` has it")
    model_id = _whole(model_id, s3, bucket)
    card = model_registry.check_servable(s3, bucket, model_id)
    before = model_registry.active_model(s3, bucket)
    if before and before["model_id"] == model_id:
        raise RegistryError(f"model {model_id} is in force already")
    model_registry.promote(s3, bucket, model_id, _now(), by="hand")
    gate = card.get("gate") or {}
    lines = [f"{model_id} is in force; {_FOLLOWED}. `make rollback` takes it back."]
    if not gate.get("promoted"):
        lines.append(f"By hand alone: {gate.get('sentence') or 'the gate was never asked about it.'}")
    return "\n".join(lines)


def _whole(beginning: str, s3: Any, bucket: str) -> str:
    """The id that begins so, if it is the only one; else what was given."""
    found = [card["model_id"] for card in model_registry.cards(s3, bucket)]
    found = [model_id for model_id in found if model_id.startswith(beginning)]
    return found[0] if len(found) == 1 else beginning


def roll_back(s3: Any, bucket: str) -> str:
    """Put in force what was before; what was done, in words. Raises `RegistryError`."""
    before = model_registry.active_model(s3, bucket)
    pointer = model_registry.roll_back(s3, bucket, _now())
    return f"{pointer['model_id']} is in force again instead of {before and before['model_id']}; {_FOLLOWED}."


def table(title: str, cards: list[Card], pointer: Pointer | None) -> Table:
    """The newest models, one a line."""
    skills = [f"{h} s" for h in HORIZONS_S]
    shown = Table(title=title, title_justify="left", caption_justify="left")
    for name in ("", "model", "state", "learnt up to", "quotes", *skills, "against it", "the gate"):
        is_figure = name in ("quotes", *skills)
        # What is to be copied has to be whole; all else may break.
        shown.add_column(
            name,
            justify="right" if is_figure else "left",
            no_wrap=name == "model" or is_figure,
            overflow="fold",
        )
    for card in cards[:_SHOWN]:
        shown.add_row(_place(card, pointer), card["model_id"], *_cells(card))
    if len(cards) > _SHOWN:
        shown.add_row("", f"… and {len(cards) - _SHOWN} older")
    shown.caption = "\n".join(
        [
            "Skill against no change, and against the model then in force, on what was unseen at the time: "
            "figures of two models are of different minutes, and do not compare.",
            *([] if pointer else ["None is in force."]),
        ]
    )
    return shown


def verdicts(cards: list[Card]) -> list[str]:
    """What the gate said of the newest models, in sentences."""
    judged = [card for card in cards[:_SHOWN] if (card.get("gate") or {}).get("sentence")]
    return [f"{card['model_id']}: {card['gate']['sentence']}" for card in judged[:_TOLD]]


def _place(card: Card, pointer: Pointer | None) -> str:
    pointer = pointer or {}
    if card["model_id"] == pointer.get("model_id"):
        return "in force"
    if card["model_id"] == (pointer.get("challenger") or {}).get("model_id"):
        return "challenger"
    earlier = [each["model_id"] for each in pointer.get("previous") or []]
    return f"before: {earlier.index(card['model_id']) + 1}" if card["model_id"] in earlier else ""


def _cells(card: Card) -> list[str]:
    if "problem" in card:
        return [card["problem"]]
    gate, data, test = card.get("gate") or {}, card.get("data") or {}, card.get("test") or {}
    figures = gate.get("figures") or {}
    share = data.get("share_of_rows_with_quotes", data.get("share_of_bars_with_quotes"))
    skills = []
    for horizon in map(str, HORIZONS_S):
        judged = figures.get(horizon, {}).get("no_change", test.get(horizon))
        skills.append("-" if judged is None else figure(judged.get("skill"), ".3f"))
    champion = figures.get("all", {}).get("champion")
    return [
        "provisional" if card.get("provisional") else "proven",
        at_time(card.get("learned_to_us")),
        "?" if share is None else f"{share:.0%}",
        *skills,
        "-" if champion is None else with_interval(champion),
        ", ".join(gate.get("reasons", [])) or "never asked",
    ]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
