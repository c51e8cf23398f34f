"""Every error that spanstream raises on purpose, under one root. Each says when it comes and what the operator sees."""

from __future__ import annotations


class SpanstreamError(Exception):
    """The root. Caught at the edge of a process or request and shown as one sentence; anything else is a bug."""


class SettingsError(SpanstreamError):
    """A setting has a wrong name, value or range. The process does not start; the message names all three."""


class KafkaUnavailableError(SpanstreamError):
    """Kafka does not answer or does not confirm in time. Callers answer 503 and the sender tries again."""


class StoreUnavailableError(SpanstreamError):
    """The object store does not answer. Seals wait and retry; queries answer PARTIAL or 503."""


class DiskFullError(SpanstreamError):
    """A disk of this machine is full. A worker waits until there is room; the message names the folder."""


class OvertakenError(StoreUnavailableError):
    """What is stored changed while a question was at it. It is asked again; only after several times 503."""


class StoreConflictError(SpanstreamError):
    """A conditional put was refused: the object exists. For a manifest: another attempt stored the range."""


class MalformedRequestError(SpanstreamError):
    """A request's body is no OTLP: it does not parse or decompress. The sender gets 400 with google.rpc.Status."""


class RequestTooLargeError(SpanstreamError):
    """A request is larger than its limit, compressed or unpacked. The sender gets 413."""


class RateLimitedError(SpanstreamError):
    """A tenant sends faster than its limit, or too many of its queries wait: 429, with Retry-After where that helps."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(SpanstreamError):
    """More is under way than may be (bytes for Kafka, live tails), or the process is stopping: 503 with Retry-After."""


class UnknownTenantError(SpanstreamError):
    """A request names no tenant or an impossible one. The sender gets 401 without a name, 400 for an invalid one."""


class UnauthenticatedError(SpanstreamError):
    """A request carries no token, or one that is unknown or revoked. The caller gets 401."""


class ForbiddenError(SpanstreamError):
    """A token does not allow this: another scope is needed, or it is for another tenant. The caller gets 403."""


class BatchTooLargeError(SpanstreamError):
    """A Kafka batch unpacks to more than a worker may hold. Its records become dead letters; the partition goes on."""


class MalformedRecordError(SpanstreamError):
    """A Kafka record is no OTLP TracesData. It goes to the dead-letter topic with the reason; the partition goes on."""


class SpanSchemaError(SpanstreamError):
    """A span batch lacks a column or has one of a wrong type: a bug of ours or a foreign chunk. Names the column."""


class FormatVersionError(SpanstreamError):
    """A manifest, chunk or entry was written by a later version. The reader refuses it: upgrade the reader."""


class GroupSharedError(SpanstreamError):
    """Other programs are members of the workers' consumer group: Kafka lets no worker in beside them."""


class DamagedChunkError(SpanstreamError):
    """A chunk's bytes are not what was stored: no Parquet, or a page's checksum is wrong."""


class PartitionsChangedError(SpanstreamError):
    """The keyed topic was given more partitions. The worker says so again and again and leaves them unread."""


class BadQuestionError(SpanstreamError):
    """A query's parameter is wrong. The caller gets 400 and the sentence."""


class QueryTimeoutError(SpanstreamError):
    """A query took longer than querier.query_timeout_s and was ended. The caller gets 504."""


class CallerGoneError(SpanstreamError):
    """Whoever asked has closed the connection. The question is ended; 499 stands in the metrics, nobody reads it."""


class QueryCancelledError(SpanstreamError):
    """Somebody with the right to has ended a query that was under way. Its caller gets 499 and the sentence."""


class UnknownQueryError(SpanstreamError):
    """A query that is to be cancelled is not under way. The caller gets 404."""


class QueryTooLargeError(SpanstreamError):
    """A query needs more memory, or has a larger answer, than its setting allows. The caller gets 413 or 422."""


class NotOwnerError(SpanstreamError):
    """A worker was asked about a partition that it does not own. The querier looks for the owner again."""


class StackError(SpanstreamError):
    """A part of the local stack does not start or has died. The message says which, its log, and what to do."""


class ReceiverUnavailableError(SpanstreamError):
    """The receiver does not answer, or asks to come again later. `spanstream load` sends again, then gives up."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LoadRefusedError(SpanstreamError):
    """The receiver says that a request of `spanstream load` is wrong: sending it again would not help."""


class QuerierUnavailableError(SpanstreamError):
    """The querier does not answer, or not as a querier does. The command ends with exit code 1."""


class NotFoundError(SpanstreamError):
    """What a command was asked for is not there, such as a trace. Exit code 1."""


class ReplayRefusedError(SpanstreamError):
    """Dead letters are not sent again now: another replay runs, or what was sent could not be noted."""
