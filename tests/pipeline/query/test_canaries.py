"""What canaries say of themselves is read from their metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from pipeline.query.canaries import all_canaries, read

PAGE = """\
# HELP spanstream_canary_checks_total Checks
# TYPE spanstream_canary_checks_total counter
spanstream_canary_checks_total{age="0",check="by_id",result="ok"} 7.0
spanstream_canary_checks_total{age="10",check="search",result="ok"} 5.0
spanstream_canary_checks_total{age="10",check="by_id",result="missing"} 2.0
# HELP spanstream_canary_missing_total Missing
# TYPE spanstream_canary_missing_total counter
spanstream_canary_missing_total{stage="chunk"} 2.0
# HELP spanstream_canary_last_check_timestamp_seconds Last
# TYPE spanstream_canary_last_check_timestamp_seconds gauge
spanstream_canary_last_check_timestamp_seconds{right="true"} 1.7e+09
# HELP spanstream_canary_fresh_seconds Fresh
# TYPE spanstream_canary_fresh_seconds histogram
spanstream_canary_fresh_seconds_bucket{le="+Inf"} 4.0
spanstream_canary_fresh_seconds_count 4.0
spanstream_canary_fresh_seconds_sum 0.5
"""


def test_checks_are_summed_by_result_and_what_is_missing_by_place() -> None:
    assert read(PAGE) == {
        "checks": {"missing": 2, "ok": 12},
        "missing": {"chunk": 2},
        "lastRightUnixMs": 1_700_000_000_000,
        "lastWrongUnixMs": 0,
        "freshMs": 125.0,
    }


def test_a_canary_that_has_not_looked_yet_has_no_numbers() -> None:
    assert read("") == {"checks": {}, "missing": {}, "lastRightUnixMs": 0, "lastWrongUnixMs": 0, "freshMs": None}


@pytest.mark.parametrize("said", [b"\xff\xfe", b'spanstream_canary_missing_total{stage="a', b"<html>no metrics"])
def test_who_does_not_answer_or_is_no_canary_is_told_as_silent(said: bytes) -> None:
    async def get(url: str, _params: Mapping[str, str], _headers: Mapping[str, str]) -> tuple[int, bytes, str]:
        if "gone" in url:
            raise OSError("connection refused")
        return (200, said, "text/plain") if "odd" in url else (200, PAGE.encode(), "text/plain")

    found = asyncio.run(all_canaries(get, ["http://gone", "http://odd", "http://well/"]))

    assert [(one["url"], one["reached"]) for one in found] == [
        ("http://gone", False),
        ("http://odd", False),
        ("http://well/", True),
    ]
