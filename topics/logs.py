"""How processes speak: structlog, and every stdlib logger (Faust, aiokafka, uvicorn) through it, on stderr."""

from __future__ import annotations

import logging
import sys
from asyncio import CancelledError
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from topics.settings import LogSettings
from topics.visible import visible_values

# Libraries that tell at INFO what only their authors want to know
QUIET_LOGGERS = ("faust", "aiokafka", "kafka", "mode", "httpx", "httpcore", "asyncio", "urllib3", "uvicorn.access")
LIBRARIES = ("faust", "mode", "aiohttp")


def _is_told(record: logging.LogRecord) -> bool:
    """Of libraries, not that a task was cancelled or that a caller hung up: they tell both as errors, with a traceback,
    and each rebalance cancels all actors.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (record.name.startswith(LIBRARIES) and isinstance(error, CancelledError | ConnectionResetError))


def _without_escapes(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """uvicorn hands each message over a second time, in colours."""
    event.pop("color_message", None)
    return event


def set_up_logs(settings: LogSettings, stream: TextIO | None = None) -> None:
    """One line an event on `stream` (stderr): for people on a terminal, else JSON with timestamp, level and logger.

    Can be called again; the last call counts.
    """
    out = stream or sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _without_escapes,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    # Plain traceback text: rich's would hide the message in frames, and JSON wants one string
    last: list[Processor] = (
        [
            visible_values,
            structlog.dev.ConsoleRenderer(colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback),
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(out)
    handler.addFilter(_is_told)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
