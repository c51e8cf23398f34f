"""What a span table holds, counted: services with their operations, and attribute columns, a tenant at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.spans import schema

NO_SERVICE = "unknown_service"
OTHERS = "…"  # the service or operation under which all that found no place is counted
COUNTED_CODES_MAX = 1 << 20  # counting takes time and memory by codes; above, by rows
OPERATIONS_MAX = 5000  # of one index; more are counted together, so that a row stays bounded

Services = dict[str, dict[str, dict[str, int]]]  # tenant -> service -> operation -> spans
Attributes = dict[str, dict[str, int]]  # tenant -> column -> spans that have it
Ints = npt.NDArray[np.int64]


class Index(NamedTuple):
    """The counts of some spans."""

    services: Services
    attributes: Attributes


def index_of(spans: pa.Table) -> Index:
    """The index of all rows."""
    return indexes_of(spans, np.zeros(spans.num_rows, dtype=np.int64), 1)[0]


def indexes_of(spans: pa.Table, part: Ints, parts: int) -> list[Index]:
    """An index for each of `parts` parts of the table; part: the number of each row's. About 1 ms for all together."""
    found = [Index({}, {}) for _ in range(parts)]
    if not spans.num_rows:
        return found
    tenant, service, name = (coded(spans, column) for column in ("tenant", schema.SERVICE_COLUMN, "name"))
    group = part * len(tenant.values) + tenant.codes
    combined = (group * len(service.values) + service.codes) * len(name.values) + name.codes
    codes, counts = _counted(combined, parts * len(tenant.values) * len(service.values) * len(name.values))
    owners, operations = np.divmod(codes, len(name.values))
    named = [name.values[code] or "" for code in operations.tolist()]
    for owner, start, end in _runs(owners) or ():
        rest, service_code = divmod(owner, len(service.values))
        at, tenant_code = divmod(rest, len(tenant.values))
        mine = found[at].services.setdefault(tenant.values[tenant_code] or "", {})
        _add(
            mine.setdefault(service.values[service_code] or NO_SERVICE, {}),
            named[start:end],
            counts[start:end].tolist(),
        )
    for index in found:
        index.attributes.update({one: {} for one in index.services})
    _count_attributes(spans, group, tenant.values, found)
    return found


def _add(operations: dict[str, int], names: list[str], counts: list[int]) -> None:
    """Count spans of operations; beyond OPERATIONS_MAX names together."""
    if (
        not operations
        and len(names) <= OPERATIONS_MAX
        and len(found := dict(zip(names, counts, strict=True))) == len(names)
    ):
        operations.update(found)
        return
    for name, count in zip(names, counts, strict=True):
        counted_as = name if name in operations or len(operations) < OPERATIONS_MAX else OTHERS
        operations[counted_as] = operations.get(counted_as, 0) + count


def _counted(codes: Ints, bound: int) -> tuple[Ints, Ints]:
    """Each code, ascending, and how often it is there. bound: above all codes."""
    if bound > COUNTED_CODES_MAX:
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)
    found = np.flatnonzero(counts)
    return found, counts[found]


def _count_attributes(spans: pa.Table, group: Ints, tenants: list[str | None], found: list[Index]) -> None:
    """group: of each row its part and tenant as one number."""
    groups = len(found) * len(tenants)
    rows = np.bincount(group, minlength=groups)
    runs = _runs(group)
    for column in spans.column_names:
        if schema.parse_column(column) is None:
            continue
        values, counts = spans.column(column), rows
        if values.null_count and runs is not None:
            counts = rows.copy()
            for place, start, end in runs:
                counts[place] -= values.slice(start, end - start).null_count
        elif values.null_count:
            counts = np.bincount(group[values.is_valid().to_numpy()], minlength=groups)
        for place in np.flatnonzero(counts).tolist():  # where there is none it is another tenant's
            at, tenant_code = divmod(place, len(tenants))
            found[at].attributes[tenants[tenant_code] or ""][column] = int(counts[place])


def _runs(group: Ints) -> list[tuple[int, int, int]] | None:
    """(group, first row, end) of each group, where its rows stand together: then Arrow counts a run's nulls by itself.

    None where they do not. They do unless tenants share a batch.
    """
    if (group[1:] < group[:-1]).any():
        return None
    starts = [0, *(np.flatnonzero(group[1:] != group[:-1]) + 1).tolist()]
    return [(int(group[start]), start, end) for start, end in zip(starts, [*starts[1:], len(group)], strict=True)]


class Coded(NamedTuple):
    """A text column as numbers: values[codes[row]]; the last value is that of nulls."""

    values: list[str | None]
    codes: Ints


def coded(spans: pa.Table, column: str) -> Coded:
    """A text column of a table with rows."""
    values: list[str | None] = []
    codes = []
    for chunk in schema.column(spans, column).cast(schema.TEXT).chunks:
        codes.append(pc.fill_null(chunk.indices, len(chunk.dictionary)).to_numpy() + len(values))
        values += [*chunk.dictionary.to_pylist(), None]
    if len(codes) == 1:
        return Coded(values, codes[0].astype(np.int64))
    places = {value: at for at, value in enumerate(values)}  # pieces have dictionaries of their own
    return Coded(values, np.array([places[value] for value in values])[np.concatenate(codes)])


def add_services(total: Services, more: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Add the counts of `more` to `total`."""
    for tenant, services in more.items():
        for service, operations in services.items():
            mine = Counter(total.setdefault(tenant, {}).get(service, {}))
            mine.update(operations)
            total[tenant][service] = dict(mine)


def add_attributes(total: Attributes, more: Mapping[str, Mapping[str, int]]) -> None:
    """Add the counts of `more` to `total`."""
    for tenant, columns in more.items():
        mine = Counter(total.get(tenant, {}))
        mine.update(columns)
        total[tenant] = dict(mine)
