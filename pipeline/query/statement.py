"""A statement that a caller wrote in SQL: one SELECT as DuckDB's own parser sees it, and what it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import duckdb
import orjson

from pipeline.spans import schema
from topics.errors import BadQuestionError

VIEWS = ("spans", "traces")
LIVE = "__live_"  # what the views are made of, beside chunks: not for callers
TABLE_FUNCTIONS = frozenset(("unnest", "range", "generate_series"))
# They tell of the process, write its log, or name their columns at run time
FUNCTIONS_REFUSED = frozenset(("current_setting", "getenv", "getvariable", "write_log"))


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may be run. columns: attribute columns that it names; everything: it may mean any column;

    parents: whether it may mean parent_span_id, which costs a join.
    """

    text: str
    columns: tuple[str, ...]
    everything: bool
    parents: bool


def statement_of(text: str) -> Statement:
    """Raises BadQuestionError for what is not one SELECT, and for functions that reach beyond the views."""
    nodes = list(_nodes(_parsed(text)))
    _refuse_relations(nodes)
    for node in nodes:
        _refuse_functions(node)
    references = [node["column_names"] for node in nodes if node.get("class") == "COLUMN_REF"]
    named = {name for reference in references for name in reference}
    alone = {reference[0] for reference in references if len(reference) == 1}  # a relation's name is its whole row
    relations = {name for node in nodes if "from_table" in node or "alias" in node for name in _relation_names(node)}
    everything = bool(alone & relations) or any(_means_any(node) for node in nodes)
    return Statement(
        text=text,
        columns=tuple(sorted(name for name in named if _is_attribute(name))),
        everything=everything,
        parents=everything or "parent_span_id" in text.lower(),
    )


def _parsed(text: str) -> dict[str, Any]:
    connection = duckdb.connect(config={"enable_external_access": False, "python_enable_replacements": False})
    try:
        (found,) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchone() or ("{}",)
    except duckdb.Error as exc:
        raise BadQuestionError(f"invalid SQL: {str(exc)[:500]}") from exc
    finally:
        connection.close()
    parsed: dict[str, Any] = orjson.loads(found)
    if parsed.get("error"):
        told = parsed.get("error_message", "")
        if parsed.get("error_type") == "not implemented":
            told = "only a SELECT (with WITH, or DESCRIBE) is answered"
        raise BadQuestionError(f"invalid SQL: {told}")
    if len(parsed.get("statements", ())) != 1:
        raise BadQuestionError(f"invalid SQL: one statement is answered, not {len(parsed.get('statements', ()))}")
    return parsed


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _refuse_relations(nodes: list[dict[str, Any]]) -> None:
    """Tables are the views and what the statement names itself, which hides nothing that is no caller's to see."""
    own = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    for name in own:
        if name in _engines_views() or name.startswith(LIVE):
            raise BadQuestionError(f"invalid SQL: {name[:100]} is a name of the engine: call it otherwise")
    for node in nodes:
        if node.get("type") == "BASE_TABLE":
            name, schema_name = node["table_name"].lower(), node["schema_name"].lower()
            if schema_name not in ("", "main") or name not in {*VIEWS, *own}:
                raise _no_rows_from(f"{schema_name}.{name}" if schema_name else name)


@cache
def _engines_views() -> frozenset[str]:
    """Views that DuckDB has of its own and that are found by their bare name."""
    found = "SELECT view_name FROM duckdb_views() WHERE internal AND schema_name != 'information_schema'"
    with duckdb.connect() as connection:
        return frozenset(name for (name,) in connection.execute(found).fetchall())


def _no_rows_from(name: str) -> BadQuestionError:
    known = ", ".join((*VIEWS, *sorted(TABLE_FUNCTIONS)))
    return BadQuestionError(f"invalid SQL: rows come from {known}, not from {name[:100]}")


def _refuse_functions(node: dict[str, Any]) -> None:
    if node.get("type") == "TABLE_FUNCTION":
        name = str(node["function"].get("function_name", "")).lower()
        if name not in TABLE_FUNCTIONS:
            raise _no_rows_from(name)
    elif (name := str(node.get("function_name", "")).lower()) in FUNCTIONS_REFUSED:
        raise BadQuestionError(f"invalid SQL: function {name} is not for callers")


def _relation_names(node: dict[str, Any]) -> list[str]:
    return [name for name in (node.get("table_name"), node.get("alias")) if name] if "sample" in node else []


def _means_any(node: dict[str, Any]) -> bool:
    """Stars, DESCRIBE, natural joins, and relations whose columns are renamed by their place."""
    return (
        node.get("class") == "STAR"
        or node.get("type") == "SHOW_REF"
        or node.get("ref_type") == "NATURAL"
        or bool(node.get("column_name_alias"))
    )


def _is_attribute(name: str) -> bool:
    parsed = schema.parse_column(name)
    return parsed is not None and parsed.type in schema.TYPES and name == schema.column_name(*parsed)
