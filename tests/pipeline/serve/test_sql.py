"""SQL over one's own spans: rows in every form, and no way beyond the views."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from starlette.requests import Request
from starlette.responses import Response

from pipeline.query.questions import Questions
from pipeline.query.statement import statement_of
from pipeline.serve.app import answered
from pipeline.serve.gone import unless_gone
from pipeline.serve.sql import statement_text
from tests.pipeline.query.world import T0, OneSpan, span_id, trace_id
from tests.pipeline.serve.api import World, settings_of, with_api, with_questions
from topics.errors import BadQuestionError, RateLimitedError

SPANS = [
    OneSpan(1, 1, name="GET /cart", kind=2, duration_ms=250, attributes=(("http.status_code", 200), ("Odd\"'{}", "x"))),
    OneSpan(
        1, 2, 1, 5, 20, "SELECT", "db", 3, status=2, attributes=(("r", 0.5), ("list", ["x"]), ("raw", b"\x00\xff"))
    ),
    OneSpan(2, 3, name="GET /", kind=2, start_ms=60_000, duration_ms=10),
]
AROUND = {"start": str(T0 // 10**9 - 10), "end": str(T0 // 10**9 + 100)}
TIMES = "range(1000000) a, range(1000000) b, range(1000000) c"
ENDLESS = f"SELECT count(*) FROM {TIMES} WHERE (a.range + b.range * c.range) % 7 = 9"


def ask(tmp_path: Path, sql: str, *, form: str = "", spans: list[OneSpan] = SPANS, **querier: Any) -> httpx.Response:
    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        return await client.get("/api/sql", params={**AROUND, "q": sql} | ({"format": form} if form else {}))

    return with_api(settings_of(tmp_path, **querier), lambda world: world.send(spans), test)


def rows(tmp_path: Path, sql: str) -> list[list[Any]]:
    answer = ask(tmp_path, sql)
    assert answer.status_code == 200, answer.text
    found: list[list[Any]] = answer.json()["rows"]
    return found


def test_spans_have_the_documented_columns(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        "SELECT tenant, trace_id, span_id, parent_span_id, start_time, start_unix_ns, duration_ns, duration_ms, name, "
        "kind, status, service, is_root FROM spans ORDER BY start_unix_ns LIMIT 2",
    )

    trace, time_ = trace_id(1).hex(), "2023-11-14T22:13:20"
    one = ["single-tenant", trace, span_id(1).hex(), None, f"{time_}.000000000", T0, 250_000_000, 250.0]
    two = ["single-tenant", trace, span_id(2).hex(), span_id(1).hex(), f"{time_}.005000000", T0 + 5_000_000]
    assert found == [
        [*one, "GET /cart", "server", "unset", "shop", True],
        [*two, 20_000_000, 20.0, "SELECT", "client", "error", "db", False],
    ]


def test_times_are_told_to_the_nanosecond_in_every_form(tmp_path: Path) -> None:
    odd = f"make_timestamp_ns({T0 + 1})"
    sql = f"SELECT {odd} AS at, [{odd}] AS many, {{'at': {odd}}} AS one FROM spans LIMIT 1"

    answers = [ask(tmp_path / form, sql, form=form).text for form in ("json", "ndjson", "csv")]

    assert all("22:13:20.000000001" in answer for answer in answers)
    assert rows(tmp_path / "rows", sql)[0][1:] == [["2023-11-14T22:13:20"], {"at": "2023-11-14T22:13:20"}]


def test_attributes_are_columns_and_one_that_no_span_has_is_null(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        'SELECT "span.http.status_code:int", "span.r:double", "span.list:string[]", "span.raw:any", '
        '"span.nowhere", "span.%4Fdd""\'{}" FROM spans WHERE trace_id = \'' + trace_id(1).hex() + "' ORDER BY name",
    )

    assert found == [[200, None, None, None, None, "x"], [None, 0.5, ["x"], found[1][3], None, None]]
    assert "00ff" in found[1][3]


def test_traces_have_roots_durations_and_counts(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        "SELECT trace_id, start_unix_ns, duration_ns, spans, errors, root_name, root_service, services FROM traces "
        "ORDER BY start_unix_ns",
    )

    assert found == [
        [trace_id(1).hex(), T0, 250_000_000, 2, 1, "GET /cart", "shop", ["db", "shop"]],
        [trace_id(2).hex(), T0 + 60 * 10**9, 10_000_000, 1, 0, "GET /", "shop", ["shop"]],
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT s FROM spans s WHERE span_id = '{}'",
        "SELECT spans FROM spans WHERE span_id = '{}'",
        "FROM spans WHERE span_id = '{}'",
        "SELECT COLUMNS('.*span_id') FROM spans WHERE span_id = '{}'",
        "WITH t AS (SELECT * FROM spans) SELECT parent_SPAN_id FROM t WHERE span_id = '{}'",
    ],
)
def test_a_parent_is_told_in_whatever_way_it_is_asked_for(tmp_path: Path, sql: str) -> None:
    assert span_id(1).hex() in json.dumps(rows(tmp_path, sql.replace("{}", span_id(2).hex())))


def test_rows_come_as_json_ndjson_csv_and_arrow(tmp_path: Path) -> None:
    sql = 'SELECT name, duration_ns, "span.list:string[]" AS list, sum(1) OVER () AS n FROM spans ORDER BY name'
    expected = [
        {"name": "GET /", "duration_ns": 10_000_000, "list": None, "n": 3},
        {"name": "GET /cart", "duration_ns": 250_000_000, "list": None, "n": 3},
        {"name": "SELECT", "duration_ns": 20_000_000, "list": ["x"], "n": 3},
    ]

    whole = ask(tmp_path, sql).json()
    lines = ask(tmp_path, sql, form="ndjson")
    table = pa.ipc.open_stream(ask(tmp_path, sql, form="arrow").content).read_all()
    head, *cells = csv.reader(io.StringIO(ask(tmp_path, sql, form="csv").text))

    assert [dict(zip([one["name"] for one in whole["columns"]], row, strict=True)) for row in whole["rows"]] == expected
    assert (whole["rowCount"], whole["truncated"], whole["complete"]) == (3, False, True)
    assert [json.loads(line) for line in lines.text.splitlines()] == expected
    assert table.to_pylist() == expected
    assert head == list(expected[0])
    assert cells[2] == ["SELECT", "20000000", '["x"]', "3"]


ODD_VALUES = {
    "TIMESTAMP '0001-01-01'": "0001-01-01",
    "'infinity'::TIMESTAMP": "out of range",
    "'-infinity'::DATE": "out of range",
    "DATE '290000-01-01'": "out of range",
    "[DATE 'infinity']": "out of range",
    "{'at': TIMESTAMP '290000-01-01'}": "out of range",
    "[TIMESTAMP_NS '2200-01-01 00:00:00.000000001']::TIMESTAMP_NS[1]": "2200-01-01",
    "INTERVAL '1 month 3 days'": "[1,3,0]",
    "[INTERVAL 1 DAY]": "[0,1,0]",
    "12::BIGNUM": "0c",
    "'x'::ENUM('x')": "x",
    "'1'::BIT": "07ff",
    "union_value(a := 1)": "1",
}


@pytest.mark.parametrize("form", ["json", "ndjson", "csv"])
def test_values_that_python_or_arrow_cannot_say_are_told_all_the_same(tmp_path: Path, form: str) -> None:
    async def test(client: httpx.AsyncClient, _world: World) -> None:
        for value, shown in ODD_VALUES.items():
            answer = await client.get("/api/sql", params={**AROUND, "q": f"SELECT {value} AS v", "format": form})
            assert answer.status_code == 200, value
            assert shown in answer.text, value

    with_api(settings_of(tmp_path), lambda world: world.send(SPANS), test)


def test_a_statement_may_be_a_body_and_accept_names_the_form(tmp_path: Path) -> None:
    async def test(client: httpx.AsyncClient, world: World) -> list[str]:
        sql = "SELECT 1 AS one"
        plain = await client.post("/api/sql", content=sql, headers={"accept": "text/csv"})
        wrapped = await client.post("/api/sql", json={"q": sql}, headers={"accept": "application/x-ndjson"})
        return [plain.text, wrapped.text]

    assert with_api(settings_of(tmp_path), lambda world: None, test) == ['"one"\n1\n', '{"one":1}\n']


def test_json_says_that_it_is_cut_and_a_stream_goes_on(tmp_path: Path) -> None:
    cut = ask(tmp_path, "SELECT range FROM range(10000)", sql_json_rows_max=7).json()
    stream = ask(tmp_path, "SELECT range FROM range(10000)", form="ndjson", sql_json_rows_max=7)

    assert (cut["rows"], cut["truncated"]) == ([[n] for n in range(7)], True)
    assert len(stream.text.splitlines()) == 10_000


def test_a_stream_beyond_its_bytes_breaks_off_and_is_no_whole_answer(tmp_path: Path) -> None:
    sql = "SELECT repeat('x', 1000) FROM range(100000)"

    assert ask(tmp_path, sql, sql_json_rows_max=100_000, sql_bytes_max=1 << 20).status_code == 413
    with pytest.raises(Exception, match="sql_bytes_max"):
        ask(tmp_path, sql, form="csv", sql_bytes_max=1 << 20)


ESCAPES = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{file}'",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM (SELECT (SELECT count(*) FROM parquet_metadata('{file}')))",
    "SELECT * FROM glob('/**')",
    "SELECT * FROM read_parquet('s3://spans-a/other/chunk.parquet')",
    "SELECT * FROM 's3://spans-a/other/chunk.parquet'",
    "SELECT * FROM read_json('http://127.0.0.1:9/x')",
    "SELECT * FROM 'https://127.0.0.1/x.parquet'",
    "COPY spans TO '{file}.csv'",
    "COPY (SELECT 1) TO 's3://spans-a/x'",
    "EXPORT DATABASE '{file}.d'",
    "IMPORT DATABASE '{file}.d'",
    "ATTACH '{file}.db' AS other",
    "DETACH memory",
    "USE system",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET GLOBAL allowed_directories = ['/']",
    "RESET lock_configuration",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CREATE TABLE t AS SELECT 1",
    "CREATE SECRET s (TYPE s3)",
    "CREATE MACRO f() AS TABLE SELECT 1",
    "DROP VIEW spans",
    "INSERT INTO spans SELECT 1",
    "DELETE FROM live_0",
    "CHECKPOINT",
    "BEGIN",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "VACUUM",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{file}.csv'",
    "",
    ";",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_secrets(redact=false)",
    "SELECT * FROM system.main.duckdb_secrets()",
    "SELECT (SELECT max(name) FROM duckdb_settings())",
    "WITH t AS (SELECT * FROM DUCKDB_SETTINGS()) SELECT * FROM t",
    "SELECT * FROM which_secret('s3://spans-a/x', 's3')",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM query('SELECT * FROM duckdb_secrets()')",
    "SELECT * FROM query_table('spans')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM pragma_database_list()",
    "SELECT current_setting('home_directory')",
    "SELECT getenv('HOME')",
    "SELECT write_log('x')",
    "SELECT * FROM sql_auto_complete('x')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_map_function()",
    "SELECT * FROM settings",
    "SELECT * FROM sqlite_scan('{file}', 'x')",
    "SELECT 'unterminated",
    "SELECT nothing FROM spans",
    "SELECT * FROM elsewhere.spans",
    "SELECT load_aws_credentials()",
    "SELECT sql FROM duckdb_views",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM pg_catalog.pg_views",
    "SELECT * FROM PG_class",
    "SELECT * FROM live_0",
    "DESCRIBE __live_0",
    "SELECT (SELECT count(*) FROM __live_0)",
    "WITH __live_0 AS (SELECT * FROM __live_0) SELECT * FROM __live_0",
    "SELECT * FROM (WITH pg_views AS (SELECT 1) SELECT * FROM pg_views), pg_views",
    "SELECT * FROM system.spans",
]


MINE = [
    "SELECT count(*) FROM spans",
    "SELECT count(*) FROM main.Spans",
    "WITH a AS (SELECT * FROM spans), tables AS (SELECT * FROM a) SELECT count(*) FROM tables",
    "WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT max(i) FROM n",
    "SELECT count(*) FROM (SELECT * FROM spans) AS pg_views",
]


@pytest.mark.timeout(120)
def test_no_statement_leaves_the_views_and_none_is_our_fault(tmp_path: Path) -> None:
    file = tmp_path / "secret.parquet"
    pa.parquet.write_table(pa.table({"planted": ["planted-4711"]}), file)

    async def test(client: httpx.AsyncClient, world: World) -> list[str]:
        wrong = []
        for escape in ESCAPES:
            answer = await client.post("/api/sql", content=escape.replace("{file}", str(file)), params=AROUND)
            if answer.status_code != 400 or "root:" in answer.text or "planted" in answer.text:
                wrong.append(f"{escape}: {answer.status_code} {answer.text[:300]}")
        for mine in MINE:
            answer = await client.post("/api/sql", content=mine, params=AROUND)
            if answer.status_code != 200 or answer.json()["rows"] != [[3]]:
                wrong.append(f"{mine}: {answer.status_code} {answer.text[:300]}")
        return wrong

    assert with_api(settings_of(tmp_path), lambda world: world.send(SPANS), test) == []
    assert [path.name for path in tmp_path.glob("secret.parquet*")] == ["secret.parquet"]


def test_a_statement_is_ended_by_its_time_and_by_memory(tmp_path: Path) -> None:
    began = time.monotonic()
    late = ask(tmp_path, ENDLESS, query_timeout_s=1)
    large = ask(tmp_path, "SELECT list(repeat('x', 100) || range) FROM range(3000000)", sql_memory_bytes_max=32 << 20)

    assert (late.status_code, large.status_code) == (504, 413)
    assert "query_timeout_s" in late.text
    assert "sql_memory_bytes_max" in large.text
    assert time.monotonic() - began < 40


def test_a_cancelled_statement_ends_and_more_than_may_wait_are_refused(tmp_path: Path) -> None:
    async def test(questions: Questions, world: World) -> None:
        async def ask(sql: str) -> None:
            answer = await questions.sql(["single-tenant"], statement_of(sql), (0, T0))
            answer.close()

        async def turn_is_free() -> bool:
            try:
                await ask("SELECT 1")
            except RateLimitedError:
                return False
            return True

        endless = asyncio.create_task(ask(ENDLESS))
        await asyncio.sleep(0)  # it has its turn
        assert not await turn_is_free()
        endless.cancel()
        async with asyncio.timeout(20):
            while not await turn_is_free():
                await asyncio.sleep(0.02)

    with_questions(settings_of(tmp_path, sql_queries_max=1, tenant_waiting_max=0), lambda world: None, test)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_question_of_a_caller_that_goes_away_is_cancelled(method: str) -> None:
    seen = list[str]()
    messages = iter([{"type": "http.request", "body": b"SELECT 1"}, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(messages)

    async def question() -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        raise AssertionError

    async def slow(request: Request) -> Response:
        if request.method == "POST":
            await statement_text(request)
            return await unless_gone(request, question())
        return await question()

    scope = {"type": "http", "method": method, "path": "/api/x", "headers": [], "query_string": b""}
    answer = asyncio.run(asyncio.wait_for(answered(slow)(Request(scope, receive)), 5))

    assert (answer.status_code, seen) == (499, ["cancelled"])


def test_what_a_statement_names_decides_what_is_read() -> None:
    cheap = statement_of("SELECT count(*), avg(\"span.x:int\") FROM spans WHERE service = 'a'")
    joined = statement_of("SELECT a.name FROM spans a JOIN spans b ON a.parent_span_id = b.span_id")

    assert (cheap.columns, cheap.everything, cheap.parents) == (("span.x:int",), False, False)
    assert (joined.everything, joined.parents) == (False, True)
    for whole in ("FROM spans", "DESCRIBE spans", "SELECT s FROM spans s", "SELECT a FROM spans t(a, b)"):
        assert statement_of(whole).everything, whole
    with pytest.raises(BadQuestionError, match="one statement"):
        statement_of("SELECT 1; SELECT 1")
