"""`make export FROM=… TO=…`: a span of time of a deployment as Parquet files, with a data dictionary.

All of it is read from the bucket: ticks from bronze, bars and feature rows derived from them as for
PostgreSQL, receipts and outcomes from their archive.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.table import Table as Shown

from cdk.config import load
from local.commands import deployment
from local.commands.command import Command, ExitStatus, passed, print_last_line, symbols
from local.commands.deployment import Deployment
from local.export.hours import Columns, TickReader, market_columns, record_columns
from local.export.records import ARCHIVED_AFTER_MS, RecordReader
from local.export.tables import TABLES, Table
from local.system import progress
from local.system.options import OptionsError
from local.system.progress import Progress
from tickcast.adapters import json_text
from tickcast.adapters.lake import hour_inputs
from tickcast.adapters.lake.bronze_reader import BronzeObject
from tickcast.adapters.lake.objects import list_folders
from tickcast.adapters.redaction import describe
from tickcast.adapters.registry.pointer import time_of
from tickcast.features.vector import FEATURE_HASH
from tickcast.market.sources import Source
from tickcast.model.dataset import AFTER_US, BEFORE_US
from tickcast.units import DAY_US, HOUR_US, SECOND_US

MANIFEST, DICTIONARY = "export.json", "dictionary.md"
_FOLDER = Path("out")
_EXAMPLE = "it should be a time in UTC, like 2024-08-01 or 2024-08-01T12:00"


class ExportFailed(RuntimeError):
    """The deployment's bucket cannot be read, or has nothing of the span; the message says which."""


@dataclass(frozen=True)
class Span:
    """What is exported: a time, its end excluded, and the symbols: without any, all that bronze has."""

    from_us: int
    to_us: int
    symbols: tuple[str, ...] = ()
    between: bool = False  # also the receipts between the seconds

    @property
    def name(self) -> str:
        return f"{_time(self.from_us):%Y%m%dT%H%M%S}-{_time(self.to_us):%Y%m%dT%H%M%S}"


