"""`spanstream topics ensure|show`: create the topics that are missing, say how all stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import rich_click as click
from rich.text import Text

from agents.commands.options import with_settings
from agents.commands.terminal import bare_table, say_error, screen, show_table, write_json
from agents.exit_codes import FAILED
from topics.admin import TopicState
from topics.settings import Settings


@click.group()
def topics() -> None:
    """The Kafka topics: what is on each, what is missing, what differs from the settings."""


@topics.command()
@with_settings("kafka", "receiver.record_bytes_max", "log")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
def ensure(settings: Settings, *, as_json: bool) -> None:
    """Create the topics that are missing. What exists is not changed: differences are told."""
    from topics.admin import ensure as ensure_topics

    tell(ensure_topics(settings), as_json=as_json)


@topics.command()
@with_settings("kafka", "receiver.record_bytes_max", "log")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
@click.pass_context
def show(context: click.Context, settings: Settings, *, as_json: bool) -> None:
    """How each topic stands. Exit code 1 where one is missing."""
    from topics.admin import show as show_topics

    states = show_topics(settings)
    tell(states, as_json=as_json)
    if missing := [state.name for state in states if not state.exists]:
        if not as_json:
            say_error(f"{', '.join(missing)} do not exist: `spanstream topics ensure` creates them")
        context.exit(FAILED)


def tell(states: Sequence[TopicState], *, as_json: bool) -> None:
    """Write the states: a table with a line for each difference, or JSON."""
    if as_json:
        write_json([as_row(state) for state in states])
        return
    table = bare_table("bold")
    for title in ("topic", "partitions", "copies", "retention", "key"):
        table.add_column(title, overflow="fold", justify="right" if title in ("partitions", "copies") else "left")
    for state in states:
        name = Text(state.name + (" (created)" if state.created else "" if state.exists else " (missing)"))
        name.stylize("green" if state.created else "" if state.exists else "red")
        table.add_row(name, str(state.partitions), str(state.replication_factor), _retention(state), state.topic.key)
    show_table(table)
    for state in states:
        for sentence in state.differences:
            screen().print(Text(f"{state.name} {sentence}", "yellow"))
        for sentence in state.could_lose_acknowledged_spans:
            screen().print(Text(f"{state.name} could lose acknowledged spans: {sentence}", "yellow"))


def as_row(state: TopicState) -> dict[str, Any]:
    """A state as JSON."""
    return {
        "topic": state.topic.name,
        "name": state.name,
        "key": state.topic.key,
        "format": state.topic.format,
        "exists": state.exists,
        "created": state.created,
        "partitions": state.partitions,
        "replication_factor": state.replication_factor,
        "config": state.config,
        "differences": list(state.differences),
        "could_lose_acknowledged_spans": list(state.could_lose_acknowledged_spans),
    }


def _retention(state: TopicState) -> str:
    if not state.exists:
        return ""
    if state.topic.cleanup_policy == "compact":
        return "newest of each key"
    retention_ms = int(state.config.get("retention.ms", "-1"))
    return "forever" if retention_ms < 0 else f"{retention_ms / 3_600_000:g} h"
