"""Series of points, what the second stages keep of them (9.5), and calculating with them (9.8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.traceql.tree import Rank, Static, Threshold
from tests.pipeline.traceql.reference.values import ORDERED, sort_key

Labels = tuple[tuple[str, Static], ...]
NAME = "__name__"
HOLDS: dict[str, Callable[[float, float], bool]] = {**ORDERED, "!=": lambda value, other: value != other}


@dataclass(frozen=True, slots=True)
class Series:
    """points: end of the interval in Unix ns -> value; where there is none, nothing was measured."""

    labels: Labels
    points: dict[int, float]


def named(name: str) -> tuple[str, Static]:
    return NAME, Static("string", name)


def label_order(series: Series) -> Any:
    """By number of labels, then keys, then values (9.3); values of several types by the type's name first."""
    keys = [key for key, _ in series.labels]
    return len(keys), keys, [(value.type, sort_key(value)) for _, value in series.labels]


def in_label_order(series: list[Series]) -> list[Series]:
    """Those that have a point: no data, no series."""
    return sorted((one for one in series if one.points), key=label_order)


# ---- second stages


def after(stages: tuple[Rank | Threshold, ...], series: list[Series]) -> list[Series]:
    """What the stages leave, one after the other; a series without points vanishes."""
    series = in_label_order(series)
    for stage in stages:
        series = ranked(stage, series) if isinstance(stage, Rank) else above(stage, series)
    return series


def ranked(stage: Rank, series: list[Series]) -> list[Series]:
    """At each time the largest or smallest; of equal ones the first by labels."""
    kept: list[dict[int, float]] = [{} for _ in series]
    for at in {at for one in series for at in one.points}:
        there = [place for place, one in enumerate(series) if at in one.points]
        sign = -1 if stage.function == "topk" else 1
        for place in sorted(there, key=lambda place: (sign * series[place].points[at], place))[: stage.count]:
            kept[place][at] = series[place].points[at]
    return [
        Series(one.labels, dict(sorted(points.items()))) for one, points in zip(series, kept, strict=True) if points
    ]


def above(stage: Threshold, series: list[Series]) -> list[Series]:
    """The points for which the comparison holds."""
    kept = [
        Series(one.labels, {at: value for at, value in one.points.items() if HOLDS[stage.op](value, stage.value)})
        for one in series
    ]
    return [one for one in kept if one.points]


# ---- calculating

Side = list[Series] | float


def calculated(op: str, left: Side, right: Side) -> list[Series]:
    """Series with equal labels, point by point; a number, or the only series of an ungrouped query, with each.

    What has no counterpart is left out, and so is what is no number (x / 0). Grouped series keep their labels; the name
    of ungrouped ones tells the calculation, `(rate / count_over_time)`.
    """
    pairs = [
        (one, other)
        for one in side(left)
        for other in side(right)
        if fans_out(left) or fans_out(right) or grouping(one) == grouping(other)
    ]
    return in_label_order([pointwise(op, one, other) for one, other in pairs])


def side(of: Side) -> list[Series | float]:
    return [*of] if isinstance(of, list) else [of]


def grouping(of: Series | float) -> Any:
    return frozenset(label for label in of.labels if label[0] != NAME) if isinstance(of, Series) else frozenset()


def fans_out(of: Side) -> bool:
    return not isinstance(of, list) or (len(of) == 1 and not grouping(of[0]))


def pointwise(op: str, left: Series | float, right: Series | float) -> Series:
    lefts, rights = points_of(left, right), points_of(right, left)
    values = {at: operated(op, lefts[at], rights[at]) for at in lefts if at in rights}
    points = {at: value for at, value in values.items() if math.isfinite(value)}
    return Series(told(op, left, right), points)


def told(op: str, left: Series | float, right: Series | float) -> Labels:
    """The labels of the side that has more, and of ungrouped ones the calculation as their name."""
    labels = max(
        (one.labels for one in (left, right) if isinstance(one, Series)), key=lambda one: len(without_name(one))
    )
    if NAME not in dict(labels):
        return labels
    return named(f"({name_of(left)} {op} {name_of(right)})"), *without_name(labels)


def points_of(of: Series | float, other: Series | float) -> dict[int, float]:
    """A number stands at each time of the other side."""
    if isinstance(of, Series):
        return of.points
    return dict.fromkeys(other.points, of) if isinstance(other, Series) else {}


def operated(op: str, left: float, right: float) -> float:
    if op == "/":
        return left / right if right else math.nan
    return {"+": left + right, "-": left - right, "*": left * right}[op]


def without_name(labels: Labels) -> Labels:
    return tuple(label for label in labels if label[0] != NAME)


def name_of(of: Series | float) -> str:
    return str(dict(of.labels)[NAME].value) if isinstance(of, Series) else f"{of:g}"
