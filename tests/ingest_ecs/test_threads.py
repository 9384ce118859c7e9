"""Blocking calls off the event loop."""

import asyncio
import subprocess
import sys

import pytest

from ingest_ecs.threads import in_thread
from tests.fixtures.asynchronous import run_async
from tests.fixtures.paths import ROOT

ABANDONS = """
import asyncio, threading
from ingest_ecs.threads import in_thread

async def abandon():
    hanging = asyncio.create_task(in_thread(threading.Event().wait))
    await asyncio.sleep(0.05)
    hanging.cancel()
    await asyncio.wait({hanging})
    print("cancelled", hanging.cancelled())

asyncio.run(abandon())
"""


@run_async
async def test_result_and_error_of_the_call() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


@run_async
async def test_the_loop_runs_meanwhile() -> None:
    loop = asyncio.get_running_loop()
    reached = asyncio.Event()

    def call() -> bool:
        loop.call_soon_threadsafe(reached.set)
        return asyncio.run_coroutine_threadsafe(reached.wait(), loop).result(30)

    assert await in_thread(call)


def test_a_call_that_hangs_does_not_keep_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ABANDONS], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "cancelled True\n"
