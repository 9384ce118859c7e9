"""A Lambda execution environment as a process: `python function_process.py FD`.

It imports the handler that `_HANDLER` names and executes one invocation after the other. It runs on the
functions' interpreter with the functions' packages, so it needs the standard library alone. FD is its end of
a pair of sockets. Messages are JSON; it sends

    {"ready": true}                    once, when the handler is imported
    {"result": "<the result in JSON>"} or
    {"error": {"errorType", "errorMessage", "stackTrace", "requestId"}}, also instead of being ready

and receives {"event": "<JSON>", "request_id", "arn", "deadline_s" (of the clock)}. It ends when the other end
is closed, even if that process was killed.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any


class Context:
    """The second argument of a handler, as far as Lambda's Python runtime documents it."""

    identity = None
    client_context = None

    def __init__(self, request_id: str, arn: str, deadline_s: float) -> None:
        self.aws_request_id = request_id
        self.invoked_function_arn = arn
        self.function_name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        self.function_version = os.environ["AWS_LAMBDA_FUNCTION_VERSION"]
        self.memory_limit_in_mb = os.environ["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"]
        self.log_group_name = os.environ["AWS_LAMBDA_LOG_GROUP_NAME"]
        self.log_stream_name = os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
        self._deadline_s = deadline_s

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._deadline_s - time.time()) * 1000))


def main() -> int:
    connection = Connection(int(sys.argv[1]))
    try:
        module, _, name = os.environ["_HANDLER"].rpartition(".")
        handler = getattr(importlib.import_module(module.replace("/", ".")), name)
    except Exception as error:
        _send(connection, {"error": _described(error, "")})
        return 1
    _send(connection, {"ready": True})
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return 0
        context = Context(request["request_id"], request["arn"], request["deadline_s"])
        try:
            result = json.dumps(handler(json.loads(request["event"]), context))
        except Exception as error:
            traceback.print_exc()
            answer: dict[str, Any] = {"error": _described(error, context.aws_request_id)}
        else:
            answer = {"result": result}
        sys.stdout.flush()
        _send(connection, answer)


def _described(error: Exception, request_id: str) -> dict[str, Any]:
    """An exception as Lambda reports it."""
    return {
        "errorType": type(error).__name__,
        "errorMessage": str(error),
        "stackTrace": traceback.format_tb(error.__traceback__),
        "requestId": request_id,
    }


def _send(connection: Connection, message: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(message).encode())


if __name__ == "__main__":
    sys.exit(main())
