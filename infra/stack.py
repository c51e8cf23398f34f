"""The local stack: Kafka and an object store under one data folder, kept between runs."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal

from infra.kafka import KafkaPlan, cluster_id, kafka_ready, start_kafka
from infra.minio import BUILD_COMMAND, StorePlan, find_minio, start_minio
from infra.ports import HOST, choose_port, is_open
from infra.process import ChildProcess
from infra.rclone import start_rclone
from infra.supervisor import Role
from topics.errors import StackError
from topics.settings import KafkaSettings, Settings, StoreSettings

StoreKind = Literal["minio", "rclone", "none"]
RCLONE_NOTICE = (
    f"No MinIO found: using rclone as the object store, for one worker only. `{BUILD_COMMAND}` builds MinIO, once."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStack:
    """How to reach what LocalStack started; settings with the actual ports and endpoint put in."""

    settings: Settings
    store_kind: StoreKind
    cluster_id: str
    roles: tuple[Role, ...]  # for Supervisor.adopt

    @property
    def kafka(self) -> KafkaSettings:
        return self.settings.kafka

    @property
    def store(self) -> StoreSettings:
        return self.settings.store


class LocalStack:
    """Kafka and the store below `stack.data_dir`: `kafka/`, `store/`, `log/`. One stack a folder at a time.

    `with LocalStack(settings) as running:` or start() and stop(), all from a thread that lives as long as the stack.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        """say: gets lines for the user, such as which store is used or that jars are fetched."""
        self._settings = settings
        self._say = say
        self._data_dir = settings.stack.data_dir.expanduser().resolve()
        self._children: list[ChildProcess] = []
        self._lock: IO[str] | None = None

    def start(self) -> RunningStack:
        """Start both at once, return when both answer a real request: about 2 s, 4 s on the first run.

        Raises StackError, after stopping what it had started: a port in use, no network on the very first start, a
        program that ends or is not ready within stack.start_timeout_s.
        """
        self._take_folder()
        try:
            return self._start()
        except BaseException:  # Ctrl-C too
            self.stop()
            raise

    def stop(self) -> None:
        """Stop in reverse order, each killed after stack.stop_timeout_s. Can be called twice."""
        while self._children:
            self._children.pop().stop(self._settings.stack.stop_timeout_s)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check(self) -> None:
        """Raises StackError with the end of its log if a program has died."""
        for child in self._children:
            if not child.alive:
                raise StackError(f"{child.name} has died ({child.end()}).{child.said()}")

    def __enter__(self) -> RunningStack:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> RunningStack:
        stack = self._settings.stack
        kafka = KafkaPlan(
            data_dir=self._data_dir / "kafka",
            port=choose_port(stack.kafka_port, "stack.kafka_port"),
            controller_port=choose_port(stack.kafka_controller_port, "stack.kafka_controller_port"),
            heap_mb=stack.kafka_heap_mb,
            log_path=self._data_dir / "log" / "kafka.log",
        )
        store = StorePlan(
            data_dir=self._data_dir / "store",
            port=choose_port(stack.store_port, "stack.store_port"),
            access_key=self._settings.store.access_key,
            secret_key=self._settings.store.secret_key.get_secret_value(),
            log_path=self._data_dir / "log" / "store.log",
        )
        kind, store_child = self._start_store(store)
        self._children.append(kafka_child := start_kafka(kafka, self._say))
        if store_child is not None:
            store_child.wait_ready(lambda: store_ready(store), stack.start_timeout_s)
        kafka_child.wait_ready(lambda: kafka_ready(kafka), stack.start_timeout_s)
        endpoint = {} if kind == "none" else {"endpoint": store.endpoint}
        settings = self._settings.model_copy(
            update={
                "kafka": self._settings.kafka.model_copy(update={"bootstrap_servers": kafka.bootstrap_servers}),
                "store": self._settings.store.model_copy(update=endpoint),
            }
        )
        roles = [Role(name="kafka", child=kafka_child, urls={"bootstrap_servers": kafka.bootstrap_servers})]
        if store_child is not None:
            roles.append(Role(name="store", child=store_child, urls={"s3": store.endpoint}))
        return RunningStack(
            settings=settings, store_kind=kind, cluster_id=cluster_id(kafka.data_dir), roles=tuple(roles)
        )

    def _start_store(self, plan: StorePlan) -> tuple[StoreKind, ChildProcess | None]:
        """Both stores keep objects in their own way: a folder belongs to the one that wrote it first."""
        wanted = self._settings.stack.store
        if wanted == "none":
            return "none", None
        binary = None if wanted == "rclone" else find_minio(self._settings.stack.minio_path)
        if binary is None and wanted == "minio":
            raise StackError(f"stack.store is minio, and there is no MinIO binary: `{BUILD_COMMAND}` builds one, once")
        kind: StoreKind = "rclone" if binary is None else "minio"
        own = StorePlan(
            data_dir=plan.data_dir / kind,
            port=plan.port,
            access_key=plan.access_key,
            secret_key=plan.secret_key,
            log_path=plan.log_path,
        )
        if binary is None:
            self._say(RCLONE_NOTICE if wanted == "auto" else "The object store is rclone, for one worker only.")
            child = start_rclone(own)
        else:
            child = start_minio(own, binary)
        self._children.append(child)
        return kind, child

    def _take_folder(self) -> None:
        """Lock the data folder; the kernel lets go when we die."""
        with suppress(FileExistsError):
            self._data_dir.mkdir(parents=True)
        self._lock = (self._data_dir / "stack.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self._lock.close()
            self._lock = None
            raise StackError(
                f"Another local stack runs in {self._data_dir} (stack.data_dir). Stop it, or choose another folder:"
                " --stack-data-dir, or SPANSTREAM_STACK_DATA_DIR in the environment."
            ) from exc


def store_ready(plan: StorePlan) -> bool:
    """Does the store answer a signed listing of its buckets? Blocks up to 2 s."""
    if not is_open(plan.port):
        return False
    import urllib3
    from minio import Minio
    from minio.error import MinioException

    pool = urllib3.PoolManager(timeout=2.0, retries=False)
    client = Minio(
        endpoint=f"{HOST}:{plan.port}",
        access_key=plan.access_key,
        secret_key=plan.secret_key,
        secure=False,
        region="us-east-1",
        http_client=pool,
    )
    try:
        client.list_buckets()
    except (MinioException, urllib3.exceptions.HTTPError, OSError):
        return False
    finally:
        pool.clear()
    return True
