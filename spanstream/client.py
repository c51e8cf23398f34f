"""The way to a querier: `connect`, and a client with one method a kind of question."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from spanstream.answers import FoundTraces, Measured, Rows
from spanstream.errors import BadQuestionError, NotFoundError, UnavailableError, error_of
from spanstream.trace import Trace

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 90.0  # beyond the querier's own
REASONS_HEADER = "x-spanstream-incomplete"
JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
ID_DIGITS = 32
MICROS = 10**6  # of a second
Time = datetime | float


def connect(
    url: str = "http://127.0.0.1:3200",
    *,
    tenant: str = "",
    token: str = "",
    timeout_s: float = TIMEOUT_S,
    ca_path: str = "",
) -> Client:
    """A client of the querier at `url`. Nothing is asked before the first question.

    tenant: where there are several; "a|b" asks for both. token: of `spanstream token`. ca_path: the authority (PEM) of
    an https URL, where the system does not know it. Raises BadQuestionError for what is no URL.
    """
    return Client(url, tenant=tenant, token=token, timeout_s=timeout_s, ca_path=ca_path)


class Client:
    """Asks one querier; threads may share it. Close it, or use it in a `with` statement.

    Times: `since`, such as "15m", "2h" or "7d", or `start` and perhaps `end`, as datetimes with a time zone or Unix
    seconds. All methods raise SpanstreamError with the querier's sentence; an answer that may not be whole says so.
    """

    def __init__(self, url: str, *, tenant: str, token: str, timeout_s: float, ca_path: str) -> None:
        import ssl

        import httpx

        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise BadQuestionError(f"{url!r} is no URL of a querier: it looks like http://127.0.0.1:3200")
        self.url = url.rstrip("/")
        headers = {"X-Scope-OrgID": tenant} if tenant else {}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        verify = ssl.create_default_context(cafile=ca_path) if ca_path else True
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s, verify=verify)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<spanstream client of {self.url}>"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(  # noqa: PLR0913
        self,
        query: str = "{}",
        *,
        since: str = "1h",
        start: Time | None = None,
        end: Time | None = None,
        limit: int = 20,
        order: str = "newest",
        spans: int = 3,
        cursor: str = "",
    ) -> FoundTraces:
        """Traces in which a TraceQL query finds something.

        order: newest, oldest, longest, shortest, most_spans, most_errors. spans: how many of the found spans of each
        trace come with it. cursor: `next_cursor` of the answer before.
        """
        asked = {"q": query, "limit": limit, "order": order, "spss": spans, "cursor": cursor or None}
        return FoundTraces(self._json("/api/search", asked | _range(since, start, end)))

    def trace(self, trace_id: str) -> Trace:
        """A whole trace by its ID; NotFoundError where no span of it is known."""
        digits = trace_id.strip().lower().removeprefix("0x")
        if not digits or len(digits) > ID_DIGITS or set(digits) - set("0123456789abcdef"):
            raise BadQuestionError(f"{trace_id!r} is no trace ID: 1 to 32 hex digits")
        found = Trace(digits.zfill(ID_DIGITS), self._json(f"/api/v2/traces/{digits}", {}))
        if not len(found):
            reasons = f" ({found.message})" if found.message else ""
            raise NotFoundError(f"no span of trace {found.trace_id} is known{reasons}", 404)
        return found

    def metrics(
        self,
        query: str,
        *,
        since: str = "1h",
        start: Time | None = None,
        end: Time | None = None,
        step: str = "",
        instant: bool = False,
    ) -> Measured:
        """Series of a TraceQL query that ends in a metrics function. step: "1m", say; instant: one value a series."""
        path = "/api/metrics/query" if instant else "/api/metrics/query_range"
        return Measured(self._json(path, {"q": query, "step": step or None} | _exact_range(since, start, end)))

    def sql(self, query: str, *, since: str = "1h", start: Time | None = None, end: Time | None = None) -> Rows:
        """Rows of one SELECT in DuckDB's SQL over `spans` and `traces` of that time."""
        answer = self._post("/api/sql", query, _range(since, start, end))
        return Rows(answer.content, answer.headers.get(REASONS_HEADER, ""))

    # ---- the wire

    def _json(self, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in asked.items() if value is not None}
        answer = self._checked("GET", path, params=given, headers={"Accept": JSON})
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as exc:
            raise UnavailableError(f"{self.url}{path} answered no JSON: is it a querier?") from exc
        return found

    def _post(self, path: str, text: str, asked: Mapping[str, Any]) -> httpx.Response:
        return self._checked("POST", path, params=asked, content=text.encode(), headers={"Accept": ARROW})

    def _checked(self, method: str, path: str, **options: Any) -> httpx.Response:
        import httpx

        try:
            answer = self._http.request(method, path, **options)
        except httpx.RemoteProtocolError as exc:
            raise UnavailableError(
                f"the answer of {self.url}{path} broke off ({exc}): it was longer than the querier's limit of bytes or"
                " time, or the querier ended"
            ) from exc
        except httpx.HTTPError as exc:
            raise UnavailableError(f"the querier at {self.url} does not answer ({exc or type(exc).__name__})") from exc
        if answer.status_code != 200:
            raise error_of(answer.status_code, answer.text.strip()[:2000] or f"status {answer.status_code}")
        return answer


def _range(since: str, start: Time | None, end: Time | None) -> dict[str, Any]:
    """Parameters of a search and of SQL: whole Unix seconds, of which the last is meant to its end."""
    asked = _micros(start, end)
    if asked is None:
        return {"since": since}
    first, last = (one // MICROS for one in asked)
    return {"start": first, "end": max(last, first + 1)}


def _exact_range(since: str, start: Time | None, end: Time | None) -> dict[str, Any]:
    """Parameters of metrics: Unix seconds with their fraction."""
    asked = _micros(start, end)
    if asked is None:
        return {"since": since}
    first, last = (f"{one // MICROS}.{one % MICROS:06}" for one in asked)
    return {"start": first, "end": last}


def _micros(start: Time | None, end: Time | None) -> tuple[int, int] | None:
    """Both in Unix microseconds; None where neither is given."""
    if start is None and end is None:
        return None
    if start is None:
        raise BadQuestionError("end needs a start")
    first, last = _unix_micros(start, "start"), _unix_micros(time.time() if end is None else end, "end")
    if not 0 <= first < last:
        raise BadQuestionError("start must be before end, and not before 1970")
    return first, last


def _unix_micros(at: Time, name: str) -> int:
    if not isinstance(at, datetime):
        return round(at * MICROS)
    if at.tzinfo is None:
        raise BadQuestionError(f"{name} has no time zone: datetime.now(timezone.utc) has one")
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
