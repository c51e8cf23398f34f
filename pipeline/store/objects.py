"""Objects in the buckets: put, conditional put, get, list. The minio package, and one signed request beside it."""

from __future__ import annotations

import io
import math
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import structlog
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random_exponential

from pipeline import telemetry
from topics.errors import SettingsError, StoreConflictError, StoreUnavailableError
from topics.settings import StoreSettings

log = structlog.get_logger(__name__)
T = TypeVar("T")
MISSING = ("NoSuchKey", "NoSuchBucket", "NoSuchVersion")
READ_ATTEMPTS = 4
CONNECT_TIMEOUT_S = 5.0
POUR_BYTES = 1 << 20
PART_BYTES = 64 << 20  # smaller objects are one request: no part is left behind by a crash
# A listing that is cut off is no XML; other than that the client's own errors, and those below it
AWAY = (S3Error, MinioException, urllib3.exceptions.HTTPError, OSError, ParseError, ValueError)
REFUSED = (409, 412)  # another put of the name is under way; an object stands there
TOLD = ("Code", "Message", "Resource")  # of an S3 store's error, in XML
WRONG_KEYS = "are store.access_key and store.secret_key right?"
ADVICE = {
    "NoSuchBucket": "store.buckets names one that is not there: `spanstream doctor` makes it",
    "SignatureDoesNotMatch": WRONG_KEYS,
    "InvalidAccessKeyId": WRONG_KEYS,
    "AccessDenied": WRONG_KEYS,
}


class ObjectInfo(NamedTuple):
    """An object as a listing shows it."""

    name: str
    size: int
    modified: datetime


