"""The stacks created and deleted in moto, an emulation of AWS in this process.

moto knows some types of resources, and of these some attributes. What it does not know, or fails on by a
fault of its own, is left out, and what refers to it gets a value of the attribute's form.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.cloudformation import parsing
from moto.core.exceptions import ServiceException
from werkzeug.exceptions import HTTPException

from operations.rehearsal.finding import Finding
from operations.rehearsal.template import ACCOUNT, Templates, references

BOOTSTRAP = "/cdk-bootstrap/hnb659fds/version"
ASSETS = f"cdk-hnb659fds-assets-{ACCOUNT}-{{region}}"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "rehearsal",
    "AWS_SECRET_ACCESS_KEY": "rehearsal",
    "AWS_SESSION_TOKEN": "rehearsal",
}
PASSES = 6  # what a resource that is left out makes fail is found in the next one
REFUSALS = (HTTPException, ServiceException)  # moto's answers in a service's place; others are its own faults

Key = tuple[str, str]  # stack, logical id


@dataclass
class Created:
    """What moto made of the stacks: the types it created, those it does not know, and those of which it fails
    on some resource, with its error; of stacks that it could not delete, why: it removes no route tables, so
    never a network."""

    kinds: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    resources: int = 0
    undeleted: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def create(templates: Templates) -> Created:
    """Creates the stacks in their order, and deletes them in the opposite one."""
    left_out: dict[Key, Exception] = {}
    for _ in range(PASSES):
        failures: dict[Key, Exception] = {}
        result = _attempt(templates, left_out, failures)
        if not failures:
            break
        left_out |= failures
    for (stack, logical_id), error in left_out.items():
        kind = templates.documents[stack]["Resources"][logical_id]["Type"]
        result.failed[kind] = f"{type(error).__name__}: {error}"
        if isinstance(error, REFUSALS) and not _rests_on(templates, stack, logical_id, left_out):
            remedy = "compare the resource with the service's documentation; moto may be wrong"
            problem = f"{kind} is refused: {getattr(error, 'description', error)}"
            result.findings.append(Finding("moto create", stack, logical_id, logical_id, problem, remedy))
    return result


def _rests_on(templates: Templates, stack: str, logical_id: str, left_out: Collection[Key]) -> bool:
    """Whether a resource refers to one that moto does not have, so that a refusal says nothing."""
    known = parsing.get_model_map()
    resources = [
        templates.named_by(reference, stack)
        for reference in references(templates.documents[stack]["Resources"][logical_id])
    ]
    return any(one.kind not in known or (one.stack, one.logical_id) in left_out for one in resources if one)


def _attempt(templates: Templates, left_out: dict[Key, Exception], failures: dict[Key, Exception]) -> Created:
    """One creation in an empty account; `failures` gets what failed."""
    result, made = Created(), []
    with _account(templates.region) as cloudformation:
        for stack in templates.documents:
            without = {logical_id for where, logical_id in left_out if where == stack}
            document = known_part(templates, stack, without)
            written = templates.documents[stack]["Resources"]
            result.unknown |= {one["Type"] for one in written.values()} - parsing.get_model_map().keys()
            with _failures_of(stack, failures):
                problem = _create(cloudformation, templates.stack_name(stack), document)
            if problem and not failures:
                remedy = "compare the template with CloudFormation's documentation; moto may be wrong"
                result.findings.append(Finding("moto create", stack, "", "", problem, remedy))
            if problem:
                break
            made.append(stack)
            result.kinds |= {one["Type"] for one in document["Resources"].values()}
            result.resources += len(document["Resources"])
        for stack in () if failures else reversed(made):
            if problem := _delete(cloudformation, templates.stack_name(stack)):
                result.undeleted[stack] = problem
    return result


def known_part(templates: Templates, stack: str, without: Collection[str] = ()) -> dict[str, Any]:
    """The part of a template that moto knows, `without` some resources; references to the rest are replaced
    by values of their form."""
    document, known = templates.documents[stack], parsing.get_model_map()
    kept = {
        name: one
        for name, one in document["Resources"].items()
        if one["Type"] in known and name not in without
    }

    def has(name: str, attribute: str) -> bool:
        return name in kept and bool(known[kept[name]["Type"]].has_cfn_attr(attribute))

    def replaced(value: Any) -> Any:
        if isinstance(value, list):
            return [replaced(item) for item in value]
        if not isinstance(value, dict):
            return value
        match value:
            case {"Ref": str() as name} if name in document["Resources"] and name not in kept:
                return templates.resolved(value, stack)
            case {"Fn::GetAtt": [name, attribute]} if not has(name, attribute):
                return templates.resolved(value, stack)
        return {name: replaced(item) for name, item in value.items()}

    part = {**document, "Resources": {}}
    for name, one in kept.items():
        written = {key: replaced(value) for key, value in one.items() if key != "DependsOn"}
        after = one.get("DependsOn", [])
        if before := [other for other in ([after] if isinstance(after, str) else after) if other in kept]:
            written["DependsOn"] = before
        part["Resources"][name] = written
    part["Outputs"] = replaced(document.get("Outputs", {}))
    part.pop("Rules", None)  # they check the bootstrap's version
    return part


@contextmanager
def _account(region: str) -> Iterator[Any]:
    """An empty account after its bootstrap; yields a client of CloudFormation."""
    settings: Any = {"lambda": {"use_docker": False}}
    environ = CREDENTIALS | {"AWS_DEFAULT_REGION": region}
    with mock.patch.dict(os.environ, environ), warnings.catch_warnings(), mock_aws(config=settings):
        warnings.simplefilter("ignore")  # moto's, about errors that botocore's models do not list
        os.environ.pop("AWS_ENDPOINT_URL", None)
        os.environ.pop("AWS_PROFILE", None)
        boto3.client("ssm", region_name=region).put_parameter(Name=BOOTSTRAP, Value="99", Type="String")
        place: Any = {"CreateBucketConfiguration": {"LocationConstraint": region}}
        boto3.client("s3", region_name=region).create_bucket(
            Bucket=ASSETS.format(region=region), **({} if region == "us-east-1" else place)
        )
        yield boto3.client("cloudformation", region_name=region)


@contextmanager
def _failures_of(stack: str, failures: dict[Key, Exception]) -> Iterator[None]:
    """Within it a resource that moto fails to create is added to `failures` instead of ending the stack."""
    create_one = parsing.parse_and_create_resource

    def tolerant(logical_id: str, *arguments: Any, **named: Any) -> Any:
        try:
            return create_one(logical_id, *arguments, **named)
        except Exception as error:  # of whatever type: moto's models fail on what they do not expect
            failures[stack, logical_id] = error
            return None

    with mock.patch.object(parsing, "parse_and_create_resource", tolerant):
        yield


def _create(cloudformation: Any, name: str, document: dict[str, Any]) -> str:
    """What went wrong with the stack as a whole, empty if nothing did."""
    try:
        cloudformation.create_stack(
            StackName=name, TemplateBody=json.dumps(document), Capabilities=["CAPABILITY_NAMED_IAM"]
        )
        [stack] = cloudformation.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        return str(error)
    except Exception as error:  # as in `tolerant`
        return f"{type(error).__name__}: {error}"
    status = str(stack["StackStatus"])
    return "" if status == "CREATE_COMPLETE" else f"{status} {stack.get('StackStatusReason', '')}"


def _delete(cloudformation: Any, name: str) -> str:
    """What went wrong, empty if nothing did."""
    try:
        cloudformation.delete_stack(StackName=name)
        stacks = cloudformation.list_stacks()["StackSummaries"]
    except ClientError as error:
        return str(error)
    except Exception as error:  # as in `tolerant`
        return f"{type(error).__name__}: {error}"
    left = [one["StackStatus"] for one in stacks if one["StackName"] == name]
    return "" if left in ([], ["DELETE_COMPLETE"]) else f"the stack is {', '.join(left)}"
