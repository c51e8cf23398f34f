"""The view of one trace."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

import orjson
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, BrowserStack, axe_findings
from tests.browser.large import send_large_trace
from tests.browser.shop import HOSTILE_NAMES, BuiltTrace, pair, send

KEYS_HELD = 400  # browsers take 200 changes of the history in 10 s
SHOWN_S_MAX = 20.0  # the bench has the limit of 2 s; here two cores do everything else as well


def test_a_failed_trace_is_read_with_the_keyboard_alone(page: Page, stack: BrowserStack) -> None:
    page.goto(f"/trace/{stack.shop.failed[0]}")
    rows = page.get_by_role("treeitem")
    expect(rows.first).to_be_visible()
    before = rows.count()
    assert not axe_findings(page)

    page.keyboard.press("f")
    page.keyboard.type("error")
    page.keyboard.press("Enter")

    panel = page.get_by_label("Span", exact=True)
    expect(panel).to_contain_text("exception")
    expect(page).to_have_url(re.compile("find=error.*span=|span=.*find=error"))
    assert not axe_findings(page)
    page.get_by_role("tree").focus()
    page.keyboard.press("[")
    expect(rows).to_have_count(1)
    page.keyboard.press("]")
    expect(rows).to_have_count(before)
    page.keyboard.press("x")
    expect(page.get_by_role("button", name="Only matches")).to_have_attribute("aria-pressed", "true")


def test_a_link_shows_the_other_the_same_and_views_have_no_faults(page: Page, stack: BrowserStack) -> None:
    url = f"/trace/{stack.shop.slow}?view=operations&find=order"
    page.goto(url)
    expect(page.get_by_role("columnheader", name="Self time")).to_be_visible()
    assert not axe_findings(page)

    page.get_by_role("button", name="Flame").click()
    expect(page.locator(".flame canvas")).to_be_visible()
    assert not axe_findings(page)
    page.get_by_role("button", name="Waterfall").click()

    expect(page.get_by_role("treeitem").first).to_be_visible()
    expect(page.get_by_label("Find in this trace")).to_have_value("order")
    expect(page.locator(".critical-bar").first).to_be_visible()


def test_the_searchs_matches_are_marked_and_a_value_leads_back_to_explore(page: Page, stack: BrowserStack) -> None:
    page.goto(f"/trace/{stack.shop.failed[0]}?q=%7B%20status%20%3D%20error%20%7D")
    expect(page.locator(".span-row.matched").first).to_be_visible()
    expect(page.locator(".span-row.unmatched").first).to_be_visible()

    page.keyboard.press("n")
    panel = page.get_by_label("Span", exact=True)
    panel.get_by_role("link", name="Find spans with this service.name").click()

    expect(page.get_by_label("TraceQL query")).to_have_value(re.compile("resource.service.name = "))


def test_a_condition_marks_the_spans_that_it_holds_of_and_says_what_is_wrong_with_it(
    page: Page, stack: BrowserStack
) -> None:
    page.goto(f"/trace/{stack.shop.failed[0]}")
    expect(page.get_by_role("treeitem").first).to_be_visible()
    whole = page.get_by_role("treeitem").count()

    page.keyboard.press("/")
    page.keyboard.type('{ resource.service.name = "payment" }')
    page.keyboard.press("Enter")
    expect(page.locator(".span-row.matched")).to_have_count(1)
    assert not axe_findings(page)
    page.keyboard.press("Escape")
    page.keyboard.press("x")
    expect(page.get_by_role("treeitem").last).to_contain_text("charge card")
    assert page.get_by_role("treeitem").count() < whole

    page.get_by_label("TraceQL query").fill("{ nonsense ")
    page.keyboard.press("Enter")
    expect(page.get_by_text("This marks no spans here")).to_be_visible()
    expect(page.get_by_role("treeitem")).to_have_count(whole)


def test_what_is_closed_stands_in_the_link(page: Page, stack: BrowserStack) -> None:
    page.goto(f"/trace/{stack.shop.failed[0]}")
    rows = page.get_by_role("treeitem")
    rows.filter(has_text="POST /checkout").locator(".twist").click()
    expect(rows).to_have_count(3)
    other = page.context.new_page()

    other.goto(page.url)

    expect(other.get_by_role("treeitem")).to_have_count(3)
    expect(other.get_by_role("treeitem").last).to_contain_text("POST /checkout")
    expect(other.get_by_role("treeitem").last.locator(".hidden-error, .error-mark")).to_be_visible()


def test_events_of_all_spans_stand_in_order_and_lead_to_their_spans(page: Page, stack: BrowserStack) -> None:
    page.goto(f"/trace/{stack.shop.failed[0]}?view=events")

    rows = page.get_by_label("Events", exact=True).locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.locator(".badge.bad")).to_have_count(3)
    expect(rows.first).to_contain_text("TimeoutError: the bank did not answer in 300 ms")
    assert not axe_findings(page)
    rows.first.get_by_role("button", name="charge card").click()

    expect(page.get_by_label("Span", exact=True)).to_contain_text("charge card")
    expect(page.locator(".events-list tr.selected")).to_have_count(1)


def test_a_trace_or_a_part_of_it_is_copied_for_an_assistant(page: Page, stack: BrowserStack) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"/trace/{stack.shop.failed[0]}")

    page.get_by_role("button", name="Copy for an assistant").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    whole = page.evaluate("navigator.clipboard.readText()")
    page.get_by_role("treeitem").filter(has_text="POST payment").click()
    page.get_by_role("button", name="Copy with all below").click()
    expect(page.get_by_label("Span", exact=True).get_by_role("button", name="Copied")).to_be_visible()
    part = page.evaluate("navigator.clipboard.readText()")

    assert "7 spans" in whole
    assert "exception: TimeoutError: the bank did not answer in 300 ms" in whole
    assert [line.strip().split(" ")[1] for line in part.splitlines()[1:3]] == ["checkout:", "payment:"]
    assert "POST /orders" not in part


def test_a_link_of_a_span_leads_to_the_span_that_is_meant(page: Page, stack: BrowserStack) -> None:
    rng, now_ns = random.Random(11), time.time_ns()
    meant, linking = BuiltTrace(rng.randbytes(16), rng), BuiltTrace(rng.randbytes(16), rng)
    sent = meant.add("queue", "send", now_ns - 10**9, 5, meant.add("queue", "root", now_ns - 10**9, 9))
    linking.add("queue", "receive", now_ns, 5)
    (span,) = next(iter(linking.spans.values()))
    span.links.add(trace_id=meant.trace_id, span_id=sent)
    send(stack.otlp_url, [meant, linking])
    page.goto(f"/trace/{linking.trace_id.hex()}?span={span.span_id.hex()}")

    page.get_by_label("Span", exact=True).get_by_role("link", name=sent.hex()).click()

    page.wait_for_url(f"**/trace/{meant.trace_id.hex()}?span={sent.hex()}")
    expect(page.get_by_role("treeitem", selected=True)).to_contain_text("send")


def test_two_traces_are_compared_span_by_span_at_a_url_of_their_own(page: Page, stack: BrowserStack) -> None:
    good, failed = stack.shop.good[-1], stack.shop.failed[-1]
    page.goto(f"/trace/{failed}")
    page.get_by_label("Compare with the trace").fill(good)
    page.keyboard.press("Enter")

    page.wait_for_url(f"**/trace/{good}/against/{failed}")
    row = page.get_by_label("Differences").get_by_role("row").filter(has_text="charge card")
    expect(row).to_contain_text("fails in B")
    expect(page.get_by_label("Trace A")).to_contain_text(good)
    assert not axe_findings(page)
    before = page.locator(".differences tbody tr").count()
    page.keyboard.press("x")
    expect(page.locator(".differences tbody tr")).not_to_have_count(before)
    page.keyboard.press("s")
    expect(row).to_contain_text("fails in A")
    page.reload()
    expect(row).to_contain_text("fails in A")


def test_hostile_names_are_text_and_steer_nothing(page: Page, stack: BrowserStack) -> None:
    page.goto(f"/trace/{stack.shop.hostile}")

    expect(page.get_by_role("treeitem").filter(has_text=HOSTILE_NAMES[0]).first).to_be_visible()
    page.get_by_role("treeitem").filter(has_text=HOSTILE_NAMES[1]).first.click()

    expect(page.get_by_label("Span", exact=True)).to_contain_text("<script>")
    assert page.evaluate("window.hacked") is None


def test_an_unknown_trace_says_where_to_look(page: Page) -> None:
    page.goto(f"/trace/{'ab' * 16}")

    expect(page.locator(".empty")).to_contain_text("No span of this trace is known")


def test_a_phone_shows_the_span_above_its_trace(page: Page, stack: BrowserStack) -> None:
    page.set_viewport_size(PHONE)
    page.goto(f"/trace/{stack.shop.failed[0]}")

    page.get_by_role("treeitem").first.click()

    expect(page.get_by_label("Span", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_a_key_that_is_held_down_goes_on_through_hundreds_of_spans(page: Page, stack: BrowserStack) -> None:
    rng, now_ns = random.Random(12), time.time_ns()
    long = BuiltTrace(rng.randbytes(16), rng)
    root = long.add("batch", "root", now_ns - 10**9, 900)
    for number in range(KEYS_HELD):
        long.add("batch", f"step {number}", now_ns - 10**9 + number * 1000, 1, root)
    send(stack.otlp_url, [long])
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/trace/{long.trace_id.hex()}")
    expect(page.get_by_role("treeitem").first).to_be_visible()

    press = "key => dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
    for _ in range(KEYS_HELD + 1):
        page.evaluate(press, "j")

    last = page.get_by_role("treeitem", selected=True)
    expect(last).to_contain_text(f"step {KEYS_HELD - 1}")
    (*_, span) = next(iter(long.spans.values()))
    expect(page).to_have_url(re.compile(f"span={span.span_id.hex()}"))
    assert len([url for url in asked if "/spans/" in url]) < KEYS_HELD


def test_a_large_trace_opens_and_scrolls_with_few_rows_in_the_document(page: Page, stack: BrowserStack) -> None:
    trace = send_large_trace(stack.otlp_url)

    began_s = time.monotonic()
    page.goto(f"/trace/{trace}")
    expect(page.get_by_role("treeitem").first).to_be_visible(timeout=SHOWN_S_MAX * 1000)
    assert time.monotonic() - began_s < SHOWN_S_MAX
    page.keyboard.press("]")
    page.get_by_role("tree").evaluate("tree => { tree.scrollTop = tree.scrollHeight }")

    expect(page.locator("#span-11110")).to_be_visible()  # the last child of the last child, and so on
    assert page.get_by_role("treeitem").count() < 200


def test_escape_closes_the_span_and_not_what_is_written(page: Page, stack: BrowserStack) -> None:
    page.goto(f"/trace/{stack.shop.failed[0]}?find=order")
    page.get_by_role("treeitem").first.click()
    expect(page.get_by_label("Span", exact=True)).to_be_visible()

    page.keyboard.press("Escape")

    expect(page.get_by_label("Span", exact=True)).to_have_count(0)
    expect(page.get_by_label("Find in this trace")).to_have_value("order")


def test_a_trace_is_downloaded_whole_or_it_is_told_why_not(page: Page, stack: BrowserStack) -> None:
    trace = stack.shop.failed[0]
    page.goto(f"/trace/{trace}")
    with page.expect_download() as waited:
        page.get_by_role("button", name="Download JSON").click()
    found = orjson.loads(Path(waited.value.path()).read_bytes())
    spans = [one for batch in found["batches"] for scope in batch["scopeSpans"] for one in scope["spans"]]
    assert (waited.value.suggested_filename, len(spans)) == (f"{trace}.json", 7)

    page.route("**/api/traces/**", lambda route: route.abort())
    page.get_by_role("button", name="Download OTLP").click()

    expect(page.get_by_role("alert")).to_contain_text("Not downloaded: The querier does not answer")
    assert not axe_findings(page)


def test_a_stack_trace_is_shown_and_copied_whole(page: Page, stack: BrowserStack) -> None:
    rng, now_ns = random.Random(13), time.time_ns()
    failed = BuiltTrace(rng.randbytes(16), rng)
    failed.add("import", "parse", now_ns, 5, error="no number")
    (span,) = next(iter(failed.spans.values()))
    lines = "\n".join(f'  File "/srv/app.py", line {at}, in step' for at in range(150)) + "\nthe cause stands last"
    span.events[0].attributes.append(pair("exception.stacktrace", lines))
    send(stack.otlp_url, [failed])
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"/trace/{failed.trace_id.hex()}?span={span.span_id.hex()}")

    row = page.get_by_label("Span", exact=True).get_by_role("row").filter(has_text="exception.stacktrace")
    expect(row).to_contain_text("the cause stands last")
    assert not axe_findings(page)
    row.get_by_role("button", name="copy").click()
    expect(row.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == lines
