"""Explore: find what is slow and what fails from nothing, by mouse, by keyboard, by a link."""

from __future__ import annotations

import re
from datetime import datetime

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.conftest import DESKTOP, PHONE, BrowserStack, axe_findings
from tests.browser.held import held_search
from tests.browser.shop import FAILING_MINUTES, HOSTILE_NAMES

QUERY = "TraceQL query"
ODD = httpx.QueryParams({"q": "{ span.html != nil }", "sel": "{ duration > 40ms }"})


def test_a_slow_trace_is_found_from_nothing_in_at_most_four_clicks(page: Page, stack: BrowserStack) -> None:
    page.goto("/")
    page.get_by_label("Sort").select_option("longest")  # click 1 and 2

    longest = page.locator(".traces tbody tr").first.get_by_role("link")
    expect(longest).to_have_attribute("href", re.compile(stack.shop.slow))  # the list of before is shown until then
    longest.click()  # click 3

    page.wait_for_url(f"**/trace/{stack.shop.slow}*")
    expect(page.locator("main")).to_contain_text("SELECT stock")


def test_traces_stand_there_while_the_search_goes_on_and_all_of_them_in_the_end(
    page: Page, stack: BrowserStack
) -> None:
    with held_search(stack.url, first=3) as held:
        page.route("**/api/search?*", lambda route: route.continue_(url=route.request.url.replace(stack.url, held.url)))
        page.goto("/?sort=longest")

        rows = page.locator(".traces tbody tr")
        expect(rows).to_have_count(3)
        expect(page.get_by_role("status").filter(has_text="3 traces so far")).to_be_visible()
        assert not axe_findings(page)
        held.go_on.set()

        expect(rows).to_have_count(50)
        expect(page.locator(".freshness")).to_contain_text(re.compile("all that came until .* ago"))
        expect(rows.first.get_by_role("link")).to_have_attribute("href", re.compile(stack.shop.slow))


def test_what_fails_since_when_and_what_failures_have_in_common_is_found_from_the_first_screen(
    page: Page, stack: BrowserStack
) -> None:
    broke_s = stack.shop.started_unix_ns / 1e9 - FAILING_MINUTES * 60
    page.goto("/")
    errors = page.get_by_label("Errors", exact=True)
    expect(errors).to_contain_text("% of the spans")

    page.get_by_role("link", name="Services").click()  # which service fails
    first = page.locator(".services-table tbody tr").first
    expect(first).to_contain_text("payment")

    first.get_by_role("link", name="Errors").click()  # since when
    page.wait_for_url("**q=*payment*error*")
    since = errors.locator("time")
    expect(errors).to_contain_text("100 % of the spans")
    began_s = datetime.fromisoformat(since.get_attribute("datetime") or "").timestamp()
    assert broke_s - 60 <= began_s <= broke_s + 120

    errors.get_by_role("link", name="Compare errors").click()  # what they have in common
    expect(page.get_by_label("resource.service.version")).to_contain_text("2.1.0")
    provider = page.get_by_label("span.payment.provider").locator("li").first
    expect(provider).to_contain_text("acme-bank")
    expect(provider).to_contain_text("selection 100 %")
    expect(provider).not_to_contain_text("baseline 0 %")
    assert not axe_findings(page)


def test_the_first_screen_names_the_service_that_fails_and_two_clicks_tell_what_its_errors_have_in_common(
    page: Page,
) -> None:
    page.goto("/?since=30m")
    page.get_by_label("Errors", exact=True).get_by_role("link", name="% of payment").click()
    page.wait_for_url("**q=*payment*error*")
    expect(page.get_by_label("Errors", exact=True).get_by_role("link", name="% of")).to_have_count(0)

    page.get_by_role("link", name="Compare errors").click()

    expect(page.get_by_label("resource.service.version").locator("li").first).to_contain_text("2.1.0")
    expect(page.get_by_label("span.payment.provider").locator("li").first).to_contain_text("selection 100 %")


def test_what_came_with_a_moment_is_found_by_comparing_after_with_before(page: Page, stack: BrowserStack) -> None:
    broke_s = stack.shop.started_unix_ns / 1e9 - FAILING_MINUTES * 60
    page.goto("/compare?since=30m")
    page.get_by_role("button", name="After a moment against before").click()
    moment = page.get_by_label("The moment")
    expect(moment).to_be_visible()
    local = page.evaluate("s => new Date(s * 1000 - new Date().getTimezoneOffset() * 60000).toISOString()", broke_s)

    moment.fill(local[:19])
    moment.blur()

    page.wait_for_url(re.compile(rf"at={int(broke_s)}"))
    versions = page.get_by_label("resource.service.version")
    new = versions.locator("li").filter(has_text="2.1.0")
    expect(new.locator(".share").last).to_contain_text(re.compile(r"\b0 %"))  # before there was none
    assert not axe_findings(page)


