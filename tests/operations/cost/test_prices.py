"""The price file: every line is whole, used, and the only place where a price is."""

from __future__ import annotations

import ast
import re

import pytest

from cdk.config import CACHE_NODE_MB
from operations.cost.lines import ALWAYS_FREE
from operations.cost.prices import Prices, parse, prices
from operations.failures import OperationRefused
from tests.fixtures.paths import ROOT

LINE = "- {id: a, value: 1.5, unit: h, source: s, date: 2026-09, confidence: A}\n"


def test_the_file_is_read() -> None:
    found = prices()
    assert found["kinesis_shard"].value == 0.0195
    assert found["api_rest_request"].value == pytest.approx(4.25e-6)
    assert {each.confidence for each in found.by_id.values()} == set("ABCD")


def test_confidence_a_is_neither_assumed_nor_derived() -> None:
    for each in prices().by_id.values():
        assert len(each.source) > 10, each.id
        derived = re.search(r"assumed|\btimes\b|\btwice cache|us-east-1's", each.source)
        assert bool(derived) <= (each.confidence != "A"), each.id
        if "us-east-1's" in each.source and "equals" not in each.source:
            assert each.confidence == "D", each.id


def test_every_cache_node_that_the_configuration_knows_has_a_price() -> None:
    assert CACHE_NODE_MB.keys() <= prices().by_id.keys()


def test_every_price_is_used_or_says_for_what_it_is() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "operations" / "cost").glob("*.py"))
    quoted = set(re.findall(r'"([a-z0-9_.]+)"', sources)) | {"fargate_x86_vcpu", "fargate_x86_gb"}
    quoted |= {"fargate_arm_vcpu", "fargate_arm_gb"}  # by the architecture
    for each in prices().by_id.values():
        if not each.id.startswith(("cache.", "db.")):
            assert each.id in quoted or "for ADR" in each.source, each.id
    assert ALWAYS_FREE.keys() <= prices().by_id.keys()


@pytest.mark.parametrize("name", ["latency_budget", "scaling_tables"])
def test_other_calculations_have_no_prices_of_their_own(name: str) -> None:
    tree = ast.parse((ROOT / "benchmarks" / f"{name}.py").read_text("utf-8"))
    measured = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Call) for part in ast.walk(node)}
    numbers = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, float) and id(node) not in measured
    }
    assert not numbers & {each.value for each in prices().by_id.values()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prices:\n" + LINE.replace("value: 1.5", "value: 0"), "value"),
        ("prices:\n" + LINE.replace("unit: h, ", ""), "unit"),
        ("prices:\n" + LINE.replace("confidence: A", "confidence: E"), "confidence"),
        ("prices:\n" + LINE.replace("2026-09", "soon"), "date"),
        ("prices:\n" + LINE.replace("unit:", "units:"), "units"),
        ("prices:\n" + LINE + LINE, "more than one price of a"),
    ],
)
def test_an_error_in_the_file_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse("here-1", text)


def test_a_region_without_prices_is_refused_by_name() -> None:
    with pytest.raises(
        OperationRefused, match=r"no prices of eu-west-1 \(there are those of ap-northeast-1\)"
    ):
        prices("eu-west-1")


def test_a_price_that_is_missing_is_named_with_its_file() -> None:
    with pytest.raises(OperationRefused, match=r"no price of db.x: .*prices-here-1.yaml"):
        Prices("here-1", [])["db.x"]


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            "adr/0003-rest-api-with-keys.md",
            "About {api_rest_request:.2f} USD a million requests instead of {api_http_request:.2f}",
        ),
        (
            "adr/0004-no-nat.md",
            "about {nat:.0f} USD a month before the first byte, an interface endpoint about {endpoint:.0f}",
        ),
        (
            "adr/0033-fan-out-for-the-hot-consumer.md",
            "{shard:.2f} dollars a shard and month, and {gb:.1f} cents a GB",
        ),
    ],
)
def test_prices_in_decision_records_are_those_of_the_file(document: str, sentence: str) -> None:
    found = {each: 1e6 * prices()[each].value for each in ("api_rest_request", "api_http_request")}
    # To tens of dollars; half a cent is rounded up, which 14.235 is not in binary.
    found["nat"] = round(2 * 730 * prices()["nat_gateway"].value, -1)
    found["endpoint"] = round(2 * 730 * prices()["interface_endpoint"].value, -1)
    found["shard"] = 730 * prices()["kinesis_fan_out_shard"].value + 1e-9
    found["gb"] = 100 * prices()["kinesis_fan_out_gb"].value
    text = " ".join((ROOT / "docs" / document).read_text("utf-8").split())
    assert sentence.format(**found) in text
