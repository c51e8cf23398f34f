"""What commands write, on a terminal and elsewhere."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from agents.commands.terminal import bare_table, screen, show_table
from agents.commands.where import chunks


@pytest.mark.parametrize("columns", ["40", "200"])
def test_a_table_is_as_wide_as_its_values_and_no_wider(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    screen.cache_clear()
    table = bare_table()
    table.add_column("trace")
    table.add_column("root")
    table.add_row("a" * 32, "b" * 300)
    table.add_row("c" * 32, "d")

    show_table(table)

    assert capsys.readouterr().out.splitlines() == [
        "trace" + " " * 29 + "root",
        "a" * 32 + "  " + "b" * 300,
        "c" * 32 + "  d",
    ]
    screen.cache_clear()


def test_a_command_that_fails_says_one_sentence_and_logs_on_demand() -> None:
    away = ["--store-endpoint", "http://127.0.0.1:1"]

    plain, asked = CliRunner().invoke(chunks, away), CliRunner().invoke(chunks, [*away, "--log-level", "warning"])

    assert len(plain.stderr.splitlines()) == 1
    assert "store_fault" in asked.stderr
