"""Tag names, tag values, services: what there is to ask for.

Names come from the catalog and the live segments: with a range, from the chunks that overlap it; with a condition, from
the spans that fulfil it. Values and counts come from the rows: with a range, from spans that overlap it. Of chunks that
lie in the range, the catalog knows the values of columns that have few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.query.blocks import LiveSegment
from pipeline.query.chunk_cache import ChunkCache
from pipeline.query.chunks import (
    CHUNK_NUMBER,
    IN_RANGE,
    SERVICE_SQL,
    ChunkReader,
    ChunkRef,
    Present,
    check_found,
    refs_of,
    rows_by_chunk,
    rows_of,
)
from pipeline.query.conditions import Condition
from pipeline.query.engine import Engine, Session, quoted
from pipeline.query.executor import BATCH_SPANS, ChunkRows, batches
from pipeline.query.identifiers import Attribute, Intrinsic
from pipeline.query.plan import condition_of
from pipeline.query.snapshot import Snapshot, Snapshots, filtered
from pipeline.query.tag_expressions import INTRINSICS, Expression, expressions_of, listed_in, text
from pipeline.query.tenant_spans import TenantSpans, TimeChunks, fitting
from pipeline.query.turns import Lane
from pipeline.spans import schema
from pipeline.spans.few_values import Value
from pipeline.spans.index import NO_SERVICE, Services, add_services
from pipeline.spans.schema import SERVICE_COLUMN
from pipeline.traceql import tree

ALWAYS = (0, 2**64 - 1)
PARENT = "parent_span_id"
IN_RANGE_COLUMNS = ("start_unix_ns", "duration_ns")
STORED_MEANWHILE_TRIES = 3
Range = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Among:
    """Which spans count: those that overlap a range (Unix ns, inclusive), of which a condition holds.

    Of a condition counts what a span alone tells; what is about its whole trace is left out.
    """

    within: Range = None
    matching: tree.Field | None = None

    def condition(self, present: Present) -> Condition:
        """The condition on a row. Raises BadQuestionError."""
        if self.matching is None:
            return Condition()
        return condition_of(tree.Pipeline((tree.Filter(self.matching),)), present)


class TagValue(NamedTuple):
    """A value as text, and what it is: string, int, float, bool, keyword."""

    type: str
    value: str


class FoundServices(NamedTuple):
    """operations: service -> operation -> spans; reasons: why some may be missing."""

    operations: dict[str, dict[str, int]]
    reasons: list[str]


@dataclass(slots=True, kw_only=True)
class TagAnswer:
    """names: scope (ours) -> keys; values; all sorted. reasons: why some may be missing; cut: there are more."""

    names: dict[str, list[str]] = field(default_factory=dict)
    values: list[TagValue] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    cut: bool = False
    chunks: int = 0
    chunk_bytes: int = 0


Heard = Callable[[TagAnswer], None]  # is told from another thread, again and again, what is found so far


class TagCatalog(TimeChunks, Protocol):
    """The catalog, as far as tags need it. May block."""

    def attributes(self, tenant: str) -> Mapping[str, int]: ...
    def more_keys(self, tenant: str) -> Iterable[str]: ...
    def services(self, tenant: str) -> Mapping[str, Mapping[str, int]]: ...


class Tags:
    """Answers questions about tags and services."""

    def __init__(self, catalog: TagCatalog, snapshots: Snapshots, engine: Engine, cache: ChunkCache) -> None:
        """cache: of values."""
        self._catalog = catalog
        self._cache = cache
        self._snapshots = snapshots
        self._engine = engine

    async def names(
        self,
        tenants: Sequence[str],
        scopes: Sequence[str],
        among: Among,
        limit: int,
        heard: Heard | None = None,
        lane: Lane = Lane.LONG,
    ) -> TagAnswer:
        """Attribute keys of these scopes (ours), up to `limit` a scope."""
        snapshot = await self._snapshots.take()
        answer = TagAnswer(reasons=list(snapshot.reasons))
        found: dict[str, set[str]] = {scope: set() for scope in scopes}

        def in_order() -> dict[str, list[str]]:
            return {scope: sorted(keys)[:limit] for scope, keys in found.items()}

        def work(session: Session) -> None:
            reader = ChunkReader(session, answer.reasons)
            for tenant in tenants:
                spans = TenantSpans(self._catalog, snapshot, reader, tenant)
                parts: Iterable[Iterable[tuple[str, str]]] = _matching_names(spans, scopes, among)
                if among.matching is None:
                    parts = [self._stored_names(tenant, among.within), _live_names(snapshot, tenant, scopes)]
                for names in parts:
                    for scope, key in names:
                        if scope in found:
                            found[scope].add(key)
                    if heard is not None:
                        heard(TagAnswer(names=in_order()))
                answer.chunks += spans.chunks
                answer.chunk_bytes += spans.chunk_bytes

        await self._engine.run(work, lane=lane)
        check_found(answer.reasons, found=any(found.values()))
        answer.cut = any(len(keys) > limit for keys in found.values())
        answer.names = in_order()
        return answer

    def _stored_names(self, tenant: str, within: Range) -> Iterator[tuple[str, str]]:
        columns: Iterable[str] = self._catalog.attributes(tenant)
        rare: Iterable[str] = self._catalog.more_keys(tenant)
        if within is not None:
            entries = self._catalog.chunks_for(tenant, *within)
            columns = {column for entry in entries for column in entry.attributes}
            rare = {key for entry in entries for key in entry.more_keys}
        for column in columns:
            if (parsed := schema.parse_column(column)) is not None:
                yield parsed.scope, parsed.key
        for name in rare:
            scope, _, key = name.partition(".")
            yield scope, key

    async def values(
        self,
        tenants: Sequence[str],
        of: Attribute | Intrinsic,
        among: Among,
        limit: int,
        heard: Heard | None = None,
        lane: Lane = Lane.LONG,
    ) -> TagAnswer:
        """The values that a tag has, sorted, up to `limit`; several types side by side."""
        known = isinstance(of, Attribute) or of.name in INTRINSICS
        snapshot = await self._snapshots.take() if known else Snapshot()
        answer = TagAnswer(reasons=list(snapshot.reasons))
        found: set[TagValue] = set()

        def in_order() -> list[TagValue]:
            return sorted(found, key=lambda value: (value.type, value.value))[:limit]

        def came(each: Expression, values: Iterable[Any]) -> None:
            found.update(TagValue(each.type, text(each.type, value)) for value in values)
            if heard is not None:
                heard(TagAnswer(values=in_order()))

        def work(session: Session) -> None:
            reader = ChunkReader(session, answer.reasons)
            for tenant in tenants:
                spans = TenantSpans(self._catalog, snapshot, reader, tenant)
                refs = self._look_through(spans, of, among, limit, came, gradually=heard is not None)
                answer.chunks += len(refs)
                answer.chunk_bytes += sum(ref.entry.bytes for ref in refs)

        if known:
            await self._engine.run(work, lane=lane)
            check_found(answer.reasons, found=bool(found))
        answer.values = in_order()
        answer.cut = len(found) > limit
        return answer

    def _look_through(
        self,
        spans: TenantSpans,
        of: Attribute | Intrinsic,
        among: Among,
        limit: int,
        came: Callable[[Expression, Iterable[Any]], None],
        *,
        gradually: bool,
    ) -> list[ChunkRef]:
        """The chunks where values may be. came: hears them; gradually: again and again while chunks are read."""
        refs, present, condition = _chosen(spans, among)
        expressions = expressions_of(of, present)
        columns = {*IN_RANGE_COLUMNS, *condition.columns}.union(*(each.columns for each in expressions))
        covered, others, rest = spans.by_cover(refs, among.within)
        if PARENT in columns:  # a live row has another one than a chunk's
            covered, rest = covered._replace(live=[]), spans.snapshot
        live = _live_rows(spans, sorted(columns), rest)
        for each in expressions:
            statement = partial(_values_sql, each=each, where=_where(among, condition), limit=limit)
            if others or live.num_rows:
                came(each, _values_in(spans.reader.read(others, statement, live=live)))
            listed, left = _listed(each, covered.refs) if among.matching is None else ([], covered.refs)
            if listed:
                came(each, listed)
            whole = partial(_values_by_chunk_sql, each=each, condition=condition, limit=limit)
            told = (lambda rows, _left, each=each: came(each, _values_in(rows))) if gradually else None
            some = covered._replace(refs=left)
            of_whole = spans.of_each(self._cache, some, ChunkRows(whole), sorted(columns), condition, told)
            if of_whole is not None:
                came(each, _values_in(of_whole))
        return refs

    async def services(self, tenants: Sequence[str], within: Range, *, lane: Lane = Lane.LONG) -> FoundServices:
        """How many spans there are of each operation.

        A copy of a stored span counts until the worker has reached and dropped it; a late one until compaction.
        """
        snapshot = await self._snapshots.take()
        totals = self._totals(tenants)
        for _attempt in range(STORED_MEANWHILE_TRIES):
            if self._snapshots.horizons(snapshot.partitions) == snapshot.horizons:
                break
            snapshot = await self._snapshots.take()  # a range was stored meanwhile: it would count twice
            totals = self._totals(tenants)
        reasons = list(snapshot.reasons)
        total: Services = {} if within is not None else totals

        def work(session: Session) -> None:
            reader = ChunkReader(session, reasons)
            for tenant in tenants:
                entries = self._catalog.chunks_for(tenant, *within) if within is not None else []
                refs = refs_of(entries, snapshot.horizons)
                statement = partial(_services_sql, within=within)
                rows = reader.read(refs, statement, live=_service_rows(snapshot, tenant))
                for row in rows.to_pylist():
                    add_services(total, {"": {row["service"]: {row["name"]: row["spans"]}}})

        await self._engine.run(work, lane=lane)
        check_found(reasons, found=bool(total))
        return FoundServices(total.get("", {}), reasons)

    def _totals(self, tenants: Sequence[str]) -> Services:
        """What is stored, counted, of these tenants together."""
        total: Services = {}
        for tenant in tenants:
            add_services(total, {"": self._catalog.services(tenant)})
        return total


def _chosen(spans: TenantSpans, among: Among) -> tuple[list[ChunkRef], Present, Condition]:
    """The chunks that may hold such spans, the columns there are, and what a row must fulfil."""
    refs = spans.refs(*(among.within or ALWAYS))
    present = spans.present(refs)
    condition = among.condition(present)
    return fitting(refs, condition), present, condition


def _where(among: Among, condition: Condition) -> tuple[str, list[Any]]:
    """What a row must fulfil as SQL, and its values."""
    in_range, values = _in_range(among.within)
    return f"{in_range} AND ({condition.sql})", values + condition.values


# ---- names


def _matching_names(spans: TenantSpans, scopes: Sequence[str], among: Among) -> Iterator[Iterable[tuple[str, str]]]:
    """Attribute keys, with a value, of the rows that fulfil the condition; some chunks at a time."""
    refs, present, condition = _chosen(spans, among)
    columns = [name for name in present.columns if (p := schema.parse_column(name)) is not None and p.scope in scopes]
    maps = [schema.more_column(scope) for scope in scopes]
    where, values = _where(among, condition)

    def statement(urls: list[str]) -> tuple[str, list[Any]]:
        text = ", ".join(["true AS is_row", *map(_any_value, columns), *map(_all_keys, maps)])
        return f"SELECT {text} FROM ({rows_of(urls)}) WHERE {where}", ([urls] if urls else []) + values

    read = sorted({*IN_RANGE_COLUMNS, *columns, *maps, *condition.columns})
    for number, some in enumerate(batches(refs, BATCH_SPANS) or [[]]):
        live = None if number == 0 else Snapshot()  # live rows count once
        (found,) = spans.read(some, statement, read, condition, within=live).to_pylist()
        yield _names_in(found, columns, maps)


def _names_in(found: Mapping[str, Any], columns: Sequence[str], maps: Sequence[str]) -> Iterator[tuple[str, str]]:
    for name in columns:
        parsed = schema.parse_column(name)
        if found[name] and parsed is not None:
            yield parsed.scope, parsed.key
    for name in maps:
        for key in found[name] or ():
            yield name.removesuffix("_more"), key


def _any_value(column: str) -> str:
    parsed = schema.parse_column(column)
    there = f"list_count({quoted(column)}) > 0" if parsed and parsed.scope in schema.LIST_SCOPES else "true"
    return f"coalesce(bool_or({quoted(column)} IS NOT NULL AND {there}), false) AS {quoted(column)}"


def _all_keys(column: str) -> str:
    keys = f"map_keys({quoted(column)})"
    if column.removesuffix("_more") in schema.LIST_SCOPES:
        keys = f"flatten(list_transform({quoted(column)}, lambda one: map_keys(one)))"
    return f"list_distinct(flatten(list({keys}))) AS {quoted(column)}"


def _live_names(snapshot: Snapshot, tenant: str, scopes: Sequence[str]) -> Iterator[tuple[str, str]]:
    for view in snapshot.partitions.values():
        for segment in view.segments:
            yield from _names_of(segment, view.horizon, tenant, scopes)


def _names_of(segment: LiveSegment, horizon: int, tenant: str, scopes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Attribute keys of a tenant in a segment. Its columns tell, but only where it has one tenant."""
    if not segment.spans or segment.last < horizon:
        return
    columns = [
        name for name in segment.column_names if (p := schema.parse_column(name)) is not None and p.scope in scopes
    ]
    more = [schema.more_column(scope) for scope in scopes if schema.more_column(scope) in segment.column_names]
    tenants = segment.read(["tenant"]).column("tenant").unique().to_pylist()
    if tenant not in tenants:
        return
    rows = None
    if more or len(tenants) > 1:
        wanted = ["tenant", "trace_id", "record_offset", *more, *(columns if len(tenants) > 1 else [])]
        rows = filtered(segment.read(wanted), horizon, tenant, None)
    for name in columns:
        parsed = schema.parse_column(name)
        if parsed is not None and (
            len(tenants) == 1 or (rows is not None and rows.column(name).null_count < rows.num_rows)
        ):
            yield parsed.scope, parsed.key
    for name in more if rows is not None else []:
        assert rows is not None
        for key in _map_keys(rows.column(name)):
            yield name.removesuffix("_more"), key


