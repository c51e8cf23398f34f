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
    tenant, service, name = (_coded(spans, column) for column in ("tenant", schema.SERVICE_COLUMN, "name"))
    group = part * len(tenant.values) + tenant.codes
    combined = (group * len(service.values) + service.codes) * len(name.values) + name.codes
    for code, count in zip(*map(np.ndarray.tolist, np.unique(combined, return_counts=True)), strict=True):
        rest, name_code = divmod(code, len(name.values))
        rest, service_code = divmod(rest, len(service.values))
        at, tenant_code = divmod(rest, len(tenant.values))
        mine = found[at].services.setdefault(tenant.values[tenant_code] or "", {})
        operations = mine.setdefault(service.values[service_code] or NO_SERVICE, {})
        operation = name.values[name_code] or ""
        counted_as = operation if operation in operations or len(operations) < OPERATIONS_MAX else OTHERS
        operations[counted_as] = operations.get(counted_as, 0) + count
    for index in found:
        index.attributes.update({one: {} for one in index.services})
    _count_attributes(spans, group, tenant.values, found)
    return found


def _count_attributes(spans: pa.Table, group: Ints, tenants: list[str | None], found: list[Index]) -> None:
    """group: of each row its part and tenant as one number."""
    groups = len(found) * len(tenants)
    rows = np.bincount(group, minlength=groups)
    for column in spans.column_names:
        if schema.parse_column(column) is None:
            continue
        values, counts = spans.column(column), rows
        if values.null_count:
            counts = np.bincount(group[values.is_valid().to_numpy()], minlength=groups)
        for place in np.flatnonzero(counts).tolist():  # where there is none it is another tenant's
            at, tenant_code = divmod(place, len(tenants))
            found[at].attributes[tenants[tenant_code] or ""][column] = int(counts[place])


class _Coded(NamedTuple):
    """A text column as numbers: values[codes[row]]; the last value is that of nulls."""

    values: list[str | None]
    codes: Ints


def _coded(spans: pa.Table, column: str) -> _Coded:
    values: list[str | None] = []
    codes = []
    for chunk in schema.column(spans, column).cast(schema.TEXT).chunks:
        codes.append(pc.fill_null(chunk.indices, len(chunk.dictionary)).to_numpy() + len(values))
        values += [*chunk.dictionary.to_pylist(), None]
    if len(codes) == 1:
        return _Coded(values, codes[0].astype(np.int64))
    places = {value: at for at, value in enumerate(values)}  # pieces have dictionaries of their own
    return _Coded(values, np.array([places[value] for value in values])[np.concatenate(codes)])


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
