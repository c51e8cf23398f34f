"""Every metric, once. Each is described in docs/operations.md; a test compares the two."""

from __future__ import annotations
