"""Cutting OTLP bytes by trace, without an object a span.

Two shallow descriptions of TracesData are parsed by upb, which walks the wire format at 0.1 us a span:

* `_WITH_IDS` knows where spans begin and their two IDs. Serialized again, each span starts with its trace ID and span
  ID (the last ones, where a sender gave several), and all else follows as it came.
* `_OPAQUE` knows where spans begin. It gives a list of the spans' bytes, and what is not a span stays with its
  ResourceSpans or ScopeSpans as unknown fields: resource, scope, schema URL, what a later OTLP adds; the *envelope*.

So no field is lost, and nothing a span says about itself behind its IDs is looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from pipeline.spans.rewrite import MARKS_BYTES_MAX, RESOURCE_LONG, add_marks, shorten_envelope, shorten_span
from topics.errors import MalformedRecordError, MalformedRequestError, RequestTooLargeError
from topics.partitioner import partitions_of

TRACE_ID_BYTES, SPAN_ID_BYTES = 16, 8
IDS_BYTES = 2 + TRACE_ID_BYTES + 2 + SPAN_ID_BYTES  # tag, length, trace ID, tag, length, span ID
_IDS = np.dtype([("trace", "<u2"), ("high", "<u8"), ("low", "<u8"), ("span", "<u2"), ("span_id", "<u8")])
_TRACE_ID_HEAD, _SPAN_ID_HEAD = TRACE_ID_BYTES << 8 | 0x0A, SPAN_ID_BYTES << 8 | 0x12  # tag and length, little-endian
_HEAD_BYTES_MAX = 6  # tag and length of a field below 4 GiB

TRACE_ID_EMPTY = "trace ID is empty"
TRACE_ID_ZERO = "trace ID is all zero"
TRACE_ID_LONG = "trace ID is longer than 16 bytes"
SPAN_ID_LENGTH = "span ID is not 8 bytes"
SPAN_ID_ZERO = "span ID is all zero"
MARK_PADDED = "trace_id_padded"


@dataclass(frozen=True, slots=True, kw_only=True)
class CutLimits:
    """record_bytes_max: largest piece. attribute_bytes_max: a longer value is cut and its span marked.

    output_bytes_max: bound of all pieces together, since each holds copies of its resources and scopes.
    """

    record_bytes_max: int
    attribute_bytes_max: int
    output_bytes_max: int


class Piece(NamedTuple):
    """Spans of one partition: `data` is TracesData, and pieces join as bytes."""

    partition: int
    first_trace_id: bytes
    spans: int
    data: bytes


@dataclass(slots=True)
class Cut:
    """What became of a request: pieces in the order of partitions; rejected spans by reason; cut spans by mark."""

    pieces: list[Piece] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)

    @property
    def spans(self) -> int:
        """Spans taken."""
        return sum(piece.spans for piece in self.pieces)


class _Block(NamedTuple):
    """One ScopeSpans: how many spans it has, and the envelopes around them."""

    spans: int
    resource: int
    resource_envelope: bytes
    scope_envelope: bytes

    def envelope_bytes(self) -> int:
        """What the block adds to a piece beside its spans, at most."""
        return len(self.resource_envelope) + len(self.scope_envelope) + 2 * _HEAD_BYTES_MAX


class _Run(NamedTuple):
    """Spans [first, end) in the order of partitions and blocks: one partition, one block, fit for one piece."""

    partition: int
    block: _Block
    first: int
    end: int
    size: int


def cut_by_trace(payload: bytes, partitions: int, limits: CutLimits) -> Cut:
    """Cut an export request into pieces of one partition each, every one below `record_bytes_max`.

    payload: TracesData or ExportTraceServiceRequest bytes. All spans of a trace ID land on one partition. Short trace
    IDs are padded to 16 bytes; a span with an impossible ID is rejected. 0.8 us a span in requests of 300 spans.
    Raises MalformedRequestError when it is no protobuf, RequestTooLargeError when the pieces would exceed
    `output_bytes_max`. Does not look into a span's other fields: whether they parse is the caller's question.
    """
    blocks, spans = _take_apart(payload)
    cut = Cut()
    if not spans:
        return cut
    sizes = _sizes(spans)
    ids, plain = _ids(spans, sizes)
    size_max = min(limits.attribute_bytes_max, limits.record_bytes_max // 2)
    if not plain.all() or sizes.max() > size_max or not _envelopes_are_small(blocks, limits):
        taken = _settle_odd_ones(blocks, spans, ids, plain, limits, cut)
        if not taken.all():
            rows = np.flatnonzero(taken).tolist()
            if not rows:
                return cut
            kept = np.add.reduceat(taken, np.cumsum([0, *(block.spans for block in blocks[:-1])]), dtype=np.int64)
            blocks = [block._replace(spans=count) for block, count in zip(blocks, kept.tolist(), strict=True)]
            spans, ids = [spans[row] for row in rows], ids[rows]
        sizes = _sizes(spans)
    trace_ids = ids.view(np.uint8).reshape(-1, IDS_BYTES)[:, 2 : 2 + TRACE_ID_BYTES]
    runs, order = _runs(blocks, sizes, partitions_of(trace_ids, partitions), limits)
    in_order = [spans[row] for row in order]
    for some in _together(runs, limits):
        first, end = some[0].first, some[-1].end
        data = _join(some, in_order)
        cut.pieces.append(Piece(some[0].partition, trace_ids[order[first]].tobytes(), end - first, data))
    return cut


def span_count(payload: bytes) -> int:
    """How many spans a record holds, counted on the wire: 0.05 us a span. Raises MalformedRecordError for garbage.

    Read as if there were one resource and one scope: protobuf merges what stands more often than its field says.
    """
    try:
        message = _MERGED.FromString(payload)
    except DecodeError as exc:
        raise MalformedRecordError(f"no OTLP TracesData: {exc}") from exc
    return len(message.resources.scopes.spans)


def _shallow_messages(package: str, *, ids: bool = False, merged: bool = False) -> Any:
    """A class that parses TracesData down to spans; with `ids` spans are messages that know their IDs, else bytes.

    merged: all resources become one, and all scopes.
    """
    kind = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")

    def define(message: str, *fields: tuple[int, str, str, bool]) -> None:
        defined = file.message_type.add(name=message)
        for number, name, type_name, repeated in fields:
            label = kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL
            added = defined.field.add(name=name, number=number, label=label, type=kind.TYPE_BYTES)
            if type_name != "bytes":
                added.type, added.type_name = kind.TYPE_MESSAGE, f".{package}.{type_name}"

    define("Span", (1, "trace_id", "bytes", False), (2, "span_id", "bytes", False))
    define("ScopeSpans", (2, "spans", "Span" if ids else "bytes", True))
    define("ResourceSpans", (2, "scopes", "ScopeSpans", not merged))
    define("TracesData", (1, "resources", "ResourceSpans", not merged))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.TracesData"))


_WITH_IDS: Any = _shallow_messages("spanstream.ids", ids=True)
_OPAQUE: Any = _shallow_messages("spanstream.opaque")
_MERGED: Any = _shallow_messages("spanstream.merged", merged=True)


def _take_apart(payload: bytes) -> tuple[list[_Block], list[bytes]]:
    """The blocks of a request that have spans, and the spans' bytes in the same order, IDs first."""
    try:
        message = _OPAQUE.FromString(_WITH_IDS.FromString(payload).SerializeToString())
    except DecodeError as exc:
        raise MalformedRequestError(f"no OTLP protobuf: {exc}") from exc
    blocks: list[_Block] = []
    spans: list[bytes] = []
    for number, resource in enumerate(message.resources):
        found = [(list(scope.spans), scope) for scope in resource.scopes if scope.spans]
        for _, scope in found:
            scope.ClearField("spans")
        scopes = [(len(inside), scope.SerializeToString()) for inside, scope in found]
        spans += chain.from_iterable(inside for inside, _ in found)
        resource.ClearField("scopes")
        envelope = resource.SerializeToString()
        blocks += [_Block(count, number, envelope, scope) for count, scope in scopes]
    return blocks, spans


