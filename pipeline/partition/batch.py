"""Records of several partitions into the spans that each will take: decoded, checked and keyed together.

A decode has a fixed cost of some milliseconds, whatever it holds; with little traffic it is shared by the partitions.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.partition.window import Keys, Window, ordered
from pipeline.spans import dedup, from_otlp, schema, validate
from pipeline.spans.index import Index, coded, indexes_of
from pipeline.spans.record import Record
from topics.partitioner import partitions_of

Ints = npt.NDArray[np.int64]


class SourceRecord(NamedTuple):
    """A record of the keyed topic as it came. reason: why it cannot be read (its tenant's name), else empty."""

    offset: int
    tenant: str
    value: bytes
    time_unix_ns: int
    reason: str = ""
    key: bytes | None = None
    headers: Iterable[tuple[str, bytes | None]] = ()


class DeadLetter(NamedTuple):
    """A record that is set aside, and why."""

    record: SourceRecord
    reason: str


class Wanted(NamedTuple):
    """A partition's part of a batch: its records in offset order, the next offset it expects, and what it has seen."""

    partition: int
    next: int
    window: Window
    records: Sequence[SourceRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLimits:
    """What a span may hold, and how many partitions there are."""

    partitions: int
    attribute_columns_max: int
    attribute_bytes_max: int
    attributes_max: int
    future_s_max: float
    attributes_max_by_tenant: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a partition takes of a batch, not yet part of it. Drop it and nothing has happened."""

    first: int
    last: int
    spans: pa.Table
    nbytes: int  # its share of the batch: what a slice takes by itself costs 0.4 ms to find out
    index: Index
    keys: Keys  # of the spans, in the window's order
    time_min_unix_ns: int
    time_max_unix_ns: int
    dead: list[DeadLetter]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (tenant, reason) -> spans or values
    duplicates: Counter[str] = field(default_factory=Counter)  # tenant -> spans
    received: Counter[str] = field(default_factory=Counter)  # tenant -> spans, copies included


def prepare(wanted: Sequence[Wanted], limits: SpanLimits, *, secret: bytes, now_unix_ns: int) -> list[Prepared | None]:
    """Decode, check and deduplicate what each partition does not hold yet; None for one that holds all.

    Skips by the next offset expected: after a rebalance a partition that stayed is fetched again from the committed
    offset. A record with a span of another partition is set aside whole. Never raises for bad input.
    """
    fresh = [[record for record in one.records if record.offset >= one.next] for one in wanted]
    readable = [(at, record) for at, records in enumerate(fresh) for record in records if not record.reason]
    dead: list[list[DeadLetter]] = [
        [DeadLetter(record, record.reason) for record in records if record.reason] for records in fresh
    ]
    # The decoder sees a record's place in the batch in the place of its offset, which two partitions may share.
    decoded = from_otlp.decode(
        [Record(record.tenant, place, record.value) for place, (_, record) in enumerate(readable)],
        attribute_columns_max=limits.attribute_columns_max,
    )
    for bad in decoded.bad:
        at, record = readable[bad.index]
        dead[at].append(DeadLetter(record, bad.reason))
    spans, place, foreign = _own_rows(decoded.spans, readable, wanted, limits.partitions)
    for which in foreign:
        at, record = readable[which]
        dead[at].append(DeadLetter(record, "wrong_partition"))
    checked = validate.check(
        spans,
        now_unix_ns=now_unix_ns,
        attribute_bytes_max=limits.attribute_bytes_max,
        attributes_max=limits.attributes_max,
        future_s_max=limits.future_s_max,
        attributes_max_by_tenant=limits.attributes_max_by_tenant,
    )
    counts = Counter(checked.counts)
    counts.update(decoded.rejected)
    owner = np.array([at for at, _ in readable], dtype=np.int64)[place]  # ascending: records stand by partition
    once = _each_once(checked.spans, owner, wanted, secret)
    prepared = [
        once.prepared(at, one.next, records, dead[at]) if records else None
        for at, (one, records) in enumerate(zip(wanted, fresh, strict=True))
    ]
    first = next((at for at, one in enumerate(prepared) if one is not None), None)
    if first is not None and (whole := prepared[first]) is not None:
        whole.counts.update(counts)  # counted once, with the first part
    return prepared


def _own_rows(
    spans: pa.Table, readable: Sequence[tuple[int, SourceRecord]], wanted: Sequence[Wanted], partitions: int
) -> tuple[pa.Table, Ints, list[int]]:
    """The rows of records that belong where they stand, with real offsets; their places; places of foreign records."""
    if not spans.num_rows:
        return spans, np.zeros(0, dtype=np.int64), []
    place = spans.column("record_offset").to_numpy()
    expected = np.array([wanted[at].partition for at, _ in readable], dtype=np.int64)
    offsets = np.array([record.offset for _, record in readable], dtype=np.int64)
    at = spans.column_names.index("record_offset")
    spans = spans.set_column(at, "record_offset", pa.array(offsets[place]))
    wrong = partitions_of(schema.fixed_bytes(spans, "trace_id", 16), partitions) != expected[place]
    if not wrong.any():
        return spans, place, []
    foreign = np.unique(place[wrong])
    kept = ~np.isin(place, foreign)
    return spans.filter(pa.array(kept)), place[kept], foreign.tolist()


class _Once(NamedTuple):
    """The rows of a batch without copies, those of each part together. bounds: where each part begins, and the end.

    keys: of each part, in an order of their own.
    """

    spans: pa.Table
    span_bytes: float
    keys: list[Keys]
    bounds: list[int]
    indexes: list[Index]
    received: list[Counter[str]]
    duplicates: list[Counter[str]]

    def prepared(self, at: int, first: int, records: Sequence[SourceRecord], dead: list[DeadLetter]) -> Prepared:
        """One part, which begins at offset `first`."""
        start, end = self.bounds[at], self.bounds[at + 1]
        times = [record.time_unix_ns for record in records]
        return Prepared(
            first=first,
            last=records[-1].offset,
            spans=self.spans.slice(start, end - start),
            nbytes=int((end - start) * self.span_bytes),
            index=self.indexes[at],
            keys=self.keys[at],
            time_min_unix_ns=min(times),
            time_max_unix_ns=max(times),
            dead=dead,
            duplicates=self.duplicates[at],
            received=self.received[at],
        )


def _each_once(spans: pa.Table, owner: Ints, wanted: Sequence[Wanted], secret: bytes) -> _Once:
    """owner: the part of each row, ascending."""
    keys = dedup.span_keys(spans, secret)
    bounds = _bounds(owner, len(wanted))
    keep = np.ones(len(keys), dtype=bool)
    kept: list[Keys] = []
    for at, one in enumerate(wanted):
        part = slice(bounds[at], bounds[at + 1])
        order, mine = ordered(keys[part])
        fresh = ~one.window.holds(mine)
        if (mine["hi"][1:] == mine["hi"][:-1]).any():
            fresh &= dedup.first_copies(keys[part])[order]
        keep[part][order] = fresh
        kept.append(mine[fresh])
    received = _by_tenant(spans, bounds)
    duplicates = [Counter[str]() for _ in wanted]
    if not keep.all():
        duplicates = _by_tenant(spans.filter(pa.array(~keep)), _bounds(owner[~keep], len(wanted)))
        spans, owner = spans.filter(pa.array(keep)), owner[keep]
        bounds = _bounds(owner, len(wanted))
    span_bytes = spans.nbytes / max(1, spans.num_rows)
    return _Once(spans, span_bytes, kept, bounds, indexes_of(spans, owner, len(wanted)), received, duplicates)


def _bounds(owner: Ints, parts: int) -> list[int]:
    found: list[int] = np.searchsorted(owner, np.arange(parts + 1)).tolist()
    return found


def _by_tenant(spans: pa.Table, bounds: list[int]) -> list[Counter[str]]:
    """Tenant -> rows, of each part. The column is read once for all of them."""
    if not spans.num_rows:
        return [Counter() for _ in bounds[1:]]
    tenants = coded(spans, "tenant")
    counts = [np.bincount(tenants.codes[start:end]).tolist() for start, end in itertools.pairwise(bounds)]
    return [Counter({tenants.values[at] or "": count for at, count in enumerate(own) if count}) for own in counts]
