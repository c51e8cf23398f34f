"""A trace for the page's waterfall: what it draws as columns, 100,000 spans in one answer; then what is asked of it:
the rows that a condition holds of, all events in order, one span in full.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from starlette.requests import Request
from starlette.responses import Response

from pipeline import telemetry
from pipeline.doors.asgi import tenants_of
from pipeline.query import trace_rows
from pipeline.query.questions import Questions
from pipeline.query.texts import trace_id_of
from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve import params, tempo
from pipeline.serve.answers import count_partial
from pipeline.serve.formats import JSON
from pipeline.serve.seen_traces import SeenTraces, key_of
from pipeline.serve.ui import pages
from pipeline.spans import schema, to_otlp
from pipeline.spans.index import NO_SERVICE
from topics.errors import BadQuestionError
from topics.settings import QuerierSettings

NAME_CHARACTERS_MAX = 1000  # of a name in the waterfall; a span in full has the whole
EVENT_CHARACTERS_MAX = 300  # of an event's attributes in the list of all; a span in full has the whole


class TraceViewDoor:
    """The routes of one trace on the page. The first answer reads the trace, the others what it read, for a while."""

    def __init__(self, questions: Questions, querier: QuerierSettings) -> None:
        self._questions = questions
        self._events_max = querier.view_events_max
        self._seen = SeenTraces(querier.view_cache_bytes, querier.view_cache_s_max)

    async def columns(self, request: Request) -> Response:
        """What the waterfall is drawn from; always read anew."""
        return await self._answer(partial(columns, await self._find(request)))

    async def matches(self, request: Request) -> Response:
        """The rows of the spans that q= holds of."""
        asked = params.trace_filter_of(request.query_params, self._questions.regex_error)
        if asked is None:
            raise BadQuestionError("no q: which spans? One spanset tells it, like { status = error }")
        found = await self._found(request)
        matched = await self._questions.part_of(tenants_of(request.scope), found, asked)
        return await self._answer(partial(matches, found, matched))

    async def events(self, request: Request) -> Response:
        """The events of all spans by time."""
        return await self._answer(partial(events, await self._found(request), self._events_max))

    async def span(self, request: Request) -> Response:
        """One span of a trace in full, with its resource and scope."""
        kind = params.whole(request.query_params, "kind")
        wanted = request.path_params["span_id"], kind
        found = await self._found(request)
        if not spans_of_id(found, *wanted).num_rows:  # it may have come since
            found = await self._find(request)
        return await self._answer(partial(span_in_full, found, *wanted))

    async def _found(self, request: Request) -> FoundTrace:
        return self._seen.get(key_of(*_asked(request))) or await self._find(request)

    async def _find(self, request: Request) -> FoundTrace:
        asked = _asked(request)
        found = await self._questions.trace(*asked)
        self._seen.put(key_of(*asked), found)
        telemetry.VIEW_CACHE_BYTES.set(self._seen.nbytes)
        count_partial("trace", found.reasons)
        return found

    async def _answer(self, told: partial[bytes]) -> Response:
        return Response(await self._questions.in_thread(told), media_type=JSON)


def _asked(request: Request) -> tuple[list[str], bytes, int | None, int | None]:
    trace_id = trace_id_of(request.path_params["trace_id"])
    return tenants_of(request.scope), trace_id, *params.trace_times(request.query_params)


def columns(found: FoundTrace) -> bytes:
    """The spans by start, each column an array: a row's parent is the number of another row, or -1.

    start is told from the trace's first start on. version: rows of other answers are these rows where it is the same.
    0.5 us a span. Call it off the event loop.
    """
    spans, head = found.spans, {"traceId": found.trace_id.hex(), "copies": found.copies, "version": version(found)}
    if not spans.num_rows:
        return orjson.dumps(head | {"spanId": [], "startUnixNano": "0"} | tempo.complete(found.reasons))
    start = np.minimum(spans.column("start_unix_ns").to_numpy(), trace_rows.INT64_MAX).astype(np.int64)
    names, name = _coded(spans, "name", "")
    services, service = _coded(spans, schema.SERVICE_COLUMN, NO_SERVICE)
    parent = trace_rows.parents_within(spans)
    named = pc.fill_null(pc.greater(pc.binary_length(schema.column(spans, "parent_span_id")), 0), False).to_numpy()
    body = head | {
        "startUnixNano": str(int(start.min())),
        "names": names,
        "services": services,
        "spanId": [one.hex() for one in spans.column("span_id").to_pylist()],
        "name": name,
        "service": service,
        "parent": parent,
        "start": start - start.min(),
        "duration": spans.column("duration_ns").to_numpy(),
        "kind": _numbers(spans, "kind"),
        "code": _numbers(spans, "status_code"),
        "events": _sizes(spans, "event_name"),
        "orphans": np.flatnonzero(named & (parent < 0)),
    }
    return orjson.dumps(body | tempo.complete(found.reasons), option=orjson.OPT_SERIALIZE_NUMPY)


def version(found: FoundTrace) -> str:
    """Another one as soon as a row is another."""
    return blake2b(_keys(found.spans).tobytes(), digest_size=8).hexdigest()


def matches(found: FoundTrace, matched: FoundTrace) -> bytes:
    """matched: the spans that a filter leaves. Told by the numbers of their rows."""
    body = {"version": version(found), "rows": _rows_of(found.spans, matched.spans)}
    return orjson.dumps(body | tempo.complete(found.reasons), option=orjson.OPT_SERIALIZE_NUMPY)


def events(found: FoundTrace, events_max: int) -> bytes:
    """The first events of all spans by time, each column an array; `left` says how many more there are.

    row: of its span. at: ns from the trace's first start on. text: its attributes, cut.
    """
    spans = found.spans
    times, rows, places = _event_times(spans)
    order = np.lexsort((places, rows, times))
    kept = order[:events_max]
    own = spans.take(pa.array(np.unique(rows[kept])))
    full = {
        (span.span_id, span.kind): span.events
        for batch in to_otlp.to_proto(own).resource_spans
        for scope in batch.scope_spans
        for span in scope.spans
    }
    names = list(zip(spans.column("span_id").to_pylist(), _numbers(spans, "kind").tolist(), strict=True))
    told = [full[names[row]][place] for row, place in zip(rows[kept].tolist(), places[kept].tolist(), strict=True)]
    first_ns = int(spans.column("start_unix_ns").to_numpy().min()) if len(spans) else 0
    body = {
        "version": version(found),
        "row": rows[kept],
        "at": [int(one) - first_ns for one in times[kept]],
        "name": [one.name[:NAME_CHARACTERS_MAX] for one in told],
        "text": [_event_text(one) for one in told],
        "left": len(order) - len(kept),
    }
    return orjson.dumps(body | tempo.complete(found.reasons), option=orjson.OPT_SERIALIZE_NUMPY)


def _event_times(spans: pa.Table) -> tuple[Any, Any, Any]:
    """Of each event its time, the row of its span, and which of that span's events it is."""
    times = schema.column(spans, "event_time_unix_ns").combine_chunks()
    counts = pc.fill_null(pc.list_value_length(times), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return times.flatten().to_numpy(zero_copy_only=False), np.repeat(np.arange(len(counts)), counts), places


def _event_text(event: Any) -> str:
    """What an exception says; of any other event its attributes."""
    pairs = [(pair.key, pages.value_text(tempo.any_value(pair.value))) for pair in event.attributes]
    known = dict(pairs)
    if event.name == "exception":
        said = (known.get("exception.type", ""), known.get("exception.message", ""))
        return ": ".join(filter(None, said))[:EVENT_CHARACTERS_MAX]
    return ", ".join(f"{key} = {value}" for key, value in pairs)[:EVENT_CHARACTERS_MAX]


def span_in_full(found: FoundTrace, span_id: str, kind: int | None) -> bytes:
    """The spans of this ID, and of this kind where it is given, as resourceSpans. Raises BadQuestionError."""
    spans = spans_of_id(found, span_id, kind)
    if not spans.num_rows:
        return orjson.dumps({"trace": {}} | tempo.complete(found.reasons))
    batches = tempo.trace(to_otlp.to_proto(spans))
    return orjson.dumps({"trace": {"resourceSpans": batches}} | tempo.complete(found.reasons))


def spans_of_id(found: FoundTrace, span_id: str, kind: int | None) -> pa.Table:
    """The rows of this ID, and of this kind where it is given. Raises BadQuestionError."""
    try:
        wanted = bytes.fromhex(span_id)
    except ValueError:
        wanted = b""
    if len(wanted) != 8:
        raise BadQuestionError(f"invalid span ID: {span_id[:40]!a} is not 16 hex digits")
    spans = found.spans.filter(pc.equal(found.spans.column("span_id").cast(pa.binary()), wanted))
    if kind is not None:
        spans = spans.filter(pc.equal(pc.fill_null(schema.column(spans, "kind"), 0), kind))
    return spans


def _coded(spans: pa.Table, column: str, missing: str) -> tuple[list[str], Any]:
    """The distinct texts of a column, and the number of each row's."""
    texts = pc.fill_null(schema.column(spans, column).cast(pa.string()), missing)
    texts = pc.utf8_slice_codeunits(texts, 0, NAME_CHARACTERS_MAX)
    coded = texts.combine_chunks().dictionary_encode()
    coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()


def _numbers(spans: pa.Table, column: str) -> Any:
    return pc.fill_null(schema.column(spans, column), 0).to_numpy()


def _sizes(spans: pa.Table, column: str) -> Any:
    return pc.fill_null(pc.list_value_length(schema.column(spans, column)), 0).to_numpy()


def _rows_of(spans: pa.Table, some: pa.Table) -> Any:
    """Where the spans of `some`, which are of `spans` and in its order, stand there."""
    whole, part = _keys(spans), _keys(some)
    coded = np.unique(np.concatenate([whole, part], axis=1), axis=1, return_inverse=True)[1].ravel()
    return np.flatnonzero(np.isin(coded[: spans.num_rows], coded[spans.num_rows :]))


def _keys(spans: pa.Table) -> Any:
    """ID and kind of each span, shape (2, n): together they stand once in a trace."""
    ids = schema.bytes_of(spans.column("span_id"), 8).view("<u8").ravel() if spans.num_rows else np.zeros(0, "<u8")
    return np.stack([ids, _numbers(spans, "kind").astype(np.uint64)])
