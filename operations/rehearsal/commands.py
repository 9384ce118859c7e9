"""`make rehearse ENV=…`; and `python -m operations document`, which writes what is made from the templates.

What they need takes seconds to import, and is imported when they run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from local.commands.command import Command, ExitStatus, passed, print_last_line
from operations.failures import OperationRefused
from operations.rehearsal.synthesis import ENVIRONMENTS, ROOT, Synthesised, synthesise

if TYPE_CHECKING:
    from collections.abc import Sequence


def _synthesised(names: Sequence[str]) -> Iterator[Synthesised]:
    for name in names:
        with tempfile.TemporaryDirectory(prefix="tickcast-rehearsal-") as workspace:
            try:
                yield synthesise(name, Path(workspace))
            except ValueError as error:
                raise OperationRefused(str(error)) from None


def _rehearse(given: argparse.Namespace) -> ExitStatus:
    from local.system import progress
    from operations.rehearsal.rehearse import rehearse, show

    console, findings = progress.wide_console(), {}
    for synthesised in _synthesised(given.environments):
        rehearsal = rehearse(synthesised)
        show(rehearsal, console)
        findings[rehearsal.name] = len(rehearsal.findings)
    print_last_line({"findings": findings})
    return passed(not any(findings.values()))


def _document(_: argparse.Namespace) -> ExitStatus:
    from operations.rehearsal import creation
    from operations.rehearsal.documents import texts
    from operations.rehearsal.rehearse import templates_of

    environments = {one.name: templates_of(one) for one in _synthesised(ENVIRONMENTS)}
    created = {name: creation.create(templates) for name, templates in environments.items()}
    for path, text in texts(environments, created).items():
        path.write_text(text, "utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    return ExitStatus.OK


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("environments", nargs="+", choices=ENVIRONMENTS, metavar="ENV")


REHEARSE = Command("rehearse", "find what an account would refuse of an environment", _arguments, _rehearse)
DOCUMENT = Command(
    "document",
    "write what is generated of docs/: permissions, checked-by, configuration, rights of deployment",
    lambda _: None,
    _document,
)
