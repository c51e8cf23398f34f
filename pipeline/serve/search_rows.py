"""Found traces as a stream of rows: NDJSON with what the JSON answer says of each, CSV with a column a field."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import orjson
from starlette.responses import StreamingResponse

from pipeline.query.search import SearchAnswer
from pipeline.query.summary import TraceSummary
from pipeline.serve import tempo
from pipeline.serve.formats import FORMATS, reasons_header

SEARCH_FORMATS = ("json", "ndjson", "csv", "events")
CURSOR_HEADER = "x-spanstream-next-cursor"
TURN_TRACES = 200
# Fields of the JSON answer, and what stands for one that it leaves out
CSV_FIELDS: dict[str, Any] = {
    "traceID": "",
    "rootServiceName": "",
    "rootTraceName": "",
    "startTimeUnixNano": 0,
    "durationMs": 0,
    "serviceStats": {},
    "spanSets": [],
}
InThread = Callable[[Callable[[], bytes]], Awaitable[Any]]


def stream(answer: SearchAnswer, form: str, in_thread: InThread) -> StreamingResponse:
    """The answer, row by row. What JSON says beside the traces stands in headers. in_thread: runs what takes long."""
    headers = reasons_header(answer.reasons)
    if answer.next_cursor:
        headers[CURSOR_HEADER] = answer.next_cursor
    return StreamingResponse(_turns(answer.traces, form, in_thread), headers=headers, media_type=FORMATS[form])


async def _turns(traces: list[TraceSummary], form: str, in_thread: InThread) -> AsyncIterator[bytes]:
    if form == "csv":
        yield _line(list(CSV_FIELDS))
    encode = _csv if form == "csv" else _ndjson
    for at in range(0, len(traces), TURN_TRACES):
        turn = traces[at : at + TURN_TRACES]
        yield await in_thread(lambda turn=turn: b"".join(encode(turn)))  # type: ignore[misc]


def _ndjson(traces: Sequence[TraceSummary]) -> Iterator[bytes]:
    for trace in traces:
        yield orjson.dumps(tempo.search_hit(trace), option=orjson.OPT_APPEND_NEWLINE)


def _csv(traces: Sequence[TraceSummary]) -> Iterator[bytes]:
    for trace in traces:
        hit = tempo.search_hit(trace)
        cells = (hit.get(name, absent) for name, absent in CSV_FIELDS.items())
        yield _line([orjson.dumps(cell).decode() if isinstance(cell, list | dict) else cell for cell in cells])


def _line(cells: list[Any]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue().encode()
