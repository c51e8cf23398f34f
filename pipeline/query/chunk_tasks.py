"""A statement over some chunks as values that travel: what a worker of a cluster is told, and what it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.query.copies import Wanted
from pipeline.query.engine import Session
from pipeline.store.tables import ipc_bytes
from topics.errors import SpanstreamError


@dataclass(frozen=True, slots=True)
class Task:
    """wanted: the chunks; text, values: a statement over their URLs; live: an empty table as Arrow IPC.

    seconds: until the question's time is over.
    """

    wanted: tuple[Wanted, ...]
    text: str
    values: list[Any] = field(repr=False)
    live: bytes = field(repr=False)
    seconds: float

    @classmethod
    def of(cls, wanted: tuple[Wanted, ...], statement: tuple[str, list[Any]], live: pa.Table, seconds: float) -> Task:
        """statement: text and values over the chunks' URLs."""
        return cls(wanted, *statement, bytes(ipc_bytes(live)), seconds)


@dataclass(frozen=True, slots=True)
class Answer:
    """rows: a table as Arrow IPC; seconds: the engine's; copied: so many chunks stood on the worker's disk.

    error: the name of an error's type, and its sentence, where asking again would not help; then there are no rows.
    """

    rows: bytes = field(default=b"", repr=False)
    seconds: float = 0.0
    copied: int = 0
    error: tuple[str, str] | None = None

    def table(self) -> pa.Table:
        """The rows."""
        return pa.ipc.open_stream(self.rows).read_all()


def answer_to(task: Task, session: Session) -> Answer:
    """Run it. A chunk that cannot be read fails the whole task: who asked numbers the chunks, and finds out which."""
    urls = [one.url for one in task.wanted]
    began_s = time.monotonic()
    try:
        files = session.files(task.wanted, fetch=True)
        named = [str(files.get(url, url)) for url in urls]
        values = [named if value == urls else value for value in task.values]
        found = session.sql(task.text, values, live=pa.ipc.open_stream(task.live).read_all())
    except (SpanstreamError, duckdb.Error) as exc:
        return Answer(error=(type(exc).__name__, str(exc)))
    return Answer(bytes(ipc_bytes(found)), time.monotonic() - began_s, len(files))
