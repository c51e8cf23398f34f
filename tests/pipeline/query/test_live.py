"""Live segments: everything from an offset on, asked for once, and never from a worker that is not the owner."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.query.blocks import LiveSegment, compacted
from pipeline.query.live import LiveAnswer, LiveClient
from pipeline.query.owners import Owners
from tests.pipeline.query.world import Held, LiveServer, OneSpan, rows, segment, span_id, trace_id

MIB = 1 << 20
TIMEOUT_S = 1.0
DEAD = "http://127.0.0.1:9"  # the discard port: nobody listens


def with_worker(
    test: Callable[[LiveServer, LiveClient, dict[int, str]], Awaitable[None]],
    bytes_max: int = MIB,
    timeout_s: float = 5,
    wait_s: float = 0,
) -> None:
    """Run a test against one real server and a client whose owners the test can change."""

    async def main() -> None:
        server = LiveServer()
        await server.start()
        owners: dict[int, str] = dict.fromkeys(range(4), server.url)
        with ThreadPoolExecutor(1) as threads:
            known = Owners(lambda: dict(owners), refresh_s=60, quiet_s=60)
            client = LiveClient(known, bytes_max=bytes_max, timeout_s=timeout_s, executor=threads, wait_s=wait_s)
            try:
                await test(server, client, owners)
            finally:
                await client.close()
                await server.stop()

    asyncio.run(main())


def records(first: int, last: int) -> pa.Table:
    """One span a record, whose ID is its offset + 1."""
    return rows({offset: [OneSpan(offset % 3, offset + 1)] for offset in range(first, last + 1)})


def hold(server: LiveServer, *bounds: tuple[int, int], partition: int = 0) -> Held:
    held = Held(low=bounds[0][0], next=bounds[-1][1] + 1, segments=[(a, b, records(a, b)) for a, b in bounds])
    server.held[partition] = held
    return held


def ids(answer: LiveAnswer) -> list[int]:
    return [
        int.from_bytes(each) - 1 for s in answer.segments for each in s.read(["span_id"]).column("span_id").to_pylist()
    ]


def test_a_worker_is_asked_for_newer_segments_only() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        held = hold(server, (0, 3), (4, 4))
        first = (await client.segments({0: 0}))[0]
        held.segments.append((5, 6, records(5, 6)))
        held.next = 7

        second = (await client.segments({0: 0}))[0]

        assert ids(first) == [0, 1, 2, 3, 4]
        assert ids(second) == [0, 1, 2, 3, 4, 5, 6]
        assert (second.state, second.next, second.low) == ("held", 7, 0)
        assert server.asked == ["want=0:0", "want=0:5"]

    with_worker(test)


def test_copies_below_the_horizon_are_let_go() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        hold(server, (0, 3), (4, 9))
        await client.segments({0: 0})

        later = (await client.segments({0: 5}))[0]

        assert [(s.first, s.last) for s in later.segments] == [(4, 9)]
        assert server.asked[1] == "want=0:10"

    with_worker(test)


def test_a_worker_that_dropped_what_is_asked_says_so() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        hold(server, (7, 9))

        answer = (await client.segments({0: 3}))[0]

        assert answer.low == 7
        assert answer.segments == ()

    with_worker(test)


@pytest.mark.parametrize("last", [2, 9, 12])
def test_copies_of_an_earlier_assignment_are_not_gone_on_with(last: int) -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        hold(server, (0, 9))
        await client.segments({0: 0})
        hold(server, (1, last))
        server.held[0].assigned += 1

        answer = (await client.segments({0: 1}))[0]

        assert ids(answer) == list(range(1, last + 1))
        assert answer.next == last + 1

    with_worker(test)


def test_the_new_owner_is_looked_up_when_the_old_one_says_no() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        other = LiveServer()
        await other.start()
        hold(other, (0, 1))
        await client.segments({1: 0})  # the owners are remembered
        owners[0] = other.url

        answer = (await client.segments({0: 0}))[0]

        assert answer.url == other.url
        assert ids(answer) == [0, 1]
        await other.stop()

    with_worker(test)


def test_a_refused_connection_means_that_nobody_answers() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        owners[1] = DEAD
        del owners[2]
        hold(server, (0, 1))

        answers = await client.segments({0: 0, 1: 0, 2: 0})

        assert [answers[p].state for p in (0, 1, 2)] == ["held", "away", "not_owner"]

    with_worker(test)


def test_a_hung_worker_is_waited_for_once() -> None:
    """Its kernel takes connections, nobody answers: it is to reach the topic's end, then to give what it holds."""

    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as hung:
            owners[1] = f"http://127.0.0.1:{hung.getsockname()[1]}"
            hold(server, (0, 1))
            began = time.monotonic()

            await client.reach({0: 2, 1: 5})
            answers = await client.segments({0: 0, 1: 0})

        assert (answers[0].state, answers[1].state) == ("held", "not_owner")
        assert time.monotonic() - began < 2 * TIMEOUT_S

    with_worker(test, timeout_s=TIMEOUT_S, wait_s=0.1)


def test_one_trace_is_asked_for_by_its_id() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        hold(server, (0, 5), (6, 9))

        answer = (await client.trace({0: 0}, trace_id(1)))[0]

        assert ids(answer) == [1, 4, 7]
        assert client.nbytes == 0

    with_worker(test)


def test_more_segments_than_memory_allows_are_told_not_kept() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        hold(server, (0, 0), (1, 1), (2, 2))

        answer = (await client.segments({0: 0}))[0]

        assert answer.cut
        assert 0 < len(answer.segments) < 3
        assert answer.next == answer.segments[-1].last + 1
        assert client.nbytes == 0

    size = len(segment(0, 0, records(0, 0)).ipc)
    with_worker(test, bytes_max=size * 2 + size // 2)


def test_many_small_segments_become_few() -> None:
    async def test(server: LiveServer, client: LiveClient, owners: dict[int, str]) -> None:
        held = hold(server, (0, 0))
        for offset in range(1, 70):
            held.segments.append((offset, offset, records(offset, offset)))
            held.next = offset + 1
            answer = (await client.segments({0: 0}))[0]

        assert ids(answer) == list(range(70))
        assert len(answer.segments) < 20

    with_worker(test)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=30))
def test_merging_segments_keeps_every_row_in_order(sizes: list[int]) -> None:
    segments: list[LiveSegment] = []
    first = 0
    for size in sizes:
        segments = compacted([*segments, segment(first, first + size - 1, records(first, first + size - 1))])
        first += size

    found = [each for s in segments for each in s.read(["span_id"]).column("span_id").to_pylist()]

    assert found == [span_id(offset + 1) for offset in range(first)]
    assert [s.first for s in segments[1:]] == [s.last + 1 for s in segments[:-1]]
