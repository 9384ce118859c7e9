"""``python -m local.exchange``: serve a simulated or a replayed market on a port of this machine."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from local.exchange.log import log
from local.exchange.recording import RecordingError, inspect
from local.exchange.replay import Replay
from local.exchange.server import Settings, now_us, serve
from tickcast.adapters.variables import SettingsError, value
from tickcast.market.symbols import is_symbol

_SYMBOLS = ("BTCUSDT", "ETHUSDT")


def settings(arguments: list[str]) -> Settings:
    """The settings in the command line. Raises `RecordingError`; exits on wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.feed == "replay") != bool(given.replay):
        parser.error("--feed replay needs --replay FILE…, and only it takes them")
    if given.speed != 1 and given.feed == "sim":
        parser.error("--speed is for --feed replay: a simulated market goes on in real time")
    replay = Replay(inspect(path) for path in given.replay) if given.replay else None
    symbols = given.symbols or (tuple(replay.symbols) if replay else _SYMBOLS)
    missing = set(symbols).difference(replay.symbols) if replay else ()
    if missing:
        parser.error(f"no recording of {', '.join(sorted(missing))} among the files to replay")
    return Settings(
        symbols=symbols,
        api_key=given.api_key,
        port=given.port,
        seed=given.seed,
        epoch_us=given.epoch_us,
        history_s=given.history_s if given.epoch_us is None else (now_us() - given.epoch_us) / 1e6,
        replay=replay,
        speed=given.speed,
    )


def main(arguments: list[str]) -> int:
    try:
        return asyncio.run(serve(settings(arguments)))
    except RecordingError as error:
        log("recording_unreadable", reason=str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.exchange", description=__doc__)
    add = parser.add_argument
    add("--feed", choices=("sim", "replay"), default="sim")
    add("--port", type=_port, default=0, help="0 takes any free one (default)")
    add("--api-key", default="local", help="the key that clients of the stream must show")
    add("--symbols", type=_symbols, help="default: BTCUSDT,ETHUSDT, or what the recordings hold")
    add("--seed", type=int, default=7, help="sim: same seed and epoch, same market")
    add("--epoch-us", type=int, help="sim: where its history starts (µs)")
    add("--history-s", type=_seconds, default=1800, help="sim: how long ago that is unless --epoch-us says")
    add("--replay", type=Path, nargs="+", metavar="FILE", help="replay: recordings of the collector")
    add("--speed", type=_speed, default=1.0, help="replay: so many times as fast")
    return parser


def _symbols(text: str) -> tuple[str, ...]:
    symbols = tuple(text.split(","))
    if not all(is_symbol(symbol) for symbol in symbols):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like BTCUSDT,ETHUSDT")
    return symbols


def _port(text: str) -> int:
    try:
        return int(value("--port", text, Annotated[int, Meta(ge=0, le=65_535)]))
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(text: str) -> float:
    try:
        return float(value("--history-s", text, Annotated[float, Meta(ge=0, le=3650 * 86_400)]))
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 < speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return speed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
