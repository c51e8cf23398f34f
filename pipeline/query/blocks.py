"""A worker's answer about live segments, block by block, and the copies of segments made from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

import orjson
import pyarrow as pa

from pipeline.spans import schema
from pipeline.store.tables import ipc_bytes

HEADER_BYTES_MAX = 1 << 20
MERGE_FAN_IN = 8
Loss = tuple[int, int]


class BrokenAnswerError(Exception):
    """A worker's answer ended early or is none: the worker is taken as gone."""


class Reader(Protocol):
    """What blocks are read from: aiohttp's StreamReader. Raises an EOFError when the answer ends early."""

    async def readexactly(self, n: int) -> bytes: ...
    def at_eof(self) -> bool: ...


class Block(NamedTuple):
    """One block of an answer. `first` is None in the block that ends a partition; `ipc` is empty without rows."""

    partition: int
    owner: bool
    low: int
    next: int
    first: int | None
    last: int | None
    losses: tuple[Loss, ...]
    spans: int
    ipc: bytes


class LiveSegment(NamedTuple):
    """Spans of the offsets [first, last] as an Arrow stream: a third of the memory, columns unpacked as needed."""

    first: int
    last: int
    spans: int
    losses: tuple[Loss, ...]
    ipc: bytes

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows; of `columns`, where given, only those that the segment has."""
        if not self.ipc:
            empty = schema.empty_table()
            return empty if columns is None else empty.select([c for c in columns if c in empty.column_names])
        if columns is None:
            return pa.ipc.open_stream(self.ipc).read_all()
        names = self.column_names
        wanted = sorted(names.index(column) for column in set(columns) if column in names)
        return pa.ipc.open_stream(self.ipc, options=pa.ipc.IpcReadOptions(included_fields=wanted)).read_all()

    @property
    def column_names(self) -> list[str]:
        """The columns that the segment has."""
        if not self.ipc:
            return list(schema.empty_table().column_names)
        names: list[str] = pa.ipc.open_stream(self.ipc).schema.names
        return names


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


def merge_due(segments: Sequence[LiveSegment]) -> int:
    """How many of the newest segments should become one; 0: none. Keeps about 7 of each size class."""
    newest = segments[-MERGE_FAN_IN:]
    if len(newest) < MERGE_FAN_IN or _size_class(newest[0]) > _size_class(newest[-1]):
        return 0
    return MERGE_FAN_IN


def merge(segments: Sequence[LiveSegment]) -> LiveSegment:
    """One segment of adjacent ones. O(bytes), to be run off the event loop."""
    losses = tuple(loss for segment in segments for loss in segment.losses)
    full = [segment for segment in segments if segment.ipc]
    if len(full) < 2:
        ipc = full[0].ipc if full else b""
    else:
        ipc = bytes(ipc_bytes(schema.concat([segment.read() for segment in full])))
    return LiveSegment(
        first=segments[0].first,
        last=segments[-1].last,
        spans=sum(segment.spans for segment in segments),
        losses=losses,
        ipc=ipc,
    )


def _size_class(segment: LiveSegment) -> int:
    return (max(len(segment.ipc), 1).bit_length() - 1) // 3  # three bits: a factor of 8, the fan-in
