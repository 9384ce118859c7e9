"""The sample of refused data: bounded, outside the loop, and independent of S3's state."""

import asyncio
import json

import pytest
from aws_lambda_powertools import Logger
from botocore.exceptions import EndpointConnectionError

from ingest_ecs.quarantine import MAX_BYTES, MAX_WAITING, PUTS_A_MINUTE, Quarantine
from tests.fixtures.asynchronous import run_async

MINUTE_US = 60_000_000


class S3:
    def __init__(self, is_down: bool = False) -> None:
        self.is_down = is_down
        self.objects: dict[str, bytes] = {}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803
        if self.is_down:
            raise EndpointConnectionError(endpoint_url="http://s3")
        assert Bucket == "lake"
        self.objects[Key] = Body


class Clock:
    now_us = 1_754_000_000_000_000 // MINUTE_US * MINUTE_US

    def __call__(self) -> int:
        return self.now_us


def make(s3: S3 | None, clock: Clock) -> Quarantine:
    return Quarantine(s3, "lake", Logger(service="test"), clock)


@run_async
async def test_the_bytes_and_the_reason_are_kept() -> None:
    s3 = S3()
    quarantine = make(s3, Clock())
    running = asyncio.create_task(quarantine.run())
    quarantine.keep(b"garbage", "SbeError: unknown schema 2", "c1")
    async with asyncio.timeout(10):
        while len(s3.objects) < 2:
            await asyncio.sleep(0.001)
    running.cancel()
    (name,) = [key for key in s3.objects if key.endswith(".bin")]
    assert name.startswith("quarantine/ingest_ecs/")
    assert s3.objects[name] == b"garbage"
    about = json.loads(s3.objects[name.removesuffix(".bin") + ".json"])
    assert about == {
        "reason": "SbeError: unknown schema 2",
        "connection": "c1",
        "at_us": Clock.now_us,
        "bytes": 7,
    }


@run_async
async def test_a_flood_is_sampled_again_each_minute() -> None:
    s3, clock = S3(), Clock()
    quarantine = make(s3, clock)
    for minute in range(2):
        for _ in range(1000):
            quarantine.keep(bytes(MAX_BYTES + 1), "too much", "c1")
        await quarantine.drain(10)
        clock.now_us = Clock.now_us + (minute + 1) * MINUTE_US
    kept = [body for key, body in s3.objects.items() if key.endswith(".bin")]
    assert len(kept) == 2 * min(PUTS_A_MINUTE, MAX_WAITING)
    assert {len(body) for body in kept} == {MAX_BYTES}
    assert quarantine.left_out == 2000 - len(kept)


@pytest.mark.parametrize("s3", [S3(is_down=True), None])
@run_async
async def test_without_s3_ingest_continues(s3: S3 | None) -> None:
    quarantine = make(s3, Clock())
    for _ in range(100):
        quarantine.keep(b"garbage", "why", "c1")
    await quarantine.drain(10)
    assert quarantine.failed == (MAX_WAITING if s3 else 0)
    assert quarantine.left_out == 100 - quarantine.failed
