"""Bearer tokens: made once, shown once, kept as hashes. A token is `ss_<id>_<secret>`; the file knows id and hash.

The secret has 256 random bits, so a plain SHA-256 of it cannot be guessed back; a slow hash would cost each request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from topics.errors import SettingsError
from topics.spans_by_trace import is_tenant_name

ScopeName = Literal["write", "read", "admin"]
SCOPES: tuple[ScopeName, ...] = ("write", "read", "admin")
ALL_TENANTS = "*"
VERSION = 1
_TOKEN = re.compile(r"ss_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


class KeptToken(BaseModel):
    """What the file says of one token. tenants: those it is for, or `*` for all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[ScopeName, ...], Field(min_length=1)]
    tenants: Annotated[tuple[str, ...], Field(min_length=1)]
    created_unix_s: int
    note: Annotated[str, Field(max_length=200)] = ""

    @property
    def all_tenants(self) -> bool:
        return ALL_TENANTS in self.tenants

    def is_for(self, tenant: str) -> bool:
        """Whether it opens what is this tenant's."""
        return self.all_tenants or tenant in self.tenants


Tokens = dict[str, KeptToken]  # by id


def made(scopes: tuple[ScopeName, ...], tenants: tuple[str, ...], note: str) -> tuple[str, KeptToken]:
    """A new token, to be shown once, and what is kept of it. Raises SettingsError for a wrong tenant."""
    for tenant in tenants:
        if tenant != ALL_TENANTS and not is_tenant_name(tenant):
            raise SettingsError(f"{tenant[:160]!a} is no tenant name")
    number, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    kept = KeptToken(
        id=number,
        sha256=_hash(secret),
        scopes=scopes,
        tenants=tenants,
        created_unix_s=int(time.time()),
        note=note,
    )
    return f"ss_{number}_{secret}", kept


def found(tokens: Tokens, text: str) -> KeptToken | None:
    """The token that this text is, None where it is none."""
    match = _TOKEN.fullmatch(text)
    kept = tokens.get(match[1]) if match else None
    if match is None or kept is None or not hmac.compare_digest(kept.sha256, _hash(match[2])):
        return None
    return kept


def parsed(text: str) -> Tokens:
    """The tokens of a file. Raises SettingsError, which never quotes the file."""
    try:
        document = orjson.loads(text)
        version, listed = document["version"], document["tokens"]
        if version != VERSION:
            raise SettingsError(f"its version is {version!r:.20}, this program knows {VERSION}")
        return {token.id: token for token in map(KeptToken.model_validate, listed)}
    except ValidationError as error:
        places = ", ".join(".".join(map(str, one["loc"])) or "a token" for one in error.errors())
        raise SettingsError(f"no tokens as `spanstream token new` writes them: wrong {places}") from None
    except (ValueError, KeyError, TypeError):
        raise SettingsError("no tokens as `spanstream token new` writes them") from None


def text_of(tokens: Tokens) -> str:
    """The file."""
    listed = [token.model_dump() for token in tokens.values()]
    return orjson.dumps({"version": VERSION, "tokens": listed}, option=orjson.OPT_INDENT_2).decode() + "\n"


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
