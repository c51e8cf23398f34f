"""The canary's loop: write a known trace, look at those whose time has come, say what is not there, and where."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import httpx

from agents.canary.checks import CHECKS, ERROR, MISSING, OK, Finding, checked
from agents.canary.known import Known
from agents.canary.stages import RECEIVER, InKafka, last_seen, stage_of, where
from agents.canary.state import Pending, State
from agents.commands.querier import Querier
from agents.load.send import told_by
from pipeline import telemetry

SEND_TIMEOUT_S = 30.0
SEND_ATTEMPTS = 5
POLL_S = 0.05
SEED_BITS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often a trace is written, and at which ages it is looked at; fresh_s: how long one may take to be found."""

    every_s: float
    ages_s: tuple[float, ...]
    fresh_s: float


@dataclass
class Told:
    """What was counted. lines: what is wrong, said as it is found."""

    traces: int = 0
    checks: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    fresh_s_max: float = 0.0


class Canary:
    """One canary: where it writes, whom it asks, what it remembers."""

    def __init__(
        self, plan: Plan, otlp_url: str, querier: Querier, state: State, in_kafka: InKafka, say: Callable[[str], None]
    ) -> None:
        self.plan, self.state, self.told = plan, state, Told()
        self._otlp_url, self._querier, self._in_kafka, self._say = otlp_url.rstrip("/"), querier, in_kafka, say
        self.stop = threading.Event()

    def once(self) -> None:
        """Write one trace and look at it at each age."""
        if (pending := self.write()) is not None:
            while pending.done < len(self.plan.ages_s) and not self._wait_until(pending.due_unix_ns(self.plan.ages_s)):
                self.look(pending)

    def run(self) -> None:
        """Until stopped: whichever is due first, a new trace or a look at one."""
        next_write = time.time_ns()
        while not self.stop.is_set():
            first = min(self.state.pending, key=lambda one: one.due_unix_ns(self.plan.ages_s), default=None)
            due = first.due_unix_ns(self.plan.ages_s) if first else float("inf")
            if next_write <= due:
                if not self._wait_until(next_write):
                    self.write()
                    next_write = max(next_write + int(self.plan.every_s * 1e9), time.time_ns())
            elif first is not None and not self._wait_until(due):
                self.look(first)

    def write(self) -> Pending | None:
        """Write a known trace; None where it was not acknowledged: it is missing at the receiver then."""
        pending = Pending(secrets.randbits(SEED_BITS), time.time_ns())
        self.told.traces += 1
        sent = self._send(pending.known)
        self._count(pending.known, sent, "0")
        if sent.result != OK:
            return None
        self.state.pending.append(pending)
        self.state.save()
        return pending

    def look(self, pending: Pending) -> None:
        """All checks of one age; the first look waits until the trace is fresh."""
        known, age_s = pending.known, self.plan.ages_s[pending.done]
        if pending.done == 0:
            self._wait_until_fresh(known)
        document = where(self._querier, known)
        for name in CHECKS:
            found = checked(self._querier, known, name)
            if found.result not in (OK, ERROR):
                stage, shown = stage_of(document, pending.seen, self._in_kafka, known)
                found = replace(found, stage=stage, said=f"{found.said}. {shown}")
            self._count(known, found, f"{age_s:g}")
        pending.seen = last_seen(document) or pending.seen
        pending.done += 1
        if pending.done == len(self.plan.ages_s) and pending in self.state.pending:
            self.state.pending.remove(pending)
        self.state.save()

    def _wait_until_fresh(self, known: Known) -> None:
        """Ask by ID until it is there, at most fresh_s: what it takes is how fresh answers are."""
        began = time.monotonic()
        while checked(self._querier, known, "by_id").result != OK and time.monotonic() - began < self.plan.fresh_s:
            if self.stop.wait(POLL_S):
                return
        took_s = time.monotonic() - began
        telemetry.CANARY_FRESH_SECONDS.observe(took_s)
        self.told.fresh_s_max = max(self.told.fresh_s_max, took_s)

    def _send(self, known: Known) -> Finding:
        headers, tls = {"Content-Type": "application/x-protobuf", **self._querier.headers}, self._querier.tls
        body, said = known.request().SerializeToString(), ""
        for wait_s in _waits():
            try:
                url = f"{self._otlp_url}/v1/traces"
                answer = httpx.post(url, content=body, headers=headers, timeout=SEND_TIMEOUT_S, verify=tls)
            except httpx.HTTPError as error:
                said = f"{self._otlp_url} does not answer: {error!r}"
            else:
                if answer.status_code == 200:
                    return Finding("send", OK)
                said = f"{self._otlp_url} answered {answer.status_code}: {told_by(answer.content)}"
                if answer.status_code not in (429, 502, 503, 504):
                    break
            if self.stop.wait(wait_s):
                break
        return Finding("send", MISSING, said, RECEIVER)

    def _count(self, known: Known, found: Finding, age: str) -> None:
        self.told.checks += 1
        telemetry.CANARY_CHECKS.labels(check=found.check, age=age, result=found.result).inc()
        telemetry.CANARY_LAST_CHECK.labels(right="true" if found.result == OK else "false").set_to_current_time()
        if found.result == OK:
            return
        self.told.wrong[found.result] += 1
        telemetry.CANARY_MISSING.labels(stage=found.stage or "querier").inc()
        self._say(
            f"trace {known.trace_id.hex()} at {age} s, {found.check}: {found.result} at {found.stage or 'querier'}:"
            f" {found.said}"
        )

    def _wait_until(self, unix_ns: float) -> bool:
        """True when it was stopped meanwhile."""
        return self.stop.wait(max(0.0, (unix_ns - time.time_ns()) / 1e9))


def _waits() -> Iterator[float]:
    rng = secrets.SystemRandom()
    return (rng.uniform(0.1, 0.5) * 2**attempt for attempt in itertools.islice(itertools.count(), SEND_ATTEMPTS))
