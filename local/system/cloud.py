"""AWS on this machine: an emulator, the CDK app deployed onto it by CloudFormation, and clients for both.

The emulator keeps its own state in memory and gets it from each deployment: after a crash a saved state
could not be trusted. The models in its S3 are carried over (`local.system.model_backup`).

All calls go to the endpoint by its IP address with dummy credentials. The user's AWS settings, a profile of a
real account above all, are kept out of every process's environment.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.system.emulator import Emulator
from local.system.processes import Process, Processes
from local.system.servers import HOST
from local.system.state_folder import BUILD, ROOT, StateFolder
from tickcast.adapters import json_text

REGION = "us-east-1"
ACCOUNT = "000000000000"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

_CDK = ROOT / "node_modules" / ".bin" / "cdk"
_APP_STACK = "tickcast-local-app"
_DEPLOY_S = 300
LONGEST_S = 900  # that a function may run: Lambda's own limit
_PYTHON_SETTINGS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP")


def client_of(endpoint_url: str, service: str) -> Any:
    """A boto3 client of the emulator; it does not retry, and a call may last as long as a training."""
    return boto3.client(
        service,
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(
            proxies={},
            connect_timeout=5,
            read_timeout=LONGEST_S,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )


def outputs_of(cloudformation: Any, stack: str = _APP_STACK) -> dict[str, str]:
    """The outputs of the app's stack."""
    (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}


def api_key_of(apigateway: Any, key_id: str) -> str:
    return str(apigateway.get_api_key(apiKey=key_id, includeValue=True)["value"])


class FunctionFailed(RuntimeError):
    """An invoked function returned an error, which is the message."""


def invoke(functions: Any, function: str, request: dict[str, Any]) -> dict[str, Any]:
    """The result of `function`. Raises `FunctionFailed`."""
    answer = functions.invoke(FunctionName=function, Payload=json_text.text(request))
    result: dict[str, Any] = json.load(answer["Payload"])
    if "FunctionError" in answer:
        raise FunctionFailed(f"{function}: {result.get('errorType')}: {result.get('errorMessage')}")
    return result


def environment(endpoint_url: str, state: StateFolder) -> dict[str, str]:
    """The environment of every process: this one's, but the emulator's AWS settings, not the user's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("AWS_") and name not in _PYTHON_SETTINGS
    }
    direct = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), HOST]))
    return kept | {
        **CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": direct,
        "no_proxy": direct,
        "TMPDIR": str(state.temp),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers" / "core" / "python")]),
        # The CDK checks no versions, sends no telemetry, and keeps its cache in here.
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "CDK_DISABLE_VERSION_CHECK": "true",
        "JSII_RUNTIME_PACKAGE_CACHE_ROOT": str(BUILD / "jsii"),
        "JSII_SILENCE_WARNING_UNTESTED_NODE_VERSION": "1",
        "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "20",
    }


class Cloud:
    """The emulator at `endpoint_url`."""

    def __init__(
        self, emulator: Emulator, endpoint_url: str, processes: Processes, state: StateFolder
    ) -> None:
        self.emulator = emulator
        self.endpoint_url = endpoint_url
        self._processes = processes
        self._state = state

    def start(self) -> Process:
        return self.emulator.start(self.endpoint_url, self._processes, self._state)

    def wait(self, process: Process) -> None:
        """Wait until the emulator serves. Raises `ProcessFailed`."""

        def responds() -> bool:
            try:
                return self.emulator.is_ready(self.endpoint_url)
            except (OSError, ValueError):
                return False

        self._processes.wait_until(responds, process, timeout_s=60)

    def start_synthesis(self, context: Mapping[str, str]) -> Process:
        """Start to synthesise the app; the assets are left where they are instead of being copied."""
        app = shlex.join([sys.executable, "app.py"])
        command: list[str | Path] = [
            _CDK,
            "synth",
            "--quiet",
            "--no-staging",
            "--app",
            app,
            "--output",
            self._state.assembly,
        ]
        for name, value in {"env": "local", **context}.items():
            command += ["--context", f"{name}={value}"]
        return self._processes.start("synth", command, is_step=True)

    def start_bootstrap(self) -> Process:
        command: list[str | Path] = [_CDK, "bootstrap", f"aws://{ACCOUNT}/{REGION}", "--app", ""]
        return self._processes.start("bootstrap", command, is_step=True)

    def finish(self, *steps: Process) -> None:
        """Wait for started steps to end. Raises `ProcessFailed`."""
        for step in steps:
            self._processes.finish(step, _DEPLOY_S)

    def deploy(self) -> None:
        """Deploy the synthesised app. Raises `ProcessFailed`."""
        options = ["--all", "--method=direct", "--require-approval=never", "--progress=events"]
        command: list[str | Path] = [_CDK, "deploy", "--app", self._state.assembly, *options]
        self.finish(self._processes.start("deploy", command, is_step=True))

    @cache  # noqa: B019 (a cloud lives as long as the process, or its test session)
    def client(self, service: str) -> Any:
        """A boto3 client, cached."""
        return client_of(self.endpoint_url, service)

    def outputs(self) -> dict[str, str]:
        """The outputs of the app's stack."""
        return outputs_of(self.client("cloudformation"))

    def api_key(self, key_id: str) -> str:
        return api_key_of(self.client("apigateway"), key_id)

    def batch_window_s(self) -> float:
        """The longest that a record of the stream waits here for its batch to fill."""
        if not self.emulator.applies_batch_windows:
            return 0.0
        mappings = self.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        return max(float(mapping["MaximumBatchingWindowInSeconds"]) for mapping in mappings)

    def load(self, function: str, request: dict[str, Any]) -> list[str]:
        """Load objects of bronze into PostgreSQL by `function`; returns why objects were refused. Raises
        `FunctionFailed` where all were."""
        refused, has_loaded, is_complete = [], False, False
        while not is_complete:
            loaded = invoke(self.client("lambda"), function, request)
            refused += [*loaded["quarantined"], *loaded["problems"]]
            has_loaded |= loaded["objects"] > 0
            is_complete = loaded["complete"]
        if refused and not has_loaded:
            raise FunctionFailed(f"{function}: {'; '.join(refused)}")
        return refused

    def train(self, function: str, symbols: Sequence[str], reason: str) -> dict[str, Any]:
        """Train a provisional model on all rows of `symbols` by `function` and make it the champion; the
        function's result. Raises `FunctionFailed`."""
        request = {"symbols": list(symbols), "provisional": True, "reason": reason, "replace": True}
        trained = invoke(self.client("lambda"), function, request)
        if trained["model_id"] is None:
            raise FunctionFailed(f"{function}: {trained['why']}")
        return trained
