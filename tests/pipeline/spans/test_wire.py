"""Cutting by trace against plain protobuf objects."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, TracesData

from pipeline.spans import schema
from pipeline.spans.rewrite import MARKS_KEY, varint
from pipeline.spans.wire import CutLimits, cut_by_trace, span_count
from tests.pipeline.spans.otlp_strategies import TRACES_DATA, spans_of
from topics.errors import MalformedRecordError, MalformedRequestError, RequestTooLargeError
from topics.partitioner import partition_of

LIMITS = CutLimits(record_bytes_max=900_000, attribute_bytes_max=65_536, output_bytes_max=64 << 20)
SMALL = CutLimits(record_bytes_max=20_000, attribute_bytes_max=65_536, output_bytes_max=64 << 20)
TRACE_IDS = st.one_of(
    st.sampled_from([b"", bytes(16), bytes(3), b"\x01", b"12345678", b"x" * 17]), st.binary(min_size=16, max_size=16)
)
SPAN_IDS = st.one_of(st.sampled_from([b"", bytes(8), b"1234567", b"123456789"]), st.binary(min_size=8, max_size=8))


def request_of(*spans: Span, resource_key: str = "service.name") -> TracesData:
    """One resource and one scope around the spans."""
    data = TracesData()
    envelope = data.resource_spans.add()
    envelope.resource.attributes.add(key=resource_key).value.string_value = "shop"
    envelope.scope_spans.add().spans.extend(spans)
    return data


def span_of(number: int = 1, **fields: object) -> Span:
    """A span with valid IDs."""
    ids = {"trace_id": number.to_bytes(16, "big"), "span_id": number.to_bytes(8, "big")}
    return Span(**(ids | fields))  # type: ignore[arg-type]


def with_long_value(number: int, size: int, key: str = "long") -> Span:
    """A span with one attribute of `size` characters."""
    span = span_of(number, name="kept")
    span.attributes.add(key=key).value.string_value = "v" * size
    return span


def joined(pieces: list[bytes]) -> TracesData:
    """Pieces join as bytes."""
    return TracesData.FromString(b"".join(pieces))


def marks_of(span: Span) -> list[str]:
    """What a span's marks attribute holds."""
    return [
        mark.string_value
        for attribute in span.attributes
        if attribute.key == MARKS_KEY
        for mark in attribute.value.array_value.values
    ]


def all_spans(data: TracesData) -> list[Span]:
    """The spans in order."""
    return [span for resource in data.resource_spans for scope in resource.scope_spans for span in scope.spans]


@settings(max_examples=60, deadline=None)
@given(TRACES_DATA, st.integers(1, 9))
def test_a_cut_loses_nothing_and_puts_each_trace_on_its_partition(data: TracesData, partitions: int) -> None:
    payload = data.SerializeToString()

    cut = cut_by_trace(payload, partitions, LIMITS)

    assert spans_of(joined([piece.data for piece in cut.pieces])) == spans_of(data)
    assert cut.spans == span_count(payload) == len(all_spans(data))
    assert not cut.rejected
    for piece in cut.pieces:
        spans = all_spans(TracesData.FromString(piece.data))
        assert {partition_of(span.trace_id, partitions) for span in spans} == {piece.partition}
        assert len(spans) == piece.spans
        assert spans[0].trace_id == piece.first_trace_id


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TRACE_IDS, SPAN_IDS), max_size=12), st.integers(1, 4))
def test_spans_with_impossible_ids_are_rejected_and_all_others_taken(
    ids: list[tuple[bytes, bytes]], partitions: int
) -> None:
    spans = [Span(trace_id=trace, span_id=span, name=str(n)) for n, (trace, span) in enumerate(ids)]
    good = {
        str(n): trace.rjust(16, b"\0")
        for n, (trace, span) in enumerate(ids)
        if any(trace) and len(trace) <= 16 and len(span) == 8 and any(span)
    }

    cut = cut_by_trace(request_of(*spans).SerializeToString(), partitions, LIMITS)

    taken = {span.name: span.trace_id for span in all_spans(joined([piece.data for piece in cut.pieces]))}
    assert taken == good
    assert cut.rejected.total() == len(ids) - len(good)
    assert cut.marked == Counter({"trace_id_padded": count} if (count := padded(ids, good)) else {})


