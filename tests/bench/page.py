"""The page in a real Chromium: how much it loads, how soon it can be used, what its first screen and its tail cost."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import mean, median, quantiles

import httpx
from playwright.sync_api import Page, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

from pipeline.serve.ui import bundle
from tests.bench.processes import load_command, until
from tests.bench.report import Report
from tests.bench.rows import Bench
from tests.browser.conftest import DESKTOP, FLAGS, WAIT_MS
from tests.browser.large import SPANS as LARGE_SPANS
from tests.browser.large import send_large_trace

TRIES = 5  # a figure of time is the median of so many
TAIL_S, TAIL_RATE = 60, 2_000.0
SHOWN = "document.querySelector('.traces tbody tr') && document.querySelectorAll('.panel .panel-problem').length === 0"
# A panel's numbers stand in its heading as soon as it is drawn
ALL_PANELS = f"""
() => {SHOWN} && /on average/.test(document.querySelector('[aria-label=Rate] h2')?.textContent)
   && /of the spans/.test(document.querySelector('[aria-label=Errors] h2')?.textContent)
   && /the longest/.test(document.querySelector('.heat canvas')?.getAttribute('aria-label'))
"""
# All spans are known, rows are drawn, and the overview above them too
TRACE_SHOWN = """
() => document.querySelector('[role=treeitem]') && document.querySelector('.minimap canvas').width > 300
   && document.querySelector('.trace-facts').textContent.includes('100 k spans')
"""
SCROLL_FRAMES, SCROLL_PX = 300, 400  # each frame further than a wheel's turn
SCROLLED = """
([frames, px]) => new Promise(resolve => {
  const box = document.querySelector('[role=tree]'), times = []
  const step = now => {
    times.push(now)
    box.scrollTop += px
    if (times.length <= frames) requestAnimationFrame(step)
    else resolve(times.slice(1).map((at, index) => at - times[index]))
  }
  requestAnimationFrame(step)
})
"""
USABLE = "() => document.activeElement && document.querySelector('#query')"


def page_rows(report: Report, querier_url: str, otlp_url: str, seed: int) -> None:
    """All rows of the page. There are spans in the last hour."""
    report.measure("the page: size", lambda: {"page, all that it loads": _compressed_kb(querier_url)})
    with tab(querier_url) as page:
        report.measure(
            "the page: first view", lambda: {"page, first usable view": _median_s(page, "/?from=1&to=2", USABLE)}
        )
        report.measure(
            "the page: Explore", lambda: {"page, Explore of the last hour": _median_s(page, "/", ALL_PANELS)}
        )
        name = "page, memory after a minute of live tail"
        report.measure("the page: live tail", lambda: {name: _tail_mb(page, otlp_url, seed)})


def large_trace_rows(report: Report, bench: Bench) -> None:
    """The rows of a trace of 100,000 spans, stored in several chunks and live at its end."""
    settings = bench.settings("trace", seal_spans=12_500, open_bytes_max=1 << 50)
    with (
        bench.process("receive", settings) as receiver,
        bench.process("worker", settings) as worker,
        bench.process("serve", settings) as querier,
        tab(querier.url) as page,
    ):
        trace_id = send_large_trace(receiver.url)
        until(lambda: worker.metric("spanstream_worker_spans_total") >= LARGE_SPANS, 60, "all is taken")
        path = f"/trace/{trace_id}"
        report.measure(
            "the page: a large trace",
            lambda: {"page, trace of 100,000 spans: shown": _median_s(page, path, TRACE_SHOWN)},
        )
        report.measure("the page: scrolling it", lambda: _scrolled(page))
        report.measure("the page: a span of it", lambda: {"page, a span of it in full": _clicked_ms(page)})


def _scrolled(page: Page) -> dict[str, float]:
    """Through the open trace, by the browser's clock."""
    page.get_by_role("tree").focus()
    page.keyboard.press("]")
    page.wait_for_function(f"document.querySelector('[role=tree]').scrollHeight > {LARGE_SPANS}")
    frames_ms = page.evaluate(SCROLLED, [SCROLL_FRAMES, SCROLL_PX])
    assert page.get_by_role("tree").evaluate("tree => tree.scrollTop") >= SCROLL_FRAMES * SCROLL_PX
    return {
        "page, scrolling it: worst frame of 95 %": quantiles(frames_ms, n=100)[94],
        "page, scrolling it: a frame, on average": mean(frames_ms),
    }


def _clicked_ms(page: Page) -> float:
    """From a click on a row until the span's attributes stand there."""
    times_ms = []
    for number in range(TRIES):
        row = page.get_by_role("treeitem").nth(5 + number)
        began_s = time.perf_counter()
        row.click()
        page.get_by_label("Span", exact=True).get_by_role("rowheader", name="service.version").wait_for()
        times_ms.append((time.perf_counter() - began_s) * 1000)
        page.get_by_label("Close the span").click()
    return median(times_ms)


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
def tab(url: str) -> Iterator[Page]:
    """A tab of a new Chromium, at no page yet."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        raise FileNotFoundError("no Chromium: sh infra/find_chromium.sh installs it, or says what to install")
    if not bundle.is_built():
        raise FileNotFoundError("the page is not built: make ui")
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
        try:
            page.wait_for_function(is_there, polling="raf")
        except PlaywrightTimeoutError as error:
            problems = page.locator(".panel-problem").all_inner_texts()
            raise AssertionError(f"{path} is not complete; its panels say: {problems or 'nothing'}") from error
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
