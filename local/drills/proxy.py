"""A TCP proxy that can be cut off: it then accepts connections and data and forwards nothing."""

from __future__ import annotations

import selectors
import socket
import socketserver
import threading
from contextlib import suppress
from types import TracebackType

from local.system.servers import HOST

_CHUNK = 65_536
_POLL_S = 0.1  # how soon a connection notices that the network was cut or restored


class Proxy:
    """Relays connections to `port` of this machine while entered.

    While cut, connections stay open and new ones are accepted, but nothing is forwarded either way. They are
    closed once the network is restored.
    """

    def __init__(self, port: int) -> None:
        proxy, self._is_cut = self, threading.Event()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError), socket.create_connection((HOST, port)) as far:
                    proxy._relay(self.request, far)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="proxy")

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def cut(self) -> None:
        self._is_cut.set()

    def restore(self) -> None:
        self._is_cut.clear()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            was_cut = False
            while True:
                if self._is_cut.is_set():
                    was_cut = True
                    threading.Event().wait(_POLL_S)
                    continue
                if was_cut:
                    return
                for key, _ in ready.select(_POLL_S):
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(_CHUNK)
                    if not data:
                        return
                    if self._is_cut.is_set():
                        break  # discarded
                    key.data.sendall(data)
