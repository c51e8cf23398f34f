"""Commands called in this process set up logging for their own process: undone after each test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest

from tests.agents.commands.answers import Answers


@pytest.fixture(autouse=True)
def undone(logs_as_before: None) -> None:
    """Of every command."""


@pytest.fixture
def querier() -> Iterator[str]:
    """Its URL; Answers.table says what it answers."""
    Answers.table, Answers.asked = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()
