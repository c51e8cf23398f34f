"""Records of a partition's tail to rows, with a worker's checks and without copies."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.partition.window import Window
from pipeline.query.blocks import LiveSegment, held
from pipeline.spans import dedup, from_otlp, schema, validate
from pipeline.spans.record import Record
from topics import spans_by_trace
from topics.errors import MalformedRecordError
from topics.partitioner import partitions_of
from topics.settings import Settings

SECRET = os.urandom(32)  # of this process: keys are compared with one another only
KEY_COLUMNS = ("tenant", "trace_id", "span_id", "kind", "record_offset")
DECODE_BYTES = 8 << 20
FOREVER_S = 1e9


class TailRows:
    """Takes records of one partition in offset order, gives segments. What a worker would set aside is left out.

    trace_id: only this trace's rows, where not empty. known: segments whose spans are not given again.
    place: the partition, and how many there are; a record with another's span is a dead letter to the workers.
    """

    def __init__(
        self, settings: Settings, place: tuple[int, int], trace_id: bytes, known: Sequence[LiveSegment]
    ) -> None:
        self._settings = settings
        self._partition, self._partitions = place
        self._trace_id = trace_id
        self._known = known
        self._window = Window(window_s=FOREVER_S, keys_max=1 << 62)
        self._waiting: list[Record] = []
        self._waiting_bytes = 0
        self._segments: list[LiveSegment] = []

    def add(self, offset: int, headers: Any, value: bytes) -> None:
        """Take one record; decodes what waits when it is enough for a batch."""
        try:
            tenant = spans_by_trace.tenant_of(headers)
        except MalformedRecordError:
            return
        self._waiting.append(Record(tenant, offset, value))
        self._waiting_bytes += len(value)
        if self._waiting_bytes >= DECODE_BYTES:
            self._decode()

    def finish(self) -> list[LiveSegment]:
        """The segments of all records added, in offset order; without rows none."""
        self._decode()
        return self._segments

    def _decode(self) -> None:
        records, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not records:
            return
        spans = from_otlp.decode(records, attribute_columns_max=self._settings.worker.attribute_columns_max).spans
        spans = self._new(self._checked(self._own(spans)))
        if spans.num_rows:
            self._segments.append(held(records[0].offset, records[-1].offset, (), spans))

    def _own(self, spans: pa.Table) -> pa.Table:
        if not spans.num_rows:
            return spans
        foreign = partitions_of(schema.fixed_bytes(spans, "trace_id", 16), self._partitions) != self._partition
        if foreign.any():
            offsets = spans.column("record_offset").to_numpy()
            spans = spans.filter(pa.array(~np.isin(offsets, np.unique(offsets[foreign]))))
        if self._trace_id:
            spans = spans.filter(pc.equal(spans.column("trace_id"), pa.scalar(self._trace_id, pa.binary(16))))
        return spans

    def _checked(self, spans: pa.Table) -> pa.Table:
        limits = self._settings.limits
        if not spans.num_rows:
            return spans
        return validate.check(
            spans,
            now_unix_ns=time.time_ns(),
            attribute_bytes_max=limits.attribute_bytes_max,
            attributes_max=limits.attributes_max,
            future_s_max=limits.future_s_max,
        ).spans

    def _new(self, spans: pa.Table) -> pa.Table:
        """The rows that are neither known nor copies of one another."""
        if not spans.num_rows:
            return spans
        traces = spans.column("trace_id").unique()
        for segment in self._known:
            seen = segment.read(KEY_COLUMNS)
            seen = seen.filter(pc.is_in(seen.column("trace_id"), value_set=traces))
            if seen.num_rows:
                self._window.add(dedup.span_keys(seen, SECRET), time_max_unix_ns=0, last=segment.last, now_ns=0)
        keys = dedup.span_keys(spans, SECRET)
        keep = dedup.first_copies(keys) & ~self._window.holds(keys)
        self._window.add(keys[keep], time_max_unix_ns=0, last=0, now_ns=0)
        return spans if keep.all() else spans.filter(pa.array(keep))
