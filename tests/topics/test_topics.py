"""Headers, keys and names on the topics."""

from __future__ import annotations

import pytest

from topics import span_chunks, spans_by_trace, spans_dead
from topics.errors import MalformedRecordError
from topics.settings import KafkaSettings
from topics.spans_by_trace import tenant_of
from topics.topic import full_name


def test_a_topics_full_name_starts_with_the_deployments_prefix() -> None:
    assert full_name(spans_by_trace.TOPIC, KafkaSettings(topic_prefix="prod.")) == "prod.spans_by_trace"


def test_a_record_without_tenant_header_is_the_default_tenants() -> None:
    assert tenant_of(None) == tenant_of([]) == tenant_of([("other", b"x")]) == "single-tenant"


def test_the_tenant_header_is_found_whatever_its_case_and_container() -> None:
    assert tenant_of([("x-scope-orgid", b"a.b-c")]) == "a.b-c"
    assert tenant_of({"X-Scope-OrgID": "team(1)"}) == "team(1)"
    assert tenant_of(spans_by_trace.headers_of("t!*'_", 5)) == "t!*'_"


@pytest.mark.parametrize(
    "name", [b"", b".", b"..", b"a/b", b"a|b", "\u00fc".encode(), b"\xff", b"a" * 151, b"a\n", None]
)
def test_a_name_outside_the_alphabet_is_refused(name: bytes | None) -> None:
    with pytest.raises(MalformedRecordError, match="tenant"):
        tenant_of([("X-Scope-OrgID", name)])


def test_a_dead_letter_names_where_it_stood_and_keeps_its_headers() -> None:
    headers = spans_dead.headers_of("otlp_spans", 3, 42, "no protobuf" * 100, [("own", b"1")])

    assert headers[:3] == [("dead_topic", b"otlp_spans"), ("dead_partition", b"3"), ("dead_offset", b"42")]
    assert headers[3][0] == "dead_reason"
    assert len(headers[3][1] or b"") == 500
    assert headers[4] == ("own", b"1")


def test_a_record_that_a_letter_has_room_for_is_set_aside_whole() -> None:
    assert spans_dead.fitted(b"k", b"value", [("own", None)], 100) == (b"k", b"value", [("own", None)])


@pytest.mark.parametrize(
    ("key", "value", "own"),
    [(b"", b"v" * 3_000_000, []), (b"k" * 3_000_000, b"", []), (None, b"v", [("h" * 3_000_000, None)])],
)
def test_of_a_larger_one_the_first_bytes_are_kept_and_it_says_so(
    key: bytes | None, value: bytes, own: list[tuple[str, bytes | None]]
) -> None:
    kept_key, kept, headers = spans_dead.fitted(key, value, own, 2_000_000)

    assert (kept_key, kept) == (None, value[: 1 << 20])
    assert [name for name, _ in headers] == ["dead_cut"]
    assert (headers[0][1] or b"").startswith(b"30000")


def test_a_chunk_entrys_key_gives_back_partition_and_offset() -> None:
    assert span_chunks.parse_key(span_chunks.key_of(7, 1234)) == (7, 1234)
    assert span_chunks.key_of(7, 1234) == b"7/00000000000000001234"


@pytest.mark.parametrize("key", [None, b"", b"7", b"7/12", b"x/00000000000000001234", b"7/0000000000000000123x"])
def test_a_foreign_key_of_span_chunks_is_refused(key: bytes | None) -> None:
    with pytest.raises(MalformedRecordError):
        span_chunks.parse_key(key)
