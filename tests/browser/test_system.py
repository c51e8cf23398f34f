"""System says in words what is wrong, before anything else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from playwright.sync_api import Page, Route, expect

from agents.commands.local_run import variables_of
from infra.ports import free_port
from tests.browser.conftest import BrowserStack, axe_findings
from tests.queriers import querier

NOWHERE = "http://127.0.0.1:9"
ATTEMPTS_MS = 40_000  # a canary tries to send for up to 16 s


def test_all_is_well_is_said_with_processes_partitions_and_what_is_stored(page: Page, stack: BrowserStack) -> None:
    page.goto("/system")

    expect(page.get_by_label("Processes")).to_contain_text(stack.worker_url)
    rows = page.get_by_label("Partitions", exact=True).locator("tbody tr")
    expect(rows).to_have_count(stack.settings.kafka.partitions)
    expect(rows.first).to_contain_text(stack.worker_url)
    expect(page.get_by_label("Stored by day").locator("tbody tr").first).to_be_visible()


def test_who_may_not_see_all_tenants_is_told_whom_partitions_are_told_to(page: Page) -> None:
    def of_one_tenant(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"partitions": None, "workers": None, "damaged": None})

    page.route("**/api/status/system", of_one_tenant)
    page.route("**/api/status/canary", lambda route: route.fulfill(status=403, body="the token is for some only"))
    page.goto("/system")

    expect(page.get_by_label("Partitions", exact=True)).to_contain_text("a token with the scope admin for all tenants")
    expect(page.get_by_label("Stored by day").locator("tbody tr").first).to_be_visible()
    expect(page.locator(".notice").first).to_contain_text("the token is for some only")
    assert not axe_findings(page)


def test_what_is_wrong_stands_first_in_words_with_what_to_do(page: Page, stack: BrowserStack) -> None:
    def without_owner(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["partitions"][2]["owner"] = ""
        body["partitions"][1]["told"]["unsealed_s"] = 2000
        body["workers"][0]["reached"] = False
        body["workers"].append({"url": "http://w:1", "reached": True, "lacks": "partitions being loaded: [1]"})
        route.fulfill(response=answer, json=body | {"damaged": ["chunks/shop/one.parquet"]})

    drops = {"tenants": {"team": {"dead_records": {"no OTLP": 3}}}, "sources": [], "complete": True, "reasons": []}
    page.route("**/api/status/system", without_owner)
    page.route("**/api/status/drops", lambda route: route.fulfill(json=drops))
    page.goto("/system")

    problems = page.locator(".notice")
    expect(problems).to_have_count(6)
    expect(problems.nth(0)).to_contain_text("Partition 2 has no worker")
    expect(problems.nth(1)).to_contain_text(f"The worker {stack.worker_url} does not answer.")
    expect(problems.nth(2)).to_contain_text("The worker http://w:1 is not ready: partitions being loaded: [1].")
    expect(problems.nth(3)).to_contain_text("1 chunk is damaged or gone, such as chunks/shop/one.parquet.")
    expect(problems.nth(4)).to_contain_text("Partition 1 has not been stored for 33 min")
    expect(problems.nth(5)).to_contain_text("3 records could not be read and were set aside, most often: no OTLP")
    expect(page.get_by_label("Processes")).to_contain_text("is not ready")
    expect(page.get_by_label("Drops and dead letters")).to_contain_text("team")
    assert not axe_findings(page)


def test_a_part_that_hangs_does_not_leave_everything_all_right(page: Page) -> None:
    """The page asks every 5 s: what takes longer is waited for, and told meanwhile."""
    page.clock.install()
    page.goto("/system")
    expect(page.get_by_text("asked again every 5 s")).to_be_visible()
    page.route("**/api/status/drops", lambda route: None)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/drops") else None)
    for _ in range(20):
        page.clock.run_for(1000)

    expect(page.get_by_text("A part takes long to answer.")).to_be_visible()
    expect(page.get_by_text("Everything is all right.")).to_have_count(0)
    assert len(asked) == 1
    assert not axe_findings(page)


def test_a_query_under_way_is_listed_and_can_be_cancelled(page: Page, stack: BrowserStack) -> None:
    query = '{ name = "a query of its own" }'
    with httpx.stream("GET", f"{stack.url}/api/tail", params={"q": query}, timeout=60) as endless:
        page.goto("/system")
        row = page.get_by_label("Queries", exact=True).get_by_role("row").filter(has_text="a query of its own")
        expect(row).to_contain_text("running")
        assert not axe_findings(page)

        row.get_by_role("button", name="Cancel").click()

        expect(row).to_have_count(0)
        assert sum(map(len, endless.iter_bytes())) > 0  # and then no more: it has ended


def test_who_may_not_cancel_sees_queries_without_a_button(page: Page) -> None:
    one = {"id": "ab", "tenants": ["shop"], "kind": "search", "text": "{}", "state": "waiting", "ageMs": 61_000}
    page.route("**/api/status/queries", lambda route: route.fulfill(json={"queries": [one], "mayCancel": False}))
    page.goto("/system")

    queries = page.get_by_label("Queries", exact=True)
    expect(queries.get_by_role("row").filter(has_text="search")).to_contain_text("1 min 1 s")
    expect(queries.get_by_role("button")).to_have_count(0)
    expect(page.locator(".notice").filter(has_text="1 query waits for its turn")).to_be_visible()


@contextmanager
def canary(stack: BrowserStack, querier_url: str, port: int, otlp_url: str) -> Iterator[None]:
    """A real one, which writes one trace and looks at it once."""
    words = ["--every", "1h", "--ages", "0s", "--otlp-url", otlp_url, "--querier-url", querier_url]
    process = subprocess.Popen(
        [sys.executable, "-m", "agents.cli", "canary", *words, "--metrics-port", str(port)],
        env=os.environ | variables_of(stack.settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def test_what_canaries_find_is_told_and_what_they_miss_stands_first(
    page: Page, stack: BrowserStack, tmp_path: Path
) -> None:
    right, wrong, silent = free_port(), free_port(), free_port()
    urls = tuple(f"http://127.0.0.1:{port}" for port in (right, wrong, silent))
    settings = stack.settings.model_copy(
        update={"querier": stack.settings.querier.model_copy(update={"canary_urls": urls})}
    )
    with (
        querier(settings, tmp_path) as url,
        canary(stack, url, right, stack.otlp_url),
        canary(stack, url, wrong, NOWHERE),
    ):
        page.goto(f"{url}/system")

        card = page.get_by_label("Canary", exact=True)
        expect(card).to_contain_text("5 looks right, found after", timeout=ATTEMPTS_MS)
        expect(card).to_contain_text("1 missing, 1 lost at receiver", timeout=ATTEMPTS_MS)
        expect(page.locator(".notice.bad").last).to_contain_text(
            "The canary found 1 look at its traces not right", timeout=ATTEMPTS_MS
        )
        expect(page.locator(".notice").filter(has_text=f"The canary {urls[2]} does not answer")).to_be_visible()
        assert not axe_findings(page)
