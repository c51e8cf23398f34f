"""A proxy before a real store that spoils chosen requests: refuses, drops or delays them, loses or cuts answers."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from topics.settings import StoreSettings

REFUSED, DROPPED, ANSWER_LOST = "refused", "dropped", "answer lost"
FAULTS = (REFUSED, DROPPED, ANSWER_LOST)
TOO_MANY, RESET, TIMED_OUT, SLOW = "too many", "reset", "time-out after success", "slow"
HALF, CUT = "half a body", "half a body of its own length"
ALL_FAULTS = (*FAULTS, TOO_MANY, RESET, TIMED_OUT, SLOW, HALF, CUT)
STATUS = {REFUSED: 503, TOO_MANY: 429}
SLOW_S = 0.2
Spoil = Callable[[int, str, str], str]  # (number, method, path and query) -> a fault, or "" to let it pass


class Proxy:
    """Forwards to the store; `spoil` chooses faults; `seen` holds (method, path) of what came.

    ignores_conditions: be a store that knows no If-None-Match.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.spoil: Spoil = lambda number, method, path: ""
        self.seen: list[tuple[str, str]] = []
        self.ignores_conditions = False
        self.timed_out_s = 1.5
        self.lock = threading.Lock()

    def start_over(self, spoil: Spoil) -> None:
        """Count requests from 0 again, with these faults."""
        with self.lock:
            self.seen, self.spoil = [], spoil


@contextmanager
def faulty(settings: StoreSettings) -> Iterator[tuple[Proxy, StoreSettings]]:
    """A proxy, and settings of the store behind it with short waits."""
    proxy = Proxy(urlsplit(settings.endpoint).netloc)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(proxy))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    behind = {"endpoint": f"http://127.0.0.1:{server.server_port}", "retry_wait_max_s": 0.05}
    try:
        yield proxy, settings.model_copy(update=behind)
    finally:
        server.shutdown()
        server.server_close()


def _handler(proxy: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            with proxy.lock:
                number = len(proxy.seen)
                proxy.seen.append((self.command, self.path))
            fault = proxy.spoil(number, self.command, self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if fault == DROPPED:
                self.close_connection = True
            elif fault == RESET:
                self.reset()
            elif fault in STATUS:
                self.answer(STATUS[fault], [], b"")
            else:
                self.answered(fault, *self.ask(body))

        def answered(self, fault: str, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            """The store has done what it was asked for; what of its answer arrives is up to the fault."""
            if fault in (SLOW, TIMED_OUT):
                time.sleep(SLOW_S if fault == SLOW else proxy.timed_out_s)
            if fault in (ANSWER_LOST, TIMED_OUT):
                self.close_connection = True
            elif fault in (HALF, CUT):
                self.close_connection = True
                half = content[: len(content) // 2]
                self.answer(status, headers, half, length=len(content) if fault == HALF else len(half))
            else:
                self.answer(status, headers, content)

        def reset(self) -> None:
            """RST instead of FIN."""
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

        def ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            connection = http.client.HTTPConnection(proxy.target)
            try:
                headers = dict(self.headers)
                if proxy.ignores_conditions:
                    headers.pop("If-None-Match", None)
                connection.request(self.command, self.path, body=body, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def answer(
            self, status: int, headers: list[tuple[str, str]], content: bytes, length: int | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            told = next((value for name, value in headers if name.lower() == "content-length"), "0")
            size = len(content) if length is None else length
            self.send_header("Content-Length", told if self.command == "HEAD" else str(size))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward  # noqa: N815 - http.server's names

        def log_message(self, *_args: Any) -> None:
            """Say nothing."""

    return Handler
