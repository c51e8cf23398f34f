"""`spanstream dead list|show|replay|purge`: records that could not be read, as they came."""

from __future__ import annotations

import sys
from collections.abc import Container
from datetime import UTC, datetime
from typing import Any

import rich_click as click
from confluent_kafka import Message
from rich.text import Text

from agents import dead_letters
from agents.commands.options import with_settings
from agents.commands.terminal import bare_table, say, screen, show_table, write_json
from agents.dead_letters import ORIGIN, read
from agents.exit_codes import FAILED
from topics import spans_dead
from topics.admin import watermarks
from topics.errors import BadQuestionError, NotFoundError
from topics.settings import Settings

SHOWN_BYTES = 256
FIRST_BYTES = 16  # in a list


@click.group()
def dead() -> None:
    """Dead letters: records that are no OTLP, with the place they stood at and the reason."""


@dead.command("list")
@with_settings("kafka", "log")
@click.option("--limit", metavar="N", type=click.IntRange(1, 10_000), default=20, help="The newest N (default 20)")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
def list_(settings: Settings, *, limit: int, as_json: bool) -> None:
    """The newest dead letters."""
    low, high = _range(settings)
    sent_again = dead_letters.noted(settings.kafka)
    rows = [as_row(message, sent_again) for message in read(settings.kafka, max(low, high - limit), high)]
    if as_json:
        write_json(rows)
        return
    table = bare_table()
    for title in ("letter", "time", "topic", "partition", "offset", "bytes", "first bytes", "replayed", "reason"):
        table.add_column(title, justify="right" if title in ("letter", "partition", "offset", "bytes") else "left")
    shown = ("letter", "time", *ORIGIN[:3], "bytes", "first_bytes", "replayed", ORIGIN[3])
    for row in rows:
        table.add_row(*(Text(_told(row[name])) for name in shown))
    show_table(table)
    say(f"{high - low:,} dead letters; `spanstream dead show LETTER` shows one")


@dead.command()
@click.argument("letter", type=int)
@with_settings("kafka", "log")
@click.option("--raw", is_flag=True, help="Only the record's bytes, on stdout")
@click.option("--json", "as_json", is_flag=True, help="For scripts; the bytes as hex")
def show(settings: Settings, *, letter: int, raw: bool, as_json: bool) -> None:
    """One dead letter: its headers and its first bytes."""
    low, high = _range(settings)
    message = next(read(settings.kafka, letter, letter + 1), None) if low <= letter < high else None
    if message is None:
        raise NotFoundError(f"there is no dead letter {letter}; {_there(low, high)}" if high > low else NONE)
    value = message.value() or b""
    if raw:
        sys.stdout.buffer.write(value)
        return
    document = as_row(message, dead_letters.noted(settings.kafka)) | {
        "headers": dead_letters.headers(message),
        "value_hex": value.hex(),
    }
    if as_json:
        write_json(document)
        return
    for name, text in {**document, "headers": ""}.items():
        if name not in ("headers", "value_hex"):
            screen().print(Text.assemble((f"{name:17}", "bold"), _told(text)))
    for name, text in dead_letters.headers(message).items():
        screen().print(Text.assemble((f"  {name:15}", "dim"), text))
    for at in range(0, min(len(value), SHOWN_BYTES), 16):
        part = value[at : at + 16]
        screen().print(Text(f"{at:08x}  {part.hex(' '):47}  {_plain(part)}"))
    if len(value) > SHOWN_BYTES:
        say(f"{len(value) - SHOWN_BYTES:,} more bytes: --raw writes all")


NONE = "there are no dead letters"


@dead.command()
@click.argument("letters", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every letter that was not sent again yet")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
@with_settings("kafka", "log", "receiver.record_bytes_max")
def replay(settings: Settings, *, letters: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Send letters once more, to the inlet: after a fix. LETTERS: numbers and ranges, as in 3 7 10-20.

    Each letter is sent again once, whenever this is called: what was sent is noted in Kafka. A crash between sending
    and noting sends up to 100 of them twice; copies within the deduplication window (worker.window_s) are removed.
    What cannot be read this time either becomes a new letter.
    """
    low, high = _range(settings)
    wanted = range(low, high) if every else _chosen(letters, low, high)
    if not wanted and not every:
        raise NotFoundError("name letters, or --all; `spanstream dead list` shows them")
    done = dead_letters.replay(settings, wanted, low=low) if wanted else dead_letters.Replayed()
    refused = {str(letter): why for letter, why in done.refused.items()}
    if as_json:
        write_json({"sent": done.sent, "sent_before": done.noted_before, "refused": refused})
    else:
        say(f"{done.sent:,} letters sent to the inlet; {done.noted_before:,} were sent before")
        for letter, why in refused.items():
            say(f"letter {letter} was not sent: {why}")
    if refused:
        sys.exit(FAILED)


@dead.command()
@with_settings("kafka", "log")
@click.option("--before", metavar="LETTER", type=click.IntRange(min=0), help="Only the letters before this one")
@click.option("--yes", is_flag=True, help="Do not ask")
def purge(settings: Settings, *, before: int | None, yes: bool) -> None:
    """Delete letters from Kafka for good: all, or those before one."""
    low, high = _range(settings)
    end = high if before is None else min(before, high)
    if end <= low:
        raise NotFoundError(f"there are no dead letters before {end}" if high > low else NONE)
    sent_again = dead_letters.noted(settings.kafka)
    waiting = any(letter not in sent_again for letter in range(low, end))
    said = f"delete letters {low} to {end - 1} for good{', which were not all sent again' if waiting else ''}?"
    if not yes and not click.confirm(said, err=True):
        say("nothing was deleted")
        sys.exit(FAILED)
    say(f"deleted; the next letter is {dead_letters.purge(settings.kafka, end)}")


def _chosen(texts: tuple[str, ...], low: int, high: int) -> set[int]:
    """The letters that numbers and ranges name, of those that there are."""
    chosen: set[int] = set()
    for text in texts:
        first, dash, last = text.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise BadQuestionError(f"{text!r} is no letter: a number as in 7, or a range as in 10-20")
        named = range(max(low, int(first)), min(high, int(last or first) + 1))
        if not named:
            raise NotFoundError(f"there is no dead letter {text}; {_there(low, high)}")
        chosen |= set(named)
    return chosen


def _there(low: int, high: int) -> str:
    return f"there are {low} to {high - 1}" if high > low else NONE


def as_row(message: Message, sent_again: Container[int]) -> dict[str, Any]:
    """A letter as a row: where it stood, why, how large, its first bytes, whether it was sent again."""
    headers = dead_letters.headers(message)
    _, timestamp_ms = message.timestamp()
    value = message.value() or b""
    return {
        "letter": message.offset(),
        "time": datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        **{name: headers.get(name, "") for name in ORIGIN},
        "bytes": len(value),
        "first_bytes": _plain(value[:FIRST_BYTES]),
        "replayed": (message.offset() or 0) in sent_again,
    }


def _told(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _plain(value: bytes) -> str:
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in value)


def _range(settings: Settings) -> tuple[int, int]:
    return watermarks(settings, spans_dead.TOPIC).get(0, (0, 0))
