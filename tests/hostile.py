"""Input that nobody should send: valid bytes, mutated from a seed, and what may become of each kind.

Every kind gives an input to the real code. It may be refused by an error of ours that a caller turns into 4xx, a dead
letter or a named reason; any other error fails.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import shutil
import tempfile
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import zstandard
from google.protobuf import json_format
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from agents.load.blocks import Template
from agents.rekey import rekeyed
from pipeline.partition.batch import SourceRecord, SpanLimits, Wanted, prepare
from pipeline.partition.window import Window
from pipeline.query import candidates
from pipeline.query.chunk_columns import UNREADABLE
from pipeline.query.engine import Engine
from pipeline.query.intervals import Intervals
from pipeline.query.plain_cells import Grouped, PlainCells
from pipeline.receive.request import Form, parse_body, unpack
from pipeline.spans.parsed import ParseLimits
from pipeline.spans.wire import CutLimits, cut_by_trace
from pipeline.store.chunk import read_chunk
from pipeline.store.manifest import ChunkEntry, Manifest
from tests.pipeline.store.shop import encoded, shop, spans_table
from topics.errors import (
    DamagedChunkError,
    FormatVersionError,
    MalformedRecordError,
    MalformedRequestError,
    QueryTooLargeError,
    RequestTooLargeError,
    StoreUnavailableError,
)
from topics.settings import QuerierSettings, StoreSettings

BODY_BYTES_MAX = 1 << 20
CUT = CutLimits(record_bytes_max=100_000, attribute_bytes_max=4096, output_bytes_max=8 << 20)
PARSE = ParseLimits(span_bytes_max=100_000, attribute_bytes_max=4096)
SPAN = SpanLimits(
    partitions=4, attribute_bytes_max=4096, attributes_max=128, future_s_max=3600, attribute_columns_max=50
)
REFUSED = (MalformedRequestError, RequestTooLargeError)
RECORDS_AT_ONCE = 8
ALL_TIMES = (0, 2**64 - 1)
QUANTILES = PlainCells(
    (Grouped("resource.service.name", "string", ""), Grouped("kind", "kind", 0)), Intervals(0, 10**9, 1), listed=True
)
ENGINE_BYTES_MAX = 64 << 20  # what it has read of chunks is kept as long as this allows
EVERY_VALUE = "SELECT bit_xor(hash(COLUMNS(*))) FROM read_parquet(?, union_by_name = true)"
EDGES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff" * 9 + b"\x01", b"\xff" * 10, b"\xed\xa0\x80", b"{", b"[" * 300)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some edits, mostly one: a bit, bytes of the edge, a piece cut, doubled or moved, the end cut off."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, length = rng.randrange(len(found) + 1), rng.choice((1, 2, 4, 16, 64))
        edit = rng.randrange(7)
        if edit == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif edit == 1:
            found[at : at + rng.choice((0, 1, 8))] = rng.choice(EDGES)
        elif edit == 2:
            del found[at : at + length]
        elif edit == 3:
            found[at:at] = found[at : at + length] * rng.choice((1, 3, 50))
        elif edit == 4:
            found[at:at] = rng.randbytes(length)
        elif edit == 5:
            other = rng.randrange(len(found) + 1)
            found[at : at + length] = found[other : other + length]
        else:
            del found[at:]
    return bytes(found)


@dataclass
class Seeds:
    """Valid inputs to begin with."""

    requests: list[bytes]
    json: list[bytes]
    chunk: bytes
    traces: bytes
    manifest: bytes

    @staticmethod
    def make() -> Seeds:
        """Requests of a load and of a small shop, its chunk and that one's traces, and a manifest of it."""
        requests = [one.body.tobytes() for one in Template(1, 3).requests[:20]] + [shop().SerializeToString()]
        json = [json_format.MessageToJson(TracesData.FromString(one)).encode() for one in requests]
        spans = spans_table(shop())
        chunk = encoded(spans)
        entry = {one.name: getattr(chunk, one.name, "n") for one in fields(ChunkEntry)}
        manifest = Manifest(
            topic="spans_by_trace",
            partition=1,
            partitions=4,
            first=5,
            last=9,
            token="x",
            worker="http://w",
            written_unix_ns=1,
            record_time_min_unix_ns=1,
            record_time_max_unix_ns=2,
            losses=((5, 6),),
            chunks=(ChunkEntry(**entry | {"traces": 2, "bytes": 1}),),
        )
        return Seeds(requests, json, chunk.parquet, chunk.traces, manifest.to_json())


