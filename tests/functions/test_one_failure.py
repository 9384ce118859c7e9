"""An exception on one symbol, in its records, state, features or model, affects no other."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis
from botocore.exceptions import ClientError, ReadTimeoutError
from msgspec.structs import replace

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import (
    START_MS,
    Clock,
    hot_path,
    put_model,
    state_bytes,
    stored,
    ticks_in,
)
from tests.fixtures.kinesis_events import FIRST_SEQUENCE, batch_event, event, record
from tests.fixtures.market import START_US
from tests.fixtures.settings import configured
from tests.fixtures.store_at import StoreAt
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.redis.symbol_set import SymbolSet
from tickcast.adapters.settings import ServePredictionsSettings
from tickcast.features.ring import BarRing, View
from tickcast.functions import predict_stream
from tickcast.functions.health import Health
from tickcast.functions.predict_stream import TRIES, PredictStream, Result
from tickcast.market import wire
from tickcast.model.calibration import Calibrator
from tickcast.model.forecast import HORIZONS_S, Calibration
from tickcast.serving.prediction import Row, features_record, row_of
from tickcast.serving.state import SymbolState, decode_state, encode_state

SECONDS = 40
SYMBOLS = ("BTCUSDT", "ETHUSDT")
BAD, GOOD = SYMBOLS


@pytest.fixture
def run(predict: PredictStream, s3: Any, clock: Clock) -> Callable[..., list[Result]]:
    """Processes the streams of both symbols, a second per event, from one second to another."""
    put_model(s3, "m1", challenger=None)
    stream = ticks_in(SECONDS)

    def process(first_s: float, last_s: float, per_event: int = 10) -> list[Result]:
        results = []
        for at in range(round(first_s * 10), round(last_s * 10), per_event):
            pieces = [piece for piece in stream[at : at + per_event] for _ in SYMBOLS]
            named = [piece._replace(symbol=SYMBOLS[n % 2]) for n, piece in enumerate(pieces)]
            clock.ms = START_MS + (at + per_event) * 100 + 150.0
            results.append(predict(batch_event(2 * at, *named)))
        return results

    return process


def change_state(client: redis.Redis, predict: PredictStream, change: Callable[[SymbolState], None]) -> None:
    """Store the state of the bad symbol again after `change`: well-formed, with a correct checksum. The next
    event reads it, as after a cold start."""
    predict.states.clear()
    sequence = client.hget(f"state:{BAD}", "sequence")
    state = decode_state(BAD, int(sequence or 0), state_bytes(client, BAD), 100_000)
    change(state)
    client.hset(f"state:{BAD}", "ring", encode_state(state))


def forget_the_basis(state: SymbolState) -> None:
    for prediction in state.pending.pending:
        prediction.basis_price = 0.0


def mix_up_times(state: SymbolState) -> None:
    state.ring.quote_ids.series.newest_us = "noon"  # type: ignore[assignment]


def mix_up_ids(state: SymbolState) -> None:
    state.ring.trade_ids.series.newest_id = "a"  # type: ignore[assignment]


def sources(result: Result, symbol: str) -> list[str]:
    return [p.source for p in result.predictions if p.symbol == symbol]


@pytest.mark.parametrize("poison", [forget_the_basis, mix_up_times, mix_up_ids])
def test_a_state_on_which_every_record_fails_is_quarantined(
    run: Callable[..., list[Result]],
    redis_client: redis.Redis,
    predict: PredictStream,
    s3: Any,
    poison: Callable[[SymbolState], None],
) -> None:
    run(0, 15)
    missing_before = stored(redis_client, f"gaps:{BAD}")["missing_trades"]
    change_state(redis_client, predict, poison)
    results = run(15, 40)
    for result in results:
        assert sources(result, GOOD) == ["model"]
    assert [symbol for result in results for symbol in result.started_over] == [BAD]
    assert 1 <= sum(len(result.failed) for result in results) <= TRIES
    assert results[-1].problems == [] and sources(results[-1], BAD) == ["model"]
    assert stored(redis_client, f"heartbeat:predict_stream:{BAD}")["failure"] is None
    (kept,) = (
        s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
        for item in s3.list_objects_v2(Bucket=BUCKET, Prefix="quarantine/predict_stream/state/")["Contents"]
        if item["Key"].endswith("json")
    )
    assert json.loads(kept)["symbol"] == BAD and "Error" in json.loads(kept)["reason"]
    # Trades left out meanwhile are in the ledger, with their cause.
    ledger = stored(redis_client, f"gaps:{BAD}")
    assert ledger["missing_trades"] > missing_before
    assert {gap["cause"] for gap in ledger["gaps"]} == {"the state was lost"}
    assert stored(redis_client, f"gaps:{GOOD}")["missing_trades"] == 0


def test_tries_are_counted_from_event_to_event(
    run: Callable[..., list[Result]], redis_client: redis.Redis, predict: PredictStream
) -> None:
    run(0, 15)
    change_state(redis_client, predict, mix_up_ids)
    results = run(15, 16, per_event=1)
    assert [result.failed for result in results] == [[BAD]] * TRIES + [[]] * (10 - TRIES)
    assert [result.started_over for result in results] == [[]] * (TRIES - 1) + [[BAD]] + [[]] * (10 - TRIES)
    assert [len(result.quarantined) for result in results] == [1] * (TRIES - 1) + [0] * (11 - TRIES)


def test_health_shows_a_failure_until_the_next_prediction(
    run: Callable[..., list[Result]],
    redis_client: redis.Redis,
    predict: PredictStream,
    store: HotStore,
    clock: Clock,
) -> None:
    run(0, 15)
    change_state(redis_client, predict, mix_up_ids)
    store_now = StoreAt(redis_client, 100_000)
    store_now.at_ms = clock
    settings = configured(ServePredictionsSettings)
    health = Health(settings, store_now, clock, SymbolSet(settings.symbols))
    for pieces in range(TRIES - 1):
        run(15 + pieces / 10, 15.1 + pieces / 10, per_event=1)
        services = health().body["services"]
        assert not services[f"predict_stream:{BAD}"]["ok"]
        assert "records are left out: BTCUSDT: TypeError" in services[f"predict_stream:{BAD}"]["why"]
        assert services[f"predict_stream:{GOOD}"]["ok"]
    run(15.2, 16.5, per_event=1)
    assert health().body["services"][f"predict_stream:{BAD}"]["ok"]


def test_a_record_that_always_raises_is_left_out_alone(
    run: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    run(0, 20)
    fold = BarRing.fold
    odd = {(START_US + n * 100_000) for n in (203, 204, 205, 206, 207)}

    def raises(ring: BarRing, batch: wire.TickBatch, every_us: int) -> Any:
        if batch.symbol == BAD and int(batch.quotes["time_us"][0]) // 100_000 * 100_000 in odd:
            raise OverflowError("too large")
        return fold(ring, batch, every_us)

    monkeypatch.setattr(BarRing, "fold", raises)
    results = run(20, 25)
    assert [len(result.quarantined) for result in results] == [5, 0, 0, 0, 0]
    assert "OverflowError: too large" in results[0].quarantined[0]
    assert not any(result.started_over for result in results)
    assert {source for r in results for symbol in SYMBOLS for source in sources(r, symbol)} == {"model"}


def test_features_that_raise(
    run: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    run(0, 15)

    def raises(symbol: str, view: View, quiet_us: int) -> Any:
        if symbol == BAD and len(view.seconds) > 5:
            raise ZeroDivisionError
        return row_of(symbol, view, quiet_us)

    monkeypatch.setattr("tickcast.functions.predict_stream.row_of", raises)
    results = run(15, 19)
    assert [result.started_over for result in results] == [[BAD], [], [], []]
    assert [sources(result, GOOD) for result in results] == [["model"]] * 4
    assert [sources(result, BAD) for result in results][1:] == [["fallback"]] * 3


def test_an_optional_figure_that_is_not_finite_is_stored_as_null(
    run: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    run(0, 15)

    def broken(row: Row) -> Any:
        found = features_record(row)
        return replace(found, vwap=np.inf) if row.symbol == BAD else found

    monkeypatch.setattr("tickcast.functions.predict_stream.features_record", broken)
    results = run(15, 20)
    assert all(sources(result, symbol) == ["model"] for result in results for symbol in SYMBOLS)
    assert stored(redis_client, f"features:{BAD}:latest")["vwap"] is None


def test_a_state_with_a_number_that_is_not_finite_is_quarantined(
    run: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    """A calibration decides something: it is not stored as null."""
    run(0, 15)
    learn = Calibrator.learn

    def to_nan(calibrator: Calibrator, *outcome: Any) -> None:
        learn(calibrator, *outcome)
        if calibrator.outcomes % 3 == 0:
            calibrator.interval_width = np.nan

    monkeypatch.setattr(Calibrator, "learn", to_nan)
    results = run(15, 20)
    assert any(result.failed for result in results)
    assert b"NaN" not in (redis_client.hget(f"state:{BAD}", "ring") or b"")
    monkeypatch.undo()
    assert sources(run(20, 40)[-1], BAD) == ["model"]


def test_a_prediction_resets_the_count_of_tries(
    run: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound records that fail now and then are left out; the state is kept."""
    run(0, 15)
    take = BarRing._take

    def raises_now_and_then(ring: BarRing, trades: Any, quotes: Any) -> None:
        if len(ring.bars) and int(quotes["time_us"][0]) // 100_000 % 10 == 5:
            raise IndexError
        take(ring, trades, quotes)

    monkeypatch.setattr(BarRing, "_take", raises_now_and_then)
    results = [result for piece in range(50) for result in run(15 + piece / 10, 15.1 + piece / 10, 1)]
    assert sum(len(result.failed) for result in results) == 5 * len(SYMBOLS)
    assert sum(len(result.quarantined) for result in results) == 5 * len(SYMBOLS)
    assert not any(result.started_over for result in results)


