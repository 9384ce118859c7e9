"""The hot path writes the signals that its predictions match, and waits for nobody."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
from botocore.exceptions import EndpointConnectionError

from tests.fixtures.aws import BUCKET
from tests.fixtures.hot_path import START_MS, Clock, hot_path, put_model, ticks_in
from tests.fixtures.kinesis_events import batch_event
from tickcast.adapters.lake.signal_outbox import SignalOutbox, read_signal
from tickcast.adapters.redis.hot_store import HotStore
from tickcast.adapters.registry.polling import inline
from tickcast.serving.signals import Signals


def test_predictions_that_match_a_rule_are_signalled_once_in_a_pause(
    store: HotStore, s3: Any, clock: Clock
) -> None:
    put_model(s3, "m1")
    rules = {
        "destinations": [{"name": "desk"}],
        "rules": [
            {"name": "any", "when": "confidence", "min_confidence": 0.5, "abstaining": True, "to": "desk"},
            {"name": "never", "when": "worth_trading", "min_edge_bp": 1000, "to": "desk"},
        ],
    }
    predict = hot_path(store, s3, clock, signals=msgspec.convert(rules, Signals))
    predict._outbox = SignalOutbox(s3, BUCKET, clock, inline)
    predicted = []
    for at, piece in enumerate(ticks_in(30)):
        clock.ms = START_MS + at * 100 + 150.0
        result = predict(batch_event(at, piece))
        assert not [each for each in result.problems if "signal" in each]
        predicted += result.predictions
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix="signals/")["Contents"]]
    windows_ms = {each.timestamp // 60_000 * 60_000 for each in predicted if each.horizons}
    assert keys == [f"signals/any/BTCUSDT/{ms}.json" for ms in sorted(windows_ms)]
    signal = read_signal(s3, BUCKET, keys[0])
    first = next(each for each in predicted if each.horizons)
    assert signal.forecast is not None
    assert (signal.forecast.id, signal.forecast.target_time) == (first.id, first.target_time)


def test_a_lake_that_is_away_stops_no_prediction(store: HotStore, s3: Any, clock: Clock) -> None:
    put_model(s3, "m1")
    rule = {"name": "any", "when": "fallback", "lasting_s": 0, "to": "desk"}
    rules = msgspec.convert({"destinations": [{"name": "desk"}], "rules": [rule]}, Signals)
    predict = hot_path(store, s3, clock, signals=rules)
    predict._outbox = SignalOutbox(Unavailable(), BUCKET, clock, inline)
    clock.ms = START_MS + 250.0
    result = predict(batch_event(0, *ticks_in(1)))
    assert result.predictions
    assert [each for each in result.problems if "signal any of BTCUSDT is not written" in each]


def test_a_lake_that_does_not_answer_holds_up_no_prediction(store: HotStore, s3: Any, clock: Clock) -> None:
    put_model(s3, "m1")
    rule = {"name": "any", "when": "fallback", "lasting_s": 0, "pause_s": 1, "to": "desk"}
    rules = msgspec.convert({"destinations": [{"name": "desk"}], "rules": [rule]}, Signals)
    predict, silent = hot_path(store, s3, clock, signals=rules), Silent()
    predict._outbox = SignalOutbox(silent, BUCKET, clock)
    predicted = []
    for at, piece in enumerate(ticks_in(5)):
        clock.ms = START_MS + at * 100 + 150.0
        predicted += predict(batch_event(at, piece)).predictions
    assert len({each.timestamp // 1000 for each in predicted}) > 1  # several windows
    assert silent.requests == 1
    silent.answers.set()
    assert predict._outbox._idle.wait(10)
    assert silent.requests > 1  # what was found meanwhile


class Silent:
    """Answers once it may."""

    def __init__(self) -> None:
        self.answers, self.requests = threading.Event(), 0

    def put_object(self, **request: Any) -> None:
        self.requests += 1
        assert self.answers.wait(60)


class Unavailable:
    def put_object(self, **request: Any) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")
