"""How the observer tells the exchange to misbehave: `/local/misbehave`.

    POST    a JSON object, {"kind": "stall", "seconds": 10, …}: begins; `connections` says how many are meant
    GET     what is in force, and what has ended
    DELETE  ends all, or those of one kind: /local/misbehave?kind=stall

Each answers with {"active": […], "ended": […]}; `hits` in them counts what was affected so far: frames,
requests, handshakes, connections (it does not for max_age). An order that cannot be read gives 400 with the
reason. The kinds and their parameters are in `local.exchange.orders`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from local.exchange.misbehaviour import Misbehaviours
from local.exchange.orders import parse
from local.exchange.rest import ApiError

_BAD_ORDER = -1100
PATH = "/local/misbehave"


class Control:
    """The endpoints over the misbehaviours of one exchange."""

    def __init__(self, misbehaviours: Misbehaviours) -> None:
        self._misbehaviours = misbehaviours

    def routes(self) -> list[web.RouteDef]:
        return [web.post(PATH, self.begin), web.get(PATH, self.show), web.delete(PATH, self.end)]

    @web.middleware
    async def interfere(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Let REST requests feel the orders that are for them."""
        if request.path.startswith("/api/"):
            await self._misbehaviours.before_rest(request.path)
            return self._misbehaviours.after_rest(request.path, await handler(request))
        return await handler(request)

    async def begin(self, request: web.Request) -> web.Response:
        try:
            connections = self._misbehaviours.begin(parse(await request.read()))
        except ValueError as error:
            raise ApiError(_BAD_ORDER, str(error)) from None
        return web.json_response({**self._misbehaviours.report(), "connections": connections})

    async def show(self, request: web.Request) -> web.Response:
        return web.json_response(self._misbehaviours.report())

    async def end(self, request: web.Request) -> web.Response:
        self._misbehaviours.end(request.query.get("kind"))
        return web.json_response(self._misbehaviours.report())
