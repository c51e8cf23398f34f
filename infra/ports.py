"""Ports of the local stack: free, or a sentence that says who has it and which setting to change."""

from __future__ import annotations

import random
import socket

import psutil

from topics.errors import StackError

HOST = "127.0.0.1"
# Below the kernel's range for outgoing connections (32768 on Linux), which would take the port before its server does
FREE_PORTS = range(20_000, 32_000)
TRIES = 100


def choose_port(port: int, setting: str) -> int:
    """`port` if it is free on 127.0.0.1, any free port for 0. Raises StackError that names `setting`."""
    if port == 0:
        return free_port()
    if not is_free(port):
        flag = "--" + setting.replace(".", "-").replace("_", "-")
        variable = "SPANSTREAM_" + setting.replace(".", "_").upper()
        raise StackError(
            f"Port {port} ({setting}) is in use{_owner(port)}. Stop what uses it, or choose another port:"
            f" {flag} {port + 10_000 if port < 50_000 else 0}, or {variable} in the environment; 0 takes any free one."
        )
    return port


def free_port() -> int:
    """A port nobody listens on. Another process may still take it before its server does."""
    for port in random.sample(FREE_PORTS, TRIES):
        if is_free(port):
            return port
    raise StackError(f"No free port found in {FREE_PORTS.start}..{FREE_PORTS.stop - 1}")


def is_free(port: int, host: str = HOST) -> bool:
    """Can a server listen there at this moment?"""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def is_open(port: int, host: str = HOST) -> bool:
    """Does anybody accept a connection there?"""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _owner(port: int) -> str:
    """` by <program> (pid n)` where the system tells us, else empty."""
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return ""
