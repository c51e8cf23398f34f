"""The form and the query beside it: each says what the other says, whatever is written."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

QUERY = "TraceQL query"
NAMES = (
    *('a "b" c', '"a" b "c"', '"whole"', "`x`", "back\\slash", "ends\\", '"', "tab\there"),
    *("<b>&amp;</b>", "12", "nil", "} || {", "// no comment", "مرحبا"),
)
QUERIES = {  # query -> what stands beside the fields; the fields show the rest
    "{ status != error }": ["status != error"],
    "{ status = nil }": ["status = nil"],
    "{ status = ok && status = error }": ["status = error"],
    '{ name = "a" && name = "b" }': ['name = "b"'],
    "{ resource.service.name = nil }": ["resource.service.name = nil"],
    "{ duration >= 1s && duration >= 2s }": ["duration >= 2s"],
    "{ duration > 1s }": ["duration > 1s"],
    '{ name =~ "a.*" && span."a b" = `c"d` && span.n = -1.5 }': [
        'name =~ "a.*"',
        'span."a b" = `c"d`',
        "span.n = -1.5",
    ],
}


def _url(query: str) -> str:
    return f"/?form=1&{httpx.QueryParams({'q': query})}"


def _field(page: Page, label: str) -> Locator:
    return page.locator(".query-form").get_by_label(label, exact=True)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_typed_into_a_field_is_asked_for_and_shown_again(page: Page, name: str) -> None:
    page.goto(_url(""))
    _field(page, "Operation").fill(name)
    _field(page, "Operation").press("Enter")
    page.wait_for_url("**q=*name*")
    written = page.get_by_label(QUERY).input_value()

    page.reload()

    expect(page.get_by_label(QUERY)).to_have_value(written)
    expect(_field(page, "Operation")).to_have_value(name)
    expect(page.get_by_role("heading", name="No trace matches")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(("query", "beside"), QUERIES.items(), ids=list(QUERIES))
def test_a_query_is_shown_by_the_form_as_it_is(page: Page, query: str, beside: list[str]) -> None:
    page.goto(_url(query))

    expect(page.locator(".tags code")).to_have_text(beside)
    _field(page, "At most").fill("5s")
    _field(page, "At most").press("Enter")
    expect(page.get_by_label(QUERY)).to_have_value(query.replace(" }", " && duration <= 5s }"))


@pytest.mark.parametrize(
    ("typed", "literal"), [("100", "100ms"), ("1.5 s", "1.5s"), ("2 min", "2m"), ("1m30s", "1m30s"), ("1d", "1d")]
)
def test_a_duration_is_written_as_people_write_it(page: Page, typed: str, literal: str) -> None:
    page.goto(_url(""))
    _field(page, "At least").fill(typed)
    _field(page, "At least").press("Enter")

    expect(page.get_by_label(QUERY)).to_have_value(f"{{ duration >= {literal} }}")
    expect(_field(page, "At least")).to_have_value(literal)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_what_is_no_duration_is_told_at_its_field_and_not_asked_for(page: Page) -> None:
    page.goto(_url(""))
    _field(page, "At least").fill("soon")
    _field(page, "At least").press("Enter")

    assert "such as 100ms" in _field(page, "At least").evaluate("field => field.validationMessage")
    expect(page.get_by_label(QUERY)).to_have_value("")


def test_a_name_that_begins_as_another_one_is_typed_to_its_end(page: Page) -> None:
    page.goto(_url(""))
    offered = page.locator('datalist option[value="payment"]')
    expect(offered).to_have_count(1)
    _field(page, "Service").click()
    page.keyboard.type("payment")
    expect(page.get_by_label(QUERY)).to_have_value("")
    page.keyboard.type("-eu")
    page.keyboard.press("Enter")

    expect(page.get_by_label(QUERY)).to_have_value('{ resource.service.name = "payment-eu" }')


def test_a_pattern_that_is_a_number_is_a_text(page: Page) -> None:
    page.goto(_url(""))
    page.get_by_label("Attribute", exact=True).fill("span.http.route")
    page.get_by_label("Comparison").select_option("=~")
    page.get_by_label("Value", exact=True).fill("5")
    page.get_by_role("button", name="Add").click()

    expect(page.get_by_label(QUERY)).to_have_value('{ span.http.route =~ "5" }')
    expect(page.get_by_role("alert")).to_have_count(0)


def test_an_error_of_a_query_over_lines_is_underlined_on_one(page: Page) -> None:
    page.goto(_url("{ // what fails\n  status = eror }"))

    expect(page.get_by_label(QUERY)).to_have_value("{ /* what fails */ status = eror }")
    expect(page.locator(".query-colours .wrong")).to_have_text("eror")
