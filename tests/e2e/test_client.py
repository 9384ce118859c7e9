"""The Python client against the running system: the examples of its README, and what they do not show."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from localstack_client.session import Session as AwsSession
from mcp import Client as Session
from mcp import StdioServerParameters
from pydantic import BaseModel

from local.system import cloud
from local.system.system import System
from tests.fixtures.asynchronous import run_async
from tests.fixtures.paths import ROOT
from tests.fixtures.running_system import eventually
from tickcast_client import Client, ConnectionFailed, Forbidden, NotFound, Unavailable

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

README = (ROOT / "clients" / "python" / "README.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
MCP_CONFIGURATION = json.loads(re.findall(r"^```json\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0])


@pytest.fixture
def settings(system: System, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables that the README has exported, once there are answers that are not stale. The signed
    example needs credentials, which the emulator does not check."""
    found = {"TICKCAST_API": system.api_url, "TICKCAST_KEY": system.api_key}
    for name, value in {**found, **cloud.CREDENTIALS}.items():
        monkeypatch.setenv(name.upper(), value)
    with Client() as client:

        def answers() -> bool:
            with contextlib.suppress(ConnectionFailed, NotFound, Unavailable):  # while functions start
                return "stale_features" not in {client.latest(each).reason for each in system.symbols}
            return False

        eventually(answers, 300)
    return found


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(
    settings: dict[str, str], capsys: pytest.CaptureFixture[str], number: int
) -> None:
    exec(compile(EXAMPLES[number], f"README.md, example {number + 1}", "exec"), {"__name__": "__main__"})
    out, err = capsys.readouterr()
    assert out
    assert settings["TICKCAST_KEY"] not in out + err


def unknown_members(answer: Any, place: str = "") -> Iterator[str]:
    """The members of an answer that its class does not have."""
    if isinstance(answer, BaseModel):
        place = f"{place}/{type(answer).__name__}"
        yield from (f"{place}.{name}" for name in answer.model_extra or {})
        for name in type(answer).model_fields:
            yield from unknown_members(getattr(answer, name), f"{place}.{name}")
    elif isinstance(answer, dict):
        for each in answer.values():
            yield from unknown_members(each, place)
    elif isinstance(answer, list):
        for each in answer:
            yield from unknown_members(each, place)


def test_the_classes_have_all_that_is_served(
    system: System, aws: AwsSession, settings: dict[str, str]
) -> None:
    cloud.invoke(aws.client("lambda"), system.outputs["ReportConditionFunction"], {})
    with Client() as client:
        answers = [
            client.latest("BTCUSDT", history=20, outcomes=True),
            client.latest_of(),
            client.receipt(client.latest("ETHUSDT").id),
            client.accuracy("BTCUSDT"),
            client.accuracy("BTCUSDT", from_="2026-01-01T00:00:00Z", to="2026-01-01T01:00:00Z"),
            client.data("BTCUSDT"),
            client.health(),
            *client.history("BTCUSDT", outcomes=True, page_size=50),
        ]
    assert sorted({name for answer in answers for name in unknown_members(answer)}) == []


def test_a_history_is_the_same_in_both_orders(settings: dict[str, str]) -> None:
    with Client() as client:
        newest = client.latest("BTCUSDT").timestamp - 5000
        span: dict[str, Any] = {"from_": newest - 60_000, "to": newest, "horizon": 10}
        at_once = [each.id for each in client.history("BTCUSDT", page_size=1000, **span)]
        by_pages = [each.id for each in client.history("BTCUSDT", page_size=7, **span)]
        oldest_first = [each.id for each in client.history("BTCUSDT", page_size=7, oldest_first=True, **span)]
    assert at_once
    assert at_once == by_pages == oldest_first[::-1]


def test_a_wrong_key_is_refused_by_name(settings: dict[str, str]) -> None:
    with Client(key="wrong") as client:
        assert client.health().services
        with pytest.raises(Forbidden):
            next(client.stream("BTCUSDT"))


@run_async
async def assistant(settings: dict[str, str]) -> None:
    """A session as an assistant has it, with the command of the README's configuration."""
    [server] = MCP_CONFIGURATION["mcpServers"].values()
    assert server["command"].endswith("/.venv/bin/tickcast-mcp") and server["env"].keys() == settings.keys()
    program = "from tickcast_client.mcp_command import main; main()"  # what the command is
    source = str(ROOT / "clients" / "python" / "src")
    command = StdioServerParameters(
        command=sys.executable, args=["-c", program], env=settings | {"PYTHONPATH": source}
    )
    async with Session(command) as session:
        tools = [tool.name for tool in (await session.list_tools()).tools]
        newest = await session.call_tool("latest", {"symbols": ["BTCUSDT"]})
        assert newest.structured_content
        id_ = newest.structured_content["predictions"]["BTCUSDT"]["id"]
        calls: dict[str, dict[str, Any]] = {
            "latest": {},
            "history": {"symbol": "BTCUSDT", "count": 5},
            "receipt": {"id": id_},
            "accuracy": {"symbol": "ETHUSDT"},
            "health": {},
        }
        assert set(calls) == set(tools)
        for name, arguments in calls.items():
            result = await session.call_tool(name, arguments)
            assert not result.is_error, (name, result.content)
            assert result.structured_content and result.structured_content["words"]
            assert settings["TICKCAST_KEY"] not in str(result.content)


def test_an_assistant_can_ask_by_mcp(settings: dict[str, str]) -> None:
    assistant(settings=settings)
