"""Of columns that have few values an entry lists all, of others none."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.spans import schema
from pipeline.spans.few_values import BYTES_MAX, LOOKED_FIRST, VALUES_MAX, FewValues

TEXTS = st.lists(st.none() | st.sampled_from(["", "a", "b", "é"]), min_size=1, max_size=6)
NUMBERS = st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6)


def of(*tables: pa.Table) -> dict[str, tuple[str | int | bool, ...]]:
    few = FewValues()
    for table in tables:
        few.add(table)
    return few.values()


@settings(deadline=None)  # the first one loads modules
@given(st.lists(st.tuples(TEXTS, NUMBERS), min_size=1, max_size=3))
def test_all_values_are_listed_wherever_they_stand(parts: list[tuple[list[str | None], list[int | None]]]) -> None:
    tables = []
    for texts, numbers in parts:
        rows = max(len(texts), len(numbers))
        text = pa.array(texts + [None] * (rows - len(texts)), pa.string())
        number = pa.array(numbers + [None] * (rows - len(numbers)), pa.int64())
        named = {
            "span.a": text,
            "resource.b": text.cast(schema.TEXT),
            "span.n:int": number,
            "span.all:bool": number.is_null(),
        }
        tables.append(pa.table(named))

    found, at_once = of(*tables), of(pa.concat_tables(tables).unify_dictionaries().combine_chunks())

    assert found == at_once
    for name in tables[0].column_names:
        plain = {one for table in tables for one in table.column(name).to_pylist() if one is not None}
        assert found.get(name, ()) == tuple(sorted(plain))  # type: ignore[type-var]


def test_many_values_lists_other_types_and_what_is_no_attribute_are_left_out() -> None:
    rows = LOOKED_FIRST + VALUES_MAX + 1
    late = [0] * LOOKED_FIRST + [*range(VALUES_MAX + 1)]  # the first rows do not tell
    table = pa.table(
        {
            "name": pa.array(["x"] * rows),
            "span.many:int": pa.array(late),
            "span.just:int": pa.array([one % VALUES_MAX for one in late]),
            "span.part:double": pa.array([0.5] * rows),
            "span.list:string[]": pa.array([["x"]] * rows),
            "span.none": pa.nulls(rows, pa.string()),
        }
    )

    assert of(table) == {"span.just:int": tuple(range(VALUES_MAX))}
    assert of(table.slice(0, LOOKED_FIRST), table.slice(LOOKED_FIRST)).keys() == {"span.just:int"}


def test_the_columns_that_take_least_room_come_first() -> None:
    table = pa.table({f"span.k{number}": pa.array(["x" * 100 * number]) for number in range(1, 9)})

    found = of(table)

    assert list(found) == ["span.k1", "span.k2", "span.k3"]
    assert sum(len(name) + len(str(values[0])) + 6 for name, values in found.items()) <= BYTES_MAX
