"""Forms of an answer that is a list of rows: which one a caller wants, and what its headers say."""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from starlette.datastructures import QueryParams

from topics.errors import BadQuestionError

FORMATS = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "events": "text/event-stream",
}
PROTOBUF, JSON, LLM = "application/protobuf", "application/json", "application/vnd.grafana.llm"
MEDIA_TYPES = {PROTOBUF: PROTOBUF, JSON: JSON, LLM: f"{LLM}+json"}  # of what is asked for, what is answered
REASONS_HEADER = "x-spanstream-incomplete"


def accepted(accept: str) -> str:
    """Protobuf, JSON or LLM: the first of them that an Accept header names, JSON where it names none."""
    return next((one for one in MEDIA_TYPES if one in accept), JSON)


def form_of(asked: QueryParams, accept: str, forms: Sequence[str]) -> str:
    """format=, else what Accept names, else JSON. Raises BadQuestionError."""
    form = asked.get("format", "")
    if form and form not in forms:
        raise BadQuestionError(f"invalid format: {form[:50]!r} is none of {', '.join(forms)}")
    named = (name for name in forms if FORMATS[name].partition(";")[0] in accept)
    return form or next(named, "json")


def reasons_header(reasons: list[str] | str | None) -> dict[str, str]:
    """Why rows of a stream may be missing, in a list or a sentence; no header where none is."""
    return {REASONS_HEADER: orjson.dumps(reasons).decode("ascii", "replace")} if reasons else {}
