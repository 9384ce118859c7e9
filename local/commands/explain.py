"""`make explain ID=…`: one prediction in words, and recomputed from bronze to the last bit.

The receipt comes from the API, the ticks and models from the S3 of the same deployment: of the system that
runs here, or in the AWS account whose credentials are set.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from local.commands import deployment, receipt_text
from local.commands.command import Command, ExitStatus, print_last_line, secret_variable
from local.commands.receipt_text import Receipt
from local.system import progress
from local.system.api import Api, ApiFailed
from local.system.options import OptionsError
from tickcast.adapters.redaction import describe
from tickcast.functions.audit_predictions import LATE_UNTIL_MS, Audit, Auditor, missing_ids
from tickcast.market import symbols
from tickcast.market.gaps import GapRecord
from tickcast.serving.records import LateTicks, Prediction
from tickcast.serving.reproduce import LOOK_BACK_US

_ID = re.compile(r"([^\W_]+)-([0-9]{13})")
_PAGE = 1000


class BronzeUnreadable(RuntimeError):
    """The deployment's bucket cannot be read; the message says why."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", default="", help="of the prediction, like BTCUSDT-1723161253000")
    parser.add_argument(
        "--url", default="", help="an API elsewhere, its key in KEY; default: the systems running here"
    )


def run(given: argparse.Namespace) -> ExitStatus:
    return show(given.id, given.url, secret_variable("KEY"), progress.wide_console())


COMMAND = Command(
    "explain",
    "print a prediction in words and recompute it from the ticks in S3; the last line is JSON",
    add_arguments,
    run,
)


def show(prediction_id: str, url: str, key: str, console: Console) -> ExitStatus:
    """Explain a prediction of the deployment at `url`, or of a system that runs here. Raises `OptionsError`,
    `DeploymentNotFound`, `ApiFailed` and `BronzeUnreadable`."""
    matched = _ID.fullmatch(symbols.upper(prediction_id.strip()))
    if not matched:
        raise OptionsError(
            f"ID is {prediction_id!r}; it should be the `id` of a prediction, like BTCUSDT-1723161253000"
        )
    symbol, timestamp_ms = matched[1], int(matched[2])
    urls = deployment.api_urls(url).values()
    api, receipt = _receipt(symbol, f"{symbol}-{timestamp_ms}", urls, key)
    audit = _compared(api, receipt, symbol, timestamp_ms)
    console.print(*receipt_text.lines(receipt), sep="\n", highlight=False, soft_wrap=True)
    for table in receipt_text.tables(audit.reproduction):
        console.print(table)
    console.print(*receipt_text.conclusion(audit), sep="\n", highlight=False, soft_wrap=True)
    print_last_line(_last_line(audit))
    same = audit.reproduction.same
    if same is None:
        return ExitStatus.INCONCLUSIVE
    return ExitStatus.OK if same else ExitStatus.FAILED


def _receipt(symbol: str, prediction_id: str, urls: Iterable[str], key: str) -> tuple[Api, Receipt]:
    """The receipt, and the first API that has it. Raises `ApiFailed` with the reasons of all."""
    reasons = []
    for url in urls:
        api = deployment.api_at(url, key)
        try:
            return api, api.body(f"predictions/{symbol}/{prediction_id}")
        except ApiFailed as failure:
            reasons.append(str(failure))
    raise ApiFailed("; ".join(reasons))


def _compared(api: Api, receipt: Receipt, symbol: str, timestamp_ms: int) -> Audit:
    """The receipt compared with bronze. Raises `DeploymentNotFound`, `ApiFailed` and `BronzeUnreadable`."""
    there = deployment.behind(api.url, receipt["environment"])
    span = {"from": timestamp_ms - LOOK_BACK_US // 1000, "to": timestamp_ms + LATE_UNTIL_MS}
    page = api.body(f"predictions/{symbol}/history", **span, limit=_PAGE)
    stream = api.services().get(f"predict_stream:{symbol}") or {}
    missing = missing_ids(msgspec.convert(stream.get("gaps", []), list[GapRecord]))
    late = msgspec.convert(page["predictions"], list[LateTicks])
    auditor = Auditor(there.s3, there.bucket)
    try:
        return auditor(msgspec.convert(receipt, Prediction, str_keys=True), late, missing, auditor.reader())
    except (BotoCoreError, ClientError) as error:
        raise BronzeUnreadable(f"bucket {there.bucket} cannot be read: {describe(error)}") from None


def _last_line(audit: Audit) -> dict[str, Any]:
    """`same` is None when the comparison is inconclusive."""
    reproduction = audit.reproduction
    return {
        "id": reproduction.id,
        "same": reproduction.same,
        "features_compared": sum(each.name.startswith("features.") for each in reproduction.compared),
        "values_compared": len(reproduction.compared),
        "differences": [each.name for each in reproduction.differences],
        "doubts": reproduction.caveats,
        "unproven": reproduction.unproven,
        "bronze_objects": len(audit.objects),
    }
