"""Manifests: the small objects that say what is stored. What a manifest names is stored; all else is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from pipeline.spans.few_values import Value, Values
from topics.errors import FormatVersionError, MalformedRecordError

T = TypeVar("T")

FORMAT = 1
OFFSET_DIGITS = 20
ENTRY_BYTES_MAX = 500_000  # half of what a Kafka broker takes by default: thousands of tenants make long manifests
MORE_KEYS_MAX = 1000  # an entry that lists so many keys of map columns may not list all
MANIFEST_NAME = re.compile(r"manifests/(?P<topic>[^/]+)/(?P<partition>\d+)/(?P<first>\d{20})\.json")

CHUNK_OBJECT = re.compile(r"chunks/[^/]+/[^/]+/(?P<topic>[^/]+)/(?P<partition>\d+)/(?P<first>\d{20})-\d{20}-[^/]+")

Services = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkEntry:
    """One chunk: the spans of one tenant in a manifest's range.

    bytes: of the chunk and the objects beside it. Times are of the spans, outliers left out (0 where all are outliers);
    outliers: (trace ID in hex, start) of spans whose start cannot be. services: service -> operation -> spans.
    attributes: column -> spans that have it. values: column -> all its values, of some columns that have few.
    more_keys: keys that stand in a map column, `scope.key`. damaged: whether an edit says so; it does not stand in a
    manifest.
    """

    tenant: str
    bucket: str
    name: str
    traces_name: str
    filter_name: str
    bytes: int
    spans: int
    traces: int
    start_min_unix_ns: int
    start_max_unix_ns: int
    end_max_unix_ns: int
    outliers: tuple[tuple[str, int], ...] = ()
    services: Services = field(default_factory=dict)
    attributes: dict[str, int] = field(default_factory=dict)
    more_keys: tuple[str, ...] = ()
    values: Values = field(default_factory=dict)
    damaged: bool = False

    @property
    def objects(self) -> tuple[str, str, str]:
        """The names of its objects."""
        return self.name, self.traces_name, self.filter_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The offsets [first, last] of a partition, and the chunks that hold their spans; none where it has no spans.

    token: of the attempt that stored the range, random. worker: its URL. losses: ranges that Kafka deleted unread.
    """

    topic: str
    partition: int
    partitions: int
    first: int
    last: int
    token: str
    worker: str
    written_unix_ns: int
    record_time_min_unix_ns: int
    record_time_max_unix_ns: int
    losses: tuple[tuple[int, int], ...] = ()
    chunks: tuple[ChunkEntry, ...] = ()

    @property
    def name(self) -> str:
        """The object's name in the first bucket."""
        return manifest_name(self.topic, self.partition, self.first)

    def to_json(self) -> bytes:
        """The object's content."""
        values = {name: getattr(self, name) for name in _MANIFEST} | {"chunks": [*map(chunk_values, self.chunks)]}
        return orjson.dumps({"format": FORMAT} | values)

    def to_entry(self, bytes_max: int = ENTRY_BYTES_MAX) -> bytes:
        """What topic span_chunks gets: the content, or where that is larger than `bytes_max` the object's name."""
        content = self.to_json()
        return content if len(content) <= bytes_max else orjson.dumps({"format": FORMAT, "name": self.name})

    @classmethod
    def from_json(cls, content: bytes) -> Manifest:
        """Read a manifest of this format or an earlier one.

        Raises FormatVersionError for a later format, MalformedRecordError for what is no manifest.
        """
        try:
            read: dict[str, Any] = orjson.loads(content)
            _check_format(read)
            return cls(**_manifest_values(read))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise MalformedRecordError(f"this is no manifest: {error!r}") from error


_MANIFEST = tuple(one.name for one in fields(Manifest))
_CHUNK = tuple(one.name for one in fields(ChunkEntry) if one.name != "damaged")
_WHOLE_NUMBERS = (
    *("partition", "partitions", "first", "written_unix_ns"),
    *("record_time_min_unix_ns", "record_time_max_unix_ns"),
)
_CHUNK_NUMBERS = ("bytes", "spans", "traces", "start_min_unix_ns", "start_max_unix_ns", "end_max_unix_ns")
_CHUNK_TEXTS = ("tenant", "bucket", "name", "traces_name", "filter_name")


def _manifest_values(read: dict[str, Any]) -> dict[str, Any]:
    values = {name: read[name] for name in _MANIFEST}
    values["losses"] = tuple((int(first), int(last)) for first, last in read["losses"])
    values["chunks"] = tuple(chunk_from_values(one) for one in read["chunks"])
    _check_values(values, _WHOLE_NUMBERS, ("topic", "token", "worker"))
    if values["first"] > values["last"] + 1:
        raise ValueError(f"first {values['first']} is beyond last {values['last']}")
    for one in values["chunks"]:
        _check_values(chunk_values(one), _CHUNK_NUMBERS, _CHUNK_TEXTS)
    return values


