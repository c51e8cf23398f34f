"""Where the values of a tag stand in rows, as SQL, and what a value is as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pipeline.query.chunks import ROOT, Present, all_more_keys
from pipeline.query.engine import quoted
from pipeline.query.identifiers import Attribute, Intrinsic
from pipeline.query.values import TYPE_NAMES
from pipeline.spans import schema
from pipeline.spans.few_values import Value
from pipeline.spans.index import NO_SERVICE, OTHERS
from pipeline.spans.schema import SERVICE_COLUMN
from pipeline.store.manifest import ChunkEntry
from pipeline.traceql.tree import KINDS, STATUSES


class Expression(NamedTuple):
    """Values of a kind in the rows: SQL that gives one value a row (or, unnested, several), and what it reads."""

    sql: str
    type: str
    columns: tuple[str, ...]
    where: str = "true"
    parameters: tuple[str, ...] = ()


INTRINSICS = {
    "name": Expression("name", "string", ("name",)),
    "statusMessage": Expression("status_message", "string", ("status_message",)),
    "status": Expression("coalesce(status_code, 0)", "status", ("status_code",)),
    "kind": Expression("coalesce(kind, 0)", "kind", ("kind",)),
    "instrumentation:name": Expression("scope_name", "string", ("scope_name",)),
    "instrumentation:version": Expression("scope_version", "string", ("scope_version",)),
    "event:name": Expression("unnest(event_name)", "string", ("event_name",)),
    "rootName": Expression("name", "string", ("name", "parent_span_id"), where=ROOT),
    "rootServiceName": Expression(quoted(SERVICE_COLUMN), "string", (SERVICE_COLUMN, "parent_span_id"), where=ROOT),
}


def expressions_of(of: Attribute | Intrinsic, present: Present) -> list[Expression]:
    """Where the values of a tag stand; none for IDs and durations, which have too many to be listed."""
    if isinstance(of, Intrinsic):
        return [INTRINSICS[of.name]] if of.name in INTRINSICS else []
    found = [each for scope in of.scopes for each in _attribute(scope, of.key, present)]
    if of.key == "error" and "span" in of.scopes:
        found.append(Expression("true", "bool", ("status_code",), where=f"status_code = {schema.STATUS_ERROR}"))
    return found


def _attribute(scope: str, key: str, present: Present) -> Iterator[Expression]:
    many = scope in schema.LIST_SCOPES
    more = schema.more_column(scope)
    entry = f"unnest({quoted(more)})[?]" if many else f"{quoted(more)}[?]"
    for type_, name in TYPE_NAMES.items():
        one = schema.column_name(scope, key, type_)
        several = schema.column_name(scope, key, f"{type_}[]")
        if present.has(one):
            yield Expression(f"unnest({quoted(one)})" if many else quoted(one), name, (one,))
        if present.has(several):
            flat = f"unnest(flatten({quoted(several)}))" if many else f"unnest({quoted(several)})"
            yield Expression(flat, name, (several,))
        if present.has_more(scope, key):
            yield Expression(f"({entry}).{quoted(type_)}", name, (more,), parameters=(key,))
            elements = f"array_elements({{}}[?].\"any\", '{type_}_value')"
            one_by_one = f"flatten(list_transform({quoted(more)}, lambda one: {elements.format('one')}))"
            flat = one_by_one if many else elements.format(quoted(more))
            yield Expression(f"unnest({flat})", name, (more,), parameters=(key,))


def listed_in(each: Expression, entry: ChunkEntry) -> Iterable[Value] | None:
    """All its values in a chunk, where the chunk's entry tells them; None where it does not."""
    column, parsed = each.columns[0], schema.parse_column(each.columns[0])
    if each.parameters:  # of a key in a map column
        keys, key = all_more_keys(entry), f"{column.removesuffix('_more')}.{each.parameters[0]}"
        return None if keys is None or key in keys else ()
    if parsed is None or each.where != "true":
        return None
    if column not in entry.attributes:
        return ()
    if each.sql != quoted(column):
        return None
    if column == SERVICE_COLUMN and entry.services.keys().isdisjoint((NO_SERVICE, OTHERS)):
        return entry.services
    return entry.values.get(column)


def text(type_: str, value: Any) -> str:
    """A value as the API writes it."""
    if type_ == "bool":
        return "true" if value in (True, "true") else "false"
    if type_ == "float":
        return repr(float(value))
    if type_ == "status":
        return STATUSES[value] if 0 <= value < len(STATUSES) else str(value)
    if type_ == "kind":
        return KINDS[value] if 0 <= value < len(KINDS) else str(value)
    return str(value)
