"""`make deploy ENV=dev`: everything, in order; after an interruption the same command continues."""

from __future__ import annotations

import argparse
import os
import sys

from rich.console import Console

from local.commands.command import Command, ExitStatus
from local.system import progress
from operations.deployment import summary
from operations.deployment.account import Account, environment, say_endpoint
from operations.deployment.api_check import CheckApi
from operations.deployment.exchange_key import StoreKey
from operations.deployment.first_model import FirstModel
from operations.deployment.foundation import Bootstrap, BuildLayers, ServiceRoles
from operations.deployment.migration import Migrate
from operations.deployment.preflight import Preflight, image_engine
from operations.deployment.stacks import DeployStack
from operations.deployment.steps import Step, carry_out
from operations.deployment.toolkit import Toolkit


def steps(account: Account, engine: str, console: Console, detached: bool) -> list[Step]:
    """All steps. The key comes before the app, whose ingest task cannot start while the secret is empty."""
    cdk = Toolkit(account, engine)
    return [
        Preflight(engine),
        BuildLayers(cdk),
        Bootstrap(cdk),
        ServiceRoles(),
        DeployStack("network", cdk),
        DeployStack("data", cdk),
        StoreKey(),
        DeployStack("app", cdk),
        Migrate(),
        FirstModel(console, detached),
        CheckApi(detached),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("env", metavar="ENV", help="dev or prod")
    parser.add_argument("--detach", action="store_true", help="do not wait for history and the first model")


def run(given: argparse.Namespace) -> ExitStatus:
    account = Account(environment(given.env))
    shown, console = progress.to_stderr(), progress.wide_console(stderr=True)
    plan = steps(account, image_engine(os.environ), console, given.detach)
    carry_out(plan, account, shown, f"make deploy ENV={account.name}")
    print("\n".join(summary.lines(account)), flush=True)
    return ExitStatus.OK


COMMAND = Command("deploy", "deploy an environment into the account, or continue to", add_arguments, run)


def add_diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("env", metavar="ENV", help="dev or prod")


def run_diff(given: argparse.Namespace) -> ExitStatus:
    """Credentials are checked first: layers and templates take minutes to build."""
    account = Account(environment(given.env))
    say_endpoint()
    account.check_access()
    cdk = Toolkit(account)
    BuildLayers(cdk).run(account, lambda text: print(text, file=sys.stderr))
    cdk.diff()
    return ExitStatus.OK


DIFF = Command("diff", "what a deployment would change, of all stacks", add_diff_arguments, run_diff)
