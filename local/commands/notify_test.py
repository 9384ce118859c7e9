"""`make notify-test`: a test message to each destination of a deployment's signals.

With `DESTINATIONS=` a file's receivers are put first, as encrypted parameters of the account (or of the
system that runs here).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.commands import aws_access, deployment
from local.commands.command import Command, ExitStatus, passed, print_last_line
from local.commands.deployment import Deployment, DeploymentNotFound
from local.system import cloud, progress
from local.system.receivers import put_receivers, read_receivers
from tickcast.adapters import json_text
from tickcast.adapters.settings import SendSignalsSettings
from tickcast.adapters.variables import read
from tickcast.serving.signals import Signals


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--destinations", type=Path, metavar="FILE", help="put its receivers first; default: those there are"
    )
    deployment.add_aws_argument(parser)


def run(given: argparse.Namespace) -> ExitStatus:
    """The last line is JSON: what became of each message."""
    aws = deployment.aws_environment(given)
    there, steps = deployment.existing(aws), progress.to_stderr()
    function = function_of(there, aws)
    try:
        if given.destinations:
            environment = aws or "local"
            receivers = read_receivers(given.destinations, signals_of(there, function), environment)
            put_receivers(there.client("ssm"), environment, receivers)
            steps.say(f"put the receivers of {', '.join(receivers)}")
        sent: Any = cloud.invoke(there.functions, function, {"test": True})
    except (BotoCoreError, ClientError) as error:
        raise DeploymentNotFound(f"{there.title}: {aws_access.why(error)}") from None
    for each in sent:
        steps.say(sentence(each))
    print_last_line({"ok": all(is_sent(each) for each in sent), "destinations": sent})
    return passed(all(is_sent(each) for each in sent))


COMMAND = Command(
    "notify-test",
    "send a test message to each destination of signals; the last line is JSON",
    add_arguments,
    run,
)


def function_of(there: Deployment, aws: str) -> str:
    """Raises `DeploymentNotFound` for a deployment without signals."""
    found = there.outputs.get("SendSignalsFunction")
    if found:
        return found
    how = (
        f"add destinations and rules to `signals` of cdk/config/{aws}.yaml, then make deploy ENV={aws}"
        if aws
        else "make run SIGNALS=signals.yaml DESTINATIONS=destinations.json"
    )
    raise DeploymentNotFound(f"{there.title} has no signals: {how} (docs/signals.md)")


def signals_of(there: Deployment, function: str) -> Signals:
    """The destinations and rules as deployed."""
    found = there.functions.get_function_configuration(FunctionName=function)
    variables = found["Environment"]["Variables"]
    return read(SendSignalsSettings, {"AWS_REGION": cloud.REGION, **variables}).signals


def is_sent(sent: dict[str, Any]) -> bool:
    return bool(sent["became"] == "sent")


def sentence(sent: dict[str, Any]) -> str:
    """What became of one message."""
    name = sent["destination"]
    if not is_sent(sent):
        return f"[red]{name}[/red]: not sent: {sent['why'] or json_text.text(sent)}"
    attempts = "" if sent["attempts"] == 1 else f" at attempt {sent['attempts']}"
    return f"{name}: sent{attempts}"
