"""The command as a whole: what --help costs and shows, how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agents.cli import COMMANDS, cli, load_command
from topics.settings import fields, flag_of

NAMES = [name for panel in COMMANDS.values() for name in panel]


def test_help_names_every_command() -> None:
    answer = CliRunner().invoke(cli, ["--help"])

    assert answer.exit_code == 0
    assert all(name in answer.stdout for name in NAMES)


def test_help_imports_nothing_that_runs() -> None:
    heavy = ("pydantic", "confluent_kafka", "pyarrow", "duckdb", "faust", "numpy", "grpc", "structlog")
    code = "import sys, agents.cli\ntry: agents.cli.cli(['--help'])\nexcept SystemExit: print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not set(heavy) & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_worth_reading(name: str) -> None:
    command = load_command(name)

    assert len((command.help or "").split()) >= 5
    options = [one for one in command.params if isinstance(one, click.Option) and one.name != "help"]
    assert all(option.help for option in options), [option.name for option in options if not option.help]


@pytest.mark.parametrize(("name", "sections"), [("receive", {"kafka", "receiver"}), ("serve", {"store", "querier"})])
def test_every_setting_of_a_section_is_a_flag(name: str, sections: set[str]) -> None:
    flags = {flag for param in load_command(name).params for flag in param.opts}

    assert {flag_of(f"{section}.{field}") for section, field, _ in fields() if section in sections} <= flags


def test_an_unknown_command_is_wrong_use() -> None:
    assert CliRunner().invoke(cli, ["tracee"]).exit_code == 2


def test_the_version_is_that_of_the_project() -> None:
    answer = CliRunner().invoke(cli, ["--version"])

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert answer.stdout == f"spanstream {project['version']}\n"


def test_ctrl_c_ends_a_command_with_130_and_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, answers nothing
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        command = [sys.executable, "-m", "agents.cli", "load", "--spans", "1000", "--otlp-url", url]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deaf.settimeout(60)
        connection, _ = deaf.accept()
        with connection:
            connection.recv(1)  # it is at work
            running.send_signal(signal.SIGINT)
            _, said = running.communicate(timeout=30)

    assert running.returncode == 130
    assert "Traceback" not in said


def doctor_output(stdout: int) -> str:
    """What `spanstream doctor` writes where nothing runs."""
    nothing = ["--kafka-bootstrap-servers", "127.0.0.1:1", "--store-endpoint", "http://127.0.0.1:1"]
    command = [sys.executable, "-m", "agents.cli", "doctor", *nothing, "--kafka-request-timeout-s", "1"]
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    done = subprocess.run(
        command, env=env | {"TERM": "xterm-256color"}, stdout=stdout, stderr=subprocess.DEVNULL, text=True, check=False
    )
    return done.stdout or ""


def test_colour_is_written_to_a_terminal_only() -> None:
    ours, terminal = pty.openpty()
    doctor_output(terminal)
    os.close(terminal)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # so Linux ends a terminal that nobody holds open
            break
        seen += part
        if not part:
            break
    os.close(ours)

    assert b"\x1b[" in seen
    assert "\x1b[" not in doctor_output(subprocess.PIPE)


def test_a_name_that_is_nearly_a_command_is_answered_with_it() -> None:
    answer = CliRunner().invoke(cli, ["serach"])

    assert answer.exit_code == 2
    assert "Did you mean 'search'?" in answer.stderr


def test_ctrl_c_while_a_command_is_imported_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_name: str) -> click.Command:
        raise KeyboardInterrupt

    monkeypatch.setattr("agents.cli.load_command", interrupted)

    answer = CliRunner().invoke(cli, ["search"])

    assert (answer.exit_code, answer.output.strip()) == (130, "")


def test_ctrl_c_ends_the_tools_for_assistants_though_standard_input_stays_open() -> None:
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    command = [sys.executable, "-m", "agents.cli", "mcp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(json.dumps(hello) + "\n")
        running.stdin.flush()
        assert json.loads(running.stdout.readline())["id"] == 1

        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(timeout=20) == 130
        finally:
            running.kill()
