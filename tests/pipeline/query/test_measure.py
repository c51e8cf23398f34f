"""Quantiles of listed values are those of plain sorted ones, however many are counted at a time."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.query import measure
from pipeline.query.intervals import Intervals
from pipeline.query.measure import GROWTH, ZERO_BUCKET, series_of
from pipeline.traceql import tree
from pipeline.traceql.parser import parse

POINTS, QUANTILES = 4, (0.0, 0.5, 0.9, 1.0)
NEAR = st.integers(ZERO_BUCKET - 700, ZERO_BUCKET + 900)
FAR = st.sampled_from([0, ZERO_BUCKET + 1, -ZERO_BUCKET - 1, ZERO_BUCKET + 7, ZERO_BUCKET + 1500])
Cell = tuple[int, str, list[int], list[float]]


def cells(buckets: st.SearchStrategy[int]) -> st.SearchStrategy[list[Cell]]:
    """Point, label, the values' buckets and their weights; a place may come several times."""
    values = st.lists(st.tuples(buckets, st.sampled_from([1.0, 2.0, 8.0])), min_size=1, max_size=9)
    one = st.tuples(st.integers(0, POINTS - 1), st.sampled_from("ab"), values)
    split = one.map(lambda cell: (*cell[:2], [value for value, _ in cell[2]], [weight for _, weight in cell[2]]))
    return st.lists(split, min_size=1, max_size=8)


def number_of(bucket: int) -> float:
    """A number in the middle of a bucket."""
    return 0.0 if bucket == 0 else math.copysign(GROWTH ** (abs(bucket) - ZERO_BUCKET - 0.5), bucket)


def expected(given_cells: list[Cell], label: str, point: int, q: float, *, weighted: bool) -> float:
    found = sorted(
        (bucket, weight if weighted else 1.0)
        for at, name, buckets, weights in given_cells
        for bucket, weight in zip(buckets, weights, strict=True)
        if (at, name) == (point, label)
    )
    if not found:
        return 0.0
    rank, below = max(1.0, q * sum(weight for _, weight in found)), 0.0
    for bucket, weight in found:
        below += weight
        if below >= rank - 1e-9:
            return number_of(bucket)
    raise AssertionError


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("dense", "at_once"), [(measure.DENSE_CELLS_MAX, measure.COUNTED_AT_ONCE), (3000, 5), (1, 1)])
@settings(deadline=None)
@given(cells(NEAR) | cells(FAR))
def test_quantiles_are_those_of_sorted_values(
    dense: int, at_once: int, weighted: bool, kind: pa.DataType, given_cells: list[Cell]
) -> None:
    points, labels, buckets, weights = (list(column) for column in zip(*given_cells, strict=True))
    table = pa.table(
        {
            "point": pa.array(points, pa.int64()),
            "l0_string": pa.array(labels),
            "numbers": pa.array([[number_of(one) for one in each] for each in buckets], pa.list_(kind)),
            **({"weights": pa.array(weights, pa.list_(pa.float64()))} if weighted else {}),
            "spans": pa.array([len(one) for one in buckets], pa.int64()),
        }
    )
    query = parse(f"{{}} | quantile_over_time(duration, {', '.join(map(str, QUANTILES))}) by (name)").body
    assert isinstance(query, tree.MetricsPipeline)
    assert isinstance(query.measure, tree.Metric)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "DENSE_CELLS_MAX", dense)
        patch.setattr(measure, "COUNTED_AT_ONCE", at_once)

        found = series_of(query.measure, [table], Intervals(0, 10**9, POINTS), 10**6)

    for (name, q), values in zip(found.labels, found.values, strict=True):
        wanted = [expected(given_cells, str(name.value), at, float(q.value), weighted=weighted) for at in range(POINTS)]
        assert np.allclose(values, wanted, rtol=1e-12), (name, q)
