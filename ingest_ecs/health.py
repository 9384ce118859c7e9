"""`GET /health` and `GET /ready` of the task, in a thread of their own.

`/health` is what a restart could mend: 503 only when the task itself is stuck. `/ready` is 503 while no
ticks flow, whoever's fault it is: killing the task because the exchange is down would help nobody. Both
answer with the same report, which says why.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class HealthServer:
    """Serves what `report` returns, which has `live`, `ready` and `why`. Port 0 takes a free one."""

    def __init__(self, port: int, report: Callable[[], dict[str, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802 (the library's name)
                deciding = {"/health": "live", "/ready": "ready"}.get(self.path)
                if deciding is None:
                    self.send_error(404)
                    return
                body = report()
                data = json.dumps(body).encode()
                self.send_response(200 if body[deciding] else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                """Health checks are no event."""

        self._server = ThreadingHTTPServer(("0.0.0.0", port), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="health")

    def __enter__(self) -> HealthServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
