"""Blocking calls off the event loop, in threads that do not keep the process alive."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The result of `call`, run in a daemon thread of its own. Raises what it raises.

    Unlike with `asyncio.to_thread`, whose threads the interpreter joins before it exits, a caller that is
    cancelled abandons the call, and one that hangs does not delay the end of the process.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        outcome: R | None = None
        failure: Exception | None = None
        try:
            outcome = call(*args, **kwargs)
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome, failure)

    def settle(outcome: Any, failure: Exception | None) -> None:
        if done.cancelled():
            return
        if failure is None:
            done.set_result(outcome)
        else:
            done.set_exception(failure)

    threading.Thread(target=run, name=getattr(call, "__name__", "call"), daemon=True).start()
    return await done
