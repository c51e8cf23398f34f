"""One partition's life as a plain state machine: records and a clock in; segments, dead letters and ranges out.

No I/O and no threads: the worker runs `prepare` and `merged` off its event loop and applies their results on it. The
rules are those of docs/architecture.md ("The commit, rule by rule"). A crash leaves nothing: all of it is rebuilt from
the manifests and from Kafka.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.partition.segment import MERGE_FAN_IN, Segment
from pipeline.partition.window import Window
from pipeline.spans import dedup, from_otlp, schema, validate
from pipeline.spans.record import Record
from topics.partitioner import partitions_of


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLimits:
    """The bounds of one partition; units in the names. topics.settings describes each."""

    seal_bytes: int
    seal_spans: int
    seal_age_s: float
    segments_max: int
    drop_grace_s: float
    window_s: float
    window_keys_max: int
    attribute_columns_max: int
    attribute_bytes_max: int
    attributes_max: int
    future_s_max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A batch decoded and deduplicated, not yet part of the partition. Drop it and nothing has happened."""

    first: int
    last: int
    spans: pa.Table
    keys: npt.NDArray[np.void]
    time_min_unix_ns: int
    time_max_unix_ns: int
    dead: list[DeadLetter]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (tenant, reason) -> spans or values
    duplicates: Counter[str] = field(default_factory=Counter)  # tenant -> spans
    received: Counter[str] = field(default_factory=Counter)  # tenant -> spans, copies included


@dataclass(frozen=True, slots=True, kw_only=True)
class SealPlan:
    """The range [first, last] that the sink stores next, and the segments that hold it."""

    first: int
    last: int
    segments: tuple[Segment, ...]


