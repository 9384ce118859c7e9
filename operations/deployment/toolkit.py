"""The CDK CLI, with the region of the environment and without the exchange's key in its environment."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from operations.deployment.account import Account
from operations.failures import OperationFailed

ROOT = Path(__file__).resolve().parents[2]
CDK = ROOT / "node_modules" / ".bin" / "cdk"
_SECRETS = ("BINANCE_API_KEY", "BINANCE_API_KEY_FILE")


class Toolkit:
    """Runs the CLI. `engine`: the program that builds images, as CDK_DOCKER; empty: docker."""

    def __init__(self, account: Account, engine: str = "") -> None:
        self._account = account
        self._engine = engine

    def environment(self) -> dict[str, str]:
        """The environment of its processes: the region is the configuration's, whatever the shell has."""
        region = self._account.region
        kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
        return kept | {
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            **({"CDK_DOCKER": self._engine} if self._engine else {}),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers" / "core" / "python")]),
            "CDK_DISABLE_CLI_TELEMETRY": "true",
            "CDK_DISABLE_VERSION_CHECK": "true",
            "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
        }

    @cached_property
    def assembly(self) -> Path:
        """The synthesised app; synthesised once for all stacks of a command."""
        output = ROOT / ".build" / f"assembly-{self._account.name}"
        app = shlex.join([sys.executable, "app.py"])
        context = f"env={self._account.name}"
        self._run("synth", "--quiet", "--app", app, "--output", str(output), "--context", context)
        return output

    def bootstrap(self) -> None:
        """Make the account's stack for deployments. The app is not synthesised: a fresh clone cannot."""
        target = f"aws://{self._account.id}/{self._account.region}"
        self._run("bootstrap", target, "--app", "")

    def deploy(self, stack: str) -> None:
        self._run(
            *("deploy", "--app", str(self.assembly), "--exclusively", "--require-approval=never"),
            *("--progress=events", stack),
        )

    def diff(self) -> None:
        """Print what a deployment would change, of all stacks."""
        self._run("diff", "--app", str(self.assembly))

    def _run(self, command: str, *arguments: str) -> None:
        if not CDK.exists():
            raise OperationFailed(f"{CDK.relative_to(ROOT)} is missing: run `make setup`")
        status = run([str(CDK), command, *arguments], self.environment())
        if status:
            raise OperationFailed(f"`cdk {command}` ended with status {status}; its output is above")


def run(command: list[str], environment: Mapping[str, str]) -> int:
    """The exit status of a program in the repository's root, whose output goes to stderr: stdout is for the
    result."""
    return subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False).returncode
