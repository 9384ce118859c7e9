"""`python -m local.containers.exporter PORT`: what the API and the local exchange report, for Prometheus.

Each scrape asks `/health`, the newest prediction and the accuracy of each symbol, and what the exchange has
sent. What does not answer, or is not known yet, has no value; `tickcast_source_up` says which answered.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from local.containers import SHARED, SYSTEM
from local.system import http_json
from local.system.api import Api, ApiFailed

TIMEOUT_S = 5.0
_FEED = "feed:"  # a part of `/health`, of each symbol


class Source(NamedTuple):
    """A part of what is reported: its name, and how to read it."""

    name: str
    read: Callable[[], Iterator[Metric]]


class Figures:
    """Gauges with the same labels for several things, each made when its first value comes."""

    def __init__(self, *labels: str) -> None:
        self._labels = labels
        self._gauges: dict[str, GaugeMetricFamily] = {}

    def add(self, name: str, help_text: str, labels: tuple[str, ...], number: float | None) -> None:
        """Nothing is added for None."""
        if number is None:
            return
        if name not in self._gauges:
            self._gauges[name] = GaugeMetricFamily(f"tickcast_{name}", help_text, labels=self._labels)
        self._gauges[name].add_metric(labels, float(number))

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._gauges.values())


def of_health(services: dict[str, Any]) -> Iterator[Metric]:
    """From the `services` of `/health`."""
    figures = Figures("service")
    for name, service in services.items():
        figures.add("service_ok", "1 healthy, 0 not", (name,), service["ok"])
        figures.add("service_age_seconds", "since the last heartbeat", (name,), service.get("age_s"))
        figures.add("service_missing_trades", "not received", (name,), service.get("missing_trades"))
        figures.add("service_quote_gaps", "spans without quotes", (name,), service.get("quote_gaps"))
        reference_age_s = service.get("reference_age_s")
        figures.add("service_reference_age_seconds", "of the perpetual's quote", (name,), reference_age_s)
    yield from figures


def of_prediction(symbol: str, body: dict[str, Any]) -> Iterator[Metric]:
    """From `/predictions/{symbol}`."""
    figures = Figures("symbol")
    is_model = body["source"] == "model"
    figures.add("prediction_from_model", "1 by a model, 0 a fallback", (symbol,), is_model)
    figures.add(
        "prediction_age_seconds", "since its as-of instant", (symbol,), body["age_ms"]["claim"] / 1000
    )
    figures.add(
        "prediction_latency_seconds",
        "from the as-of instant until written",
        (symbol,),
        body["latency_ms"] / 1000,
    )
    figures.add("prediction_confidence", "that the direction is right", (symbol,), body["confidence"])
    figures.add("prediction_expected_move_bp", "of the mid", (symbol,), body["expected_move_bp"])
    figures.add("prediction_basis_price", "the mid", (symbol,), body["basis_price"])
    yield from figures


def of_accuracy(symbol: str, body: dict[str, Any]) -> Iterator[Metric]:
    """From `/accuracy/{symbol}`: the last hour."""
    by_horizon, by_symbol = Figures("symbol", "horizon_s"), Figures("symbol")
    for horizon_s, figures in body["horizons"].items():
        labels = (symbol, str(horizon_s))
        by_horizon.add("accuracy_scored", "predictions with an outcome", labels, figures["count"])
        by_horizon.add("accuracy_direction", "share with the right sign", labels, figures["direction"])
        by_horizon.add("accuracy_coverage", "share inside the interval", labels, figures["coverage"])
        skill = figures["skill"]
        by_horizon.add("accuracy_skill", "against no change", labels, skill and skill["value"])
        share = figures["fallback_share"]
        by_horizon.add("accuracy_fallback_share", "predictions without a model", labels, share)
    by_symbol.add("accuracy_scored_age_seconds", "since the scoring", (symbol,), body["scored_age_s"])
    if body["summary"]:
        availability = body["summary"]["hour"]["availability"]
        by_symbol.add("availability", "share of seconds that a model answered", (symbol,), availability)
    yield from by_horizon
    yield from by_symbol


def of_exchange(symbols: dict[str, Any]) -> Iterator[Metric]:
    """From the local exchange's `/local/sent`."""
    for kind in ("trades", "quotes"):
        sent = CounterMetricFamily(
            f"tickcast_exchange_{kind}", "published since the start", labels=["symbol"]
        )
        for symbol, counts in symbols.items():
            sent.add_metric([symbol], counts[kind])
        yield sent


class Reports(Collector):
    """Everything, read for each scrape, of the symbols that `/health` names then; `symbols` until it does."""

    def __init__(self, api: Api, exchange_url: str, symbols: list[str]) -> None:
        self._api = api
        self._exchange_url = exchange_url
        self._symbols = symbols

    def _sources(self) -> Iterator[Source]:
        yield Source("health", self._health)
        yield Source("exchange", self._sent)
        for symbol in self._symbols:
            yield Source(f"predictions/{symbol}", _of(of_prediction, self._api, "predictions", symbol))
            yield Source(f"accuracy/{symbol}", _of(of_accuracy, self._api, "accuracy", symbol))

    def _health(self) -> Iterator[Metric]:
        services = self._api.services()
        served = [name.removeprefix(_FEED) for name in services if name.startswith(_FEED)]
        self._symbols = served or self._symbols
        return of_health(services)

    def _sent(self) -> Iterator[Metric]:
        sent = http_json.get(f"{self._exchange_url}/local/sent", timeout_s=TIMEOUT_S).body["symbols"]
        return of_exchange(sent)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("tickcast_source_up", "1 when it answered", labels=["source"])
        merged: dict[str, Metric] = {}
        for source in self._sources():
            try:
                found = list(source.read())
            except (OSError, ValueError, KeyError, TypeError, ApiFailed):
                up.add_metric([source.name], 0)
                continue
            up.add_metric([source.name], 1)
            for metric in found:  # a name may come only once
                merged.setdefault(metric.name, metric)
                if merged[metric.name] is not metric:
                    merged[metric.name].samples += metric.samples
        yield up
        yield from merged.values()


def _of(
    read: Callable[[str, dict[str, Any]], Iterator[Metric]], api: Api, path: str, symbol: str
) -> Callable[[], Iterator[Metric]]:
    return lambda: read(symbol, api.body(f"{path}/{symbol}"))


def serve(port: int, about: dict[str, Any], host: str = "0.0.0.0") -> Callable[[], None]:
    """Serve `/metrics` of the system `about`, in threads; returns what ends it."""
    registry = CollectorRegistry()
    api = Api(about["api_url"], about["api_key"])
    registry.register(Reports(api, about["exchange_url"], about["symbols"]))
    server, thread = start_http_server(port, addr=host, registry=registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end


def main(port: int) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    end = serve(port, json.loads((SHARED / SYSTEM).read_text("utf-8")))
    stop.wait()
    end()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
