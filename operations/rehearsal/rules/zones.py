"""Availability zones: which there are, which services are offered in, and how many a service asks for."""

from __future__ import annotations

from collections.abc import Iterator

from operations.rehearsal.finding import rule
from operations.rehearsal.rules import pages
from operations.rehearsal.template import Resource, Templates

Found = Iterator[tuple[Resource | str, str, str]]

# Zones that some accounts have and Fargate is not offered in, by region. Their names differ by account.
WITHOUT_FARGATE = {
    "ap-northeast-1": {"apne1-az3"},
    "ca-central-1": {"cac1-az3"},
    "us-east-1": {"use1-az3"},
    "us-west-1": {"usw1-az2"},
}
FEWEST_ZONES = {"us-west-1": 2}  # that an account may have; elsewhere three


def _zone(subnet: Resource) -> str:
    return str(subnet.properties.get("AvailabilityZoneId") or subnet.properties.get("AvailabilityZone", ""))


def _subnets(resource: Resource, templates: Templates, given: object) -> list[Resource]:
    found = [templates.named_by(one, resource.stack) for one in (given if isinstance(given, list) else ())]
    return [one for one in found if one]


@rule(
    "zones-there-are",
    "no subnet asks for a zone further down the region's list than every account has",
    source=pages.FARGATE_ZONES,
    kinds=("AWS::EC2::Subnet",),
    remedy="use fewer zones",
)
def existing(templates: Templates) -> Found:
    there = FEWEST_ZONES.get(templates.region, 3)
    for subnet in templates.resources("AWS::EC2::Subnet"):
        match subnet.written["Properties"].get("AvailabilityZone"):
            case {"Fn::Select": [index, {"Fn::GetAZs": _}]} if int(index) >= there:
                problem = f"asks for zone {int(index) + 1} of the region; an account may have only {there}"
                yield subnet, "AvailabilityZone", problem
            case str() as name:
                problem = f"is {name}; which zone has that name differs between accounts"
                yield subnet, "AvailabilityZone", problem


@rule(
    "zones-with-fargate",
    "the subnets of a Fargate service are in zones that Fargate is offered in",
    source=pages.FARGATE_ZONES,
    kinds=("AWS::ECS::Service", "AWS::EC2::Subnet"),
    remedy="name the zones by AvailabilityZoneId, such as apne1-az1: an id is the same zone in every account",
)
def fargate(templates: Templates) -> Found:
    without = WITHOUT_FARGATE.get(templates.region, set())
    for service in templates.resources("AWS::ECS::Service"):
        network = service.written["Properties"].get("NetworkConfiguration", {}).get("AwsvpcConfiguration", {})
        for subnet in _subnets(service, templates, network.get("Subnets")):
            zone = subnet.properties.get("AvailabilityZoneId")
            if zone in without:
                yield subnet, "AvailabilityZoneId", f"is {zone}, where Fargate is not offered"
            elif without and not zone:
                problem = (
                    f"may be {', '.join(sorted(without))} in some accounts, where Fargate is not offered"
                )
                yield subnet, "AvailabilityZone", problem


@rule(
    "zones-of-subnet-groups",
    "the subnets of a database, and of a cache with failover, are in two zones or more",
    source=pages.DATABASE_SUBNETS,
    kinds=("AWS::RDS::DBSubnetGroup", "AWS::ElastiCache::SubnetGroup"),
    remedy="add a subnet in a second zone",
)
def subnet_groups(templates: Templates) -> Found:
    fails_over = any(
        group.properties.get("AutomaticFailoverEnabled")
        for group in templates.resources("AWS::ElastiCache::ReplicationGroup")
    )
    for group in templates.resources(*subnet_groups.kinds):
        if group.kind == "AWS::ElastiCache::SubnetGroup" and not fails_over:
            continue
        subnets = _subnets(group, templates, group.written["Properties"].get("SubnetIds"))
        zones = {_zone(subnet) for subnet in subnets}
        if len(zones) < 2:
            yield group, "SubnetIds", f"are in {', '.join(zones) or 'no zone'}; two zones are needed"


RULES = (existing, fargate, subnet_groups)
