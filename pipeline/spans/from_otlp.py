"""OTLP bytes to a span table: decoded in Rust, spread into columns in numpy and Arrow, no Python a span."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import ptars
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from pipeline.spans import key_values, schema
from pipeline.spans.columns import Attributes, attributes_of, columns_of, owned
from pipeline.spans.key_values import Ints, MalformedValueError
from pipeline.spans.parsed import FOREIGN, is_foreign
from pipeline.spans.record import BadRecord, Record
from pipeline.spans.rewrite import varint
from topics.errors import MalformedRecordError

ENTITY_REFS_TAG = b"\x1a"  # Resource.entity_refs, field 3
AS_BYTES = ("attributes", "entity_refs")  # lists of messages that the decoder leaves as they came


class Decoded(NamedTuple):
    """spans: a span table in arrival order. bad: records that are no OTLP. rejected: (tenant, reason) -> left out."""

    spans: pa.Table
    bad: list[BadRecord]
    rejected: Counter[tuple[str, str]]


class Rows(NamedTuple):
    """The messages of a batch, flat, and where each stands.

    scope, resource, record: of each span its row of ScopeSpans, of ResourceSpans and of the batch. record_of_scope,
    record_of_resource: the row of the batch of each ScopeSpans and ResourceSpans.
    """

    scope_spans: pa.StructArray
    resource_spans: pa.StructArray
    spans: pa.StructArray
    scope: Ints
    resource: Ints
    record: Ints
    record_of_scope: Ints
    record_of_resource: Ints


def decode(records: Sequence[Record], *, attribute_columns_max: int) -> Decoded:
    """Decode records into one span table. Never raises for bad input: one malformed record costs only itself.

    The caller bounds bytes and spans: an empty span takes 2 bytes here and about 40 times that in Arrow. Attributes
    keep their type; their order within a span, how spans were grouped and unknown fields are not kept. 2 us a span in
    batches of 20,000.
    """
    batch, good, bad = _messages(records)
    if batch is None:
        return Decoded(schema.empty_table(), bad, Counter())
    try:
        return _decoded(batch, records, good, bad, attribute_columns_max)
    except MalformedValueError:
        reasons = _malformed(batch)
    assert reasons, "an attribute was refused that protobuf takes"
    bad = sorted([*bad, *(BadRecord(good[row], f"no_otlp: {reason}") for row, reason in reasons.items())])
    rest = [index for row, index in enumerate(good) if row not in reasons]
    if not rest:
        return Decoded(schema.empty_table(), bad, Counter())
    batch = _handler().list_to_record_batch([records[index].value for index in rest])
    return _decoded(batch, records, rest, bad, attribute_columns_max)


def _decoded(
    batch: pa.RecordBatch, records: Sequence[Record], good: list[int], bad: list[BadRecord], columns_max: int
) -> Decoded:
    """The spans of a batch of one message for each of the `good` records.

    Raises MalformedValueError for an attribute that is none.
    """
    rows = _rows(batch)
    bad = sorted([*bad, *_foreign(rows, records, good)])
    records = [records[index] for index in good]
    attributes = attributes_of(_attribute_lists(rows))
    columns = _resource_columns(rows, attributes, columns_max) | _scope_columns(rows, attributes, columns_max)
    if not len(rows.spans):
        return Decoded(schema.empty_table(), bad, Counter())
    columns = {
        **_place(rows, records),
        **_ids(rows.spans),
        **_span_fields(rows.spans),
        **columns,
        **columns_of(attributes, "span", owners=len(rows.spans), columns_max=columns_max),
        **_events(rows.spans.field("events"), attributes, columns_max),
        **_links(rows.spans.field("links"), attributes, columns_max),
    }
    faults = columns.pop("fault").to_numpy(zero_copy_only=False)
    spans = pa.table(columns)
    if not faults.any():
        return Decoded(spans, bad, Counter())
    tenants = spans.column("tenant").to_pylist()
    rejected = Counter((tenants[row], FAULTS[faults[row]]) for row in np.flatnonzero(faults).tolist())
    return Decoded(spans.filter(pa.array(faults == 0)), bad, rejected)


def _foreign(rows: Rows, records: Sequence[Record], good: list[int]) -> Iterator[BadRecord]:
    """Records without a span that are no OTLP, though they parse as such."""
    spans = np.bincount(rows.record, minlength=len(good))
    for index in (good[row] for row in np.flatnonzero(spans == 0)):
        if is_foreign(records[index].value):
            yield BadRecord(index, f"no_otlp: {FOREIGN}")


# ---- records to messages


@cache
def _handler() -> Any:
    """The decoder of TracesData. It leaves attributes as bytes: three quarters of its time would go into them, and a
    value is recursive, which Arrow is not."""
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in (one for outer in file.message_type for one in (outer, *outer.nested_type)):
            for field in message.field:
                if field.name in AS_BYTES:
                    field.type = FieldDescriptorProto.TYPE_BYTES
                    field.ClearField("type_name")
        pool.Add(file)
    traces = pool.FindMessageTypeByName("opentelemetry.proto.trace.v1.TracesData")
    return ptars.HandlerPool([traces.file]).get_for_message(traces)


def _messages(records: Sequence[Record]) -> tuple[pa.RecordBatch | None, list[int], list[BadRecord]]:
    """One message a readable record, their indices in `records`, and the records that are none."""
    good, bad = [], []
    for index, record in enumerate(records):
        if record.value:
            good.append(index)
        else:
            bad.append(BadRecord(index, "empty: a record without a value"))
    if not good:
        return None, [], bad
    try:
        return _batch([records[index].value for index in good]), good, bad
    except MalformedRecordError:
        return _one_by_one(records, good, bad)


def _one_by_one(
    records: Sequence[Record], candidates: list[int], bad: list[BadRecord]
) -> tuple[pa.RecordBatch | None, list[int], list[BadRecord]]:
    good = []
    for index in candidates:
        try:
            _batch([records[index].value])
            good.append(index)
        except MalformedRecordError as error:
            bad.append(BadRecord(index, f"no_otlp: {error}"))
    bad.sort()
    return (_batch([records[i].value for i in good]) if good else None), good, bad


def _batch(values: list[bytes]) -> pa.RecordBatch:
    """Raises MalformedRecordError where one of the values is no OTLP.

    Some damaged lengths make the decoder panic: what then comes out of Rust is no Exception, and would end the worker.
    """
    try:
        return _handler().list_to_record_batch(values)
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise MalformedRecordError(str(error)) from error
        raise


def _malformed(batch: pa.RecordBatch) -> dict[int, str]:
    """Row of the batch -> what is wrong, for the records with an attribute that is none."""
    rows = _rows(batch)
    record_of = {
        "resource": rows.record_of_resource,
        "scope": rows.record_of_scope,
        "span": rows.record,
        "event": rows.record[_owners(rows.spans.field("events"))],
        "link": rows.record[_owners(rows.spans.field("links"))],
    }
    reasons: dict[int, str] = {}
    for scope, lists in _attribute_lists(rows).items():
        owner = record_of[scope][_owners(lists)]
        for at, reason in key_values.malformed(lists.flatten()).items():
            reasons.setdefault(int(owner[at]), reason)
    return reasons


def _attribute_lists(rows: Rows) -> dict[str, pa.ListArray]:
    """Scope -> the lists of attributes, one for each message that carries some."""
    return {
        "resource": _attributes_in(rows.resource_spans.field("resource")),
        "scope": _attributes_in(rows.scope_spans.field("scope")),
        "span": rows.spans.field("attributes"),
        "event": rows.spans.field("events").flatten().field("attributes"),
        "link": rows.spans.field("links").flatten().field("attributes"),
    }


def _attributes_in(carriers: pa.StructArray) -> pa.ListArray:
    """The lists of attributes of messages some of which may be missing."""
    fields = dict(zip([field.name for field in carriers.type], carriers.flatten(), strict=True))
    return _no_nulls(fields["attributes"])


def _rows(batch: pa.RecordBatch) -> Rows:
    resource_lists = batch.column("resource_spans")
    resources = resource_lists.flatten()
    scope_lists = resources.field("scope_spans")
    scopes = scope_lists.flatten()
    span_lists = scopes.field("spans")
    spans = span_lists.flatten()
    scope, resource_of_scope, record_of_resource = map(_owners, (span_lists, scope_lists, resource_lists))
    record_of_scope = record_of_resource[resource_of_scope]
    return Rows(
        scopes,
        resources,
        spans,
        scope,
        resource_of_scope[scope],
        record_of_scope[scope],
        record_of_scope,
        record_of_resource,
    )


def _owners(lists: pa.ListArray) -> Ints:
    return np.repeat(np.arange(len(lists), dtype=np.int64), np.diff(lists.offsets.to_numpy()))


# ---- columns


def _place(rows: Rows, records: list[Record]) -> dict[str, pa.Array]:
    tenants = pa.array([record.tenant for record in records]).dictionary_encode()
    offsets = np.array([record.offset for record in records], dtype=np.int64)
    return {"tenant": tenants.take(pa.array(rows.record)), "record_offset": pa.array(offsets[rows.record])}


FAULTS = {
    1: "trace ID is empty or longer than 16 bytes",
    2: "trace ID is all zero",
    3: "span ID is not 8 bytes",
    4: "span ID is all zero",
}


def _ids(spans: pa.StructArray) -> dict[str, pa.Array]:
    """Trace and span IDs at their fixed sizes, shorter trace IDs padded on the left, and what is wrong with others."""
    fault = np.zeros(len(spans), dtype=np.uint8)
    trace_id = _fixed(spans.field("trace_id"), 16, fault, 1, pad=True)
    span_id = _fixed(spans.field("span_id"), 8, fault, 3, pad=False)
    fault[(fault == 0) & _all_zero(trace_id)] = 2
    fault[(fault == 0) & _all_zero(span_id)] = 4
    parent = spans.field("parent_span_id")
    return {
        "fault": pa.array(fault),
        "trace_id": _fixed_array(trace_id),
        "span_id": _fixed_array(span_id),
        "parent_span_id": pc.if_else(pc.equal(pc.binary_length(parent), 0), pa.scalar(None, pa.binary()), parent),
    }


def _all_zero(ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    zero = np.ones(len(ids), dtype=bool)
    for words in ids.view(np.uint64).T:  # any(axis=1) takes ten times as long
        zero &= words == 0
    return zero


def _fixed(
    values: pa.Array, width: int, fault: npt.NDArray[np.uint8], number: int, *, pad: bool
) -> npt.NDArray[np.uint8]:
    """The values as (n, width) bytes; `fault` is set to `number` where one does not fit."""
    offsets = values.buffers()[1]
    ends = np.frombuffer(offsets, dtype=np.int32)[values.offset : values.offset + len(values) + 1]
    sizes = np.diff(ends)
    if (sizes == width).all():
        return np.frombuffer(values.buffers()[2], dtype=np.uint8)[ends[0] : ends[-1]].reshape(-1, width)
    fixed = np.zeros((len(values), width), dtype=np.uint8)
    fits = (sizes > 0) & (sizes <= width) if pad else sizes == width
    fault[~fits] = number
    for row in np.flatnonzero(fits).tolist():
        value = values[row].as_py()
        fixed[row, width - len(value) :] = np.frombuffer(value, dtype=np.uint8)
    return fixed


def _fixed_array(values: npt.NDArray[np.uint8]) -> pa.Array:
    data = pa.py_buffer(values.tobytes())  # a copy: see columns.owned
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(values.shape[1]), len(values), [None, data])


def _span_fields(spans: pa.StructArray) -> dict[str, pa.Array]:
    start, end = spans.field("start_time_unix_nano"), spans.field("end_time_unix_nano")
    status = spans.field("status")
    message, code = status.flatten() if status.null_count else (status.field(0), status.field(1))
    if status.type.field(0).name != "message":
        message, code = code, message
    found = {
        "start_unix_ns": owned(start),
        "duration_ns": pa.array((end.to_numpy() - start.to_numpy()).view(np.int64)),
        "name": spans.field("name").dictionary_encode(),
        "kind": owned(spans.field("kind")),
    }
    return found | _where_set(
        {
            "status_code": pc.fill_null(code, 0),
            "status_message": pc.fill_null(message, ""),
            "trace_state": spans.field("trace_state"),
            "flags": spans.field("flags"),
            "dropped_attributes_count": spans.field("dropped_attributes_count"),
            "dropped_events_count": spans.field("dropped_events_count"),
            "dropped_links_count": spans.field("dropped_links_count"),
        }
    )


def _where_set(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """The columns that say something in some row, strings dictionary-encoded."""
    found = {}
    for name, array in columns.items():
        if _says_something(array):
            found[name] = array.dictionary_encode() if pa.types.is_string(array.type) else owned(array)
    return found


def _says_something(array: pa.Array) -> bool:
    if pa.types.is_string(array.type):
        return bool(pc.sum(pc.binary_length(array)).as_py())
    return bool(array.to_numpy(zero_copy_only=not array.null_count).any())


def _resource_columns(rows: Rows, attributes: dict[str, Attributes], columns_max: int) -> dict[str, pa.Array]:
    """Columns of resources: made once a resource, then handed to its spans by row number."""
    envelopes = rows.resource_spans
    resource = envelopes.field("resource")
    fields = dict(zip([field.name for field in resource.type], resource.flatten(), strict=True))
    columns = columns_of(attributes, "resource", owners=len(envelopes), columns_max=columns_max)
    columns |= _where_set(
        {
            "resource_dropped_attributes_count": pc.fill_null(fields["dropped_attributes_count"], 0),
            "resource_schema_url": envelopes.field("schema_url"),
        }
    )
    if pc.any(pc.greater(pc.list_value_length(_no_nulls(fields["entity_refs"])), 0)).as_py():
        columns["resource_entity_refs"] = pa.array(
            [_joined(refs) for refs in fields["entity_refs"].to_pylist()], pa.binary()
        )
    return _for_spans(columns, rows.resource)


def _scope_columns(rows: Rows, attributes: dict[str, Attributes], columns_max: int) -> dict[str, pa.Array]:
    envelopes = rows.scope_spans
    scope = envelopes.field("scope")
    fields = dict(zip([field.name for field in scope.type], scope.flatten(), strict=True))
    columns = columns_of(attributes, "scope", owners=len(envelopes), columns_max=columns_max)
    columns |= _where_set(
        {
            "scope_name": pc.fill_null(fields["name"], ""),
            "scope_version": pc.fill_null(fields["version"], ""),
            "scope_dropped_attributes_count": pc.fill_null(fields["dropped_attributes_count"], 0),
            "scope_schema_url": envelopes.field("schema_url"),
        }
    )
    return _for_spans(columns, rows.scope)


def _for_spans(columns: dict[str, pa.Array], row: Ints) -> dict[str, pa.Array]:
    index = pa.array(row)
    return {
        name: (array.dictionary_encode() if pa.types.is_string(array.type) else array).take(index)
        for name, array in columns.items()
    }


def _joined(refs: list[bytes] | None) -> bytes | None:
    return b"".join(ENTITY_REFS_TAG + varint(len(ref)) + ref for ref in refs) if refs else None


def _no_nulls(lists: pa.ListArray) -> pa.ListArray:
    """The same lists with an empty one for each null: Arrow's flatten skips what a null list hides."""
    if not lists.null_count:
        return lists
    sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), lists.flatten())


