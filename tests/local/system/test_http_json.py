"""Which requests take the environment's proxy, and what is no response."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from local.system import http_json


class Handler(BaseHTTPRequestHandler):
    """Answers with what was asked of it: a proxy is asked for a whole address, or for a tunnel."""

    def do_GET(self) -> None:
        body = f'"{self.path}"'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.send_error(502, f"no tunnel to {self.path}")

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of a server that is the environment's proxy too."""
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.delenv(name.upper(), raising=False)
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield server.server_port
        server.shutdown()


def test_others_are_asked_through_the_proxy(port: int) -> None:
    assert http_json.get("http://api.example/health").body == "http://api.example/health"
    with pytest.raises(OSError, match="no tunnel to api.example:443"):
        http_json.get("https://api.example/health")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_local_addresses_are_asked_directly(port: int, host: str) -> None:
    assert http_json.get(f"http://{host}:{port}/health").body == "/health"


@pytest.mark.parametrize(
    ("url", "is_local"),
    [
        ("http://127.0.0.2/", True),
        ("http://[::1]:80/", True),
        ("http://exchange:8080/", True),  # a container's name
        ("http://s3.localhost/", True),
        ("https://127.example/", False),
        ("http://10.0.0.1/", False),
        ("http://[2001:db8::1]/", False),
    ],
)
def test_what_is_local(url: str, is_local: bool) -> None:
    assert http_json._is_local(url) is is_local


@pytest.mark.parametrize("answer", [b"NO\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b""])
def test_what_is_no_http_is_no_response(answer: bytes) -> None:
    """http.client's errors are no OSError, which callers know."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def respond() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=respond, daemon=True)
        thread.start()
        with pytest.raises(OSError):
            http_json.get(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
