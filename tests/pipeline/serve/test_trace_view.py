"""What the waterfall is drawn from, of spans in any shape."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.query.trace_by_id import FoundTrace, canonical
from pipeline.serve import trace_view
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from topics.errors import BadQuestionError

TRACE_ID = b"t" * 16
A, B, C, D, LOST = (letter * 8 for letter in (b"a", b"b", b"c", b"d", b"x"))
T0 = 1_700_000_000_000_000_000


def found_of(*spans: tuple[bytes, bytes, int, str], kinds: dict[bytes, int] | None = None) -> FoundTrace:
    """spans: ID, parent's ID, start after T0, service; sorted by start."""
    data = TracesData()
    for span_id, parent, start, service in spans:
        envelope = data.resource_spans.add()
        envelope.resource.attributes.append(KeyValue(key="service.name", value=AnyValue(string_value=service)))
        span = envelope.scope_spans.add().spans.add(trace_id=TRACE_ID, span_id=span_id, parent_span_id=parent)
        span.name, span.kind = f"op {span_id[:1].decode()}", (kinds or {}).get(span_id, 1)
        span.start_time_unix_nano, span.end_time_unix_nano = T0 + start, T0 + start + 10
        if service == "db":
            span.status.code = 2
            event = span.events.add(name="exception", time_unix_nano=T0 + start)
            for key, value in (("exception.type", span.name), ("exception.message", "it broke")):
                event.attributes.append(KeyValue(key=key, value=AnyValue(string_value=value)))
    rows = decode([Record("t", 0, data.SerializeToString())], attribute_columns_max=200).spans
    return FoundTrace(trace_id=TRACE_ID, partition=0, spans=canonical(rows))


def told(found: FoundTrace) -> dict[str, Any]:
    read: dict[str, Any] = orjson.loads(trace_view.columns(found))
    return read


def test_columns_say_of_each_span_its_parents_row_its_time_and_what_it_is() -> None:
    answer = told(found_of((A, b"", 0, "web"), (B, A, 5, "db"), (C, B, 7, "web")))

    assert answer["parent"] == [-1, 0, 1]
    assert (answer["startUnixNano"], answer["start"], answer["duration"]) == (str(T0), [0, 5, 7], [10, 10, 10])
    assert [answer["services"][at] for at in answer["service"]] == ["web", "db", "web"]
    assert [answer["names"][at] for at in answer["name"]] == ["op a", "op b", "op c"]
    assert (answer["code"], answer["events"], answer["orphans"]) == ([0, 2, 0], [0, 1, 0], [])
    assert answer["spanId"] == [one.hex() for one in (A, B, C)]


def test_spans_whose_parent_is_not_there_are_orphans_and_rings_are_opened() -> None:
    answer = told(found_of((A, LOST, 0, "web"), (B, C, 1, "web"), (C, B, 2, "web"), (D, D, 3, "web")))

    assert answer["parent"] == [-1, -1, 1, -1]
    assert answer["orphans"] == [0, 1, 3]


def test_a_filters_spans_are_told_by_their_rows() -> None:
    whole = found_of((A, b"", 0, "web"), (B, A, 5, "db"), (C, B, 7, "web"))
    part = FoundTrace(trace_id=TRACE_ID, partition=0, spans=whole.spans.slice(1, 1))

    answer = orjson.loads(trace_view.matches(whole, part))

    assert (answer["rows"], answer["version"]) == ([1], told(whole)["version"])
    assert told(part)["version"] != told(whole)["version"]


def test_events_of_all_spans_stand_by_time_and_the_first_are_told_with_how_many_are_left() -> None:
    found = found_of((A, b"", 0, "db"), (B, A, 5, "web"), (C, B, 7, "db"), (D, A, 3, "db"))

    answer = orjson.loads(trace_view.events(found, 2))
    every = orjson.loads(trace_view.events(found, 20))

    assert (answer["at"], answer["left"]) == ([0, 3], 1)
    assert (every["at"], every["left"]) == ([0, 3, 7], 0)
    ids = told(found)["spanId"]
    assert [ids[row] for row in every["row"]] == [A.hex(), D.hex(), C.hex()]
    assert [every["text"][at] for at in range(3)] == ["op a: it broke", "op d: it broke", "op c: it broke"]
    assert orjson.loads(trace_view.events(found_of((A, b"", 0, "web")), 2))["row"] == []


def test_a_trace_that_is_not_there_is_an_empty_answer() -> None:
    nothing = FoundTrace(trace_id=TRACE_ID, partition=0, spans=found_of((A, b"", 0, "web")).spans.slice(0, 0))

    assert told(nothing)["spanId"] == []


def test_a_span_in_full_is_found_by_its_id_and_kind() -> None:
    found = found_of((A, b"", 0, "web"), (B, A, 5, "db"))

    batches = orjson.loads(trace_view.span_in_full(found, B.hex(), 1))["trace"]["resourceSpans"]

    (span,) = batches[0]["scopeSpans"][0]["spans"]
    assert (span["name"], span["events"][0]["name"]) == ("op b", "exception")
    assert orjson.loads(trace_view.span_in_full(found, B.hex(), 3)) == {"trace": {}}
    with pytest.raises(BadQuestionError, match="invalid span ID"):
        trace_view.span_in_full(found, "zz", None)
