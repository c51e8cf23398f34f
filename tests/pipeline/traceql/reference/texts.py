"""A tree back as text: the names of by()'s and the aggregates' attributes, and of metrics' labels."""

from __future__ import annotations

from pipeline.traceql.tree import BARE_INTRINSICS, Aggregate, Attribute, Binary, Field, Intrinsic, Static, Unary

BARE_NAMES = {canonical: bare for bare, canonical in BARE_INTRINSICS.items()}
ENDS_A_NAME = set(' \t\r\n{}()=~!<>&|^,"\\')  # a name with one of these stands in quotes (1.1)


def name_text(name: str) -> str:
    if name and not ENDS_A_NAME & set(name):
        return name
    return quoted(name)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def field_text(field: Field) -> str:
    """As one would write it, intrinsics by their bare names; only operations inside operations stand in brackets."""
    match field:
        case Static(type_, value):
            return static_text(type_, value)
        case Attribute(scope, name, parent):
            return ("parent." if parent else "") + (scope + "." if scope or not parent else "") + name_text(name)
        case Intrinsic(name):
            return BARE_NAMES.get(name, name)
        case Unary(op, operand):
            return f"{op}{operand_text(operand)}"
        case Binary(op, left, right):
            return f"{operand_text(left)} {op} {operand_text(right)}"


def operand_text(field: Field) -> str:
    return f"({field_text(field)})" if isinstance(field, Unary | Binary) else field_text(field)


def static_text(type_: str, value: int | float | str | bool | None) -> str:
    match type_:
        case "nil":
            return "nil"
        case "string":
            return quoted(str(value))
        case "bool":
            return str(value).lower()
        case "duration":
            return f"{value}ns"
        case _:
            return str(value)


def aggregate_text(aggregate: Aggregate) -> str:
    return f"{aggregate.function}({field_text(aggregate.argument) if aggregate.argument else ''})"
