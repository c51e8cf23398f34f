"""Worker and querier on a Kafka that wants TLS, a client's certificate and a password, and on a store with TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Producer
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr

from agents.commands.doctor import check_clock
from infra.kafka import KafkaPlan, start_kafka
from infra.minio import StorePlan, find_minio, start_minio
from infra.ports import free_port
from pipeline.store.objects import ObjectStore
from tests.doors import Certificates, certificates
from tests.pipeline.query.world import OneSpan, otlp, trace_id
from tests.queriers import querier, worker
from tests.waiting import wait_until
from tests.workers import everything_is_stored
from topics import admin, spans_by_trace
from topics.errors import KafkaUnavailableError, SettingsError, SpanstreamError, StoreUnavailableError
from topics.kafka_tls import kafka_context
from topics.partitioner import partition_of
from topics.settings import KafkaSettings, Settings, StoreSettings, WorkerSettings

PASSWORD = "planted-sasl-password-4711"
STORE_KEY = "planted-store-key-4711"


def kafka_properties(own: Certificates, port: int, folder: Path) -> dict[str, str]:
    """A broker that takes its clients by SASL over mutual TLS only."""
    key = serialization.load_pem_private_key(own.key.read_bytes(), None)
    store = folder / "kafka-keystore.pem"
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    store.write_bytes(pkcs8 + own.cert.read_bytes())
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    return {
        "listeners": f"SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{{controller}}",
        "advertised.listeners": f"SASL_SSL://127.0.0.1:{port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": (
            f'{login} username="ours" password="{PASSWORD}" user_ours="{PASSWORD}";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(own.ca),
        "listener.name.sasl_ssl.ssl.client.auth": "required",
    }


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    own = certificates(tmp_path)
    port, controller = free_port(), free_port()
    properties = kafka_properties(own, port, tmp_path)
    properties["listeners"] = properties["listeners"].format(controller=controller)
    plan = KafkaPlan(
        data_dir=tmp_path / "kafka",
        port=port,
        controller_port=controller,
        heap_mb=256,
        log_path=tmp_path / "kafka.txt",
        properties=properties,
    )
    certs = tmp_path / "minio-certs"
    certs.mkdir()
    (certs / "public.crt").write_bytes(own.cert.read_bytes())
    (certs / "private.key").write_bytes(own.key.read_bytes())
    store = StorePlan(
        data_dir=tmp_path / "minio",
        port=free_port(),
        access_key="ours",
        secret_key=STORE_KEY,
        log_path=tmp_path / "minio.txt",
        certs_dir=certs,
    )
    found = Settings(
        kafka=KafkaSettings(
            bootstrap_servers=plan.bootstrap_servers,
            security_protocol="SASL_SSL",
            sasl_username="ours",
            sasl_password=SecretStr(PASSWORD),
            ssl_ca_path=str(own.ca),
            ssl_cert_path=str(own.cert),
            ssl_key_path=str(own.key),
            partitions=2,
            session_timeout_s=6,
        ),
        store=StoreSettings(
            endpoint=store.endpoint, access_key="ours", secret_key=SecretStr(STORE_KEY), ca_path=str(own.ca)
        ),
        worker=WorkerSettings(seal_age_s=1),
    )
    binary = find_minio()
    assert binary is not None
    minio, broker = start_minio(store, binary), start_kafka(plan, print)
    try:
        wait_until(lambda: _answers(found), 60, "Kafka and MinIO answer")
        yield found
    finally:
        broker.stop(20)
        minio.stop(20)


def _answers(settings: Settings) -> bool:
    try:
        admin.ensure(settings)
        ObjectStore(settings.store).ensure_buckets()
    except SpanstreamError:
        return False
    return True


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_a_span_is_stored_and_found_over_tls_and_no_log_tells_a_secret(settings: Settings, tmp_path: Path) -> None:
    assert [finding.part for finding in check_clock(settings)] == ["clock"]
    with worker(settings, tmp_path), querier(settings, tmp_path) as url:
        producer = Producer(admin.client_config(settings.kafka))
        partition = partition_of(trace_id(1), 2)
        producer.produce(spans_by_trace.TOPIC.name, otlp([OneSpan(1, 1, name="over tls")]), partition=partition)
        assert producer.flush(10) == 0
        store = ObjectStore(settings.store)
        wait_until(lambda: everything_is_stored(store, settings), 60, "it is stored")

        found = httpx.get(f"{url}/api/v2/traces/{trace_id(1).hex()}", timeout=30).json()

        assert "over tls" in str(found)
        assert "status" not in found  # complete
        where = f"{url}/api/where/{trace_id(1).hex()}"
        wait_until(lambda: '"kind":"store"' in httpx.get(where, timeout=30).text, 30, "it is found in its chunk")
        told = httpx.get(f"{url}/metrics").text + httpx.get(where, timeout=30).text
    texts = [told, *(log.read_text() for log in tmp_path.glob("*.log"))]
    assert not [secret for secret in (PASSWORD, STORE_KEY) for text in texts if secret in text]
    stranger = certificates(tmp_path, "stranger")
    for changes in (
        {"sasl_password": SecretStr("wrong")},
        {"ssl_ca_path": str(stranger.ca)},
        {"ssl_cert_path": "", "ssl_key_path": ""},
    ):
        kafka = settings.kafka.model_copy(update={"request_timeout_s": 2.0, **changes})
        with pytest.raises(KafkaUnavailableError) as caught:
            admin.show(settings.model_copy(update={"kafka": kafka}))
        assert PASSWORD not in str(caught.value)
    other = ObjectStore(settings.store.model_copy(update={"ca_path": str(stranger.ca)}))
    with pytest.raises(StoreUnavailableError, match="certificate verify failed"):
        other.get(settings.store.buckets[0], "x")


def test_files_for_kafka_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    one, two = certificates(tmp_path, "one"), certificates(tmp_path, "two")
    for changes, sentence in (
        ({"security_protocol": "PLAINTEXT", "ssl_ca_path": str(one.ca)}, "without TLS"),
        ({"ssl_cert_path": str(one.cert)}, "go together"),
        ({"ssl_ca_path": str(tmp_path / "no.pem")}, r"kafka\.ssl_ca_path is .*no file"),
        ({"ssl_cert_path": str(one.cert), "ssl_key_path": str(two.key)}, "cannot be used"),
        ({"ssl_ca_path": str(one.key)}, "cannot be used"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            kafka_context(KafkaSettings(**({"security_protocol": "SSL"} | changes)))  # type: ignore[arg-type]
    assert kafka_context(KafkaSettings()) is None
    with pytest.raises(SettingsError, match=r"store\.ca_path"):
        ObjectStore(StoreSettings(ca_path=str(tmp_path / "no.pem")))