def _events(lists: pa.ListArray, attributes: dict[str, Attributes], columns_max: int) -> dict[str, pa.Array]:
    events = lists.flatten()
    if not len(events):
        return {}
    columns = {
        "event_time_unix_ns": owned(events.field("time_unix_nano")),
        "event_name": owned(events.field("name")),
        "event_dropped_attributes_count": owned(events.field("dropped_attributes_count")),
    }
    columns |= columns_of(attributes, "event", owners=len(events), columns_max=columns_max)
    return _in_lists(lists, columns)


def _links(lists: pa.ListArray, attributes: dict[str, Attributes], columns_max: int) -> dict[str, pa.Array]:
    links = lists.flatten()
    if not len(links):
        return {}
    columns = {
        "link_trace_id": owned(links.field("trace_id")),
        "link_span_id": owned(links.field("span_id")),
        "link_trace_state": owned(links.field("trace_state")),
        "link_flags": owned(links.field("flags")),
        "link_dropped_attributes_count": owned(links.field("dropped_attributes_count")),
    }
    columns |= columns_of(attributes, "link", owners=len(links), columns_max=columns_max)
    return _in_lists(lists, columns)


def _in_lists(lists: pa.ListArray, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Parallel list columns: all share the offsets of `lists`."""
    offsets = lists.offsets
    if lists.offset or offsets[0].as_py():
        offsets = pc.subtract(offsets, offsets[0])
    offsets = owned(offsets)
    return {name: pa.ListArray.from_arrays(offsets, array) for name, array in columns.items()}
