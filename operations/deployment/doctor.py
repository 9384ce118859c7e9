"""`make doctor ENV=dev`: the state of a deployment, and what to do about each thing that is not well.

Nothing is changed. Checks do not depend on each other: one that cannot be made says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from rich.markup import escape

from ingest_ecs.settings import NO_KEY
from local.commands import aws_access
from local.commands.command import Command, ExitStatus, passed
from local.system import progress
from operations.deployment.account import DEPLOYED, MIGRATED, STACKS, Account, environment
from operations.deployment.api_check import api_of, is_well, services_of
from operations.deployment.exchange_key import stored_value
from operations.deployment.first_model import bucket, name_of, running
from operations.deployment.foundation import LEAST_BOOTSTRAP, bootstrap_version
from operations.deployment.migration import revision
from operations.deployment.served import difference, room_problem, served
from operations.deployment.steps import FAILURES
from operations.deployment.version import version
from operations.failures import OperationFailed
from tickcast.adapters.registry import model_registry

_WELL = ("CREATE_COMPLETE", "UPDATE_COMPLETE")
_SHOWN_EVENTS = 3


class State(NamedTuple):
    """One line of the report. `todo` is empty where nothing is to be done."""

    is_well: bool
    what: str
    todo: str = ""


Check = Callable[[Account], Iterator[State]]


def examine(account: Account) -> list[State]:
    """The state of everything. Raises nothing: what cannot be asked is a line too."""
    try:
        report = [State(True, f"account {account.id}, region {account.region}")]
        checks = [*_OF_ACCOUNT, *(_OF_APP if account.status("app") else ())]
        if note := aws_access.endpoint_note():
            report.append(State(True, note))
    except (BotoCoreError, ClientError) as error:
        return [State(False, f"account: {aws_access.why(error)}", "nothing else can be asked without")]
    for check in checks:
        try:
            report += check(account)
        except FAILURES as error:
            subject = check.__name__.removeprefix("_of_").replace("_", " ")
            report.append(
                State(
                    False,
                    f"{subject}: could not be asked",
                    str(error) if isinstance(error, OperationFailed) else aws_access.why(error),
                )
            )
    return report


def _of_bootstrap(account: Account) -> Iterator[State]:
    found = bootstrap_version(account)
    is_new = found >= LEAST_BOOTSTRAP
    yield State(is_new, f"bootstrap version {found or 'none'}", "" if is_new else _deploy(account))


def _of_stacks(account: Account) -> Iterator[State]:
    for part in STACKS:
        status = account.status(part)
        if status in _WELL:
            yield State(True, f"stack {part}: {status}")
        elif status.endswith("_IN_PROGRESS"):
            yield State(False, f"stack {part}: {status}", f"wait, or {_deploy(account)}, which waits as well")
        elif status == "UPDATE_ROLLBACK_COMPLETE":
            yield State(
                False,
                f"stack {part}: {status}: the last deployment was rolled back",
                f"read the reason among the stack's events, then {_deploy(account)}",
            )
        else:
            yield State(False, f"stack {part}: {status or 'not deployed'}", _deploy(account))


def _of_version(account: Account) -> Iterator[State]:
    deployed, here = account.noted(DEPLOYED), version()
    at = account.noted(f"{DEPLOYED}-at")
    if deployed == here:
        yield State(True, f"version {deployed} of {at}, as in this checkout")
    else:
        yield State(
            False,
            f"version {deployed or 'unknown'}{f' of {at}' if at else ''}; this checkout is {here}",
            f"make diff ENV={account.name} shows the difference, {_deploy(account)} deploys it",
        )


def _of_ingest(account: Account) -> Iterator[State]:
    outputs = account.outputs("app")
    (service,) = account.client("ecs").describe_services(
        cluster=outputs["ClusterArn"], services=[outputs["IngestService"]]
    )["services"]
    running_tasks, desired = service["runningCount"], service["desiredCount"]
    failed = [each for each in service.get("deployments", []) if each.get("rolloutState") == "FAILED"]
    if running_tasks >= desired and not failed:
        yield State(True, f"ingest: {running_tasks} of {desired} tasks run")
        return
    events = "; ".join(event["message"] for event in service.get("events", [])[:_SHOWN_EVENTS])
    stopped = _last_stopped(account, outputs)
    why = f"; the last one stopped: {stopped}" if stopped else ""
    why += "".join(f"; {each.get('rolloutStateReason', 'a deployment failed')}" for each in failed)
    yield State(
        False,
        f"ingest: {running_tasks} of {desired} tasks run{why}",
        f"the task's log, and docs/runbook.md, IngestTasksMissing; the service says: {events or 'nothing'}",
    )


def _last_stopped(account: Account, outputs: dict[str, str]) -> str:
    ecs = account.client("ecs")
    arns = ecs.list_tasks(
        cluster=outputs["ClusterArn"], serviceName=outputs["IngestService"], desiredStatus="STOPPED"
    )["taskArns"]
    if not arns:
        return ""
    (task,) = ecs.describe_tasks(cluster=outputs["ClusterArn"], tasks=arns[:1])["tasks"]
    return str(task.get("stoppedReason", ""))


def _of_key(account: Account) -> Iterator[State]:
    stored = stored_value(account)
    if stored is None:
        yield State(False, "the exchange's key: the secret is empty, ingest cannot start", _deploy(account))
    elif stored == NO_KEY:
        yield State(True, "the exchange's key: none; ingest takes the public mirror (public_json)")
    else:
        yield State(True, "the exchange's key: stored (sbe)")


def _of_migration(account: Account) -> Iterator[State]:
    migrated, current = account.noted(MIGRATED), revision(account)
    if migrated and migrated == current:
        yield State(True, f"migration: {migrated}, at {account.noted(f'{MIGRATED}-at')}")
    else:
        yield State(
            False, f"migration: {migrated or 'none'} has run, {current} is deployed", _deploy(account)
        )


def _of_stream_consumers(account: Account) -> Iterator[State]:
    functions = account.client("lambda")
    for resource in account.resources(account.stack_name("app")):
        if resource.kind != "AWS::Lambda::EventSourceMapping":
            continue
        found = functions.get_event_source_mapping(UUID=resource.physical_id)
        name = str(found["FunctionArn"]).rpartition(":")[2]
        if found["State"] == "Enabled":
            yield State(True, f"consumer {name}: {found.get('LastProcessingResult') or 'enabled'}")
        else:
            yield State(False, f"consumer {name}: {found['State']}", "enable the event source mapping")


def _of_model(account: Account) -> Iterator[State]:
    pointer = model_registry.active_model(account.client("s3"), bucket(account))
    if pointer:
        yield State(True, f"model in force: {pointer.model_id}, since {pointer.since}")
    elif arn := running(account):
        yield State(False, f"no model yet: execution {name_of(arn)} is training one", "wait; about an hour")
    else:
        yield State(False, "no model: every answer is a fallback", _deploy(account))


def _of_symbols(account: Account) -> Iterator[State]:
    found = served(account)
    what = f"symbols: {', '.join(found.symbols)}"
    if not found.version:
        yield State(True, f"{what}, as configured")
        return
    what += f", version {found.version} since {found.since}"
    if problem := room_problem(account, found):
        yield State(False, what, problem)
    elif differs := difference(account, found):
        file = f"cdk/config/{account.name}.yaml"
        yield State(
            True, f"{what}; {differs}, which takes precedence over {file}", f"the same symbols in {file}"
        )
    else:
        yield State(True, f"{what}, as configured")


def _of_alarms(account: Account) -> Iterator[State]:
    names = [
        resource.physical_id
        for stack in STACKS
        if account.status(stack)
        for resource in account.resources(account.stack_name(stack))
        if resource.kind == "AWS::CloudWatch::Alarm"
    ]
    loud: list[dict[str, Any]] = []
    for at in range(0, len(names), 100):
        found = account.client("cloudwatch").describe_alarms(AlarmNames=names[at : at + 100])
        loud += [alarm for alarm in found["MetricAlarms"] if alarm["StateValue"] == "ALARM"]
    if not loud:
        yield State(True, f"alarms: none of {len(names)}")
    for alarm in loud:
        yield State(
            False,
            f"alarm {alarm['AlarmName']}: {alarm.get('StateReason', '')}",
            "its line in docs/runbook.md",
        )


def _of_api(account: Account) -> Iterator[State]:
    status, body = api_of(account).get("health")
    services = services_of(body)
    wrong = [f"{name}: {each.get('why')}" for name, each in services.items() if not is_well(name, each)]
    source = next((each["source"] for each in services.values() if each.get("source")), "unknown")
    if status == 200:
        yield State(True, f"API: healthy; source of the ticks: {source}")
    else:
        yield State(False, f"API: {status}; {'; '.join(wrong) or 'no reason given'}", "docs/runbook.md")


def _deploy(account: Account) -> str:
    return f"make deploy ENV={account.name}"


_OF_ACCOUNT: tuple[Check, ...] = (_of_bootstrap, _of_stacks)
_OF_APP: tuple[Check, ...] = (
    *(_of_version, _of_key, _of_ingest, _of_migration, _of_stream_consumers, _of_model),
    *(_of_symbols, _of_alarms, _of_api),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("env", metavar="ENV", help="dev or prod")


def run(given: argparse.Namespace) -> ExitStatus:
    report, console = examine(Account(environment(given.env))), progress.wide_console()
    for state in report:
        mark = "[green]✓[/green]" if state.is_well else "[red]✗[/red]"
        console.print(f"{mark} {escape(state.what)}", soft_wrap=True, highlight=False)
        if state.todo:
            console.print(f"    → {escape(state.todo)}", soft_wrap=True, highlight=False)
    return passed(all(state.is_well for state in report))


COMMAND = Command("doctor", "the state of a deployment, and what to do", add_arguments, run)
