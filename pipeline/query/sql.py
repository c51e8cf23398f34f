"""Pieces of SQL with the values of their `?` in order: values are bound, never written into the text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple


class Sql(NamedTuple):
    """An expression, and the values of its `?` from left to right."""

    text: str
    values: tuple[Any, ...] = ()


TRUE, FALSE = Sql("true"), Sql("false")


def sql(template: str, *parts: Sql) -> Sql:
    """The template with each `{}` replaced by a part; a part may stand several times."""
    pieces = template.split("{}")
    assert len(pieces) == len(parts) + 1, template
    text, values = [pieces[0]], list[Any]()
    for part, piece in zip(parts, pieces[1:], strict=True):
        text += (part.text, piece)
        values += part.values
    return Sql("".join(text), tuple(values))


def bound(value: Any) -> Sql:
    """A value."""
    return Sql("?", (value,))


def joined(separator: str, parts: Iterable[Sql]) -> Sql:
    """Parts one after the other, in brackets."""
    parts = list(parts)
    return sql("(" + separator.join(["{}"] * len(parts)) + ")", *parts)


def any_of(parts: Iterable[Sql]) -> Sql:
    """Whether one of the conditions holds; none of them may be null."""
    wanted = [part for part in parts if part != FALSE]
    return FALSE if not wanted else wanted[0] if len(wanted) == 1 else joined(" OR ", wanted)


def all_of(parts: Iterable[Sql]) -> Sql:
    """Whether all conditions hold; none of them may be null."""
    wanted = [part for part in parts if part != TRUE]
    return TRUE if not wanted else wanted[0] if len(wanted) == 1 else joined(" AND ", wanted)