def padded(ids: list[tuple[bytes, bytes]], good: dict[str, bytes]) -> int:
    """How many taken spans have a short trace ID."""
    return sum(str(n) in good and len(trace) < 16 for n, (trace, _) in enumerate(ids))


def test_reasons_and_marks_name_what_is_wrong() -> None:
    request = request_of(
        span_of(trace_id=b""),
        span_of(trace_id=bytes(16)),
        span_of(trace_id=b"x" * 17),
        span_of(span_id=b"123"),
        span_of(span_id=bytes(8)),
        span_of(trace_id=b"12345678"),
    )

    cut = cut_by_trace(request.SerializeToString(), 3, LIMITS)

    assert sorted(cut.rejected) == [
        "span ID is all zero",
        "span ID is not 8 bytes",
        "trace ID is all zero",
        "trace ID is empty",
        "trace ID is longer than 16 bytes",
    ]
    (span,) = all_spans(joined([piece.data for piece in cut.pieces]))
    assert span.trace_id == bytes(8) + b"12345678"
    assert marks_of(span) == ["trace_id_padded"]


def test_the_last_of_two_trace_ids_counts_as_in_protobuf() -> None:
    first, last = b"\x01" * 16, b"\x02" * 16
    span = b"\x12\x08" + b"s" * 8 + b"\x0a\x10" + first + b"\x2a\x01n" + b"\x0a\x10" + last
    scope = b"\x12" + varint(len(span)) + span
    resource = b"\x12" + varint(len(scope)) + scope
    payload = b"\x0a" + varint(len(resource)) + resource

    (piece,) = cut_by_trace(payload, 64, LIMITS).pieces

    assert piece.first_trace_id == last
    assert piece.partition == partition_of(last, 64)
    assert TracesData.FromString(piece.data) == TracesData.FromString(payload)


def test_fields_that_no_schema_knows_survive_in_span_scope_and_resource() -> None:
    unknown = b"\xf2\x3f\x03new"  # field 1022, three bytes
    span = span_of().SerializeToString() + unknown
    scope = b"\x12" + varint(len(span)) + span + unknown
    resource = unknown + b"\x12" + varint(len(scope)) + scope
    payload = b"\x0a" + varint(len(resource)) + resource

    (piece,) = cut_by_trace(payload, 2, LIMITS).pieces

    assert piece.data.count(unknown) == 3
    assert span in piece.data


def test_pieces_stay_below_the_limit_and_hold_every_span_once() -> None:
    spans = [span_of(n, name="n" * (n % 500)) for n in range(1, 400)]
    payload = request_of(*spans).SerializeToString()

    cut = cut_by_trace(payload, 2, SMALL)

    assert max(len(piece.data) for piece in cut.pieces) <= SMALL.record_bytes_max
    assert Counter(
        span.name + span.span_id.hex() for span in all_spans(joined([p.data for p in cut.pieces]))
    ) == Counter(span.name + span.span_id.hex() for span in spans)
    assert len(cut.pieces) < 2 * len(payload) / SMALL.record_bytes_max + 3  # and they are not needlessly small


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=8), st.integers(0, 30_000), st.integers(1, 3))
def test_whatever_the_sizes_no_piece_is_larger_than_a_record_and_no_span_is_unaccounted(
    sizes: list[int], resource_size: int, partitions: int
) -> None:
    request = request_of(*[with_long_value(n, size) for n, size in enumerate(sizes, start=1)])
    request.resource_spans[0].resource.attributes[0].value.string_value = "r" * resource_size

    cut = cut_by_trace(request.SerializeToString(), partitions, SMALL)

    assert all(len(piece.data) <= SMALL.record_bytes_max for piece in cut.pieces)
    found = all_spans(joined([piece.data for piece in cut.pieces]))
    assert len(found) == cut.spans == len(sizes)
    for span in found:
        size = sizes[int.from_bytes(span.span_id, "big") - 1]
        if "span_cut" in marks_of(span):
            assert size + resource_size > SMALL.record_bytes_max - 1_000
        else:
            assert len(span.attributes[0].value.string_value) == size


def test_a_span_too_large_for_a_record_is_cut_at_its_longest_value_and_marked() -> None:
    span = with_long_value(1, 2_000_000)
    span.attributes.add(key="short").value.string_value = "s" * 500

    cut = cut_by_trace(request_of(span).SerializeToString(), 8, LIMITS)

    (piece,) = cut.pieces
    (found,) = all_spans(TracesData.FromString(piece.data))
    assert marks_of(found) == ["attribute_cut"]
    assert len(found.attributes[0].value.string_value) == LIMITS.attribute_bytes_max
    assert found.attributes[1].value.string_value == "s" * 500
    assert found.name == "kept"


