"""`spanstream dead list|show`: records that could not be read, as they came."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import rich_click as click
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from rich.table import Table
from rich.text import Text

from agents.commands.options import with_settings
from agents.commands.terminal import say, screen, write_json
from topics import spans_dead
from topics.admin import client_config, watermarks
from topics.errors import KafkaUnavailableError, NotFoundError
from topics.settings import KafkaSettings, Settings
from topics.topic import full_name

SHOWN_BYTES = 256
ORIGIN = (
    spans_dead.TOPIC_HEADER,
    spans_dead.PARTITION_HEADER,
    spans_dead.OFFSET_HEADER,
    spans_dead.REASON_HEADER,
)


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
    rows = [as_row(message) for message in read(settings.kafka, max(low, high - limit), high)]
    if as_json:
        write_json(rows)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("letter", "time", "topic", "partition", "offset", "bytes", "reason"):
        table.add_column(title, justify="right" if title in ("letter", "partition", "offset", "bytes") else "left")
    for row in rows:
        table.add_row(*(Text(str(row[name])) for name in ("letter", "time", *ORIGIN[:3], "bytes", ORIGIN[3])))
    screen().print(table)
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
        raise NotFoundError(f"there is no dead letter {letter}; there are {low} to {high - 1}" if high > low else NONE)
    value = message.value() or b""
    if raw:
        sys.stdout.buffer.write(value)
        return
    document = as_row(message) | {"headers": _headers(message), "value_hex": value.hex()}
    if as_json:
        write_json(document)
        return
    for name, text in {**document, "headers": ""}.items():
        if name not in ("headers", "value_hex"):
            screen().print(Text.assemble((f"{name:17}", "bold"), str(text)))
    for name, text in _headers(message).items():
        screen().print(Text.assemble((f"  {name:15}", "dim"), text))
    for at in range(0, min(len(value), SHOWN_BYTES), 16):
        part = value[at : at + 16]
        plain = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        screen().print(Text(f"{at:08x}  {part.hex(' '):47}  {plain}"))
    if len(value) > SHOWN_BYTES:
        say(f"{len(value) - SHOWN_BYTES:,} more bytes: --raw writes all")


NONE = "there are no dead letters"


def read(kafka: KafkaSettings, first: int, end: int) -> Iterator[Message]:
    """The letters from offset first up to end, without committing anything. Raises KafkaUnavailableError."""
    consumer = Consumer(
        client_config(kafka)
        | {"group.id": f"{kafka.group}-dead", "enable.auto.commit": False, "enable.partition.eof": True, "log_level": 2}
    )
    try:
        consumer.assign([TopicPartition(full_name(spans_dead.TOPIC, kafka), 0, first)])
        deadline = time.monotonic() + kafka.request_timeout_s
        at = first
        while at < end:
            message = consumer.poll(0.2)
            if message is None:
                if time.monotonic() > deadline:
                    raise KafkaUnavailableError(f"Kafka gave nothing of offset {at} in {kafka.request_timeout_s:g} s")
                continue
            if message.error():
                return  # the end: offsets before it were deleted or are control records
            at = (message.offset() or 0) + 1
            if at <= end:
                yield message
    except KafkaException as exc:
        raise KafkaUnavailableError(f"Kafka at {kafka.bootstrap_servers}: {exc.args[0]}") from exc
    finally:
        consumer.close()


def as_row(message: Message) -> dict[str, Any]:
    """A letter as a row: where it stood, why, how large."""
    headers = _headers(message)
    _, timestamp_ms = message.timestamp()
    return {
        "letter": message.offset(),
        "time": datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        **{name: headers.get(name, "") for name in ORIGIN},
        "bytes": len(message.value() or b""),
    }


def _headers(message: Message) -> dict[str, str]:
    pairs: Any = message.headers() or []
    return {name: (value or b"").decode(errors="replace") for name, value in pairs}


def _range(settings: Settings) -> tuple[int, int]:
    return watermarks(settings, spans_dead.TOPIC).get(0, (0, 0))
