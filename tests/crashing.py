"""A worker that kills itself with -9 at a chosen step: `python -m tests.crashing`, told by CRASH_AT.

The real worker, with one method of the real classes wrapped: nothing of this stands in the product's code.
CRASH_AT: `<step>`, a key of STEPS. WITHOUT: a protection that is taken out, a key of PROTECTIONS. REBALANCE_FAILS: the
number of an assignment that ends in an error.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from faust.transport.consumer import Consumer

from agents.cli import main
from agents.decoder import Decoder
from agents.source import KafkaSource, StoreRanges
from agents.worker import Worker
from pipeline.partition.state import Partition
from pipeline.store.objects import ObjectStore
from pipeline.store.tables import Tables

BEFORE, AFTER = "before", "after"
Condition = Callable[..., bool]


class Step(NamedTuple):
    """Where a worker dies: before or after the n-th call of a method that `fits`."""

    owner: Any
    method: str
    when: str
    fits: Condition = lambda *_args: True
    nth: int = 1


def _named(part: str) -> Condition:
    return lambda _store, _bucket, name, *_rest: part in name


def _below(low: int) -> Condition:
    return lambda _worker, owned, offset: sum(at < offset for at in owned.unacked) > low


STEPS = {
    "read": Step(Worker, "take", BEFORE, nth=2),
    "decode": Step(Decoder, "prepared", AFTER),
    "dedup": Step(Partition, "apply", AFTER),
    "before live write": Step(Tables, "index_segment", BEFORE),
    "live write": Step(Tables, "index_segment", AFTER, nth=2),
    "seal": Step(Partition, "seal", AFTER, lambda state: state.plan is not None),
    "before chunk put": Step(ObjectStore, "put", BEFORE, _named(".parquet")),
    "chunk put": Step(ObjectStore, "put", AFTER, _named(".parquet")),
    "side objects put": Step(ObjectStore, "put", AFTER, _named(".filter")),
    "before manifest put": Step(ObjectStore, "put_if_absent", BEFORE, _named("manifests/")),
    "manifest put": Step(ObjectStore, "put_if_absent", AFTER, _named("manifests/")),
    "before catalog send": Step(KafkaSource, "send_entry", BEFORE, nth=2),
    "catalog send": Step(KafkaSource, "send_entry", AFTER, nth=3),
    "before ack": Step(Worker, "_ack_below", BEFORE, _below(0)),
    "ack": Step(Worker, "_ack_below", AFTER, nth=6),
    "before commit": Step(Consumer, "_commit_offsets", BEFORE),
    "commit": Step(Consumer, "_commit_offsets", AFTER),
    "drop": Step(Tables, "drop_segments", AFTER),
}


def _window_not_rebuilt() -> None:
    real = StoreRanges.assignment

    @functools.wraps(real)
    def assignment(*given: Any) -> Any:
        return replace(real(*given), window=[])

    StoreRanges.assignment = assignment  # type: ignore[method-assign]


def _mark_from_kafka() -> None:
    """The committed offset instead of what the manifests say; of a new group that is the log's start."""
    real = StoreRanges.assignment

    @functools.wraps(real)
    def assignment(*given: Any) -> Any:
        found = real(*given)
        return replace(found, mark=found.committed or 0, newest=None, window=[])

    StoreRanges.assignment = assignment  # type: ignore[method-assign]


PROTECTIONS = {"window rebuilt": _window_not_rebuilt, "mark from manifests": _mark_from_kafka}


def die_at(step: Step) -> None:
    """Wrap the step's method: plain or coroutine function."""
    real, left = getattr(step.owner, step.method), [step.nth]

    def counted(*given: Any) -> bool:
        left[0] -= step.fits(*given)
        return left[0] <= 0 and step.fits(*given)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if inspect.iscoroutinefunction(real):

        @functools.wraps(real)
        async def wrapped_coroutine(*given: Any, **named: Any) -> Any:
            dies = counted(*given)
            if dies and step.when == BEFORE:
                die()
            answer = await real(*given, **named)
            if dies:
                die()
            return answer

        setattr(step.owner, step.method, wrapped_coroutine)
        return

    @functools.wraps(real)
    def wrapped(*given: Any, **named: Any) -> Any:
        dies = counted(*given) if step.when == BEFORE else False
        if dies:
            die()
        answer = real(*given, **named)
        if step.when == AFTER and counted(*given):
            die()
        return answer

    setattr(step.owner, step.method, wrapped)


def fail_at_assignment(nth: int) -> None:
    """The worker's own part of a rebalance raises."""
    real, left = Worker.assigned, [nth]

    @functools.wraps(real)
    async def assigned(worker: Worker, partitions: set[int]) -> None:
        left[0] -= 1
        if not left[0]:
            raise RuntimeError("a rebalance that fails")
        await real(worker, partitions)

    Worker.assigned = assigned  # type: ignore[method-assign]


if __name__ == "__main__":
    if nth := os.environ.get("REBALANCE_FAILS"):
        fail_at_assignment(int(nth))
    if without := os.environ.get("WITHOUT"):
        PROTECTIONS[without]()
    if wanted := os.environ.get("CRASH_AT"):
        die_at(STEPS[wanted])
    main()
