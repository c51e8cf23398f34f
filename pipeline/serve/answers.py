"""Questions as parameters, answers as Tempo's JSON: what HTTP, gRPC and MCP share."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import QueryParams

from pipeline import telemetry
from pipeline.query.identifiers import SCOPE_OF, Attribute, Intrinsic, identifier, legacy_tag
from pipeline.query.metrics import Heard as HeardSeries
from pipeline.query.metrics import MetricsQuestion, SoFar
from pipeline.query.questions import Questions
from pipeline.query.search import Heard, SearchAnswer
from pipeline.query.tags import Among, TagAnswer
from pipeline.query.tags import Heard as HeardTags
from pipeline.serve import metrics, params, tempo
from pipeline.serve.query_limits import QueryLimits
from pipeline.serve.tempo import Json
from topics.errors import BadQuestionError

TAG_SCOPES = (*SCOPE_OF, "intrinsic", "trace", "none", "")


class Answers:
    """One method a question; each raises what its parameters and pipeline.query.questions raise."""

    def __init__(self, questions: Questions, limits: QueryLimits) -> None:
        self._questions, self._limits = questions, limits

    async def found(
        self,
        tenants: Sequence[str],
        asked: QueryParams,
        heard: Heard | None = None,
        tags: dict[str, str] | None = None,
    ) -> SearchAnswer:
        """What a search finds. tags: in the place of `tags=`; heard: as of `Search.find`."""
        question = params.search_question(asked, self._limits.of(tenants), self._questions.regex_error, tags)
        return await self._questions.search(tenants, question, heard)

    async def search(
        self,
        tenants: Sequence[str],
        asked: QueryParams,
        heard: Heard | None = None,
        tags: dict[str, str] | None = None,
    ) -> Json:
        """SearchResponse of the same."""
        answer = await self.found(tenants, asked, heard, tags)
        count_partial("search", answer.reasons)
        told: Json = await self._questions.in_thread(lambda: tempo.search(answer))
        return told

    async def metrics_range(self, tenants: Sequence[str], asked: QueryParams, heard: HeardSeries | None = None) -> Json:
        """QueryRangeResponse; heard: as of `Metrics.measure`."""
        question = metrics.range_question(asked, self._limits.of(tenants), self._questions.regex_error)
        limit = metrics.series_limit(asked, self._limits.of(tenants))

        def few(found: SoFar) -> None:
            if heard is not None and (not limit or len(found.series.labels) <= limit):
                heard(found)

        return await self._measured(tenants, asked, question, metrics.range_answer, few if heard is not None else None)

    async def metrics_instant(self, tenants: Sequence[str], asked: QueryParams) -> Json:
        """QueryInstantResponse."""
        question = metrics.instant_question(asked, self._limits.of(tenants), self._questions.regex_error)
        return await self._measured(tenants, asked, question, metrics.instant_answer)

    async def _measured(
        self,
        tenants: Sequence[str],
        asked: QueryParams,
        question: MetricsQuestion,
        told: metrics.Told,
        heard: HeardSeries | None = None,
    ) -> Json:
        limit = metrics.series_limit(asked, self._limits.of(tenants))
        answer = await self._questions.metrics(tenants, question, heard)
        count_partial("metrics", answer.reasons)
        found: Json = await self._questions.in_thread(lambda: told(answer, limit))
        return found

    async def tag_names(self, tenants: Sequence[str], asked: QueryParams, heard: HeardTags | None = None) -> Json:
        """SearchTagsResponse: names of all scopes together. heard: as of `Tags.names`."""
        answer, scope = await self._tag_names(tenants, asked, heard)
        return tempo.tag_names(answer, intrinsic=scope == "intrinsic")

    async def tag_names_by_scope(
        self, tenants: Sequence[str], asked: QueryParams, heard: HeardTags | None = None
    ) -> Json:
        """SearchTagsV2Response. heard: as of `Tags.names`."""
        answer, scope = await self._tag_names(tenants, asked, heard)
        return tempo.tag_names_by_scope(answer, intrinsic=scope in ("", "none", "intrinsic"))

    async def _tag_names(
        self, tenants: Sequence[str], asked: QueryParams, heard: HeardTags | None
    ) -> tuple[TagAnswer, str]:
        scope = asked.get("scope", "")
        if scope not in TAG_SCOPES:
            raise BadQuestionError(f"invalid scope: {scope[:100]}")
        scopes = list(SCOPE_OF.values()) if scope in ("", "none") else [SCOPE_OF[scope]] if scope in SCOPE_OF else []
        among, limit = self._among(tenants, asked)
        answer = await self._questions.tag_names(tenants, scopes, among, limit, heard)
        return _whole(answer, asked, limit), scope

    async def tag_values(
        self, tenants: Sequence[str], tag: str, asked: QueryParams, heard: HeardTags | None = None
    ) -> Json:
        """SearchTagValuesResponse: values of a tag without scope, as texts. heard: as of `Tags.values`."""
        return tempo.tag_values(await self._tag_values(tenants, legacy_tag(tag), asked, heard))

    async def typed_tag_values(
        self, tenants: Sequence[str], tag: str, asked: QueryParams, heard: HeardTags | None = None
    ) -> Json:
        """SearchTagValuesV2Response: values of a TraceQL attribute, with their types. heard: as of `Tags.values`."""
        return tempo.typed_tag_values(await self._tag_values(tenants, identifier(tag), asked, heard))

    async def _tag_values(
        self, tenants: Sequence[str], of: Attribute | Intrinsic, asked: QueryParams, heard: HeardTags | None
    ) -> TagAnswer:
        among, limit = self._among(tenants, asked)
        return _whole(await self._questions.tag_values(tenants, of, among, limit, heard), asked, limit)

    def _among(self, tenants: Sequence[str], asked: QueryParams) -> tuple[Among, int]:
        """Among which spans tags are looked for, and how many are told."""
        querier = self._limits.of(tenants)
        among = params.among_of(asked, querier.search_range_h_max, self._questions.regex_error)
        return among, params.tag_limit_of(asked, querier.tag_values_max)

    async def services(self, tenants: Sequence[str], asked: QueryParams) -> Json:
        """Services with their operations, and how many spans each has."""
        within = params.search_times(asked, self._limits.of(tenants).search_range_h_max)
        found, reasons = await self._questions.services(tenants, within)
        count_partial("services", reasons)
        services = {service: dict(sorted(operations.items())) for service, operations in sorted(found.items())}
        return {"services": services, "complete": not reasons} | tempo.complete(reasons)


def _whole(answer: TagAnswer, asked: QueryParams, limit: int) -> TagAnswer:
    """The answer, which says that there is more where nobody asked for so few."""
    if answer.cut and not asked.get("limit"):
        answer.reasons.append(f"there are more than {limit} (querier.tag_values_max): limit= may ask for more")
    count_partial("tags", answer.reasons)
    return answer


def count_partial(question: str, reasons: list[str]) -> None:
    """Count an answer that is not complete."""
    if reasons:
        telemetry.PARTIAL_ANSWERS.labels(question=question).inc()
