"""What headers say of an answer."""

from __future__ import annotations

import json

import pytest
from starlette.responses import Response

from pipeline.serve.formats import REASONS_HEADER, reasons_header


@pytest.mark.parametrize(
    "reasons",
    [
        ["chunk a cannot be read", "Schlüssel 日本語 \n\x00 \U0001f600"],
        "Schlüssel 日本語",
        ["x"] * 3,
    ],
)
def test_reasons_come_through_a_header_as_they_are(reasons: list[str] | str) -> None:
    response = Response(headers=reasons_header(reasons))

    assert json.loads(response.headers[REASONS_HEADER]) == reasons
    assert response.headers[REASONS_HEADER].isascii()


@pytest.mark.parametrize("one", ["chunk s3://spans-a/0001 cannot be read", "日" * 60, "日" * 5000])
def test_more_reasons_than_a_header_holds_are_counted(one: str) -> None:
    many = reasons_header([one] * 5000)[REASONS_HEADER]
    long = reasons_header(one * 5000)[REASONS_HEADER]

    told = json.loads(many)
    assert one.startswith(told[0])
    assert len(told[0]) >= min(len(one), 500)
    assert told[-1] == f"and {5000 - (len(told) - 1)} more"
    assert (one * 5000).startswith(json.loads(long))
    assert max(len(many), len(long)) < 8000


def test_without_a_reason_there_is_no_header() -> None:
    assert reasons_header([]) == reasons_header(None) == reasons_header("") == {}
