"""The API as tools for assistants, by the Model Context Protocol. Needs the extra `tickcast-client[mcp]`.

All tools only read. Each has its answer in words (`words`) and, but for the receipt, the main figures: all
of them would fill an assistant's memory. What goes wrong is the error of the tool, with what to do about it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, TypeVar

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import tickcast_client
from tickcast_client._async_client import AsyncClient
from tickcast_client.errors import TickcastError
from tickcast_client.models import Accuracy, Answer, HealthReport, ListedPrediction, OutcomeSummary, Skill
from tickcast_client.words import in_words, moment, outcome_in_words

INSTRUCTIONS = """\
Predictions of the mid price of cryptocurrencies 1, 2, 5 and 10 seconds ahead, by a system called tickcast.
They are for the moment of reading, and outdated seconds later. `abstains` means: do nothing; nothing here
is advice to trade. Moves are in basis points (bp, 1/10,000), times in milliseconds since 1970 (UTC). Ask
`health` whether the market is live or simulated.
"""
HISTORY_MOST = 100

T = TypeVar("T")
B = TypeVar("B", bound=BaseModel)
Symbol = Annotated[str, Field(description="a symbol that is served, like BTCUSDT")]
Horizon = Annotated[
    Literal[1, 2, 5, 10] | None, Field(description="seconds ahead; without it the primary horizon")
]


class InWords(BaseModel):
    """An answer in words."""

    words: str


class Now(BaseModel):
    """A prediction for the moment of reading."""

    id: str
    as_of: int
    target_time: int
    predicted_price: float
    expected_move_bp: float | None
    p_up: float | None
    p_down: float | None
    p_flat: float | None
    lower: float | None
    upper: float | None
    confidence: float
    cost_bp: float | None
    worth_trading: bool | None
    abstains: bool
    reason: str | None
    model_id: str | None
    provisional: bool | None


class LatestAnswer(InWords):
    """The newest predictions, by symbol, and why there is none."""

    predictions: dict[str, Now]
    problems: dict[str, str]


class Past(BaseModel):
    """A prediction as it was delivered, and its outcomes by horizon as far as known."""

    id: str
    time: str
    predicted_price: float
    expected_move_bp: float | None
    lower: float | None
    upper: float | None
    confidence: float
    abstains: bool
    reason: str | None
    outcomes: dict[int, OutcomeSummary]


class HistoryAnswer(InWords):
    """Past predictions, newest first."""

    predictions: list[Past]


class Figures(BaseModel):
    """Of the predictions of a span with a known outcome."""

    count: int
    skill: Skill | None
    direction: float | None
    coverage: float | None


class AccuracyAnswer(InWords):
    """How good the predictions were: by span (hour, day, week) and horizon; None before the first scoring."""

    figures: dict[str, dict[int, Figures]] | None


class HealthAnswer(InWords):
    """Whether all parts of the system are healthy."""

    answer: HealthReport


class Tools:
    """The tools, over one client."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def latest(
        self,
        symbols: Annotated[list[str], Field(description="like BTCUSDT; all that are served if empty")] = [],  # noqa: B006
        horizon: Horizon = None,
    ) -> LatestAnswer:
        """The newest predictions for this moment: expected price and move, chances, interval, whether to
        act."""
        answer = await _asked(self._client.latest_of(*symbols, horizon=horizon))
        return LatestAnswer(
            words=in_words(answer),
            predictions={symbol: _picked(Now, each) for symbol, each in answer.predictions.items()},
            problems={symbol: each.detail for symbol, each in answer.problems.items()},
        )

    async def history(
        self,
        symbol: Symbol,
        count: Annotated[int, Field(ge=1, le=HISTORY_MOST, description="how many, one a second")] = 20,
        to: Annotated[
            str | None, Field(description="until when, like 2026-01-31T12:00:00Z; now without")
        ] = None,
        horizon: Horizon = None,
    ) -> HistoryAnswer:
        """Past predictions as they were delivered, newest first, and what came of them."""

        async def newest() -> list[ListedPrediction]:
            found: list[ListedPrediction] = []
            past = self._client.history(symbol, to=to, horizon=horizon, outcomes=True, page_size=count)
            async for each in past:
                found.append(each)
                if len(found) == count:
                    break
            return found

        found = await _asked(newest())
        past = [_picked(Past, each, time=moment(each.timestamp)) for each in found]
        return HistoryAnswer(words=_history_in_words(symbol, found), predictions=past)

    async def receipt(
        self, id: Annotated[str, Field(description="of a prediction, like BTCUSDT-1767225600000")]
    ) -> InWords:
        """One prediction in words: what it was made from, by which model, how fast, and what came of it."""
        return InWords(words=in_words(await _asked(self._client.receipt(id))))

    async def accuracy(self, symbol: Symbol) -> AccuracyAnswer:
        """How good the predictions of the last hour, day and week were, with the uncertainty of each
        figure."""
        answer = await _asked(self._client.accuracy(symbol))
        return AccuracyAnswer(words=in_words(answer), figures=_main_figures(answer))

    async def health(self) -> HealthAnswer:
        """Whether all parts of the system are healthy, and whether the market is live or simulated."""
        answer = await _asked(self._client.health())
        return HealthAnswer(words=in_words(answer), answer=answer)


