"""Orders of traces, and cursors: where in an order an answer ended."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.query.summary import TraceSummary
from topics.errors import BadQuestionError

VALUE_BYTES = 16  # a duration may be longer than 64 bits of nanoseconds hold
CURSOR_BYTES = 1 + VALUE_BYTES + 16
LARGEST = 1 << 8 * VALUE_BYTES


@dataclass(frozen=True, slots=True)
class Order:
    """How traces are sorted; of equal ones the lesser trace ID comes first.

    sql: what is compared: of `first` and `last`, the start and the end of a trace, or its `spans_count` or
    `errors_count`; value: the same of a summary. letter: begins its cursors.
    """

    name: str
    letter: str
    sql: str
    descending: bool
    value: Callable[[TraceSummary], int]

    def key(self, trace: TraceSummary) -> tuple[int, bytes]:
        """Sorts traces."""
        value = self.value(trace)
        return (-value if self.descending else value), trace.trace_id

    @property
    def sorting(self) -> str:
        """What stands behind ORDER BY."""
        return f"{self.sql}{' DESC' if self.descending else ''}, trace_id"

    # ---- cursors

    def cursor(self, trace: TraceSummary) -> str:
        """Asks for what comes after this trace."""
        raw = self.letter.encode() + self.value(trace).to_bytes(VALUE_BYTES, "big") + trace.trace_id
        return base64.urlsafe_b64encode(raw).decode()

    def after(self, cursor: str) -> tuple[str, list[str | bytes]]:
        """SQL that holds of the traces after a cursor, and its values. Raises BadQuestionError."""
        try:
            raw = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True)
        except ValueError as exc:
            raise BadQuestionError(f"invalid cursor: {cursor[:100]}") from exc
        if len(raw) != CURSOR_BYTES or raw[:1] != self.letter.encode():
            raise BadQuestionError(f"invalid cursor: {cursor[:100]} is none of an answer with order={self.name}")
        value = int.from_bytes(raw[1:-16], "big")
        if value >= LARGEST // 2:
            raise BadQuestionError(f"invalid cursor: {cursor[:100]}")
        further = "<" if self.descending else ">"
        # As text: the engine's values end at 64 bits
        sql = f"({self.sql} {further} ?::HUGEINT OR ({self.sql} = ?::HUGEINT AND trace_id > ?))"
        return sql, [str(value), str(value), raw[-16:]]


def _start(trace: TraceSummary) -> int:
    return trace.start_unix_ns


def _duration(trace: TraceSummary) -> int:
    return trace.duration_ns


NEWEST = Order("newest", "n", "first", descending=True, value=_start)
ORDERS = {
    order.name: order
    for order in (
        NEWEST,
        Order("oldest", "o", "first", descending=False, value=_start),
        Order("longest", "l", "(last - first)", descending=True, value=_duration),
        Order("shortest", "s", "(last - first)", descending=False, value=_duration),
        Order("most_spans", "m", "spans_count", descending=True, value=lambda trace: trace.spans),
        Order("most_errors", "e", "errors_count", descending=True, value=lambda trace: trace.errors),
    )
}
