"""Limits of single tenants, from a file that may change while the receiver runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.doors.overrides import Overrides, reader_of
from pipeline.spans.from_otlp import decode
from pipeline.spans.record import Record
from pipeline.spans.validate import check
from pipeline.telemetry import FILE_RELOADS
from tests.pipeline.query.world import OneSpan, otlp
from tests.pipeline.receive.conftest import ReceiverInProcess
from tests.pipeline.spans.test_wire import request_of, with_long_value
from topics.errors import SettingsError
from topics.settings import LimitSettings, Settings

BODY = request_of(with_long_value(1, 3000)).SerializeToString()


def reloads(outcome: str) -> float:
    return FILE_RELOADS.labels(file="overrides", outcome=outcome)._value.get()


@pytest.mark.anyio
async def test_a_tenant_has_limits_of_its_own_that_change_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.doors.watched.LOOK_EVERY_S", 0.0)
    path = tmp_path / "overrides.toml"
    path.write_text("[tenants.a]\nrequest_bytes_max = 2048\n[tenants.b]\nrate_bytes_per_s = 1\nburst_bytes = 4000\n")
    receiver = ReceiverInProcess(LimitSettings(overrides_path=str(path)), multitenancy=True)

    async def status(tenant: str) -> int:
        return (await receiver.post(BODY, x_scope_orgid=tenant)).status_code

    assert [await status(tenant) for tenant in ("a", "b", "b", "c", "c")] == [413, 200, 429, 200, 200]
    taken, refused = reloads("taken"), reloads("refused")
    path.write_text("[tenants.c]\nrequest_bytes_max = 2048\n")
    assert [await status(tenant) for tenant in ("a", "b", "c")] == [200, 200, 413]
    path.write_text("[tenants.c]\nrequest_bytes_maximum = 9999\n")
    assert [await status(tenant) for tenant in ("a", "c")] == [200, 413]  # the old values count
    assert (reloads("taken"), reloads("refused")) == (taken + 1, refused + 1)


def test_a_tenant_may_have_fewer_attributes_than_others(tmp_path: Path) -> None:
    path = tmp_path / "overrides.json"
    path.write_text('{"tenants": {"a": {"attributes_max": 2}, "b": {"attributes_max": 500}}}')
    own = Overrides(Settings(limits=LimitSettings(overrides_path=str(path)))).attributes_max(5)
    many = tuple((f"k{number}", number) for number in range(7))
    span = OneSpan(1, 1, attributes=many, events=(("e", many),))
    records = [Record(tenant, at, otlp([span])) for at, tenant in enumerate("abc")]

    found = check(
        decode(records, attribute_columns_max=200).spans,
        now_unix_ns=1_700_000_000 * 10**9,
        attribute_bytes_max=100,
        attributes_max=5,
        future_s_max=86_400.0,
        attributes_max_by_tenant=own,
    )

    assert own == {"a": 2, "b": 5}
    assert found.spans.column("dropped_attributes_count").to_pylist() == [5, 2, 2]
    assert found.spans.column("event_dropped_attributes_count").to_pylist() == [[5], [2], [2]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[tenants", "does not parse"),
        ("tenants = 1", "one table"),
        ("[tenant.a]", "one table"),
        ('[tenants."../x"]', "no tenant name"),
        ("[tenants.a]\nrate_bytes_per_s = -1", r"tenants\.a: rate_bytes_per_s"),
        ("[tenants.a]\nsearch_range_h_max = 0", r"tenants\.a: search_range_h_max"),
        ("[tenants.a]\nrate = 1", r"tenants\.a: rate"),
        ("[tenants]\na = 1", r"tenants\.a"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        reader_of(Path("overrides.toml"))(text)
