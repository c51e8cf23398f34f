"""Objects in the buckets: put, conditional put, get, list. The minio package, and one signed request beside it."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from topics.errors import StoreConflictError, StoreUnavailableError
from topics.settings import StoreSettings

T = TypeVar("T")
MISSING = ("NoSuchKey", "NoSuchBucket", "NoSuchVersion")
READ_ATTEMPTS = 4
PRECONDITION_FAILED = 412
CONFLICT = 409


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
        url = urlsplit(settings.endpoint)
        self._http = urllib3.PoolManager(
            maxsize=settings.connections_max,
            block=True,
            timeout=urllib3.Timeout(connect=5.0, read=max(settings.put_timeout_s, settings.get_timeout_s)),
            retries=False,
        )
        self._client = Minio(
            url.netloc,
            access_key=settings.access_key,
            secret_key=settings.secret_key.get_secret_value(),
            secure=url.scheme == "https",
            region=settings.region,
            http_client=self._http,
        )

    @property
    def buckets(self) -> tuple[str, ...]:
        """All buckets; manifests stand in the first."""
        return self.settings.buckets

    def ensure_buckets(self) -> None:
        """Create the buckets that are missing."""
        for bucket in self.buckets:
            if not _asked(partial(self._client.bucket_exists, bucket)):
                try:
                    self._client.make_bucket(bucket)
                except S3Error as error:
                    if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                        raise StoreUnavailableError(f"bucket {bucket} cannot be created: {error.code}") from error

    def put(self, bucket: str, name: str, data: bytes | memoryview, content_type: str) -> None:
        """Write an object, over whatever stands there."""
        body = data if isinstance(data, bytes) else bytes(data)
        _asked(
            lambda: self._client.put_object(bucket, name, io.BytesIO(body), len(body), content_type=content_type),
            attempts=1,
        )

    def put_if_absent(self, bucket: str, name: str, data: bytes) -> None:
        """Write an object where none stands under its name: of several writers one wins.

        Raises StoreConflictError when one stands there; StoreUnavailableError when the outcome is not known, which the
        caller settles by reading. The signature expires with put_timeout_s, so that a late request is refused.
        """
        expires = timedelta(seconds=max(1, int(self.settings.put_timeout_s)))
        url = self._client.presigned_put_object(bucket, name, expires=expires)
        headers = {"If-None-Match": "*", "Content-Type": "application/json"}
        try:
            answer = self._http.request(
                "PUT", url, body=data, headers=headers, timeout=self.settings.put_timeout_s, retries=False
            )
        except urllib3.exceptions.HTTPError as error:
            raise StoreUnavailableError(f"no answer to the put of {name}: {error}") from error
        if answer.status in (PRECONDITION_FAILED, CONFLICT):
            raise StoreConflictError(f"{name} exists")
        if answer.status != 200:
            raise StoreUnavailableError(f"the put of {name} was answered {answer.status}: {answer.data[:200]!r}")

    def get(self, bucket: str, name: str) -> bytes | None:
        """An object's content, None where there is none."""

        def read() -> bytes:
            answer = self._client.get_object(bucket, name)
            try:
                return answer.read()
            finally:
                answer.close()
                answer.release_conn()

        return _asked(read, missing=True)

    def list(self, bucket: str, prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """Objects in the order of their names, a page at a time; `start_after` itself is left out."""
        found = self._client.list_objects(bucket, prefix=prefix, recursive=True, start_after=start_after or None)
        while (one := _asked(lambda: next(found, None))) is not None:
            yield ObjectInfo(one.object_name, one.size or 0, one.last_modified)

    def remove(self, bucket: str, name: str) -> None:
        """Delete an object; it is no error when there is none."""
        _asked(lambda: self._client.remove_object(bucket, name))

    def conditional_put_works(self) -> bool:
        """Whether the store refuses the second conditional put of a name: a probe that leaves nothing behind."""
        bucket, name = self.buckets[0], f"probe/{uuid.uuid4().hex}"
        self.put_if_absent(bucket, name, b"1")
        try:
            self.put_if_absent(bucket, name, b"2")
        except StoreConflictError:
            return True
        finally:
            self.remove(bucket, name)
        return False

    def close(self) -> None:
        """Close the connections."""
        self._http.clear()


def _asked(call: Callable[[], T], *, attempts: int = READ_ATTEMPTS, missing: bool = False) -> T | None:
    """The answer, tried again while the store is away; None for a missing object where `missing` allows it."""
    for attempt in Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        stop=stop_after_attempt(attempts),
        reraise=True,
    ):
        with attempt:
            try:
                return call()
            except S3Error as error:
                if missing and error.code in MISSING:
                    return None
                raise StoreUnavailableError(f"the store answered {error.code}: {error.message}") from error
            except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
                raise StoreUnavailableError(f"the store does not answer: {error}") from error
    raise AssertionError("the retry loop ends by its return")