def test_a_model_that_raises_makes_that_prediction_a_fallback(
    predict: PredictStream, run: Callable[..., list[Result]]
) -> None:
    run(0, 15)
    model = predict.models.current()
    assert model
    works, calls = model.run, iter(range(100))

    def fails(rows: Any) -> Any:
        if next(calls) < 2:  # for both symbols together, then for the first
            raise RuntimeError("no memory")
        return works(rows)

    object.__setattr__(model, "run", fails)
    first, second = run(15, 17)
    assert (sources(first, BAD), sources(first, GOOD)) == (["fallback"], ["model"])
    assert first.predictions[0].reason == "model_refused"
    assert first.model_refused and not first.failed
    assert any("RuntimeError: no memory" in problem for problem in first.problems)
    assert sources(second, BAD) == ["model"] and not second.model_refused


def test_a_state_that_cannot_be_encoded(
    run: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found only when writing: the other symbols are written all the same."""
    run(0, 15)
    encode, failures = encode_state, iter(range(100))

    def raises(state: SymbolState) -> bytes:
        if state.symbol == BAD and next(failures) < 2:
            raise TypeError("Object of type int64 is not JSON serializable")
        return encode(state)

    monkeypatch.setattr(predict_stream, "encode_state", raises)
    (first,) = run(15, 16)
    assert first.failed == [BAD] and sources(first, GOOD) == ["model"]
    assert run(16, 30)[-1].problems == []


def test_a_store_out_of_reach_while_a_symbol_fails_fails_the_event(
    run: Callable[..., list[Result]], predict: PredictStream, redis_client: redis.Redis, store: HotStore
) -> None:
    """The retry finds the other symbol written, and this one unchanged."""
    run(0, 15)
    change_state(redis_client, predict, mix_up_ids)

    class NoS3:
        def put_object(self, **_: Any) -> Any:
            raise ConnectionResetError

    s3, predict.s3 = predict.s3, NoS3()
    with pytest.raises(ConnectionResetError):
        run(15, 16)
    predict.s3 = s3
    (again,) = run(15, 16)
    assert again.repeated == 10 and again.started_over == [BAD]
    assert store.history(GOOD, 1)[0].timestamp // 1000 == START_MS // 1000 + 15


def odd_seconds(first: int) -> dict[str, Any]:
    """Three seconds of ticks as an event, with an impossible time, an impossible id and a damaged record."""
    pieces = ticks_in(first + 3)[first * 10 :]
    for at, name, value in ((3, "time_us", 0), (5, "update_id", 2**60)):
        quotes = pieces[at].quotes.copy()
        quotes[name][0] = value
        pieces[at] = pieces[at]._replace(quotes=quotes)
    good = [record(first * 10 + n, wire.encode(piece)) for n, piece in enumerate(pieces)]
    return event(*good[:20], record(first * 10 + 20, b"garbage"), *good[21:])


@pytest.mark.parametrize(
    "error",
    [
        ReadTimeoutError(endpoint_url="https://s3"),
        ClientError({"Error": {"Code": "SlowDown", "Message": ""}}, "PutObject"),
        ConnectionResetError(),
    ],
)
def test_an_unreachable_quarantine_stops_nothing(
    predict: PredictStream, redis_client: redis.Redis, error: Exception
) -> None:
    class NoS3:
        puts = 0

        def put_object(self, **_: Any) -> Any:
            self.puts += 1
            raise error

    s3, predict.s3 = predict.s3, NoS3()
    polled: list[bool] = []
    predict.models.poll = lambda: polled.append(True)  # type: ignore[method-assign]
    result = predict(odd_seconds(0))
    assert (predict.s3.puts, polled) == (1, [True])
    assert len(result.predictions) == redis_client.xlen("predictions:BTCUSDT") == 1
    assert len(result.quarantined) == 3
    (problem,) = (each for each in result.problems if each.startswith("quarantine"))
    assert "S3 took 0 of 3 records" in problem and type(error).__name__ in problem
    assert result.quarantined[0] in problem
    predict.s3 = s3
    assert len(predict(odd_seconds(3)).quarantined) == 3


def test_each_quarantined_part_of_a_record_has_its_own_key(predict: PredictStream, s3: Any) -> None:
    assert len(predict(odd_seconds(0)).quarantined) == 3
    found = s3.list_objects_v2(Bucket=BUCKET, Prefix="quarantine/")["Contents"]
    names = [item["Key"].rpartition("/")[2] for item in found if item["Key"].endswith(".bin")]
    assert sorted(names) == sorted(
        [f"{FIRST_SEQUENCE + 3}-rows.bin", f"{FIRST_SEQUENCE + 5}-ids.bin", f"{FIRST_SEQUENCE + 20}.bin"]
    )


@pytest.mark.parametrize("data", [b"garbage", b"\xc3\x01" + bytes(8) + b"\xff" * 30])
def test_a_damaged_record_stops_no_other(predict: PredictStream, data: bytes) -> None:
    good = [record(n, wire.encode(piece)) for n, piece in enumerate(ticks_in(3))]
    result = predict(event(*good[:10], record(10, data), *good[11:]))
    assert len(result.quarantined) == 1 and len(result.predictions) == 1


def test_damaged_keys_of_a_symbol_affect_no_other(
    run: Callable[..., list[Result]], redis_client: redis.Redis
) -> None:
    run(0, 15)
    redis_client.set(f"repaired:{BAD}", "not JSON")
    redis_client.delete(f"state:{BAD}")
    redis_client.set(f"state:{BAD}", "no hash")
    redis_client.set(f"gaps:{BAD}", "[]")
    results = run(15, 40)
    assert all(sources(result, GOOD) == ["model"] for result in results)
    assert sources(results[-1], BAD) == ["model"]


def test_a_restart_remembers_the_tries(
    run: Callable[..., list[Result]],
    redis_client: redis.Redis,
    predict: PredictStream,
    store: HotStore,
    s3: Any,
    clock: Clock,
) -> None:
    run(0, 15)
    change_state(redis_client, predict, mix_up_ids)
    started_over = []
    for n, piece in enumerate(ticks_in(SECONDS)[150 : 150 + TRIES]):
        event_ = batch_event(1000 + n, piece)
        started_over += hot_path(store, s3, clock)(event_).started_over
    assert started_over == [BAD]


@pytest.mark.parametrize("role", ["champion", "challenger"])
def test_a_model_whose_interval_is_far_too_wide_stops_nothing(
    predict: PredictStream,
    run: Callable[..., list[Result]],
    s3: Any,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
) -> None:
    """Its lower bound is below any price: the champion's predictions are fallbacks, and the challenger's
    shadow is left out."""
    run(0, 15)
    champion = predict.models.current()
    assert champion
    widest = {h: Calibration(direction_slope=1.0, interval_width=1e9) for h in HORIZONS_S}
    wide = dataclasses.replace(champion, model_id="m2", calibrations=widest)
    if role == "champion":
        monkeypatch.setattr(predict.models, "current", lambda: wide)
    else:
        monkeypatch.setattr(type(predict.models), "challenger", wide)
    results = run(15, 17)
    for result in results:
        assert not result.failed and not result.quarantined and not result.started_over
        assert {each.challenger for each in result.predictions} == {None}
        refused = role == "champion"
        assert (result.model_refused, result.challenger_refused) == (refused, not refused)
        for each in result.predictions:
            expected = ("fallback", "model_refused") if refused else ("model", None)
            assert (each.source, each.reason) == expected
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET, Prefix="quarantine/")
