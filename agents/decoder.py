"""Batches of records to the decoding thread: what the partitions bring at about the same time is decoded together."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

from pipeline.allocator import release_memory
from pipeline.doors.overrides import Overrides
from pipeline.partition.batch import Prepared, SourceRecord, SpanLimits, Wanted, prepare
from pipeline.spans.wire import span_count
from topics.errors import MalformedRecordError
from topics.settings import Settings

RELEASE_EVERY_BYTES = 16 << 20
GATHER_BYTES = 2 << 20  # of waiting batches: their decoding takes several times its fixed cost
GATHER_MIN_S = 0.01


def batches_of(records: Sequence[SourceRecord], settings: Settings) -> list[list[SourceRecord]]:
    """Runs of records within take_bytes_max and take_spans_max, at least one record each."""
    limits = settings.worker
    batches: list[list[SourceRecord]] = []
    nbytes = spans = 0
    for record in records:
        count = _spans_in(record)
        nbytes, spans = nbytes + len(record.value), spans + count
        if not batches or nbytes > limits.take_bytes_max or spans > limits.take_spans_max:
            batches.append([])
            nbytes, spans = len(record.value), count
        batches[-1].append(record)
    return batches


def runs_of(records: Sequence[SourceRecord]) -> list[slice]:
    """Where the offsets follow each other: a batch may hold what came before a rebalance, and what is read again."""
    starts = [at for at in range(len(records)) if not at or records[at].offset != records[at - 1].offset + 1]
    return [slice(start, end) for start, end in itertools.pairwise([*starts, len(records)])]


class Decoder:
    """Decodes in one thread. While it is busy, further batches wait and are then decoded at once, within the limits.

    A decode has a fixed cost of 10 to 20 ms. So with little traffic batches wait for those of other partitions until
    take_gather_s after the decode before; with much traffic, a full batch or GATHER_BYTES, they do not.
    """

    def __init__(
        self,
        settings: Settings,
        pool: ThreadPoolExecutor,
        *,
        partitions: int,
        secret: bytes,
        clock_ns: Callable[[], int],
    ) -> None:
        self._settings, self._pool, self._secret, self._clock_ns = settings, pool, secret, clock_ns
        self._limits = SpanLimits(
            partitions=partitions,
            attribute_columns_max=settings.worker.attribute_columns_max,
            attribute_bytes_max=settings.limits.attribute_bytes_max,
            attributes_max=settings.limits.attributes_max,
            future_s_max=settings.limits.future_s_max,
        )
        self._overrides = Overrides(settings)
        self._waiting: deque[tuple[Wanted, asyncio.Future[Prepared | None]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._enough = asyncio.Event()
        self._waiting_bytes = 0
        self._decoded_s = 0.0
        self._questions: list[Mapping[int, int]] = []
        self._brought: dict[int, int] = {}  # partition -> offset behind the last record that it brought
        self._decoded_bytes = 0

    async def prepared(self, wanted: Wanted) -> Prepared | None:
        """What the partition takes of its batch; None when it holds all of it. A partition brings one at a time."""
        future: asyncio.Future[Prepared | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((wanted, future))
        self._waiting_bytes += _bytes(wanted)
        self._brought[wanted.partition] = wanted.records[-1].offset + 1
        if self._waiting_bytes >= GATHER_BYTES or len(wanted.records) >= self._settings.worker.take_records_max:
            self._enough.set()
        self._hurry()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._decode_waiting(), name="decode")
        return await future

    @contextmanager
    def hurried(self, until: Mapping[int, int]) -> Iterator[None]:
        """Somebody waits for the records below until[partition]: once all of them have come, what waits is decoded.

        Not before: a decode of the first ones would hold up the others for as long as it takes.
        """
        self._questions.append(until)
        self._hurry()
        try:
            yield
        finally:
            self._questions.remove(until)

    def _hurry(self) -> None:
        """Wait no longer where somebody waits for a batch that is here, and for none that is still to come."""
        waiting = {wanted.partition for wanted, _ in self._waiting}
        for until in self._questions:
            if waiting & until.keys() and all(self._brought.get(p, 0) >= end for p, end in until.items()):
                self._enough.set()

    async def _decode_waiting(self) -> None:
        while self._waiting:
            await self._gathered()
            together = self._next()
            try:
                found = await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._prepare, [wanted for wanted, _ in together]
                )
            except Exception as error:
                for _, future in together:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), one in zip(together, found, strict=True):
                if not future.done():  # its actor may have been cancelled
                    future.set_result(one)

    async def _gathered(self) -> None:
        """Until enough waits, or take_gather_s after the last decode."""
        self._hurry()
        now_s = asyncio.get_running_loop().time()
        wait_s = max(GATHER_MIN_S, self._decoded_s + self._settings.worker.take_gather_s - now_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._enough.wait()
        self._enough.clear()
        self._decoded_s = asyncio.get_running_loop().time()

    def _next(self) -> list[tuple[Wanted, asyncio.Future[Prepared | None]]]:
        """Waiting batches within the limits together, at least one."""
        limits, together = self._settings.worker, [self._waiting.popleft()]
        nbytes = _bytes(together[0][0])
        while self._waiting and nbytes + _bytes(self._waiting[0][0]) <= limits.gather_bytes_max:
            nbytes += _bytes(self._waiting[0][0])
            together.append(self._waiting.popleft())
        self._waiting_bytes -= nbytes
        if self._waiting:
            self._enough.set()  # more than fits: no waiting
        return together

    def _prepare(self, wanted: list[Wanted]) -> list[Prepared | None]:
        own = self._overrides.attributes_max(self._limits.attributes_max)
        limits = replace(self._limits, attributes_max_by_tenant=own) if own else self._limits
        found = prepare(wanted, limits, secret=self._secret, now_unix_ns=self._clock_ns())
        self._decoded_bytes += sum(map(_bytes, wanted))
        if self._decoded_bytes > RELEASE_EVERY_BYTES:
            self._decoded_bytes = 0
            release_memory(above_bytes=self._settings.worker.resident_bytes_max)
        return found


def _bytes(wanted: Wanted) -> int:
    return sum(len(record.value) for record in wanted.records)


def _spans_in(record: SourceRecord) -> int:
    """Spans counted on the wire: an empty one takes 2 bytes there and 40 times that in Arrow. Garbage holds none."""
    try:
        return span_count(record.value)
    except MalformedRecordError:
        return 0
