"""Files of spans as people want them: written trace by trace, with memory for one portion of them."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from agents.commands.ask import otlp_json
from pipeline.spans import from_otlp, schema
from pipeline.spans.record import Record
from topics.errors import BadQuestionError
from topics.settings import TerminalSettings

FORMATS = {"parquet": ".parquet", "otlp": ".otlp", "json": ".json", "jsonl": ".jsonl"}
NOT_TOLD = ("tenant", "record_offset")


class SpanFile(ABC):
    """Takes traces one by one. Use it in a `with` statement: the file is complete when that ends."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target

    def __enter__(self) -> SpanFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(complete=kind is None)

    @abstractmethod
    def add(self, traces_data: Any) -> None:
        """A trace, as OTLP's TracesData."""

    def close(self, *, complete: bool) -> None:  # noqa: B027
        """Nothing follows."""


def format_of(file: Path) -> str:
    """The format that a file's name says. Raises BadQuestionError."""
    for kind, suffix in FORMATS.items():
        if file.suffix == suffix:
            return kind
    raise BadQuestionError(f"{file.name} does not say its format: --format is one of {', '.join(FORMATS)}")


def span_file(kind: str, target: BinaryIO, folder: Path, terminal: TerminalSettings) -> SpanFile:
    """An empty file of this format. folder: for what has to be put down meanwhile."""
    if kind == "parquet":
        return _Parquet(target, folder, terminal)
    if kind == "otlp":
        return _Otlp(target)
    return _Json(target) if kind == "json" else _JsonLines(target)


class _Otlp(SpanFile):
    """Repeated fields of protobuf messages that follow each other are one message's: the file is one TracesData."""

    def add(self, traces_data: Any) -> None:
        self._target.write(traces_data.SerializeToString())


class _Json(SpanFile):
    def add(self, traces_data: Any) -> None:
        self._target.write(orjson.dumps(otlp_json(traces_data)) + b"\n")


class _JsonLines(SpanFile):
    """Each span with its resource and scope, attributes as OTLP JSON has them."""

    def add(self, traces_data: Any) -> None:
        for resource in otlp_json(traces_data).get("resourceSpans", []):
            for scope in resource.get("scopeSpans", []):
                for span in scope.get("spans", []):
                    around = {"resource": resource.get("resource", {}), "scope": scope.get("scope", {})}
                    self._target.write(orjson.dumps(span | around) + b"\n")


class _Parquet(SpanFile):
    """Portions are put down as they are decoded; their columns differ, and the file has those of all."""

    def __init__(self, target: BinaryIO, folder: Path, terminal: TerminalSettings) -> None:
        super().__init__(target)
        self._terminal = terminal
        self._folder = tempfile.TemporaryDirectory(prefix=".export-", dir=folder)
        self._records: list[Record] = []
        self._bytes = 0
        self._portions: list[Path] = []

    def add(self, traces_data: Any) -> None:
        otlp = traces_data.SerializeToString()
        self._records.append(Record("", len(self._records), otlp))
        self._bytes += len(otlp)
        if self._bytes >= self._terminal.export_portion_bytes:
            self._put_down()

    def close(self, *, complete: bool) -> None:
        with self._folder:
            if not complete:
                return
            self._put_down()
            tables = [pq.read_schema(path) for path in self._portions] or [_told(schema.empty_table()).schema]
            fields = pa.unify_schemas(tables)
            with pq.ParquetWriter(self._target, fields, compression="zstd", store_schema=False) as writer:
                for path in self._portions:
                    rows = pq.read_table(path)
                    columns = [
                        rows.column(field.name)
                        if field.name in rows.column_names
                        else pa.nulls(rows.num_rows, field.type)
                        for field in fields
                    ]
                    writer.write_table(pa.table(columns, schema=fields))

    def _put_down(self) -> None:
        if not self._records:
            return
        columns_max = self._terminal.export_attribute_columns_max
        spans = from_otlp.decode(self._records, attribute_columns_max=columns_max).spans
        path = Path(self._folder.name) / f"{len(self._portions)}.parquet"
        pq.write_table(_told(spans), path)
        self._portions.append(path)
        self._records, self._bytes = [], 0


def _told(spans: pa.Table) -> pa.Table:
    return schema.plain(spans.select([name for name in spans.column_names if name not in NOT_TOLD]))
