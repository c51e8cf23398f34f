"""The frame of the page: it loads nothing from elsewhere, and can be used without a mouse."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESKTOP, PHONE, BrowserStack, axe_findings


def test_the_page_and_its_assets_may_ask_nobody_but_the_querier(stack: BrowserStack) -> None:
    first = httpx.get(f"{stack.url}/")
    asset = first.text.split('src="')[1].split('"')[0]
    script = httpx.get(stack.url + asset)

    for answer in (first, script):
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
    assert "immutable" in script.headers["cache-control"]
    assert first.headers["cache-control"] == "no-cache"
    again = httpx.get(f"{stack.url}/", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_first_screen_shows_the_newest_traces_and_asks_no_other_host(page: Page, stack: BrowserStack) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto("/")

    expect(page.locator(f'a[href*="{stack.shop.good[-1]}"]')).to_be_visible()
    assert not [url for url in asked if not url.startswith((stack.url, "data:"))]


def test_keys_lead_from_view_to_view_and_the_overlay_lists_them(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_contain_text("go to Services")
    assert not axe_findings(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)

    for key, path in (("s", "/services"), ("c", "/compare"), ("l", "/live"), ("y", "/system"), ("e", "/")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**{path}")
        expect(page.locator('nav [aria-current="page"]')).to_have_count(1)


VIEWS = (
    *("/", "/?form=1", "/services", "/services?show=map", "/services?service=payment", "/live", "/system"),
    *("/compare", "/compare?q=%7B+resource.service.name+%3D+%22payment%22+%7D"),
    *(f"/trace/{{failed}}?{how}" for how in ("q=%7B+status+%3D+error+%7D", "view=flame", "view=operations")),
    *("/trace/{failed}?view=events", "/trace/{failed}/against/{good}", "/trace/abab"),
)


@pytest.mark.parametrize("path", VIEWS)
def test_axe_finds_nothing_in_a_view_in_either_scheme_on_desktop_or_phone(
    page: Page, stack: BrowserStack, path: str
) -> None:
    page.goto(path.format(failed=stack.shop.failed[0], good=stack.shop.good[-1]))
    expect(page.locator("main h1").first).to_be_attached()
    expect(page.locator(".loading")).to_have_count(0)

    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert not axe_findings(page), (size["width"], scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_a_chosen_theme_stays_through_a_reload(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    page.goto("/")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Auto").click()
    page.get_by_role("button", name="Light").click()
    expect(page.get_by_role("button", name="Dark")).to_be_visible()

    page.reload()

    expect(page.get_by_role("button", name="Dark")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_enter_and_space_press_what_has_the_focus(page: Page) -> None:
    page.goto("/")
    expect(page.locator(".traces")).to_be_visible()
    page.get_by_role("button", name="Form").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**form=1*")

    page.goto("/live")
    page.get_by_role("button", name="Errors").focus()
    page.keyboard.press(" ")

    page.wait_for_url("**q=*status*")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_keys_do_not_reach_what_is_below_a_dialog(page: Page, stack: BrowserStack) -> None:
    page.goto(f"/trace/{stack.shop.failed[0]}")
    expect(page.get_by_role("treeitem").first).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    page.keyboard.press("v")
    page.keyboard.press("j")
    page.keyboard.press("?")

    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Waterfall")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_label("Span", exact=True)).to_have_count(0)


def test_what_is_no_trace_id_is_told_at_its_field(page: Page) -> None:
    page.goto("/system")
    box = page.get_by_label("Trace ID")
    box.fill("charge card")
    box.press("Enter")

    assert "1 to 32 hex digits" in box.evaluate("field => field.validationMessage")
    box.fill("ABAB")
    box.press("Enter")
    page.wait_for_url("**/trace/abab")
