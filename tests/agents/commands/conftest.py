"""Commands called in this process set up logging for their own process: undone after each test."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import pytest
import structlog

from tests.agents.commands.answers import Answers
from topics.logs import QUIET_LOGGERS


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Handlers and levels as they were."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logging.getLogger(name).level for name in QUIET_LOGGERS}
    yield
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


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
