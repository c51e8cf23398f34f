"""The project's pages for an assistant, cut to what is asked."""

from __future__ import annotations

import re
from pathlib import Path

from topics.errors import BadQuestionError

DOCS = Path(__file__).parents[2] / "docs"
# Which numbered sections of docs/traceql.md; 0: what stands before the first
TRACEQL = {"basic": (0, 1, 2, 3, 4, 5, 6), "aggregates": (8,), "structural": (7,), "metrics": (9, 10), "query": (14,)}
CONFIG = {"overview": "operations.md", "reference": "settings.md"}


def traceql(name: str) -> str:
    """Part of the page of TraceQL. Raises BadQuestionError for another name."""
    if name not in TRACEQL:
        raise BadQuestionError(f"no page {name[:40]!r}: there are {', '.join(TRACEQL)}")
    parts = re.split(r"^(?=## \d+\.)", _page("traceql.md"), flags=re.MULTILINE)
    return "".join(parts[number] for number in TRACEQL[name] if number < len(parts))


def config(name: str) -> str:
    """The page of operations or that of settings. Raises BadQuestionError for another name."""
    if name not in CONFIG:
        raise BadQuestionError(f"no page {name[:40]!r}: there are {', '.join(CONFIG)}")
    return _page(CONFIG[name])


def _page(name: str) -> str:
    try:
        return (DOCS / name).read_text()
    except OSError as exc:
        raise BadQuestionError(f"docs/{name} is not installed beside this program") from exc
