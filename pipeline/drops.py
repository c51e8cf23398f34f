"""What of a tenant's spans was not kept as it was sent, counted by reason: what `/api/status/drops` shows.

Each process counts for itself, from its start. The numbers are kept beside the metrics, which bear no tenant: a label
for each would grow without bound.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import orjson

if TYPE_CHECKING:
    from pipeline.partition.batch import Prepared

Kind = Literal["refused_requests", "rejected_spans", "marked_spans", "duplicate_spans", "dead_records"]
Counts = dict[str, dict[str, int]]  # kind -> reason -> how many
TENANTS_MAX_DEFAULT = 1000
REASONS_MAX = 100  # of one tenant; more are counted together, so that texts of senders cannot fill memory
REASON_CHARACTERS_MAX = 120
OTHERS = "other reasons"
NOBODY = ""
"""The tenant of records whose tenant cannot be read; told where there is one tenant only."""
PATH = "/api/status/drops"
"""The route of every process: a receiver and a worker tell their own numbers, a querier those of all."""


class Drops:
    """Numbers by tenant, kind and reason. Thread-safe. Of the tenants the ones counted last are kept."""

    def __init__(self, tenants_max: int = TENANTS_MAX_DEFAULT) -> None:
        self.tenants_max = tenants_max
        """The setting limits.counted_tenants_max; a process sets it when it starts."""
        self._counts: OrderedDict[str, Counter[tuple[str, str]]] = OrderedDict()
        self._forgotten = 0
        self._lock = threading.Lock()

    def count(self, tenant: str, kind: Kind, reasons: Mapping[str, int]) -> None:
        """Add so many for each reason."""
        if not reasons:
            return
        with self._lock:
            counts = self._counts.setdefault(tenant, Counter())
            self._counts.move_to_end(tenant)
            for reason, count in reasons.items():
                key = kind, reason[:REASON_CHARACTERS_MAX]
                counts[key if key in counts or len(counts) < REASONS_MAX else (kind, OTHERS)] += count
            while len(self._counts) > self.tenants_max:
                self._counts.popitem(last=False)
                self._forgotten += 1

    def told(self, tenants: Iterable[str]) -> dict[str, Any]:
        """The numbers of these tenants, as JSON; and of how many tenants numbers were forgotten."""
        with self._lock:
            known = {tenant: Counter(self._counts[tenant]) for tenant in tenants if tenant in self._counts}
            forgotten = self._forgotten
        found: dict[str, Counts] = {}
        for tenant, counts in known.items():
            for (kind, reason), count in sorted(counts.items()):
                found.setdefault(tenant, {}).setdefault(kind, {})[reason] = count
        return {"tenants": found, "forgottenTenants": forgotten}

    def body(self, tenants: Iterable[str], *, multitenancy: bool) -> bytes:
        """What a process answers at PATH; where there is one tenant, with the numbers of nobody."""
        return orjson.dumps(self.told(tenants if multitenancy else [*tenants, NOBODY]))

    def clear(self) -> None:
        """Begin at zero."""
        with self._lock:
            self._counts.clear()
            self._forgotten = 0


DROPS = Drops()
"""Those of this process."""


def added(total: dict[str, Counts], more: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Add one process's numbers by tenant to `total`."""
    for tenant, kinds in more.items():
        for kind, reasons in kinds.items():
            mine = total.setdefault(tenant, {}).setdefault(kind, {})
            for reason, count in reasons.items():
                mine[reason] = mine.get(reason, 0) + count


def count_prepared(prepared: Prepared) -> None:
    """Count what a worker did to one batch. Spans that the decoder left out stand among the marked, by their reason."""
    for (tenant, reason), count in prepared.counts.items():
        DROPS.count(tenant, "marked_spans", {reason: count})
    for tenant, count in prepared.duplicates.items():
        DROPS.count(tenant, "duplicate_spans", {"the window knew them": count})
    for letter in prepared.dead:
        tenant = NOBODY if letter.record.reason else letter.record.tenant
        DROPS.count(tenant, "dead_records", {short_reason(letter.reason): 1})


def short_reason(reason: str) -> str:
    """The class of a dead letter's reason: what stands behind the colon is of the record."""
    return reason.split(":")[0][:40]
