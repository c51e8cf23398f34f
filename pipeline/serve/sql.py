"""`/api/sql`: a caller's SQL over their own spans, as JSON or as a stream of NDJSON, CSV or Arrow."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from pipeline import telemetry
from pipeline.doors.asgi import tenants_of
from pipeline.query.questions import Questions
from pipeline.query.statement import statement_of
from pipeline.query.tenant_sql import SqlAnswer
from pipeline.serve import params
from pipeline.serve.formats import FORMATS, form_of, reasons_header
from pipeline.serve.gone import unless_gone
from pipeline.serve.query_limits import QueryLimits
from topics.errors import BadQuestionError
from topics.settings import QuerierSettings

SQL_FORMATS = ("json", "ndjson", "csv", "arrow")
ARROW_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
INT64 = range(-(2**63), 2**64)
WRITTEN = (  # into CSV, by Arrow
    *(pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_null),
    *(pa.types.is_timestamp, pa.types.is_date, pa.types.is_time),
)
Turn = Callable[[pa.RecordBatch], bytes]


class SqlDoor:
    """The handler of `/api/sql`."""

    def __init__(self, questions: Questions, limits: QueryLimits, querier: QuerierSettings) -> None:
        self._questions, self._limits, self._querier = questions, limits, querier

    async def sql(self, request: Request) -> Response:
        """Rows of one SELECT, of q= or of the body of a POST."""
        text = await statement_text(request)
        answering = self._answer(request, text)
        return await (unless_gone(request, answering) if request.method == "POST" else answering)

    async def _answer(self, request: Request, text: str) -> Response:
        asked = request.query_params
        form = form_of(asked, request.headers.get("accept", ""), SQL_FORMATS)
        statement = await self._questions.in_thread(lambda: statement_of(text))
        tenants = tenants_of(request.scope)
        range_ns = params.times_or_recent(asked, self._limits.of(tenants).search_range_h_max)
        answer = await self._questions.sql(tenants, statement, range_ns)
        if answer.reasons:
            telemetry.PARTIAL_ANSWERS.labels(question="sql").inc()
        if form == "json":
            return await self._whole(answer)
        stream, headers = self._stream(answer, form), reasons_header(answer.reasons)
        return StreamingResponse(stream, headers=headers, media_type=FORMATS[form])

    async def _whole(self, answer: SqlAnswer) -> Response:
        """One JSON object, cut after querier.sql_json_rows_max rows."""
        rows, limit, cut = list[list[Any]](), self._querier.sql_json_rows_max, False
        try:
            async for batch in answer.batches:
                columns = [told(column) for column in batch.columns]
                rows += map(list, zip(*columns, strict=True))
                if cut := len(rows) > limit:
                    break
        finally:
            answer.close()
        body = {
            "columns": [{"name": one.name, "type": str(one.type)} for one in answer.schema],
            "rows": plain(rows[:limit]),
            "rowCount": min(len(rows), limit),
            "truncated": cut,
            "complete": not answer.reasons,
            "reasons": answer.reasons,
        }
        return Response(await self._questions.in_thread(lambda: orjson.dumps(body)), media_type=FORMATS["json"])

    async def _stream(self, answer: SqlAnswer, form: str) -> AsyncIterator[bytes]:
        """A stream that cannot go on breaks off: nobody takes a part for the whole."""
        head, turn, tail = {"ndjson": _ndjson, "csv": _csv, "arrow": _arrow}[form](answer.schema)
        try:
            yield head
            async for batch in answer.batches:
                yield await self._questions.in_thread(lambda batch=batch: turn(batch))
            yield tail()
        finally:
            answer.close()


async def statement_text(request: Request) -> str:
    """q=, or the body: SQL as it is, or JSON with `q`."""
    text = request.query_params.get("q", "")
    if not text and request.method == "POST":
        body = await body_of(request, params.QUERY_BYTES_MAX, "SQL")
        text = body.decode("utf-8", "replace")
        if request.headers.get("content-type", "").startswith("application/json"):
            try:
                text = str(orjson.loads(body)["q"])
            except (orjson.JSONDecodeError, KeyError, TypeError) as exc:
                raise BadQuestionError('the body is no JSON object {"q": "SELECT ..."}') from exc
    if not text.strip():
        raise BadQuestionError("no SQL: give it as q= or as the body of a POST")
    if len(text.encode()) > params.QUERY_BYTES_MAX:
        raise BadQuestionError(f"SQL is larger than {params.QUERY_BYTES_MAX} bytes")
    return text


async def body_of(request: Request, bytes_max: int, what: str) -> bytes:
    """A request's body. Raises BadQuestionError for one that is larger."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > bytes_max:
            raise BadQuestionError(f"{what} is larger than {bytes_max} bytes")
    return body


