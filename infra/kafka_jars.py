"""Apache Kafka's jars: named with their hashes in kafka_jars.lock, fetched from Maven Central once, into the cache.

`python -m infra.kafka_jars` resolves COORDINATES anew and writes the lock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from infra.cache import cache_dir, only_one
from topics.errors import StackError

KAFKA_VERSION = "4.1.0"
# kafka-clients is named because an older one is resolved otherwise, with which the broker dies
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-clients:{KAFKA_VERSION}",
    "org.apache.logging.log4j:log4j-core:2.25.1",
    "org.apache.logging.log4j:log4j-slf4j-impl:2.25.1",
)
LOCK_PATH = Path(__file__).with_name("kafka_jars.lock")
FETCHES_AT_ONCE = 8
FETCH_TRIES = 3


class Jar(NamedTuple):
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def locked_jars() -> list[Jar]:
    """What kafka_jars.lock names: `group:artifact:version sha256`, a line each."""
    jars = []
    for line in LOCK_PATH.read_text().splitlines():
        coordinate, sha256 = line.split()
        group, artifact, version = coordinate.split(":")
        jars.append(Jar(group, artifact, version, sha256))
    return jars


def jars_dir() -> Path:
    """The folder of the jars; it exists only when it is complete. Another lock has another folder."""
    lock = hashlib.sha256(LOCK_PATH.read_bytes()).hexdigest()
    return cache_dir() / f"kafka-{KAFKA_VERSION}-{lock[:8]}"


def fetch_jars(say: Callable[[str], None]) -> Path:
    """The folder with all jars, fetched (43 MB) when it is not there; later calls need no network.

    Raises StackError with what to do when Maven Central is not reached or a jar is not the locked one. A fetch that is
    broken off leaves no folder.
    """
    folder = jars_dir()
    if folder.is_dir():
        return folder
    with only_one("kafka"):
        if not folder.is_dir():
            say(f"Fetching Apache Kafka {KAFKA_VERSION} from Maven Central, once, into {folder}")
            _fetch_into(folder)
    return folder


def _fetch_into(folder: Path) -> None:
    """Fetch into a folder beside, then rename: `folder` is complete or absent."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    complete = partial / "complete"
    complete.mkdir(parents=True)
    _trust_what_the_system_trusts()
    try:
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as pool:
            for jar, path in pool.map(lambda jar: (jar, _fetch(jar, partial / "maven")), locked_jars()):
                _check(jar, path)
                path.rename(complete / jar.file_name)
        complete.rename(folder)
    except OSError as exc:  # what requests raises is one, too
        raise StackError(
            f"Apache Kafka's jars could not be fetched from Maven Central ({type(exc).__name__}: {exc})."
            " The first start needs the network, later ones do not. Behind a proxy set HTTPS_PROXY; or point"
            " kafka.bootstrap_servers at a Kafka of your own and do without the local stack."
        ) from exc
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@retry(
    retry=retry_if_exception_type(OSError),
    stop=stop_after_attempt(FETCH_TRIES),
    wait=wait_exponential_jitter(multiplier=0.2, max=2.0),
    reraise=True,
)
def _fetch(jar: Jar, repository: Path) -> Path:
    """One jar from Maven Central, below `repository`. Raises OSError, of requests or the disk, after three tries."""
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repository)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    shutil.rmtree(repository / jar.group.replace(".", "/") / jar.artifact, ignore_errors=True)  # of a try before
    try:
        return Path(artifact.resolve())
    except RuntimeError as exc:
        raise OSError(f"{jar.file_name}: {exc}") from exc


def _check(jar: Jar, path: Path) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise StackError(
            f"{jar.file_name} as fetched from Maven Central is not the locked one: its SHA-256 is {found}, and"
            f" {LOCK_PATH.name} says {jar.sha256}. Do not use it; find out who changed it on the way."
        )


def _trust_what_the_system_trusts() -> None:
    """Let requests use the system's certificate authorities: only they know a proxy that inspects TLS."""
    bundle = ssl.get_default_verify_paths().cafile
    if bundle and not os.environ.get("CURL_CA_BUNDLE"):
        os.environ.setdefault("REQUESTS_CA_BUNDLE", bundle)


def main() -> int:
    """Resolve COORDINATES with what they depend on, and write the lock."""
    import jgo

    _trust_what_the_system_trusts()
    lines = []
    for artifact in jgo.resolve("+".join(COORDINATES)):
        sha256 = hashlib.sha256(Path(artifact.resolve()).read_bytes()).hexdigest()
        lines.append(f"{artifact.groupId}:{artifact.artifactId}:{artifact.version} {sha256}\n")
    LOCK_PATH.write_text("".join(sorted(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
