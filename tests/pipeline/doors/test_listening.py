"""Listeners: only this machine without tokens; TLS, and mutual TLS, on each of them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from agents.app import make_app
from infra.ports import free_port
from pipeline.doors.listening import check_listening, is_loopback
from pipeline.doors.tls import client_context, server_tls
from pipeline.query.questions import Kafka, Questions
from pipeline.receive.grpc import SERVICE
from pipeline.receive.main import Receiver
from pipeline.serve.querier import Querier
from pipeline.serve.streaming import SERVICE as STREAMING
from pipeline.telemetry import FILE_RELOADS
from tests.doors import certificates, locked, new_token
from tests.pipeline.query.world import MemoryStored, MemoryTail
from tests.queriers import worker
from tests.waiting import wait_until, wait_until_async
from topics import admin
from topics.errors import SettingsError
from topics.settings import (
    DoorSettings,
    KafkaSettings,
    QuerierSettings,
    ReceiverSettings,
    Settings,
    StoreSettings,
    WorkerSettings,
)

SEARCH = f"/{STREAMING}/Search"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "[::1]"])
def test_this_machine_alone_may_always_be_listened_to(host: str) -> None:
    check_listening(Settings(), "receiver.host", host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "localhost.example.org"])
def test_any_other_address_needs_tokens_or_certificates_or_to_be_told_so(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingsError, match=r"querier\.host .*insecure-listen"):
        check_listening(Settings(), "querier.host", host)
    for doors in (
        DoorSettings(tokens_path="tokens.json"),
        DoorSettings(tls_client_ca_path="ca.pem"),
        DoorSettings(insecure_listen=True),
    ):
        check_listening(Settings(doors=doors), "querier.host", host)


async def _begun_receiver(settings: Settings) -> Receiver:
    receiver = Receiver(settings)
    await receiver.start()
    return receiver


async def _begun_querier(settings: Settings) -> Querier:
    kafka = Kafka(partitions=lambda: 1, owners=dict, tail=lambda _count: MemoryTail(settings, 1))
    querier = Querier(settings, Questions(settings, MemoryStored(), kafka))
    await querier.start()
    return querier


async def _querier(settings: Settings) -> None:
    await Querier(settings, None).start()  # type: ignore[arg-type]


async def _worker(settings: Settings) -> None:
    make_app(settings)


@pytest.mark.parametrize("start", [_begun_receiver, _querier, _worker])
def test_no_process_starts_on_an_address_of_others_without_tokens(start: Callable[[Settings], Any]) -> None:
    everywhere = "0.0.0.0"
    settings = Settings(
        receiver=ReceiverSettings(host=everywhere, http_port=0, grpc_port=0),
        querier=QuerierSettings(host=everywhere, http_port=0, grpc_port=0),
        worker=WorkerSettings(host=everywhere),
    )

    with pytest.raises(SettingsError, match="whoever reaches it"):
        asyncio.run(start(settings))


def tls_settings(folder: Path, *, mutual: bool) -> Settings:
    new_token(folder / "tokens.json", "read", "write")
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}", request_timeout_s=1),
        receiver=ReceiverSettings(http_port=0, grpc_port=0),
        querier=QuerierSettings(http_port=0, grpc_port=0, data_dir=folder),
        doors=locked(folder, mutual=mutual),
    )


def credentials_of(settings: Settings, folder: Path) -> tuple[grpc.ChannelCredentials, grpc.ChannelCredentials]:
    """Of a client of the deployment, and of one with a certificate of somebody else's."""
    doors, stranger = settings.doors, certificates(folder, "stranger")
    ca = Path(doors.tls_ca_path).read_bytes()
    known = grpc.ssl_channel_credentials(
        ca, Path(doors.tls_key_path).read_bytes(), Path(doors.tls_cert_path).read_bytes()
    )
    return known, grpc.ssl_channel_credentials(ca, stranger.key.read_bytes(), stranger.cert.read_bytes())


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
def test_the_receivers_listeners_speak_tls_to_whom_they_should(tmp_path: Path, mutual: bool) -> None:
    settings = tls_settings(tmp_path, mutual=mutual)
    known, unknown = credentials_of(settings, tmp_path)

    async def main() -> None:
        receiver = Receiver(settings)
        await receiver.start()
        try:
            await _only_our_clients(f"127.0.0.1:{receiver.http_port}", settings, mutual=mutual)
            assert await _grpc_status(receiver.grpc_port, known) is grpc.StatusCode.UNAUTHENTICATED  # no token: but in
            told = await _grpc_status(receiver.grpc_port, unknown)
            assert told is (grpc.StatusCode.UNAVAILABLE if mutual else grpc.StatusCode.UNAUTHENTICATED)
            assert await _grpc_status(receiver.grpc_port, None) is grpc.StatusCode.UNAVAILABLE
        finally:
            await receiver.stop()

    asyncio.run(main())


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
def test_the_queriers_listeners_speak_tls_to_whom_they_should(tmp_path: Path, mutual: bool) -> None:
    settings = tls_settings(tmp_path, mutual=mutual)
    known, unknown = credentials_of(settings, tmp_path)

    async def main() -> None:
        kafka = Kafka(partitions=lambda: 1, owners=dict, tail=lambda _count: MemoryTail(settings, 1))
        querier = Querier(settings, Questions(settings, MemoryStored(), kafka))
        await querier.start()
        try:
            await _only_our_clients(f"127.0.0.1:{querier.http_port}", settings, mutual=mutual)
            for port in (querier.http_port, querier.grpc_port):
                told = [await _grpc_status(port, one, SEARCH) for one in (known, unknown, None)]
                strangers = grpc.StatusCode.UNAVAILABLE if mutual else grpc.StatusCode.UNAUTHENTICATED
                assert told == [grpc.StatusCode.UNAUTHENTICATED, strangers, grpc.StatusCode.UNAVAILABLE]
            assert await asyncio.to_thread(_chosen_protocol, querier.http_port, settings) == "http/1.1"
        finally:
            await querier.stop()

    asyncio.run(main())


