"""Series of points: what second stages keep of them, calculating with them, in numpy.

A point stands at the end of its interval. Series are in the order of labels: fewer first, then by keys, then by values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.traceql import tree
from pipeline.traceql.durations import duration_text
from pipeline.traceql.folding import COMPARE

NAME = "__name__"
WORDS = {"status": tree.STATUSES, "kind": tree.KINDS}
CALCULATE: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
}
Floats = npt.NDArray[np.float64]


class Label(NamedTuple):
    """type: as in pipeline.query.values, of a scalar; value: of status and kind the word."""

    key: str
    type: str
    value: str | int | float | bool


Labels = tuple[Label, ...]


class Exemplar(NamedTuple):
    """A span that a point stands for. labels: of its series; point: the number of the interval."""

    labels: Labels
    point: int
    trace_id: bytes
    start_unix_ns: int
    value: float


@dataclass(frozen=True, slots=True)
class SeriesTable:
    """values: shape (series, points), NaN where a series has no point. times_ns: of the points, Unix ns.

    Made by `in_order`: a series has at least one point.
    """

    labels: list[Labels]
    values: Floats
    times_ns: npt.NDArray[np.int64]
    exemplars: list[Exemplar] = field(default_factory=list)

    def kept(self, values: Floats) -> SeriesTable:
        """With these values in the place of its own; series without points are gone."""
        there = np.flatnonzero(~np.isnan(values).all(axis=1)) if values.size else np.zeros(0, dtype=np.int64)
        labels = [self.labels[at] for at in there.tolist()]
        named = set(labels)
        return replace(
            self,
            labels=labels,
            values=values[there],
            exemplars=[one for one in self.exemplars if one.labels in named],
        )


def shown(type_: str, value: Any) -> tuple[str, Any]:
    """Type and value of a label: words in the place of numbers, durations as text."""
    if type_ in WORDS:
        words = WORDS[type_]
        return type_, words[value] if 0 <= value < len(words) else str(value)
    return ("string", duration_text(value)) if type_ == "duration" else (type_, value)


def named(name: str) -> Label:
    """The label of a series that has no group."""
    return Label(NAME, "string", name)


def in_order(labels: Sequence[Labels], values: Floats, times_ns: npt.NDArray[np.int64]) -> SeriesTable:
    """Series in the order of their labels; those without points are gone."""
    order = sorted(range(len(labels)), key=lambda at: _place(labels[at]))
    return SeriesTable([labels[at] for at in order], values[order], times_ns).kept(values[order])


def _place(labels: Labels) -> Any:
    keys = [label.key for label in labels]
    values = [(one.type, one.value.encode() if isinstance(one.value, str) else one.value) for one in labels]
    return len(keys), keys, values


# ---- second stages


def after(stages: Iterable[tree.Rank | tree.Threshold], series: SeriesTable) -> SeriesTable:
    """What the stages leave, one after the other."""
    for stage in stages:
        series = _ranked(stage, series) if isinstance(stage, tree.Rank) else _compared(stage, series)
    return series


def _ranked(stage: tree.Rank, series: SeriesTable) -> SeriesTable:
    """At each time the largest or smallest; of equal ones the first by labels."""
    there = ~np.isnan(series.values)
    sign = -1 if stage.function == "topk" else 1
    order = np.argsort(np.where(there, sign * series.values, np.inf), axis=0, kind="stable")
    first = np.zeros_like(there)
    np.put_along_axis(first, order[: stage.count], True, axis=0)
    return series.kept(np.where(first & there, series.values, np.nan))


def _compared(stage: tree.Threshold, series: SeriesTable) -> SeriesTable:
    holds = COMPARE[stage.op](series.values, stage.value) & ~np.isnan(series.values)
    return series.kept(np.where(holds, series.values, np.nan))


# ---- calculating

Side = SeriesTable | float


def calculated(op: str, left: Side, right: Side) -> SeriesTable:
    """Series with equal labels, point by point; a number, or the only series of an ungrouped query, with each.

    What has no counterpart is left out, and so is what is no number (x / 0). Grouped series keep their labels; the name
    of ungrouped ones tells the calculation, `(rate / count_over_time)`.
    """
    times_ns = next(side.times_ns for side in (left, right) if isinstance(side, SeriesTable))
    pairs = list(_pairs(left, right))
    with np.errstate(all="ignore"):
        found = [CALCULATE[op](_values(left, one), _values(right, other)) for one, other in pairs]
    labels = [_told(op, _labels(left, one), _labels(right, other)) for one, other in pairs]
    values = np.array(found, dtype=np.float64).reshape(len(found), len(times_ns))
    return in_order(labels, np.where(np.isfinite(values), values, np.nan), times_ns)


def _pairs(left: Side, right: Side) -> Iterable[tuple[int, int]]:
    lefts, rights = (range(len(side.labels)) if isinstance(side, SeriesTable) else range(1) for side in (left, right))
    if _fans_out(left) or _fans_out(right):
        return [(one, other) for one in lefts for other in rights]
    assert isinstance(left, SeriesTable)
    assert isinstance(right, SeriesTable)
    at = {_grouping(labels): number for number, labels in enumerate(right.labels)}
    groups = [_grouping(labels) for labels in left.labels]
    return [(one, at[group]) for one, group in enumerate(groups) if group in at]


def _fans_out(side: Side) -> bool:
    return not isinstance(side, SeriesTable) or (len(side.labels) == 1 and not _grouping(side.labels[0]))


def _grouping(labels: Labels) -> frozenset[Label]:
    return frozenset(label for label in labels if label.key != NAME)


def _values(side: Side, at: int) -> Any:
    return side.values[at] if isinstance(side, SeriesTable) else side


def _labels(side: Side, at: int) -> Labels | float:
    return side.labels[at] if isinstance(side, SeriesTable) else side


def _told(op: str, left: Labels | float, right: Labels | float) -> Labels:
    """The labels of the side that has more, and of ungrouped ones the calculation as their name."""
    sides = [side for side in (left, right) if not isinstance(side, float | int)]
    groups = [tuple(label for label in side if label.key != NAME) for side in sides]
    at = max(range(len(sides)), key=lambda number: len(groups[number]))
    if all(label.key != NAME for label in sides[at]):
        return sides[at]
    return named(f"({_name(left)} {op} {_name(right)})"), *groups[at]


def _name(side: Labels | float) -> str:
    if isinstance(side, float | int):
        return f"{side:g}"
    return str(next(label.value for label in side if label.key == NAME))
