"""One stack, one Chromium for all browser tests of a session: receiver, worker and querier on real Kafka and MinIO."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from infra.minio import StorePlan
from pipeline.serve.ui import bundle
from tests.shop_stack import ShopStack as BrowserStack
from tests.shop_stack import running_shop

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
AXE = Path(bundle.__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
WAIT_MS = 15_000
expect.set_options(timeout=WAIT_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder need the browser and the real parts."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def odd_names() -> bool:
    """Are names sent that are HTML, right to left, or very long?"""
    return True


@pytest.fixture(scope="session")
def stack(
    kafka_broker: str, minio_server: StorePlan, odd_names: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrowserStack]:
    """The running stack, with the shop's spans in it: stored ones and live ones."""
    if not bundle.is_built():
        pytest.fail(f"these tests need the page: {bundle.NOT_BUILT}", pytrace=False)
    folder = tmp_path_factory.mktemp("browser")
    with running_shop("browser", kafka_broker, minio_server, folder, odd_names=odd_names) as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, or whichever is on PATH."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.fail("these tests need Chromium: sh infra/find_chromium.sh", pytrace=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, stack: BrowserStack) -> Iterator[BrowserContext]:
    """A browser that has never been here, in a window of 1280 x 800. What its pages log as errors fails the test."""
    with_base: dict[str, Any] = {"base_url": stack.url, "viewport": DESKTOP, "reduced_motion": "reduce"}
    opened = chromium.new_context(**with_base)
    opened.set_default_timeout(WAIT_MS)
    problems: list[str] = []
    opened.on("weberror", lambda error: problems.append(str(error.error)))
    opened.on("console", lambda said: problems.append(said.text) if _is_problem(said) else None)
    yield opened
    opened.close()
    assert not problems, problems


def _is_problem(said: Any) -> bool:
    """Console errors, the browser's notes about answers of 4xx excepted: tests ask for those on purpose."""
    return said.type == "error" and "Failed to load resource" not in said.text


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """An empty tab."""
    return context.new_page()


def axe_findings(page: Page) -> list[str]:
    """What axe has to say against the page as it stands: rule, and where."""
    if not AXE.exists():
        sys.exit(f"{AXE} is missing: `make ui` fetches it")
    page.evaluate(AXE.read_text())  # as an expression of the debugger's, which the page's CSP does not concern
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("tags => axe.run(document, {runOnly: tags}).then(result => result.violations)", tags)
    return [f"{one['id']}: {node['html'][:160]}" for one in found for node in one["nodes"]]
