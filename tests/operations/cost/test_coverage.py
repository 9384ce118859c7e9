"""No resource of a template is without a line or a reason."""

from __future__ import annotations

import pytest

from operations.cost import Estimate, coverage
from operations.cost.inventory import Resource
from operations.cost.lines import lines
from operations.cost.prices import prices
from operations.failures import OperationFailed
from tests.operations.cost.test_usage import estimate

pytestmark = pytest.mark.synthesis


def test_every_resource_is_priced_or_free_with_a_reason(resources: dict[str, list[Resource]]) -> None:
    for found in resources.values():
        coverage.check(found)
    assert not coverage.PRICED.keys() & coverage.FREE.keys()
    assert all(len(reason) > 5 for reason in coverage.FREE.values())


def test_what_no_template_has_is_in_no_table(resources: dict[str, list[Resource]]) -> None:
    types = {each.type for found in resources.values() for each in found}
    by_configuration = {"AWS::IAM::ManagedPolicy", "AWS::SNS::Subscription"}  # api.authorisation, alarm_email
    by_configuration |= {"AWS::SQS::Queue", "AWS::SQS::QueuePolicy"}  # signals
    assert coverage.PRICED.keys() | coverage.FREE.keys() <= types | by_configuration


def test_the_lines_that_a_type_is_in_exist() -> None:
    named = {name for names in coverage.PRICED.values() for name in names}
    assert named <= {line.name for line in estimate().lines}


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        (Resource("Gate", "AWS::EC2::NatGateway", {}), r"Gate \(AWS::EC2::NatGateway\)"),
        (
            Resource("Door", "AWS::EC2::VPCEndpoint", {"VpcEndpointType": "Interface"}),
            r"Door \(AWS::EC2::VPCEndpoint\)",
        ),
    ],
)
def test_a_resource_without_a_price_is_an_error_that_names_it(resource: Resource, message: str) -> None:
    with pytest.raises(OperationFailed, match=message):
        coverage.check([resource])


def test_names_of_lines_are_unique_in_either_mode_of_the_stream(estimates: dict[str, Estimate]) -> None:
    for found in (*estimates.values(), estimate(shards=None)):
        names = [line.name for line in lines(found.inventory, found.load, prices())]
        assert len(names) == len(set(names))
