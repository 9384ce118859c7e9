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
MAX_SYMBOLS = 10_000
DEFAULT = Load()
CONFIDENCE = (
    "Confidence of prices: A is AWS's price list for the region, or two sources that agree; B one source; C "
    "derived from other prices of the region; D another region's price, or an assumption."
)
PRESETS = (
    "Dollars against skill. Ingest collects ticks for `linger` ms before it sends them; the skill is that of "
    "a prediction of this age, against no change (docs/latency.md). Bold is as configured."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rate, requests = number_of("RATE", float), number_of("REQUESTS", float)
    parser.add_argument("--env", required=True, help="dev or prod")
    parser.add_argument(
        "--rate", type=rate, default=DEFAULT.ticks_per_s, help="ticks a second of each symbol (200)"
    )
    parser.add_argument(
        "--symbols", default="", help="like BTCUSDT,ETHUSDT, or how many; default: those of the configuration"
    )
    parser.add_argument(
        "--requests", type=requests, default=DEFAULT.requests_per_s, help="of the API a second (one a minute)"
    )


def environment(name: str, symbols: str) -> Environment:
    """With the configured symbols, others, or as many as the number in `symbols` says. Raises
    `OperationRefused` for what a deployment would refuse as well."""
    try:
        configured = load(name)
        return load(name, symbols=_of_count(configured, symbols)) if symbols else configured
    except ValueError as error:
        raise OperationRefused(str(error)) from None


def _of_count(configured: Environment, symbols: str) -> str:
    """`symbols`, or where that is a number so many: the configured ones first. No market is called by a
    number alone."""
    if not symbols.strip().isdecimal():
        return symbols
    count = int(symbols)
    if not 1 <= count <= MAX_SYMBOLS:
        raise OperationRefused(f"SYMBOLS is {count}; as a number it should be from 1 to {MAX_SYMBOLS}")
    known = configured.symbols[:count]
    return ",".join([*known, *(f"S{n:04}USDT" for n in range(1, count - len(known) + 1))])


def run(given: argparse.Namespace) -> ExitStatus:
    """Raises `OperationRefused` for arguments that cannot be used."""
    for name, value, least in (("RATE", given.rate, 1), ("REQUESTS", given.requests, 0)):
        if not (math.isfinite(value) and least <= value <= MAX_TICKS_PER_S):
            raise OperationRefused(
                f"{name} is {value:g}; it should be a number from {least} to {MAX_TICKS_PER_S}"
            )
    load_ = Load(ticks_per_s=given.rate, requests_per_s=given.requests)
    estimate = monthly(environment(given.env, given.symbols), load_)
    print(text(estimate))
    print_last_line(report.as_json(estimate))
    return ExitStatus.OK


def text(estimate: Estimate) -> str:
    """All tables of an estimate."""
    symbols, load_ = estimate.inventory.symbols, estimate.load
    return "\n\n".join(
        [
            f"{estimate.name} in {estimate.prices.region}: {symbols} symbol{'s' * (symbols != 1)}, "
            f"{load_.ticks_per_s:g} ticks a second each: ${estimate.month_usd:.2f} a month "
            f"(USD without tax and free tiers)\n{report.target_sentence(estimate)}",
            *(f"Careful: {warning}" for warning in estimate.warnings),
            report.line_table(estimate),
            f"{CONFIDENCE}\n\n{report.confidence_table(estimate)}",
            f"{storage.storage_table(estimate.inventory, load_)}\n\n{storage.sentence(estimate.inventory)}",
            report.what_if_table(estimate),
            f"{PRESETS}\n\n{report.skill_table(estimate)}",
        ]
    )


COMMAND = Command("cost", "what an environment costs a month; the last line is JSON", add_arguments, run)