class ObjectStore:
    """The buckets of one deployment. Thread-safe, blocking; every call is bounded by the settings' timeouts.

    Reads are tried four times with growing, random waits. Puts are tried once: whoever puts knows whether it may try
    again. All raise StoreUnavailableError when the store does not answer or answers 5xx or 429.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self._puts, self._writer = _client(settings, settings.put_timeout_s)
        self._gets, self._reader = _client(settings, settings.get_timeout_s)
        self._probe = threading.Lock()
        self._conditional: bool | None = None

    @property
    def buckets(self) -> tuple[str, ...]:
        """All buckets; manifests stand in the first."""
        return self.settings.buckets

    def ensure_buckets(self) -> None:
        """Create the buckets that are missing."""
        for bucket in self.buckets:
            if not _asked("head", partial(self._reader.bucket_exists, bucket)):
                _asked("make bucket", partial(self._make_bucket, bucket), attempts=1)

    def put(self, bucket: str, name: str, data: bytes | memoryview, content_type: str) -> None:
        """Write an object, over whatever stands there."""
        length = memoryview(data).nbytes
        put = partial(self._writer.put_object, content_type=content_type, part_size=PART_BYTES, num_parallel_uploads=1)
        _asked("put", lambda: put(bucket, name, io.BytesIO(data), length), attempts=1)

    def put_file(self, bucket: str, name: str, path: Path, content_type: str) -> None:
        """Write a file's content as an object, in one request that holds no more of it than a piece."""
        expires = timedelta(seconds=max(1, int(self.settings.put_timeout_s)))
        url = self._writer.presigned_put_object(bucket, name, expires=expires)
        headers = {"Content-Type": content_type, "Content-Length": str(path.stat().st_size)}

        def put() -> None:
            with path.open("rb") as file:
                answer = self._puts.request("PUT", url, body=file, headers=headers)
            if answer.status != 200:
                raise StoreUnavailableError(_refusal("put", answer))

        _asked("put", put, attempts=1)

    def put_if_absent(self, bucket: str, name: str, data: bytes) -> None:
        """Write an object where none stands under its name: of several writers one wins.

        Raises StoreConflictError when it was refused for another one; StoreUnavailableError when the outcome is not
        known. The caller settles both by reading. The signature expires with put_timeout_s: a late request is refused.
        """
        expires = timedelta(seconds=max(1, int(self.settings.put_timeout_s)))
        url = self._writer.presigned_put_object(bucket, name, expires=expires)
        headers = {"If-None-Match": "*", "Content-Type": "application/json"}
        try:
            answer = self._puts.request("PUT", url, body=data, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            telemetry.STORE_FAULTS.labels(operation="conditional put", fault=_fault_of(error)).inc()
            raise StoreUnavailableError(f"no answer to the put of {name}: {error}") from error
        if answer.status in REFUSED:
            raise StoreConflictError(f"{name} exists, or another put of it is under way")
        if answer.status != 200:
            fault = _fault_told(answer.status, answer.data.decode(errors="replace"))
            telemetry.STORE_FAULTS.labels(operation="conditional put", fault=fault).inc()
            raise StoreUnavailableError(_refusal("conditional put", answer))

    def get(self, bucket: str, name: str) -> bytes | None:
        """An object's content, None where there is none."""
        return _asked("get", lambda: self._read(bucket, name, 0, 0), missing=True)

    def download(self, bucket: str, name: str, file: BinaryIO) -> int | None:
        """Write an object into an empty file, piece by piece; its size, None where there is none."""
        return _asked("get", lambda: self._pour(bucket, name, file), missing=True)

    def get_range(self, bucket: str, name: str, offset: int, length: int) -> bytes | None:
        """`length` >= 1 bytes from `offset` on, fewer where the object ends; None where there is none."""
        return _asked("get range", lambda: self._read(bucket, name, offset, length), missing=True)

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects in the order of their names, a page at a time; `start_after` itself is left out.

        A page that fails is asked for again after the last name given: a listing never ends early.
        """
        after, found = start_after, self._listing(bucket, prefix, start_after)

        def step() -> ObjectInfo | None:
            nonlocal found
            try:
                one = next(found, None)
            except BaseException:
                found = self._listing(bucket, prefix, after)  # the failed one would say that it is at its end
                raise
            return None if one is None else ObjectInfo(one.object_name, one.size or 0, one.last_modified)

        while (info := _asked("list", step)) is not None:
            after = info.name
            yield info

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object; it is no error when there is none."""
        _asked("remove", lambda: self._writer.remove_object(bucket, name))

    def look(self, seconds: float) -> None:
        """Ask something small: whatever it says, also that it refuses, it answers. Tried again for so long at most."""

        def ask() -> None:
            with suppress(S3Error):
                self._reader.bucket_exists(self.buckets[0])

        _asked("head", ask, seconds=seconds)

    def conditional_put_works(self) -> bool:
        """Whether the store refuses the second conditional put of a name: a probe that leaves nothing behind."""
        bucket, name = self.buckets[0], f"probe/{uuid.uuid4().hex}"
        try:
            self.put_if_absent(bucket, name, b"1")
            self.put_if_absent(bucket, name, b"2")
        except StoreConflictError:
            return True
        finally:
            self.remove(bucket, name)
        return False

    def refuses_second_put(self) -> bool:
        """`conditional_put_works`, asked once and remembered."""
        with self._probe:
            if self._conditional is None:
                self._conditional = self.conditional_put_works()
                if not self._conditional:
                    log.warning("store_takes_second_writers", what_to_do="run one worker only, or use MinIO or S3")
            return self._conditional

    def close(self) -> None:
        """Close the connections."""
        self._puts.clear()
        self._gets.clear()

    def _make_bucket(self, bucket: str) -> None:
        try:
            self._writer.make_bucket(bucket)
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def _read(self, bucket: str, name: str, offset: int, length: int) -> bytes:
        answer = self._reader.get_object(bucket, name, offset=offset, length=length)
        try:
            return answer.read()
        finally:
            answer.close()
            answer.release_conn()

    def _pour(self, bucket: str, name: str, file: BinaryIO) -> int:
        file.seek(0)
        file.truncate()
        answer = self._reader.get_object(bucket, name)
        try:
            for piece in answer.stream(POUR_BYTES):
                file.write(piece)
            return file.tell()
        finally:
            answer.close()
            answer.release_conn()

    def _listing(self, bucket: str, prefix: str, start_after: str) -> Iterator[Any]:
        found = self._reader.list_objects(bucket, prefix=prefix, recursive=True, start_after=start_after or None)
        return iter(found)


def _client(settings: StoreSettings, timeout_s: float) -> tuple[urllib3.PoolManager, Minio]:
    """Connections whose answers may take so long, and a client that uses them. Nothing is tried again in there."""
    url = urlsplit(settings.endpoint)
    if settings.ca_path and not Path(settings.ca_path).is_file():
        raise SettingsError(f"store.ca_path is {settings.ca_path!r}, which is no file")
    http = urllib3.PoolManager(
        cert_reqs="CERT_REQUIRED",
        ca_certs=settings.ca_path or None,
        maxsize=settings.connections_max,
        block=True,
        timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), read=timeout_s),
        retries=False,
    )
    client = Minio(
        endpoint=url.netloc,
        access_key=settings.access_key,
        secret_key=settings.secret_key.get_secret_value(),
        secure=url.scheme == "https",
        region=settings.region,
        http_client=http,
    )
    return http, client


