"""`GET /health`, `/ready` and `/metrics` of the task, in a thread of their own.

`/health` is 503 until the first data arrive, so that a deployment stops no task before its replacement works,
and afterwards when the task itself is stuck. `/ready` is 503 while no ticks flow, whatever
the cause: stopping the task because the exchange is down would help nobody. Both return the same report,
with reasons. `/metrics` is Prometheus' text format.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from tickcast.adapters import json_text

Report = Callable[[], dict[str, Any]]


class _Metrics(Collector):
    """Every count of the report as a counter, every age and level as a gauge."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def collect(self) -> Any:
        report = self._report()
        for name, value in report["counts"].items():
            yield CounterMetricFamily(f"tickcast_ingest_{name}", f"{name} since the start", value=value)
        bad = CounterMetricFamily("tickcast_ingest_bad_frames", "frames skipped", labels=["reason"])
        for reason, count in report["bad_frames"].items():
            bad.add_metric([reason], count)
        yield bad
        age = GaugeMetricFamily(
            "tickcast_ingest_last_tick_age_seconds", "since the last tick", labels=["symbol"]
        )
        for symbol, about in report["symbols"].items():
            if about["last_tick_age_s"] is not None:
                age.add_metric([symbol], about["last_tick_age_s"])
        yield age
        reference_age = GaugeMetricFamily(
            "tickcast_ingest_reference_age_seconds",
            "since the last quote of the symbol's perpetual",
            labels=["symbol"],
        )
        for symbol, age_s in report["reference"]["age_s"].items():
            if age_s is not None:
                reference_age.add_metric([symbol], age_s)
        yield reference_age
        yield CounterMetricFamily(
            "tickcast_ingest_reference_connections",
            "connections to the perpetuals since the start",
            value=report["reference"]["connections"],
        )
        for name in ("live", "ready", "waiting_records"):
            yield GaugeMetricFamily(
                f"tickcast_ingest_{name}", name.replace("_", " "), value=float(report[name])
            )


class HealthServer:
    """Serves what `report` returns, which has `live`, `ready` and `why`. Port 0 takes a free one.

    On the loopback address, unless `host` is another: ECS checks from within the container.
    """

    def __init__(self, port: int, report: Report, host: str = "127.0.0.1") -> None:
        registry = CollectorRegistry()
        registry.register(_Metrics(report))

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 (the library's name)
                if self.path == "/metrics":
                    self._respond(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                    return
                field = {"/health": "live", "/ready": "ready"}.get(self.path)
                if field is None:
                    self.send_error(404)
                    return
                body = report()
                status = 200 if body[field] else 503
                self._respond(status, json_text.text(body).encode(), "application/json")

            def _respond(self, status: int, data: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Health checks are not logged."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="health")

    def __enter__(self) -> HealthServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
