"""`spanstream sql`: one SELECT over spans and traces, as a table or as a stream for other programs."""

from __future__ import annotations

import json
import sys
from typing import Any

import rich_click as click
from rich.text import Text

from agents.commands.querier import Querier, asks_querier
from agents.commands.terminal import bare_table, say, show_table, write_json
from topics.errors import BadQuestionError

STREAMS = ("ndjson", "csv", "arrow")
NUMBERS = ("int", "uint", "double", "float", "decimal", "halffloat")
CELL_TEXT_MAX = 500


@click.command()
@click.argument("query")
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 7d (default 1h)")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", *STREAMS]),
    default="table",
    help="Default table; ndjson, csv and arrow come as a stream, all rows of it",
)
@click.option("--rows", metavar="N", type=click.IntRange(min=1), default=1000, help="Rows of a table (default 1000)")
@asks_querier
def sql(querier: Querier, *, query: str, since: str, form: str, rows: int, as_json: bool) -> None:
    """Rows of one SELECT in DuckDB's SQL over `spans` and `traces` of that time; QUERY - reads it from stdin.

    'SELECT service, count(*) AS spans FROM spans GROUP BY ALL ORDER BY spans DESC'. `DESCRIBE spans` tells the columns.
    """
    text = sys.stdin.read() if query == "-" else query
    if not text.strip():
        raise BadQuestionError("there is no SQL to ask")
    form = "json" if as_json else form
    asked = {"since": since, "format": form if form in STREAMS else "json"}
    with querier.stream("/api/sql", asked, text) as parts:
        if form in STREAMS:
            for part in parts:
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
            return
        answer = json.loads(b"".join(parts))
    if form == "json":
        write_json(answer)
    else:
        _show(answer, rows)
    if not answer["complete"]:
        say("The answer is PARTIAL: " + "; ".join(answer["reasons"]))


def _show(answer: dict[str, Any], rows_max: int) -> None:
    table = bare_table()
    for column in answer["columns"]:
        justify: Any = "right" if column["type"].startswith(NUMBERS) else "left"
        table.add_column(Text(column["name"]), justify=justify, overflow="fold")
    for row in answer["rows"][:rows_max]:
        table.add_row(*(_cell(value) for value in row))
    show_table(table)
    if answer["truncated"] or len(answer["rows"]) > rows_max:
        shown = min(len(answer["rows"]), rows_max)
        say(f"Only {shown:,} rows are shown: --rows shows more of a table, --format ndjson or csv gives all")


def _cell(value: Any) -> Text:
    if value is None:
        return Text("null", "dim")
    text = value if isinstance(value, str) else json.dumps(value)
    return Text(text if len(text) <= CELL_TEXT_MAX else text[:CELL_TEXT_MAX] + "…")
