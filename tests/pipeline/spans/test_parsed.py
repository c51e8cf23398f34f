"""Requests parsed in portions: bombs, invalid UTF-8, long spans, garbage."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.spans.parsed import ParseLimits, parse
from pipeline.spans.rewrite import MARK_UTF8, add_marks, repair_utf8, varint
from pipeline.spans.slices import SLICE_BYTES
from tests.pipeline.spans.otlp_strategies import TRACES_DATA, spans_of
from tests.pipeline.spans.test_wire import all_spans, marks_of, request_of, span_of, with_long_value
from topics.errors import MalformedRequestError, RequestTooLargeError

LIMITS = ParseLimits(span_bytes_max=900_000, attribute_bytes_max=65_536)
BAD, REPAIRED = b"ab\xffcd\xc3", "ab\ufffdcd\ufffd"


def spoiled(data: TracesData, marker: str) -> bytes:
    """The request's bytes with `marker` (6 ASCII characters) replaced by invalid UTF-8."""
    payload = data.SerializeToString()
    assert payload.count(marker.encode()) == 1
    return payload.replace(marker.encode(), BAD)


def parsed_spans(payload: bytes) -> list[object]:
    """All spans of the payloads of a request."""
    return [span for part in parse(payload, LIMITS).payloads for span in all_spans(TracesData.FromString(part))]


def test_a_small_request_that_parses_is_left_as_it_is() -> None:
    payload = request_of(span_of()).SerializeToString()

    assert parse(payload, LIMITS).payloads == [payload]


def test_a_large_request_is_parsed_in_portions_that_hold_the_same_spans() -> None:
    data = request_of(*[with_long_value(n, 3000) for n in range(1, 1000)], resource_key="a")
    data.MergeFrom(request_of(*[with_long_value(n, 3000) for n in range(1000, 1500)], resource_key="b"))
    payload = data.SerializeToString()

    parsed = parse(payload, LIMITS)

    assert len(parsed.payloads) > len(payload) // (SLICE_BYTES * 2)
    assert max(map(len, parsed.payloads)) < SLICE_BYTES + 10_000
    assert spans_of(TracesData.FromString(b"".join(parsed.payloads))) == spans_of(data)


@pytest.mark.parametrize("where", ["name", "attribute", "event", "nested", "state"])
def test_invalid_utf8_in_a_span_is_repaired_and_only_that_span_is_marked(where: str) -> None:
    span = span_of(1)
    if where == "name":
        span.name = "MARKER"
    elif where == "state":
        span.status.message = "MARKER"
    elif where == "event":
        span.events.add().attributes.add(key="MARKER")
    else:
        value = span.attributes.add(key="k").value
        value = value.kvlist_value.values.add(key="x").value.array_value.values.add() if where == "nested" else value
        value.string_value = "MARKER"
    other = span_of(2, name="kept")

    parsed = parse(spoiled(request_of(span, other), "MARKER"), LIMITS)

    first, second = all_spans(TracesData.FromString(parsed.payloads[0]))
    assert REPAIRED in str(first).encode().decode("unicode_escape").encode("latin-1").decode()
    assert marks_of(first) == [MARK_UTF8]
    assert second == other
    assert parsed.marked == {MARK_UTF8: 1}


def test_invalid_utf8_in_a_resource_marks_all_its_spans() -> None:
    data = request_of(span_of(1), span_of(2), resource_key="MARKER")
    data.MergeFrom(request_of(span_of(3)))

    parsed = parse(spoiled(data, "MARKER"), LIMITS)

    repaired = TracesData.FromString(parsed.payloads[0])
    assert [marks_of(span) for span in all_spans(repaired)] == [[MARK_UTF8], [MARK_UTF8], []]
    assert repaired.resource_spans[0].resource.attributes[0].key == REPAIRED


@settings(max_examples=60, deadline=None)
@given(TRACES_DATA)
def test_repairing_valid_text_changes_nothing(data: TracesData) -> None:
    repaired, count = repair_utf8(data.SerializeToString())

    assert count == 0
    assert TracesData.FromString(repaired) == data


