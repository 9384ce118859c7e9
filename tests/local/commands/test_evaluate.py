"""`make evaluate` on small recordings made up here: its last line, its refusals, its picture."""

import gzip
import itertools
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from local.__main__ import main
from local.commands.evaluate import refuse_overlap
from local.exchange.events import MarketData, ReferenceQuote, Trade
from local.exchange.perpetual import with_perpetual
from local.exchange.recording import Recording
from local.exchange.simulator import simulate
from local.system.options import OptionsError
from tests.fixtures.recordings import perpetual_quote
from tests.fixtures.recordings import text as recording_text
from tests.fixtures.recordings import write as write_recording

pytestmark = pytest.mark.slow  # all of it together

START_US = 1_754_000_000_000_000
WITH_INTERVALS = (
    *("skill", "skill_vs_linear", "direction"),
    *("skill_at_delivery", "skill_vs_linear_at_delivery", "direction_at_delivery"),
    *("coverage80", "calibration_error", "crps_skill", "interval_score_skill"),
)
FIGURES = {
    *(f"{name}{suffix}" for name in WITH_INTERVALS for suffix in ("", "_ci")),
    *("crps_bp", "interval_score_bp", "calibration_floor", "moved", "p_flat_skill"),
    *("regimes", "grid_1s", "baselines", "baselines_at_delivery"),
}
BASELINES = {"no_change", "last_trade", "microprice", "linear_imbalance"}


def text(mantissa: int) -> str:
    return f"{mantissa // 10**8}.{mantissa % 10**8:08}"