def test_a_span_of_many_values_is_cut_below_the_attribute_limit_until_it_fits() -> None:
    span = span_of()
    for number in range(30):
        span.attributes.add(key=f"k{number}").value.string_value = "v" * 60_000

    cut = cut_by_trace(request_of(span).SerializeToString(), 8, LIMITS)

    (piece,) = cut.pieces
    (found,) = all_spans(TracesData.FromString(piece.data))
    assert marks_of(found) == ["span_cut"]
    assert LIMITS.record_bytes_max * 0.99 < len(piece.data) <= LIMITS.record_bytes_max


def test_a_span_too_large_without_long_values_is_rejected_with_the_reason() -> None:
    span = span_of()
    for number in range(60_000):
        span.attributes.add(key=f"key-{number}").value.int_value = number

    cut = cut_by_trace(request_of(span, span_of(2)).SerializeToString(), 8, LIMITS)

    assert cut.spans == 1
    assert list(cut.rejected) == ["span is too large for a record and has no long values to cut"]


def test_a_resource_too_large_is_cut_and_all_its_spans_are_marked() -> None:
    request = request_of(span_of(1), span_of(2))
    request.resource_spans[0].resource.attributes[0].value.string_value = "r" * 1_000_000

    cut = cut_by_trace(request.SerializeToString(), 8, LIMITS)

    found = all_spans(joined([piece.data for piece in cut.pieces]))
    assert [marks_of(span) for span in found] == [["attribute_cut"]] * 2
    assert all(len(piece.data) < LIMITS.record_bytes_max // 4 for piece in cut.pieces)


def test_a_resource_that_cannot_be_cut_takes_its_spans_with_it_and_no_others() -> None:
    request = request_of(span_of(1), span_of(2))
    for number in range(20_000):
        request.resource_spans[0].resource.attributes.add(key=f"key-{number}").value.int_value = number
    request.MergeFrom(request_of(span_of(3)))

    cut = cut_by_trace(request.SerializeToString(), 8, LIMITS)

    assert [span.span_id[-1] for span in all_spans(joined([piece.data for piece in cut.pieces]))] == [3]
    assert cut.rejected.total() == 2


def test_copies_of_resources_are_bounded() -> None:
    request = request_of(*[span_of(n) for n in range(1, 200)])
    request.resource_spans[0].resource.attributes[0].value.string_value = "r" * 100_000
    few = CutLimits(record_bytes_max=900_000, attribute_bytes_max=65_536, output_bytes_max=1_000_000)

    with pytest.raises(RequestTooLargeError, match="copied"):
        cut_by_trace(request.SerializeToString(), 64, few)


def test_spans_of_one_resource_stay_under_their_own_scope() -> None:
    data = request_of(span_of(1))
    for name in ("a", "b"):
        scope = data.resource_spans[0].scope_spans.add(schema_url=f"https://{name}")
        scope.scope.name = name
        scope.spans.extend([span_of(n, name=name) for n in range(2, 30)])

    cut = cut_by_trace(data.SerializeToString(), 4, LIMITS)

    scopes = defaultdict(set)
    for resource in joined([piece.data for piece in cut.pieces]).resource_spans:
        for scope_spans in resource.scope_spans:
            scopes[scope_spans.scope.name].update({(span.name, scope_spans.schema_url) for span in scope_spans.spans})
    assert scopes == {"": {("", "")}, "a": {("a", "https://a")}, "b": {("b", "https://b")}}


@pytest.mark.parametrize("payload", [b"", b"\x0a\x00", b"\x0a\x02\x12\x00", ResourceSpans().SerializeToString()])
def test_a_request_without_spans_has_no_pieces(payload: bytes) -> None:
    assert cut_by_trace(payload, 8, LIMITS).pieces == []
    assert span_count(payload) == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_refused_or_counted_and_never_anything_else(payload: bytes) -> None:
    try:
        assert span_count(payload) >= 0
    except MalformedRecordError:
        with pytest.raises(MalformedRequestError):
            cut_by_trace(payload, 8, LIMITS)


def test_the_receiver_and_the_columns_call_the_marks_attribute_the_same() -> None:
    assert schema.MARKS_KEY == MARKS_KEY
