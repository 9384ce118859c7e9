"""The control API of fault injection: `/local/faults`.

    POST    a JSON object, {"kind": "stall", "seconds": 10, …}: begins a fault; the response has the number of
            open `connections` that it affects
    GET     the active faults, and those that have ended
    DELETE  ends all, or those of one kind: /local/faults?kind=stall

Each responds with {"active": […], "ended": […]}; their `hits` count what was affected so far: frames,
requests, handshakes, connections (not of max_age). A fault that is not valid gives 400 with the reason. The
kinds and their parameters are in `local.exchange.fault_requests`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from local.exchange.fault_injector import FaultInjector
from local.exchange.fault_requests import parse
from local.exchange.rest import ApiError

_BAD_FAULT = -1100
PATH = "/local/faults"


class Control:
    """The endpoints over the fault injector of one exchange."""

    def __init__(self, injector: FaultInjector) -> None:
        self._injector = injector

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self.begin), web.get(PATH, self.show), web.delete(PATH, self.end)]

    @web.middleware
    async def interfere(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Apply the faults of REST requests."""
        if request.path.startswith("/api/"):
            await self._injector.before_rest(request.path)
            return self._injector.after_rest(request.path, await handler(request))
        return await handler(request)

    async def begin(self, request: web.Request) -> web.Response:
        try:
            connections = self._injector.begin(parse(await request.read()))
        except ValueError as error:
            raise ApiError(_BAD_FAULT, str(error)) from None
        return web.json_response({**self._injector.report(), "connections": connections})

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(self._injector.report())

    async def end(self, request: web.Request) -> web.Response:
        self._injector.end(request.query.get("kind"))
        return web.json_response(self._injector.report())