@dataclass
class Report:
    """What was written, as in `export.json` and the last line of the output."""

    source: str
    span: Span
    symbols: list[str]
    rows: Counter[str] = field(default_factory=Counter)  # by table
    files: Counter[str] = field(default_factory=Counter)
    size_bytes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)  # what was left out
    notes: list[str] = field(default_factory=list)

    def count(self, table: Table, path: Path, rows: int) -> None:
        """Add a file that was written; without rows there is none."""
        if rows:
            self.rows[table.name] += rows
            self.files[table.name] += 1
            self.size_bytes[table.name] += path.stat().st_size

    def as_dict(self) -> dict[str, Any]:
        return {
            "deployment": self.source,
            "from": _time(self.span.from_us).isoformat(),
            "to": _time(self.span.to_us).isoformat(),
            "symbols": self.symbols,
            "feature_hash": FEATURE_HASH,
            "tables": {
                table.name: {
                    "rows": self.rows[table.name],
                    "files": self.files[table.name],
                    "bytes": self.size_bytes[table.name],
                }
                for table in TABLES
            },
            "problems": self.problems,
            "notes": self.notes,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--from", dest="from_", default="", help="like 2024-08-01 or 2024-08-01T12:00 (UTC)")
    parser.add_argument("--to", default="", help="likewise, exclusive; default: now")
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: all that bronze has")
    parser.add_argument("--between", action="store_true", help="also the receipts between the seconds")
    parser.add_argument("--out", default="", help="a new folder; default: out/export-FROM-TO")
    deployment.add_aws_argument(parser)


def run(given: argparse.Namespace) -> ExitStatus:
    """Export a running system's data, or those of one in AWS; the last line is what `export.json` has."""
    aws = deployment.aws_environment(given)
    now_us = round(datetime.now(UTC).timestamp() * SECOND_US)
    span = span_of(given.from_, given.to, symbols(given.symbols), now_us, between=given.between)
    out = Path(given.out).absolute() if given.out else _FOLDER / f"export-{span.name}"
    refuse_used(out)
    there, steps = deployment.existing(aws), progress.to_stderr()
    tables = load(aws or "local").tables
    grids_us = tables.grid_ms * 1000, tables.quoted_grid_ms * 1000
    report = export(there, span, out, grids_us, now_us, steps)
    steps.console.print(_shown(report, out))
    for line in (*report.problems, *report.notes):
        steps.say(line)
    print_last_line({"out": str(out)} | report.as_dict())
    return passed(not report.problems)


COMMAND = Command(
    "export",
    "write ticks, bars, feature rows, receipts and outcomes as Parquet; the last line is JSON",
    add_arguments,
    run,
)


def span_of(from_: str, to: str, chosen: tuple[str, ...], now_us: int, *, between: bool = False) -> Span:
    """The span that FROM and TO name. Raises `OptionsError`."""
    if not from_:
        raise OptionsError("which time? FROM=2024-08-01 TO=2024-08-02, or FROM=2024-08-01T12:00 up to now")
    times_us = []
    for name, text in (("FROM", from_), ("TO", to)):
        found = time_of(text) if text else _time(now_us)
        if found is None:
            raise OptionsError(f"{name} is {text!r}; {_EXAMPLE}")
        times_us.append(round(found.timestamp() * SECOND_US))
    from_us, to_us = times_us[0], min(times_us[1], now_us)
    if from_us >= to_us:
        raise OptionsError(f"FROM is {from_!r}; it should be before TO and in the past")
    return Span(from_us, to_us, chosen, between)


def refuse_used(out: Path) -> None:
    """Raises `OptionsError` where something is in the folder, so that no two exports mix."""
    if out.exists() and not out.is_dir():
        raise OptionsError(f"OUT is {str(out)!r}, which is a file; it should be a new folder")
    if out.is_dir() and any(out.iterdir()):
        raise OptionsError(f"OUT is {str(out)!r}, which is not empty; name a new folder, or delete it")


def export(
    there: Deployment, span: Span, out: Path, grids_us: tuple[int, int], now_us: int, steps: Progress
) -> Report:
    """Write the tables of `span` into the folder `out`, which appears when all are written. Raises
    `ExportFailed`, and `OptionsError` for symbols that bronze lacks."""
    # Heavy, and only here.
    from local.export import dictionary, parquet_files

    report = Report(there.title, span, [])
    with _new_folder(out) as part:
        try:
            report.symbols = _symbols(there, span)
            for symbol, day_us in ((symbol, day_us) for symbol in report.symbols for day_us in _days(span)):
                with steps.step(f"{symbol}, {_time(day_us):%Y-%m-%d}"):
                    for hour_us, columns in _hours(there, symbol, day_us, span, grids_us, report):
                        for table, each in columns.items():
                            path = part / table.name / f"{symbol}-{_time(hour_us):%Y%m%dT%H}.parquet"
                            report.count(table, path, parquet_files.write(path, table, each))
        except (BotoCoreError, ClientError) as error:
            raise ExportFailed(f"bucket {there.bucket} cannot be read: {describe(error)}") from None
        if not report.rows:
            named = ", ".join(report.symbols)
            raise ExportFailed(f"bucket {there.bucket} has nothing of {named} in that time")
        if now_us - span.to_us < ARCHIVED_AFTER_MS * 1000:
            minutes = -(-ARCHIVED_AFTER_MS // 60_000)
            report.notes.append(
                f"receipts of the last {minutes} minutes may not be archived yet: export them again later"
            )
        (part / DICTIONARY).write_text(dictionary.document(), "utf-8")
        (part / MANIFEST).write_text(f"{json_text.text(report.as_dict())}\n", "utf-8")
    return report


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `out` if nothing is raised. Raises `OptionsError` where it cannot
    be made."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        raise OptionsError(f"OUT is {str(out)!r}, which cannot be made: {error.strerror}") from None
    with scratch as made:
        part = Path(made) / "export"
        part.mkdir()
        yield part
        part.replace(out)


def _symbols(there: Deployment, span: Span) -> list[str]:
    """The symbols to export. Raises `ExportFailed`, `OptionsError`."""
    known = sorted(
        {
            symbol
            for source in Source
            for symbol in list_folders(there.s3, there.bucket, f"bronze/source={source}/symbol=")
        }
    )
    if not known:
        raise ExportFailed(f"bucket {there.bucket} has no bronze: nothing was archived so far")
    if unknown := sorted(set(span.symbols) - set(known)):
        raise OptionsError(f"bronze has nothing of {', '.join(unknown)}; it has {', '.join(known)}")
    return list(span.symbols) or known


def _hours(
    there: Deployment,
    symbol: str,
    day_us: int,
    span: Span,
    grids_us: tuple[int, int],
    report: Report,
) -> Iterator[tuple[int, dict[Table, Columns]]]:
    """The tables of each hour of a day that reaches into `span`."""
    first_us = max(day_us, span.from_us // HOUR_US * HOUR_US)
    hours = range(first_us, min(day_us + DAY_US, span.to_us), HOUR_US)
    sources = hour_inputs.sources_of(there.s3, there.bucket)
    objects = {
        hour_us: [about for about in each if _reaches(about, span)]
        for hour_us, each in hour_inputs.hour_inputs(there.s3, there.bucket, symbol, hours, sources).items()
    }
    read_ticks = TickReader(there.s3, there.bucket)
    read_records = RecordReader(there.s3, there.bucket, between=span.between)
    for hour_us in hours:
        from_us, to_us = max(hour_us, span.from_us), min(hour_us + HOUR_US, span.to_us)
        ticks = read_ticks(hour_us, objects.get(hour_us, []), objects.get(hour_us + HOUR_US, []))
        receipts, outcomes = read_records(symbol, from_us, to_us)
        yield (
            hour_us,
            market_columns(symbol, hour_us, (from_us, to_us), ticks, grids_us)
            | record_columns(receipts, outcomes, -(-from_us // 1000), -(-to_us // 1000)),
        )
    problems = (*read_ticks.problems, *read_records.problems)
    report.problems.extend(each for each in problems if each not in report.problems)


def _reaches(about: BronzeObject, span: Span) -> bool:
    """Whether rows of `span` depend on ticks of the object: of an hour a few minutes may be asked for."""
    first_us, last_us = hour_inputs.span_us(about)
    return first_us < span.to_us + AFTER_US and last_us >= span.from_us - BEFORE_US


def _days(span: Span) -> Sequence[int]:
    return range(span.from_us // DAY_US * DAY_US, span.to_us, DAY_US)


def _shown(report: Report, out: Path) -> Shown:
    shown = Shown(title=f"{out}, from {report.source}", title_justify="left")
    for name in ("table", "rows", "files", "MB"):
        shown.add_column(name, justify="left" if name == "table" else "right")
    for table in TABLES:
        size_mb = report.size_bytes[table.name] / 1e6
        shown.add_row(
            table.name, f"{report.rows[table.name]:,}", str(report.files[table.name]), f"{size_mb:.1f}"
        )
    return shown


def _time(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / SECOND_US, UTC)