def _map_keys(maps: pa.ChunkedArray) -> set[str]:
    found: set[str] = set()
    for chunk in maps.chunks:
        while pa.types.is_list(chunk.type):
            chunk = chunk.flatten()  # noqa: PLW2901 - event_more and link_more are lists of maps
        found.update(pc.unique(chunk.keys).to_pylist())
    return found


# ---- values


def _listed(each: Expression, refs: Sequence[ChunkRef]) -> tuple[list[Value], list[ChunkRef]]:
    """The values that the catalog's entries of chunks list, and the chunks of which they do not list all."""
    listed, left = set[Value](), list[ChunkRef]()
    for ref in refs:
        values = listed_in(each, ref.entry)
        if values is None:
            left.append(ref)
        else:
            listed.update(values)
    return list(listed), left


def _values_in(rows: pa.Table) -> list[Any]:
    values: list[Any] = rows.column("v").to_pylist()
    return values


def _live_rows(spans: TenantSpans, columns: Sequence[str], within: Snapshot) -> pa.Table:
    """Live rows with these columns, and with a chunk's columns for parents."""
    rows = spans.live(columns, within=within)
    if PARENT in columns:
        rows = rows.append_column("outside_parent_span_id", rows.column(PARENT))
        rows = rows.append_column("parent_row", pa.nulls(rows.num_rows, pa.int32()))
    return rows


