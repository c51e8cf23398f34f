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
from pipeline.traceql.folding import COMPARE

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
INVERSE = {">": "<", "<": ">", ">>": "<<", "<<": ">>", "~": "~"}


class Numbers(NamedTuple):
    """Numbers, whole ones (int64) or not (float64), and which of them there are. durations: all are some, in ns."""

    values: npt.NDArray[Any]
    valid: Mask
    durations: bool = False


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
        with np.errstate(invalid="ignore"):
            holds = left.valid & right.valid & COMPARE[stage.op](left.values, right.values)
        for aggregate in _aggregates(stage):
            numbers = self._scalar(aggregate, sets)
            sets = sets.with_attribute(aggregate, [one.item() for one in numbers.values])
        return sets.kept(holds[sets.of])

    def _scalar(self, node: tree.Scalar, sets: Sets) -> Numbers:
        """A number for each spanset."""
        count = len(sets.trace)
        if isinstance(node, tree.Static):
            return Numbers(np.full(count, node.value), np.ones(count, dtype=bool), node.type == "duration")
        if isinstance(node, tree.Aggregate):
            return self._aggregate(node, sets)
        if isinstance(node, tree.ScalarPipeline):
            keep = self._survivors(node.pipeline, sets)
            return self._aggregate(node.aggregate, sets._replace(rows=sets.rows[keep], of=sets.of[keep]))
        return arithmetic(node.op, self._scalar(node.left, sets), self._scalar(node.right, sets))

    def _aggregate(self, node: tree.Aggregate, sets: Sets) -> Numbers:
        count = len(sets.trace)
        if node.argument is None:
            return Numbers(np.bincount(sets.of, minlength=count), np.ones(count, dtype=bool))
        numbers = self._computed.numbers[node.argument]
        there = numbers.valid[sets.rows]
        of, values = sets.of[there], numbers.values[sets.rows][there]
        counts = np.bincount(of, minlength=count)
        valid = counts > 0
        if not valid.any():
            return Numbers(np.zeros(count), valid)
        function = {"min": np.minimum, "max": np.maximum, "sum": np.add, "avg": np.add}[node.function]
        firsts = np.flatnonzero(np.concatenate(([True], of[1:] != of[:-1])))
        found = np.zeros(count, dtype=values.dtype)
        found[valid] = function.reduceat(values, firsts)
        if node.function != "avg":
            return Numbers(found, valid, numbers.durations)
        means = found / np.maximum(counts, 1)
        return Numbers(np.rint(means).astype(np.int64), valid, True) if numbers.durations else Numbers(means, valid)


def arithmetic(op: str, left: Numbers, right: Numbers) -> Numbers:
    """As between fields: whole numbers stay whole, and what cannot be computed is no number."""
    valid = left.valid & right.valid
    x, y = left.values, right.values
    whole = x.dtype.kind == "i" and y.dtype.kind == "i" and not left.durations and not right.durations
    with np.errstate(all="ignore"):
        if op in ("/", "%"):
            valid &= y != 0
            y = np.where(y == 0, 1, y)
            if op == "%":
                return Numbers(np.fmod(x, y), valid)
            found = x / y
            return Numbers(np.trunc(found).astype(np.int64) if whole else found, valid)
        if op == "^":
            found = np.power(x.astype(np.float64), y.astype(np.float64))
            return Numbers(np.trunc(found).astype(np.int64) if whole else found, valid & np.isfinite(found))
        return Numbers({"+": np.add, "-": np.subtract, "*": np.multiply}[op](x, y), valid)


def _aggregates(node: tree.ScalarFilter | tree.Scalar) -> list[tree.Aggregate]:
    """The aggregates of a scalar filter, in order, each once."""
    if isinstance(node, tree.Aggregate):
        return [node]
    if isinstance(node, tree.ScalarFilter | tree.ScalarOperation):
        return list(dict.fromkeys([*_aggregates(node.left), *_aggregates(node.right)]))
    return []