def told(column: pa.Array) -> list[Any]:
    """The values as Python objects; times to the nanosecond, and of years that Python's do not have, as texts."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return [text and text.replace(" ", "T") for text in column.cast(pa.string()).to_pylist()]
    coarser = _changed(column.type, _to_micros)
    try:
        return (column if coarser == column.type else column.cast(coarser, safe=False)).to_pylist()
    except (OverflowError, ValueError):
        return column.cast(_changed(column.type, _to_text)).to_pylist()


def _to_micros(type_: pa.DataType) -> pa.DataType:
    return pa.timestamp("us", type_.tz) if pa.types.is_timestamp(type_) and type_.unit == "ns" else type_


def _to_text(type_: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_timestamp(type_) or pa.types.is_date(type_) else type_


def _changed(type_: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """The type, or those inside lists, structs and maps, as `change` has them."""
    if pa.types.is_map(type_):
        return pa.map_(_changed(type_.key_type, change), _changed(type_.item_type, change))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_changed(type_.value_type, change), type_.list_size)
    if pa.types.is_list(type_):
        return pa.list_(_changed(type_.value_type, change))
    if pa.types.is_struct(type_):
        return pa.struct([pa.field(field.name, _changed(field.type, change)) for field in type_])
    return change(type_)


def plain(value: Any) -> Any:
    """What JSON can say: bytes as hex, times as ISO 8601, whole decimals as numbers."""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    return _plain_scalar(value)


def _plain_scalar(value: Any) -> Any:
    if isinstance(value, Decimal) and value == value.to_integral_value():
        value = int(value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        fits = value in INT64 if isinstance(value, int) else math.isfinite(value)
        return value if fits else str(value)
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if isinstance(value, datetime | date) else str(value)


def _ndjson(schema: pa.Schema) -> tuple[bytes, Turn, Callable[[], bytes]]:
    names = schema.names

    def turn(batch: pa.RecordBatch) -> bytes:
        columns = [told(column) for column in batch.columns]
        rows = (dict(zip(names, plain(row), strict=True)) for row in zip(*columns, strict=True))
        return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)

    return b"", turn, lambda: b""


def _csv(schema: pa.Schema) -> tuple[bytes, Turn, Callable[[], bytes]]:
    """RFC 4180 with a header. Lists, maps and structs stand as JSON, bytes as hex."""
    head = pa.BufferOutputStream()
    pa_csv.write_csv(pa.table({name: pa.array([], pa.string()) for name in dict.fromkeys(schema.names)}), head)

    def turn(batch: pa.RecordBatch) -> bytes:
        out = pa.BufferOutputStream()
        table = pa.Table.from_arrays([_flat(column) for column in batch.columns], names=batch.schema.names)
        pa_csv.write_csv(table, out, pa_csv.WriteOptions(include_header=False))
        return out.getvalue().to_pybytes()

    return head.getvalue().to_pybytes(), turn, lambda: b""


def _flat(column: pa.Array) -> pa.Array:
    if pa.types.is_decimal(column.type):
        return column.cast(pa.string())
    written = any(is_one(column.type) for is_one in WRITTEN)
    return column if written else pa.array([_cell(plain(value)) for value in told(column)], pa.string())


def _cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def _arrow(schema: pa.Schema) -> tuple[bytes, Turn, Callable[[], bytes]]:
    """Arrow's stream format: the schema, batches, and the mark of the end."""

    def turn(batch: pa.RecordBatch) -> bytes:
        return batch.serialize().to_pybytes()

    return schema.serialize().to_pybytes(), turn, lambda: ARROW_END
