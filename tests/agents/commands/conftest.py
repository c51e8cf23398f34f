"""Commands called in this process set up logging for their own process: undone after each test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog

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
