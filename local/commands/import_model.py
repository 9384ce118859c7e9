"""`make import-model FILE=model.onnx CARD=card.json`: a model that was trained elsewhere, into the registry
of a running system, or of one in AWS, and into the champion's shadow.

What can be checked without rows is checked here; the rest by the function that trains models, which has the
rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from local.commands import deployment
from local.commands.command import Command, ExitStatus, passed, print_last_line
from local.commands.deployment import Deployment
from local.system import cloud, progress
from local.system.options import OptionsError
from tickcast.adapters import json_text
from tickcast.adapters.registry.imported_onnx import FlatHead, completed
from tickcast.adapters.registry.model_description import description_from
from tickcast.adapters.registry.onnx_model import OnnxModel
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions.import_model import staged_key
from tickcast.functions.train_model import new_model_id
from tickcast.model.forecast import HORIZONS_S, ModelError
from tickcast.model.imported import check
from tickcast.model.network import HAS_QUOTES, SIGMA
from tickcast.units import SECOND_US

_TRIED_ROWS = 256


class Submission(NamedTuple):
    """What is to be imported."""

    model_id: str
    files: tuple[bytes, ...]
    description: dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", nargs="+", type=Path, required=True, help="ONNX: one, or one per instant")
    parser.add_argument("--card", type=Path, required=True, help="what you say of it, JSON: docs/model.md")
    deployment.add_aws_argument(parser)


def run(given: argparse.Namespace) -> ExitStatus:
    """Import it; the last line is the result."""
    submitted = submission(given.file, given.card, datetime.now(UTC))
    there, console = (
        deployment.existing(deployment.aws_environment(given)),
        progress.wide_console(stderr=True),
    )
    about = f"import-model: {submitted.description['name']} as {submitted.model_id}, {there.title}"
    console.print(about, markup=False)
    found = submit(there, submitted)
    if found["imported"]:
        console.print(table(found["card"]))
    for line in lines(found):
        console.print(line, markup=False)
    print_last_line({name: value for name, value in found.items() if name != "card"})
    return passed(found["imported"])


COMMAND = Command(
    "import-model",
    "check a model of your own, run it in the champion's shadow; the last line is JSON",
    add_arguments,
    run,
)


def submission(paths: Sequence[Path], card: Path, now: datetime) -> Submission:
    """The files of a model and its description, tried on random rows. Raises `OptionsError` naming the file
    that cannot be read, or what in it is not as docs/model.md has it."""
    files = tuple(_read("FILE", path) for path in paths)
    try:
        document = json_text.read(_read("CARD", card))
    except ValueError as error:
        raise OptionsError(f"CARD {card} is not JSON: {error}") from None
    try:
        description = description_from(document, round(now.timestamp() * SECOND_US))
        run_model = OnnxModel(completed(files, description, FlatHead.even()))
        check(run_model, _random_rows(), time.perf_counter)
    except ModelError as error:
        raise OptionsError(f"{error} (docs/model.md, A model of your own)") from None
    return Submission(new_model_id(now, b"".join(files)), files, document)


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionsError(f"{name} {path}: {error.strerror}") from None


def _random_rows() -> Any:
    """Rows of every feature that may come, half of them without quotes. Shape (N, F)."""
    rng = np.random.default_rng(1)
    rows = rng.normal(0, 1, (_TRIED_ROWS, len(FEATURE_NAMES)))
    rows[:, SIGMA] = rng.uniform(0.05, 5, _TRIED_ROWS)
    rows[:, HAS_QUOTES] = np.arange(_TRIED_ROWS) % 2
    return rows


def submit(there: Deployment, submitted: Submission) -> dict[str, Any]:
    """The answer of the function that imports. Raises `FunctionFailed`."""
    for number, data in enumerate(submitted.files):
        there.s3.put_object(Bucket=there.bucket, Key=staged_key(submitted.model_id, number), Body=data)
    request = {
        "model_id": submitted.model_id,
        "files": len(submitted.files),
        "description": submitted.description,
    }
    return cloud.invoke(there.functions, there.outputs["TrainModelFunction"], {"import": request})


def table(card: dict[str, Any]) -> Table:
    """What the import found of a model, by horizon."""
    shown = Table(
        title=f"{escape(card['imported']['name'])}, on rows that it was not trained on", title_justify="left"
    )
    for name in ("horizon", "skill", "direction", "interval, σ√h", "direction slope"):
        shown.add_column(name, justify="right")
    for horizon_s in map(str, HORIZONS_S):
        test, calibration = card["test"][horizon_s], card["calibration"][horizon_s]
        figures = (
            test["skill"],
            test["direction"],
            calibration["interval_width"],
            calibration["direction_slope"],
        )
        cells = ("-" if each is None else f"{each:.3f}" for each in figures)
        shown.add_row(f"{horizon_s} s", *cells)
    return shown


def lines(found: dict[str, Any]) -> list[str]:
    """The result of an import, in words."""
    if not found["imported"]:
        return [f"Not imported: {found['why']}."]
    imported, model_id = found["card"]["imported"], found["model_id"]
    symmetry = "symmetric" if imported["symmetric"] else "not symmetric"
    measured = (
        f"{symmetry} (moves differ by {imported['asymmetry']:.1%}); 20 rows take {imported['run_ms']} ms"
    )
    reported = [f"It is {measured}. {found['sentence']}"]
    if found["challenger"] == model_id:
        reported.append(
            f"It runs in the shadow of {found['in_force']} within 5 s: receipts carry its forecasts. "
            "The gate decides again, by live outcomes too, with the next challenger (by schedule, or "
            "`make retrain`)."
        )
    elif found["status"] == "outdated":
        reported.append("The champion changed meanwhile: import it again.")
    elif found["in_force"] is None:
        reported.append(
            f"No model is active that it could shadow: `make promote ID={model_id}`, or train one first."
        )
    else:
        reported.append(
            f"It does not run in shadow. `make promote ID={model_id}` makes it active all the same."
        )
    return reported
