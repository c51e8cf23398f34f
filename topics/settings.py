"""All settings: one typed definition. Precedence: flag, then `SPANSTREAM_*`, then TOML file, then default.

A field's section and name make its flag (`--kafka-group`), its variable (`SPANSTREAM_KAFKA_GROUP`) and its place in the
TOML file (`[kafka] group`). `docs/settings.md` is generated from here.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from topics.errors import SettingsError
from topics.querier_settings import QuerierSettings as QuerierSettings  # what is imported from here, as the others
from topics.section import KIB, MIB, Section, setting
from topics.terminal_settings import TerminalSettings as TerminalSettings

ENV_PREFIX = "SPANSTREAM_"
CONFIG_VARIABLE = "SPANSTREAM_CONFIG"
DEFAULT_FILE = Path("spanstream.toml")
HIDDEN = "(hidden)"
BucketName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
"""What S3 allows: any other name would be refused at the first request, not at the start."""


class KafkaSettings(Section):
    """How to reach Kafka, and what the topics look like."""

    bootstrap_servers: str = setting("127.0.0.1:9092", "Comma-separated host:port of Kafka brokers", min_length=1)
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = setting(
        "PLAINTEXT", "How clients connect"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = setting("PLAIN", "Used with SASL_* only")
    sasl_username: str = setting("", "Used with SASL_* only")
    sasl_password: SecretStr = setting(SecretStr(""), "Used with SASL_* only")
    ssl_ca_path: str = setting("", "File of the certificate authority; empty: the system's")
    ssl_cert_path: str = setting("", "Certificate (PEM) shown to brokers that ask for one: mutual TLS")
    ssl_key_path: str = setting("", "The key of that certificate (PEM)")
    ssl_key_password: SecretStr = setting(SecretStr(""), "The password of that key, where it has one")
    topic_prefix: str = setting(
        "", "Put before every topic name, so that deployments can share a cluster", pattern=r"^[a-zA-Z0-9._-]*$"
    )
    partitions: int = setting(
        8, "Partitions of a new spans_by_trace; changing it later is a documented operation", ge=1, le=1000
    )
    replication_factor: int = setting(
        0, "Of new topics; 0: 3 where the cluster has three brokers, else 1 with a warning", ge=0, le=10
    )
    min_insync_replicas: int = setting(0, "Of new topics; 0: 2 where there are three brokers, else 1", ge=0, le=10)
    retention_h: float = setting(24.0, "How long Kafka keeps a span's record, in hours", gt=0)
    dead_retention_h: float = setting(168.0, "How long Kafka keeps a dead letter, in hours", gt=0)
    request_timeout_s: float = setting(10.0, "Longest wait for an answer of Kafka", gt=0, le=300)
    session_timeout_s: float = setting(10.0, "A worker silent for so long loses its partitions", ge=6, le=300)
    group: str = setting("spanstream", "Consumer group of the workers; name of the Faust app", min_length=1)


class StoreSettings(Section):
    """Object storage: where chunks and manifests stand."""

    endpoint: str = setting("http://127.0.0.1:9000", "URL of the S3 endpoint", pattern=r"^https?://")
    access_key: str = setting("spanstream", "S3 access key")
    secret_key: SecretStr = setting(SecretStr("spanstream-local"), "S3 secret key")
    region: str = setting("us-east-1", "S3 region")
    ca_path: str = setting("", "File of the certificate authority of an https endpoint; empty: the system's")
    buckets: tuple[BucketName, ...] = setting(
        ("spans-a",),
        "Bucket names; a trace's bucket is chosen by its partition; manifests stand in the first",
        min_length=1,
    )
    put_timeout_s: float = setting(60.0, "Longest time for one PUT; a signed PUT expires then", gt=0, le=3600)
    get_timeout_s: float = setting(30.0, "Longest time for one GET or LIST", gt=0, le=3600)
    retry_wait_max_s: float = setting(
        30.0, "Longest wait between two tries of an upload; tries start at 0.2 s and double, with jitter", gt=0
    )
    connections_max: int = setting(16, "Open connections to the store, a process", ge=1, le=256)


class ReceiverSettings(Section):
    """OTLP in: ports, limits, batching."""

    host: str = setting("127.0.0.1", "Address the OTLP listeners bind to")
    grpc_port: int = setting(4317, "OTLP/gRPC", ge=0, le=65535)
    http_port: int = setting(4318, "OTLP/HTTP, also /metrics and /ready", ge=0, le=65535)
    request_bytes_max: int = setting(16 * MIB, "Largest request, as sent and unpacked; larger gets 413", ge=KIB)
    grpc_message_bytes_max: int = setting(4 * MIB, "Largest OTLP/gRPC message, as sent and unpacked", ge=KIB)
    grpc_requests_max: int = setting(
        256, "gRPC requests at a time; further ones get RESOURCE_EXHAUSTED. Bounds memory with the setting above", ge=1
    )
    json_values_max: int = setting(
        500_000, "Most values in a JSON request, since each takes about 100 bytes once read; beyond, 413", ge=1000
    )
    inflight_bytes_max: int = setting(
        24 * MIB, "Bytes of requests not yet acknowledged; beyond, 503. Memory grows by 2.5 times this", ge=KIB
    )
    record_bytes_max: int = setting(
        900_000, "Largest Kafka record written; a larger span is cut or rejected", ge=10_000, le=100_000_000
    )
    batch_bytes: int = setting(512 * KIB, "A record is sent when it has so many bytes", ge=KIB)
    batch_wait_s: float = setting(0.05, "... or when its first span has waited so long", ge=0, le=5)
    batch_tenants_free: int = setting(
        16, "With more open batches than this a partition, the wait grows in proportion", ge=1
    )
    batch_wait_max_s: float = setting(0.2, "... up to this", ge=0, le=5)
    linger_s: float = setting(0.005, "Producer linger", ge=0, le=1)
    ack_timeout_s: float = setting(10.0, "A request whose records Kafka has not confirmed by then: 503", gt=0, le=300)
    stop_timeout_s: float = setting(15.0, "At a stop, requests under way are given so long", gt=0, le=300)
    retry_after_s: float = setting(5.0, "What a sender is told to wait after 503", ge=0, le=3600)
    connections_max: int = setting(1000, "Open HTTP connections; further ones get 503", ge=1)
    idle_timeout_s: float = setting(75.0, "An idle connection is closed after so long", gt=0)
    tenant_rate_bytes_per_s: float = setting(0.0, "Token bucket a tenant; 0: no limit", ge=0)
    tenant_burst_bytes: float = setting(64.0 * MIB, "Size of that bucket", gt=0)
    multitenancy: bool = setting(False, "Take the tenant from X-Scope-OrgID; off: every span is single-tenant's")


class LimitSettings(Section):
    """What one span may hold; beyond, values are cut and the span is marked."""

    attribute_bytes_max: int = setting(64 * KIB, "Longest string or bytes value of an attribute", ge=64)
    attributes_max: int = setting(
        512, "Most attributes of one span, resource, scope, event or link; further ones are dropped and counted", ge=1
    )
    overrides_path: str = setting(
        "", "File (TOML or JSON) with limits of single tenants, read again when it changes; see docs/operations.md"
    )
    counted_tenants_max: int = setting(
        1000, "Tenants of which a process keeps what /api/status/drops tells; those counted last are kept", ge=1
    )
    future_s_max: float = setting(86_400.0, "A start further ahead than this is an outlier", gt=0)


class WorkerSettings(Section):
    """Index agent and sink agent."""

    host: str = setting("127.0.0.1", "Address of the table endpoint")
    port: int = setting(6066, "Table endpoint (Faust web)", ge=0, le=65535)
    advertised_url: str = setting("", "URL under which queriers reach the table endpoint; empty: http://host:port")
    static_member: str = setting("", "Kafka group.instance.id: a restart under one name keeps its partitions at once")
    data_dir: Path = setting(Path(".spanstream/worker"), "RocksDB tables and Faust's data; may be lost at any time")
    take_records_max: int = setting(512, "Records of one batch of a partition", ge=1, le=10_000)
    rekey_wait_s: float = setting(
        0.1, "The rekey agent collects records of otlp_spans so long, to write fewer and larger ones", ge=0, le=5
    )
    take_gather_s: float = setting(
        0.2, "With little traffic batches are decoded so far apart, those of all partitions at once", ge=0, le=1
    )
    gather_bytes_max: int = setting(
        4 * MIB, "A partition's batch, and those of several decoded at once, in bytes of OTLP", ge=64 * KIB
    )
    take_bytes_max: int = setting(16 * MIB, "Bytes of OTLP decoded at once", ge=MIB)
    take_spans_max: int = setting(20_000, "Spans decoded at once, counted on the wire", ge=1000)
    fetch_bytes_max: int = setting(8 * MIB, "Bytes of one Kafka fetch", ge=MIB)
    batch_bytes_max: int = setting(
        64 * MIB, "Bytes that a Kafka batch may unpack to; the records of a larger one become dead letters", ge=MIB
    )
    memory_bytes_max: int = setting(
        144 * MIB, "Segments in memory, those being stored included, and windows; beyond, fetching pauses", ge=64 * MIB
    )
    resident_bytes_max: int = setting(
        448 * MIB,
        "Above so much memory in RAM what is free of it goes back to the system; below, it is used again",
        ge=0,
    )
    rocksdb_bytes: int = setting(32 * MIB, "RocksDB block cache and write buffers, part of the above", ge=4 * MIB)
    live_bytes_max: int = setting(
        80 * MIB, "In-memory copies of segments, part of the above; beyond, RocksDB serves them", ge=4 * MIB
    )
    unsealed_bytes_max: int = setting(
        4096 * MIB,
        "Segments in memory and in RocksDB together; beyond, fetching pauses until a seal is done",
        ge=64 * MIB,
    )
    open_bytes_max: int = setting(
        72 * MIB,
        "What is not yet being stored, of all partitions, in Arrow; beyond, the largest partition is sealed. Queriers "
        "hold copies of it: keep the sum over workers below querier.live_bytes_max",
        ge=MIB,
    )
    seal_bytes: int = setting(64 * MIB, "A partition's open segments are sealed at this size in Arrow", ge=64 * KIB)
    seal_spans: int = setting(500_000, "... or at so many spans", ge=1)
    seal_age_s: float = setting(900.0, "... or when the oldest has waited so long; being found does not wait", gt=0)
    segments_max: int = setting(20, "Adjacent small segments of a partition are merged above this number", ge=2)
    drop_grace_s: float = setting(5.0, "Stored segments are kept so long for queries on an older snapshot", ge=0)
    window_s: float = setting(
        900.0, "Copies are found within this record time, and in all that is not yet in a chunk", ge=0
    )
    window_keys_max: int = setting(4_000_000, "Most keys of a worker's window, beyond what is in no chunk yet", ge=1000)
    attribute_columns_max: int = setting(
        200, "Attributes of one scope that get a column of their own; the rest goes to the map column", ge=1, le=2000
    )


class ChunkSettings(Section):
    """How chunks are encoded."""

    row_group_spans: int = setting(16_384, "Spans of one Parquet row group", ge=1000)
    zstd_level: int = setting(1, "Compression level", ge=1, le=19)


class HousekeepingSettings(Section):
    """What workers delete from the buckets and merge in them, each of the partitions that it owns."""

    every_s: float = setting(600.0, "A worker looks after its partitions so often; 0: never", ge=0)
    chunk_retention_h: float = setting(336.0, "Chunks are removed so long after they were written, in hours", gt=0)
    removed_kept_s: float = setting(3600.0, "Objects of removed chunks are deleted so long after them", ge=0)
    sweep_every_h: float = setting(24.0, "Objects that nothing names are looked for so often, in hours", gt=0)
    checkpoint_edits: int = setting(50, "Edits of a partition are drawn together after so many", ge=1, le=10_000)
    compaction_chunk_bytes: int = setting(256 * MIB, "Small chunks are merged to chunks of so much; 0: never", ge=0)
    compaction_after_h: float = setting(
        2.0, "... when they were written so long ago, in hours; never what the deduplication window needs", ge=0
    )
    compaction_parts_min: int = setting(4, "... at least so many at once", ge=2, le=1000)
    compaction_parts_max: int = setting(16, "... and at most", ge=2, le=1000)
    compaction_every_s: float = setting(3600.0, "What could be merged is looked for so often", ge=0)
    compaction_round_s: float = setting(60.0, "A partition's turn begins no merge after so long", gt=0)
    compaction_share: float = setting(0.5, "Part of its time that merging is at work; it waits for seals", gt=0, le=1)
    compaction_memory_bytes: int = setting(12 * MIB, "Memory of rows that are being merged, about", ge=MIB)
    check_bytes_per_s: int = setting(
        64 * KIB, "Stored chunks are looked at again, checksums and all, so much of each partition; 0: never", ge=0
    )


class StackSettings(Section):
    """The local stack of `spanstream up`, `demo` and the tests."""

    data_dir: Path = setting(Path(".spanstream"), "Everything of the local stack stands here and is kept between runs")
    kafka_port: int = setting(9092, "Kafka", ge=0, le=65535)
    kafka_controller_port: int = setting(9093, "Kafka's controller", ge=0, le=65535)
    kafka_heap_mb: int = setting(512, "Kafka's Java heap in MB", ge=128)
    store_port: int = setting(9000, "MinIO or rclone", ge=0, le=65535)
    store: Literal["auto", "minio", "rclone", "none"] = setting(
        "auto", "auto: MinIO where a binary is found, else rclone; none: use store.endpoint as it is"
    )
    minio_path: str = setting("", "MinIO binary; empty: PATH, then the one that `make minio` built")
    workers: int = setting(1, "Workers started", ge=1, le=32)
    start_timeout_s: float = setting(60.0, "Longest wait for a part to be ready", gt=0)
    stop_timeout_s: float = setting(20.0, "A part that has not stopped by then is killed", gt=0)
    restart_wait_max_s: float = setting(30.0, "A dead process is started again after 0.5 s, doubling up to this", gt=0)


class DoorSettings(Section):
    """Who may come in. The same in every process of a deployment, except what only commands show."""

    tokens_path: str = setting(
        "", "File of tokens' hashes, which `spanstream token new` writes; set: every request carries a token"
    )
    peer_token: SecretStr = setting(
        SecretStr(""), "What workers and queriers show each other where there are tokens; any long random text"
    )
    token: SecretStr = setting(SecretStr(""), "What commands show to receiver and querier")
    tls_cert_path: str = setting(
        "", "Certificate chain (PEM) of this process: its listeners speak TLS with it, and it shows it to others"
    )
    tls_key_path: str = setting("", "The key of that certificate (PEM, without a password)")
    tls_client_ca_path: str = setting(
        "", "Callers must show a certificate of this authority (PEM): mutual TLS on every listener"
    )
    tls_ca_path: str = setting(
        "", "Authority (PEM) by which processes and commands check each other's listeners; empty: the system's"
    )
    tls_look_every_s: float = setting(
        60.0, "Listeners look so often whether certificate and key were renewed", gt=0, le=86400
    )
    insecure_listen: bool = setting(
        False, "Listen on addresses beyond this machine though there are no tokens: whoever reaches it may do all"
    )


class LogSettings(Section):
    """What processes say."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "Least level written; commands that ask and end write errors alone, unless it is set"
    )
    format: Literal["auto", "console", "json"] = setting("auto", "auto: console on a terminal, else JSON lines")


