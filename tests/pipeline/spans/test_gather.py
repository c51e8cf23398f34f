"""Rows of a table in another order, against Arrow's own take."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.spans.gather import Gather

TEXTS = st.one_of(st.none(), st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=3))
ROWS = st.lists(st.tuples(st.integers(0, 9), TEXTS, TEXTS), min_size=1, max_size=20)


def table_of(rows: list[tuple[int, list[str | None] | None, list[str | None] | None]]) -> pa.Table:
    numbers, first, second = zip(*rows, strict=True)
    lengths = [[len(text or "") for text in texts or ()] for texts in first]
    return pa.table(
        {
            "number": pa.array(numbers),
            "first": pa.array(first, pa.list_(pa.string())),
            "second": pa.array(second, pa.list_(pa.string())),
            "lengths": pa.array(lengths, pa.list_(pa.int64())),  # as `first`, but a null is an empty list
        }
    )


@given(ROWS, st.data())
def test_rows_are_those_that_arrow_takes(rows: list, data: st.DataObject) -> None:
    padded = table_of([(0, ["x"], None), *rows, (0, None, ["y"])])
    spans = padded.slice(1, len(rows))  # lists that do not begin at their buffers' start
    order = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30)), dtype=np.int64)
    columns = data.draw(st.lists(st.sampled_from(spans.column_names), unique=True))

    taken = Gather(spans).rows(order, columns)

    taken.validate(full=True)
    assert taken.equals(spans.select(columns).take(pa.array(order)))