@pytest.mark.parametrize("begin", [_begun_receiver, _begun_querier])
def test_a_renewed_certificate_is_shown_to_new_connections_without_a_restart(
    tmp_path: Path, begin: Callable[[Settings], Awaitable[Receiver | Querier]]
) -> None:
    settings = tls_settings(tmp_path, mutual=False)
    settings = settings.model_copy(update={"doors": settings.doors.model_copy(update={"tls_look_every_s": 0.05})})
    doors, renewed = settings.doors, certificates(tmp_path, "renewed")
    cert, key = Path(doors.tls_cert_path), Path(doors.tls_key_path)
    first = cert.read_text()

    async def main() -> None:
        running = await begin(settings)
        ports = (running.http_port, running.grpc_port)
        refused = FILE_RELOADS.labels(file="certificate", outcome="refused")
        try:
            assert [await _shown(port) for port in ports] == [_leaf(first)] * 2
            before = refused._value.get()
            _put(renewed.cert, cert)  # and not its key yet
            await wait_until_async(lambda: refused._value.get() > before, 10)
            assert [await _shown(port) for port in ports] == [_leaf(first)] * 2
            _put(renewed.key, key)
            for port in ports:
                async with asyncio.timeout(10):
                    while await _shown(port) != _leaf(renewed.cert.read_text()):
                        await asyncio.sleep(0.02)
        finally:
            await running.stop()

    asyncio.run(main())


