"""`make cost`: what an environment costs a month."""

from __future__ import annotations

import argparse
import math

from cdk.config import Environment, load
from local.commands.command import Command, ExitStatus, number_of, print_last_line
from operations.cost import report, storage
from operations.cost.estimate import Estimate, monthly
from operations.cost.usage import Load
from operations.failures import OperationRefused

MAX_TICKS_PER_S = 100_000
DEFAULT = Load()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rate, requests = number_of("RATE", float), number_of("REQUESTS", float)
    parser.add_argument("--env", required=True, help="dev or prod")
    parser.add_argument(
        "--rate", type=rate, default=DEFAULT.ticks_per_s, help="ticks a second of each symbol (200)"
    )
    parser.add_argument("--symbols", default="", help="like BTCUSDT,ETHUSDT; default: BTCUSDT")
    parser.add_argument(
        "--requests", type=requests, default=DEFAULT.requests_per_s, help="of the API a second (one a minute)"
    )


def environment(name: str, symbols: str) -> Environment:
    """Raises `OperationRefused`."""
    try:
        return load(name, symbols=symbols)
    except ValueError as error:
        raise OperationRefused(str(error)) from None


def run(given: argparse.Namespace) -> ExitStatus:
    """Raises `OperationRefused` for arguments that cannot be used."""
    for name, value, least in (("RATE", given.rate, 1), ("REQUESTS", given.requests, 0)):
        if not (math.isfinite(value) and least <= value <= MAX_TICKS_PER_S):
            raise OperationRefused(
                f"{name} is {value:g}; it should be a number from {least} to {MAX_TICKS_PER_S}"
            )
    load_ = Load(ticks_per_s=given.rate, requests_per_s=given.requests)
    estimate = monthly(environment(given.env, given.symbols or "BTCUSDT"), load_)
    print(text(estimate))
    print_last_line(report.as_json(estimate))
    return ExitStatus.OK


def text(estimate: Estimate) -> str:
    """All tables of an estimate."""
    symbols, load_ = estimate.inventory.symbols, estimate.load
    return "\n\n".join(
        [
            f"{estimate.name} in {estimate.prices.region}: {symbols} symbol{'s' * (symbols != 1)}, "
            f"{load_.ticks_per_s:g} ticks a second each; USD without tax and free tiers",
            *(f"Careful: {warning}" for warning in estimate.warnings),
            report.line_table(estimate),
            report.target_sentence(estimate),
            report.confidence_table(estimate),
            f"{storage.storage_table(estimate.inventory, load_)}\n\n{storage.sentence(estimate.inventory)}",
            report.what_if_table(estimate),
            report.skill_table(estimate),
        ]
    )


COMMAND = Command("cost", "what an environment costs a month; the last line is JSON", add_arguments, run)
