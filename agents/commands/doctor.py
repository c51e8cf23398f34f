"""`spanstream doctor`: tries every part, and says what to do about what fails."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal, NamedTuple

import rich_click as click
from rich.text import Text

from agents.commands.options import ALL, with_settings
from agents.commands.terminal import screen, write_json
from agents.exit_codes import FAILED
from topics.errors import SpanstreamError, StoreUnavailableError
from topics.settings import Settings, flag_of

Verdict = Literal["ok", "warning", "failed"]
FREE_BYTES_MIN = 2 << 30
CLOCK_S_MAX = 5.0
STORE_S_MAX = 5.0
READY_BY_ITSELF = "its log says more; it becomes ready by itself when what it lacks is there"
MARKS: dict[Verdict, tuple[str, str]] = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}


class Finding(NamedTuple):
    """What one check found; `advice` says what to do."""

    part: str
    verdict: Verdict
    found: str
    advice: str = ""


Check = Callable[[Settings], Iterator[Finding]]


@click.command()
@with_settings(*ALL)
@click.option("--json", "as_json", is_flag=True, help="For scripts")
def doctor(settings: Settings, *, as_json: bool) -> None:
    """Try every part with these settings: Kafka, topics, object store, ports, disk, clock. Exit code 1 if one fails.

    Missing buckets are made. One small object is written and removed, to see whether the store refuses a second put.
    """
    findings = [finding for check in CHECKS for finding in tried(check, settings)]
    if as_json:
        write_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            mark, colour = MARKS[finding.verdict]
            screen().print(Text.assemble((mark, colour), f" {finding.part:10}", finding.found))
            if finding.advice:
                screen().print(Text(f"             → {finding.advice}", colour))
    if any(finding.verdict == "failed" for finding in findings):
        sys.exit(FAILED)


def tried(check: Check, settings: Settings) -> list[Finding]:
    """What a check finds; an error of ours is a finding."""
    try:
        return list(check(settings))
    except SpanstreamError as exc:
        part = check.__name__.removeprefix("check_")
        return [Finding(part, "failed", str(exc), ADVICE.get(part, ""))]


ADVICE = {
    "kafka": "`spanstream up` starts one here; --kafka-bootstrap-servers names another",
    "store": "`spanstream up` starts one here; --store-endpoint, --store-access-key, --store-secret-key name another",
}


def check_python(_settings: Settings) -> Iterator[Finding]:
    """Interpreter and machine."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")


def check_kafka(settings: Settings) -> Iterator[Finding]:
    """Reachable, topics there, nothing that loses acknowledged spans."""
    from topics.admin import group_owners, show

    states = show(settings)
    yield Finding("kafka", "ok", f"answers at {settings.kafka.bootstrap_servers}")
    if missing := [state.name for state in states if not state.exists]:
        yield Finding("topics", "failed", f"{', '.join(missing)} missing", "`spanstream topics ensure` creates them")
    for state in states:
        for sentence in state.differences:
            yield Finding("topics", "warning", f"{state.name} {sentence}")
        for sentence in state.could_lose_acknowledged_spans:
            advice = "three brokers, replication factor 3 and min.insync.replicas 2 survive the loss of one"
            yield Finding("topics", "warning", f"{state.name} could lose acknowledged spans: {sentence}", advice)
    if not missing:
        partitions = next(state.partitions for state in states)
        owners = group_owners(settings)
        owned = len(owners)
        told = f"{owned} of {partitions} partitions have a worker (group {settings.kafka.group})"
        advice = "" if owned == partitions else "`spanstream worker` starts one; a trace by ID is still found meanwhile"
        yield Finding("workers", "ok" if owned == partitions else "warning", told, advice)
        yield from _workers(settings, owners)


def _workers(settings: Settings, owners: Mapping[int, str]) -> Iterator[Finding]:
    """Those that own partitions and are not ready, all asked at once."""
    from agents.commands.local_run import is_ready, why_not
    from pipeline.doors.tls import client_context

    tls, urls = client_context(settings), sorted(set(owners.values()))
    with ThreadPoolExecutor(max(1, len(urls))) as pool:
        answers = pool.map(lambda url: is_ready(url, tls), urls)
        silent = [url for url, ready in zip(urls, answers, strict=True) if not ready]
        for url, why in zip(silent, pool.map(lambda url: why_not(url, tls), silent), strict=True):
            mine = ", ".join(str(number) for number in sorted(owners) if owners[number] == url)
            owns = f"{url} owns partitions {mine}"
            if why:
                yield Finding("workers", "failed", f"{owns} and is not ready: {why}", READY_BY_ITSELF)
            else:
                advice = (
                    "it hangs, or is not reached from here under worker.advertised_url: does its process run, does its"
                    " log go on? Kafka gives its partitions to others after kafka.session_timeout_s"
                )
                yield Finding("workers", "failed", f"{owns} and does not answer", advice)


