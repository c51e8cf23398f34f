"""Forms of an answer that is a list of rows: which one a caller wants, and what its headers say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

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
HEADER_BYTES_MAX = 6000  # gRPC's clients take 8 KiB of metadata
SENTENCE_CHARACTERS_MAX = HEADER_BYTES_MAX // 8  # of one reason: JSON in ASCII writes a character as up to six
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
    """Why rows of a stream may be missing, in a list or a sentence; no header where none is.

    Of what is longer than clients take headers, the beginning.
    """
    if not reasons:
        return {}
    if isinstance(reasons, str):
        return {REASONS_HEADER: json.dumps(reasons[:SENTENCE_CHARACTERS_MAX])}
    cut = [one[:SENTENCE_CHARACTERS_MAX] for one in reasons]
    lengths = itertools.accumulate(len(json.dumps(one)) for one in cut)
    told = [one for one, length in zip(cut, lengths, strict=True) if length <= HEADER_BYTES_MAX]
    more = [f"and {len(reasons) - len(told)} more"] if len(told) < len(reasons) else []
    return {REASONS_HEADER: json.dumps(told + more)}
