"""Search as NDJSON and CSV: the rows of the JSON answer, in its order."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from pipeline.serve import search_rows
from tests.pipeline.query.world import T0, OneSpan
from tests.pipeline.serve.api import World, settings_of, with_api
from tests.pipeline.serve.test_app import AROUND, get

ODD = 'a "name",\nof two lines'
SPANS = [OneSpan(at, at, start_ms=at * 10, name=ODD if at == 3 else f"op {at}", status=2) for at in range(1, 8)]


def search(tmp_path: Path, more: str, **options: Any) -> httpx.Response:
    query = quote("{ status = error } | select(status)")
    answer: httpx.Response = get(
        tmp_path, f"/api/search?start={AROUND['start']}&end={AROUND['end']}&q={query}{more}", SPANS, **options
    )
    return answer


def test_ndjson_has_the_traces_of_the_json_answer_a_line_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_rows, "TURN_TRACES", 3)  # several turns
    whole = search(tmp_path / "json", "").json()["traces"]

    answer = search(tmp_path / "rows", "&format=ndjson")

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == whole
    assert len(whole) == len(SPANS)


def test_csv_has_a_column_a_field_and_nested_ones_as_json(tmp_path: Path) -> None:
    whole = search(tmp_path / "json", "").json()["traces"]

    rows = list(csv.DictReader(io.StringIO(search(tmp_path / "rows", "&format=csv").text, newline="")))

    assert [row["traceID"] for row in rows] == [one["traceID"] for one in whole]
    assert [row["rootTraceName"] for row in rows] == [one["rootTraceName"] for one in whole]
    assert ODD in {row["rootTraceName"] for row in rows}
    assert [json.loads(row["spanSets"]) for row in rows] == [one["spanSets"] for one in whole]
    assert [json.loads(row["serviceStats"]) for row in rows] == [one["serviceStats"] for one in whole]
    assert rows[0]["startTimeUnixNano"] == str(T0 + 70 * 10**6)


@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_what_follows_is_asked_for_with_the_cursor_of_the_header(tmp_path: Path, form: str) -> None:
    first = search(tmp_path / "first", f"&format={form}&limit=5")
    rest = search(tmp_path / "rest", f"&format={form}&limit=5&cursor={first.headers['x-spanstream-next-cursor']}")

    heads = form == "csv"
    assert len(list(csv.reader(io.StringIO(rest.text, newline="")))) == 2 + heads
    assert "x-spanstream-next-cursor" not in rest.headers


def test_why_traces_may_be_missing_stands_in_a_header(tmp_path: Path) -> None:
    def prepare(world: World) -> None:
        world.send(SPANS)
        world.tail.low = {0: 1, 1: 1}  # the first records are gone before they were stored

    async def test(client: httpx.AsyncClient, world: World) -> httpx.Response:
        return await client.get("/api/search", params={"q": "{}", "format": "csv", **AROUND})

    answer = with_api(settings_of(tmp_path), prepare, test)

    assert "Kafka deleted offsets 0 to 0" in " ".join(json.loads(answer.headers["x-spanstream-incomplete"]))


def test_a_form_can_be_asked_for_by_accept_too(tmp_path: Path) -> None:
    answer = search(tmp_path, "", headers={"Accept": "text/csv"})

    assert answer.text.startswith("traceID,")


@pytest.mark.parametrize("form", ["arrow", "xml"])
def test_another_form_is_refused_with_those_that_there_are(tmp_path: Path, form: str) -> None:
    answer = search(tmp_path, f"&format={form}")

    assert answer.status_code == 400
    assert answer.text == f"invalid format: {form!r} is none of json, ndjson, csv, events\n"
