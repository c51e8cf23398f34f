"""Settings of a deployment behind locked doors: certificates of an authority of its own, tokens, a peers' secret."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import trustme
from pydantic import SecretStr

from pipeline.doors.token_file import add_token
from pipeline.doors.tokens import ScopeName, made
from topics.settings import DoorSettings

PEER_TOKEN = "planted-peer-secret-4711"


class Certificates(NamedTuple):
    """Paths of PEM files. cert and key: of 127.0.0.1, shown by whoever listens or asks."""

    ca: Path
    cert: Path
    key: Path


def certificates(folder: Path, name: str = "own") -> Certificates:
    """Of a new authority."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    found = Certificates(*(folder / f"{name}-{what}.pem" for what in ("ca", "cert", "key")))
    authority.cert_pem.write_to_path(str(found.ca))
    found.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(found.key))
    return found


def new_token(path: Path, *scopes: ScopeName, tenants: tuple[str, ...] = ("*",)) -> str:
    """A token that stands in the file."""
    text, kept = made(scopes, tenants, "")
    add_token(path, kept)
    return text


def locked(folder: Path, *, tls: bool = True, mutual: bool = True) -> DoorSettings:
    """Tokens at `folder`/tokens.json, which must exist by the time a process starts."""
    found = DoorSettings(tokens_path=str(folder / "tokens.json"), peer_token=SecretStr(PEER_TOKEN))
    if not tls:
        return found
    own = certificates(folder)
    return found.model_copy(
        update={
            "tls_cert_path": str(own.cert),
            "tls_key_path": str(own.key),
            "tls_ca_path": str(own.ca),
            "tls_client_ca_path": str(own.ca) if mutual else "",
        }
    )