class Settings(Section):
    """Every setting, by section."""

    kafka: KafkaSettings = KafkaSettings()
    store: StoreSettings = StoreSettings()
    receiver: ReceiverSettings = ReceiverSettings()
    limits: LimitSettings = LimitSettings()
    worker: WorkerSettings = WorkerSettings()
    chunk: ChunkSettings = ChunkSettings()
    housekeeping: HousekeepingSettings = HousekeepingSettings()
    querier: QuerierSettings = QuerierSettings()
    stack: StackSettings = StackSettings()
    doors: DoorSettings = DoorSettings()
    terminal: TerminalSettings = TerminalSettings()
    log: LogSettings = LogSettings()


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each `section.field` where its value came from: `default`, a file, a variable or a flag."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Settings:
    """Flag, else `SPANSTREAM_*`, else TOML file, else default. See `load`."""
    return load(flags, config).settings


def origins(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Mapping[str, str]:
    """For each `section.field` where its value comes from. See `load`."""
    return load(flags, config).origins


def load(flags: Mapping[str, Any] | None = None, config: Path | None = None) -> Loaded:
    """Read all sources and check every value.

    flags: `section.field` -> value, as text or typed; None is "not given". config: the TOML file; without one
    SPANSTREAM_CONFIG names it, or it is ./spanstream.toml where that exists.
    Raises SettingsError with a line for each unknown name and wrong value: name, value, range and origin.
    """
    values: dict[str, Any] = {}
    origin = {f"{section}.{name}": "default" for section, name, _ in fields()}
    problems: list[str] = []
    for source, given in (
        (_file_path(config), _file_values(_file_path(config))),
        ("variable", _variables()),
        ("flag", {name: value for name, value in (flags or {}).items() if value is not None}),
    ):
        for name, value in given.items():
            where = _where(source, name)
            if name in origin:
                values[name], origin[name] = value, where
            else:
                problems.append(f"{name} ({where}) is no setting{_did_you_mean(name, list(origin))}")
    settings, wrong = _checked(values, origin)
    if problems or settings is None:
        raise SettingsError("\n".join([*problems, *wrong]))
    return Loaded(settings, origin)


def fields() -> Iterator[tuple[str, str, FieldInfo]]:
    """(section, name, field) of every setting, in the order of this file."""
    for section, outer in Settings.model_fields.items():
        assert isinstance(outer.annotation, type)
        assert issubclass(outer.annotation, Section)
        for name, inner in outer.annotation.model_fields.items():
            yield section, name, inner


def values_of(settings: Settings) -> list[tuple[str, Any]]:
    """(`section.field`, value) of every setting, in the order of this file."""
    return [(f"{section}.{name}", getattr(getattr(settings, section), name)) for section, name, _ in fields()]


def shown(value: Any) -> Any:
    """A value that may be shown: secrets hidden, paths as text."""
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    return str(value) if isinstance(value, Path) else value


def flag_of(name: str) -> str:
    """`kafka.group` -> `--kafka-group`."""
    return "--" + name.replace(".", "-").replace("_", "-")


def variable_of(name: str) -> str:
    """`kafka.group` -> `SPANSTREAM_KAFKA_GROUP`."""
    return ENV_PREFIX + name.replace(".", "_").upper()


def is_secret(field: FieldInfo) -> bool:
    """Values of such a setting are never shown."""
    return field.annotation is SecretStr


def allowed(field: FieldInfo) -> str:
    """What a value may be, in words: `1 to 1000`, `above 0`, `one of a, b`; empty where its type says all."""
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(field.annotation)))
    bounds = {name: getattr(mark, name) for mark in field.metadata for name in _BOUND_NAMES if hasattr(mark, name)}
    bounds = {name: value for name, value in bounds.items() if value is not None}
    words = [word.format(bounds[name]) for name, word in _BOUND_NAMES.items() if name in bounds]
    if bounds.keys() == {"ge", "le"}:
        return f"{bounds['ge']} to {bounds['le']}"
    kinds: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    kind = _names(field) if get_origin(field.annotation) is tuple else kinds.get(field.annotation, "text")
    if kind.startswith("a ") and words:
        return " and ".join(words)
    return ", ".join([kind, *words])


