"""Limits of single tenants beside those of all: a TOML or JSON file that is read again when it changes.

[tenants.shop]
rate_bytes_per_s = 5e6
attributes_max = 64
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.doors.watched import watched
from topics.errors import SettingsError
from topics.settings import Settings
from topics.spans_by_trace import is_tenant_name

# Of a question's parameters and answer, under the names that querier.* has for all; series_max 0: no limit
QUERY_LIMITS = ("search_range_h_max", "metrics_range_h_max", "search_limit_max", "series_max", "trace_bytes_max")


class TenantLimits(BaseModel):
    """What one tenant may; a field that is None is not overridden."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rate_bytes_per_s: float | None = Field(default=None, ge=0)
    burst_bytes: float | None = Field(default=None, gt=0)
    request_bytes_max: int | None = Field(default=None, ge=1024)
    attributes_max: int | None = Field(default=None, ge=1)
    chunk_retention_h: float | None = Field(default=None, gt=0)
    queries_max: int | None = Field(default=None, ge=1)
    search_range_h_max: float | None = Field(default=None, gt=0)
    metrics_range_h_max: float | None = Field(default=None, gt=0)
    search_limit_max: int | None = Field(default=None, ge=1)
    series_max: int | None = Field(default=None, ge=0)
    trace_bytes_max: int | None = Field(default=None, ge=1024)

    @property
    def query_limits(self) -> dict[str, float]:
        """Those of QUERY_LIMITS that are overridden."""
        own = ((name, getattr(self, name)) for name in QUERY_LIMITS)
        return {name: value for name, value in own if value is not None}


NO_OVERRIDES = TenantLimits()
Limits = dict[str, TenantLimits]


class Overrides:
    """The file of limits.overrides_path; without one nobody has limits of its own. Belongs to one thread."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for a file that cannot be read."""
        path = settings.limits.overrides_path
        self._file = watched(Path(path), "overrides", reader_of(Path(path))) if path else None

    def of(self, tenant: str) -> TenantLimits:
        """The tenant's own limits."""
        return self._file.value.get(tenant, NO_OVERRIDES) if self._file else NO_OVERRIDES

    def every(self) -> Limits:
        """The tenants with limits of their own."""
        return self._file.value if self._file else {}

    def chunk_retentions_h(self) -> dict[str, float]:
        """The tenants whose chunks are kept for a time of their own, shorter or longer."""
        every = self.every().items()
        return {tenant: one.chunk_retention_h for tenant, one in every if one.chunk_retention_h is not None}

    def attributes_max(self, default: int) -> dict[str, int]:
        """The tenants with a limit of attributes of their own. It can only be lower than that of all."""
        if self._file is None:
            return {}
        return {
            tenant: min(default, limits.attributes_max)
            for tenant, limits in self._file.value.items()
            if limits.attributes_max is not None
        }


def reader_of(path: Path) -> Any:
    """Reads the text of such a file: JSON where its name says so, else TOML. Raises SettingsError."""

    def read(text: str) -> Limits:
        try:
            document = orjson.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except ValueError as error:
            raise SettingsError(f"it does not parse: {error}") from error
        if not isinstance(document, dict) or set(document) - {"tenants"} or not _is_table(document.get("tenants", {})):
            raise SettingsError("it holds one table, `tenants`, with a table for each tenant")
        return {name: _limits(name, given) for name, given in document.get("tenants", {}).items()}

    return read


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _limits(tenant: str, given: Any) -> TenantLimits:
    if not is_tenant_name(tenant):
        raise SettingsError(f"{tenant[:160]!a} is no tenant name")
    try:
        return TenantLimits.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise SettingsError(f"tenants.{tenant}: {wrong}") from None
