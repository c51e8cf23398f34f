"""A TraceQL pipeline over whole traces: spansets in numpy, from truths and values that the engine computed a row.

All traces at hand are worked on at once. A spanset is a number; each of its rows stands once, ascending.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.query.trace_rows import TraceRows
from pipeline.traceql import tree
from pipeline.traceql.folding import COMPARE, int_power

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
INVERSE = {">": "<", "<": ">", ">>": "<<", "<<": ">>", "~": "~"}
FOLDS = {"min": np.minimum, "max": np.maximum, "sum": np.add, "avg": np.add}
ROOM = 2.0**63  # beyond it whole numbers do not fit


class Numbers(NamedTuple):
    """Numbers as floats, and in `whole` those that are whole numbers; which of them there are.

    durations: all are some, in ns.
    """

    values: Floats
    whole: Ints
    is_whole: Mask
    valid: Mask
    durations: bool = False

    @classmethod
    def of_whole(cls, whole: Ints, valid: Mask, *, durations: bool = False) -> Numbers:
        """Whole ones alone."""
        return cls(whole.astype(np.float64), whole, np.ones(len(whole), dtype=bool), valid, durations)

    def item(self, at: int) -> int | float:
        """One of them."""
        return int(self.whole[at]) if self.is_whole[at] else float(self.values[at])


class Keys(NamedTuple):
    """Values to group by: values[codes[row]], as (type, value); None for no value."""

    codes: Ints
    values: list[tuple[str, Any] | None]


class Computed(NamedTuple):
    """What the engine computed for each row, by expression."""

    truths: Mapping[tree.Field, Mask]
    numbers: Mapping[tree.Field, Numbers]
    keys: Mapping[tree.Field, Keys]


Attributes = tuple[tuple[tree.GroupBy | tree.Aggregate, Any], ...]


class Sets(NamedTuple):
    """Spansets: their rows, the set of each row (ascending), and of each set its trace and attributes."""

    rows: Ints
    of: Ints
    trace: Ints
    attributes: list[Attributes]

    def kept(self, keep: Mask) -> Sets:
        """With these of the rows alone; a set without rows is gone."""
        rows, of = self.rows[keep], self.of[keep]
        numbers, of = np.unique(of, return_inverse=True)
        return Sets(rows, of.astype(np.int64), self.trace[numbers], [self.attributes[at] for at in numbers.tolist()])

    def with_attribute(self, of: tree.GroupBy | tree.Aggregate, values: list[Any]) -> Sets:
        """A further attribute of each set."""
        found = [
            (*(each for each in attributes if each[0] != of), (of, value))
            for attributes, value in zip(self.attributes, values, strict=True)
        ]
        return self._replace(attributes=found)


class Evaluation:
    """One pipeline, or a part of it, over rows."""

    def __init__(self, rows: TraceRows, computed: Computed) -> None:
        self._rows = rows
        self._computed = computed
        self._levels: list[Ints] | None = None

    def run(self, pipeline: tree.Pipeline) -> Sets:
        """The spansets that are left of those with all spans of each trace."""
        return self._run(pipeline, self._of_mask(np.ones(len(self._rows.trace), dtype=bool)))

    def _run(self, pipeline: tree.Pipeline, sets: Sets) -> Sets:
        for stage in pipeline.stages:
            sets = self._stage(stage, sets)
        return sets

    def _stage(self, stage: tree.Stage, sets: Sets) -> Sets:
        if isinstance(stage, tree.Select):
            return sets
        if isinstance(stage, tree.ScalarFilter):
            return self._scalar_filter(stage, sets)
        if isinstance(stage, tree.GroupBy):
            return self._grouped(stage, sets)
        if isinstance(stage, tree.Coalesce):
            return self._of_mask(self._mask_of(sets))
        if isinstance(stage, tree.Wrapped):
            return sets.kept(self._survivors(stage.pipeline, sets))
        return sets.kept(self._spans(stage, self._mask_of(sets))[sets.rows])

    # ---- spans of spansets as masks over all rows

    def _of_mask(self, mask: Mask) -> Sets:
        """One spanset a trace."""
        rows = np.flatnonzero(mask)
        traces, of = np.unique(self._rows.trace[rows], return_inverse=True)
        return Sets(rows, of.astype(np.int64), traces, [()] * len(traces))

    def _mask_of(self, sets: Sets) -> Mask:
        mask = np.zeros(len(self._rows.trace), dtype=bool)
        mask[sets.rows] = True
        return mask

    def _survivors(self, pipeline: tree.Pipeline, sets: Sets) -> Mask:
        """Which rows of the sets are left by a pipeline that each goes through for itself."""
        return self._mask_of(self._run(pipeline, sets))[sets.rows]

    def _spans(self, stage: tree.Spanset, given: Mask) -> Mask:
        if isinstance(stage, tree.Filter):
            return given & self._computed.truths[stage.condition]
        if isinstance(stage, tree.Wrapped):
            return self._mask_of(self._run(stage.pipeline, self._of_mask(given)))
        left, right = self._spans(stage.left, given), self._spans(stage.right, given)
        if stage.op in tree.SET_OPERATORS:
            both = self._anywhere(left) & self._anywhere(right) if stage.op == "&&" else None
            return left | right if both is None else (left | right) & both[self._rows.trace]
        kind, op = (stage.op[0], stage.op[1:]) if stage.op[0] in "!&" else ("", stage.op)
        related = right & self._related(op, left)
        if kind == "!":
            return right & ~related
        return related | left & self._related(INVERSE[op], right) if kind else related

    def _anywhere(self, mask: Mask) -> Mask:
        """Which traces have a row of the mask."""
        return np.bincount(self._rows.trace[mask], minlength=len(self._rows.trace_ids)) > 0

    # ---- structure

    def _related(self, op: str, left: Mask) -> Mask:
        """The rows r of which some row l of `left` makes `l op r` true."""
        return {">": self._children, "<": self._parents, ">>": self._below, "<<": self._above, "~": self._siblings}[op](
            left
        )

    def _children(self, of: Mask) -> Mask:
        parent = self._rows.parent
        return (parent >= 0) & of[parent]

    def _parents(self, of: Mask) -> Mask:
        found = np.zeros(len(of), dtype=bool)
        parent = self._rows.parent[of]
        found[parent[parent >= 0]] = True
        return found

    def _below(self, of: Mask) -> Mask:
        found = np.zeros(len(of), dtype=bool)
        for rows in self._by_depth()[1:]:
            parent = self._rows.parent[rows]
            found[rows] = of[parent] | found[parent]
        return found

    def _above(self, of: Mask) -> Mask:
        found = np.zeros(len(of), dtype=bool)
        for rows in reversed(self._by_depth()[1:]):
            below = rows[of[rows] | found[rows]]
            found[self._rows.parent[below]] = True
        return found

    def _siblings(self, of: Mask) -> Mask:
        """Roots of a trace count as siblings of each other."""
        parent = self._rows.parent
        family = np.where(parent >= 0, parent, len(parent) + self._rows.trace)
        members = np.bincount(family[of], minlength=len(parent) + len(self._rows.trace_ids))
        return members[family] - of > 0

    def _by_depth(self) -> list[Ints]:
        """The rows of each depth, roots first."""
        if self._levels is None:
            order = np.argsort(self._rows.depth, kind="stable")
            self._levels = np.split(order, np.flatnonzero(np.diff(self._rows.depth[order])) + 1)
        return self._levels

    # ---- groups and scalars

    def _grouped(self, stage: tree.GroupBy, sets: Sets) -> Sets:
        keys = self._computed.keys[stage.expression]
        combined = sets.of * (len(keys.values) + 1) + keys.codes[sets.rows]
        numbers, of = np.unique(combined, return_inverse=True)
        order = np.argsort(of, kind="stable")
        old, codes = np.divmod(numbers, len(keys.values) + 1)
        found = Sets(
            sets.rows[order],
            of[order].astype(np.int64),
            sets.trace[old],
            [sets.attributes[at] for at in old.tolist()],
        )
        return found.with_attribute(stage, [keys.values[code] for code in codes.tolist()])

    def _scalar_filter(self, stage: tree.ScalarFilter, sets: Sets) -> Sets:
        left, right = self._scalar(stage.left, sets), self._scalar(stage.right, sets)
        exact = COMPARE[stage.op](left.whole, right.whole)
        about = COMPARE[stage.op](left.values, right.values)
        holds = left.valid & right.valid & np.where(left.is_whole & right.is_whole, exact, about)
        for aggregate in _aggregates(stage):
            numbers = self._scalar(aggregate, sets)
            sets = sets.with_attribute(aggregate, [numbers.item(at) for at in range(len(sets.trace))])
        return sets.kept(holds[sets.of])

    def _scalar(self, node: tree.Scalar, sets: Sets) -> Numbers:
        """A number for each spanset."""
        count = len(sets.trace)
        if isinstance(node, tree.Static):
            return _constant(node, count)
        if isinstance(node, tree.Aggregate):
            return self._aggregate(node, sets)
        if isinstance(node, tree.ScalarPipeline):
            keep = self._survivors(node.pipeline, sets)
            return self._aggregate(node.aggregate, sets._replace(rows=sets.rows[keep], of=sets.of[keep]))
        return arithmetic(node.op, self._scalar(node.left, sets), self._scalar(node.right, sets))

    def _aggregate(self, node: tree.Aggregate, sets: Sets) -> Numbers:
        count = len(sets.trace)
        if node.argument is None:
            return Numbers.of_whole(np.bincount(sets.of, minlength=count), np.ones(count, dtype=bool))
        numbers = self._computed.numbers[node.argument]
        rows, of = sets.rows[numbers.valid[sets.rows]], sets.of[numbers.valid[sets.rows]]
        are_whole = numbers.is_whole[rows]
        found, counts = _folded(node.function, numbers.values[rows], of, count)
        whole, whole_counts = _folded(node.function, numbers.whole[rows[are_whole]], of[are_whole], count)
        valid = counts > 0
        if node.function in ("min", "max"):
            is_whole = (whole_counts > 0) & (whole == found)
            return Numbers(found, whole, is_whole, valid, numbers.durations)
        is_whole = (whole_counts == counts) & (np.abs(found) < ROOM)
        if node.function == "sum":
            return Numbers(found, whole, is_whole, valid, numbers.durations)
        means = np.where(is_whole, whole, found) / np.maximum(counts, 1)
        if numbers.durations:
            return Numbers.of_whole(np.rint(means).astype(np.int64), valid, durations=True)
        return Numbers(means, whole, np.zeros(count, dtype=bool), valid)


def _constant(node: tree.Static, count: int) -> Numbers:
    there = np.ones(count, dtype=bool)
    if node.type == "float":
        return Numbers(np.full(count, node.value), np.zeros(count, dtype=np.int64), ~there, there)
    return Numbers.of_whole(np.full(count, node.value, dtype=np.int64), there, durations=node.type == "duration")


def _folded(function: str, values: npt.NDArray[Any], of: Ints, count: int) -> tuple[npt.NDArray[Any], Ints]:
    """What the values of each spanset come to, and how many they are. of: ascending."""
    counts = np.bincount(of, minlength=count)
    found = np.zeros(count, dtype=values.dtype)
    if len(of):
        firsts = np.flatnonzero(np.concatenate(([True], of[1:] != of[:-1])))
        found[counts > 0] = FOLDS[function].reduceat(values, firsts)
    return found, counts


def arithmetic(op: str, left: Numbers, right: Numbers) -> Numbers:
    """As between fields: whole numbers stay whole, durations count as floats; what cannot be computed is no number."""
    valid = left.valid & right.valid
    with np.errstate(all="ignore"):
        found = ON_FLOATS[op](left.values, right.values)
        is_whole = left.is_whole & right.is_whole
        if left.durations or right.durations or not is_whole.any():
            nothing = np.zeros(len(found), dtype=np.int64)
            return Numbers(found, nothing, nothing != 0, valid & np.isfinite(found))
        whole, there = _of_whole(op, left.whole, right.whole, found)
        values = np.where(is_whole, whole, found)
        return Numbers(values, whole, is_whole, valid & np.where(is_whole, there, np.isfinite(found)))


ON_FLOATS: dict[str, np.ufunc] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
}


def _of_whole(op: str, x: Ints, y: Ints, about: Floats) -> tuple[Ints, Mask]:
    """Division cuts off what is behind the point. about: the same in floats, which says whether there is room."""
    if op == "^":
        powers = [int_power(*pair) for pair in zip(x.tolist(), y.tolist(), strict=True)]
        return np.array([one or 0 for one in powers], dtype=np.int64), np.array([one is not None for one in powers])
    room = np.abs(about) < ROOM
    if op in ("+", "-", "*"):
        return ON_FLOATS[op](x, y), room
    divisor = np.where(y == 0, 1, y)
    rest = np.fmod(x, divisor)
    return (rest, y != 0) if op == "%" else ((x - rest) // divisor, room)


def _aggregates(node: tree.ScalarFilter | tree.Scalar) -> list[tree.Aggregate]:
    """The aggregates of a scalar filter, in order, each once."""
    if isinstance(node, tree.Aggregate):
        return [node]
    if isinstance(node, tree.ScalarFilter | tree.ScalarOperation):
        return list(dict.fromkeys([*_aggregates(node.left), *_aggregates(node.right)]))
    return []
