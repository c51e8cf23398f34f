"""Attributes written in every way that protobuf allows, values that are none, and damaged records among good ones."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from pipeline.spans.from_otlp import Decoded, decode
from pipeline.spans.record import BadRecord, Record
from pipeline.spans.rewrite import varint
from pipeline.spans.to_otlp import to_proto
from tests.pipeline.spans.otlp_strategies import TRACES_DATA, VALUES, spans_of

SCOPES = ("resource", "scope", "span", "event", "link")
KEY = b"\x0a\x01k"


def decoded(*values: bytes, columns_max: int = 200) -> Decoded:
    return decode([Record("t", at, value) for at, value in enumerate(values)], attribute_columns_max=columns_max)


def field(tag: int, content: bytes, padding: int = 0) -> bytes:
    """A field with a length; padding: bytes by which the length is longer than it need be."""
    length = varint(len(content))
    if padding:
        length = length[:-1] + bytes([length[-1] | 0x80]) + b"\x80" * (padding - 1) + b"\0"
    return bytes([tag]) + length + content


def record_of(*attributes: bytes, scope: str = "span", span_id: int = 1) -> bytes:
    """A record of one span, with these KeyValue messages on what `scope` names."""
    inside = dict.fromkeys(SCOPES, b"")
    tags = {"resource": 0x0A, "scope": 0x1A, "span": 0x4A, "event": 0x1A, "link": 0x22}
    inside[scope] = b"".join(field(tags[scope], one) for one in attributes)
    span = field(0x0A, b"t" * 16) + field(0x12, bytes([span_id]) * 8) + inside["span"]
    span += field(0x5A, inside["event"]) + field(0x6A, inside["link"])
    return field(0x0A, field(0x0A, inside["resource"]) + field(0x12, field(0x0A, inside["scope"]) + field(0x12, span)))


def model_of(record: bytes) -> list[bytes]:
    """What protobuf makes of a record. Raises DecodeError."""
    data = TracesData.FromString(record)
    data.DiscardUnknownFields()
    return spans_of(data)


def spans_in(found: Decoded, *offsets: int) -> list[bytes]:
    """The spans that came of the records at these offsets."""
    kept = [offset in offsets for offset in found.spans.column("record_offset").to_pylist()]
    return spans_of(to_proto(found.spans.filter(pa.array(kept, pa.bool_()))))


# Pieces of messages: put together they make what encoders write, what protobuf allows, and what it refuses.
PADDINGS = st.sampled_from([0, 0, 0, 1, 2])
UNKNOWN = st.sampled_from([b"\x78\x01", b"\x7a\x02ab", b"\x7b\x7c", b"\x79" + b"x" * 8, b"\x08\x05", b"\x92\x03\x01a"])
TEXT_BYTES = st.sampled_from([b"", b"a", b"\xc3\xa4", b"x" * 125, b"x" * 126, b"y" * 200, b"z" * 16_400])
FINE_VALUES = st.one_of(
    VALUES.map(lambda value: value.SerializeToString()),
    st.builds(field, st.sampled_from([0x0A, 0x3A]), TEXT_BYTES, PADDINGS),
    st.builds(field, st.just(0x2A), VALUES.map(lambda value: field(0x0A, value.SerializeToString())), PADDINGS),
    st.integers(0, 2**64 - 1).map(lambda number: b"\x18" + varint(number)),
    st.sampled_from(
        [
            b"\x10\x02",
            b"\x10\x80\x01",
            b"\x10\x81\x00",
            b"\x18\x81\x00",
            b"\x18" + b"\xff" * 9 + b"\x7f",
            b"\x8a\x00\x01a",
        ]
    ),
)
BROKEN_VALUES = st.sampled_from(
    [
        b"\x0a\x05a",
        b"\x0a\x01\xff",
        b"\x18",
        b"\x18" + b"\xff" * 10 + b"\1",
        b"\x21abc",
        b"\0\1",
        b"\x2a\x02\x0a\5",
        b"\x0a",
    ]
)


def values_of(pieces: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(pieces, max_size=3).map(b"".join)


def key_values_of(values: st.SearchStrategy[bytes], keys: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    pieces = st.one_of(
        st.builds(field, st.just(0x0A), keys, PADDINGS), st.builds(field, st.just(0x12), values, PADDINGS), UNKNOWN
    )
    usual = st.builds(lambda key, value: field(0x0A, key) + field(0x12, value), keys, values)
    return st.one_of(usual, usual, st.lists(pieces, max_size=4).map(b"".join))


KEY_BYTES = st.sampled_from([b"", b"k", b"\xc3\xa4", b"k" * 127, b"k" * 128, b"k" * 300])
FINE = key_values_of(values_of(st.one_of(FINE_VALUES, FINE_VALUES, UNKNOWN)), KEY_BYTES)
ANY = key_values_of(
    values_of(st.one_of(FINE_VALUES, FINE_VALUES, UNKNOWN, BROKEN_VALUES)), st.one_of(KEY_BYTES, st.just(b"\xff"))
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(FINE, max_size=6), st.sampled_from(SCOPES), st.sampled_from([0, 1, 200]))
def test_attributes_written_in_any_way_are_read_as_protobuf_reads_them(
    attributes: list[bytes], scope: str, columns_max: int
) -> None:
    record = record_of(*attributes, scope=scope)

    found = decoded(record, columns_max=columns_max)

    found.spans.validate(full=True)
    assert not found.bad
    assert spans_in(found, 0) == model_of(record)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.lists(ANY, max_size=3), st.sampled_from(SCOPES)), max_size=5))
def test_records_with_values_that_do_not_parse_are_bad_and_no_others(made: list[tuple[list[bytes], str]]) -> None:
    records = [record_of(*attributes, scope=scope) for attributes, scope in made]
    expected = {}
    for at, record in enumerate(records):
        try:
            expected[at] = model_of(record)
        except DecodeError:
            continue

    found = decoded(*records)

    assert [one.index for one in found.bad] == [at for at in range(len(records)) if at not in expected]
    assert all(one.reason.startswith("no_otlp: ") for one in found.bad)
    assert {at: spans_in(found, at) for at in expected} == expected


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TRACES_DATA, TRACES_DATA, TRACES_DATA, st.data())
def test_a_damaged_record_harms_no_other(
    before: TracesData, damaged: TracesData, after: TracesData, draw: st.DataObject
) -> None:
    payload = bytearray(damaged.SerializeToString())
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(payload)))
        change = draw.draw(st.sampled_from(["flip", "delete", "insert"]))
        if change == "insert":
            payload.insert(at, draw.draw(st.integers(0, 255)))
        elif at < len(payload) and change == "flip":
            payload[at] ^= 1 << draw.draw(st.integers(0, 7))
        else:
            del payload[at : at + draw.draw(st.integers(1, 3))]
    empty = [BadRecord(at, "empty") for at, one in ((0, before), (2, after)) if not one.ByteSize()]

    found = decoded(before.SerializeToString(), bytes(payload), after.SerializeToString())

    found.spans.validate(full=True)
    assert {one.index for one in found.bad} - {1} == {one.index for one in empty}
    assert spans_in(found, 0) == spans_of(before)
    assert spans_in(found, 2) == spans_of(after)


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        (KEY + field(0x12, b"\x0a\x01a\x18\x05"), AnyValue(int_value=5)),
        (KEY + field(0x12, b"\x18\x05\x0a\x01a"), AnyValue(string_value="a")),
        (KEY + field(0x12, b"\x78\x01\x0a\x01a"), AnyValue(string_value="a")),
        (KEY + field(0x12, b"\x10\x02"), AnyValue(bool_value=True)),
        (KEY + field(0x12, b"\x10\x80\x00"), AnyValue(bool_value=False)),
        (KEY + field(0x12, b"\x18\x81\x80\x00"), AnyValue(int_value=1)),
        (KEY + field(0x12, b"\x18" + b"\xff" * 9 + b"\x01"), AnyValue(int_value=-1)),
        (KEY + field(0x12, b"\x0a\x81\x00a"), AnyValue(string_value="a")),
        (KEY + field(0x12, b""), AnyValue()),
        (KEY, AnyValue()),
        (field(0x12, b"\x18\x05") + KEY, AnyValue(int_value=5)),
        (KEY + field(0x12, b"\x18\x05") + field(0x12, b"\x18\x06"), AnyValue(int_value=6)),
        (KEY + field(0x12, b"\x0a\x01a\x40\x07"), AnyValue(string_value="a")),  # of profiles: as if it were not there
        (b"\x18\x03" + KEY + field(0x12, b"\x40\x07"), AnyValue()),
    ],
)
def test_an_attribute_in_an_odd_form_has_the_value_that_its_last_field_says(
    attribute: bytes, expected: AnyValue
) -> None:
    found = decoded(record_of(b"\x0a\x05other\x12\x02\x18\x01", attribute))

    (span,) = to_proto(found.spans).resource_spans[0].scope_spans[0].spans
    assert not found.bad
    assert sorted(span.attributes, key=lambda one: one.key) == [
        KeyValue(key="k", value=expected),
        KeyValue(key="other", value=AnyValue(int_value=1)),
    ]


@pytest.mark.parametrize("size", [125, 126, 127, 128, 16_380, 16_383, 16_384, 70_000, 2_100_000])
def test_a_value_of_any_length_is_read_whole(size: int) -> None:
    values = [
        AnyValue(string_value="x" * size),
        AnyValue(bytes_value=b"\xff" * size),
        AnyValue(array_value={"values": [AnyValue(string_value="y" * size)]}),
        AnyValue(string_value="short"),
    ]
    attributes = [KeyValue(key=f"{at}{'k' * size}"[:300], value=value) for at, value in enumerate(values)]

    found = decoded(record_of(*[one.SerializeToString() for one in attributes]))

    (span,) = to_proto(found.spans).resource_spans[0].scope_spans[0].spans
    assert sorted(span.attributes, key=lambda one: one.key) == attributes


MALFORMED = {
    "text": KEY + b"\x12\x03\x0a\x01\xff",
    "surrogate": KEY + b"\x12\x05\x0a\x03\xed\xa0\x80",
    "key": b"\x0a\x01\xff\x12\x03\x0a\x01a",
    "text in array": KEY + field(0x12, field(0x2A, field(0x0A, b"\x0a\x01\xff"))),
    "text in map": KEY + field(0x12, field(0x32, field(0x0A, b"\x0a\x01\xff"))),
    "array": KEY + field(0x12, field(0x2A, b"\x0a\x05")),
    "map": KEY + field(0x12, field(0x32, b"\x0a\x05")),
    "value": KEY + field(0x12, b"\x0a\x05"),
    "int": KEY + field(0x12, b"\x18" + b"\xff" * 11),
    "message": b"\x0a\x05k",
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("attribute", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("columns_max", [0, 200])
def test_a_malformed_attribute_costs_its_own_record_alone(attribute: bytes, scope: str, columns_max: int) -> None:
    good = [record_of(KEY + field(0x12, b"\x0a\x01a"), scope=scope, span_id=at) for at in (1, 2)]
    bad = record_of(KEY + field(0x12, b"\x0a\x01a"), attribute, scope=scope, span_id=3)

    found = decoded(good[0], bad, b"", good[1], bad, columns_max=columns_max)

    assert [one.index for one in found.bad] == [1, 2, 4]
    assert [one.reason.split(":")[0] for one in found.bad] == ["no_otlp", "empty", "no_otlp"]
    assert found.spans.equals(decoded(good[0], b"", b"", good[1], columns_max=columns_max).spans)


@pytest.mark.parametrize("attribute", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_attribute_is_found_in_a_resource_without_spans(attribute: bytes) -> None:
    (found,) = decoded(field(0x0A, field(0x0A, field(0x0A, attribute)))).bad

    assert found.reason.startswith("no_otlp: ")


def test_no_jaeger_span_is_taken_for_otlp_without_spans() -> None:
    chance = random.Random(1)
    ids = ((chance.randbytes(16), chance.randbytes(8)) for _ in range(2000))
    records = [Record("t", offset, jaeger_span(*pair)) for offset, pair in enumerate(ids)]

    found = decode(records, attribute_columns_max=10)

    assert len(found.spans) == 0
    assert {one.index for one in found.bad} == set(range(2000))
    assert {one.reason.split(":")[0] for one in found.bad} == {"no_otlp"}


def test_otlp_without_spans_is_no_error() -> None:
    data = TracesData()
    data.resource_spans.add().scope_spans.add()

    found = decode([Record("t", 0, data.SerializeToString())], attribute_columns_max=10)

    assert (len(found.spans), found.bad) == (0, [])


def jaeger_span(trace_id: bytes, span_id: bytes) -> bytes:
    """Jaeger's model.proto: IDs, operation, start, duration, a tag, the process."""
    parts = {1: trace_id, 2: span_id, 3: b"GET /cart", 6: b"\x08\x80\x94\xeb\xdc\x03", 7: b"\x10\xe8\x07"}
    parts |= {8: b"\x0a\x01k\x1a\x01v", 10: b"\x0a\x03svc"}
    return b"".join(bytes([number << 3 | 2, len(part)]) + part for number, part in parts.items())
