"""A trace for the page's waterfall: what it draws as columns, 100,000 spans in one answer, and one span in full."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query import trace_rows
from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve import tempo
from pipeline.spans import schema, to_otlp
from pipeline.spans.index import NO_SERVICE
from topics.errors import BadQuestionError

NAME_CHARACTERS_MAX = 1000  # of a name in the waterfall; a span in full has the whole


def columns(found: FoundTrace, matched: FoundTrace | None) -> bytes:
    """The spans by start, each column an array: a row's parent is the number of another row, or -1.

    start is told from the trace's first start on. matched: the spans that a filter leaves, told as `matched` by the
    numbers of their rows. 0.5 us a span. Call it off the event loop.
    """
    spans, head = found.spans, {"traceId": found.trace_id.hex(), "copies": found.copies}
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
    if matched is not None:
        body["matched"] = _rows_of(spans, matched.spans)
    return orjson.dumps(body | tempo.complete(found.reasons), option=orjson.OPT_SERIALIZE_NUMPY)


def span_in_full(found: FoundTrace, span_id: str, kind: int | None) -> bytes:
    """The spans of this ID, and of this kind where it is given, as resourceSpans. Raises BadQuestionError."""
    try:
        wanted = bytes.fromhex(span_id)
    except ValueError:
        wanted = b""
    if len(wanted) != 8:
        raise BadQuestionError(f"invalid span ID: {span_id[:40]!a} is not 16 hex digits")
    spans = found.spans.filter(pc.equal(found.spans.column("span_id").cast(pa.binary()), wanted))
    if kind is not None:
        spans = spans.filter(pc.equal(pc.fill_null(schema.column(spans, "kind"), 0), kind))
    if not spans.num_rows:
        return orjson.dumps({"trace": {}} | tempo.complete(found.reasons))
    batches = tempo.trace(to_otlp.to_proto(spans))
    return orjson.dumps({"trace": {"resourceSpans": batches}} | tempo.complete(found.reasons))


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