def _asked(
    operation: str,
    call: Callable[[], T],
    *,
    attempts: int = READ_ATTEMPTS,
    seconds: float = math.inf,
    missing: bool = False,
) -> T | None:
    """The answer, tried again while the store is away, not after so many seconds; None for a missing object where
    `missing` allows it.
    """
    for attempt in Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_attempt(attempts) | stop_after_delay(seconds),
        reraise=True,
    ):
        with attempt:
            try:
                return call()
            except AWAY as error:
                if missing and _is_missing(error):
                    return None
                fault = _fault_of(error)
                telemetry.STORE_FAULTS.labels(operation=operation, fault=fault).inc()
                log.warning("store_fault", operation=operation, fault=fault, error=str(error)[:300])
                raise StoreUnavailableError(_sentence(operation, fault, error)) from error
    raise AssertionError("the retry loop ends by its return")


def _sentence(operation: str, fault: str, error: Exception) -> str:
    """What became of a request, and what to do where the store says so plainly."""
    if not isinstance(error, S3Error):
        return f"the store does not answer ({operation}, {fault}): {error}"
    return _refused(operation, fault, error.code or "", f"{error.message} ({error.resource})")


def _refusal(operation: str, answer: urllib3.BaseHTTPResponse) -> str:
    """The same of an answer that no client has read."""
    text = answer.data.decode(errors="replace")
    code, message, resource = (_between(text, f"<{name}>", f"</{name}>") for name in TOLD)
    return _refused(operation, str(answer.status), code, f"{message} ({resource})" if message else text[:200])


def _between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def _refused(operation: str, fault: str, code: str, message: str) -> str:
    advice = f"; {ADVICE[code]}" if code in ADVICE else ""
    return f"the store refused a request ({operation}, {fault}): {code or 'no code'}: {message}{advice}"


def _is_missing(error: Exception) -> bool:
    """rclone says so as text/xml, which the client takes for no answer of a store."""
    if isinstance(error, S3Error):
        return error.code in MISSING
    return isinstance(error, InvalidResponseError) and f"<Code>{MISSING[0]}</Code>" in str(error)


def _fault_of(error: Exception) -> str:
    """In a word, of few: a status, clock (ours is wrong), full (its disk), timeout, cut answer or no connection."""
    if isinstance(error, S3Error):
        return "clock" if error.code == "RequestTimeTooSkewed" else _fault_told(error.response.status, str(error))
    if isinstance(error, InvalidResponseError) and (status := re.search(r"Response code: (\d{3})", str(error))):
        return status[1]
    if isinstance(error, urllib3.exceptions.NewConnectionError):  # refused; urllib3 takes it for a kind of timeout
        return "no connection"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        return "timeout"
    cut = isinstance(error, ParseError | ValueError) or "IncompleteRead" in repr(error)
    return "cut answer" if cut else "no connection"


def _fault_told(status: int, message: str) -> str:
    """A status, or `full`: MinIO says 507 below its threshold, and 500 where it finds out while it writes."""
    return "full" if status == 507 or "no space left on device" in message else str(status)
