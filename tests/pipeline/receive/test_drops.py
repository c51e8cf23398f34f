"""What a receiver refuses, rejects and marks, told to the tenant that it is of."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.drops import DROPS, PATH
from tests.pipeline.receive.conftest import ReceiverInProcess
from tests.pipeline.spans.test_wire import request_of, span_of, with_long_value

pytestmark = pytest.mark.anyio


async def told(receiver: ReceiverInProcess, tenant: str) -> Any:
    answer = await receiver.client.get(PATH, headers={"X-Scope-OrgID": tenant})
    assert answer.status_code == 200
    return answer.json()["tenants"].get(tenant, {})


async def test_each_tenant_is_told_its_own_numbers() -> None:
    DROPS.clear()
    receiver = ReceiverInProcess(multitenancy=True, tenant_rate_bytes_per_s=1, tenant_burst_bytes=300_000)
    zero = span_of(1)
    zero.span_id = bytes(8)

    await receiver.post(request_of(zero, span_of(2)).SerializeToString(), x_scope_orgid="a")
    await receiver.post(request_of(with_long_value(3, 70_000)).SerializeToString(), x_scope_orgid="a")
    await receiver.post(b"\xff\xff", x_scope_orgid="b")
    await receiver.post(b"x" * 300_001, x_scope_orgid="b")

    a, b = await told(receiver, "a"), await told(receiver, "b")
    assert sum(a["rejected_spans"].values()) == 1
    assert a["marked_spans"] == {"attribute_cut": 1}
    assert "refused_requests" not in a
    assert b == {"refused_requests": {"malformed": 1, "rate_limited": 1}}


async def test_who_names_no_tenant_is_told_nothing() -> None:
    receiver = ReceiverInProcess(multitenancy=True)

    nobody = await receiver.client.get(PATH)
    wrong = await receiver.client.get(PATH, headers={"X-Scope-OrgID": "a/../b"})

    assert (nobody.status_code, nobody.text) == (401, "no org id\n")
    assert wrong.status_code == 400
