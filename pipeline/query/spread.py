"""Statements over chunks as tasks on a cluster. What the cluster does not answer, the querier reads itself."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import chain, zip_longest
from typing import NamedTuple, Protocol

import pyarrow as pa
import structlog

from pipeline import telemetry
from pipeline.query.chunk_tasks import Answer, Task
from pipeline.query.chunks import ChunkReader, ChunkRef
from pipeline.query.executor import BATCH_SPANS, Asked, Executor, OwnThreads, batches
from topics.errors import QueryTooLargeError, SettingsError, StoreUnavailableError
from topics.settings import QuerierSettings

WAIT_S = 0.1  # a question that is ended hears of it so soon
AHEAD = 2  # tasks of a question at a time for each one that can run: a worker need not wait for the next
UNEVEN = 1.25  # a worker gets at most so many times its share of a question's spans
AWAY, FAILED, LATE, UNREADABLE = "away", "failed", "late", "unreadable"
log = structlog.get_logger("querier")


class Cluster(Protocol):
    """Workers elsewhere, as pipeline.query.dask_cluster.DaskCluster."""

    def workers(self) -> Mapping[str, int]:
        """Address -> tasks at a time; none where no scheduler or no worker is there. Does not block."""

    def ask(self, task: Task, worker: str) -> Future[Answer]:
        """Have it answered, by this worker while it lives. Cancelling the future cancels the task. Does not block."""

    def looked(self) -> None:
        """Returns when it was tried once to reach the cluster."""

    def close(self) -> None: ...


def executor_of(querier: QuerierSettings) -> Executor:
    """The one of querier.executor. Raises SettingsError where Dask is meant and not installed."""
    if querier.executor == "threads":
        return OwnThreads()
    try:
        from pipeline.query.dask_cluster import DaskCluster
    except ModuleNotFoundError as exc:
        raise SettingsError(
            f"querier.executor is {querier.executor!r}, and there is no package {exc.name}: pip install"
            " 'spanstream[dask]', or set querier.executor to threads"
        ) from exc
    return Spread(DaskCluster(querier.executor, querier.executor_retries), querier)


class _Sent(NamedTuple):
    refs: list[ChunkRef]
    text: str
    at_s: float


class Spread:
    """An executor that sends each batch of chunks to a worker, the same chunks to the same worker each time."""

    def __init__(self, cluster: Cluster, querier: QuerierSettings) -> None:
        """It owns the cluster."""
        self._cluster = cluster
        self._querier = querier
        self._own = OwnThreads()
        self._told: set[tuple[str, str]] = set()

    def each(
        self, reader: ChunkReader, refs: Sequence[ChunkRef], asked: Asked
    ) -> Generator[tuple[list[ChunkRef], pa.Table]]:
        """As Executor says."""
        workers = self._cluster.workers()
        refs = [ref for ref in refs if reader.can_read(asked.of.wanted(ref).url)]
        if refs and not workers:
            self._count(AWAY)
            yield from self._own.each(reader, refs, asked)
            return
        waiting, left = deque(cut(refs, sorted(workers), self._querier.executor_batch_spans)), list[ChunkRef]()
        tasks, room = _Tasks(self._cluster, self._querier, reader, asked), AHEAD * sum(workers.values())
        try:
            while waiting or tasks.under_way:
                while waiting and len(tasks.under_way) < room:
                    tasks.send(*waiting.popleft())
                for batch, found in tasks.done():
                    if isinstance(found, pa.Table):
                        telemetry.EXECUTOR_TASKS.inc()
                        yield batch, found
                    else:
                        self._count(*found)
                        left += batch
                        if found[0] in (AWAY, LATE):  # nor is the rest sent there
                            left += chain.from_iterable(some for _, some in waiting)
                            waiting.clear()
        finally:
            tasks.end()
        # Together, as without a cluster: where some chunks can be read, the others are named
        for batch in batches(left, BATCH_SPANS):
            of, others_read = asked.of, len(left) < len(refs)
            yield batch, reader.read(batch, of.statement, traces=of.traces, live=asked.live, others_read=others_read)

    def looked(self) -> None:
        """As Executor says."""
        self._cluster.looked()

    def close(self) -> None:
        """As Executor says."""
        self._cluster.close()

    def _count(self, reason: str, kind: str = "", sentence: str = "") -> None:
        """The log tells each kind of error once; that the cluster is away, it tells itself."""
        telemetry.EXECUTOR_FALLBACKS.labels(reason=reason).inc()
        if reason != AWAY and (reason, kind) not in self._told:
            self._told.add((reason, kind))
            log.warning("task_not_answered", reason=reason, kind=kind, error=sentence, then="this process reads it")


class _Tasks:
    """Those of one statement. under_way: in the order in which they were sent."""

    def __init__(self, cluster: Cluster, querier: QuerierSettings, reader: ChunkReader, asked: Asked) -> None:
        self._cluster = cluster
        self._wait_s = querier.executor_wait_s
        self._reader = reader
        self._asked = asked
        self.under_way: dict[Future[Answer], _Sent] = {}

    def send(self, worker: str, refs: list[ChunkRef]) -> None:
        """Have a batch answered. Raises QueryTooLargeError."""
        wanted = tuple(map(self._asked.of.wanted, refs))
        statement = self._asked.of.statement([one.url for one in wanted])
        self._reader.session.open(wanted)
        task = Task.of(wanted, statement, self._asked.live, self._reader.session.seconds_left)
        self.under_way[self._cluster.ask(task, worker)] = _Sent(refs, task.text, time.monotonic())

    def done(self) -> Iterator[tuple[list[ChunkRef], pa.Table | tuple[str, str, str]]]:
        """Batches with their rows, or with why, by which kind of error, they are to be read here. Waits a moment.

        Raises QueryTimeoutError when the question's time is over, QueryTooLargeError.
        """
        finished = wait(self.under_way, WAIT_S, FIRST_COMPLETED).done
        self._reader.session.check()
        away = not self._cluster.workers()
        for future, sent in list(self.under_way.items()):
            late = time.monotonic() - sent.at_s > self._wait_s
            if future in finished:
                found = self._found(future, sent, away=away)
            elif away or late:
                found = (AWAY if away else LATE), "", f"no answer after {self._wait_s:g} s"
                future.cancel()
            else:
                continue
            del self.under_way[future]
            yield sent.refs, found

    def _found(self, future: Future[Answer], sent: _Sent, *, away: bool) -> pa.Table | tuple[str, str, str]:
        if future.cancelled():  # Dask does that when it loses the scheduler
            return AWAY, "", ""
        if (error := future.exception()) is not None:
            return AWAY if away else FAILED, type(error).__name__, str(error)[:500]
        answer = future.result()
        if answer.error is not None:
            kind, sentence = answer.error
            if kind == QueryTooLargeError.__name__:
                raise QueryTooLargeError(sentence)
            return UNREADABLE if kind == StoreUnavailableError.__name__ else FAILED, kind, sentence[:500]
        found, watch = answer.table(), self._reader.session.watch
        telemetry.CHUNKS_OPENED.inc(len(sent.refs))
        if watch is not None:
            watch.statement(sent.text, answer.seconds, found.num_rows)
            watch.read(sent.refs, answer.copied)
        return found

    def end(self) -> None:
        """Nobody waits any more."""
        for future in self.under_way:
            future.cancel()


def cut(refs: Sequence[ChunkRef], workers: Sequence[str], spans_max: int) -> list[tuple[str, list[ChunkRef]]]:
    """Batches for workers, of up to so many spans, taking turns.

    A chunk goes to the worker that its rendezvous hash puts first and that has not had its share: asked again, the
    same chunks go where there are copies of them, and every worker has work.
    """
    share = UNEVEN * sum(ref.entry.spans for ref in refs) / max(1, len(workers))
    spans, own = dict.fromkeys(workers, 0), {worker: list[ChunkRef]() for worker in workers}
    for ref in refs:
        preferred = sorted(workers, key=lambda worker: _rank(ref.url, worker))
        worker = next((one for one in preferred if spans[one] + ref.entry.spans <= share), None)
        worker = worker or min(preferred, key=spans.__getitem__)
        spans[worker] += ref.entry.spans
        own[worker].append(ref)
    lanes = [[(worker, some) for some in batches(mine, spans_max)] for worker, mine in own.items()]
    return [one for one in chain.from_iterable(zip_longest(*lanes)) if one is not None]


def _rank(url: str, worker: str) -> bytes:
    return hashlib.blake2b(f"{worker} {url}".encode(), digest_size=8).digest()