def check_store(settings: Settings) -> Iterator[Finding]:
    """Reachable, buckets there, second conditional put refused."""
    from pipeline.store.objects import ObjectStore

    _ask_store(settings)
    store = ObjectStore(settings.store)
    try:
        store.ensure_buckets()
        yield Finding("store", "ok", f"{settings.store.endpoint} has {', '.join(settings.store.buckets)}")
        if store.conditional_put_works():
            yield Finding("store", "ok", "refuses a second put with If-None-Match: several workers are safe")
        else:
            yield Finding(
                "store",
                "warning",
                "takes a second put with If-None-Match",
                "run one worker only with it; MinIO and S3 refuse it",
            )
    finally:
        store.close()


def _ask_store(settings: Settings) -> None:
    """One request, so that a store that hangs is told in seconds: the client tries four times, patiently."""
    import urllib3

    try:
        urllib3.request("GET", settings.store.endpoint, timeout=STORE_S_MAX, retries=False)
    except urllib3.exceptions.TimeoutError as exc:
        raise StoreUnavailableError(
            f"{settings.store.endpoint} has not answered within {STORE_S_MAX:g} s: does the store hang?"
        ) from exc
    except urllib3.exceptions.HTTPError:
        return  # of what else is wrong the client says more


def check_clock(settings: Settings) -> Iterator[Finding]:
    """Our clock against the store's: it dates what S3 signs, and spans' record times."""
    import urllib3

    try:
        asked = time.time()
        http = urllib3.PoolManager(ca_certs=settings.store.ca_path or None, timeout=3.0, retries=False)
        answer = http.request("GET", settings.store.endpoint)
        date = answer.headers.get("Date")
    except urllib3.exceptions.HTTPError:
        return  # told by check_store
    if date:
        apart_s = abs(parsedate_to_datetime(date).timestamp() - asked)
        verdict: Verdict = "ok" if apart_s <= CLOCK_S_MAX else "failed"
        advice = "" if verdict == "ok" else "set the clock (NTP): S3 refuses signatures that are 15 min off"
        told = "as the store's" if verdict == "ok" else f"{apart_s:.0f} s apart from the store's"
        yield Finding("clock", verdict, told, advice)


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Each port is free, or one of our processes answers there."""
    from agents.commands.local_run import is_ready, why_not
    from agents.commands.outgoing import url_of
    from infra.ports import is_free
    from pipeline.doors.tls import client_context

    receiver, worker, querier = settings.receiver, settings.worker, settings.querier
    for name, host, port, http in (
        ("receiver.http_port", receiver.host, receiver.http_port, receiver.http_port),
        ("receiver.grpc_port", receiver.host, receiver.grpc_port, receiver.http_port),
        ("worker.port", worker.host, worker.port, worker.port),
        ("querier.http_port", querier.host, querier.http_port, querier.http_port),
        ("querier.grpc_port", querier.host, querier.grpc_port, querier.http_port),
    ):
        if port == 0 or is_free(port, host):
            yield Finding("ports", "ok", f"{port} ({name}) is free: nothing runs there")
        elif is_ready(url_of(settings, host, http), client_context(settings)):
            yield Finding("ports", "ok", f"{port} ({name}) answers, and is ready")
        else:
            yield _not_ready(name, port, why_not(url_of(settings, host, http), client_context(settings)))


def _not_ready(name: str, port: int, why: str) -> Finding:
    """Of one of ours, that says so itself; or of a stranger's port."""
    if why:
        return Finding("ports", "failed", f"{port} ({name}) answers, and is not ready: {why}", READY_BY_ITSELF)
    advice = f"one of ours hangs then, see its log; of anything else, stop it or choose another port: {flag_of(name)}"
    return Finding("ports", "failed", f"{port} ({name}) is taken, and does not answer as ours do", advice)


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Room and right to write where data stands."""
    for name, folder in (
        ("stack.data_dir", settings.stack.data_dir),
        ("worker.data_dir", settings.worker.data_dir),
        ("querier.data_dir", settings.querier.data_dir),
    ):
        existing = _existing(folder.expanduser().absolute())
        free = shutil.disk_usage(existing).free
        verdict: Verdict = "ok" if free >= FREE_BYTES_MIN else "failed"
        advice = "" if verdict == "ok" else f"make room, or choose another folder: {flag_of(name)}"
        if not os.access(existing, os.W_OK | os.X_OK):
            yield Finding(
                "disk", "failed", f"no right to write at {existing} ({name})", f"choose another: {flag_of(name)}"
            )
        yield Finding("disk", verdict, f"{free / 2**30:.1f} GiB free at {folder} ({name})", advice)


def check_minio(settings: Settings) -> Iterator[Finding]:
    """What `spanstream up` would use as the object store."""
    from infra.minio import BUILD_COMMAND, find_minio

    found = find_minio(settings.stack.minio_path)
    if found:
        yield Finding("minio", "ok", f"`spanstream up` uses {found}")
    else:
        told = "no binary found: `spanstream up` uses rclone as the object store, for one worker"
        yield Finding("minio", "warning", told, f"`{BUILD_COMMAND}` builds it, once, in 2-4 minutes")


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


CHECKS: tuple[Check, ...] = (
    check_python,
    check_kafka,
    check_store,
    check_clock,
    check_ports,
    check_disk,
    check_minio,
)
