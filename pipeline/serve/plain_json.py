"""Parts of Tempo's JSON as plain JSON: attributes as one object, values as they are, IDs in hexadecimal."""

from __future__ import annotations

import base64
from typing import Any

Json = dict[str, Any]


def hex_of(text: str) -> str:
    """An ID in base64, in hexadecimal; empty for an empty one."""
    return base64.b64decode(text).hex()


def attributes_of(of: Json) -> Json:
    """The attributes of a span, resource, scope, event or link by their keys; of a key that comes twice the last."""
    return {pair["key"]: plain(pair["value"]) for pair in of.get("attributes", [])}


def plain(value: Json) -> Any:
    """An AnyValue as JSON writes it; None for one that is not set."""
    if not value:
        return None
    ((kind, held),) = value.items()
    if kind == "intValue":
        return int(held)
    if kind == "arrayValue":
        return [plain(one) for one in held.get("values", [])]
    if kind == "kvlistValue":
        return attributes_of({"attributes": held.get("values", [])})
    return held


def filled(**fields: Any) -> Json:
    """The fields that are not empty; numbers stay."""
    return {name: value for name, value in fields.items() if value not in ("", None, {}, [])}
