"""OTLP/JSON as protobuf's own JSON mapping reads it, with hex IDs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from pipeline.receive.otlp_json import to_protobuf
from tests.pipeline.spans.otlp_strategies import TRACES_DATA
from tests.pipeline.spans.test_wire import all_spans, marks_of
from topics.errors import MalformedRequestError, RequestTooLargeError

SEED_EXAMPLE = (Path(__file__).parent / "seed_example.json").read_bytes()
ID_KEYS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
MANY = 1_000_000


def hex_ids(value: Any) -> Any:
    """Protobuf's JSON with its base64 IDs turned into hex."""
    if isinstance(value, dict):
        return {k: base64.b64decode(v).hex() if k in ID_KEYS else hex_ids(v) for k, v in value.items()}
    return [hex_ids(element) for element in value] if isinstance(value, list) else value


def read(body: Any) -> TracesData:
    """The protobuf of a JSON body of which nothing is rejected."""
    payload, rejected, _ = to_protobuf(body if isinstance(body, bytes) else json.dumps(body).encode(), MANY)
    assert not rejected
    return TracesData.FromString(payload)


def around(span: dict[str, Any]) -> dict[str, Any]:
    """A request with one span."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


@settings(max_examples=80, deadline=None)
@given(TRACES_DATA, st.booleans(), st.booleans())
def test_json_is_read_as_protobuf_writes_it(data: TracesData, snake: bool, numbers: bool) -> None:
    body = MessageToDict(data, preserving_proto_field_name=snake, use_integers_for_enums=numbers)

    assert read(hex_ids(body)) == data


def test_the_seed_documents_example_is_accepted_as_it_stands() -> None:
    (span,) = all_spans(read(SEED_EXAMPLE))

    assert span == Span(
        trace_id=bytes.fromhex("a1b2c3d4e5f67890"),
        span_id=bytes.fromhex("1122334455667788"),
        name="http.request",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=1678886400000000000,
        end_time_unix_nano=1678886400100000000,
        status={"code": 1},
    )


def test_unknown_fields_nulls_and_both_spellings_are_taken() -> None:
    (span,) = all_spans(
        read(
            around({"name": "n", "futureField": {"a": [1]}, "trace_state": "s", "events": None, "startTimeUnixNano": 5})
        )
    )

    assert span == Span(name="n", trace_state="s", start_time_unix_nano=5)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("startTimeUnixNano", "18446744073709551615", 2**64 - 1),
        ("startTimeUnixNano", 1e18, 10**18),
        ("startTimeUnixNano", "1e3", 1000),
        ("kind", "SPAN_KIND_SERVER", 2),
        ("kind", 2, 2),
        ("kind", "2", 2),
        ("kind", 77, 77),
        ("flags", "257", 257),
    ],
)
def test_numbers_may_be_strings_and_enums_names(field: str, value: Any, expected: int) -> None:
    (span,) = all_spans(read(around({field: value})))

    assert getattr(span, {"startTimeUnixNano": "start_time_unix_nano"}.get(field, field)) == expected


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ({"traceId": "abc"}, "traceId is no hex string of whole bytes"),
        ({"traceId": "zz" * 16}, "traceId is no hex string of whole bytes"),
        ({"traceId": 5}, "traceId is no hex string of whole bytes"),
        ({"spanId": "12 34"}, "spanId is no hex string of whole bytes"),
        ({"parentSpanId": "x"}, "parentSpanId is no hex string of whole bytes"),
        ({"links": [{}, {"traceId": "q"}]}, "traceId is no hex string of whole bytes"),
        (5, "spans is no object"),
        ({"name": 5}, "name is no string"),
        ({"kind": "SPAN_KIND_ODD"}, "kind is no enum value"),
        ({"status": {"code": "ODD"}}, "code is no enum value"),
        ({"attributes": {}}, "attributes is no list"),
        ({"startTimeUnixNano": -1}, "startTimeUnixNano is out of range"),
        ({"startTimeUnixNano": 1.5}, "startTimeUnixNano is no whole number"),
        ({"startTimeUnixNano": True}, "startTimeUnixNano is no whole number"),
        ({"flags": 2**32}, "flags is out of range"),
        ({"attributes": [{"key": "k", "value": {"boolValue": 1}}]}, "boolValue is no true or false"),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "%"}}]}, "bytesValue is no base64"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": "x"}}]}, "doubleValue is no number"),
    ],
)
def test_a_wrong_value_rejects_that_span_alone(span: Any, reason: str) -> None:
    body = around({"name": "kept"})
    body["resourceSpans"][0]["scopeSpans"][0]["spans"][:0] = [span, span]

    payload, rejected, _ = to_protobuf(json.dumps(body).encode(), MANY)

    assert [span.name for span in all_spans(TracesData.FromString(payload))] == ["kept"]
    assert rejected == {reason: 2}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"resourceSpans": {}}', "resourceSpans is no list"),
        (b'{"resourceSpans": [5]}', "resourceSpans is no object"),
        (b'{"resourceSpans": [{"schemaUrl": 5}]}', r"resourceSpans\[0\].schemaUrl is no string"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": {}}]}]}', r"scopeSpans\[0\].spans is no list"),
        (b'{"resourceSpans":' + b"[" * 5000 + b"]" * 5000 + b"}", "no"),
    ],
)
def test_what_is_no_otlp_json_is_refused_with_the_field(body: bytes, named: str) -> None:
    with pytest.raises(MalformedRequestError, match=named):
        to_protobuf(body, MANY)


def test_a_span_of_values_nested_too_deep_for_protobuf_is_rejected() -> None:
    value: dict[str, Any] = {"stringValue": "x"}
    for _ in range(80):
        value = {"arrayValue": {"values": [value]}}

    _, rejected, _ = to_protobuf(json.dumps(around({"attributes": [{"key": "k", "value": value}]})).encode(), MANY)

    assert rejected == {"values is nested deeper than 90": 1}


@pytest.mark.parametrize("text", [b'"a\xffb"', b'"a\\ud800b"'])
def test_invalid_text_is_repaired_and_its_span_marked(text: bytes) -> None:
    body = json.dumps(around({"name": "NAME"})).encode().replace(b'"NAME"', text)

    payload, _, repaired = to_protobuf(body, MANY)

    (span,) = all_spans(TracesData.FromString(payload))
    assert span.name == "a\ufffdb"
    assert marks_of(span) == ["utf8_repaired"]
    assert repaired == 1


def test_a_body_of_very_many_values_is_refused_before_it_is_read() -> None:
    with pytest.raises(RequestTooLargeError, match="JSON values"):
        to_protobuf(b'{"resourceSpans":[' + b"{}," * 2000 + b"{}]}", 1000)
