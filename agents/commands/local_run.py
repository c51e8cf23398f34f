"""All of it on this machine: the local stack, then receiver, workers and querier as supervised processes."""

from __future__ import annotations

import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from agents.commands.outgoing import url_of
from infra.ports import choose_port
from infra.process import ChildProcess, Program
from infra.stack import LocalStack, RunningStack
from infra.supervisor import Role, Supervisor
from pipeline.doors.tls import client_context
from topics.errors import StackError
from topics.settings import Settings, fields, variable_of

RUN_FILE = "run.json"
READY_TIMEOUT_S = 1.0
SENTENCE_BYTES_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a local run is reached: URLs, except host:port for gRPC and Kafka."""

    otlp_grpc: str
    otlp_http: str
    querier: str
    workers: tuple[str, ...]
    kafka: str
    store: str

    def env(self) -> dict[str, str]:
        """What a program with an OpenTelemetry SDK wants in its environment."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp_http, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}


class LocalRun:
    """`with LocalRun(settings, say) as run:` everything is started in order, all ready; stopped in reverse at the end.

    Start and stop in one thread, which lives as long as the run. Attributes are set when it has started.
    """

    settings: Settings
    addresses: Addresses
    supervisor: Supervisor
    roles: dict[str, Role]
    store_kind: str

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        """say: gets lines for the user."""
        self._given = settings
        self._say = say
        self._stack = LocalStack(settings, say)
        self.run_path = settings.stack.data_dir.expanduser().resolve() / RUN_FILE

    def __enter__(self) -> LocalRun:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        chosen = with_ports(self._given)
        self._say("Starting Kafka and the object store")
        running = self._stack.start()
        self.store_kind = running.store_kind
        self.settings = chosen.model_copy(update={"kafka": running.kafka, "store": running.store})
        if running.store_kind == "rclone" and chosen.stack.workers > 1:
            raise StackError(
                f"stack.workers is {chosen.stack.workers}, and rclone as the object store allows one worker: it cannot"
                " refuse a second manifest. `make minio` builds MinIO, once."
            )
        worker_settings = [_of_worker(self.settings, index) for index in range(chosen.stack.workers)]
        self.addresses = _addresses(self.settings, worker_settings, running)
        self.supervisor = Supervisor(
            self.run_path, chosen.stack, self._say, {"urls": _urls(self.addresses), "env": self.addresses.env()}
        )
        self.supervisor.adopt(running.roles)
        prepare(self.settings)
        roles = _roles(self.settings, worker_settings, self.addresses, self.run_path.parent / "log")
        self._say(f"Starting {', '.join(role.name for role in roles)}")
        self.supervisor.start(roles)
        self.roles = {role.name: role for role in roles}

    def _stop(self) -> None:
        if hasattr(self, "supervisor"):
            self.supervisor.stop()
        self._stack.stop()


def prepare(settings: Settings) -> None:
    """Topics and buckets that are missing are made; both at once."""
    from pipeline.store.objects import ObjectStore
    from topics.admin import ensure

    with ThreadPoolExecutor() as pool:
        topics, buckets = pool.submit(ensure, settings), pool.submit(ObjectStore(settings.store).ensure_buckets)
        topics.result()
        buckets.result()


def with_ports(settings: Settings) -> Settings:
    """The settings of a local run: ports that are free (0: any), data below stack.data_dir, everything on 127.0.0.1.

    Raises StackError, naming the setting, for a port in use.
    """
    receiver, querier, worker = settings.receiver, settings.querier, settings.worker
    folder = settings.stack.data_dir.expanduser().resolve()
    return settings.model_copy(
        update={
            "receiver": receiver.model_copy(
                update={
                    "grpc_port": choose_port(receiver.grpc_port, "receiver.grpc_port"),
                    "http_port": choose_port(receiver.http_port, "receiver.http_port"),
                }
            ),
            "querier": querier.model_copy(
                update={
                    "http_port": choose_port(querier.http_port, "querier.http_port"),
                    "grpc_port": choose_port(querier.grpc_port, "querier.grpc_port"),
                    "data_dir": folder / "querier",
                }
            ),
            "worker": worker.model_copy(update={"data_dir": folder / "worker"}),
        }
    )


