"""TLS towards Kafka: one context, made from the settings, so that a wrong file is named before any client starts."""

from __future__ import annotations

import ssl
from pathlib import Path

from topics.errors import SettingsError
from topics.settings import KafkaSettings


def kafka_context(kafka: KafkaSettings) -> ssl.SSLContext | None:
    """How brokers are checked, and what is shown to them; None without TLS. Raises SettingsError naming the file."""
    files = {"ssl_ca_path": kafka.ssl_ca_path, "ssl_cert_path": kafka.ssl_cert_path, "ssl_key_path": kafka.ssl_key_path}
    given = {name: path for name, path in files.items() if path}
    if not kafka.security_protocol.endswith("SSL"):
        if given:
            raise SettingsError(
                f"kafka.{next(iter(given))} is set, and kafka.security_protocol is {kafka.security_protocol}, without"
                " TLS: SSL and SASL_SSL use it"
            )
        return None
    if bool(kafka.ssl_cert_path) != bool(kafka.ssl_key_path):
        raise SettingsError("kafka.ssl_cert_path and kafka.ssl_key_path go together: one of them is empty")
    for name, path in given.items():
        if not Path(path).is_file():
            raise SettingsError(f"kafka.{name} is {path!r}, which is no file")
    try:
        context = ssl.create_default_context(cafile=kafka.ssl_ca_path or None)
        if kafka.ssl_cert_path:
            # Without a password OpenSSL would ask for one on the terminal: an empty one is wrong at once
            password = kafka.ssl_key_password.get_secret_value()
            context.load_cert_chain(kafka.ssl_cert_path, kafka.ssl_key_path, password=lambda: password)
    except (OSError, ValueError) as error:
        told = ", ".join(f"kafka.{name} {path}" for name, path in given.items())
        raise SettingsError(f"{told} cannot be used: {getattr(error, 'reason', None) or error}") from error
    return context
