"""The Faust app: its settings, and the one place where its agents, pages and timers are attached."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import faust
from aiohttp import web
from yarl import URL

from agents.restarts import PatientSupervisor
from agents.unpacking import bound_batches
from agents.unreadable import deliver_unreadable_batches
from agents.worker_door import guarded
from pipeline.doors.door import Door
from pipeline.doors.listening import check_listening
from pipeline.doors.renewal import keep_renewed
from pipeline.doors.tls import scheme, server_tls
from topics.kafka_tls import kafka_context
from topics.settings import KafkaSettings, Settings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
KEPT_EVENTS = 2  # a partition's records buffered by Faust beyond the batch at hand; each may have record_bytes_max


class SpanstreamApp(faust.App):
    """A Faust app whose web server also serves the routes of the table endpoint."""

    routes: Sequence[tuple[str, Handler]] = ()
    settings_of_ours: Settings

    def on_webserver_init(self, web: Any) -> None:
        """Add our routes to Faust's aiohttp server: its own pages cannot stream a body."""
        web.web_app.middlewares.append(guarded(Door(self.settings_of_ours)))
        for path, handler in self.routes:
            web.web_app.router.add_get(path, handler)


def worker_url(settings: Settings) -> str:
    """The URL under which this worker's table endpoint is reached; its Kafka client ID, so that queriers find it."""
    worker = settings.worker
    return worker.advertised_url or f"{scheme(settings)}://{worker.host}:{worker.port}"


def make_app(settings: Settings) -> SpanstreamApp:
    """The app without agents. Topics are declared by `spanstream topics ensure`, never by Faust."""
    kafka, worker = settings.kafka, settings.worker
    deliver_unreadable_batches()
    bound_batches(worker.batch_bytes_max)
    check_listening(settings, "worker.host", worker.host)
    tls = server_tls(settings)
    context = tls.context() if tls else None
    url = URL(worker_url(settings))
    app = SpanstreamApp(
        kafka.group,
        broker=[URL(f"kafka://{server.strip()}") for server in kafka.bootstrap_servers.split(",")],
        broker_credentials=_credentials(kafka),
        broker_client_id=str(url),
        consumer_group_instance_id=worker.static_member or None,
        broker_session_timeout=kafka.session_timeout_s,
        broker_heartbeat_interval=kafka.session_timeout_s / 5,
        broker_request_timeout=max(90.0, kafka.session_timeout_s + 1),
        broker_commit_interval=1.0,
        # Faust warns of a livelock when no commit came for so long; ours come with the seals.
        broker_commit_livelock_soft_timeout=2 * worker.seal_age_s + 600,
        broker_max_poll_records=worker.take_records_max,
        consumer_max_fetch_size=worker.fetch_bytes_max // max(1, kafka.partitions),
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=KEPT_EVENTS,
        stream_wait_empty=False,
        stream_ack_exceptions=False,
        stream_ack_cancelled_tasks=False,
        producer_acks=-1,
        producer_compression_type="zstd",
        producer_linger=0.005,
        producer_max_request_size=max(2 * settings.receiver.record_bytes_max, 1 << 21),
        agent_supervisor=PatientSupervisor,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_host=url.host,
        web_port=worker.port,
        web_bind=worker.host,
        web_ssl_context=context,
        datadir=str(worker.data_dir / "faust"),
        worker_redirect_stdouts=False,
    )
    app.settings_of_ours = settings
    if tls and context:

        @app.task
        async def certificates() -> None:
            await keep_renewed(tls, context)

    return app


def _credentials(kafka: KafkaSettings) -> Any:
    context = kafka_context(kafka)
    if kafka.security_protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=kafka.sasl_username,
            password=kafka.sasl_password.get_secret_value(),
            mechanism=kafka.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