def message_of(tick: MarketData) -> dict[str, Any]:
    if isinstance(tick, Trade):
        data: dict[str, Any] = {"e": "trade", "E": tick.time_us // 1000, "T": tick.time_us // 1000}
        data |= {"s": "BTCUSDT", "t": tick.id, "p": text(tick.price), "q": text(tick.qty)}
        return {"stream": "btcusdt@trade", "data": data | {"m": tick.is_buyer_maker}}
    data = dict(zip("ubBaA", (tick.update_id, *map(text, tick[3:])), strict=True))
    if isinstance(tick, ReferenceQuote):
        data |= {"e": "bookTicker", "E": tick.time_us // 1000, "T": tick.time_us // 1000}
    return {"stream": "btcusdt@bookTicker", "data": {"s": "BTCUSDT"} | data}


@pytest.fixture(scope="module")
def all_recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Four simulated minutes of BTCUSDT, and the two after them, in the collector's format; and those of its
    perpetual, but for the last of each."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = folder / "first.gz", folder / "second.gz", folder / "perpetual.gz"
    cut_us, end_us = START_US + 240_000_000, START_US + 360_000_000
    market = with_perpetual(simulate("BTCUSDT", 7, START_US), "BTCUSDT", 7)
    with ExitStack() as opened:
        files = [opened.enter_context(gzip.open(path, "wt", compresslevel=1)) for path in paths]
        for tick in itertools.takewhile(lambda t: t.time_us < end_us, market):
            line = json.dumps(message_of(tick), separators=(",", ":"))
            is_perpetual = isinstance(tick, ReferenceQuote)
            if is_perpetual and any(end - 60_000_000 <= tick.time_us < end for end in (cut_us, end_us)):
                continue
            files[2 if is_perpetual else tick.time_us >= cut_us].write(f"{tick.time_us * 1000} {line}\n")
    return paths


@pytest.fixture(scope="module")
def recordings(all_recordings: tuple[Path, Path, Path]) -> tuple[Path, Path]:
    return all_recordings[:2]


def test_trained_on_one_recording_and_evaluated_on_a_later_one(
    recordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = recordings
    picture = tmp_path / "out" / "evaluation.png"
    given = ["evaluate", "--session", str(second), "--train", str(first), "--picture", str(picture)]
    assert main([*given, "--fee-bp", "7.5"]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert list(result)[:4] == ["rows", "span_s", "quotes_share", "horizons"]
    assert list(result["horizons"]) == ["1", "2", "5", "10"]
    for figures in result["horizons"].values():
        assert figures.keys() >= FIGURES
        assert figures["baselines"].keys() == figures["baselines_at_delivery"].keys() == BASELINES
        assert all(low <= high for low, high in (figures[f"{name}_ci"] for name in WITH_INTERVALS))
        assert 0 < figures["crps_bp"] < figures["interval_score_bp"]
    assert 900 < result["rows"] <= 1200
    assert 90 < result["span_s"] <= 120
    assert result["quotes_share"] == 1.0
    fresh, delivered = (result["by_age"][age]["1"] for age in ("0", "200"))
    of_1s = result["horizons"]["1"]
    # The simulated book does predict moves, and those still to come at delivery less well.
    assert of_1s["skill"] == fresh["skill"] > of_1s["skill_at_delivery"] == delivered["skill"] > 0
    assert of_1s["direction_at_delivery"] == delivered["direction"] > 0.5
    assert of_1s["crps_skill"] > 0 and of_1s["interval_score_skill"] > 0
    assert list(result["by_age"]) == [str(age_ms) for age_ms in range(0, 1001, 100)]
    assert all(list(each) == ["1", "2", "5", "10"] for each in result["by_age"].values())
    assert result["leakage"] == {"shuffled": False, "shifted": False}
    assert (result["mode"], result["train"], result["train_shares_time"]) == ("train", ["first.gz"], False)
    assert result["fee_bp"] == 7.5 and list(result["earnings"]) == ["1", "2", "5", "10"]
    for horizon, (every, *_, worth_trading) in result["earnings"].items():
        assert every["trades"] > 100 and worth_trading["trades"] == 0
        assert (every["fees_bp"], worth_trading["net_bp"]) == (15, None)
        assert (every["net_ci"] is None) == (horizon == "10")  # two minutes have six blocks of 20 s
        low, high = every["net_ci"] or [every["net_bp"]] * 2
        assert low <= every["net_bp"] <= high < 0
        assert every["break_even_fee_bp"] == pytest.approx(every["net_bp"] / 2 + 7.5, abs=1e-3)
        assert 0 < every["spread_bp"] < 1
    assert any("net of spread and a fee of 7.5 bp a side" in line for line in shown)
    assert any("against linear imbalance" in line for line in shown)
    assert any("by the age at which a prediction is read" in line for line in shown)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_with_reference_the_figures_say_what_the_perpetual_adds(
    all_recordings: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, perpetual = map(str, all_recordings)
    given = ["evaluate", "--session", second, "--train", first, "--picture", str(tmp_path / "p.png")]
    assert main(given) == 0
    without = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert without["reference"] is None
    assert main([*given, "--reference", perpetual]) == 0
    *shown, last = capsys.readouterr().out.splitlines()
    result = json.loads(last)
    assert list(result) == list(without)
    reference = result["reference"]
    assert reference["files"] == ["perpetual.gz"]
    # The perpetual ends a minute early in both: about a half and three quarters of the rows know it.
    assert 0.4 < reference["coverage"]["BTCUSDT"] < 0.6
    assert 0.7 < reference["coverage_train"]["BTCUSDT"] < 0.85
    gains = reference["skill_gain_by_reference_at_delivery"]
    assert list(gains) == ["1", "2", "5", "10"]
    for horizon, gain in gains.items():
        with_it, blind = result["horizons"][horizon], reference["without"][horizon]
        assert gain.keys() == {"all", "BTCUSDT"} and gain["all"] == gain["BTCUSDT"]
        assert gain["all"] == pytest.approx(
            with_it["skill_at_delivery"] - blind["skill_at_delivery"], abs=2e-4
        )
        low, high = reference["skill_gain_by_reference_at_delivery_ci"][horizon]["BTCUSDT"]
        assert low <= gain["BTCUSDT"] <= high
        # Without the perpetual it is the model that is trained without it.
        assert blind["skill_at_delivery"] == without["horizons"][horizon]["skill_at_delivery"]
    assert any("the perpetual adds (perpetual.gz)" in line for line in shown)


def test_a_reference_of_other_minutes_is_named(
    all_recordings: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _, perpetual = all_recordings
    later = write_recording(tmp_path / "later.gz", recording_text([perpetual_quote(0, 1)]))
    given = ["evaluate", "--session", str(first), "--reference", str(perpetual), str(later)]
    assert main(given) == 2
    assert "REFERENCE later.gz matches no recording" in capsys.readouterr().err


def test_without_train_the_second_half_is_predicted_by_walk_forward(
    recordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["evaluate", "--session", *map(str, recordings), "--picture", str(tmp_path / "p.png")]
    assert main(given) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["mode"], result["train"]) == ("walk-forward", [])
    assert 150 < result["span_s"] < 180


@pytest.mark.parametrize(
    ("fee", "should_be"), [("ten", "a number"), ("nan", "from 0"), ("-1", "from 0"), ("1001", "from 0")]
)
def test_a_fee_that_cannot_be_is_named(fee: str, should_be: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--session", "a.gz", f"--fee-bp={fee}"])
    assert f"FEE is '{fee}'; it should be {should_be}" in capsys.readouterr().err


def test_rows_trained_on_are_never_evaluated_on(
    recordings: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = map(str, recordings)
    assert main(["evaluate", "--session", first, second, "--train", first]) == 2
    complaint = capsys.readouterr().err
    assert "SESSION first.gz and TRAIN first.gz both hold BTCUSDT at the same time" in complaint
    assert "never evaluated on rows it was trained on" in complaint


@pytest.mark.parametrize(
    ("symbol", "first_s", "is_refused"),
    [("BTCUSDT", 50, True), ("BTCUSDT", 100, True), ("BTCUSDT", 101, False), ("ETHUSDT", 50, False)],
)
def test_overlap_is_that_of_symbol_and_time(symbol: str, first_s: int, is_refused: bool) -> None:
    def recording(symbol: str, first_s: int, last_s: int) -> Recording:
        return Recording(Path("a.gz"), frozenset({symbol}), 0, first_s * 10**6, last_s * 10**6)

    session, train = [recording("BTCUSDT", 0, 100)], [recording(symbol, first_s, 200)]
    if is_refused:
        for pair in ((session, train), (train, session), (session + train, [])):
            with pytest.raises(OptionsError, match="BTCUSDT at the same time"):
                refuse_overlap(*pair)
    else:
        refuse_overlap(session, train)


def test_too_few_rows_and_no_quotes_have_their_own_messages(
    recordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.gz"
    with gzip.open(recordings[0]) as whole:
        short.write_bytes(gzip.compress(b"".join(itertools.islice(whole, 4000))))
    assert main(["evaluate", "--session", str(recordings[1]), "--train", str(short)]) == 1
    assert "usable rows, training needs 1000" in capsys.readouterr().err
    trades = tmp_path / "trades.gz"
    with gzip.open(recordings[1]) as whole:
        trades.write_bytes(gzip.compress(b"".join(line for line in whole if b"@trade" in line)))
    assert main(["evaluate", "--session", str(trades), "--train", str(recordings[0])]) == 1
    assert "SESSION has no rows with quotes" in capsys.readouterr().err
