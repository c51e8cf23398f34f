"""Queriers that hang: one gives a search's answer in two parts, the other tells a single turn of a tail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import orjson

WAIT_S = 30


@dataclass(slots=True)
class Held:
    """url: where it listens. go_on: the rest may be told."""

    url: str = ""
    go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def held_search(querier_url: str, first: int) -> Iterator[Held]:
    """first: so many traces are told at once."""
    held = Held()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = httpx.get(querier_url + self.path, timeout=WAIT_S, headers={"accept": "text/event-stream"})
            whole = answer.content.rpartition(b"event: answer\ndata: ")[2]
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            found = {"traces": orjson.loads(whole)["traces"][:first]}
            self.wfile.write(b"event: found\ndata: " + orjson.dumps(found) + b"\n\n")
            self.wfile.flush()
            held.go_on.wait(WAIT_S)
            self.wfile.write(b"event: answer\ndata: " + whole)

        def log_message(self, *_: Any) -> None:
            pass

    with _served(Handler) as held.url:
        try:
            yield held
        finally:
            held.go_on.set()


@contextmanager
def silent_tail() -> Iterator[str]:
    """Its URL. A tail there is told that nothing came, once, and nothing more until the block ends."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            turn = {"nowUnixNano": str(time.time_ns()), "spans": [], "arrived": 0, "matched": 0, "skipped": 0}
            self.wfile.write(b"event: spans\ndata: " + orjson.dumps(turn) + b"\n\n")
            self.wfile.flush()
            ended.wait(WAIT_S)

        def log_message(self, *_: Any) -> None:
            pass

    with _served(Handler) as url:
        try:
            yield f"{url}/api/tail"
        finally:
            ended.set()


@contextmanager
def _served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