def _names(field: FieldInfo) -> str:
    marks = [mark for known in getattr(get_args(field.annotation)[0], "__metadata__", ()) for mark in known.metadata]
    patterns = [f" like {mark.pattern}" for mark in marks if getattr(mark, "pattern", None)]
    return f"names{''.join(patterns)} with commas between"


_BOUND_NAMES = {
    "gt": "above {}",
    "ge": "at least {}",
    "lt": "below {}",
    "le": "at most {}",
    "min_length": "at least {} long",
    "pattern": "like {}",
}


def _file_path(config: Path | None) -> Path | None:
    if config is None and (named := os.environ.get(CONFIG_VARIABLE)):
        config = Path(named)
    if config is None:
        return DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    if not config.is_file():
        raise SettingsError(f"the settings file {config} does not exist")
    return config


def _file_values(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"the settings file {path} cannot be read: {exc}") from exc
    values: dict[str, Any] = {}
    for section, table in tables.items():
        if isinstance(table, dict):
            values |= {f"{section}.{name}": value for name, value in table.items()}
        else:
            values[section] = table
    return values


def _variables() -> dict[str, Any]:
    """No section has an underscore in its name: the first one ends it."""
    named = (name for name in os.environ if name.startswith(ENV_PREFIX) and name != CONFIG_VARIABLE)
    return {name.removeprefix(ENV_PREFIX).lower().replace("_", ".", 1): os.environ[name] for name in sorted(named)}


