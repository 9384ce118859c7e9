"""Functions as LocalStack's plugin runs them: a process of their own, with messages over a socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.paths import ROOT

pytestmark = pytest.mark.server

PROGRAM = ROOT / "local" / "localstack_plugin" / "function_process.py"
HANDLER = """
import sys

class TickRefused(Exception):
    pass

def handle(event, context):
    print("handling")
    if event == "fail":
        raise TickRefused("no tick")
    if event == "exit":
        sys.exit(3)
    if event == "no json":
        return object()
    is_left = 0 < context.get_remaining_time_in_millis() <= 9000
    return [event, context.aws_request_id, context.function_name, is_left]
"""


class Function:
    """One process, with our end of its socket."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Any) -> None:
        self.process = process
        self.connection = connection

    def message(self) -> dict[str, Any]:
        assert self.connection.poll(30)
        found: dict[str, Any] = json.loads(self.connection.recv_bytes())
        return found

    def invoke(self, event: Any) -> dict[str, Any]:
        request = {
            "event": json.dumps(event),
            "request_id": "r1",
            "arn": "arn",
            "deadline_s": time.time() + 9,
        }
        self.connection.send_bytes(json.dumps(request).encode())
        return self.message()


@contextmanager
def started(folder: Path, handler: str, source: str = HANDLER) -> Iterator[Function]:
    (folder / "handler.py").write_text(source)
    names = ("FUNCTION_NAME", "FUNCTION_VERSION", "FUNCTION_MEMORY_SIZE", "LOG_GROUP_NAME", "LOG_STREAM_NAME")
    environment = {f"AWS_LAMBDA_{name}": name.lower() for name in names}
    environment |= {"_HANDLER": handler, "PYTHONPATH": str(folder), "PATH": os.environ["PATH"]}
    ours, theirs = Pipe()
    with ours, (folder / "output").open("wb") as output:
        with theirs:
            command = [sys.executable, "-P", str(PROGRAM), str(theirs.fileno())]
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, pass_fds=[theirs.fileno()]
            )
        try:
            yield Function(process, ours)
        finally:
            process.kill()
            process.wait()


def test_a_function_answers_one_event_after_the_other(tmp_path: Path) -> None:
    with started(tmp_path, "handler.handle") as function:
        assert function.message() == {"ready": True}
        for event in ("ä", {"a": 1}):
            (result,) = function.invoke(event).values()
            assert json.loads(result) == [event, "r1", "function_name", True]
    assert (tmp_path / "output").read_text() == "handling\nhandling\n"


def test_an_exception_is_reported_by_its_class_and_the_process_continues(tmp_path: Path) -> None:
    with started(tmp_path, "handler.handle") as function:
        function.message()
        error = function.invoke("fail")["error"]
        assert (error["errorType"], error["errorMessage"], error["requestId"]) == (
            "TickRefused",
            "no tick",
            "r1",
        )
        assert "handler.py" in error["stackTrace"][-1]
        assert function.invoke("no json")["error"]["errorType"] == "TypeError"
        assert "result" in function.invoke("next")
    assert "TickRefused: no tick" in (tmp_path / "output").read_text()


@pytest.mark.parametrize(
    ("handler", "source", "kind"),
    [
        ("handler.handle", "import no_such_layer", "ModuleNotFoundError"),
        ("handler.other", HANDLER, "AttributeError"),
    ],
)
def test_a_handler_that_cannot_be_imported_is_an_error(
    tmp_path: Path, handler: str, source: str, kind: str
) -> None:
    with started(tmp_path, handler, source) as function:
        assert function.message()["error"]["errorType"] == kind
        assert function.process.wait(30) == 1


def test_a_handler_that_ends_its_process_leaves_no_answer(tmp_path: Path) -> None:
    with started(tmp_path, "handler.handle") as function:
        function.message()
        with pytest.raises(EOFError):
            function.invoke("exit")
        assert function.process.wait(30) == 3


def test_the_process_ends_with_the_emulator(tmp_path: Path) -> None:
    with started(tmp_path, "handler.handle") as function:
        function.message()
        function.connection.close()
        assert function.process.wait(30) == 0
