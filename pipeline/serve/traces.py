"""A found trace as the body of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

from pipeline.query.trace_by_id import FoundTrace
from pipeline.serve import llm, messages, tempo
from pipeline.serve.formats import LLM, MEDIA_TYPES, PROTOBUF
from pipeline.spans import to_otlp

CUT_MARGIN = 0.98


@dataclass(frozen=True, slots=True)
class Encoded:
    """cut: the trace is larger than allowed and the body holds its first spans."""

    body: bytes
    media_type: str
    cut: bool


def encode(found: FoundTrace, *, v1: bool, form: str, bytes_max: int) -> Encoded:
    """The body. form: of `formats.accepted`; bytes_max: of the trace as OTLP. Takes some 30 us a span: call it off the
    event loop.
    """
    data, cut = within(found.spans, bytes_max)
    reasons = list(found.reasons)
    if cut:
        reasons.append(f"Trace exceeds maximum size of {bytes_max} bytes, a partial trace is returned")
    media_type = MEDIA_TYPES[form]
    if form == PROTOBUF:
        trace = data.SerializeToString()
        message = tempo.complete(reasons).get("message", "")
        body = trace if v1 else messages.trace_response(trace, found.read_bytes, message)
        return Encoded(body, media_type, cut)
    batches = tempo.trace(data)
    if v1:
        return Encoded(orjson.dumps({"batches": batches}), media_type, cut)
    answer = {"trace": {"resourceSpans": batches} if batches else {}, "metrics": tempo.trace_metrics(found)}
    answer |= tempo.complete(reasons)
    return Encoded(orjson.dumps(llm.trace(answer) if form == LLM else answer), media_type, cut)


def within(spans: pa.Table, bytes_max: int) -> tuple[Any, bool]:
    """TracesData of the first spans that take at most `bytes_max` (one at least), and whether that leaves some out."""
    rows = spans.num_rows
    data: Any = to_otlp.to_proto(spans)
    while (size := data.ByteSize()) > bytes_max and rows > 1:
        rows = max(1, int(rows * bytes_max / size * CUT_MARGIN))
        data = to_otlp.to_proto(spans.slice(0, rows))
    return data, rows < spans.num_rows