class Partition:
    """The state of one owned partition of the keyed topic.

    next: next offset expected; every offset below is in a segment or below `mark`. mark: last offset named by a
    manifest, plus 1. low: first offset whose rows are still held. `segments` are gap-free from `low` to `next`.
    """

    def __init__(
        self, *, partition: int, partitions: int, mark: int, window: Window, limits: PartitionLimits, secret: bytes
    ) -> None:
        self.partition = partition
        self.partitions = partitions
        self.limits = limits
        self.mark = self.next = self.low = mark
        self.segments: list[Segment] = []
        self.window = window
        self.plan: SealPlan | None = None
        self.record_time_unix_ns = 0
        self._secret = secret
        self._drops: list[tuple[int, int]] = []  # (when, unix ns, first offset kept)

    # ---- records in

    def skip_lost(self, log_start: int, now_unix_ns: int) -> tuple[int, int] | None:
        """Name what lies below the log's start and was never read as lost, in an empty segment."""
        if log_start <= self.next:
            return None
        lost = (self.next, log_start - 1)
        self._append(_empty_segment(*lost, now_unix_ns, losses=(lost,)))
        return lost

    def prepare(self, records: Sequence[SourceRecord], *, now_unix_ns: int) -> Prepared | None:
        """Decode, check and deduplicate the records not yet held. None when all of them are.

        Skips by the next offset expected: after a rebalance a partition that stayed is fetched again from the
        committed offset. Never raises for bad input.
        """
        fresh = [record for record in records if record.offset >= self.next]
        if not fresh:
            return None
        dead = [DeadLetter(record, record.reason) for record in fresh if record.reason]
        readable = [record for record in fresh if not record.reason]
        decoded = from_otlp.decode(
            [Record(r.tenant, r.offset, r.value) for r in readable],
            attribute_columns_max=self.limits.attribute_columns_max,
        )
        dead += [DeadLetter(readable[bad.index], bad.reason) for bad in decoded.bad]
        spans, foreign = self._own_rows(decoded.spans)
        by_offset = {record.offset: record for record in readable}
        dead += [DeadLetter(by_offset[offset], "wrong_partition") for offset in foreign]
        checked = validate.check(
            spans,
            now_unix_ns=now_unix_ns,
            attribute_bytes_max=self.limits.attribute_bytes_max,
            attributes_max=self.limits.attributes_max,
            future_s_max=self.limits.future_s_max,
        )
        spans = checked.spans
        keys = dedup.span_keys(spans, self._secret)
        keep = dedup.first_copies(keys)
        keep &= ~self.window.holds(keys)
        counts: Counter[tuple[str, str]] = Counter(checked.counts)
        counts.update(decoded.rejected)
        received = _spans_by_tenant(spans)
        duplicates: Counter[str] = Counter()
        if not keep.all():
            duplicates = _spans_by_tenant(spans.filter(pa.array(~keep)))
            spans, keys = spans.filter(pa.array(keep)), keys[keep]
        times = [record.time_unix_ns for record in fresh]
        return Prepared(
            first=self.next,
            last=fresh[-1].offset,
            spans=spans,
            keys=keys,
            time_min_unix_ns=min(times),
            time_max_unix_ns=max(times),
            dead=dead,
            counts=counts,
            duplicates=duplicates,
            received=received,
        )

    def apply(self, prepared: Prepared, *, now_unix_ns: int) -> Segment:
        """Take a prepared batch: window and segment together. Raises nothing, so neither can be taken alone."""
        assert prepared.first == self.next, "a batch is prepared and applied by the partition's one actor"
        segment = Segment(
            first=prepared.first,
            last=prepared.last,
            spans=prepared.spans,
            spans_count=prepared.spans.num_rows,
            nbytes=prepared.spans.get_total_buffer_size(),
            arrived_unix_ns=now_unix_ns,
            record_time_min_unix_ns=prepared.time_min_unix_ns,
            record_time_max_unix_ns=prepared.time_max_unix_ns,
        )
        self.window.add(prepared.keys, time_max_unix_ns=prepared.time_max_unix_ns, last=prepared.last)
        self.record_time_unix_ns = max(self.record_time_unix_ns, prepared.time_max_unix_ns)
        self._append(segment)
        return segment

    # ---- segments

    @property
    def open_segments(self) -> list[Segment]:
        """Segments of no seal yet, in offset order."""
        start = self.mark if self.plan is None else self.plan.last + 1
        return [segment for segment in self.segments if segment.first >= start]

    @property
    def nbytes(self) -> int:
        """Bytes of segments in memory and of the window."""
        return self.window.nbytes + sum(s.nbytes for s in self.segments if s.spans is not None)

    @property
    def losses(self) -> list[tuple[int, int]]:
        """Offset ranges lost to Kafka's retention among the held segments."""
        return [loss for segment in self.segments for loss in segment.losses]

    def merge_due(self) -> list[Segment]:
        """The newest adjacent segments that should become one; empty when there is nothing to merge."""
        newest = self.open_segments[-MERGE_FAN_IN:]
        if len(newest) == MERGE_FAN_IN and newest[0].size_class <= newest[-1].size_class:
            return newest
        if len(self.open_segments) > self.limits.segments_max:
            return newest
        return []

    def replace(self, olds: list[Segment], merged: Segment) -> bool:
        """Put `merged` in the place of `olds`. False when they were sealed meanwhile and nothing was done."""
        if not olds or any(old not in self.open_segments for old in olds):
            return False
        at = self.segments.index(olds[0])
        self.segments[at : at + len(olds)] = [merged]
        return True

    # ---- ranges out

    def seal_due(self, now_unix_ns: int) -> bool:
        """Whether the open segments reached their size, number of spans or age."""
        segments = self.open_segments
        if not segments or self.plan is not None:
            return False
        return (
            sum(segment.nbytes for segment in segments) >= self.limits.seal_bytes
            or sum(segment.spans_count for segment in segments) >= self.limits.seal_spans
            or now_unix_ns - segments[0].arrived_unix_ns >= self.limits.seal_age_s * 1e9
        )

    def seal(self) -> SealPlan | None:
        """Close the open segments into one range that begins at the mark. None while another seal is under way."""
        segments = self.open_segments
        if self.plan is not None or not segments:
            return None
        self.plan = SealPlan(first=self.mark, last=segments[-1].last, segments=tuple(segments))
        return self.plan

    def stored(self, last: int, now_unix_ns: int) -> None:
        """The plan's manifest stands and its entry is sent: the mark moves, the segments go after the grace period."""
        assert self.plan is not None
        assert self.plan.last == last
        self.mark, self.plan = last + 1, None
        self._drops.append((now_unix_ns + int(self.limits.drop_grace_s * 1e9), self.mark))
        self.window.forget(self.mark)

    def drop(self, now_unix_ns: int, *, at_once: bool = False) -> list[Segment]:
        """Let stored segments go whose grace is over (or all stored ones, when memory is short); returns them."""
        while self._drops and (at_once or self._drops[0][0] <= now_unix_ns):
            self.low = self._drops.pop(0)[1]
        gone = [segment for segment in self.segments if segment.last < self.low]
        self.segments = [segment for segment in self.segments if segment.last >= self.low]
        return gone

    def _append(self, segment: Segment) -> None:
        assert segment.first == self.next
        self.segments.append(segment)
        self.next = segment.last + 1

    def _own_rows(self, spans: pa.Table) -> tuple[pa.Table, list[int]]:
        """The rows of records that belong here, and the offsets of records with a span of another partition."""
        if not spans.num_rows:
            return spans, []
        trace_ids = schema.fixed_bytes(spans, "trace_id", 16)
        foreign = partitions_of(trace_ids, self.partitions) != self.partition
        if not foreign.any():
            return spans, []
        offsets = spans.column("record_offset").to_numpy()
        wrong = np.unique(offsets[foreign])
        return spans.filter(pa.array(~np.isin(offsets, wrong))), [int(offset) for offset in wrong]


def merged(segments: Sequence[Segment], tables: Sequence[pa.Table]) -> Segment:
    """One segment of adjacent ones; tables: their rows. O(bytes), to be run off the event loop."""
    spans = schema.concat(list(tables))
    return Segment(
        first=segments[0].first,
        last=segments[-1].last,
        spans=spans,
        spans_count=spans.num_rows,
        nbytes=spans.get_total_buffer_size(),
        arrived_unix_ns=segments[0].arrived_unix_ns,
        record_time_min_unix_ns=min((t for s in segments if (t := s.record_time_min_unix_ns)), default=0),
        record_time_max_unix_ns=max(s.record_time_max_unix_ns for s in segments),
        losses=tuple(loss for segment in segments for loss in segment.losses),
    )


def _empty_segment(first: int, last: int, now_unix_ns: int, losses: tuple[tuple[int, int], ...]) -> Segment:
    return Segment(
        first=first,
        last=last,
        spans=schema.empty_table(),
        spans_count=0,
        nbytes=0,
        arrived_unix_ns=now_unix_ns,
        record_time_min_unix_ns=0,
        record_time_max_unix_ns=0,
        losses=losses,
    )


def _spans_by_tenant(spans: pa.Table) -> Counter[str]:
    counted = pc.value_counts(spans.column("tenant").cast(pa.string())).to_pylist() if spans.num_rows else []
    return Counter({row["values"]: row["counts"] for row in counted})
