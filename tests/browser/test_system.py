"""System says in words what is wrong, before anything else."""

from __future__ import annotations

from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import BrowserStack, axe_findings


def test_all_is_well_is_said_with_processes_partitions_and_what_is_stored(page: Page, stack: BrowserStack) -> None:
    page.goto("/system")

    expect(page.get_by_label("Processes")).to_contain_text(stack.worker_url)
    rows = page.get_by_label("Partitions", exact=True).locator("tbody tr")
    expect(rows).to_have_count(stack.settings.kafka.partitions)
    expect(rows.first).to_contain_text(stack.worker_url)
    expect(page.get_by_label("Stored by day").locator("tbody tr").first).to_be_visible()


def test_what_is_wrong_stands_first_in_words_with_what_to_do(page: Page) -> None:
    def without_owner(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        body["partitions"][2]["owner"] = ""
        route.fulfill(response=answer, json=body)

    drops = {"tenants": {"team": {"dead_records": {"no OTLP": 3}}}, "sources": [], "complete": True, "reasons": []}
    page.route("**/api/status/system", without_owner)
    page.route("**/api/status/drops", lambda route: route.fulfill(json=drops))
    page.route("**/tables/partitions*", lambda route: route.fulfill(status=503, body="no worker answers"))
    page.goto("/system")

    problems = page.locator(".notice")
    expect(problems).to_have_count(3)
    expect(problems.nth(0)).to_contain_text("Workers cannot be asked: no worker answers")
    expect(problems.nth(1)).to_contain_text("Partition 2 has no worker")
    expect(problems.nth(2)).to_contain_text("3 records could not be read and were set aside, most often: no OTLP")
    expect(page.get_by_label("Drops and dead letters")).to_contain_text("team")
    assert not axe_findings(page)
