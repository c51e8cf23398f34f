"""Names of attributes and intrinsics: the one place that reads and writes them."""

from __future__ import annotations

import re

from pipeline.traceql.tree import BARE_INTRINSICS, SCOPES, Attribute, Intrinsic
from topics.errors import BadQuestionError

PREFIXES = tuple(f"{scope}." for scope in (*SCOPES, "parent"))
_PARENT_SCOPES = ("span.", "resource.")
_BARE = re.compile(r"[^\s\"{}()=~!<>&|^,]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')
_SHORTEST = {canonical: bare for bare, canonical in BARE_INTRINSICS.items()}


def attribute_at(text: str, at: int) -> tuple[Attribute, int]:
    """The attribute that begins at a place where one of PREFIXES stands, and where it ends.

    Raises BadQuestionError for an empty name, for a quote without end and for the parent of a parent.
    """
    start = at
    parent = text.startswith("parent.", at)
    at += len("parent.") if parent else 0
    allowed = _PARENT_SCOPES if parent else (*PREFIXES[1:-1], ".")
    prefix = next((one for one in allowed if text.startswith(one, at)), "")
    at += len(prefix)
    if parent and text.startswith("parent.", at):
        raise BadQuestionError("parent.parent is not supported: only a span and its own parent can be compared")
    name, end = _name_at(text, at)
    if not name:
        raise BadQuestionError(f"an attribute's name is missing behind {text[start:at]}")
    return Attribute(prefix.removesuffix("."), name, parent), end


def _name_at(text: str, at: int) -> tuple[str, int]:
    """Runs of plain characters and quoted parts, joined; and where they end."""
    name: list[str] = []
    while at < len(text):
        if (part := _QUOTED.match(text, at)) is not None:
            name.append(_ESCAPED.sub(r"\1", part[1]))
        elif text[at] == '"':
            raise BadQuestionError("a quoted attribute name does not end")
        elif (part := _BARE.match(text, at)) is not None:
            name.append(part[0])
        else:
            break
        at = part.end()
    return "".join(name), at


def name_text(field: Attribute | Intrinsic) -> str:
    """As a query writes it; an intrinsic under its shortest name."""
    if isinstance(field, Intrinsic):
        return _SHORTEST.get(field.name, field.name)
    prefix = ("parent." if field.parent else "") + (f"{field.scope}." if field.scope else "")
    unclear = (*_PARENT_SCOPES, "parent.") if field.parent and not field.scope else ()
    plain = _BARE.fullmatch(field.name) is not None and not field.name.startswith(unclear)
    if plain and not (prefix == "" and field.name[0] in "0123456789"):  # .5 is a number
        return f"{prefix or '.'}{field.name}"
    escaped = field.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{prefix or "."}"{escaped}"'
