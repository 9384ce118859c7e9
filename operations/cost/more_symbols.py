"""What it costs to serve other symbols than now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from cdk.config import Environment
from operations.cost.estimate import Estimate, monthly
from operations.cost.settings import in_words, settings
from operations.cost.what_ifs import with_symbols


@dataclass(frozen=True)
class SymbolCost:
    """A month's bill with so many symbols, before and after, USD, and the `settings` that the latter need."""

    before: int
    after: int
    before_usd: float
    after_usd: float
    settings: dict[str, Any]

    def sentence(self) -> str:
        """The difference in words."""
        more = self.after_usd - self.before_usd
        direction = "more" if more >= 0 else "less"
        needs = f", with {in_words(self.settings)}" if self.settings else ""
        return (
            f"{_count(self.after)} instead of {self.before}: about ${abs(more):.2f} a month {direction} "
            f"(${self.after_usd:.2f} instead of ${self.before_usd:.2f}, at 200 ticks a second each){needs}"
        )


def symbol_cost(environment: Environment, before: int, after: int) -> SymbolCost:
    """The costs of `environment` with both numbers of symbols. Raises what `monthly` raises, and ValueError
    where no known cache holds them."""
    return of_estimate(monthly(environment), before, after)


def of_estimate(estimate: Estimate, before: int, after: int) -> SymbolCost:
    """The same by an estimate that there is."""
    sizes = [with_symbols(estimate.inventory, count, estimate.load) for count in (before, after)]
    was, will = (replace(estimate, inventory=size) for size in sizes)
    needed = settings(estimate.environment, estimate.inventory, will.inventory)
    return SymbolCost(before, after, was.month_usd, will.month_usd, needed)


def _count(symbols: int) -> str:
    return "1 symbol" if symbols == 1 else f"{symbols} symbols"
