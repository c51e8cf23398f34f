"""One partition's life as a plain state machine: records and a clock in; segments, dead letters and ranges out.

No I/O and no threads: the worker runs `batch.prepare` and `merged` off its event loop and applies their results on it.
The rules are those of docs/architecture.md ("The commit, rule by rule"). A crash leaves nothing: all of it is rebuilt
from the manifests and from Kafka. now_ns is a steady clock (pipeline.clocks): ages do not change when somebody sets
the wall clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.partition.batch import Prepared, SourceRecord, Wanted
from pipeline.partition.segment import MERGE_FAN_IN, Segment
from pipeline.partition.window import Window
from pipeline.spans import fold, schema


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionLimits:
    """The bounds of one partition; units in the names. topics.settings describes each."""

    seal_bytes: int
    seal_spans: int
    seal_age_s: float
    segments_max: int
    drop_grace_s: float


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

    def __init__(self, *, partition: int, mark: int, window: Window, limits: PartitionLimits) -> None:
        self.partition = partition
        self.limits = limits
        self.mark = self.next = self.low = mark
        self.segments: list[Segment] = []
        self.window = window
        self.plan: SealPlan | None = None
        self.record_ns = 0  # when the newest record taken was written, by the steady clock
        self._drops: list[tuple[int, int]] = []  # (when, first offset kept)

    # ---- records in

    def skip_lost(self, log_start: int, now_ns: int) -> tuple[int, int] | None:
        """Name what lies below the log's start and was never read as lost, in an empty segment."""
        if log_start <= self.next:
            return None
        lost = (self.next, log_start - 1)
        self._append(_empty_segment(*lost, now_ns, losses=(lost,)))
        return lost

    def wanted(self, records: Sequence[SourceRecord]) -> Wanted:
        """The partition's part of a batch that is to be prepared (pipeline.partition.batch), and then applied here."""
        return Wanted(self.partition, self.next, self.window, records)

    def apply(self, prepared: Prepared, *, now_ns: int, now_unix_ns: int) -> Segment:
        """Take a prepared batch: window and segment together. Raises nothing, so neither can be taken alone.

        now_unix_ns: the wall clock, by which records tell when they were written; looked at once, here.
        """
        assert prepared.first == self.next, "a batch is prepared and applied by the partition's one actor"
        oldest_ns = steady_ns(prepared.time_min_unix_ns, now_ns, now_unix_ns)
        segment = Segment(
            first=prepared.first,
            last=prepared.last,
            spans=prepared.spans,
            spans_count=prepared.spans.num_rows,
            nbytes=prepared.nbytes,
            arrived_ns=now_ns,
            oldest_ns=oldest_ns,
            record_time_min_unix_ns=prepared.time_min_unix_ns,
            record_time_max_unix_ns=prepared.time_max_unix_ns,
        )
        self.window.add(prepared.keys, time_max_unix_ns=prepared.time_max_unix_ns, last=prepared.last, now_ns=now_ns)
        self.record_ns = max(self.record_ns, steady_ns(prepared.time_max_unix_ns, now_ns, now_unix_ns))
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
        """The adjacent open segments that should become one: the smallest run, once there are more than segments_max.

        So a span is copied about once for each MERGE_FAN_IN times its segment grows, and not at all in large batches.
        """
        opened = self.open_segments
        if len(opened) <= self.limits.segments_max:
            return []
        sizes = [segment.spans_count for segment in opened]
        fan_in = min(MERGE_FAN_IN, len(opened))
        starts = range(len(opened) - fan_in + 1)
        at = min(starts, key=lambda start: (sum(sizes[start : start + fan_in]), -start))
        return opened[at : at + fan_in]

    def replace(self, olds: list[Segment], merged: Segment) -> bool:
        """Put `merged` in the place of `olds`. False when they were sealed meanwhile and nothing was done."""
        if not olds or any(old not in self.open_segments for old in olds):
            return False
        at = self.segments.index(olds[0])
        self.segments[at : at + len(olds)] = [merged]
        return True

    # ---- ranges out

    def seal_due(self, now_ns: int) -> bool:
        """Whether the open segments reached their size, number of spans or age, or name a loss: a manifest decides it.

        Until then another owner's manifest may tell that the lost records are stored, and what came may be copies.
        """
        segments = self.open_segments
        if not segments or self.plan is not None:
            return False
        return (
            sum(segment.nbytes for segment in segments) >= self.limits.seal_bytes
            or sum(segment.spans_count for segment in segments) >= self.limits.seal_spans
            or now_ns - segments[0].arrived_ns >= self.limits.seal_age_s * 1e9
            or any(segment.losses for segment in segments)
        )

    def seal(self) -> SealPlan | None:
        """Close the open segments into one range that begins at the mark. None while another seal is under way."""
        segments = self.open_segments
        if self.plan is not None or not segments:
            return None
        self.plan = SealPlan(first=self.mark, last=segments[-1].last, segments=tuple(segments))
        return self.plan

    def stored(self, last: int, now_ns: int) -> None:
        """The plan's manifest stands and its entry is sent: the mark moves, the segments go after the grace period."""
        assert self.plan is not None
        assert self.plan.last == last
        self.mark, self.plan = last + 1, None
        self._drops.append((now_ns + int(self.limits.drop_grace_s * 1e9), self.mark))
        self.window.forget(self.mark, now_ns)

    def drop(self, now_ns: int, *, at_once: bool = False) -> list[Segment]:
        """Let stored segments go whose grace is over (or all stored ones, when memory is short); returns them."""
        while self._drops and (at_once or self._drops[0][0] <= now_ns):
            self.low = self._drops.pop(0)[1]
        gone = [segment for segment in self.segments if segment.last < self.low]
        self.segments = [segment for segment in self.segments if segment.last >= self.low]
        return gone

    def _append(self, segment: Segment) -> None:
        assert segment.first == self.next
        self.segments.append(segment)
        self.next = segment.last + 1


def steady_ns(unix_ns: int, now_ns: int, now_unix_ns: int) -> int:
    """A time of the wall clock by the steady one, where both are read now; now for one of the future, or for 0."""
    return now_ns - max(0, now_unix_ns - unix_ns) if unix_ns else now_ns


def merged(segments: Sequence[Segment], tables: Sequence[pa.Table], *, attribute_columns_max: int) -> Segment:
    """One segment of adjacent ones; tables: their rows. O(bytes), to be run off the event loop."""
    spans = fold.concat(tables, attribute_columns_max=attribute_columns_max)
    return Segment(
        first=segments[0].first,
        last=segments[-1].last,
        spans=spans,
        spans_count=spans.num_rows,
        nbytes=spans.nbytes,
        arrived_ns=segments[0].arrived_ns,
        oldest_ns=min(segment.oldest_ns for segment in segments),
        record_time_min_unix_ns=min((t for s in segments if (t := s.record_time_min_unix_ns)), default=0),
        record_time_max_unix_ns=max(s.record_time_max_unix_ns for s in segments),
        losses=tuple(loss for segment in segments for loss in segment.losses),
    )


def _empty_segment(first: int, last: int, now_ns: int, losses: tuple[tuple[int, int], ...]) -> Segment:
    return Segment(
        first=first,
        last=last,
        spans=schema.empty_table(),
        spans_count=0,
        nbytes=0,
        arrived_ns=now_ns,
        oldest_ns=now_ns,
        record_time_min_unix_ns=0,
        record_time_max_unix_ns=0,
        losses=losses,
    )
