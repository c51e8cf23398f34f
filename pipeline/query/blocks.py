"""A worker's answer about live segments, block by block, and the copies of segments made from it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.spans import schema
from pipeline.store.tables import ipc_bytes

HEADER_BYTES_MAX = 1 << 20
MERGE_FAN_IN = 4
PACK_BYTES = 1 << 20  # of a table: some 2,500 spans
Loss = tuple[int, int]
_serials = itertools.count(1)


class BrokenAnswerError(Exception):
    """A worker's answer ended early or is none: the worker is taken as gone."""


class Reader(Protocol):
    """What blocks are read from: aiohttp's StreamReader. Raises an EOFError when the answer ends early."""

    async def readexactly(self, n: int) -> bytes: ...
    def at_eof(self) -> bool: ...


class Block(NamedTuple):
    """One block of an answer. `first` is None in the block that ends a partition; `ipc` is empty without rows.

    assigned: tells the owner's assignment of the partition from earlier ones, whose rows may be others.
    """

    partition: int
    owner: bool
    assigned: int
    low: int
    next: int
    first: int | None
    last: int | None
    losses: tuple[Loss, ...]
    spans: int
    ipc: bytes


class LiveSegment(NamedTuple):
    """Spans of the offsets [first, last], in one of three forms.

    As they came, in `ipc`, one Arrow stream. As a table, while they are few: packing costs 6 ms whatever there is. Or
    packed, in `columns`, a compressed Arrow stream a column: a quarter of the memory, and a question unpacks only what
    it reads (of a whole stream every dictionary is unpacked: 3 times as slow and more).

    Of one that is kept: serial tells its rows from all others' (0: it is as it came); first_row, the lowest offset of
    them, may lie below `first`; tenant, whose all of them are, is empty where they are several's; starts_ns: the first
    start and the last.
    """

    first: int
    last: int
    spans: int
    losses: tuple[Loss, ...] = ()
    ipc: bytes = b""
    columns: Mapping[str, bytes] = {}
    table: pa.Table | None = None
    nbytes: int = 0
    serial: int = 0
    first_row: int = 0
    tenant: str = ""
    starts_ns: tuple[int, int] = (0, 0)

    @property
    def column_names(self) -> list[str]:
        """The columns that the segment has."""
        if self.table is not None:
            names: list[str] = self.table.column_names
            return names
        return list(self.columns) if not self.ipc else list(pa.ipc.open_stream(self.ipc).schema.names)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows; of `columns`, where given, only those that the segment has."""
        if not self.spans:
            return _selected(schema.empty_table(), columns)
        if self.table is not None:
            return _selected(self.table, columns)
        if self.ipc:
            return _selected(pa.ipc.open_stream(self.ipc).read_all(), columns)
        wanted = self.columns if columns is None else [name for name in columns if name in self.columns]
        return pa.table({name: pa.ipc.open_stream(self.columns[name]).read_all().column(0) for name in wanted})


def _selected(spans: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    if columns is None:
        return spans
    there = set(spans.column_names)
    return spans.select([name for name in columns if name in there])


def arrived(first: int, last: int, spans: int, losses: tuple[Loss, ...], ipc: bytes) -> LiveSegment:
    """A segment as a worker sent it."""
    return LiveSegment(first, last, spans, losses, ipc=ipc, nbytes=len(ipc))


def held(first: int, last: int, losses: tuple[Loss, ...], spans: pa.Table) -> LiveSegment:
    """A segment of these rows, to be kept: from PACK_BYTES on packed, 0.6 us a span."""
    if not spans.num_rows:
        return LiveSegment(first, last, 0, losses)
    tenants, starts = spans.column("tenant").unique().to_pylist(), pc.min_max(spans.column("start_unix_ns")).as_py()
    segment = LiveSegment(
        first,
        last,
        spans.num_rows,
        losses,
        serial=next(_serials),
        first_row=spans.column("record_offset")[0].as_py(),
        tenant=tenants[0] if len(tenants) == 1 else "",
        starts_ns=(starts["min"], starts["max"]),
    )
    if (nbytes := spans.nbytes) < PACK_BYTES:
        return segment._replace(table=spans, nbytes=nbytes)
    columns = {name: bytes(ipc_bytes(spans.select([name]))) for name in spans.column_names}
    return segment._replace(columns=columns, nbytes=sum(map(len, columns.values())))


async def read_blocks(reader: Reader) -> AsyncIterator[Block]:
    """The blocks of an answer: 4 bytes length of the header (big endian), header (JSON), Arrow stream.

    Raises BrokenAnswerError for what is no block, and passes on what `reader` raises.
    """
    while not reader.at_eof():
        length = int.from_bytes(await reader.readexactly(4), "big")
        if not 2 <= length <= HEADER_BYTES_MAX:
            raise BrokenAnswerError(f"a header of {length} bytes")
        try:
            header = orjson.loads(await reader.readexactly(length))
            owner = bool(header["owner"])
            block = Block(
                partition=int(header["partition"]),
                owner=owner,
                assigned=int(header["assigned"]) if owner else 0,
                low=int(header["low"]) if owner else 0,
                next=int(header["next"]) if owner else 0,
                first=header.get("first"),
                last=header.get("last"),
                losses=tuple((int(first), int(last)) for first, last in header.get("losses", ())),
                spans=int(header.get("spans", 0)),
                ipc=b"",
            )
            ipc_length = int(header.get("ipc_bytes", 0))
        except (KeyError, TypeError, ValueError) as exc:
            raise BrokenAnswerError(f"no header of a block: {exc}") from exc
        yield block._replace(ipc=await reader.readexactly(ipc_length)) if ipc_length else block


def to_keep(segment: LiveSegment) -> LiveSegment:
    """The segment as it is kept between questions."""
    return held(segment.first, segment.last, segment.losses, segment.read()) if segment.ipc else segment


def compacted(segments: Sequence[LiveSegment]) -> list[LiveSegment]:
    """The same rows, adjacent small segments merged: about 3 of each size class. Call it off the event loop."""
    grown: list[LiveSegment] = []
    for segment in segments:
        grown.append(to_keep(segment))
        while _merge_due(grown):
            grown[-MERGE_FAN_IN:] = [_merged(grown[-MERGE_FAN_IN:])]
    return grown


def _merge_due(segments: Sequence[LiveSegment]) -> bool:
    newest = segments[-MERGE_FAN_IN:]
    return len(newest) == MERGE_FAN_IN and _size_class(newest[0]) <= _size_class(newest[-1])


def _merged(segments: Sequence[LiveSegment]) -> LiveSegment:
    first, last = segments[0].first, segments[-1].last
    losses = tuple(loss for segment in segments for loss in segment.losses)
    full = [segment for segment in segments if segment.spans]
    if len(full) < 2:
        return (full[0] if full else LiveSegment(first, last, 0))._replace(first=first, last=last, losses=losses)
    return held(first, last, losses, schema.concat([segment.read() for segment in full]))


def _size_class(segment: LiveSegment) -> int:
    return (max(segment.nbytes, 1).bit_length() - 1) // 2  # two bits: a factor of 4, the fan-in
