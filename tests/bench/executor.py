"""What looking through chunks on a Dask cluster buys and costs, beside the querier's own threads; on this one machine.

A worker has one thread, as if it were a machine of one core: more of them help as long as there are cores. Each
question is asked with a condition that it was not asked with before: nothing is answered from what is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

from agents.commands.dask import DaskRun
from tests.bench.processes import Measured
from tests.bench.queries import Asked, questions, times_of, url_of
from tests.bench.report import EXECUTED, Report, executor_modes
from tests.bench.rows import Bench, Figures
from tests.metrics import peak_bytes
from topics.settings import Settings

CHUNK_SPANS = 50_000
TIMES = 7
FIRST = "regex, no match"


def executor_rows(report: Report, bench: Bench, spans: int) -> None:
    """Chunks are written once, then asked about in each mode: in new processes, so that nothing is copied yet."""
    settings = bench.settings("executor", seal_spans=CHUNK_SPANS, seal_age_s=5.0)
    began_s = int(time.time())
    report.measure("chunks to look through", lambda: _fill(bench, settings, spans))
    asked = [one for one in questions("", began_s - 60, int(time.time()) + 60) if one.name in EXECUTED]
    asked.sort(key=lambda one: one.name != FIRST)
    for mode, workers, threads in executor_modes():
        own = settings.model_copy(update={"querier": settings.querier.model_copy(update={"threads": threads})})
        report.measure(mode, lambda own=own, mode=mode, workers=workers: _asked(bench, own, asked, mode, workers))  # type: ignore[misc]


def _fill(bench: Bench, settings: Settings, spans: int) -> Figures:
    bench.fill(settings, spans)
    return {}


def _asked(bench: Bench, settings: Settings, asked: list[Asked], mode: str, workers: int) -> Figures:
    found: Figures = {}
    with _executor(settings, mode, workers) as (own, run), bench.process("serve", own) as querier:
        for one in asked:
            urls = [querier.url + url_of(_varied(one, number)) for number in range(TIMES)]
            times_ms = asyncio.run(times_of(urls, one.right))
            if one.name == FIRST:
                found[f"the first question of all, {mode}"] = times_ms[0]
            found[f"{one.name}, {mode}"] = median(times_ms[1:])
        if run is not None:
            _check_spread(querier)
            found[f"memory of a worker, {mode}"] = max(
                peak_bytes(pid) / 1e6 for name, pid in run.pids().items() if "worker" in name and pid is not None
            )
    return found


@contextmanager
def _executor(settings: Settings, mode: str, workers: int) -> Iterator[tuple[Settings, DaskRun | None]]:
    """The settings of a querier, and what it hands its work to."""
    if not workers:
        yield settings, None
        return
    folder = settings.querier.data_dir.parent / mode.replace(" ", "-")
    own = settings.model_copy(update={"stack": settings.stack.model_copy(update={"data_dir": folder})})
    with DaskRun(own, print, workers=workers, host="127.0.0.1", port=0) as run:
        yield settings.model_copy(update={"querier": settings.querier.model_copy(update={"executor": run.url})}), run


def _varied(asked: Asked, number: int) -> Asked:
    """The same with a condition more, which nearly every span fulfils."""
    more = f"duration > {number + 1}ns }}"
    text = str(asked.parameters["q"])
    text = text.replace("{}", f"{{ {more}", 1) if text.startswith("{}") else text.replace("}", f"&& {more}", 1)
    return replace(asked, parameters=asked.parameters | {"q": text})


def _check_spread(querier: Measured) -> None:
    assert querier.metric("spanstream_querier_executor_tasks_total") > 0, "no worker was asked"
    assert querier.metric("spanstream_querier_executor_fallbacks_total") == 0, "the querier read chunks itself"
