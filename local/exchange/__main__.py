"""``python -m local.exchange``: serve a simulated or a replayed market on a port of this machine."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from local.exchange.log import log
from local.exchange.recording import RecordingError, inspect
from local.exchange.replay import Replay
from local.exchange.server import Settings, now_us, serve
from local.exchange.simulator import LISTED
from tickcast.adapters.variables import SettingsError, value
from tickcast.market.symbols import is_symbol

_SYMBOLS = ("BTCUSDT", "ETHUSDT")


def settings(arguments: list[str]) -> Settings:
    """The settings in the command line. Raises `RecordingError`; exits on wrong usage."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.feed == "replay") != bool(given.replay):
        parser.error("--feed replay needs --replay FILE…, and only it takes them")
    if given.reference and given.feed == "sim":
        parser.error("--reference is for --feed replay: a simulated market has a perpetual of its own")
    if given.speed != 1 and given.feed == "sim":
        parser.error("--speed is for --feed replay: a simulated market runs in real time")
    replay = Replay(map(inspect, given.replay), map(inspect, given.reference)) if given.replay else None
    if given.listed is not None and given.feed == "replay":
        parser.error("--listed is for --feed sim: a replay has the markets of its files")
    symbols = given.symbols or (tuple(replay.symbols) if replay else _SYMBOLS)
    missing = set(symbols).difference(replay.symbols) if replay else ()
    if missing:
        parser.error(f"none of the files to replay has {', '.join(sorted(missing))}")
    return Settings(
        symbols=symbols,
        listed=(LISTED if given.listed is None else given.listed) if given.feed == "sim" else (),
        api_key=given.api_key,
        port=given.port,
        host=given.host,
        seed=given.seed,
        epoch_us=given.epoch_us,
        history_s=given.history_s if given.epoch_us is None else (now_us() - given.epoch_us) / 1e6,
        replay=replay,
        speed=given.speed,
        clock_offset_ms=given.clock_offset_ms,
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
    port = _limited("--port", Annotated[int, Meta(ge=0, le=65_535)])
    add("--port", type=port, default=0, help="default: 0, any free one")
    hosts = ("127.0.0.1", "0.0.0.0")
    add("--host", choices=hosts, default=hosts[0], help="0.0.0.0 lets others in; default: this machine alone")
    add("--api-key", default="local", help="the key that clients of the stream must send")
    add("--symbols", type=_symbols, help="default: BTCUSDT,ETHUSDT, or those of the recordings")
    add("--listed", type=_symbols, help="sim: markets that open with their first listener; default: 28")
    add("--seed", type=int, default=7, help="sim: same seed and epoch, same market")
    add("--epoch-us", type=int, help="sim: where its history starts (µs)")
    history_s = _limited("--history-s", Annotated[float, Meta(ge=0, le=3650 * 86_400)])
    add("--history-s", type=history_s, default=1800, help="sim: length of that history, without --epoch-us")
    add("--replay", type=Path, nargs="+", metavar="FILE", help="replay: hftbacktest recordings")
    add("--reference", type=Path, nargs="+", metavar="FILE", default=[], help="replay: of USD-M perpetuals")
    speed = _limited("--speed", Annotated[float, Meta(gt=0)])
    add("--speed", type=speed, default=1.0, help="replay: factor; default: 1")
    offset_ms = _limited("--clock-offset-ms", Annotated[int, Meta(ge=-3_600_000, le=3_600_000)])
    add("--clock-offset-ms", type=offset_ms, default=0, help="of its clock from the host's; default: 0")
    return parser


def _symbols(text: str) -> tuple[str, ...]:
    symbols = tuple(text.split(","))
    if not all(is_symbol(symbol) for symbol in symbols):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like BTCUSDT,ETHUSDT")
    return symbols


def _limited(option: str, limits: Any) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        try:
            return value(option, text, limits)
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
