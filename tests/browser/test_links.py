"""A link shows the other what I see: what is set in a view is set where its URL is opened in another browser."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from playwright.sync_api import TimeoutError as NotThere

from tests.browser.conftest import DESKTOP, BrowserStack
from tests.browser.shop import BuiltTrace, pair, send

MANY_EVENTS = 301  # one more than the list has at first


class State(NamedTuple):
    """Something that can be set: what of the URL tells it, how it is set, and what is there only while it is."""

    told: str
    set_it: Callable[[Page], Any]
    shows: Callable[[Page], Locator]


def _press(name: str) -> Callable[[Page], None]:
    return lambda page: page.get_by_role("button", name=name, exact=True).click()


def _button(told: str, name: str, *, pressed: bool = True) -> State:
    return State(told, _press(name), lambda page: page.get_by_role("button", name=name, pressed=pressed))


def _choice(told: str, label: str, value: str, name: str) -> State:
    """An option of a select."""
    return State(
        told,
        lambda page: page.get_by_label(label).select_option(value),
        lambda page: page.locator("option:checked", has_text=name),
    )


def _query(text: str) -> State:
    def write(page: Page) -> None:
        page.get_by_label("TraceQL query").fill(text)
        page.get_by_label("TraceQL query").press("Control+Enter")

    return State("q=", write, lambda page: page.locator(".query-colours", has_text=text))


def _part(told: str, title: str, shows: str) -> State:
    """A part of the panel of a span, opened or closed."""
    return State(
        told,
        lambda page: page.locator(".span-panel summary", has_text=title).click(),
        lambda page: page.locator(f".span-panel details{shows}", has=page.locator("summary", has_text=title)),
    )


def _take_column(page: Page) -> None:
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("span.payment.provider").check()
    page.keyboard.press("Escape")


def _write_filter(page: Page) -> None:
    page.get_by_label("Selection as a TraceQL filter").fill("{ duration > 40ms }")
    page.get_by_role("button", name="Against the rest", exact=True).click()


def _zoom(page: Page) -> None:
    box = page.locator(".minimap-box").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 9)
    page.mouse.up()


FAILED, BOTH = "/trace/{failed}", "/trace/{good}/against/{failed}"
DAY = _choice("since=24h", "Time range", "24h", "last 24h")
BOX = State("box=1", _press("TraceQL"), lambda page: page.get_by_label("TraceQL query"))
VIEWS: dict[str, tuple[str, tuple[State, ...]]] = {
    "explore": (
        "/",
        (
            _button("form=1", "Form"),
            _choice("sort=longest", "Sort", "longest", "longest first"),
            DAY,
            State("cols=", _take_column, lambda page: page.get_by_role("columnheader", name="payment.provider")),
            State(
                "pick=", lambda page: page.get_by_role("checkbox").first.check(), lambda page: page.locator(".picked")
            ),
            State("rows=100", _press("More traces"), lambda page: page.locator(".traces tbody tr").nth(50)),
            _button("auto=1", "Refresh every 5 s"),
        ),
    ),
    "explore: errors of a time": (
        "/",
        (_query("{ status = error }"), _choice("from=.*to=", "Time range", "fixed", "from")),
    ),
    "trace": (
        FAILED,
        (
            State(
                "span=",
                lambda page: page.get_by_role("treeitem").first.click(),
                lambda page: page.get_by_label("Span", exact=True),
            ),
            _part("parts=attributes", "Attributes", ":not([open])"),
            _part("parts=attributes.events", "Events", ":not([open])"),
            _part("parts=attributes.events.json", "JSON", "[open]"),
            BOX,
            _query("{ duration > 1ms }"),
            State(
                "find=error",
                lambda page: page.get_by_label("Find in this trace").fill("error"),
                lambda page: page.get_by_text("1 of 3 matched"),
            ),
            _button("only=1", "Only matches"),
            _button("critical=0", "Critical path", pressed=False),
            State("zoom=", _zoom, lambda page: page.get_by_role("button", name="Show the whole trace")),
        ),
    ),
    "trace: without its condition": (
        f"{FAILED}?q=%7B+status+%3D+error+%7D",
        (
            State("box=0", BOX.set_it, lambda page: page.get_by_role("button", name="TraceQL", expanded=False)),
            State(
                "fold=",
                lambda page: page.locator(".twist").nth(2).click(),
                lambda page: page.get_by_role("treeitem", expanded=False),
            ),
        ),
    ),
    "trace: with an empty condition": (FAILED, (BOX,)),
    "trace: flame": (FAILED, (_button("view=flame", "Flame"),)),
    "trace: operations": (FAILED, (_button("view=operations", "Operations"),)),
    "trace: events": (FAILED, (_button("view=events", "Events"),)),
    "two traces": (
        BOTH,
        (_button("sort=most", "Most different first"), _button("changed=1", "Only added, gone, failed")),
    ),
    "services": (
        "/services",
        (
            DAY,
            _choice("of=all", "Which spans count", "all", "all spans"),
            State("sort=p95Ns", _press("p95"), lambda page: page.get_by_role("button", name="p95 ↓")),
            State(
                "service=payment",
                lambda page: page.get_by_role("link", name="payment").click(),
                lambda page: page.get_by_label("Operations of payment"),
            ),
        ),
    ),
    "services: map": ("/services", (_button("show=map", "Map"),)),
    "compare": (
        "/compare",
        (
            DAY,
            _button("sel=slowest", "Slowest 5 % against the rest"),
            State(
                "only=1",
                lambda page: page.get_by_role("checkbox").check(),
                lambda page: page.get_by_role("checkbox", checked=True),
            ),
            State(
                "all=1",
                lambda page: page.get_by_role("button", name="more attributes").click(),
                lambda page: page.locator(".compared .panel").nth(12),
            ),
        ),
    ),
    "compare: a filter": (
        "/compare",
        (
            _query('{ resource.service.name = "payment" }'),
            State("sel=", _write_filter, lambda page: page.get_by_text("match { duration > 40ms }")),
        ),
    ),
    "compare: a moment": ("/compare", (_button("sel=after", "After a moment against before"),)),
    "live": (
        "/live",
        (
            _query("{ status = error }"),
            State("paused=1", _press("Pause"), lambda page: page.get_by_role("status").filter(has_text="Paused")),
        ),
    ),
}


@pytest.fixture
def elsewhere(chromium: Browser, stack: BrowserStack) -> Iterator[Page]:
    """A tab of another browser, which remembers nothing."""
    other = chromium.new_context(base_url=stack.url, viewport=DESKTOP)  # type: ignore[arg-type]
    yield other.new_page()
    other.close()


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_set_in_a_view_is_set_where_its_link_is_opened(
    page: Page, elsewhere: Page, stack: BrowserStack, view: str
) -> None:
    path, states = VIEWS[view]
    page.goto(path.format(failed=stack.shop.failed[0], good=stack.shop.good[-1]))
    for one in states:
        expect(page.locator(".loading")).to_have_count(0)
        expect(one.shows(page)).to_have_count(0)
        one.set_it(page)
        expect(one.shows(page).first).to_be_attached()
        expect(page).to_have_url(re.compile(one.told))

    elsewhere.goto(page.url)

    assert [one.told for one in states if not _is_there(one.shows(elsewhere))] == []


def test_as_many_events_of_a_trace_are_listed_where_its_link_is_opened(
    page: Page, elsewhere: Page, stack: BrowserStack
) -> None:
    rng, now_ns = random.Random(14), time.time_ns()
    trace = BuiltTrace(rng.randbytes(16), rng)
    trace.add("import", "parse", now_ns, 5)
    (span,) = next(iter(trace.spans.values()))
    for number in range(MANY_EVENTS):
        span.events.add(name="row", time_unix_nano=now_ns + number).attributes.append(pair("number", number))
    send(stack.otlp_url, [trace])
    page.goto(f"/trace/{trace.trace_id.hex()}?view=events")
    page.get_by_role("button", name="1 more events").click()
    expect(page.locator(".events-list tbody tr")).to_have_count(MANY_EVENTS)
    expect(page).to_have_url(re.compile("rows=600"))

    elsewhere.goto(page.url)

    expect(elsewhere.locator(".events-list tbody tr")).to_have_count(MANY_EVENTS)


def _is_there(shown: Locator) -> bool:
    try:
        shown.first.wait_for(state="attached")
    except NotThere:
        return False
    return True
