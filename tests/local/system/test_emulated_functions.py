"""Functions on the embedded emulator, deployed by Lambda's API: how they run and how they fail."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from local.system import cloud
from local.system.emulator import EMULATORS
from local.system.options import Options

HANDLER = """
import json, os, sys, time

class TickRefused(Exception):
    pass

def handle(event, context):
    if event == "fail":
        raise TickRefused("no tick")
    if event == "hang":
        time.sleep(60)
    if event == "exit":
        os._exit(3)
    if event == "layers":
        import first, second
        return [first.WHERE, second.WHERE]
    if event == "wait":
        time.sleep(1)
    about = {"process": os.getpid(), "color": os.environ["COLOR"], "function": context.function_name}
    return about | {"event": event}
"""
Invoke = Callable[[Any], dict[str, Any]]


def zipped(**files: str) -> bytes:
    """A zip archive; `__` in the names is a slash."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as written:
        for name, text in files.items():
            written.writestr(f"{name.replace('__', '/')}.py", text)
    return archive.getvalue()


@pytest.fixture(scope="module")
def functions(embedded_emulator: str) -> Any:
    return cloud.client_of(embedded_emulator, "lambda")


@pytest.fixture(scope="module")
def create(embedded_emulator: str, functions: Any) -> Iterator[Callable[..., Invoke]]:
    """Creates a function; gives what invokes it. All are deleted afterwards."""
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    roles = cloud.client_of(embedded_emulator, "iam")
    role = roles.create_role(RoleName="functions", AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    created = []

    def one(name: str, **settings: Any) -> Invoke:
        functions.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role,
            Code={"ZipFile": zipped(handler=HANDLER)},
            Environment={"Variables": {"COLOR": "green"}},
            **({"Handler": "handler.handle", "Timeout": 30} | settings),
        )
        created.append(name)
        functions.get_waiter("function_active_v2").wait(FunctionName=name)

        def invoke(event: Any) -> dict[str, Any]:
            answer = functions.invoke(FunctionName=name, Payload=json.dumps(event).encode())
            payload: Any = json.load(answer["Payload"])
            return {"failed": "FunctionError" in answer, "payload": payload}

        return invoke

    yield one
    for name in created:
        functions.delete_function(FunctionName=name)
    roles.delete_role(RoleName="functions")


def test_a_function_is_imported_once_and_has_its_environment(create: Callable[..., Invoke]) -> None:
    invoke = create("plain")
    first, second = (invoke(event)["payload"] for event in ("ä", 2))
    assert (first["event"], second["event"]) == ("ä", 2)
    assert first["process"] == second["process"]
    assert (first["color"], first["function"]) == ("green", "plain")


def test_invocations_at_the_same_time_have_processes_of_their_own(create: Callable[..., Invoke]) -> None:
    invoke = create("parallel")
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(invoke, ["wait", "wait"]))
    assert len({answer["payload"]["process"] for answer in answers}) == 2


def test_an_exception_is_reported_by_its_class_where_the_emulator_does(create: Callable[..., Invoke]) -> None:
    invoke = create("failing")
    answer = invoke("fail")
    assert answer["failed"]
    kind = "TickRefused" if EMULATORS[Options().emulator].names_errors else "Runtime.HandlerError"
    assert (answer["payload"]["errorType"], answer["payload"]["errorMessage"]) == (kind, "no tick")
    assert not invoke("next")["failed"]


@pytest.mark.parametrize("event", ["hang", "exit"])
def test_a_function_continues_after_a_timeout_or_an_exit(create: Callable[..., Invoke], event: str) -> None:
    invoke = create(f"ending-{event}", Timeout=2)
    assert invoke(event)["failed"]
    assert not invoke("next")["failed"]


def test_a_handler_that_is_missing_is_an_error(create: Callable[..., Invoke]) -> None:
    assert create("missing", Handler="other.handle")("event")["failed"]


def test_a_later_layer_is_laid_over_an_earlier_one(create: Callable[..., Invoke], functions: Any) -> None:
    contents = (
        {"python__first": "WHERE = 1", "python__second": "WHERE = 1"},
        {"python__second": "WHERE = 2"},
    )
    layers = [
        functions.publish_layer_version(LayerName=f"layer-{n}", Content={"ZipFile": zipped(**files)})
        for n, files in enumerate(contents)
    ]
    invoke = create("layered", Layers=[layer["LayerVersionArn"] for layer in layers])
    assert invoke("layers")["payload"] == [1, 2]
