"""`make screenshots`: the pictures of the pages in docs/, of the real page over the shop's spans."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, expect

from tests.browser.conftest import BrowserStack
from tests.pages import ROOT

FOLDER = ROOT / "docs" / "pictures"
BYTES_MAX = 200_000
COMPARED = "/compare?q=%7B+resource.service.name+%3D+%22payment%22+%7D"
PICTURES = {
    "explore": ("/?sort=longest", ".traces tbody tr", "light"),
    "compare": (COMPARED, ".compared .panel", "light"),
    "services": ("/services?service=payment", ".operations tbody tr", "dark"),
    "map": ("/services?show=map", ".map .box", "light"),
    "two-traces": ("/trace/{good}/against/{failed}", ".differences tbody tr", "light"),
    "trace": ("/trace/{failed}?q=%7B+status+%3D+error+%7D&span={span}", ".span-panel .pairs", "light"),
}


@pytest.fixture(scope="session")
def odd_names() -> bool:
    """Not in pictures."""
    return False


def _failed_span(stack: BrowserStack) -> str:
    """The first span of the first failed trace that failed itself."""
    answer = httpx.get(f"{stack.url}/api/trace-view/{stack.shop.failed[0]}", timeout=30).json()
    return str(answer["spanId"][answer["code"].index(2)])


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_the_page_is_taken_and_small(name: str, context: BrowserContext, stack: BrowserStack) -> None:
    path, shown, scheme = PICTURES[name]
    page = context.new_page()
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(path.format(good=stack.shop.good[-1], failed=stack.shop.failed[0], span=_failed_span(stack)))
    expect(page.locator(shown).first).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    file = FOLDER / f"{name}.png"

    page.screenshot(path=file)

    assert Path(file).stat().st_size < BYTES_MAX
