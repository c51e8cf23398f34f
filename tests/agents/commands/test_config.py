"""What `spanstream config` shows, and the page made from the settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from agents.commands.config import config, settings_page

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_settings_page_is_the_generated_one() -> None:
    assert PAGE.read_text() == settings_page(), (
        "make it anew: python -m agents.cli config --markdown > docs/settings.md"
    )


def test_changed_settings_are_shown_with_their_origin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPANSTREAM_KAFKA_GROUP", "mine")

    answer = CliRunner().invoke(config, ["--changed", "--json", "--store-buckets", "one,two"])

    assert json.loads(answer.stdout) == {
        "kafka.group": {"value": "mine", "origin": "variable SPANSTREAM_KAFKA_GROUP"},
        "store.buckets": {"value": ["one", "two"], "origin": "flag --store-buckets"},
    }


def test_secrets_are_never_shown() -> None:
    answer = CliRunner().invoke(config, ["--store-secret-key", "hunter2"])

    assert answer.exit_code == 0
    assert "hunter2" not in answer.stdout
    assert "(hidden)" in answer.stdout


def test_a_wrong_setting_ends_in_a_sentence_and_exit_code_2() -> None:
    answer = CliRunner().invoke(config, ["--kafka-partitions", "0"])

    assert answer.exit_code == 2
    assert answer.stdout == ""
