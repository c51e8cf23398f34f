"""What a querier says of a known trace, compared with what was written: by ID, by search, by its tags."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.canary.known import ID_ATTRIBUTE, SERVICES, Known, spans_of
from agents.commands.querier import Querier
from topics.errors import BadQuestionError, NotFoundError, QuerierUnavailableError

OK, MISSING, DOUBLED, INCORRECT, PARTIAL, ERROR = "ok", "missing", "doubled", "incorrect", "partial", "error"
AROUND_S = 60


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. result: OK, or what is wrong, with a sentence; stage: where it went missing."""

    check: str
    result: str
    said: str = ""
    stage: str = ""


def by_id(querier: Querier, known: Known) -> Finding:
    """Every span once, each as it was written."""
    try:
        answer = querier.trace(known.trace_id.hex())
    except NotFoundError as error:
        return Finding("by_id", PARTIAL if "(" in str(error) else MISSING, str(error))
    wanted, found = dict(spans_of(known.request())), spans_of(answer.traces_data)
    counts = Counter(span_id for span_id, _ in found)
    if missing := wanted.keys() - counts.keys():
        said = f"{len(missing)} of {len(wanted)} spans are missing{': ' if answer.partial else ''}{answer.message}"
        return Finding("by_id", PARTIAL if answer.partial else MISSING, said)
    if doubled := [span_id.hex() for span_id, count in counts.items() if count > 1]:
        return Finding("by_id", DOUBLED, f"{len(doubled)} spans are there twice, span {doubled[0]} among them")
    if other := [span_id.hex() for span_id, said in found if wanted.get(span_id) != said]:
        return Finding("by_id", INCORRECT, f"{len(other)} spans are not what was written, span {other[0]} among them")
    return Finding("by_id", PARTIAL, answer.message) if answer.partial else Finding("by_id", OK)


def search(querier: Querier, known: Known) -> Finding:
    """A search for its own value finds this trace and no other."""
    query = f'{{ span.{ID_ATTRIBUTE} = "{known.name}" && resource.service.name = "{SERVICES[0]}" }}'
    answer = querier.ask("/api/search", {"q": query, "limit": 5, **_around(known)})
    found = [one["traceID"].zfill(32) for one in answer.get("traces", [])]
    if found == [known.trace_id.hex()]:
        return Finding("search", OK)
    if found:
        return Finding("search", INCORRECT, f"a search for trace {known.trace_id.hex()} found {found}")
    return _absent("search", answer, f"a search does not find it: {query}")


def tag_names(querier: Querier, known: Known) -> Finding:
    """Its attribute is among the names."""
    answer = querier.ask("/api/v2/search/tags", {"scope": "span", "q": _query(known), **_around(known)})
    names = {name for scope in answer.get("scopes", []) for name in scope.get("tags", [])}
    if ID_ATTRIBUTE in names:
        return Finding("tag_names", OK)
    return _absent("tag_names", answer, f"{ID_ATTRIBUTE} is not among the names of its tags")


def tag_values(querier: Querier, known: Known) -> Finding:
    """Its value is among the values."""
    path = f"/api/v2/search/tag/span.{ID_ATTRIBUTE}/values"
    answer = querier.ask(path, {"q": _query(known), **_around(known)})
    values = {one.get("value") for one in answer.get("tagValues", [])}
    if known.name in values:
        return Finding("tag_values", OK)
    return _absent("tag_values", answer, f"its value is not among those of {ID_ATTRIBUTE}")


CHECKS: dict[str, Callable[[Querier, Known], Finding]] = {
    "by_id": by_id,
    "search": search,
    "tag_names": tag_names,
    "tag_values": tag_values,
}


def checked(querier: Querier, known: Known, name: str) -> Finding:
    """One check; a querier that does not answer, or refuses, is a finding as well."""
    try:
        return CHECKS[name](querier, known)
    except (BadQuestionError, NotFoundError, QuerierUnavailableError) as error:
        return Finding(name, ERROR, str(error), "querier")


def _query(known: Known) -> str:
    return f'{{ span.{ID_ATTRIBUTE} = "{known.name}" }}'


def _around(known: Known) -> dict[str, int]:
    at = known.written_unix_ns // 10**9
    return {"start": at - AROUND_S, "end": at + AROUND_S}


def _absent(check: str, answer: dict[str, Any], said: str) -> Finding:
    if answer.get("status") == "PARTIAL" or answer.get("message"):
        return Finding(check, PARTIAL, f"{said}; {answer.get('message', '')}")
    return Finding(check, MISSING, said)
