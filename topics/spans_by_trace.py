"""`spans_by_trace`: every span on its way to the workers. A trace ID always stands on the same partition."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from topics.errors import MalformedRecordError
from topics.topic import Topic, record_bytes_max, retention_of_spans_ms

TENANT_HEADER = "X-Scope-OrgID"
RECEIVED_HEADER = "received_unix_ns"
DEFAULT_TENANT = "single-tenant"

TOPIC = Topic(
    name="spans_by_trace",
    key="trace ID of the record's first span, 32 lowercase hex digits; partition by murmur2, as Java's default",
    format="OTLP TracesData (protobuf), spans of one tenant and one partition",
    cleanup_policy="delete",
    partitions=lambda kafka: kafka.partitions,
    retention_ms=retention_of_spans_ms,
    message_bytes_max=record_bytes_max,
    holds_acknowledged_spans=True,
)

Headers = Iterable[tuple[str, bytes | str | None]] | Mapping[str, bytes | str | None]

_TENANT = re.compile(r"[A-Za-z0-9!\-_.*'()]{1,150}")
_TENANT_HEADER_LOWER = TENANT_HEADER.lower()


def is_tenant_name(name: str) -> bool:
    """True for 1 to 150 characters of `A-Z a-z 0-9 ! - _ . * ' ( )`, except `.` and `..`."""
    return _TENANT.fullmatch(name) is not None and name not in (".", "..")


def tenant_of(headers: Headers | None) -> str:
    """The tenant that a record's headers name; DEFAULT_TENANT where none does. Names of headers ignore case.

    headers: pairs or a mapping, as the Kafka clients give them; None for a record without headers.
    Raises MalformedRecordError for a name outside the alphabet: it would become part of an object's name.
    """
    pairs = headers.items() if isinstance(headers, Mapping) else headers or ()
    for key, value in pairs:
        if key.lower() == _TENANT_HEADER_LOWER:
            name = value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""
            if not is_tenant_name(name):
                raise MalformedRecordError(f"header {TENANT_HEADER} is no tenant name: {name[:160]!r}")
            return name
    return DEFAULT_TENANT


def headers_of(tenant: str, received_unix_ns: int) -> list[tuple[str, bytes]]:
    """The headers of a record that we write."""
    return [(TENANT_HEADER, tenant.encode()), (RECEIVED_HEADER, b"%d" % received_unix_ns)]
