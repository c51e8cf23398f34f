"""How soon a span is found while a browser, a notebook and a heavy question ask the same querier, and spans come in."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles
from threading import Event

import httpx

import spanstream
from tests.bench.page import ALL_PANELS, tab
from tests.bench.processes import Measured, load_command
from tests.bench.rows import Figures, probe_all

RATE, LOAD_S = 5_000.0, 600
BY = {"ID": (200, 0), "tag": (0, 50)}  # so many probes of each kind
HEAVY = "{} | compare({ status = error })"
RANGE_S, STEP_S = 1800, 60
SQL = "SELECT service, count(*) AS spans, max(duration_ms) AS longest FROM spans GROUP BY ALL"


def found_in_a_crowd(receiver: Measured, querier: Measured, seed: int, kind: str) -> Figures:
    """The figure of probes by ID or by tag; each of the crowd has got answers meanwhile, else it says nothing."""
    ended = Event()
    load = subprocess.Popen(
        load_command(receiver.url, int(RATE * LOAD_S), seed, RATE), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with ThreadPoolExecutor(3) as threads:
            crowd = [threads.submit(_until, ended, one, querier.url) for one in (browser, notebook, heavy)]
            try:
                by_id, by_tag = asyncio.run(probe_all(receiver.url, querier.url, *BY[kind]))
            finally:
                ended.set()
            answers = [one.result() for one in crowd]
        assert load.poll() is None, "the load ended before the last probe"
        assert all(answers), f"answers to a browser, a notebook and a heavy question: {answers}"
        name = f"found by {kind} beside a browser, a notebook and a heavy query, p99"
        return {name: quantiles([*by_id, *by_tag], n=100)[98]}
    finally:
        load.kill()
        load.wait()


def _until(ended: Event, asks: Callable[[str, Event], int], url: str) -> int:
    try:
        return asks(url, ended)
    except BaseException:
        ended.set()
        raise


def browser(url: str, ended: Event) -> int:
    """Explore of the last hour, loaded again and again."""
    loads = 0
    with tab(url) as page:
        while not ended.is_set():
            page.goto("about:blank")
            page.goto("/")
            page.wait_for_function(ALL_PANELS)
            loads += 1
    return loads


def notebook(url: str, ended: Event) -> int:
    """A search and SQL over all spans, as tables."""
    answers = 0
    with spanstream.connect(url) as client:
        while not ended.is_set():
            assert len(client.search("{ status = error }").pandas())
            assert len(client.sql(SQL).pandas())
            answers += 1
    return answers


def heavy(url: str, ended: Event) -> int:
    """compare() over all spans; each time of another range with another step, so that nothing is known of it."""
    answers = 0
    with httpx.Client(base_url=url, timeout=60) as client:
        while not ended.is_set():
            now_s, step_s = int(time.time()), STEP_S + answers
            asked = {"q": HEAVY, "start": now_s - RANGE_S, "end": now_s, "step": f"{step_s}s"}
            client.get("/api/metrics/query_range", params=asked).raise_for_status()
            answers += 1
    return answers
