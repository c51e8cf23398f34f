"""The page of the language: every query that it shows is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.traceql.check import compiled

PAGE = Path(__file__).parents[3] / "docs" / "traceql.md"
QUERIES = [
    line for block in re.findall(r"```traceql\n(.*?)```", PAGE.read_text(), re.DOTALL) for line in block.splitlines()
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_page_compiles(query: str) -> None:
    compiled(query, lambda _: None)


def test_the_page_shows_queries() -> None:
    assert len(QUERIES) >= 10
