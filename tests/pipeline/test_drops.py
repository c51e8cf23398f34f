"""What was not kept as it was sent: counted by tenant and reason where it happens, and told to that tenant alone."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.doors.tenants import read_tenants, written_tenant
from pipeline.drops import DROPS, NOBODY, OTHERS, REASONS_MAX, Drops
from pipeline.partition.batch import SourceRecord, SpanLimits, Wanted, prepare
from pipeline.partition.window import Window
from pipeline.telemetry import count_batch
from tests.pipeline.query.world import OneSpan, otlp
from topics.errors import UnknownTenantError
from topics.partitioner import partition_of

SECRET = b"s" * 32


def test_numbers_are_told_by_tenant_kind_and_reason_and_to_nobody_else() -> None:
    drops = Drops()
    drops.count("a", "rejected_spans", {"span ID is all zero": 2})
    drops.count("a", "rejected_spans", {"span ID is all zero": 1, "too large": 4})
    drops.count("b", "marked_spans", {"attribute_cut": 1})
    drops.count("b", "marked_spans", {})

    assert drops.told(["a"]) == {
        "tenants": {"a": {"rejected_spans": {"span ID is all zero": 3, "too large": 4}}},
        "forgottenTenants": 0,
    }
    assert drops.told(["c"])["tenants"] == {}


def test_the_tenants_counted_longest_ago_are_forgotten_and_their_number_is_said() -> None:
    drops = Drops(tenants_max=3)
    for number in range(5):
        drops.count(f"t{number}", "duplicate_spans", {"copy": 1})
        drops.count("t0", "duplicate_spans", {"copy": 1})

    told = drops.told([f"t{number}" for number in range(5)])

    assert set(told["tenants"]) == {"t0", "t3", "t4"}
    assert told["tenants"]["t0"]["duplicate_spans"]["copy"] == 6
    assert told["forgottenTenants"] == 2


def test_a_tenant_cannot_fill_memory_with_reasons_of_its_own() -> None:
    drops = Drops()
    for number in range(10 * REASONS_MAX):
        drops.count("a", "rejected_spans", {f"{number} {'x' * 10_000}": 1})

    reasons = drops.told(["a"])["tenants"]["a"]["rejected_spans"]

    assert len(reasons) == REASONS_MAX + 1
    assert reasons[OTHERS] == 9 * REASONS_MAX
    assert max(map(len, reasons)) < 200


def test_a_worker_counts_marks_copies_and_dead_records_of_each_tenant() -> None:
    DROPS.clear()
    value = otlp([OneSpan(1, 1, attributes=(("long", "x" * 500),)), OneSpan(1, 2, duration_ms=-1), OneSpan(1, 2)])
    records = [
        SourceRecord(0, "a", value, 1),
        SourceRecord(1, "b", otlp([OneSpan(1, 1)]), 1),
        SourceRecord(2, "b", b"\xff\xff", 1),
        SourceRecord(3, "single-tenant", b"", 1, reason="tenant: X-Scope-OrgID is no tenant name"),
    ]
    limits = SpanLimits(
        partitions=1, attribute_columns_max=200, attribute_bytes_max=100, attributes_max=100, future_s_max=1e9
    )
    assert partition_of(OneSpan(1, 1).trace_id, 1) == 0
    window = Window(window_s=900.0, keys_max=1000)

    (prepared,) = prepare([Wanted(0, 0, window, records)], limits, secret=SECRET, now_unix_ns=1_700_000_000 * 10**9)
    assert prepared is not None
    count_batch(prepared)

    told = DROPS.told(["a", "b", "single-tenant", NOBODY])["tenants"]
    assert told == {
        "a": {
            "marked_spans": {"attribute_cut": 1, "end_before_start": 1},
            "duplicate_spans": {"the window knew them": 1},
        },
        "b": {"dead_records": {"no_otlp": 1}},
        NOBODY: {"dead_records": {"tenant": 1}},
    }
    assert prepared.received == Counter(a=3, b=1)


def test_one_tenant_is_named_to_write_and_several_to_read() -> None:
    assert written_tenant("a", multitenancy=True) == "a"
    assert written_tenant("a|b/..", multitenancy=False) == "single-tenant"
    assert read_tenants("b|a|b", multitenancy=True) == ["a", "b"]
    assert read_tenants(None, multitenancy=False) == ["single-tenant"]


@pytest.mark.parametrize("named", ["", None, "a|b", "..", "a/b", "a\x00", "\x1b[31m", "ä", "x" * 151, "'; --|"])
def test_a_writer_who_names_no_tenant_or_several_is_refused_in_plain_letters(named: str | None) -> None:
    with pytest.raises(UnknownTenantError) as caught:
        written_tenant(named, multitenancy=True)

    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


@pytest.mark.parametrize("named", ["a|", "|", "a|..", "a||b", "|".join(map(str, range(101)))])
def test_a_reader_is_refused_when_one_of_the_tenants_is_none(named: str) -> None:
    with pytest.raises(UnknownTenantError):
        read_tenants(named, multitenancy=True)
