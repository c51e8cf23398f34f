"""Answers: what Python reads, what a notebook shows, and tables of Arrow, pandas and Polars."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from spanstream import html

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

SHOWN_ROWS = 30
INT64 = range(-(2**63), 2**63)
T = TypeVar("T")


class Answer(ABC):
    """complete: whether all of it is there; message: why it may not be."""

    def __init__(self, complete: bool, message: str) -> None:
        self.complete, self.message = complete, message

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def arrow(self) -> pa.Table:
        """A pyarrow Table."""

    def pandas(self) -> pd.DataFrame:
        """A DataFrame of pandas, which must be installed."""
        return self.arrow().to_pandas()

    def polars(self) -> pl.DataFrame:
        """A DataFrame of Polars, which must be installed."""
        import polars

        found = polars.from_arrow(self.arrow())
        assert isinstance(found, polars.DataFrame)
        return found

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """What DuckDB, Polars and others take an Arrow table from."""
        return self.arrow().__arrow_c_stream__(requested_schema)

    def _note(self) -> str:
        return "" if self.complete else f"The answer is PARTIAL: {self.message}"


class Many(Answer, Sequence[T]):
    """An answer that is a sequence as well."""

    def __init__(self, items: list[T], *, complete: bool, message: str) -> None:
        super().__init__(complete, message)
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> T: ...

    @overload
    def __getitem__(self, at: slice) -> list[T]: ...

    def __getitem__(self, at: int | slice) -> T | list[T]:
        return self._items[at]


# ---- search


@dataclass(frozen=True, slots=True)
class FoundTrace:
    """A trace that a search found. matched: how many of its spans the query found; found: the first of them."""

    trace_id: str
    start_unix_ns: int
    duration_ms: int
    spans: int
    errors: int
    root_service: str
    root_name: str
    services: tuple[str, ...]
    matched: int
    found: tuple[dict[str, Any], ...] = field(repr=False)

    @property
    def start(self) -> datetime:
        """To the microsecond, in UTC."""
        return datetime.fromtimestamp(self.start_unix_ns // 1000 / 1e6, UTC)


class FoundTraces(Many[FoundTrace]):
    """The traces of a search in its order. next_cursor: asks for those that follow; empty where none do."""

    def __init__(self, answer: dict[str, Any]) -> None:
        found = [_found_trace(one) for one in answer.get("traces", [])]
        super().__init__(found, complete=answer.get("complete", True), message=answer.get("message", ""))
        self.next_cursor: str = answer.get("nextCursor", "")

    def arrow(self) -> pa.Table:
        """A row a trace."""
        import pyarrow as pa

        rows = self._items
        return pa.table(
            {
                "trace_id": pa.array([one.trace_id for one in rows], pa.string()),
                "start": instants([one.start_unix_ns for one in rows]),
                "duration_ms": pa.array([one.duration_ms for one in rows], pa.int64()),
                "spans": pa.array([one.spans for one in rows], pa.int64()),
                "errors": pa.array([one.errors for one in rows], pa.int64()),
                "root_service": pa.array([one.root_service for one in rows], pa.string()),
                "root_name": pa.array([one.root_name for one in rows], pa.string()),
                "services": pa.array([list(one.services) for one in rows], pa.list_(pa.string())),
                "matched": pa.array([one.matched for one in rows], pa.int64()),
            }
        )

    def __repr__(self) -> str:
        return f"<{len(self):,} traces{'' if self.complete else ', PARTIAL'}>"

    def _repr_html_(self) -> str:
        titles = ("trace", "start", "duration", "spans", "errors", "root")
        rows = [
            (
                html.code(one.trace_id),
                html.text(html.when(one.start_unix_ns)),
                html.number(html.duration(one.duration_ms * 10**6)),
                html.number(f"{one.spans:,}"),
                html.number(f"{one.errors:,}" if one.errors else "", bad=True),
                html.service(one.root_service) + " " + html.text(one.root_name),
            )
            for one in self._items[:SHOWN_ROWS]
        ]
        return html.table(titles, rows, html.more(len(self) - SHOWN_ROWS), self._note())


def _found_trace(one: dict[str, Any]) -> FoundTrace:
    stats = one.get("serviceStats", {})
    sets = one.get("spanSets", [])
    return FoundTrace(
        trace_id=one["traceID"].zfill(32),
        start_unix_ns=int(one.get("startTimeUnixNano", 0)),
        duration_ms=int(one.get("durationMs", 0)),
        spans=sum(each.get("spanCount", 0) for each in stats.values()),
        errors=sum(each.get("errorCount", 0) for each in stats.values()),
        root_service=one.get("rootServiceName", ""),
        root_name=one.get("rootTraceName", ""),
        services=tuple(stats),
        matched=sum(each.get("matched", 0) for each in sets),
        found=tuple(_found_span(span) for each in sets for span in each.get("spans", [])),
    )


def _found_span(span: dict[str, Any]) -> dict[str, Any]:
    fixed = {
        "span_id": span["spanID"],
        "name": span.get("name"),
        "start_unix_ns": int(span["startTimeUnixNano"]),
        "duration_ns": int(span["durationNanos"]),
    }
    return fixed | attributes(span.get("attributes", []))


def attributes(pairs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Attributes of OTLP's JSON as plain values."""
    return {pair["key"]: plain(pair["value"]) for pair in pairs}