def variables_of(settings: Settings) -> dict[str, str]:
    """Every setting as its variable, for a child process: it then depends on no file and no flag."""
    return {
        variable_of(f"{section}.{name}"): _as_text(getattr(getattr(settings, section), name))
        for section, name, _ in fields()
    }


def is_ready(url: str, tls: ssl.SSLContext | None = None) -> bool:
    """Does `GET <url>/ready` answer 200? Blocks up to a second. tls: how https is checked."""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=READY_TIMEOUT_S, context=tls) as answer:  # noqa: S310 (our own URL)
            return bool(answer.status == 200)
    except OSError:
        return False


def why_not(url: str, tls: ssl.SSLContext | None = None) -> str:
    """What one of our processes says that is not ready; empty where none of ours answers. Blocks up to a second."""
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=READY_TIMEOUT_S, context=tls):  # noqa: S310 (our own URL)
            return ""
    except urllib.error.HTTPError as error:
        with error:
            ours = error.code == HTTPStatus.SERVICE_UNAVAILABLE and error.headers.get_content_type() == "text/plain"
            return error.read(SENTENCE_BYTES_MAX).decode(errors="replace").strip() if ours else ""
    except OSError:
        return ""


def _as_text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _of_worker(settings: Settings, index: int) -> Settings:
    """Worker `index`: a port, a folder and a name in the consumer group of its own.

    Under its name a worker that is started again gets its partitions back at once, without a session time-out. The
    port is part of the name: Faust takes an assignment only under the URL that it was made for.
    """
    worker = settings.worker
    port = choose_port(0 if worker.port == 0 else worker.port + index, "worker.port")
    own = worker.model_copy(
        update={
            "port": port,
            "data_dir": worker.data_dir / str(index + 1),
            "static_member": f"{worker.static_member or 'worker'}-{port}",
            "advertised_url": "",
        }
    )
    return settings.model_copy(update={"worker": own})


def _addresses(settings: Settings, workers: list[Settings], running: RunningStack) -> Addresses:
    receiver, querier = settings.receiver, settings.querier
    return Addresses(
        otlp_grpc=f"{receiver.host}:{receiver.grpc_port}",
        otlp_http=url_of(settings, receiver.host, receiver.http_port),
        querier=url_of(settings, querier.host, querier.http_port),
        workers=tuple(url_of(one, one.worker.host, one.worker.port) for one in workers),
        kafka=running.kafka.bootstrap_servers,
        store=running.store.endpoint,
    )


def _urls(addresses: Addresses) -> Mapping[str, Any]:
    return {name: getattr(addresses, name) for name in Addresses.__slots__}


def _roles(settings: Settings, workers: list[Settings], addresses: Addresses, log_dir: Path) -> list[Role]:
    return [
        _role("receiver", "receive", settings, addresses.otlp_http, log_dir),
        *(
            _role(f"worker {index}", "worker", own, url, log_dir)
            for index, (own, url) in enumerate(zip(workers, addresses.workers, strict=True), start=1)
        ),
        _role("querier", "serve", settings, addresses.querier, log_dir),
    ]


def _role(name: str, command: str, settings: Settings, url: str, log_dir: Path) -> Role:
    program = Program(
        name=name,
        command=[sys.executable, "-m", "agents.cli", command],
        log_path=log_dir / f"{name.replace(' ', '-')}.log",
        env=variables_of(settings),
    )
    return Role(
        name=name, child=ChildProcess(program), urls={"http": url}, ready=_Patient(url, client_context(settings))
    )


class _Patient:
    """Asks for readiness every 100 ms at most: asking more often would slow the starting process down."""

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        self._url, self._tls = url, tls
        self._asked_s = 0.0

    def __call__(self) -> bool:
        if time.monotonic() - self._asked_s < 0.1:
            return False
        self._asked_s = time.monotonic()
        return is_ready(self._url, self._tls)