def _in_range(within: Range) -> tuple[str, list[int]]:
    if within is None:
        return "true", []
    start_ns, end_ns = within
    return IN_RANGE, [end_ns, start_ns, start_ns]


def _values_sql(
    urls: list[str], *, each: Expression, where: tuple[str, list[Any]], limit: int
) -> tuple[str, list[Any]]:
    condition, values = where
    inner = f"SELECT {each.sql} AS v FROM ({rows_of(urls)}) WHERE {each.where} AND {condition}"
    sql = f"SELECT DISTINCT v FROM ({inner}) WHERE v IS NOT NULL ORDER BY v LIMIT {int(limit) + 1}"
    return sql, [*each.parameters, *([urls] if urls else []), *values]


def _values_by_chunk_sql(
    urls: list[str], *, each: Expression, condition: Condition, limit: int
) -> tuple[str, list[Any]]:
    """The first values of each chunk, of all its rows that fulfil the condition."""
    rows = (
        f"SELECT {each.sql} AS v, {CHUNK_NUMBER} FROM ({rows_by_chunk(urls)}) WHERE {each.where} AND ({condition.sql})"
    )
    sql = (
        f"SELECT v, {CHUNK_NUMBER} FROM (SELECT DISTINCT v, {CHUNK_NUMBER} FROM ({rows}) WHERE v IS NOT NULL) "
        f"QUALIFY row_number() OVER (PARTITION BY {CHUNK_NUMBER} ORDER BY v) <= {int(limit) + 1}"
    )
    return sql, [*each.parameters, *([urls] if urls else []), *condition.values]


# ---- services

SERVICES_SQL = (
    f"SELECT coalesce({SERVICE_SQL}, '{NO_SERVICE}') AS service, "
    "coalesce(name, '') AS name, count(*) AS spans FROM ({source}) GROUP BY ALL"
)


def _service_rows(snapshot: Snapshot, tenant: str) -> pa.Table:
    return snapshot.rows([SERVICE_COLUMN, "resource_more", "name", "start_unix_ns", "duration_ns"], tenant)


def _services_sql(urls: list[str], *, within: Range) -> tuple[str, list[Any]]:
    condition, values = _in_range(within)
    source = f"SELECT * FROM ({rows_of(urls)}) WHERE {condition}"
    return SERVICES_SQL.format(source=source), ([urls] if urls else []) + values
