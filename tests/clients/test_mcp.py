"""The server for assistants, by sessions of MCP's own client."""

from __future__ import annotations

import sys
from typing import Any

import httpx
import pytest
from mcp import Client as Session
from mcp_types import TextContent

from tests.fixtures import client_api
from tests.fixtures.asynchronous import run_async
from tests.fixtures.client_api import KEY, SKILL, START_MS, URL, ScriptedApi, history_api, problem, several
from tickcast_client import AsyncClient, mcp_command, mcp_server

TOOLS = {"latest", "history", "receipt", "accuracy", "health"}


async def call(api: ScriptedApi, tool: str, **arguments: Any) -> tuple[bool, str, Any]:
    """Whether a tool failed, what it said as text, and its structured answer."""
    client = AsyncClient(URL, KEY, transport=api.transport, retry_s=0)
    async with Session(mcp_server.server(client)) as session:
        result = await session.call_tool(tool, arguments)
    text = "".join(each.text for each in result.content if isinstance(each, TextContent))
    return bool(result.is_error), text, result.structured_content


@run_async
async def test_every_tool_is_described_and_reads_only() -> None:
    client = AsyncClient(URL, KEY, transport=ScriptedApi([]).transport)
    async with Session(mcp_server.server(client)) as session:
        tools = (await session.list_tools()).tools
        assert session.instructions and "is advice to trade" in session.instructions
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        assert tool.description and tool.output_schema and tool.annotations
        assert tool.annotations.read_only_hint
        assert tool.input_schema["additionalProperties"] is False
        assert all("description" in each for each in tool.input_schema["properties"].values())


@run_async
async def test_the_newest_prediction_is_in_words_and_figures() -> None:
    api = ScriptedApi([several(client_api.latest(), ETHUSDT="no tick of it so far")])
    failed, _, answer = await call(api, "latest", symbols=["BTCUSDT"], horizon=2)
    assert not failed
    assert answer["words"].startswith("BTCUSDT is expected at 60,001.74 in 2 s")
    assert answer["predictions"]["BTCUSDT"]["p_up"] == 0.217257
    assert answer["problems"] == {"ETHUSDT": "no tick of it so far"}
    assert api.queries == [{"symbols": "BTCUSDT", "horizon": "2"}]


@run_async
async def test_a_history_has_as_many_as_asked_for() -> None:
    known = [START_MS + second * 1000 for second in range(60) if second != 55]
    api = history_api(known, START_MS + 60_000)
    _, _, answer = await call(api, "history", symbol="BTCUSDT", count=10)
    assert [each["id"] for each in answer["predictions"]] == [f"BTCUSDT-{ms}" for ms in known[:-11:-1]]
    assert answer["predictions"][0]["outcomes"]["2"]["inside"] is True
    lines = answer["words"].splitlines()
    assert lines[0].startswith("10 predictions of BTCUSDT, from 2026-01-01 00:00:49.000 UTC to")
    assert lines[1].startswith(
        "Of 10 with a known outcome 10 ended inside the interval; of 10 that moved, 10 had"
    )
    assert lines[2] == "1 seconds in between have no prediction."
    assert lines[4] == "Its outcome: the mid moved +1 bp, inside the interval, direction right."
    _, _, none = await call(history_api([], START_MS), "history", symbol="BTCUSDT")
    assert none["words"] == "No predictions of BTCUSDT in this span."


@run_async
async def test_a_receipt_is_in_words() -> None:
    api = ScriptedApi([httpx.Response(200, json=client_api.receipt())])
    _, _, answer = await call(api, "receipt", id=f"BTCUSDT-{START_MS}")
    assert "Made from trades up to id 1000" in answer["words"]


@run_async
async def test_accuracy_has_the_main_figures() -> None:
    api = ScriptedApi([httpx.Response(200, json=client_api.accuracy(SKILL))])
    _, _, answer = await call(api, "accuracy", symbol="BTCUSDT")
    main = {"count": 3000, "skill": SKILL, "direction": 0.6, "coverage": 0.81}
    assert answer["figures"] == {"hour": {"2": main}, "day": {}, "week": {}}
    unscored = client_api.accuracy(SKILL) | {"summary": None}
    _, _, none = await call(ScriptedApi([httpx.Response(200, json=unscored)]), "accuracy", symbol="BTCUSDT")
    assert none == {"words": "BTCUSDT has not been scored yet.", "figures": None}


@run_async
async def test_what_is_wrong_reaches_the_assistant() -> None:
    failed, text, _ = await call(
        ScriptedApi([problem(404, "'DOGE' is not served")]), "accuracy", symbol="DOGE"
    )
    assert failed and "'DOGE' is not served (404 A title)" in text
    failed, text, _ = await call(ScriptedApi([]), "receipt", id="newest")
    assert failed and "it should be a prediction's, like BTCUSDT-1767225600000" in text
    failed, text, _ = await call(ScriptedApi([httpx.ConnectError("refused")]), "health")
    assert failed and "https://api.example/v1/ does not answer" in text and KEY not in text


@run_async
@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("latest", {"horizon": 3}, "latest: horizon is to be 1, 2, 5 or 10"),
        ("latest", {"symbol": "DOGEUSDT"}, "latest: symbol is not an argument; there are: symbols, horizon"),
        ("history", {"symbol": "BTCUSDT", "count": 0}, "history: count is to be greater than or equal to 1"),
        ("history", {}, "history: symbol is missing"),
        ("health", {"symbol": "BTCUSDT"}, "health: symbol is not an argument; there is none"),
    ],
)
async def test_wrong_arguments_are_refused(tool: str, arguments: dict[str, Any], said: str) -> None:
    api = ScriptedApi([])
    failed, text, _ = await call(api, tool, **arguments)
    assert failed and text == said
    assert not api.queries


def test_the_command_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TICKCAST_API", raising=False)
    assert refusal(capsys) == "tickcast-mcp: no address of the API is given: pass url=, or set TICKCAST_API\n"
    monkeypatch.setitem(sys.modules, "mcp.server", None)  # as where mcp is not installed
    monkeypatch.delitem(sys.modules, "tickcast_client.mcp_server")
    assert refusal(capsys) == "tickcast-mcp: the server needs mcp: pip install 'tickcast-client[mcp]'\n"


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says when it cannot begin. Standard output belongs to the protocol."""
    with pytest.raises(SystemExit) as exited:
        mcp_command.main()
    assert exited.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err