def _ids(spans: list[bytes], sizes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The first 28 bytes of each span as `_IDS`, and which of them are a whole, non-zero trace ID and span ID."""
    data = b"".join((*spans, bytes(IDS_BYTES)))
    # Every 28 bytes of the data as one item, overlapping: taking n of them is n short copies.
    windows: npt.NDArray[Any] = np.ndarray((len(data) - IDS_BYTES + 1,), dtype=_IDS, buffer=data, strides=(1,))
    ids = windows[np.cumsum(sizes) - sizes]
    plain = (ids["trace"] == _TRACE_ID_HEAD) & (ids["span"] == _SPAN_ID_HEAD) & (ids["span_id"] != 0)
    return ids, plain & ((ids["high"] | ids["low"]) != 0) & (sizes >= IDS_BYTES)


def _sizes(spans: list[bytes]) -> npt.NDArray[np.int64]:
    return np.array(list(map(len, spans)), dtype=np.int64)


def _envelopes_are_small(blocks: list[_Block], limits: CutLimits) -> bool:
    bytes_max = limits.record_bytes_max // 5
    return all(max(len(block.resource_envelope), len(block.scope_envelope)) <= bytes_max for block in blocks)


def _settle_odd_ones(
    blocks: list[_Block],
    spans: list[bytes],
    ids: npt.NDArray[Any],
    plain: npt.NDArray[np.bool_],
    limits: CutLimits,
    cut: Cut,
) -> npt.NDArray[np.bool_]:
    """Pad, shorten, mark or reject whatever is out of the ordinary, in place. Returns which spans are taken."""
    taken = np.ones(len(spans), dtype=np.bool_)
    rooms = _settle_envelopes(blocks, spans, taken, limits, cut)
    long = _sizes(spans) > np.minimum(rooms, limits.attribute_bytes_max)
    for index in np.flatnonzero((~plain | long) & taken).tolist():
        taken[index] = _settle_odd_span(spans, index, ids, (limits.attribute_bytes_max, int(rooms[index])), cut)
    return taken


def _settle_envelopes(
    blocks: list[_Block], spans: list[bytes], taken: npt.NDArray[np.bool_], limits: CutLimits, cut: Cut
) -> npt.NDArray[np.int64]:
    """Cut resources and scopes that leave little room for spans, and mark their spans, or reject them.

    Returns for each span how large it may be; 0 where it was rejected.
    """
    bytes_max = limits.record_bytes_max // 5  # two envelopes leave more than half of a record
    rooms = []
    first = 0
    for number, block in enumerate(blocks):
        if max(len(block.resource_envelope), len(block.scope_envelope)) > bytes_max:
            rows = [row for row in range(first, first + block.spans) if taken[row]]
            resource = shorten_envelope(block.resource_envelope, "ResourceSpans", bytes_max)
            scope = shorten_envelope(block.scope_envelope, "ScopeSpans", bytes_max)
            if resource is None or scope is None:
                taken[first : first + block.spans] = False
                cut.rejected[RESOURCE_LONG] += len(rows)
            else:
                marks = sorted({*resource[1], *scope[1]})
                for row in rows:
                    spans[row] = add_marks(spans[row], marks)
                cut.marked.update(dict.fromkeys(marks, len(rows)))
                blocks[number] = block._replace(resource_envelope=resource[0], scope_envelope=scope[0])
        rooms.append(max(0, limits.record_bytes_max - blocks[number].envelope_bytes() - MARKS_BYTES_MAX))
        first += block.spans
    return np.repeat(np.array(rooms, dtype=np.int64), [block.spans for block in blocks])


def _settle_odd_span(
    spans: list[bytes], index: int, ids: npt.NDArray[Any], bytes_max: tuple[int, int], cut: Cut
) -> bool:
    """Pad, shorten and mark one span out of the ordinary, or reject it. Returns whether it is taken.

    bytes_max: of one value, and of the whole span.
    """
    trace_id, span_id, rest = _read_ids(spans[index])
    reason = _id_fault(trace_id, span_id)
    marks: list[str] = []
    if reason is None:
        rest, marks, reason = shorten_span(rest, bytes_max[0], bytes_max[1] - IDS_BYTES)
    if reason is not None:
        cut.rejected[reason] += 1
        return False
    if len(trace_id) < TRACE_ID_BYTES:
        marks.append(MARK_PADDED)
    cut.marked.update(marks)
    head = b"\x0a\x10" + trace_id.rjust(TRACE_ID_BYTES, b"\0") + b"\x12\x08" + span_id
    ids[index] = np.frombuffer(head, dtype=_IDS)[0]
    spans[index] = head + add_marks(rest, marks)
    return True


def _read_ids(span: bytes) -> tuple[bytes, bytes, bytes]:
    """(trace ID, span ID, the rest) of a span whose IDs stand first; an ID that is absent is empty."""
    parsed = _SPAN_IDS.FromString(span)
    trace_id, span_id = bytes(parsed.trace_id), bytes(parsed.span_id)
    parsed.ClearField("trace_id")
    parsed.ClearField("span_id")
    return trace_id, span_id, parsed.SerializeToString()


_SPAN_IDS: Any = message_factory.GetMessageClass(_WITH_IDS.DESCRIPTOR.file.message_types_by_name["Span"])


def _id_fault(trace_id: bytes, span_id: bytes) -> str | None:
    if not trace_id:
        return TRACE_ID_EMPTY
    if len(trace_id) > TRACE_ID_BYTES:
        return TRACE_ID_LONG
    if not any(trace_id):
        return TRACE_ID_ZERO
    if len(span_id) != SPAN_ID_BYTES:
        return SPAN_ID_LENGTH
    return None if any(span_id) else SPAN_ID_ZERO


def _runs(
    blocks: list[_Block], sizes: npt.NDArray[np.int64], placed: npt.NDArray[np.int32], limits: CutLimits
) -> tuple[list[_Run], list[int]]:
    """Sort the spans by partition and block. Returns the runs, and the span index of each sorted place."""
    groups = placed
    if len(blocks) > 1:
        groups = placed * len(blocks) + np.repeat(np.arange(len(blocks)), [block.spans for block in blocks])
    if len(blocks) * (int(placed.max()) + 1) <= 1 << 16:
        groups = groups.astype(np.uint16)  # small keys are sorted by radix, in a fifth of the time
    order = groups.argsort(kind="stable")
    groups = groups[order]
    behind = (sizes[order] + _HEAD_BYTES_MAX).cumsum()
    edges = np.append(np.flatnonzero(groups[1:] != groups[:-1]) + 1, len(groups))
    envelopes = [block.envelope_bytes() for block in blocks]
    runs: list[_Run] = []
    first = before = 0
    for end, size_behind, group in zip(
        edges.tolist(), behind[edges - 1].tolist(), groups[edges - 1].tolist(), strict=True
    ):
        partition, number = divmod(group, len(blocks))
        room = limits.record_bytes_max - envelopes[number] - _HEAD_BYTES_MAX
        while size_behind - before > room and end - first > 1:
            stop = max(first + 1, int(np.searchsorted(behind, before + room, side="right")))
            if stop >= end:
                break
            size = int(behind[stop - 1]) - before
            runs.append(_Run(partition, blocks[number], first, stop, size + envelopes[number]))
            first, before = stop, before + size
        runs.append(_Run(partition, blocks[number], first, end, size_behind - before + envelopes[number]))
        first, before = end, size_behind
    return runs, order.tolist()


def _together(runs: list[_Run], limits: CutLimits) -> Iterator[list[_Run]]:
    """Neighbouring runs of one partition, as many as fit below `record_bytes_max`."""
    output_bytes = sum(run.size for run in runs)
    if output_bytes > limits.output_bytes_max:
        raise RequestTooLargeError(
            f"the request's resources and scopes, copied {len(runs)} times for its records, make {output_bytes} bytes, "
            f"more than the {limits.output_bytes_max} allowed"
        )
    some: list[_Run] = []
    size = 0
    for run in runs:
        if some and (run.partition != some[0].partition or size + run.size > limits.record_bytes_max):
            yield some
            some, size = [], 0
        some.append(run)
        size += run.size
    yield some


def _join(runs: list[_Run], spans: list[bytes]) -> bytes:
    data = _OPAQUE()
    resource: Any = None
    resource_number = -1
    for run in runs:
        if run.block.resource != resource_number:
            resource, resource_number = data.resources.add(), run.block.resource
            resource.MergeFromString(run.block.resource_envelope)
        scope = resource.scopes.add()
        scope.MergeFromString(run.block.scope_envelope)
        scope.spans.extend(spans[run.first : run.end])
    joined: bytes = data.SerializeToString()
    return joined
