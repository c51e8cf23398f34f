"""`spanstream catalog verify|rebuild`: whether all that is stored is there and whole; a querier's catalog made anew."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict

import rich_click as click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from agents.commands.options import with_settings
from agents.commands.terminal import notes, say, screen, write_json
from agents.exit_codes import FAILED
from topics import spans_by_trace
from topics.errors import SpanstreamError, StoreUnavailableError
from topics.settings import Settings
from topics.topic import full_name

FILTERS_AT_ONCE = 256


@click.group()
def catalog() -> None:
    """What is stored: manifests, edits, chunks, and a querier's catalog of them."""


@catalog.command()
@with_settings("kafka.topic_prefix", "store", "log")
@click.option("--partition", metavar="N", type=click.IntRange(min=0), help="Only this partition")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
def verify(settings: Settings, *, partition: int | None, as_json: bool) -> None:
    """Read all that is stored: ranges without gap, every chunk there, its page checksums and counts right.

    Exit code 0: all is well; 1: it is not, or the store does not answer. Changes nothing; workers may go on meanwhile.
    """
    from pipeline.store.objects import ObjectStore
    from pipeline.store.verify import partitions_of, verify

    store, topic = ObjectStore(settings.store), full_name(spans_by_trace.TOPIC, settings.kafka)
    try:
        numbers = partitions_of(store, topic) if partition is None else [partition]
        with _progress() as progress:
            found = [verify(store, topic, number, advance=_bar(progress, f"partition {number}")) for number in numbers]
    finally:
        store.close()
    problems = sum(len(one.problems) + one.more for one in found)
    if as_json:
        write_json({"topic": topic, "problems": problems, "partitions": [asdict(one) for one in found]})
    else:
        for one in found:
            for problem in one.problems:
                screen().print(Text(problem))
            if one.more:
                screen().print(Text(f"and {one.more:,} more problems of partition {one.partition}"))
        sums = {name: sum(getattr(one, name) for one in found) for name in ("manifests", "chunks", "spans", "bytes")}
        counted = ", ".join(f"{count:,} {name}" for name, count in sums.items())
        say(f"{len(found)} partitions, {counted}: {f'{problems:,} problems' if problems else 'all is well'}")
    if problems:
        sys.exit(FAILED)


@catalog.command()
@with_settings("kafka.topic_prefix", "store", "querier.data_dir", "log")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
def rebuild(settings: Settings, *, as_json: bool) -> None:
    """Make a querier's catalog anew from the buckets. The querier must be stopped; its folder is querier.data_dir.

    A querier does so by itself when the folder is empty. Counts of services and attributes are exact again afterwards.
    """
    from pipeline.store.catalog import Catalog
    from pipeline.store.objects import ObjectStore
    from pipeline.store.verify import partitions_of

    store, topic = ObjectStore(settings.store), full_name(spans_by_trace.TOPIC, settings.kafka)
    try:
        opened = Catalog(settings.querier.data_dir, topic, store)
    except StoreUnavailableError:
        raise
    except Exception as error:
        store.close()
        raise SpanstreamError(
            f"{settings.querier.data_dir} cannot be opened, is the querier running? {error}"
        ) from error
    try:
        opened.empty()
        numbers = partitions_of(store, topic)
        with _progress() as progress:
            bar = _bar(progress, "partitions")
            for done, number in enumerate(numbers):
                bar(done, len(numbers))
                opened.refresh(number)
            bar(len(numbers), len(numbers))
            filters = 0
            while read := opened.load_filters(FILTERS_AT_ONCE):
                filters += read
        counted = {"partitions": len(numbers), "manifests": opened.count(), "filters": filters}
        horizons = opened.horizons()
    finally:
        opened.close()
        store.close()
    if as_json:
        write_json(counted | {"horizons": horizons})
    else:
        say(", ".join(f"{count:,} {name}" for name, count in counted.items()) + f" in {settings.querier.data_dir}")


def _progress() -> Progress:
    """A bar on stderr, on a terminal only."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=notes(), disable=not sys.stderr.isatty())


def _bar(progress: Progress, what: str) -> Callable[[int, int], None]:
    task = progress.add_task(what, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)
