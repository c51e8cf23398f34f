"""The querier over HTTP, as the asking commands see it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from types import TracebackType
from typing import Any

import httpx
import rich_click as click

from agents.commands.options import with_settings
from agents.commands.outgoing import OUTGOING, chosen_url, querier_url
from agents.trace_answer import TraceAnswer, read_answer
from pipeline.doors.outgoing import Outgoing, named
from pipeline.doors.tenants import NO_TENANT
from topics.errors import BadQuestionError, NotFoundError, QuerierUnavailableError, SpanstreamError
from topics.settings import Settings

TRACE_ID_DIGITS = 32


class Querier:
    """One querier. Answers are parsed JSON, or a trace. Use it in a `with` statement."""

    def __init__(
        self, url: str, tenant: str = "", outgoing: Outgoing | None = None, settings: Settings | None = None
    ) -> None:
        """outgoing: what it shows, and how it checks the querier."""
        self.settings = settings or Settings()
        self.terminal = self.settings.terminal
        self.url = url.rstrip("/")
        self.headers = named(tenant, outgoing)
        self.tls = outgoing.tls if outgoing else True
        timeout_s = self.terminal.querier_timeout_s
        self._http = httpx.Client(base_url=self.url, headers=self.headers, timeout=timeout_s, verify=self.tls)

    def __enter__(self) -> Querier:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._http.close()

    def ask(self, path: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """GET as JSON; parameters that are None are left out.

        Raises BadQuestionError for 400 and 422, NotFoundError for 404, QuerierUnavailableError for all else.
        """
        answer = self._get(path, parameters or {}, "application/json")
        try:
            return answer.json()
        except ValueError as exc:
            raise QuerierUnavailableError(f"{self.url}{path} answered no JSON: is it a querier?") from exc

    def trace(self, trace_id: str) -> TraceAnswer:
        """A trace by its ID. Raises NotFoundError where the querier knows no span of it, BadQuestionError for no ID."""
        digits = checked_trace_id(trace_id)
        answer = read_answer(self._get(f"/api/v2/traces/{digits}", {}, "application/protobuf").content)
        if not answer.traces_data.resource_spans:
            reason = f" ({answer.message})" if answer.partial else ""
            raise NotFoundError(f"no span of trace {digits} is known{reason}")
        return answer

    @contextmanager
    def stream(self, path: str, parameters: Mapping[str, Any], body: str) -> Iterator[Iterator[bytes]]:
        """POST; the answer as it comes. Raises as `ask` does, also where the answer breaks off."""
        with self._errors_told():
            posted = self._http.stream("POST", path, params=_given(parameters), content=body.encode())
            with posted as answer:
                if answer.status_code != 200:
                    answer.read()
                    raise self._refused(path, answer)
                with self._whole():
                    yield answer.iter_bytes()

    def _get(self, path: str, parameters: Mapping[str, Any], accept: str) -> httpx.Response:
        with self._errors_told():
            asked = self._http.stream("GET", path, params=_given(parameters), headers={"Accept": accept})
            with asked as answer, self._whole():
                answer.read()
        if answer.status_code != 200:
            raise self._refused(path, answer)
        return answer

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        try:
            yield
        except httpx.RemoteProtocolError as exc:
            raise QuerierUnavailableError(f"what answers at {self.url} is no querier, or ended: {exc}") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise QuerierUnavailableError(
                f"the querier at {self.url} does not answer ({exc}). Is it running? `spanstream up` starts everything;"
                " --url names another one"
            ) from exc

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Of an answer that has begun."""
        try:
            yield
        except httpx.RemoteProtocolError as exc:
            raise QuerierUnavailableError(
                f"the answer of the querier at {self.url} broke off: it was longer than a limit of bytes or time"
                " allows, or the querier ended"
            ) from exc

    def _refused(self, path: str, answer: httpx.Response) -> SpanstreamError:
        said = answer.text.strip()[:2000] or f"status {answer.status_code}"
        if answer.status_code in (400, 422):
            return BadQuestionError(said)
        if answer.status_code == 404:
            return NotFoundError(f"{self.url}{path}: {said}")
        return QuerierUnavailableError(f"{self.url}{path} answered {answer.status_code}: {said}{_way_in(answer)}")


def _way_in(answer: httpx.Response) -> str:
    """What a command can show, where it was not let in."""
    if answer.status_code not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ""
    if answer.text.strip() == NO_TENANT:
        return " (--tenant names one)"
    return " (what this command shows is doors.token: SPANSTREAM_DOORS_TOKEN, or --doors-token)"


def _given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def checked_trace_id(text: str) -> str:
    """32 lower-case hex digits; shorter IDs are padded on the left. Raises BadQuestionError."""
    digits = text.strip().lower().removeprefix("0x")
    if not digits or len(digits) > TRACE_ID_DIGITS or set(digits) - set("0123456789abcdef"):
        raise BadQuestionError(f"{text!r} is no trace ID: 1 to 32 hex digits")
    return digits.zfill(TRACE_ID_DIGITS)


def asks_querier(function: Callable[..., Any], settings: Sequence[str] = ()) -> Callable[..., Any]:
    """Give a command --url, --tenant, --json, the flags of more settings, and a Querier as its first argument."""
    decorated = asks_querier_without_json(function, settings)
    return click.option("--json", "as_json", is_flag=True, help="For scripts")(decorated)


def asks_querier_without_json(function: Callable[..., Any], settings: Sequence[str] = ()) -> Callable[..., Any]:
    """Likewise, for what is no answer but a screen."""

    def run(loaded: Settings, *, url: str | None, tenant: str, **given: Any) -> Any:
        asked = chosen_url({"url": url}, "url", querier_url(loaded))
        with Querier(asked, tenant, Outgoing.of_command(loaded), loaded) as querier:
            return function(querier, **given)

    decorated: Callable[..., Any] = functools.update_wrapper(run, function)
    own = (*settings, "terminal.querier_timeout_s")
    decorated = with_settings("querier.host", "querier.http_port", *OUTGOING, *own, "log")(decorated)
    for option in (
        click.option("--tenant", default="", help="X-Scope-OrgID, where there are tenants; a|b asks for both"),
        click.option("--url", help="The querier (default: http://querier.host:querier.http_port)"),
    ):
        decorated = option(decorated)
    return decorated
