"""Values of columns are counted as one would one by one, in pieces, with and without intervals."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from pipeline.query.coded import Coded
from pipeline.query.marks import Marks, Presence
from pipeline.query.value_counts import FEW, POINT_BITS, Cells, ValueCounts

BASE = -100


def marks(side: list[int], point: list[int]) -> Marks:
    at = [row for row, one in enumerate(side) if one >= 0]
    table = pa.table(
        {
            "file_row_number": pa.array(at, pa.int64()),
            "selected": pa.array([bool(side[row]) for row in at], pa.bool_()),
            "point": pa.array([point[row] for row in at], pa.int64()),
        }
    )
    return Marks.of(table, len(side))


def add(counts: ValueCounts, name: str, values: pa.ChunkedArray, marked: Marks, *, blank: bool = True) -> None:
    counts.add(name, counts.tally(name, values, Presence(marked), blank=blank))


def cells_of(cells: tuple[Cells, ...]) -> dict[tuple[int, int, int], int]:
    """(code, interval, side) -> count."""
    numbers, counts = Cells.added(cells)
    parts = ((number >> POINT_BITS, (number & ((1 << POINT_BITS) - 1)) >> 1, number & 1) for number in numbers.tolist())
    return dict(zip(parts, counts.tolist(), strict=True))


@pytest.mark.parametrize("distinct", [1, 7, FEW + 3000])
def test_values_are_counted_by_side_and_interval_as_one_by_one(distinct: int) -> None:
    random, counts = np.random.default_rng(1), ValueCounts(BASE)
    by_point, by_side, there = Counter[tuple[str, int, int]](), Counter[tuple[str, int]](), Counter[tuple[int, int]]()
    for turn in range(3):
        values = [f"v{one:05}" if one >= 0 else None for one in random.integers(-2, distinct, 20_000).tolist()]
        sides, points = (random.integers(low, high, 20_000).tolist() for low, high in ((-1, 2), (-5, 30)))
        pieces = [pa.array(values[:9000]).dictionary_encode(), pa.array(values[9000:]).dictionary_encode()]
        add(counts, "a", pa.chunked_array(pieces), marks(sides, points))
        for value, side, point in zip(values, sides, points, strict=True):
            if value is not None and side >= 0:
                by_point[value, point, side] += 1
                by_side[value, side] += 1
                there[point, side] += 1
        if turn == 1:
            counts.together()

    counts.together()
    column = counts.columns["a"]
    names = column.values.to_pylist()
    found = {(names[code], point, side): count for (code, point, side), count in cells_of(column.cells).items()}
    assert {(point + BASE, side): count for (_, point, side), count in cells_of(column.there).items()} == there
    assert column.few == (distinct <= FEW)
    if column.few:
        assert {(value, point + BASE, side): count for (value, point, side), count in found.items()} == by_point
    else:
        assert {(value, side): count for (value, _, side), count in found.items()} == by_side
    for side in (0, 1):
        order = sorted((-count, value) for (value, of), count in by_side.items() if of == side)
        assert column.values.take(column.most_frequent(side, 10)).to_pylist() == [value for _, value in order[:10]]


def test_a_second_pass_counts_intervals_of_some_values_alone() -> None:
    wanted = pa.array(["b", "c"])
    counts = ValueCounts(BASE, {"a": wanted})
    many = [f"x{number}" for number in range(FEW + 1)]

    add(
        counts,
        "a",
        pa.chunked_array([["b", None, "c", "b", *many]]),
        marks([1, 1, 0, 1] + [0] * len(many), [3] * 4 + [0] * len(many)),
    )
    counts.together()

    assert cells_of(counts.columns["a"].cells) == {(0, 3 - BASE, 1): 2, (1, 3 - BASE, 0): 1}


def test_an_empty_text_is_a_value_only_where_it_is_said() -> None:
    counts = ValueCounts(BASE)
    rows = pa.chunked_array([["", "x"]])
    add(counts, "attribute", rows, marks([0, 0], [0, 0]))
    add(counts, "name", rows, marks([0, 0], [0, 0]), blank=False)
    counts.together()

    assert counts.columns["attribute"].values.to_pylist() == ["", "x"]
    assert counts.columns["name"].values.to_pylist() == ["x"]


def test_a_copy_grows_without_the_first_one() -> None:
    counts = ValueCounts(BASE)
    add(counts, "a", pa.chunked_array([["x"]]), marks([0], [0]))
    more = counts.copy()

    add(more, "a", pa.chunked_array([["x", "y"]]), marks([0, 1], [0, 0]))
    for one in (counts, more):
        one.together()

    assert cells_of(counts.columns["a"].cells) == {(0, -BASE, 0): 1}
    assert cells_of(more.columns["a"].cells) == {(0, -BASE, 0): 2, (1, -BASE, 1): 1}


@pytest.mark.parametrize("uneven", [1, 3])
@pytest.mark.parametrize(
    ("distinct", "first", "rows"),
    [(FEW + 3000, 60_000, 2_000), (FEW + 3000, 60_000, 60_000), (70_000, 8_000, 60_000), (50, 60_000, 2_000)],
)
def test_the_most_frequent_of_two_columns_are_found_without_all_their_values(
    distinct: int, first: int, rows: int, uneven: int
) -> None:
    random, totals = np.random.default_rng(rows), Counter[tuple[str, int]]()

    def some(count: int) -> ValueCounts:
        found = ValueCounts(BASE)
        values = [f"v{one:05}" for one in (distinct * random.random(count) ** uneven).astype(int).tolist()]
        sides = random.integers(0, 2, count).tolist()
        totals.update(zip(values, sides, strict=True))
        add(found, "a", pa.chunked_array([values]), marks(sides, [3] * count))
        found.together()
        return found

    column = some(first).with_most_of(some(rows), 10).columns["a"]

    for side in (0, 1):
        codes = column.most_frequent(side, 10)
        order = sorted((-count, value) for (value, of), count in totals.items() if of == side)[:10]
        assert column.values.take(codes).to_pylist() == [value for _, value in order]
        found = column._totals(side)[codes.to_numpy()].tolist()
        assert found == [-count for count, _ in order]
    assert {(point, side): count for (_, point, side), count in cells_of(column.there).items()} == {
        (3 - BASE, side): sum(count for (_, of), count in totals.items() if of == side) for side in (0, 1)
    }


@pytest.mark.parametrize("room", [0, 1 << 20])
@pytest.mark.parametrize("distinct", [50, FEW + 3000])
def test_rows_that_are_listed_have_the_intervals_of_any_values(distinct: int, room: int) -> None:
    """Where the room for them ends, there are none at all."""
    random, by_point, listed = np.random.default_rng(2), Counter[tuple[str, int, int]](), False
    counts = ValueCounts(BASE, listed_bytes_max=room or 150_000)
    for size in (3000, 20_000, 20_000):  # the first has few values, whatever comes then
        values = [f"v{one:05}" if one >= 0 else None for one in random.integers(-500, distinct, size).tolist()]
        sides, points = (random.integers(low, high, size).tolist() for low, high in ((-1, 2), (-5, 30)))
        add(counts, "a", pa.chunked_array([values]), marks(sides, points))
        for value, side, point in zip(values, sides, points, strict=True):
            if value is not None and side >= 0:
                by_point[value, point, side] += 1
    counts.together()
    listed = counts.listed_bytes_max > 0
    assert listed == (room > 0 or distinct <= FEW)
    if not listed:
        assert counts.columns["a"].rows is None
        return

    names = ["v00003", "v00040", "none such"]
    found = cells_of(counts.columns["a"].intervals_of(pa.array(names)).cells)

    assert {(names[code], point + BASE, side): count for (code, point, side), count in found.items()} == {
        cell: count for cell, count in by_point.items() if cell[0] in names
    }
    counts.unlist()
    assert counts.columns["a"].rows is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([3, None, 900, 3, None], pa.int64()),
        ([None, 2**63 + 5, 2**63], pa.uint64()),
        ([-(2**63), 2**63 - 1, None], pa.int64()),
        ([0.0, -0.0, 2.5, None], pa.float64()),
        ([True, None, False], pa.bool_()),
        (["", "x", None, "x"], pa.string()),
        ([None, None], pa.int64()),
        ([], pa.int64()),
        ([], pa.string()),
    ],
)
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("left_out", [None, 2])
def test_a_column_is_its_values_and_a_code_a_row_that_counts(
    values: list[object], kind: pa.DataType, first: int, left_out: int | None
) -> None:
    column = pa.chunked_array([pa.array(values, kind)]).slice(first)
    sides = [-1 if row == left_out else row % 2 for row in range(len(column))]

    coded = Coded.of(column, Presence(marks(sides, [0] * len(sides))))

    known = coded.values.to_pylist()
    assert None not in known
    assert len(set(known)) == len(known)
    expected = [(value, side) for value, side in zip(column.to_pylist(), sides, strict=True) if value is not None]
    told = [(known[code], side) for code, side in zip(coded.codes.tolist(), coded.group.tolist(), strict=True)]
    assert told == [(value, side) for value, side in expected if side >= 0]


@pytest.mark.parametrize("once", [True, False])
def test_values_of_texts_that_come_in_several_dictionaries_are_one_where_it_is_asked_for(once: bool) -> None:
    pieces = [pa.array(values, pa.string()).dictionary_encode() for values in (["a", None, "b"], ["b", "c", None])]

    coded = Coded.of(pa.chunked_array(pieces), Presence(marks([0, 0, 0, 1, 1, 1], [0] * 6)), once=once)

    known = coded.values.to_pylist()
    assert len(known) == (3 if once else 4)
    assert [known[code] for code in coded.codes.tolist()] == ["a", "b", "b", "c"]
    assert coded.group.tolist() == [0, 0, 1, 1]
    some = coded.among(pa.array(["c", "z", "a"]))
    assert some.codes.tolist() == [2, 0]
    assert some.group.tolist() == [0, 1]


def test_columns_that_lack_a_value_in_the_same_rows_share_the_list_of_the_others() -> None:
    presence = Presence(marks([0, 1, -1, 0], [0] * 4))
    one, other = pa.array([None, 2, 3, 4]), pa.array(["", "b", None, None])

    assert presence.of(one) is presence.of(pa.array([None, 6, 7, 8]))
    assert presence.of(one).group.tolist() == [1, 0]
    assert presence.of(other).group.tolist() == [0, 1]
    assert presence.of(pa.array([1, 2, 3, 4])).group.tolist() == [0, 1, 0]