class StrictTool(Tool):
    """A tool that refuses what is not an argument of it, and says what is wrong with the arguments."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> StrictTool:
        """`function`, which only reads, as a tool."""
        tool = cls.from_function(
            function, annotations=ToolAnnotations(read_only_hint=True, open_world_hint=True)
        )
        assert isinstance(tool, cls)
        known = tool.fn_metadata.arg_model
        strict = {"model_config": ConfigDict(extra="forbid")}
        tool.fn_metadata.arg_model = type(known.__name__, (known,), strict)
        tool.parameters = tool.fn_metadata.arg_model.model_json_schema(by_alias=True)
        return tool

    async def run(self, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:
        try:
            self.fn_metadata.validate_arguments(arguments)
        except ValidationError as error:
            raise ToolError(f"{self.name}: {'; '.join(self._objections(error))}") from None
        return await super().run(arguments, context, convert_result=convert_result)

    def _objections(self, error: ValidationError) -> Iterator[str]:
        for each in error.errors(include_url=False):
            name = ".".join(str(part) for part in each["loc"])
            if each["type"] == "extra_forbidden":
                known = ", ".join(self.fn_metadata.arg_model.model_fields)
                yield f"{name} is not an argument; there {f'are: {known}' if known else 'is none'}"
            elif each["type"] == "missing":
                yield f"{name} is missing"
            else:
                yield f"{name} {each['msg'].replace('Input should be', 'is to be', 1)}"


def server(client: AsyncClient | None = None) -> MCPServer[Any]:
    """The server, over the API that the environment names if no `client` is given. Raises ValueError naming
    what is wrong with that."""
    client = client or AsyncClient()

    @asynccontextmanager
    async def until_the_end(_: MCPServer[Any]) -> AsyncIterator[None]:
        async with client:
            yield

    tools = Tools(client)
    return MCPServer(
        "tickcast",
        instructions=INSTRUCTIONS,
        version=tickcast_client.__version__,
        tools=[
            StrictTool.of(each)
            for each in (tools.latest, tools.history, tools.receipt, tools.accuracy, tools.health)
        ],
        lifespan=until_the_end,
        log_level="WARNING",
    )


async def _asked(answer: Awaitable[T]) -> T:
    """The answer. Raises `ToolError` with the reason for which there is none."""
    try:
        return await answer
    except (TickcastError, ValueError) as error:
        raise ToolError(str(error)) from None


def _picked(kind: type[B], answer: Answer, **more: Any) -> B:
    """Those members of an answer that `kind` has, and more."""
    members = {name: getattr(answer, name) for name in kind.model_fields if name not in more}
    return kind(**members, **more)


def _main_figures(answer: Accuracy) -> dict[str, dict[int, Figures]] | None:
    if answer.summary is None:
        return None
    spans = {"hour": answer.summary.hour, "day": answer.summary.day, "week": answer.summary.week}
    return {
        name: {horizon_s: _picked(Figures, figures) for horizon_s, figures in span.horizons.items()}
        for name, span in spans.items()
    }


def _history_in_words(symbol: str, found: list[ListedPrediction]) -> str:
    if not found:
        return f"No predictions of {symbol} in this span."
    newest, oldest = found[0], found[-1]
    span = f"from {moment(oldest.timestamp)} to {moment(newest.timestamp)}"
    lines = [f"{len(found)} predictions of {symbol}, {span}."]
    known = [each.outcomes[each.horizon_s] for each in found if each.horizon_s in each.outcomes]
    if resolved := [each for each in known if each.inside is not None]:
        inside = sum(bool(each.inside) for each in resolved)
        moved = [each for each in resolved if each.right is not None]
        right = sum(bool(each.right) for each in moved)
        lines.append(
            f"Of {len(resolved)} with a known outcome {inside} ended inside the interval; of {len(moved)} "
            f"that moved, {right} had the direction right."
        )
    if missing := newest.timestamp // 1000 - oldest.timestamp // 1000 + 1 - len(found):
        lines.append(f"{missing} seconds in between have no prediction.")
    lines.append(f"The newest: {in_words(newest)}")
    if outcome := newest.outcomes.get(newest.horizon_s):
        lines.append(f"Its outcome: {outcome_in_words(outcome)}")
    return "\n".join(lines)
