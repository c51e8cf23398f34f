"""Manifests: what is written is read again, by later versions too; golden files of each format stay."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.spans.to_otlp import to_proto
from pipeline.store import trace_filter
from pipeline.store.chunk import decode_rows, read_chunk
from pipeline.store.manifest import (
    ChunkEntry,
    Manifest,
    chunk_name,
    manifest_name,
    name_in_entry,
    parse_manifest_name,
)
from tests.pipeline.spans.otlp_strategies import spans_of
from tests.pipeline.store.shop import T0, encoded, full_shop, spans_table
from topics.errors import FormatVersionError, MalformedRecordError

GOLDEN = Path(__file__).parent / "golden"
COUNTS = st.integers(0, 2**63 - 1)
TIMES = st.integers(0, 2**64 - 1)
ENTRIES = st.builds(
    ChunkEntry,
    tenant=st.text(min_size=1, max_size=5),
    bucket=st.text("ab", min_size=3, max_size=4),
    name=st.text(max_size=9),
    traces_name=st.text(max_size=9),
    filter_name=st.text(max_size=9),
    bytes=COUNTS,
    spans=COUNTS,
    traces=COUNTS,
    start_min_unix_ns=TIMES,
    start_max_unix_ns=TIMES,
    end_max_unix_ns=TIMES,
    outliers=st.lists(st.tuples(st.binary(min_size=16, max_size=16).map(bytes.hex), TIMES), max_size=2).map(tuple),
    services=st.dictionaries(st.text(max_size=4), st.dictionaries(st.text(max_size=4), COUNTS, max_size=2), max_size=2),
    attributes=st.dictionaries(st.text(max_size=4), COUNTS, max_size=2),
    more_keys=st.lists(st.text(max_size=4), max_size=2).map(tuple),
    values=st.dictionaries(
        st.text(max_size=4), st.lists(st.text(max_size=4) | st.integers(-(2**63), 2**63 - 1)).map(tuple), max_size=2
    ),
)
MANIFESTS = st.builds(
    Manifest,
    topic=st.text("abc_", min_size=1, max_size=5),
    partition=st.integers(0, 2000),
    partitions=st.integers(1, 2000),
    first=st.integers(0, 2**62),
    last=st.integers(2**62, 2**63 - 1),
    token=st.text(max_size=5),
    worker=st.text(max_size=5),
    written_unix_ns=COUNTS,
    record_time_min_unix_ns=COUNTS,
    record_time_max_unix_ns=COUNTS,
    losses=st.lists(st.tuples(COUNTS, COUNTS), max_size=2).map(tuple),
    chunks=st.lists(ENTRIES, max_size=2).map(tuple),
)


def written_today() -> tuple[Manifest, dict[str, bytes]]:
    """A manifest of format 1 with every field set, and the objects that it names."""
    chunk = encoded(spans_table(full_shop(), columns_max=3))
    entry = ChunkEntry(
        tenant="t",
        bucket="spans-a",
        name="chunk-1.parquet",
        traces_name="chunk-1.traces.parquet",
        filter_name="chunk-1.filter",
        bytes=12_345,
        spans=chunk.spans,
        traces=chunk.traces_count,
        start_min_unix_ns=chunk.start_min_unix_ns,
        start_max_unix_ns=chunk.start_max_unix_ns,
        end_max_unix_ns=chunk.end_max_unix_ns,
        outliers=(("0" * 31 + "1", 5),),
        services=chunk.services,
        attributes=chunk.attributes,
        more_keys=chunk.more_keys,
    )
    manifest = Manifest(
        topic="spans_by_trace",
        partition=3,
        partitions=8,
        first=10,
        last=19,
        token="0123456789abcdef",
        worker="http://127.0.0.1:6066",
        written_unix_ns=T0 + 10**9,
        record_time_min_unix_ns=T0,
        record_time_max_unix_ns=T0 + 5,
        losses=((10, 12),),
        chunks=(entry,),
    )
    return manifest, {"parquet": chunk.parquet, "traces.parquet": chunk.traces, "filter": chunk.trace_filter}


@given(MANIFESTS)
def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_what_version_1_wrote_is_read() -> None:
    """SPANSTREAM_GOLDEN=write makes the files of a format anew: only before its first release."""
    manifest, objects = written_today()
    if os.environ.get("SPANSTREAM_GOLDEN") == "write":
        (GOLDEN / "manifest-1.json").write_bytes(manifest.to_json())
        for suffix, content in objects.items():
            (GOLDEN / f"chunk-1.{suffix}").write_bytes(content)

    read = Manifest.from_json((GOLDEN / "manifest-1.json").read_bytes())
    rows = decode_rows(read_chunk((GOLDEN / "chunk-1.parquet").read_bytes()))
    traces = pq.read_table(pa.BufferReader((GOLDEN / "chunk-1.traces.parquet").read_bytes()))
    held = (GOLDEN / "chunk-1.filter").read_bytes()

    assert read == manifest
    assert spans_of(to_proto(rows)) == spans_of(full_shop())
    assert traces.column("span_count").to_pylist() == [2, 2]
    assert [trace_filter.might_hold(held, bytes([trace]) * 16) for trace in (1, 2)] == [True, True]


def test_what_is_written_today_is_format_1_still() -> None:
    """Other names, types or bytes than those of the golden files want a new format number."""
    manifest, objects = written_today()

    written, golden = (pq.read_schema(pa.BufferReader(one)) for one in (objects["parquet"], golden_bytes("parquet")))
    assert written.equals(golden, check_metadata=True)
    assert manifest.to_json() == (GOLDEN / "manifest-1.json").read_bytes()
    assert objects["filter"] == golden_bytes("filter")


def golden_bytes(suffix: str) -> bytes:
    return (GOLDEN / f"chunk-1.{suffix}").read_bytes()


def test_a_later_format_is_refused_with_a_sentence_and_anything_else_as_no_manifest() -> None:
    later = (GOLDEN / "manifest-1.json").read_bytes().replace(b'"format":1', b'"format":2')
    later_chunk = pq.read_table(pa.BufferReader(golden_bytes("parquet"))).replace_schema_metadata(
        {b"spanstream.format": b"2"}
    )
    sink = pa.BufferOutputStream()
    pq.write_table(later_chunk, sink)

    with pytest.raises(FormatVersionError, match="format 2, this version reads up to 1: upgrade"):
        Manifest.from_json(later)
    with pytest.raises(FormatVersionError, match="upgrade"):
        read_chunk(sink.getvalue().to_pybytes())
    golden, wrong = (GOLDEN / "manifest-1.json").read_bytes(), (b"1", b'{"a":"b"}', b'{"a":[[1]]}', b'{"a":[null]}')
    few = [golden.replace(b'"more_keys":', b'"values":%b,"more_keys":' % one) for one in wrong]
    for nonsense in (*few, b"", b"{}", b"[]", b"null", b'{"format":1}', b'{"format":"x"}', b"\xff"):
        with pytest.raises(MalformedRecordError):
            Manifest.from_json(nonsense)


def test_the_names_of_manifests_sort_by_offset_and_can_be_read_back() -> None:
    names = [manifest_name("spans_by_trace", 3, first) for first in (0, 9, 10, 2**63)]

    assert names == sorted(names)
    assert [parse_manifest_name(name) for name in names][2] == ("spans_by_trace", 3, 10)
    assert parse_manifest_name("chunks/t/2023-11-14/spans_by_trace/3/x.parquet") is None
    assert parse_manifest_name(names[0] + ".tmp") is None


def test_a_chunks_name_says_tenant_day_partition_offsets_and_attempt() -> None:
    assert (
        chunk_name("shop", "spans_by_trace", 3, (10, 19), "abc", T0)
        == "chunks/shop/2023-11-14/spans_by_trace/3/00000000000000000010-00000000000000000019-abc"
    )


def test_the_entry_of_a_long_manifest_is_its_name() -> None:
    manifest, _ = written_today()
    long = replace(manifest, chunks=manifest.chunks * 2000)

    assert Manifest.from_json(manifest.to_entry()) == manifest
    assert name_in_entry(manifest.to_entry()) is None
    assert orjson.loads(long.to_entry()) == {"format": 1, "name": manifest.name}
    assert name_in_entry(long.to_entry()) == manifest.name
