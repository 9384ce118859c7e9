"""A state machine executed by the rules of Step Functions, its functions being plain Python ones.

The interpreter is LocalStack's, which moto carries: unlike the emulator that the system runs on, it brings
an exception's name to `Retry` and `Catch`, as AWS does. No time passes: what would be waited is noted.
"""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.core.config import default_user_config
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import lambda_eval_utils
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service import state_task_service_sfn
from moto.stepfunctions.parser.asl.component.state.wait.wait_function import wait_function

Function = Callable[[dict[str, Any]], Any]
_ROLE = "arn:aws:iam::123456789012:role/execution"
_REGION = "us-east-1"
_PATIENCE_S = 60


@dataclass
class Execution:
    """What came of one."""

    status: str
    output: Any
    error: str | None
    cause: str | None
    name: str
    input: Any
    events: int  # in its history


@dataclass
class Executions:
    """All that one start led to, in order of their starts."""

    all: list[Execution] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)  # by Wait states
    backed_off_s: list[float] = field(default_factory=list)  # before retries

    def payloads(self, function: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.calls if name == function]


class _Lambda:
    """The part of boto3's client that the interpreter uses."""

    def __init__(self, functions: Mapping[str, Function], executions: Executions) -> None:
        self._functions = functions
        self._executions = executions
        self._lock = threading.Lock()

    def invoke(self, FunctionName: str, Payload: bytes, **_: Any) -> dict[str, Any]:  # noqa: N803
        payload = json.loads(Payload)
        with self._lock:
            self._executions.calls.append((FunctionName, payload))
        answer: dict[str, Any] = {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
        try:
            result = self._functions[FunctionName](payload)
        except Exception as error:  # as Lambda reports it
            result = {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": []}
            answer["FunctionError"] = "Unhandled"
        return answer | {"Payload": io.BytesIO(json.dumps(result).encode())}


class _States:
    def start_execution(self, **parameters: str) -> dict[str, Any]:
        client = boto3.client("stepfunctions", region_name=_REGION)
        named = {name[0].lower() + name[1:]: value for name, value in parameters.items()}
        answer = client.start_execution(**named)
        return {"ExecutionArn": answer["executionArn"], "StartDate": answer["startDate"].isoformat()}


def execute(
    definition: str, functions: Mapping[str, Function], request: Any, monkeypatch: pytest.MonkeyPatch
) -> Executions:
    """Execute `definition`, in which each of `functions` is called `<name>`, and what it starts in turn."""
    executions = Executions()
    client = _Lambda(functions, executions)
    monkeypatch.setattr(lambda_eval_utils, "boto_client_for", lambda **_: client)
    monkeypatch.setattr(retrier_decl, "time", SimpleNamespace(sleep=executions.backed_off_s.append))
    monkeypatch.setattr(
        wait_function.WaitFunction,
        "_wait_interval",
        lambda self, env, wait_seconds: executions.waited_s.append(wait_seconds),
    )
    # moto's port leaves out how Step Functions' names of parameters become boto3's.
    monkeypatch.setattr(state_task_service_sfn, "boto_client_for", lambda **_: _States())
    config = default_user_config | {"stepfunctions": {"execute_state_machine": True}}
    with mock_aws(config=config):
        states = boto3.client("stepfunctions", region_name=_REGION)
        arn = states.create_state_machine(name="tested", definition=definition, roleArn=_ROLE)[
            "stateMachineArn"
        ]
        states.start_execution(stateMachineArn=arn, input=json.dumps(request))
        for each in _ended(states, arn):
            pages = states.get_paginator("get_execution_history").paginate(executionArn=each["executionArn"])
            executions.all.append(
                Execution(
                    each["status"],
                    json.loads(each["output"]) if "output" in each else None,
                    each.get("error"),
                    each.get("cause"),
                    each["executionArn"].rpartition(":")[2],
                    json.loads(each["input"]),
                    sum(len(page["events"]) for page in pages),
                )
            )
    return executions


def _ended(states: Any, arn: str) -> list[dict[str, Any]]:
    """The executions of a state machine once none runs any more."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        listed = states.list_executions(stateMachineArn=arn)["executions"]
        if all(execution["status"] != "RUNNING" for execution in listed):
            break
        assert time.monotonic() < deadline, "still running"
        time.sleep(0.02)
    arns = [execution["executionArn"] for execution in sorted(listed, key=lambda e: e["startDate"])]
    return [states.describe_execution(executionArn=each) for each in arns]