@pytest.mark.integration
def test_a_workers_listener_shows_a_renewed_certificate_too(
    kafka_settings: KafkaSettings, store_settings: StoreSettings, tmp_path: Path
) -> None:
    new_token(tmp_path / "tokens.json", "admin")
    doors = locked(tmp_path).model_copy(update={"tls_look_every_s": 0.2})
    settings = Settings(kafka=kafka_settings, store=store_settings, doors=doors)
    renewed, cert, key = certificates(tmp_path, "renewed"), Path(doors.tls_cert_path), Path(doors.tls_key_path)
    first, log = cert.read_text(), tmp_path / "worker.log"
    admin.ensure(settings)
    with worker(settings, tmp_path) as url:
        port = int(url.rpartition(":")[2])
        assert asyncio.run(_shown(port)) == _leaf(first)
        _put(renewed.cert, cert)  # and not its key yet
        wait_until(lambda: "file_not_taken" in log.read_text(), 10)
        assert asyncio.run(_shown(port)) == _leaf(first)
        _put(renewed.key, key)
        wait_until(lambda: asyncio.run(_shown(port)) == _leaf(renewed.cert.read_text()), 10)


def _put(new: Path, old: Path) -> None:
    old.write_bytes(new.read_bytes())


def _leaf(chain: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(chain[: chain.index("-----END CERTIFICATE-----") + 25] + "\n")


async def _shown(port: int) -> bytes:
    return ssl.PEM_cert_to_DER_cert(await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port), None))


async def _only_our_clients(address: str, settings: Settings, *, mutual: bool) -> None:
    """Answers a client of the deployment; not plain text, nor who checks by another authority, nor a stranger."""
    async with httpx.AsyncClient(verify=client_context(settings)) as client:
        assert (await client.get(f"https://{address}/ready")).status_code in (200, 503)
    with pytest.raises(httpx.HTTPError):
        async with httpx.AsyncClient() as client:
            await client.get(f"http://{address}/ready")
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        async with httpx.AsyncClient(verify=ssl.create_default_context()) as client:
            await client.get(f"https://{address}/ready")
    nobody = ssl.create_default_context(cafile=settings.doors.tls_ca_path)
    async with httpx.AsyncClient(verify=nobody) as client:
        if mutual:
            with pytest.raises(httpx.HTTPError):
                await client.get(f"https://{address}/ready")
        else:
            assert (await client.get(f"https://{address}/ready")).status_code in (200, 503)


def _chosen_protocol(port: int, settings: Settings) -> str | None:
    """What a browser gets, which offers both."""
    context = client_context(settings)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port)) as connection,
        context.wrap_socket(connection, server_hostname="127.0.0.1") as secured,
    ):
        return secured.selected_alpn_protocol()


async def _grpc_status(
    port: int, credentials: grpc.ChannelCredentials | None, method: str = f"/{SERVICE}/Export"
) -> grpc.StatusCode:
    address = f"127.0.0.1:{port}"
    channel = (
        grpc.aio.insecure_channel(address) if credentials is None else grpc.aio.secure_channel(address, credentials)
    )
    async with channel:
        call = channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=5)
        return caught.value.code()


def test_files_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    one, two = certificates(tmp_path, "one"), certificates(tmp_path, "two")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")

    for doors, sentence in (
        (DoorSettings(tls_cert_path=str(one.cert)), "go together"),
        (DoorSettings(tls_client_ca_path=str(one.ca)), "tls_client_ca_path is set"),
        (DoorSettings(tls_cert_path=str(one.cert), tls_key_path=str(two.key)), "cannot be used"),
        (
            DoorSettings(tls_cert_path=str(one.cert), tls_key_path=str(tmp_path / "no.pem")),
            r"doors\.tls_key_path .*no\.pem is no file",
        ),
        (DoorSettings(tls_cert_path=str(text), tls_key_path=str(one.key)), "text.pem"),
    ):
        with pytest.raises(SettingsError, match=sentence):
            server_tls(Settings(doors=doors))
    with pytest.raises(SettingsError, match=r"doors\.tls_ca_path .*text\.pem cannot be used"):
        client_context(Settings(doors=DoorSettings(tls_ca_path=str(text))))
