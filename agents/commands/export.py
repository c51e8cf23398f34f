"""`spanstream export`: the traces of a search into one file, whole or not at all."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import rich_click as click
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from agents.commands.ask import seconds_of
from agents.commands.querier import Querier, asks_querier
from agents.commands.span_files import FORMATS, format_of, span_file
from agents.commands.terminal import notes, say, write_json
from agents.trace_answer import TraceAnswer
from topics.errors import BadQuestionError, NotFoundError

SETTINGS = tuple(f"terminal.export_{name}" for name in ("page_traces", "portion_bytes", "attribute_columns_max"))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--q", "query", default="{}", help="TraceQL: whole traces in which it finds something (default all)")
@click.option("--since", default="1h", help="How far back, such as 15m, 2h, 7d (default 1h)")
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), help="Default: what the file's name ends with")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="The newest N traces (default all)")
@click.option("--force", is_flag=True, help="Replace FILE where it exists")
@partial(asks_querier, settings=SETTINGS)
def export(querier: Querier, *, file: Path, force: bool, as_json: bool, **asked: Any) -> None:
    """Whole traces into FILE, from live segments and the store alike: .parquet, .otlp, .json or .jsonl.

    .parquet: a row a span, a column an attribute. .otlp: OTLP protobuf, one TracesData. .json: OTLP JSON, a TracesData
    a line as the Collector's file exporter writes. .jsonl: a line a span, flat. FILE appears when it is complete.
    """
    kind = asked["kind"] or format_of(file)
    if file.exists() and not force:
        raise BadQuestionError(f"{file} exists: --force replaces it")
    counts = {"traces": 0, "spans": 0, "partial": 0, "bytes": 0}
    with written_whole(file) as target:
        out = span_file(kind, target, file.parent, querier.terminal)
        with out, _progress() as progress:
            task = progress.add_task("traces", total=asked["limit"])
            for answer in _traces(querier, asked["query"], seconds_of(asked["since"]), asked["limit"]):
                counts["spans"] += len(answer.span_ids())
                counts["traces"] += 1
                counts["partial"] += answer.partial
                out.add(answer.traces_data)
                progress.update(task, advance=1)
    counts["bytes"] = file.stat().st_size
    if as_json:
        write_json({"file": str(file), "format": kind} | counts)
    else:
        say(f"{file}: {counts['traces']:,} traces, {counts['spans']:,} spans, {counts['bytes']:,} bytes")
    if counts["partial"]:
        say(f"{counts['partial']:,} of the traces are PARTIAL: something does not answer, see `spanstream doctor`")


@contextmanager
def written_whole(file: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when the block ends well; nothing is left of it otherwise."""
    if not file.parent.is_dir():
        raise BadQuestionError(f"there is no folder {file.parent}")
    with ExitStack() as undo:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", suffix=".part", dir=file.parent)
        undo.callback(lambda: Path(name).unlink(missing_ok=True))
        with os.fdopen(handle, "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        Path(name).replace(file)


def _traces(querier: Querier, query: str, since_s: int, limit: int | None) -> Iterator[TraceAnswer]:
    """Newest first, page by page; a trace that is gone meanwhile is left out."""
    end = int(time.time()) + 1
    cursor, left = None, limit
    while left is None or left > 0:
        page = querier.terminal.export_page_traces
        size = page if left is None else min(page, left)
        asked = {"q": query, "start": end - 1 - since_s, "end": end, "limit": size, "cursor": cursor, "spss": 1}
        answer = querier.ask("/api/search", asked)
        if answer.get("status") == "PARTIAL":
            say(f"The search is PARTIAL: {answer.get('message', '')}")
        for one in answer.get("traces", []):
            try:
                yield querier.trace(one["traceID"])
            except NotFoundError as exc:
                say(f"left out: {exc}")
        left = None if left is None else left - len(answer.get("traces", []))
        cursor = answer.get("nextCursor")
        if not cursor:
            return


def _progress() -> Progress:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=notes(), transient=True, disable=not notes().is_terminal)
