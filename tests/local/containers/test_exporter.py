"""The exporter against an API that returns what the real one does, or does not answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from local.containers import exporter
from local.system import servers
from tests.local.containers import samples
from tests.local.containers.samples import SYMBOL

pytestmark = pytest.mark.server

KEY = "a-key"
Samples = dict[tuple[str, tuple[str, ...]], float]


@contextmanager
def serving(bodies: dict[str, Any]) -> Iterator[str]:
    """The address of a server of JSON `bodies` by path; all but /health and /local want the key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 (the library's name)
            is_open = self.path.startswith(("/health", "/local"))
            status = 200 if is_open or self.headers["x-api-key"] == KEY else 403
            status = status if self.path in bodies else 404
            body = json.dumps(bodies.get(self.path, {"detail": "not here"})).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Not needed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def scrape(bodies: dict[str, Any]) -> Samples:
    """What the exporter reports of a system that returns `bodies`."""
    (port,) = servers.free_ports(1)
    with serving(bodies) as url:
        about = {"api_url": f"{url}/", "api_key": KEY, "exchange_url": url, "symbols": [SYMBOL]}
        end = exporter.serve(port, about, "127.0.0.1")
        try:
            with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                text = answer.read().decode()
        finally:
            end()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


ALL = {
    "/health": {"status": "degraded", "services": samples.SERVICES},
    f"/predictions/{SYMBOL}": samples.PREDICTION,
    f"/accuracy/{SYMBOL}": samples.accuracy(),
    "/local/sent": {"symbols": samples.SENT},
}


def test_what_the_api_reports() -> None:
    found = scrape(ALL)
    assert found["tickcast_service_ok", ("redis",)] == 1
    assert found["tickcast_service_ok", (f"feed:{SYMBOL}",)] == 0
    assert ("tickcast_service_ok", ("postgres",)) not in found  # not known yet
    assert found["tickcast_service_age_seconds", (f"feed:{SYMBOL}",)] == 40.2
    assert found["tickcast_service_missing_trades", (f"predict_stream:{SYMBOL}",)] == 3
    assert found["tickcast_prediction_from_model", (SYMBOL,)] == (samples.PREDICTION["source"] == "model")
    assert found["tickcast_prediction_age_seconds", (SYMBOL,)] == samples.PREDICTION["age_ms"]["claim"] / 1000
    assert found["tickcast_prediction_latency_seconds", (SYMBOL,)] == samples.PREDICTION["latency_ms"] / 1000
    assert found["tickcast_accuracy_skill", ("1", SYMBOL)] == 0.05
    assert ("tickcast_accuracy_skill", ("2", SYMBOL)) not in found  # not enough outcomes
    assert found["tickcast_availability", (SYMBOL,)] == 0.99
    assert found["tickcast_exchange_trades_total", (SYMBOL,)] == 70


def test_symbols_are_those_that_health_names() -> None:
    services = samples.SERVICES | {"feed:SOLUSDT": {"ok": True}}
    added = {path.replace(SYMBOL, "SOLUSDT"): body for path, body in ALL.items() if SYMBOL in path}
    found = scrape(ALL | added | {"/health": {"status": "ok", "services": services}})
    assert {labels for name, labels in found if name == "tickcast_prediction_confidence"} == {
        (SYMBOL,),
        ("SOLUSDT",),
    }


def test_the_others_are_reported_when_one_does_not_answer() -> None:
    assert {value for (name, _), value in scrape(ALL).items() if name == "tickcast_source_up"} == {1}
    for missing, source in (
        ("/health", "health"),
        (f"/predictions/{SYMBOL}", f"predictions/{SYMBOL}"),
        (f"/accuracy/{SYMBOL}", f"accuracy/{SYMBOL}"),
        ("/local/sent", "exchange"),
    ):
        found = scrape({path: body for path, body in ALL.items() if path != missing})
        up = {labels[0]: value for (name, labels), value in found.items() if name == "tickcast_source_up"}
        assert up == dict.fromkeys(up, 1) | {source: 0}


def test_before_the_first_scoring() -> None:
    body = samples.accuracy() | {"summary": None, "scored_age_s": None}
    found = scrape(ALL | {f"/accuracy/{SYMBOL}": body})
    assert found["tickcast_source_up", (f"accuracy/{SYMBOL}",)] == 1
    assert ("tickcast_availability", (SYMBOL,)) not in found
