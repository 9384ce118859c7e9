"""No deployment replaces or removes a resource unnoticed.

CloudFormation replaces a resource whose logical id or whose create-only properties change: of a bucket or a
database, an empty one is left. `logical_ids/<environment>.json` records both for what is deployed; after a
change that is meant, `UPDATE_LOGICAL_IDS=1 .venv/bin/python -m pytest tests/infra/test_replacement.py`
records them again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from operations.rehearsal.synthesis import Synthesised

RECORDS = Path(__file__).with_name("logical_ids")

# Types that are replaced by design with every change of code.
NEW_WITH_EVERY_CHANGE = {
    "AWS::Lambda::LayerVersion": "a version is immutable, and contains code",
    "AWS::ApiGateway::Deployment": "an immutable snapshot of the API; its logical id is a hash of it",
    "AWS::ECS::TaskDefinition": "a revision is immutable, and names an image",
}

# By stack and logical id: the type and the create-only properties.
Record = dict[str, dict[str, dict[str, Any]]]


def record_of(templates: dict[str, dict[str, Any]]) -> Record:
    return {
        stack: {
            logical_id: {"Type": resource["Type"]} | create_only(resource)
            for logical_id, resource in sorted(template["Resources"].items())
            if resource["Type"] not in NEW_WITH_EVERY_CHANGE
        }
        for stack, template in sorted(templates.items())
    }


def create_only(resource: dict[str, Any]) -> dict[str, str]:
    """The create-only properties of a resource, by the registry's schema of its type, with their values."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("ap-northeast-1", resource["Type"]).schema
    found = {}
    for pointer in schema.get("createOnlyProperties", ()):
        value: Any = resource.get("Properties", {})
        names = pointer.removeprefix("/properties/").split("/")
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found[".".join(names)] = text(value)
    return dict(sorted(found.items()))


def text(value: Any) -> str:
    """A property's value in one line, references as `Fn::Sub` writes them."""
    match value:
        case {"Ref": name} | {"Fn::ImportValue": name}:
            return f"${{{name}}}"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"${{{name}.{attribute}}}"
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(map(text, parts))
        case str():
            return value
    return json.dumps(value, sort_keys=True)


def differences(before: Record, after: Record) -> list[str]:
    """What the next deployment would do to what is recorded, a line for each resource."""
    found = []
    for stack in sorted(before.keys() | after.keys()):
        old, new = before.get(stack, {}), after.get(stack, {})
        found += [f"{stack}: {name} ({old[name]['Type']}) is removed" for name in sorted(old.keys() - new)]
        found += [
            f"{stack}: {name} ({new[name]['Type']}) is not recorded" for name in sorted(new.keys() - old)
        ]
        for name in sorted(old.keys() & new):
            changed = [
                p for p in sorted(old[name].keys() | new[name]) if old[name].get(p) != new[name].get(p)
            ]
            found += [
                f"{stack}: {name} ({old[name]['Type']}) is replaced: {p} was {old[name].get(p)}, "
                f"is {new[name].get(p)}"
                for p in changed
            ]
    return found


def write(record: Record, path: Path) -> None:
    """A line for each resource."""
    stacks = (
        f"{json.dumps(stack)}: {{\n"
        + ",\n".join(f"{json.dumps(name)}: {json.dumps(resource)}" for name, resource in resources.items())
        + "\n}"
        for stack, resources in record.items()
    )
    path.write_text("{\n" + ",\n".join(stacks) + "\n}\n", "utf-8")


def test_no_resource_is_replaced_or_removed(synthesised: Synthesised) -> None:
    path, now = RECORDS / f"{synthesised.name}.json", record_of(synthesised.templates)
    if os.environ.get("UPDATE_LOGICAL_IDS"):
        write(now, path)
    found = differences(json.loads(path.read_text("utf-8")), now)
    assert not found, (
        "\n".join(found) + "\nIf that is meant: UPDATE_LOGICAL_IDS=1 "
        ".venv/bin/python -m pytest tests/infra/test_replacement.py"
    )


BUCKET = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "lake"}}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"Lake": BUCKET}, []),
        ({"Lake": BUCKET | {"Properties": {"BucketName": "lake", "Tags": []}}}, []),
        ({}, ["data: Lake (AWS::S3::Bucket) is removed"]),
        (
            {"Renamed": BUCKET},
            ["data: Lake (AWS::S3::Bucket) is removed", "data: Renamed (AWS::S3::Bucket) is not recorded"],
        ),
        (
            {"Lake": BUCKET | {"Properties": {"BucketName": {"Ref": "Name"}}}},
            ["data: Lake (AWS::S3::Bucket) is replaced: BucketName was lake, is ${Name}"],
        ),
        (
            {"Lake": {"Type": "AWS::SNS::Topic"}},
            [
                "data: Lake (AWS::S3::Bucket) is replaced: BucketName was lake, is None",
                "data: Lake (AWS::S3::Bucket) is replaced: Type was AWS::S3::Bucket, is AWS::SNS::Topic",
            ],
        ),
    ],
)
def test_each_kind_of_difference_is_found(resources: dict[str, Any], expected: list[str]) -> None:
    before = record_of({"data": {"Resources": {"Lake": BUCKET}}})
    assert differences(before, record_of({"data": {"Resources": resources}})) == expected
