"""What an environment costs a month."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from cdk.config import Environment
from operations.cost import coverage, storage, synthesis
from operations.cost.inventory import Inventory, inventory
from operations.cost.lines import Line, lines
from operations.cost.measured import SHARD_BYTES_PER_S, SHARD_RECORDS_PER_S
from operations.cost.prices import Prices, prices
from operations.cost.usage import Load, Usage
from operations.failures import OperationRefused

TARGETS_USD = {"dev": 70, "prod": 250}  # for one symbol with 200 ticks a second


@dataclass(frozen=True)
class Estimate:
    """The bill of one month of an environment under a load, by line. `environment` is as it is configured;
    a what-if is another `inventory` or `load`."""

    environment: Environment
    inventory: Inventory
    load: Load
    prices: Prices

    @property
    def name(self) -> str:
        return self.environment.name

    @property
    def of_target(self) -> Estimate:
        """The same environment with what its target is for: one symbol with 200 ticks a second."""
        return replace(self, inventory=replace(self.inventory, symbols=1), load=Load())

    @cached_property
    def lines(self) -> list[Line]:
        return lines(self.inventory, self.load, self.prices)

    @property
    def month_usd(self) -> float:
        return sum(line.usd for line in self.lines)

    @property
    def predictions(self) -> float:
        """Made a month, of all symbols."""
        return Usage(self.inventory, self.load).predictions

    @property
    def per_1000_predictions_usd(self) -> float:
        return 1000 * self.month_usd / self.predictions

    @property
    def warnings(self) -> list[str]:
        """Why the environment may not carry the load that it is priced for."""
        usage, shards = Usage(self.inventory, self.load), self.inventory.shards
        found = []
        # The hash of a symbol's name chooses its shard: the fullest has as many as an even share, or more.
        if shards and usage.bytes_per_s / usage.busy_shards > SHARD_BYTES_PER_S:
            found.append(
                f"{usage.bytes_per_s / 1e6:.1f} MB/s do not fit into {shards} of stream.shards, "
                "which take 1 MB/s each"
            )
        if shards and usage.record_rate / usage.busy_shards > SHARD_RECORDS_PER_S:
            found.append(
                f"{usage.record_rate:,.0f} records/s do not fit into {shards} of stream.shards, "
                f"which take {SHARD_RECORDS_PER_S:,} each"
            )
        return found + storage.faults(self.inventory, self.load)

    def usd(self, name: str) -> float:
        """Of one line. Raises KeyError if there is none of that name."""
        return {line.name: line.usd for line in self.lines}[name]

    def sentence(self) -> str:
        """The estimate in words, for those who do not want the table."""
        what = "1 symbol" if self.inventory.symbols == 1 else f"{self.inventory.symbols} symbols"
        return (
            f"about ${self.month_usd:.0f} a month for {what} at {self.load.ticks_per_s:g} ticks a second, "
            f"without tax and free tiers; `make cost ENV={self.name}` has the lines"
        )


def monthly(environment: Environment, load: Load | None = None) -> Estimate:
    """The estimate of `environment` by its templates, which are synthesised for it.

    Raises `OperationRefused` if it is not one of an account or its region has no prices, `OperationFailed` if
    a resource has no price.
    """
    if environment.aws is None:
        raise OperationRefused(f"{environment.name} is on this machine and costs nothing: ENV is dev or prod")
    region_prices = prices(environment.region)
    resources = synthesis.resources_of(environment)
    coverage.check(resources)
    return Estimate(environment, inventory(resources), load or Load(), region_prices)
