"""What processes say."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest
import structlog

from topics.logs import set_up_logs
from topics.settings import LogSettings

pytestmark = pytest.mark.usefixtures("logs_as_before")


def test_without_a_terminal_events_are_json_lines_with_time_level_and_logger() -> None:
    out = io.StringIO()

    set_up_logs(LogSettings(), out)
    structlog.get_logger("worker").info("stored", spans=3)

    line = json.loads(out.getvalue())
    assert (line["event"], line["spans"], line["level"], line["logger"]) == ("stored", 3, "info", "worker")
    assert line["timestamp"].endswith("Z")


def test_loggers_of_libraries_speak_the_same_way() -> None:
    out = io.StringIO()

    set_up_logs(LogSettings(), out)
    logging.getLogger("uvicorn.error").warning("slow %s", "client")

    assert json.loads(out.getvalue())["event"] == "slow client"


@pytest.mark.parametrize(
    ("logger", "error", "lines"),
    [
        ("faust.agents.actor", asyncio.CancelledError, 0),
        ("aiohttp.server", ConnectionResetError, 0),
        ("faust.agents.actor", ValueError, 1),
        ("agents.worker", ConnectionResetError, 1),
    ],
)
def test_what_libraries_take_for_an_error_and_is_none_is_not_told(
    logger: str, error: type[BaseException], lines: int
) -> None:
    out = io.StringIO()
    set_up_logs(LogSettings(), out)

    try:
        raise error
    except error:
        logging.getLogger(logger).exception("crashed")

    assert len(out.getvalue().splitlines()) == lines


def test_an_exception_stays_on_its_line() -> None:
    out = io.StringIO()
    set_up_logs(LogSettings(), out)

    try:
        raise ValueError("no")
    except ValueError:
        structlog.get_logger("worker").exception("failed")

    assert "ValueError: no" in json.loads(out.getvalue())["exception"]


def test_events_below_the_level_are_not_written() -> None:
    out = io.StringIO()

    set_up_logs(LogSettings(level="warning"), out)
    structlog.get_logger("worker").info("stored")
    logging.getLogger("aiokafka.consumer").info("joined")

    assert out.getvalue() == ""


def test_the_console_format_is_for_people() -> None:
    out = io.StringIO()

    set_up_logs(LogSettings(format="console"), out)
    structlog.get_logger("worker").info("stored", spans=3)

    assert "stored" in out.getvalue()
    assert "spans=3" in out.getvalue()
    assert "\x1b" not in out.getvalue()


def test_what_uvicorn_says_twice_is_written_once() -> None:
    out = io.StringIO()

    set_up_logs(LogSettings(), out)
    logging.getLogger("uvicorn.error").info("started [%d]", 7, extra={"color_message": "started [\x1b[36m%d\x1b[0m]"})

    assert "color_message" not in json.loads(out.getvalue())