def test_a_name_an_operator_and_a_value_are_completed_with_the_keyboard_alone(page: Page) -> None:
    page.goto("/")
    expect(page.locator(".traces")).to_be_visible()
    page.keyboard.press("/")
    box = page.get_by_label(QUERY)
    expect(box).to_be_focused()
    page.keyboard.type("{ payment.prov")
    options = page.get_by_label("Suggestions").get_by_role("option")
    expect(options.first).to_have_text("span.payment.provider")
    assert not axe_findings(page)
    page.keyboard.press("Tab")
    expect(options.first).to_have_text("=")
    page.keyboard.press("Tab")
    page.keyboard.type("nor")
    expect(options).to_have_text(['"north-bank"'])
    page.keyboard.press("Tab")
    page.keyboard.type("}")
    page.keyboard.press("Control+Enter")

    expect(box).to_have_value('{ span.payment.provider = "north-bank" }')
    page.wait_for_url("**/?q=*north-bank*")
    expect(page.locator(".traces tbody tr").first).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url("**/trace/*")


def test_an_error_is_a_sentence_and_underlined_where_it_is(page: Page) -> None:
    page.goto("/")
    page.get_by_label(QUERY).fill("{ status = eror }")
    page.get_by_role("button", name="Search").click()

    expect(page.get_by_role("alert")).to_contain_text("did you mean error?")
    expect(page.locator(".query-colours .wrong")).to_have_text("eror")
    assert not axe_findings(page)


def test_a_query_that_was_run_is_suggested_again_where_nothing_is_written(page: Page) -> None:
    page.goto("/")
    box = page.get_by_label(QUERY)
    box.fill('{ name = "charge card" }')
    box.press("Control+Enter")
    page.wait_for_url("**/?q=*charge*")
    box.fill("")
    box.press("ArrowDown")

    first = page.get_by_label("Suggestions").get_by_role("option").first
    expect(first).to_have_text('{ name = "charge card" }')
    first.click()
    expect(box).to_have_value('{ name = "charge card" }')


def test_the_form_writes_the_query_and_reads_it_back(page: Page) -> None:
    page.goto("/?form=1")
    page.get_by_label("Service", exact=True).fill("payment")
    page.get_by_label("Service", exact=True).press("Enter")
    page.get_by_label("At least", exact=True).fill("250ms")
    page.get_by_label("At least", exact=True).press("Enter")
    page.locator(".query-form").get_by_label("Status").select_option("error")
    page.get_by_label("Attribute", exact=True).fill("span.payment.provider")
    page.get_by_label("Value", exact=True).fill("acme-bank")
    page.get_by_role("button", name="Add").click()

    whole = (
        '{ resource.service.name = "payment" && duration >= 250ms && status = error && '
        'span.payment.provider = "acme-bank" }'
    )
    expect(page.get_by_label(QUERY)).to_have_value(whole)
    expect(page.locator(".traces tbody tr").first).to_be_visible()
    assert not axe_findings(page)
    page.get_by_role("button", name="Remove span.payment.provider").click()
    expect(page.get_by_label(QUERY)).to_have_value(whole.replace(' && span.payment.provider = "acme-bank"', ""))
    page.get_by_label(QUERY).fill("{ status = error } >> { duration > 1s }")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".form-note")).to_contain_text("more than the form can show")


def test_a_link_opened_elsewhere_shows_the_same(page: Page, context: BrowserContext) -> None:
    page.goto("/?q=" + httpx.QueryParams({"": "{ status = error }"})[""] + "&sort=oldest&cols=span.payment.provider")
    expect(page.get_by_role("columnheader", name="payment.provider")).to_be_visible()
    rows = page.locator(".traces tbody tr")
    expect(rows.first).to_contain_text("acme-bank")
    shown = rows.locator(".what").all_inner_texts()

    other = context.new_page()
    other.goto(page.url)

    expect(other.locator(".traces tbody tr")).to_have_count(len(shown))
    assert other.locator(".traces tbody tr .what").all_inner_texts() == shown
    expect(other.get_by_label("Sort")).to_have_value("oldest")


