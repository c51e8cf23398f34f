"""Ask a querier from a notebook or a program: `spanstream.connect(url)`. docs/python.md shows how."""

from spanstream.answers import FoundTrace, FoundTraces, Measured, Rows, Series
from spanstream.client import Client, connect
from spanstream.errors import (
    BadQuestionError,
    LimitError,
    NotAllowedError,
    NotFoundError,
    SpanstreamError,
    UnavailableError,
)
from spanstream.trace import Span, Trace

__all__ = [
    "BadQuestionError",
    "Client",
    "FoundTrace",
    "FoundTraces",
    "LimitError",
    "Measured",
    "NotAllowedError",
    "NotFoundError",
    "Rows",
    "Series",
    "Span",
    "SpanstreamError",
    "Trace",
    "UnavailableError",
    "connect",
]
