"""The columns of a span table: the one place where their names and types stand.

A span table holds one row a span, in arrival order. Of the fixed columns those that are empty in every row may be
missing: `column` gives typed nulls then, and null means protobuf's default. An attribute is a column of its own, named
by scope, escaped key and type (docs/chunk-format.md); rare keys stand in the map column of their scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.spans.rewrite import MARKS_KEY
from topics.errors import SpanSchemaError

TEXT = pa.dictionary(pa.int32(), pa.string())  # strings that repeat: cheap to sort, written to Parquet as they are
UINT32S, STRINGS, BINARIES = pa.list_(pa.uint32()), pa.list_(pa.string()), pa.list_(pa.binary())

FIXED: dict[str, pa.DataType] = {
    "tenant": TEXT,
    "record_offset": pa.int64(),
    "trace_id": pa.binary(16),
    "span_id": pa.binary(8),
    "parent_span_id": pa.binary(),
    "start_unix_ns": pa.uint64(),
    "duration_ns": pa.int64(),
    "name": TEXT,
    "kind": pa.int32(),
    "status_code": pa.int32(),
    "status_message": TEXT,
    "trace_state": TEXT,
    "flags": pa.uint32(),
    "dropped_attributes_count": pa.uint32(),
    "dropped_events_count": pa.uint32(),
    "dropped_links_count": pa.uint32(),
    "resource_dropped_attributes_count": pa.uint32(),
    "resource_entity_refs": pa.binary(),
    "resource_schema_url": TEXT,
    "scope_name": TEXT,
    "scope_version": TEXT,
    "scope_schema_url": TEXT,
    "scope_dropped_attributes_count": pa.uint32(),
    "event_time_unix_ns": pa.list_(pa.uint64()),
    "event_name": STRINGS,
    "event_dropped_attributes_count": UINT32S,
    "link_trace_id": BINARIES,
    "link_span_id": BINARIES,
    "link_trace_state": STRINGS,
    "link_flags": UINT32S,
    "link_dropped_attributes_count": UINT32S,
}
ALWAYS = ("tenant", "record_offset", "trace_id", "span_id", "start_unix_ns", "duration_ns", "name", "kind")

SCOPES = ("resource", "scope", "span", "event", "link")
ROW_SCOPES, LIST_SCOPES = ("resource", "scope", "span"), ("event", "link")
TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "string[]": pa.list_(pa.string()),
    "int[]": pa.list_(pa.int64()),
    "double[]": pa.list_(pa.float64()),
    "bool[]": pa.list_(pa.bool_()),
    "any": pa.binary(),
}
MORE_VALUE = pa.struct(
    [("string", pa.string()), ("int", pa.int64()), ("double", pa.float64()), ("bool", pa.bool_()), ("any", pa.binary())]
)
MORE = pa.map_(pa.string(), MORE_VALUE)
MARKS_COLUMN = f"span.{MARKS_KEY}:string[]"
SERVICE_COLUMN = "resource.service.name"
STATUS_ERROR = 2


class AttributeColumn(NamedTuple):
    """What the name of an attribute's column says."""

    scope: str
    key: str
    type: str


@lru_cache(maxsize=65_536)
def column_name(scope: str, key: str, type_: str) -> str:
    """The column of an attribute: depends on nothing but its scope, key and type, and no two differ only in case."""
    escaped = "".join(map(_escaped, key))
    return f"{scope}.{escaped}" if type_ == "string" else f"{scope}.{escaped}:{type_}"


@lru_cache(maxsize=65_536)
def parse_column(name: str) -> AttributeColumn | None:
    """Scope, key and type of an attribute's column; None for any other column."""
    scope, dot, rest = name.partition(".")
    if not dot or scope not in SCOPES:
        return None
    escaped, _, type_ = rest.partition(":")
    return AttributeColumn(scope, unquote_to_bytes(escaped).decode("utf-8", "surrogatepass"), type_ or "string")


def more_column(scope: str) -> str:
    """The map column of a scope's rare keys."""
    return f"{scope}_more"


def type_of(name: str) -> pa.DataType:
    """The type of any column of a span table. Raises SpanSchemaError for a name that is none."""
    if name in FIXED:
        return FIXED[name]
    if (parsed := parse_column(name)) is not None and parsed.type in TYPES:
        plain = TYPES[parsed.type]
        if parsed.scope in LIST_SCOPES:
            return pa.list_(plain)
        return TEXT if parsed.type == "string" and parsed.scope != "span" else plain
    scope = name.removesuffix("_more")
    if scope in SCOPES:
        return MORE if scope in ROW_SCOPES else pa.list_(MORE)
    raise SpanSchemaError(f"no column of a span table is named {name!r}")


def column(spans: pa.Table, name: str) -> pa.ChunkedArray:
    """A column, or nulls of its type where the table does not have it."""
    if (at := spans.schema.get_field_index(name)) >= 0:
        return spans.column(at)
    return pa.chunked_array([pa.nulls(spans.num_rows, type_of(name))])


def concat(tables: Sequence[pa.Table]) -> pa.Table:
    """One span table of several, one chunk a column, rows in order; what a table lacks is null. O(bytes)."""
    if not tables:
        return empty_table()
    filled = [table for table in tables if table.num_rows] or [tables[0]]
    if len(filled) == 1:
        return filled[0].unify_dictionaries().combine_chunks()
    return pa.concat_tables(filled, promote_options="default").unify_dictionaries().combine_chunks()


def plain(spans: pa.Table) -> pa.Table:
    """The table with every dictionary column as plain strings."""
    fields = [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in spans.schema
    ]
    return spans.cast(pa.schema(fields))


def empty_table() -> pa.Table:
    """No rows, and the columns that every span table has."""
    return pa.table({name: pa.array([], FIXED[name]) for name in ALWAYS})


def fixed_bytes(spans: pa.Table, name: str, width: int) -> npt.NDArray[np.uint8]:
    """A fixed-size binary column without nulls as an array of shape (rows, width); no copy where it is one chunk."""
    values = spans.column(name)
    if values.null_count:
        raise SpanSchemaError(f"column {name} has nulls")
    return bytes_of(values, width)


def bytes_of(values: pa.Array | pa.ChunkedArray, width: int) -> npt.NDArray[np.uint8]:
    """Binary values of `width` bytes each, none null, as an array of shape (n, width); no copy of one chunk."""
    values = values if values.type == pa.binary(width) else values.cast(pa.binary(width))
    if isinstance(values, pa.ChunkedArray):
        chunks = values.chunks
        values = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], values.type)
    data = values.buffers()[1]
    if data is None:
        return np.zeros((0, width), dtype=np.uint8)
    whole = np.frombuffer(data, dtype=np.uint8)
    return whole[values.offset * width : (values.offset + len(values)) * width].reshape(-1, width)


def _escaped(character: str) -> str:
    if character.isascii():
        plain_ascii = character.islower() or character.isdigit() or (character.isprintable() and character not in "%:")
        return character if plain_ascii and not character.isupper() else f"%{ord(character):02X}"
    if character.lower() != character or character.upper() != character or not character.isprintable():
        return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
    return character