@settings(max_examples=100, deadline=None)
@given(TRACES_DATA, st.data())
def test_a_damaged_request_is_refused_or_repaired_and_never_anything_else(
    data: TracesData, draw: st.DataObject
) -> None:
    payload = bytearray(data.SerializeToString())
    for _ in range(draw.draw(st.integers(1, 4))):
        if payload:
            payload[draw.draw(st.integers(0, len(payload) - 1))] = draw.draw(st.integers(0, 255))

    try:
        parsed = parse(bytes(payload), LIMITS)
    except MalformedRequestError:
        return

    for part in parsed.payloads:
        TracesData.FromString(part)


def message(tag: int, content: bytes) -> bytes:
    """A field that holds a message."""
    return bytes([tag]) + varint(len(content)) + content


@pytest.mark.parametrize(
    "content",
    [
        b"\x12\x00" * (4 << 20),  # empty spans
        message(0x12, b"\x4a\x00" * (8 << 20)),  # empty attributes
        message(0x12, b"\x5a\x00" * (8 << 20)),  # empty events
        message(0x12, message(0x4A, message(0x12, message(0x2A, b"\x0a\x00" * (8 << 20))))),  # empty array elements
    ],
    ids=["spans", "attributes", "events", "elements"],
)
def test_a_request_of_16_mb_of_empty_parts_takes_little_memory(content: bytes) -> None:
    payload = message(0x0A, message(0x12, content))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    try:
        rejected = parse(payload, LIMITS).rejected
    except RequestTooLargeError:
        rejected = {"too many spans": 1}

    assert rejected
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 100_000


def test_a_span_of_many_megabytes_is_cut_before_it_is_parsed() -> None:
    span = with_long_value(1, 10_000_000)

    parsed = parse(request_of(span, span_of(2)).SerializeToString(), LIMITS)

    first, second = (span for part in parsed.payloads for span in all_spans(TracesData.FromString(part)))
    assert len(first.attributes[0].value.string_value) == LIMITS.attribute_bytes_max
    assert marks_of(first) == ["attribute_cut"]
    assert second == span_of(2)


def test_a_value_is_cut_between_characters() -> None:
    span = span_of()
    span.attributes.add(key="k").value.string_value = "\u20ac" * 700_000

    (part,) = parse(request_of(span).SerializeToString(), LIMITS).payloads

    (found,) = all_spans(TracesData.FromString(part))
    assert found.attributes[0].value.string_value == "\u20ac" * (LIMITS.attribute_bytes_max // 3)


@pytest.mark.parametrize("size", [10, 2 * SLICE_BYTES])
@pytest.mark.parametrize("start", [b'{"resourceSpans":', b"\xff" * 12, b"\x0a\xff\xff\xff\x7f", b"PAR1"])
def test_what_is_no_protobuf_is_refused_at_once_whatever_its_size(start: bytes, size: int) -> None:
    with pytest.raises(MalformedRequestError):
        parse(start + b"x" * size, LIMITS)


def test_nesting_deeper_than_protobuf_allows_is_refused() -> None:
    value = b""
    for _ in range(200):
        value = message(0x2A, message(0x0A, value))

    with pytest.raises(MalformedRequestError):
        parse(message(0x0A, message(0x12, message(0x12, message(0x4A, message(0x12, value))))), LIMITS)


def test_marks_are_added_once_and_beside_those_that_are_there() -> None:
    span = span_of(name="n").SerializeToString()

    marked = add_marks(add_marks(add_marks(span, ["a"]), ["b", "a"]), [])

    found = type(span_of()).FromString(marked)
    assert marks_of(found) == ["a", "b"]
    assert len(found.attributes) == 1


def test_a_message_of_another_kind_that_parses_is_refused() -> None:
    zipkin_or_jaeger = b"\x0a\x02\x22\x00" + b"\x1a\x03abc"  # an empty ResourceSpans, and a field 3

    with pytest.raises(MalformedRequestError, match="no span, and fields that OTLP does not have"):
        parse(zipkin_or_jaeger, LIMITS)
