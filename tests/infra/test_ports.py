"""A port in use is told with its user and the setting to change."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from infra.ports import choose_port, free_port, is_free, is_open
from topics.errors import StackError


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield server.getsockname()[1]


def test_a_free_port_is_taken_as_asked() -> None:
    port = free_port()

    assert choose_port(port, "stack.kafka_port") == port


def test_port_0_means_any_free_port() -> None:
    port = choose_port(0, "stack.kafka_port")

    assert is_free(port)
    assert not is_open(port)


def test_a_port_in_use_names_the_setting_the_program_and_what_to_do(taken_port: int) -> None:
    with pytest.raises(StackError) as raised:
        choose_port(taken_port, "stack.kafka_port")

    message = str(raised.value)
    assert f"Port {taken_port} (stack.kafka_port) is in use by " in message
    assert f"(pid {os.getpid()})" in message
    assert "--stack-kafka-port" in message
    assert "SPANSTREAM_STACK_KAFKA_PORT" in message
    assert is_open(taken_port)
