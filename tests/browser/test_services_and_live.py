"""Services, their map, and spans as they arrive."""

from __future__ import annotations

import random
import re
import time

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import BrowserStack, axe_findings
from tests.browser.held import silent_tail
from tests.browser.shop import FAILING_MINUTES, ShopData, order, send


def test_a_service_shows_its_operations_and_leads_to_its_traces(page: Page) -> None:
    page.goto("/services")
    page.locator(".services-table").get_by_role("link", name="payment").click()
    operations = page.get_by_label("Operations of payment")
    expect(operations).to_contain_text("charge card")
    assert not axe_findings(page)

    operations.get_by_role("link", name="Errors").click()

    expect(page.get_by_label("TraceQL query")).to_have_value(
        '{ resource.service.name = "payment" && name = "charge card" && status = error }'
    )
    expect(page.locator(".traces tbody tr").first).to_contain_text("payment")


@pytest.mark.parametrize("shown", ["/services", "/"])
def test_totals_are_of_the_time_that_is_asked_for_and_of_no_more(page: Page, stack: BrowserStack, shown: str) -> None:
    broke_s = stack.shop.started_unix_ns // 10**9 - FAILING_MINUTES * 60
    times = {"start": broke_s - 41, "end": broke_s + 131}  # charts round that to whole steps
    counts = "SELECT count(*), count(*) FILTER (status = 'error') FROM spans WHERE service = 'payment'"
    rows = httpx.get(f"{stack.url}/api/sql", params={"q": counts, "format": "json", **times}).json()["rows"]
    ((spans, failed),) = rows
    page.goto(f"{shown}?from={times['start']}&to={times['end']}&q=%7B+resource.service.name+%3D+%22payment%22+%7D")

    told = (
        page.locator(".services-table tbody tr").filter(has_text="payment")
        if shown == "/services"
        else page.get_by_label("Errors", exact=True)
    )
    expect(told).to_contain_text(re.compile(rf"(?<![\d.]){100 * failed / spans:.3g} %"))


def test_rates_that_stand_below_each_other_are_in_one_unit(page: Page) -> None:
    page.goto("/services")
    rates = page.locator(".services-table tbody td:nth-child(2)")
    expect(rates.first).to_be_visible()

    assert len({rate.split("/")[1] for rate in rates.all_inner_texts()}) == 1


def test_the_map_shows_who_calls_whom_and_which_calls_fail(page: Page) -> None:
    page.goto("/services")
    page.keyboard.press("m")

    expect(page.get_by_role("link", name="checkout calls payment")).to_be_visible()
    assert "fail" in (page.get_by_role("link", name="checkout calls payment").get_attribute("aria-label") or "")
    assert "fail" not in (page.get_by_role("link", name="frontend calls catalog").get_attribute("aria-label") or "")
    assert not axe_findings(page)
    page.get_by_role("link", name="checkout calls payment").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".traces tbody tr").first).to_be_visible()


def test_spans_appear_as_they_arrive_after_the_filter_and_wait_while_paused(page: Page, stack: BrowserStack) -> None:
    page.goto("/live")
    page.get_by_label("TraceQL query").fill('{ resource.service.name = "payment" }')
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("status").filter(has_text="Connected")).to_be_visible()
    expect(page.locator(".empty")).to_contain_text("No span that matches has come yet")

    _send_order(stack)

    rows = page.locator(".tail tbody tr")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("charge card")
    assert not axe_findings(page)
    page.keyboard.press(" ")
    expect(page.get_by_role("status").filter(has_text="Paused")).to_be_visible()
    _send_order(stack)
    expect(page.get_by_role("button", name="Go on (1 wait)")).to_be_visible()
    expect(rows).to_have_count(1)
    page.keyboard.press(" ")
    expect(rows).to_have_count(2)


def test_what_comes_while_a_list_is_paused_from_the_start_is_counted_and_shown_later(
    page: Page, stack: BrowserStack
) -> None:
    page.goto("/live?paused=1&q=%7B+resource.service.name+%3D+%22payment%22+%7D")
    expect(page.get_by_role("status").filter(has_text="Paused")).to_be_visible()
    _send_order(stack)

    expect(page.get_by_role("heading", name="1 span came while it is paused")).to_be_visible()
    assert not axe_findings(page)
    page.keyboard.press(" ")
    expect(page.locator(".tail tbody tr")).to_have_count(1)


def test_a_filter_that_is_wrong_is_told_and_not_tried_again(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/api/tail" in request.url else None)
    page.goto("/live?q=%7B+status+%3D+eror+%7D")

    expect(page.get_by_role("alert")).to_contain_text("did you mean error?")
    expect(page.get_by_role("status").filter(has_text="Not connected")).to_have_text("Not connected")
    assert len(asked) == 1
    assert not axe_findings(page)


def test_a_querier_that_falls_silent_is_not_called_connected(page: Page) -> None:
    with silent_tail() as url:
        page.clock.install()
        page.route("**/api/tail*", lambda route: route.continue_(url=url))
        page.goto("/live")
        expect(page.get_by_role("status").filter(has_text="Connected")).to_be_visible()

        page.clock.fast_forward("02:00")

        expect(page.get_by_role("status").filter(has_text="Not connected: trying again")).to_be_visible()
        page.route("**/api/tail*", lambda route: route.abort())
        page.clock.fast_forward("00:30")
        expect(page.get_by_text("The querier does not answer. Is it running?")).to_be_visible()


def _send_order(stack: BrowserStack) -> None:
    now_ns, rng = time.time_ns(), random.Random(time.time_ns())
    send(stack.otlp_url, [order(rng, now_ns - 500_000_000, now_ns, ShopData(now_ns))])
