"""An exchange's REST with a history of the test's own, over real sockets, that answers as it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Row = dict[str, Any]


def agg_trade(agg_id: int, first_id: int, last_id: int, time_us: int, *, maker: bool = False) -> Row:
    qty = f"0.{last_id - first_id + 1:05}000"
    return {
        "a": agg_id, "p": f"{60000 + agg_id % 7}.01000000", "q": qty, "f": first_id, "l": last_id,
        "T": time_us, "m": maker, "M": True,
    }  # fmt: skip


class RestServer:
    """`rows` are the aggregates in order. What is in `answers` comes first, one for each request."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []  # status, headers, body
        self.asked: list[dict[str, str]] = []  # the queries for aggregates
        self.used_weight = 0
        self.weight_limit = 6000
        self.most_rows = 1000  # of a page, whatever is asked for
        self.status: str | None = None  # of the market, in exchangeInfo
        self.gives_last = False  # of more than a page: the last ones instead of the first
        self.url = ""

    def refuse(self, status: int, **headers: str) -> None:
        self.answers.append((status, headers, b'{"code": -1, "msg": "refused by the test"}'))

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        weight = 20 if path.endswith("exchangeInfo") else 4
        self.used_weight += weight
        headers = {"X-MBX-USED-WEIGHT-1M": str(self.used_weight)}
        if path.endswith("aggTrades"):
            self.asked.append(query)
            if self.answers:
                status, more, body = self.answers.pop(0)
                return status, headers | more, body
            return 200, headers, json.dumps(self._agg_trades(query)).encode()
        markets = [{"symbol": query.get("symbol"), "status": self.status}] if self.status else []
        limit = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1}
        info = {"rateLimits": [limit | {"limit": self.weight_limit}], "symbols": markets}
        return 200, headers, json.dumps(info).encode()

    def _agg_trades(self, query: dict[str, str]) -> list[Row]:
        limit = min(int(query["limit"]), self.most_rows)
        if "fromId" in query:
            return [row for row in self.rows if row["a"] >= int(query["fromId"])][:limit]
        if "startTime" not in query:
            return self.rows[-limit:]
        start_us, end_us = int(query["startTime"]) * 1000, int(query["endTime"]) * 1000 + 999
        assert end_us - start_us < 3_600_000_000
        found = [row for row in self.rows if start_us <= row["T"] <= end_us]
        return found[-limit:] if self.gives_last else found[:limit]


@contextmanager
def rest_server() -> Iterator[RestServer]:
    server = RestServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one segment: two would wait for each other's acknowledgement

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, headers, body = server.answer(parts.path, query)
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
