"""LocalStack's interface for whatever runs functions, implemented by processes of this machine.

One executor is one execution environment: a process that has imported the handler, executes one invocation at
a time, and is started again after an invocation has timed out or ended it. Memory is not limited.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from localstack import config
from localstack.services.lambda_.invocation.executor_endpoint import StatusErrorException
from localstack.services.lambda_.invocation.lambda_models import FunctionVersion, InvocationResult
from localstack.services.lambda_.invocation.runtime_executor import RuntimeExecutor

_HOST = "127.0.0.1"
_PROGRAM = Path(__file__).with_name("function_process.py")
_STOP_S = 2
# LocalStack's own environment that functions get; AWS's settings come from LocalStack, per function.
_INHERITED = (
    "PATH",
    "LANG",
    "NO_PROXY",
    "no_proxy",
    "TICKCAST_STATE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_EC2_METADATA_DISABLED",
)


class ProcessExecutor(RuntimeExecutor):  # type: ignore[misc]
    """An execution environment of one version of a function."""

    def __init__(self, id: str, function_version: FunctionVersion) -> None:
        super().__init__(id=id, function_version=function_version)
        self._name = str(function_version.id.function_name)
        self._log = Path(os.environ["TICKCAST_FUNCTIONS_LOGS"]) / f"{self._name}-{id[:8]}.log"
        self._temp = Path(tempfile.gettempdir()) / "functions" / id
        self._environment: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def start(self, env_vars: dict[str, Any]) -> None:
        """Start the process and wait until it has imported the handler. Raises `StatusErrorException`, which
        LocalStack turns into the invocation's error."""
        self._temp.mkdir(parents=True)
        self._environment = self._variables(env_vars)
        self._launch()

    def stop(self) -> None:
        self._end()
        shutil.rmtree(self._temp, ignore_errors=True)

    def invoke(self, payload: dict[str, str]) -> InvocationResult:
        """The result of the handler, or its error: an exception, a timeout, or the process's end."""
        request_id, timeout_s = payload["invoke-id"], float(self.function_version.config.timeout)
        if self._connection is None:
            self._launch()
        connection, log_begin = self._connection, self._log.stat().st_size
        assert connection is not None
        request = {
            "event": payload["payload"],
            "request_id": request_id,
            "arn": payload["invoked-function-arn"],
            "deadline_s": time.time() + timeout_s,
        }
        try:
            connection.send_bytes(json.dumps(request).encode())
            if connection.poll(timeout_s):
                answer = json.loads(connection.recv_bytes())
            else:
                answer = _failure(
                    request_id, "Sandbox.Timedout", f"Task timed out after {timeout_s:.2f} seconds"
                )
                self._end()
        except (OSError, EOFError):
            status = self._end(_STOP_S)
            answer = _failure(request_id, "Runtime.ExitError", f"Runtime exited with status {status}")
        is_error = "error" in answer
        body = json.dumps(answer["error"]) if is_error else answer["result"]
        # Framed as by Lambda. LocalStack takes empty logs for lost ones and repeats all of the process.
        logs = f"START RequestId: {request_id}\n{self._logged(log_begin)}END RequestId: {request_id}\n"
        return InvocationResult(request_id, body.encode(), is_error=is_error, logs=logs)

    def get_address(self) -> str:
        return _HOST

    def get_endpoint_from_executor(self) -> str:
        return _HOST

    def get_runtime_endpoint(self) -> str:
        return f"http://{_HOST}:{config.GATEWAY_LISTEN[0].port}"  # asked for, but no process uses it

    def get_logs(self) -> str:
        return self._logged(0)

    @classmethod
    def prepare_version(cls, function_version: FunctionVersion) -> None:
        """Unpack the code and the layers of a function."""
        for code in _codes(function_version):
            code.prepare_for_execution()

    @classmethod
    def cleanup_version(cls, function_version: FunctionVersion) -> None:
        """Nothing: what was unpacked is removed with LocalStack's temporary files."""

    def _variables(self, env_vars: dict[str, Any]) -> dict[str, str]:
        code, *layers = (str(each.get_unzipped_code_location()) for each in _codes(self.function_version))
        # A later layer is laid over an earlier one.
        packages = [code, *(str(Path(layer) / "python") for layer in reversed(layers))]
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return (
            inherited
            | {name: str(value) for name, value in env_vars.items() if value is not None}
            | {
                "LAMBDA_TASK_ROOT": code,
                "PYTHONPATH": os.pathsep.join(packages),
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",  # functions share their layers' folders
                "TMPDIR": str(self._temp),
            }
        )

    def _launch(self) -> None:
        ours, theirs = Pipe()
        # Without -P the first folder of sys.path would be this one.
        command = [os.environ["TICKCAST_FUNCTIONS_PYTHON"], "-P", str(_PROGRAM), str(theirs.fileno())]
        with theirs, self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._environment["LAMBDA_TASK_ROOT"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
            )
        self._connection = ours
        try:
            # LocalStack limits how long a start takes by calling `stop`, which ends the wait.
            answer = json.loads(ours.recv_bytes())
        except (OSError, EOFError):
            status = self._end(_STOP_S)
            answer = _failure("", "Runtime.ExitError", f"Runtime exited with status {status}")
        if "error" in answer:
            self._end()
            raise StatusErrorException(
                f"{self._name} cannot be imported: {answer['error']['errorMessage']}",
                payload=json.dumps(answer["error"]).encode(),
            )

    def _end(self, patience_s: float = 0) -> int | None:
        """Kill the process unless it ends by itself within `patience_s`; its exit status."""
        process, self._process, self._connection = self._process, None, None
        if process is None:
            return None
        try:
            return process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()  # it holds nothing that would have to be flushed
            return process.wait()

    def _logged(self, begin: int) -> str:
        """The output since the byte `begin`."""
        if not self._log.is_file():
            return ""
        with self._log.open("rb") as log:
            log.seek(begin)
            return log.read().decode("utf-8", "replace")


def _codes(function_version: FunctionVersion) -> list[Any]:
    """The archives of a function: its code, then those of its layers, in their order."""
    return [function_version.config.code, *(layer.code for layer in function_version.config.layers)]


def _failure(request_id: str, kind: str, what: str) -> dict[str, Any]:
    """An error that is none of the handler's, as Lambda reports it."""
    return {"error": {"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {what}"}}
