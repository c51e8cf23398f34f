"""A million mutated inputs, each kind in a process of its own: no crash, no hang, no error but ours, memory bounded."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.hostile import RECORDS_AT_ONCE, Hostile
from tests.long.figures import Figure
from tests.metrics import peak_bytes
from topics.settings import Settings

INPUTS = int(os.environ.get("HOSTILE_INPUTS", "1000000"))
SHARES = {  # of 1000; an input of records and inlet is RECORDS_AT_ONCE records
    "protobuf": 450,
    "json": 150,
    "compressed": 150,
    "records": 5,
    "inlet": 15,
    "chunk": 15,
    "asked_chunk": 15,
    "counted_chunk": 10,
    "joined_traces": 10,
    "manifest": 35,
}
PORTIONS = 4
GROWTH_MB_MAX = 150.0
HANGS_AFTER_S = 1500


def portion(kind: str, seed: int, count: int) -> tuple[int, str, float]:
    """(inputs, what was wrong, MB that the process grew after its first tenth)."""
    hostile, grown_mb = Hostile(seed), 0.0
    hostile.run(kind, max(1, count // 10))
    before = peak_bytes(os.getpid())  # getrusage tells the peak of the process that started this one, too
    try:
        hostile.run(kind, count - max(1, count // 10))
        wrong = ""
    except Exception as error:
        wrong = f"{error!r} {getattr(error, '__notes__', '')}"
    finally:
        hostile.close()
    grown_mb = (peak_bytes(os.getpid()) - before) / 2**20
    return hostile.outcomes.total(), wrong, grown_mb


def figures(_settings: Settings, _folder: Path) -> Iterator[Figure]:
    """Inputs that were wrong, and the largest growth of a process."""
    total, wrongs, grown = 0, list[str](), 0.0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context, max_tasks_per_child=1) as pool:
        tasks = [
            pool.submit(portion, kind, 100 * number + at, max(10, INPUTS * share // 1000 // PORTIONS))
            for at, (kind, share) in enumerate(SHARES.items())
            for number in range(PORTIONS)
        ]
        kinds = [kind for kind in SHARES for _ in range(PORTIONS)]
        for kind, task in zip(kinds, tasks, strict=True):
            try:
                count, wrong, mb = task.result(HANGS_AFTER_S)
            except Exception as error:  # a crash of the process, or a hang
                count, wrong, mb = 0, f"{kind}: {error!r}", 0.0
            total += count * (RECORDS_AT_ONCE if kind in ("records", "inlet") else 1)
            grown = max(grown, mb)
            if wrong:
                print(wrong, flush=True)  # noqa: T201
                wrongs.append(wrong)
    yield Figure("hostile input: crashes, hangs and errors", len(wrongs), "inputs", 0)
    yield Figure("hostile input: inputs that are missing to those wanted", max(0, INPUTS * 0.95 - total), "inputs", 0)
    yield Figure("hostile input: growth of a process", grown, "MB", GROWTH_MB_MAX)
