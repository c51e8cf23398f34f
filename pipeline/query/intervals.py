"""The intervals of a metrics query: which span belongs to which point."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.query.sql import Sql, sql


class Intervals(NamedTuple):
    """Intervals (low + i * step, low + (i + 1) * step] of starts, in Unix ns; a point stands at the end of each."""

    low_ns: int
    step_ns: int
    points: int

    @classmethod
    def of_range(cls, start_ns: int, end_ns: int, step_ns: int) -> Intervals:
        """Points from start, rounded down to the step, to end, rounded up, both included."""
        first, last = start_ns // step_ns, -(-end_ns // step_ns)
        return cls((first - 1) * step_ns, step_ns, last - first + 1)

    @property
    def high_ns(self) -> int:
        """The last start that counts."""
        return self.low_ns + self.points * self.step_ns

    @property
    def starts_ns(self) -> tuple[int, int]:
        """The first start that counts, and the last one."""
        return self.low_ns + 1, self.high_ns

    @property
    def times_ns(self) -> npt.NDArray[np.int64]:
        """Of the points."""
        return self.low_ns + self.step_ns * np.arange(1, self.points + 1)

    def aligned(self) -> tuple[Intervals, int]:
        """Intervals that are the same for each range with this step, and the number among them of the first of these.

        Where there is one alone, all that is in it is in one of those.
        """
        if self.points == 1:
            return Intervals(-1, 1 << 63, 1), 0
        low_ns = self.low_ns % self.step_ns - self.step_ns
        return Intervals(low_ns, self.step_ns, 1), (self.low_ns - low_ns) // self.step_ns

    def first_after(self, start_ns: int) -> int:
        """The number of the first interval in which nothing starts that starts then or earlier."""
        return min(max(0, -(-(start_ns - self.low_ns) // self.step_ns)), self.points)

    def holds(self) -> Sql:
        """Whether a span starts in one of them."""
        low, high = max(self.low_ns, -1), min(self.high_ns, 2**64 - 1)
        after = Sql("true") if low < 0 else Sql("start_unix_ns > ?::UBIGINT", (low,))
        return sql("({} AND start_unix_ns <= {})", after, Sql("?::UBIGINT", (high,)))

    def number(self) -> Sql:
        """The number of the interval of a span that starts in one."""
        sign = "-" if self.low_ns >= 0 else "+"
        return Sql(f"((start_unix_ns {sign} {abs(self.low_ns + 1)}::UBIGINT) // {self.step_ns}::UBIGINT)::BIGINT")
