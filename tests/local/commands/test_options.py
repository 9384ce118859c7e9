"""The options of a local system, from the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from local.commands.command import add_system_arguments, number_of, system_options
from local.exchange.reference import UnusableReference
from local.system.emulator import EMULATORS as PROGRAMS
from local.system.options import EMULATORS, Options, OptionsError
from tests.fixtures.recordings import perpetual_quote, quote, text, trade, write


def parsed(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_system_arguments(parser)
    return system_options(parser.parse_args(arguments))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "btc.gz"
    path.touch()
    return path


def test_the_simulated_market_is_the_default_and_labelled() -> None:
    assert parsed() == Options(feed="sim")
    assert parsed().label == "SIMULATED market"


def test_the_exchange_s_clock_may_be_off() -> None:
    assert parsed("--clock-offset-ms", "-3000").clock_offset_ms == -3000


def test_symbols_are_put_in_upper_case() -> None:
    assert parsed("--symbols", "btcusdt,ethusdt").symbols == ("BTCUSDT", "ETHUSDT")


def test_a_simulated_market_may_have_so_many_symbols() -> None:
    assert parsed("--symbols", "1").symbols == ("BTCUSDT",)
    assert parsed("--symbols", "4").symbols == ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT")
    with pytest.raises(OptionsError, match="SYMBOLS is 29; as a number it should be from 1 to 28"):
        parsed("--symbols", "29")


def test_a_replay_names_its_recordings(recording: Path) -> None:
    options = parsed("--feed", "replay", "--replay", str(recording), "--speed", "2")
    assert options.label == "REPLAY of btc.gz at 2x, timestamps shifted to now"
    assert (options.source, options.protocol) == ("replay", "sbe")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--feed", "kraken"], "one of sim, replay, live"),
        (["--feed", "replay"], "needs recordings"),
        (["--feed", "replay", "--replay", "missing.gz"], "no recording missing.gz"),
        (["--train", "missing.gz"], "no recording missing.gz"),
        (["--reference", "missing.gz", "--train", "{recording}"], "no recording missing.gz"),
        (["--reference", "{recording}"], "REFERENCE is for recordings: FEED=replay with REPLAY, or TRAIN"),
        (["--replay", "{recording}"], "for FEED=replay"),
        (["--speed", "2"], "for FEED=replay"),
        (["--feed", "replay", "--replay", "{recording}", "--speed", "0"], "above 0"),
        (["--clock-offset-ms", "-4001"], "at most 4000"),
        (["--clock-offset-ms", "1000", "--feed", "live"], "0 with FEED=live"),
        (["--symbols", "BTC/USDT"], "should be a list"),
    ],
)
def test_options_that_conflict_are_refused(arguments: list[str], reason: str, recording: Path) -> None:
    with pytest.raises(OptionsError, match=reason):
        parsed(*(argument.format(recording=recording) for argument in arguments))


def test_a_model_is_not_trained_on_what_is_replayed(recording: Path) -> None:
    same = f"{recording.parent}/../{recording.parent.name}/{recording.name}"
    with pytest.raises(OptionsError, match="never trained on the recording it is replayed on"):
        parsed("--feed", "replay", "--replay", str(recording), "--train", same)


def test_a_reference_is_of_the_minutes_of_a_replay_or_of_training(tmp_path: Path) -> None:
    spot = str(write(tmp_path / "spot.gz", text([quote(0, 10), trade(5, 1)])))
    perpetual = write(tmp_path / "usdm.gz", text([perpetual_quote(3, 7)]))
    for use in (["--train", spot], ["--feed", "replay", "--replay", spot]):
        assert parsed(*use, "--reference", str(perpetual)).reference == (perpetual,)
    other = str(write(tmp_path / "eth.gz", text([perpetual_quote(3, 7, symbol="ETHUSDT")])))
    with pytest.raises(UnusableReference, match=r"eth\.gz matches no recording"):
        parsed("--train", spot, "--reference", str(perpetual), other)


def test_the_live_feed_needs_no_key_but_uses_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BINANCE_API_KEY", raising=False)
    without = parsed("--feed", "live")
    assert (without.protocol, without.source) == ("json", "json")
    assert "no key" in without.label
    monkeypatch.setenv("BINANCE_API_KEY", "secret-key")
    with_key = parsed("--feed", "live")
    assert (with_key.protocol, with_key.source) == ("sbe", "sbe")
    assert "secret-key" not in repr(with_key)


@pytest.mark.parametrize("text", ["abc", "", "1.5", "nan", "1e3"])
def test_an_invalid_number_is_named_as_by_make(text: str) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--days", type=number_of("DAYS"))
    with pytest.raises(argparse.ArgumentError, match=f"DAYS is '{text}'; it should be a whole number"):
        parser.parse_args([f"--days={text}"])


def test_the_emulator_is_the_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for chosen, emulator in (("", "ministack"), ("ministack", "ministack"), ("localstack", "localstack")):
        monkeypatch.setenv("EMULATOR", chosen)
        assert parsed().emulator == emulator
    assert set(EMULATORS) == set(PROGRAMS)
    monkeypatch.setenv("EMULATOR", "moto")
    with pytest.raises(OptionsError, match="EMULATOR is 'moto'; it should be one of ministack, localstack"):
        parsed()
