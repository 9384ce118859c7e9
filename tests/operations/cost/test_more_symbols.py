"""What one more symbol costs, as `make symbols` says it before it is added."""

from __future__ import annotations

import pytest

from operations.cost import Estimate
from operations.cost.more_symbols import of_estimate


def test_one_more_symbol_costs_the_difference(estimates: dict[str, Estimate]) -> None:
    cost = of_estimate(estimates["dev"], 1, 2)
    assert cost.before_usd == pytest.approx(estimates["dev"].month_usd)
    assert 1 < cost.after_usd - cost.before_usd < 10
    more = cost.after_usd - cost.before_usd
    assert cost.sentence().startswith(f"2 symbols instead of 1: about ${more:.2f} a month more ($")
    assert cost.settings == {} and "with" not in cost.sentence()
    back = of_estimate(estimates["dev"], 2, 1)
    assert back.sentence().startswith(f"1 symbol instead of 2: about ${more:.2f} a month less ($")


def test_what_it_needs_is_named(estimates: dict[str, Estimate]) -> None:
    assert of_estimate(estimates["dev"], 2, 10).sentence().endswith("`aws.cache.node_type: cache.t4g.small`")


def test_more_than_any_cache_holds_has_no_cost(estimates: dict[str, Estimate]) -> None:
    with pytest.raises(ValueError, match="no cache node that is known holds 10000 symbols"):
        of_estimate(estimates["dev"], 2, 10_000)