class Hostile:
    """Gives one mutated input after the other to the real code; `outcomes` counts what became of them."""

    def __init__(self, seed: int) -> None:
        self._rng, self.seeds = random.Random(seed), Seeds.make()
        self.outcomes: Counter[str] = Counter()
        self.kinds: dict[str, Callable[[random.Random], str]] = {
            "protobuf": self._protobuf,
            "json": self._json,
            "compressed": self._compressed,
            "records": self._records,
            "inlet": self._inlet,
            "chunk": self._chunk,
            "asked_chunk": self._asked_chunk,
            "counted_chunk": self._counted_chunk,
            "joined_traces": self._joined_traces,
            "manifest": self._manifest,
        }

    def run(self, kind: str, count: int) -> None:
        """`count` inputs of one kind. An error that is none of ours is raised, with the seed that makes the input."""
        for _ in range(count):
            seed = self._rng.randrange(2**63)
            try:
                outcome = self.kinds[kind](random.Random(seed))
            except Exception as error:
                error.add_note(f"of input {kind} {seed}: Hostile(0).kinds[{kind!r}](random.Random({seed}))")
                raise
            self.outcomes[f"{kind} {outcome}"] += 1

    def _request(self, body: bytes, encoding: str, form: Form) -> str:
        """As the receiver takes a request."""
        try:
            parsed = parse_body(unpack(body, encoding, BODY_BYTES_MAX), form, PARSE, 100_000)
            for payload in parsed.payloads:
                cut_by_trace(payload, 4, CUT)
        except REFUSED as error:
            return type(error).__name__
        return "taken"

    def _protobuf(self, rng: random.Random) -> str:
        return self._request(mutated(rng.choice(self.seeds.requests), rng), "", Form.PROTOBUF)

    def _json(self, rng: random.Random) -> str:
        return self._request(mutated(rng.choice(self.seeds.json), rng), "", Form.JSON)

    def _compressed(self, rng: random.Random) -> str:
        encoding = rng.choice(("gzip", "zstd", "deflate", "identity", "br"))
        plain = rng.choice(self.seeds.requests)
        inner = mutated(plain, rng) if rng.random() < 0.3 else plain
        body = COMPRESS.get(encoding, bytes)(inner)
        return self._request(mutated(body, rng) if rng.random() < 0.7 else body, encoding, Form.PROTOBUF)

    def _source_records(self, rng: random.Random) -> list[SourceRecord]:
        values = [mutated(rng.choice(self.seeds.requests), rng) for _ in range(RECORDS_AT_ONCE)]
        times = [rng.choice((0, 1, 10**18, 2**62)) for _ in values]
        return [SourceRecord(at, "t", value, time) for at, (value, time) in enumerate(zip(values, times, strict=True))]

    def _records(self, rng: random.Random) -> str:
        """As a worker takes records of the keyed topic: each is taken or a dead letter."""
        records = self._source_records(rng)
        wanted = Wanted(0, 0, Window(window_s=900, keys_max=1000), records)
        prepared = prepare([wanted], SPAN, secret=b"s" * 32, now_unix_ns=10**18)[0]
        assert prepared is not None
        assert {letter.record.offset for letter in prepared.dead} <= {record.offset for record in records}
        return "dead letters" if prepared.dead else "taken"

    def _inlet(self, rng: random.Random) -> str:
        """As the rekey agent takes records of the inlet."""
        _, dead = rekeyed(self._source_records(rng), 4, CUT)
        return "dead letters" if dead else "taken"

    def _chunk(self, rng: random.Random) -> str:
        try:
            read_chunk(mutated(self.seeds.chunk, rng))
        except (DamagedChunkError, FormatVersionError) as error:
            return type(error).__name__
        return "read"

    def _asked_chunk(self, rng: random.Random) -> str:
        """As a querier reads a chunk's copy: every value of it."""
        found = self._by_engine(mutated(self.seeds.chunk, rng), lambda path: (EVERY_VALUE, [path]))
        return found if isinstance(found, str) else "read"

    def _counted_chunk(self, rng: random.Random) -> str:
        """As a querier makes cells of its columns; what is refused, the engine is asked for."""
        try:
            QUANTILES.of_chunk(pa.py_buffer(mutated(self.seeds.chunk, rng)), lambda: None)
        except UNREADABLE as error:
            return type(error).__name__
        return "read"

    def _joined_traces(self, rng: random.Random) -> str:
        """As a search brings together the rows of an object with a row a trace."""
        found = self._by_engine(mutated(self.seeds.traces, rng), lambda path: candidates.traces_sql([path]))
        if isinstance(found, str):
            return found
        pending, live = candidates.Candidates(), spans_table(shop())
        for spans_min in (0, 2):
            pending.add(candidates.joined(found, candidates.traces_of(live, ALL_TIMES), ALL_TIMES, spans_min))
        assert len(pending.take(1000, floor=0)) <= live.num_rows + found.num_rows
        return "read"

    def _by_engine(self, content: bytes, statement: Callable[[str], tuple[str, list[Any]]]) -> pa.Table | str:
        """What a statement finds in a file, or the name of the error."""
        path = self._folder / f"{uuid.uuid4()}.parquet"  # the engine keeps a file's footer by its name
        path.write_bytes(content)
        text, values = statement(str(path))
        try:
            return asyncio.run(self._engine.run(lambda session: session.sql(text, values, live=candidates.NO_TRACES)))
        except (StoreUnavailableError, QueryTooLargeError) as error:
            return type(error).__name__
        finally:
            path.unlink()

    @cached_property
    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="spanstream-hostile-"))

    @cached_property
    def _engine(self) -> Engine:
        settings = QuerierSettings(data_dir=self._folder, threads=1, memory_bytes_max=ENGINE_BYTES_MAX)
        return Engine(settings, StoreSettings())

    def close(self) -> None:
        """Remove what was written."""
        if "_engine" in vars(self):
            self._engine.close()
            shutil.rmtree(self._folder)

    def _manifest(self, rng: random.Random) -> str:
        try:
            found = Manifest.from_json(mutated(self.seeds.manifest, rng))
        except (MalformedRecordError, FormatVersionError) as error:
            return type(error).__name__
        assert 0 <= found.first <= found.last + 1
        assert all(isinstance(one.name, str) and one.spans >= 0 for one in found.chunks)
        return "read"


def _deflated(data: bytes) -> bytes:
    return zlib.compress(data, 1)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1),
    "deflate": _deflated,
    "zstd": lambda data: zstandard.compress(data, 1),
}


def bombs(unpacked_bytes: int) -> Iterator[tuple[str, bytes]]:
    """(encoding, body): small bodies that unpack to so much."""
    zeros = bytes(1 << 20)
    packer, parts = zlib.compressobj(9), []
    for _ in range(unpacked_bytes >> 20):
        parts.append(packer.compress(zeros))
    yield "deflate", b"".join([*parts, packer.flush()])
    yield "gzip", gzip.compress(zeros, 9) * (unpacked_bytes >> 20)  # members one after the other
    yield "zstd", zstandard.compress(zeros, 3) * (unpacked_bytes >> 20)
