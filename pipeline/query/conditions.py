"""Tags of a search as conditions on one row: a span with its resource. Values are bound, names quoted."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.chunks import Present
from pipeline.query.engine import quoted
from pipeline.query.fields import STATUS
from pipeline.query.sql import Sql
from pipeline.spans import schema

TRACE_TAGS = {"root.name": "name", "root.service.name": "service"}  # field of a trace's root
INT64 = range(-(2**63), 2**63)
SERVICE = "service.name"


@dataclass(frozen=True, slots=True)
class Need:
    """A row can only fit where one of these columns is, or one of these keys (`scope.key`) in a map column.

    values: column and value, of which one must be in the row; empty where the columns do not tell it so simply.
    """

    columns: frozenset[str]
    keys: frozenset[str]
    values: tuple[tuple[str, Any], ...] = ()

    def met_by(self, columns: Container[str], more_keys: Container[str] | None) -> bool:
        """Whether something with these columns and keys may have a fitting row. more_keys: None where unknown."""
        if any(column in columns for column in self.columns):
            return True
        return bool(self.keys) and (more_keys is None or any(key in more_keys for key in self.keys))

    def met_in(self, spans: pa.Table) -> bool:
        """Whether these rows, with the columns of `values` as far as they exist, may have a fitting one."""
        return not self.values or any(
            pc.any(pc.equal(spans.column(column), value)).as_py()
            for column, value in self.values
            if column in spans.column_names
        )


@dataclass(slots=True)
class Condition:
    """A boolean expression over a row, the values of its `?` in order, and the columns that it reads.

    needs: each must be met by a chunk or segment, or it has no fitting row and need not be opened. service: whether a
    fitting row may be of a service of this name; None: of any.
    """

    sql: str = "true"
    values: list[Any] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    needs: list[Need] = field(default_factory=list)
    service: Callable[[str], bool] | None = None

    @property
    def expression(self) -> Sql:
        """The expression with its values."""
        return Sql(self.sql, tuple(self.values))

    def both(self, other: Condition) -> Condition:
        """This and the other."""
        return Condition(
            f"{self.sql} AND {other.sql}",
            self.values + other.values,
            self.columns | other.columns,
            self.needs + other.needs,
            self.service or other.service,
        )

    def may_fit(self, columns: Container[str], more_keys: Container[str] | None) -> bool:
        """Whether something with these columns, and these keys in its map columns, may have a fitting row."""
        return all(need.met_by(columns, more_keys) for need in self.needs)


def any_condition(conditions: Sequence[Condition]) -> Condition:
    """Whether one of them holds. Of one, all that is known of it is kept."""
    if len(conditions) == 1:
        return conditions[0]
    return Condition(
        "(" + " OR ".join(one.sql for one in conditions) + ")",
        [value for one in conditions for value in one.values],
        set[str]().union(*(one.columns for one in conditions)),
    )


def conditions_of(tags: Mapping[str, str], present: Present) -> Condition:
    """All tags on one and the same row. Those of TRACE_TAGS are not about a row and are left out."""
    whole = Condition()
    for key, value in tags.items():
        if key not in TRACE_TAGS:
            whole = whole.both(_condition(key, value, present))
    return whole


def _condition(key: str, value: str, present: Present) -> Condition:
    if key == SERVICE:
        column = schema.column_name("resource", key, "string")
        rare = present.has_more("resource", key)
        text = _text_of("resource", key) if rare else quoted(column)
        found = _contains(text, value, {column, "resource_more"} if rare else {column})
        found.service = (lambda name: value.lower() in name.lower()) if value else None
        return found
    if key == "name":
        return _contains("name", value, {"name"})
    if key == "status.code":
        code = STATUS.get(value)
        if code is None:
            return Condition("false")
        return Condition("coalesce(status_code, 0) = ?", [code], {"status_code"})
    attribute = _equals(key, value, present)
    if key == "error" and value == "true":
        attribute.sql = f"({attribute.sql} OR coalesce(status_code = 2, false))"
        attribute.columns |= {"status_code"}
        attribute.needs = []
    return attribute


def _contains(sql: str, value: str, columns: set[str]) -> Condition:
    return Condition(f"contains(lower(coalesce({sql}, '')), lower(?))", [value], columns)


def _text_of(scope: str, key: str) -> str:
    escaped = key.replace("'", "''").replace("{", "{{").replace("}", "}}")
    more = quoted(schema.more_column(scope))
    return f"coalesce({quoted(schema.column_name(scope, key, 'string'))}, {more}['{escaped}'].string)"


def _equals(key: str, value: str, present: Present) -> Condition:
    """An attribute of the resource or the span whose text is `value`, whatever its type; of an array, one element."""
    parts: list[str] = []
    values: list[Any] = []
    columns: set[str] = set()
    equal: list[tuple[str, Any]] = []
    for scope in ("resource", "span"):
        more = schema.more_column(scope)
        for type_, typed in _typed(value).items():
            for column_type in (type_, f"{type_}[]"):
                column = schema.column_name(scope, key, column_type)
                if present.has(column):
                    columns.add(column)
                    several = column_type.endswith("[]")
                    test = f"list_contains({quoted(column)}, ?)" if several else f"{quoted(column)} = ?"
                    parts.append(f"coalesce({test}, false)")
                    values.append(typed)
                    equal.append((column, typed))
            if present.has_more(scope, key):
                columns.add(more)
                parts.append(f"coalesce({quoted(more)}[?].{quoted(type_)} = ?, false)")
                parts.append(f'coalesce(list_contains(array_elements({quoted(more)}[?]."any", ?), ?), false)')
                values += [key, typed, key, f"{type_}_value", value if type_ != "double" else str(typed)]
    simple = all(schema.parse_column(column) is not None and not column.endswith("[]") for column in columns)
    keys = frozenset(f"{scope}.{key}" for scope in ("resource", "span"))
    need = Need(frozenset(columns), keys, tuple(equal) if simple else ())
    return Condition(f"({' OR '.join(parts)})" if parts else "false", values, columns, [need])


def _typed(value: str) -> dict[str, Any]:
    """The values of each type whose text is `value`."""
    found: dict[str, Any] = {"string": value}
    with suppress(ValueError):
        number = int(value)
        if str(number) == value and number in INT64:
            found["int"] = number
    with suppress(ValueError):
        found["double"] = float(value)
    if value in ("true", "false"):
        found["bool"] = value == "true"
    return found