def test_dragging_over_time_zooms_and_a_box_in_the_heat_map_asks_compare(page: Page) -> None:
    page.goto("/")
    plot = page.locator(".u-over").first
    expect(plot).to_be_visible()
    expect(page.locator(".traces")).to_be_visible()
    drag(page, ".u-over >> nth=0", (0.5, 0.5), (0.99, 0.5))
    page.wait_for_url("**from=*to=*")
    expect(page.get_by_role("button", name="Back to now")).to_be_visible()
    page.get_by_role("button", name="Back to now").click()
    expect(page.get_by_label("Durations over time. No spans")).to_have_count(0)
    expect(page.locator(".heat canvas")).to_be_visible()

    drag(page, ".heat canvas", (0.6, 0.08), (0.99, 0.3))

    page.wait_for_url("**/compare?*selfrom=*")
    expect(page.get_by_role("status").filter(has_text="against")).to_contain_text("spans that match { duration >")
    expect(page.get_by_label("name", exact=True)).to_be_visible()


def drag(page: Page, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    box = page.locator(selector).bounding_box()
    assert box is not None
    points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    page.mouse.move(*points[0])
    page.mouse.down()
    page.mouse.move(*points[1], steps=4)
    page.mouse.up()


@pytest.mark.parametrize("path", ["/?sort=oldest", "/services?of=all", f"/compare?{ODD}"])
def test_hostile_names_are_shown_as_text_everywhere(page: Page, stack: BrowserStack, path: str) -> None:
    page.goto(path)
    if path.startswith("/?"):
        page.get_by_label(QUERY).fill(f'{{ trace:id = "{stack.shop.hostile}" }}')
        page.get_by_role("button", name="Search").click()

    expect(page.locator("main")).to_contain_text(HOSTILE_NAMES[0])
    assert page.evaluate("window.hacked") is None
    assert not page.locator("main img, main script, main b").count()


def test_a_querier_that_goes_away_is_told_in_a_sentence_and_back_by_a_click(page: Page) -> None:
    page.goto("/services")
    expect(page.locator(".services-table")).to_be_visible()
    page.route("**/api/**", lambda route: route.abort())
    page.keyboard.press("r")
    expect(page.get_by_role("alert")).to_contain_text("The querier does not answer")
    expect(page.get_by_role("alert").locator("code")).to_have_text("spanstream doctor")
    page.unroute("**/api/**")

    page.get_by_role("button", name="Try again").click()

    expect(page.get_by_role("alert")).to_have_count(0)
    expect(page.locator(".services-table")).to_contain_text("payment")


def test_a_querier_that_wants_to_know_who_asks_is_told_tenant_and_token(page: Page) -> None:
    asked: list[dict[str, str]] = []
    page.route("**/api/search?*", lambda route: (asked.append(route.request.headers), route.fulfill(status=401))[1])
    page.goto("/")
    page.get_by_label("Tenant").fill("team-a")
    page.get_by_label("Token").fill("secret")
    assert not axe_findings(page)

    page.get_by_role("button", name="Use these").click()
    expect(page.get_by_role("dialog", name="Access")).to_be_visible()

    assert "x-scope-orgid" not in asked[0]
    assert (asked[-1]["x-scope-orgid"], asked[-1]["authorization"]) == ("team-a", "Bearer secret")


@pytest.mark.parametrize(("path", "what"), [("/", "trace"), ("/services", "service"), ("/compare", "span")])
def test_an_empty_time_says_how_to_send_the_first_span(page: Page, path: str, what: str) -> None:
    page.goto(f"{path}?from=1000000000&to=1000000600")

    expect(page.get_by_role("heading", name=f"No {what} in this time")).to_be_visible()
    expect(page.locator("main")).to_contain_text("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert not axe_findings(page)


def test_two_traces_of_the_list_are_picked_and_compared_and_the_link_keeps_them(
    page: Page, stack: BrowserStack
) -> None:
    page.goto("/?sort=longest")
    bar, rows = page.get_by_label("Picked traces"), page.locator(".traces tbody tr")
    longest = rows.filter(has=page.locator(f'a[href*="{stack.shop.slow}"]'))
    longest.get_by_role("checkbox").check()
    expect(bar).to_contain_text("Pick a second trace")
    expect(bar.get_by_role("button", name="Compare")).to_be_disabled()
    second = rows.nth(2).get_by_role("link").get_attribute("href")
    page.keyboard.press("j")  # the checkbox has the focus, and is no field to write in
    for key in ("j", "j", "x"):
        page.keyboard.press(key)

    assert second is not None
    other = second.split("/")[2].split("?")[0]
    page.wait_for_url(f"**pick={stack.shop.slow}-{other}")
    page.reload()
    expect(bar.get_by_role("listitem")).to_have_count(2)
    expect(bar).to_contain_text("2.6 s")
    for size in (DESKTOP, PHONE):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        expect(bar).to_be_in_viewport(ratio=1)
        assert not axe_findings(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    page.keyboard.press("c")

    page.wait_for_url(f"**/trace/{stack.shop.slow}/against/{other}")
    expect(page.get_by_label("Differences")).to_be_visible()
    page.go_back()
    expect(bar.get_by_role("listitem")).to_have_count(2)


def test_of_three_picked_traces_the_first_one_goes(page: Page) -> None:
    page.goto("/?sort=longest")
    boxes = page.locator(".traces tbody").get_by_role("checkbox")
    for at in range(3):
        boxes.nth(at).check()

    expect(boxes.nth(0)).not_to_be_checked()
    expect(page.locator(".traces tr.picked")).to_have_count(2)
    page.get_by_label("Picked traces").get_by_role("button", name="Pick none").click()
    expect(page.locator(".picks, tr.picked")).to_have_count(0)


def test_a_name_is_completed_in_its_middle(page: Page) -> None:
    page.goto("/")
    box = page.get_by_label(QUERY)
    box.fill("{ span.payment.prov = nil }")
    box.evaluate("box => box.setSelectionRange(12, 12)")
    box.press("Control+ ")
    options = page.get_by_label("Suggestions").get_by_role("option")
    options.filter(has_text="span.payment.provider").click()

    expect(box).to_have_value("{ span.payment.provider = nil }")


def test_a_wrong_query_shows_no_traces_of_the_one_before(page: Page) -> None:
    page.goto("/")
    expect(page.locator(".traces tbody tr").first).to_be_visible()
    page.get_by_label(QUERY).fill("{ status = eror }")
    page.get_by_label(QUERY).press("Control+Enter")

    expect(page.get_by_role("alert")).to_contain_text("did you mean error?")
    expect(page.locator(".traces tbody tr")).to_have_count(0)
    expect(page.locator(".freshness")).to_have_count(0)


def test_columns_are_found_by_a_part_of_their_name_and_the_list_of_them_closes(page: Page) -> None:
    page.goto("/")
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("Find an attribute").fill("PROVIDER")
    expect(page.locator(".picker label")).to_have_text(["span.payment.provider"])
    for size in (PHONE, DESKTOP):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        expect(page.get_by_label("Find an attribute")).to_be_in_viewport(ratio=1)
    assert not axe_findings(page)
    page.get_by_label("span.payment.provider").check()
    expect(page.get_by_role("columnheader", name="payment.provider")).to_be_visible()

    page.keyboard.press("Escape")
    expect(page.locator(".picker[open]")).to_have_count(0)
    page.get_by_text("Columns (1)").click()
    page.locator("h1").first.dispatch_event("pointerdown", {"bubbles": True})
    expect(page.locator(".picker[open]")).to_have_count(0)


def test_a_time_range_is_written_from_one_moment_to_another(page: Page) -> None:
    page.goto("/")
    page.get_by_label("Time range").select_option("fixed")
    start, end = page.get_by_label("From", exact=True), page.get_by_label("To", exact=True)
    start.fill("2020-01-02T03:04:05")
    start.blur()
    page.wait_for_url("**from=1577934245*")
    end.fill("2020-01-01T00:00:00")
    end.blur()

    assert end.evaluate("field => field.validationMessage") == "After 2020-01-02T03:04:05"
    assert not axe_findings(page)
    page.get_by_role("button", name="Back to now").click()
    expect(start).to_have_count(0)


def test_how_to_send_the_first_span_names_the_receiver_that_the_querier_knows(page: Page, stack: BrowserStack) -> None:
    sources = [{"kind": "receiver", "url": "http://127.0.0.1:4999", "reached": True}]
    page.route("**/api/status/drops", lambda route: route.fulfill(json={"tenants": {}, "sources": sources}))
    page.goto("/?from=1000000000&to=1000000600")

    expect(page.locator(".code pre")).to_contain_text("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4999")


def test_a_search_that_takes_longer_than_the_time_between_two_is_not_given_up(page: Page, stack: BrowserStack) -> None:
    with held_search(stack.url, first=3) as held:
        page.route("**/api/search?*", lambda route: route.continue_(url=route.request.url.replace(stack.url, held.url)))
        page.clock.install()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if "/api/search?" in request.url else None)
        page.goto("/?auto=1")
        expect(page.locator(".traces tbody tr")).to_have_count(3)
        for _ in range(12):
            page.clock.run_for(1000)
        assert len(asked) == 1
        held.go_on.set()

        expect(page.locator(".traces tbody tr")).to_have_count(50)
