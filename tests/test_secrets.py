"""Planted secrets come out nowhere: in no output, error, traceback, log or representation of the settings."""

from __future__ import annotations

import io
import traceback
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner
from prometheus_client import generate_latest

from agents.cli import cli
from infra.ports import free_port
from topics.logs import set_up_logs
from topics.settings import LogSettings, fields, is_secret, load_settings, variable_of

SECRETS = {
    f"{section}.{name}": f"planted-{section}-{name}-4711".replace("_", "-")
    for section, name, field in fields()
    if is_secret(field)
}
COMMANDS = (
    ("config",),
    ("config", "--json"),
    ("config", "--changed"),
    ("config", "--markdown"),
    ("config", "--kafka-partitions", "many"),
    ("topics", "show"),
    ("topics", "show", "--log-level", "debug"),
    ("chunks",),
    ("chunks", "--log-level", "debug"),
    ("services",),
    ("search", "{", "--log-level", "debug"),
    ("doctor", "--json"),
    ("token", "list"),
    ("serve", "--querier-host", "0.0.0.0", "--log-level", "debug"),
)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every secret of the settings, and parts that do not answer."""
    nobody = f"127.0.0.1:{free_port()}"
    given = {
        "kafka.bootstrap_servers": nobody,
        "kafka.security_protocol": "SASL_PLAINTEXT",
        "kafka.sasl_username": "somebody",
        "kafka.request_timeout_s": "0.5",
        "store.endpoint": f"http://{nobody}",
        "querier.http_port": str(free_port()),
        "querier.grpc_port": str(free_port()),
        "stack.data_dir": str(tmp_path),
    }
    for name, value in (given | SECRETS).items():
        monkeypatch.setenv(variable_of(name), value)


def test_there_are_secrets_to_look_for() -> None:
    assert {"kafka.sasl_password", "kafka.ssl_key_password", "store.secret_key", "doors.peer_token"} <= set(SECRETS)


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_command_tells_a_secret_nor_does_its_error(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli, words)

    told = done.output + done.stderr
    if done.exception is not None:
        told += "".join(traceback.format_exception(done.exception))
    assert told
    assert not [name for name, secret in SECRETS.items() if secret in told]


@pytest.mark.usefixtures("planted")
def test_settings_and_metrics_and_logs_of_settings_hide_them() -> None:
    settings = load_settings()
    out = io.StringIO()
    set_up_logs(LogSettings(format="json"), out)
    structlog.get_logger("test").warning(
        "starting", settings=settings, kafka=settings.kafka, doors=repr(settings.doors)
    )

    told = repr(settings) + str(settings.model_dump()) + settings.model_dump_json() + out.getvalue()

    assert "starting" in told
    told += generate_latest().decode()
    assert not [name for name, secret in SECRETS.items() if secret in told]
