"""Counts of services, operations and attributes: bounded, so that made-up names cannot fill a manifest or a catalog."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import orjson

from pipeline.spans.index import OTHERS
from pipeline.store.manifest import ChunkEntry, Services

NAME_CHARS_MAX = 200
CHUNK_OPERATIONS_MAX = 5000
TENANT_OPERATIONS_MAX = 50_000
TENANT_NAMES_MAX = 20_000  # attribute columns, and keys of map columns


def bounded(services: Mapping[str, Mapping[str, int]], operations_max: int) -> Services:
    """Service -> operation -> spans with the most frequent `operations_max` pairs; the rest is counted under OTHERS.

    A name longer than NAME_CHARS_MAX counts as rare, however frequent it is. The sum of spans stays.
    """
    pairs = [(spans, service, name) for service, named in services.items() for name, spans in named.items()]
    if len(pairs) <= operations_max and all(_short(service, name) for _, service, name in pairs):
        return {service: dict(named) for service, named in services.items()}
    pairs.sort(key=lambda pair: (OTHERS in pair[1:], not _short(*pair[1:]), -pair[0], pair[1:]))
    kept: Services = {}
    for at, (spans, service, name) in enumerate(pairs):
        fits = at < operations_max and _short(service, name) and OTHERS not in (service, name)
        home = service if fits or service in kept else OTHERS
        operations = kept.setdefault(home, {})
        operation = name if fits else OTHERS
        operations[operation] = operations.get(operation, 0) + spans
    return kept


class Totals:
    """The counts of one tenant's chunks, as they stand in the catalog."""

    def __init__(self, content: bytes | None = None) -> None:
        read = orjson.loads(content) if content else {}
        self.services: Services = read.get("services", {})
        self.attributes: dict[str, int] = read.get("attributes", {})
        self._more_keys: dict[str, None] = dict.fromkeys(read.get("more_keys", []))

    @property
    def more_keys(self) -> list[str]:
        """`scope.key` of keys in map columns."""
        return list(self._more_keys)

    def add(self, entry: ChunkEntry) -> None:
        """Count one more chunk."""
        for service, operations in entry.services.items():
            mine = self.services.setdefault(service, {})
            for name, spans in operations.items():
                mine[name] = mine.get(name, 0) + spans
        for column, spans in entry.attributes.items():
            self.attributes[column] = self.attributes.get(column, 0) + spans
        self._more_keys.update(dict.fromkeys(entry.more_keys))

    def to_json(self) -> bytes:
        """What is kept, within the bounds: the most frequent, and of keys those that were there first."""
        attributes = self.attributes
        if len(attributes) > TENANT_NAMES_MAX:
            attributes = dict(Counter(attributes).most_common(TENANT_NAMES_MAX))
        services = bounded(self.services, TENANT_OPERATIONS_MAX)
        more_keys = self.more_keys[:TENANT_NAMES_MAX]
        return orjson.dumps({"services": services, "attributes": attributes, "more_keys": more_keys})


def _short(service: str, name: str) -> bool:
    return len(service) <= NAME_CHARS_MAX and len(name) <= NAME_CHARS_MAX