def _check_values(values: dict[str, Any], numbers: tuple[str, ...], texts: tuple[str, ...]) -> None:
    """Damaged JSON may still be JSON: what is no number must not become a mark."""
    wrong = [name for name in numbers if type(values[name]) is not int or values[name] < 0]
    wrong += [name for name in texts if not isinstance(values[name], str)]
    if wrong:
        raise ValueError(f"{wrong} are not what they should be")


def _check_format(read: dict[str, Any]) -> None:
    if read["format"] > FORMAT:
        raise FormatVersionError(
            f"a manifest has format {read['format']}, this version reads up to {FORMAT}: upgrade spanstream"
        )


def name_in_entry(entry: bytes) -> str | None:
    """The manifest's name, where an entry of span_chunks holds no more; None where it is a manifest itself."""
    if not entry.startswith(b'{"format":1,"name":'):
        return None
    try:
        name = str(orjson.loads(entry)["name"])
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise MalformedRecordError(f"this is no entry: {error!r}") from error
    return name


def edits_entry(partition: int) -> bytes:
    """What topic span_chunks gets when a partition has a new edit: readers list the bucket."""
    return b'{"format":1,"edits":%d}' % partition


def edits_in_entry(entry: bytes) -> int | None:
    """The partition with a new edit, where an entry of span_chunks says that; None for a manifest or its name."""
    if not entry.startswith(b'{"format":1,"edits":'):
        return None
    try:
        return int(orjson.loads(entry)["edits"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise MalformedRecordError(f"this is no entry: {error!r}") from error


def chunk_values(chunk: ChunkEntry) -> dict[str, Any]:
    """An entry as it stands in a manifest."""
    return {name: getattr(chunk, name) for name in _CHUNK if name != "values" or chunk.values}


def read_named(name: str, content: bytes, from_json: Callable[[bytes], T]) -> T:
    """An object's content as `from_json` reads it; raises FormatVersionError, MalformedRecordError with its name."""
    try:
        return from_json(content)
    except (FormatVersionError, MalformedRecordError) as error:
        raise type(error)(f"{name}: {error}") from error


def chunk_from_values(read: dict[str, Any]) -> ChunkEntry:
    """The entry of values that stand in a manifest."""
    values = {name: read[name] for name in _CHUNK if name != "values"}
    values["outliers"] = tuple((str(trace_id), int(start)) for trace_id, start in read["outliers"])
    values["more_keys"] = tuple(read["more_keys"])
    values["values"] = {str(name): _few(of) for name, of in dict(read.get("values", {})).items()}  # not in old ones
    return ChunkEntry(**values)


def _few(values: Any) -> tuple[Value, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(one, str | int) for one in values):
        raise ValueError(f"{str(values)[:40]} are no values")
    return tuple(values)


def manifest_prefix(topic: str, partition: int) -> str:
    """Where a partition's manifests stand; their names sort by first offset."""
    return f"manifests/{topic}/{partition}/"


def manifest_name(topic: str, partition: int, first: int) -> str:
    """The name under which only one attempt can store the range that begins at `first`."""
    return f"{manifest_prefix(topic, partition)}{first:0{OFFSET_DIGITS}d}.json"


def parse_manifest_name(name: str) -> tuple[str, int, int] | None:
    """(topic, partition, first offset) of a manifest's name; None for any other object."""
    found = MANIFEST_NAME.fullmatch(name)
    return (found["topic"], int(found["partition"]), int(found["first"])) if found else None


def parse_chunk_object(name: str) -> tuple[str, int, int] | None:
    """(topic, partition, first offset) of the name of a chunk or an object beside it; None for any other."""
    found = CHUNK_OBJECT.fullmatch(name)
    return (found["topic"], int(found["partition"]), int(found["first"])) if found else None


def chunk_name(tenant: str, topic: str, partition: int, range_: tuple[int, int], token: str, now_unix_ns: int) -> str:
    """The chunk's name without its suffix; `.parquet`, `.traces.parquet` and `.filter` stand beside each other."""
    day = datetime.fromtimestamp(now_unix_ns / 1e9, UTC).strftime("%Y-%m-%d")
    first, last = (f"{offset:0{OFFSET_DIGITS}d}" for offset in range_)
    folder = tenant.replace("*", "~")  # the engine takes a star for a pattern; no tenant's name holds a tilde
    folder = folder if folder.strip(".") else f"~{folder}"  # nor is a folder of dots alone one everywhere
    return f"chunks/{folder}/{day}/{topic}/{partition}/{first}-{last}-{token}"
