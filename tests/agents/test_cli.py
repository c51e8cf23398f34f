"""The command as a whole: what --help costs and shows, how it ends."""

from __future__ import annotations

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
