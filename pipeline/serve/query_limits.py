"""Limits of questions as they count for a request: those of all, or its tenants' own."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.doors.overrides import QUERY_LIMITS
from pipeline.query.questions import Questions
from topics.settings import QuerierSettings


class QueryLimits:
    """querier.* for the tenants of a request. Belongs to one event loop."""

    def __init__(self, questions: Questions, querier: QuerierSettings) -> None:
        self._questions, self._querier = questions, querier

    def of(self, tenants: Sequence[str]) -> QuerierSettings:
        """The settings, limits that tenants have of their own in their place; of several tenants' the least."""
        own = [self._questions.overrides.of(tenant).query_limits for tenant in tenants]
        if not any(own):
            return self._querier
        found = {name: self._least(name, [one.get(name) for one in own]) for name in QUERY_LIMITS}
        return self._querier.model_copy(update=found)

    def _least(self, name: str, own: Sequence[float | None]) -> float:
        everybodys = getattr(self._querier, name)
        return min((everybodys if one is None else one for one in own), key=lambda limit: limit or float("inf"))
