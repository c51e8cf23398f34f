"""What settings are made of: groups, and fields with a default, a sentence and bounds."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

KIB, MIB = 1 << 10, 1 << 20


class Section(BaseModel):
    """One group of settings, frozen; an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """A field: its default, one sentence, and pydantic's bounds (ge, le, ...)."""
    return Field(default=default, description=description, **bounds)
