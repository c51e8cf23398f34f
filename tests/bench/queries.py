"""Questions over millions of stored spans and a live minute: what each takes in a new process, and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlencode

import aiohttp

from agents.load.blocks import Load
from tests.bench.crowd import BY, found_in_a_crowd
from tests.bench.page import page_rows
from tests.bench.processes import Measured, send_load, until
from tests.bench.report import Report
from tests.bench.rows import SEED, Bench, Figures
from topics.settings import Settings, WorkerSettings

WARM = 5  # a warm figure is the median of so many
LIVE_S, LIVE_RATE = 60, 5_000.0
Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Asked:
    """A row's question: its path and parameters, and what a right answer is like."""

    name: str
    path: str
    parameters: dict[str, str | int]
    right: Check


def searches(count: int) -> Check:
    """An answer with that many traces."""
    return lambda answer: len(answer["traces"]) == count and answer["complete"]


def series(least: int) -> Check:
    """An answer with so many series or more, whole."""
    return lambda answer: len(answer["series"]) >= least and "status" not in answer


def questions(trace_id: str, start_s: int, end_s: int) -> list[Asked]:
    """One for each row; all but the first about the same range."""
    within = {"start": start_s, "end": end_s}

    def search(name: str, query: str, count: int) -> Asked:
        return Asked(name, "/api/search", {"q": query, "limit": 20, **within}, searches(count))

    def metrics(name: str, query: str, least: int) -> Asked:
        return Asked(name, "/api/metrics/query_range", {"q": query, **within}, series(least))

    tag = "/api/v2/search/tag/span.http.request.method/values"
    return [
        Asked("trace by ID", f"/api/traces/{trace_id}", {}, lambda answer: bool(answer["batches"])),
        search("attribute equality, 20 newest", "{ span.http.response.status_code = 500 }", 20),
        search("service and duration", '{ resource.service.name = "cart" && duration > 200ms }', 20),
        search("regex, no match", '{ name =~ ".*zzz.*" }', 0),
        search("{} && {}", "{} && {}", 20),
        search(">> no match", '{ name = "none" } >> {}', 0),
        search(">> all match", "{} >> {}", 20),
        search("count() > 150", "{} | count() > 150", 20),
        metrics("rate() by service", "{} | rate() by (resource.service.name)", 20),
        metrics(
            "quantiles by service", "{} | quantile_over_time(duration, .5, .9, .99) by (resource.service.name)", 60
        ),
        metrics("compare() of errors", "{} | compare({ status = error })", 10),
        search("newest 20 of {}", "{}", 20),
        Asked("tag names", "/api/v2/search/tags", dict(within), lambda answer: len(answer["scopes"]) >= 3),
        Asked("tag values", tag, dict(within), lambda answer: len(answer["tagValues"]) == 3),
    ]


class QueryBench:
    """Stores the load, keeps a minute of it live, and asks."""

    def __init__(self, bench: Bench, spans: int) -> None:
        self._bench = bench
        self._spans = spans

    def measure(self, report: Report) -> None:
        """All rows of questions."""
        large = {"open_bytes_max": 1 << 50, "seal_spans": 500_000}
        settings = self._bench.settings("queries", **large)
        peaks: list[float] = []
        began_s = int(time.time())
        report.measure("spans to ask about", lambda: self._fill(settings))
        with self._bench.process("receive", settings) as receiver, self._bench.process("worker", settings) as worker:
            report.measure("a live minute", lambda: self._live_minute(receiver, worker))
            trace_id = Load(self._spans, SEED).trace_ids(0)[7].tobytes().hex()
            for asked in questions(trace_id, began_s - 60, int(time.time()) + 60):
                report.measure(asked.name, lambda asked=asked: self._ask(settings, asked, peaks))  # type: ignore[misc]
            report.measure("a panel refreshed", lambda: self._refresh(settings, began_s - 60, int(time.time()) + 60))
            with self._bench.process("serve", settings) as querier:
                report.group("the page", lambda: page_rows(report, querier.url, receiver.url, SEED + 17))
        self._crowd(report, settings)
        report.measure("memory", lambda: {"peak memory, querier, any question": max(peaks)})

    def _crowd(self, report: Report, settings: Settings) -> None:
        """Beside a worker that seals as it does by default: what is live must find room in a querier."""
        usual = settings.model_copy(
            update={"worker": WorkerSettings(port=settings.worker.port, data_dir=settings.worker.data_dir)}
        )
        with self._bench.process("receive", usual) as receiver, self._bench.process("worker", usual) as worker:
            until(lambda: worker.metric("spanstream_worker_lag_records") == 0, 120, "the worker has caught up")
            for number, kind in enumerate(BY):
                with self._bench.process("serve", usual) as querier:
                    seed = SEED + 19 + number
                    report.measure("a crowd", lambda: found_in_a_crowd(receiver, querier, seed, kind))  # noqa: B023

    def _fill(self, settings: Settings) -> Figures:
        soon = settings.model_copy(update={"worker": settings.worker.model_copy(update={"seal_age_s": 15.0})})
        self._bench.fill(soon, self._spans)
        return {}

    def _live_minute(self, receiver: Measured, worker: Measured) -> Figures:
        spans = int(LIVE_S * LIVE_RATE)
        send_load(receiver.url, spans, SEED + 9, LIVE_RATE)
        load = Load(spans, SEED + 9)
        until(lambda: worker.metric("spanstream_worker_spans_total") >= load.spans, 120, "all is taken")
        return {}

    def _refresh(self, settings: Settings, start_s: int, end_s: int) -> Figures:
        """The same question as a panel asks it again, each time a second further on."""
        rate = next(one for one in questions("", start_s, end_s) if one.name == "rate() by service")
        urls = [url_of(rate, {"start": start_s + later, "end": end_s + later}) for later in range(1 + WARM)]
        with self._bench.process("serve", settings) as querier:
            times_ms = asyncio.run(times_of([querier.url + url for url in urls], rate.right))
        return {"rate() by service again, its range moved on": median(times_ms[1:])}

    def _ask(self, settings: Settings, asked: Asked, peaks: list[float]) -> Figures:
        with self._bench.process("serve", settings) as querier:
            times_ms = asyncio.run(times_of([querier.url + url_of(asked)] * (1 + WARM), asked.right))
            peaks.append(querier.peak_mb())
        return {f"{asked.name}, cold": times_ms[0], f"{asked.name}, warm": median(times_ms[1:])}


def url_of(asked: Asked, more: dict[str, int] | None = None) -> str:
    return f"{asked.path}?{urlencode(asked.parameters | (more or {}))}"


async def times_of(urls: list[str], right: Check) -> list[float]:
    """Milliseconds of each answer, one after the other; each is looked at."""
    times_ms = []
    async with aiohttp.ClientSession() as session:
        for url in urls:
            began_s = time.perf_counter()
            async with session.get(url) as answer:
                body = await answer.json()
            times_ms.append((time.perf_counter() - began_s) * 1000)
            assert answer.status == 200, body
            assert right(body), str(body)[:500]
    return times_ms
