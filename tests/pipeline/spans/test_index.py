"""The counts of services, operations and attributes, against counting row by row."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.spans import index, schema
from pipeline.spans.index import Index, add_attributes, add_services, index_of, indexes_of

ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, "shop", "bank"]),
        st.sampled_from(["GET /", "POST /"]),
        st.sampled_from([None, 200, 500]),
    ),
    max_size=30,
)
Row = tuple[int, str, str | None, str, int | None]


def table_of(rows: list[Row]) -> pa.Table:
    _, tenants, services, names, codes = zip(*rows, strict=True) if rows else ((),) * 5
    return pa.table(
        {
            "tenant": pa.array(tenants, pa.string()).dictionary_encode(),
            "name": pa.array(names, pa.string()).dictionary_encode(),
            "resource.service.name": pa.array(services, pa.string()).dictionary_encode(),
            "span.code:int": pa.array(codes, pa.int64()),
        }
    )


def counted(rows: list[Row]) -> Index:
    found = Index({}, {})
    for (_, tenant, service, name, code), spans in Counter(rows).items():
        add_services(found.services, {tenant: {service or index.NO_SERVICE: {name: spans}}})
        columns = {"resource.service.name": service, "span.code:int": code}
        add_attributes(found.attributes, {tenant: {key: spans for key, one in columns.items() if one is not None}})
    return found


@settings(deadline=None)
@given(ROWS)
def test_each_part_of_a_table_has_the_counts_of_its_own_rows(rows: list[Row]) -> None:
    parts = np.array([row[0] for row in rows], dtype=np.int64)

    assert indexes_of(table_of(rows), parts, 3) == [counted([row for row in rows if row[0] == one]) for one in range(3)]


@settings(deadline=None)
@given(ROWS, st.integers(0, 30))
def test_a_table_of_several_pieces_counts_as_one(rows: list[Row], cut: int) -> None:
    pieces = [table_of(rows[:cut]), table_of(rows[cut:])]

    assert index_of(pa.concat_tables(pieces)) == counted(rows)


def test_operations_beyond_the_bound_are_counted_together() -> None:
    rows: list[Row] = [(0, "a", "shop", f"GET /{number}", None) for number in range(index.OPERATIONS_MAX + 7)]

    operations = index_of(table_of(rows)).services["a"]["shop"]

    assert len(operations) == index.OPERATIONS_MAX + 1
    assert operations[index.OTHERS] == 7
    assert schema.SERVICE_COLUMN in index_of(table_of(rows)).attributes["a"]
