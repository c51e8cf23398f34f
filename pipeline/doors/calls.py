"""gRPC as all our servers of it are set up, and what a call says of its caller."""

from __future__ import annotations

from typing import Any

from pipeline.doors.renewal import grpc_credentials
from pipeline.doors.tls import ServerTls


def options(message_bytes_max: int, idle_s: float) -> list[tuple[str, int]]:
    """Of a server: the largest message that it takes, and how long a connection may be silent."""
    return [
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.so_reuseport", 0),  # a port that another process has is an error, not a share of its requests
        ("grpc.max_connection_idle_ms", int(idle_s * 1000)),
    ]


def add_port(server: Any, address: str, tls: ServerTls | None) -> int:
    """Have a server listen on host:port too; which port it is. Raises RuntimeError when it is taken."""
    if tls is None:
        return int(server.add_insecure_port(address))
    return int(server.add_secure_port(address, grpc_credentials(tls)))


def metadata_of(context: Any) -> dict[str, str]:
    """The text of a call's metadata by name, as a door takes headers. Of a name that comes twice the first counts."""
    return {key: value for key, value in reversed(context.invocation_metadata() or ()) if isinstance(value, str)}