def plain(value: dict[str, Any]) -> Any:
    """An AnyValue of OTLP's JSON as a plain value: None where nothing is set, bytes in base64 as they came."""
    for kind, found in value.items():
        if kind == "intValue":
            return int(found)
        if kind == "doubleValue":
            return float(found)
        if kind == "arrayValue":
            return [plain(each) for each in found.get("values", [])]
        return attributes(found.get("values", [])) if kind == "kvlistValue" else found
    return None


# ---- metrics


@dataclass(frozen=True, slots=True)
class Series:
    """labels: what it is grouped by. times_ms: Unix ms of its values, empty for an instant. exemplars: trace IDs."""

    labels: dict[str, Any]
    times_ms: tuple[int, ...]
    values: tuple[float, ...]
    exemplars: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The labels as a text."""
        groups = {key: value for key, value in self.labels.items() if key != "__name__"}
        return ", ".join(f"{key}={value}" for key, value in groups.items()) or str(self.labels.get("__name__", ""))


class Measured(Many[Series]):
    """The series of a metrics query."""

    def __init__(self, answer: dict[str, Any]) -> None:
        found = [_series(one) for one in answer.get("series", [])]
        super().__init__(found, complete=answer.get("status") != "PARTIAL", message=answer.get("message", ""))

    def arrow(self) -> pa.Table:
        """A row a point: its time (null for an instant), its value, and a column a label."""
        import pyarrow as pa

        points = [(one, at) for one in self._items for at in range(len(one.values))]
        times = [one.times_ms[at] if one.times_ms else None for one, at in points]
        columns = {
            "time": pa.array(times, pa.timestamp("ms", "UTC")),
            "value": pa.array([one.values[at] for one, at in points], pa.float64()),
        }
        for key in dict.fromkeys(key for one in self._items for key in one.labels if key != "__name__"):
            columns[key] = column([one.labels.get(key) for one, _ in points])
        return pa.table(columns)

    def __repr__(self) -> str:
        return f"<{len(self):,} series{'' if self.complete else ', PARTIAL'}>"

    def _repr_html_(self) -> str:
        rows = [
            (
                html.text(one.name),
                *(html.number(f"{value:,.4g}") for value in _extent(one.values)),
                html.line(one.times_ms, one.values),
            )
            for one in self._items[:SHOWN_ROWS]
        ]
        titles = ("series", "min", "max", "last", "")
        return html.table(titles, rows, html.more(len(self) - SHOWN_ROWS), self._note())


def _extent(values: Sequence[float]) -> tuple[float, ...]:
    return (min(values), max(values), values[-1]) if values else ()


def _series(one: dict[str, Any]) -> Series:
    labels = attributes(one["labels"])
    exemplars = (attributes(each["labels"]).get("trace:id", "") for each in one.get("exemplars", []))
    if "samples" not in one:
        return Series(labels, (), (float(one.get("value", 0)),))
    samples = one["samples"]
    times = tuple(int(sample["timestampMs"]) for sample in samples)
    return Series(labels, times, tuple(float(sample.get("value", 0)) for sample in samples), tuple(exemplars))


# ---- SQL


class Rows(Answer):
    """Rows of a SELECT, with the types that the querier gave them. Iterating gives a dict a row."""

    def __init__(self, stream: bytes, reasons: str) -> None:
        """stream: Arrow's IPC stream; reasons: a JSON list, or nothing."""
        told = json.loads(reasons) if reasons else []
        super().__init__(not told, "; ".join(told))
        self._stream = stream
        self._table: pa.Table | None = None

    def arrow(self) -> pa.Table:
        """As it came."""
        if self._table is None:
            import pyarrow as pa

            self._table = pa.ipc.open_stream(self._stream).read_all()
            self._stream = b""
        return self._table

    @property
    def columns(self) -> list[str]:
        """Names, in order."""
        names: list[str] = self.arrow().column_names
        return names

    def __len__(self) -> int:
        rows: int = self.arrow().num_rows
        return rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.arrow().to_batches():
            yield from batch.to_pylist()

    def __repr__(self) -> str:
        return f"<{len(self):,} rows of {', '.join(self.columns[:8])}{', ...' if len(self.columns) > 8 else ''}>"

    def _repr_html_(self) -> str:
        shown = self.arrow().slice(0, SHOWN_ROWS)
        cells = [[html.cell(value) for value in texts(one)] for one in shown.columns]
        rows = list(zip(*cells, strict=True))
        return html.table(self.columns, rows, html.more(len(self) - SHOWN_ROWS), self._note())


def texts(values: pa.ChunkedArray) -> list[Any]:
    """Values for people: times as texts, to the nanosecond, of whatever year."""
    import pyarrow as pa

    is_time = pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)
    found: list[Any] = (values.cast(pa.string()) if is_time else values).to_pylist()
    return found


def instants(unix_ns: Sequence[int]) -> pa.Array:
    """Times to the nanosecond; null for what 64 bits with a sign do not hold."""
    import pyarrow as pa

    return whole(unix_ns).cast(pa.timestamp("ns", "UTC"))


def whole(values: Sequence[int]) -> pa.Array:
    """Whole numbers; null likewise."""
    import pyarrow as pa

    return pa.array([value if value in INT64 else None for value in values], pa.int64())


def column(values: Sequence[Any]) -> pa.Array:
    """A column of plain values; where they are of several types, of their texts in JSON."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array(
            [value if value is None or isinstance(value, str) else json.dumps(value, default=str) for value in values]
        )