def _where(source: Path | str | None, name: str) -> str:
    if source == "variable":
        return f"variable {variable_of(name)}"
    return f"flag {flag_of(name)}" if source == "flag" else f"file {source}"


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    same_field = [candidate for candidate in known if candidate.split(".")[1] == name.split(".")[-1]]
    meant = close or same_field
    return f"; did you mean {meant[0]}?" if meant else ""


def _checked(values: Mapping[str, Any], origin: Mapping[str, str]) -> tuple[Settings | None, list[str]]:
    nested: dict[str, dict[str, Any]] = {}
    by_name = {f"{section}.{name}": field for section, name, field in fields()}
    for full, value in values.items():
        section, name = full.split(".")
        is_list = get_origin(by_name[full].annotation) is tuple and isinstance(value, str)
        nested.setdefault(section, {})[name] = (
            [part.strip() for part in value.split(",") if part.strip()] if is_list else value
        )
    try:
        return Settings.model_validate(nested), []
    except ValidationError as exc:
        wrong = dict.fromkeys(f"{error['loc'][0]}.{error['loc'][1]}" for error in exc.errors())
    sentences = []
    for full in wrong:
        given = HIDDEN if is_secret(by_name[full]) else repr(values[full])
        sentences.append(f"{full} is {given} ({origin[full]}), must be {allowed(by_name[full])}")
    return None, sentences
