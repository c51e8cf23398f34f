"""The page in a real Chromium: how much it loads, how soon it can be used, what its first screen and its tail cost."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import httpx
from playwright.sync_api import Page, sync_playwright

from pipeline.serve.ui import bundle
from tests.bench.processes import load_command
from tests.bench.report import Report
from tests.browser.conftest import DESKTOP, FLAGS, WAIT_MS

TRIES = 5  # a figure of time is the median of so many
TAIL_S, TAIL_RATE = 60, 2_000.0
SHOWN = "document.querySelector('.traces tbody tr') && document.querySelectorAll('.panel .panel-problem').length === 0"
# A panel's numbers stand in its heading as soon as it is drawn
ALL_PANELS = f"""
() => {SHOWN} && /on average/.test(document.querySelector('[aria-label=Rate] h2').textContent)
   && /of the spans/.test(document.querySelector('[aria-label=Errors] h2').textContent)
   && /the longest/.test(document.querySelector('.heat canvas').getAttribute('aria-label'))
"""
USABLE = "() => document.activeElement && document.querySelector('#query')"


def page_rows(report: Report, querier_url: str, otlp_url: str, seed: int) -> None:
    """All rows of the page. There are spans in the last hour."""
    report.measure("the page: size", lambda: {"page, all that it loads": _compressed_kb(querier_url)})
    with _tab(querier_url) as page:
        report.measure(
            "the page: first view", lambda: {"page, first usable view": _median_s(page, "/?from=1&to=2", USABLE)}
        )
        report.measure(
            "the page: Explore", lambda: {"page, Explore of the last hour": _median_s(page, "/", ALL_PANELS)}
        )
        name = "page, memory after a minute of live tail"
        report.measure("the page: live tail", lambda: {name: _tail_mb(page, otlp_url, seed)})


def _compressed_kb(url: str) -> float:
    """The page, its script and its style, as they come over the wire."""
    names = [f"/assets/{path.name}" for path in (bundle.DIST / "assets").iterdir()]
    with httpx.Client(base_url=url, headers={"accept-encoding": "gzip"}) as client:
        sizes = []
        for name in ["/", *names]:
            with client.stream("GET", name) as answer:
                answer.raise_for_status()
                sizes.append(sum(map(len, answer.iter_raw())))
    return sum(sizes) / 1000


@contextmanager
def _tab(url: str) -> Iterator[Page]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        context = browser.new_context(base_url=url, viewport=DESKTOP)  # type: ignore[arg-type]
        context.set_default_timeout(4 * WAIT_MS)
        yield context.new_page()
        browser.close()


def _median_s(page: Page, path: str, is_there: str) -> float:
    """From the navigation's begin, by the browser's clock."""
    times_s = []
    for _ in range(TRIES):
        page.goto("about:blank")
        page.goto(path)
        page.wait_for_function(is_there, polling="raf")
        times_s.append(page.evaluate("performance.now()") / 1000)
    return median(times_s)


def _tail_mb(page: Page, otlp_url: str, seed: int) -> float:
    """The tab's JavaScript heap, swept, after 2,000 spans a second for a minute."""
    page.goto("/live")
    page.get_by_text("Connected", exact=True).wait_for()
    sender = subprocess.Popen(
        load_command(otlp_url, int(TAIL_S * TAIL_RATE), seed, TAIL_RATE), stdout=subprocess.DEVNULL
    )
    assert sender.wait(4 * TAIL_S) == 0
    assert page.locator(".tail tbody tr").count() > 0
    return _heap_mb(page)


def _heap_mb(page: Page) -> float:
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 1e6
