"""`spanstream token`: made once, shown once, listed without secrets, taken back."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from agents.cli import cli
from pipeline.doors import tokens
from pipeline.doors.token_file import read_tokens


def run(path: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["token", *words, "--doors-tokens-path", str(path)])


def test_a_new_token_is_shown_once_and_works_until_it_is_revoked(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokens.json"

    made = run(path, "new", "--scope", "read", "--scope", "write", "--tenant", "a", "--note", "for a")

    assert made.exit_code == 0
    text = made.stdout.strip()
    kept = tokens.found(read_tokens(path), text)
    assert kept is not None
    assert (kept.scopes, kept.tenants, kept.note) == (("read", "write"), ("a",), "for a")
    listed = run(path, "list")
    assert kept.id in listed.stdout
    assert text not in listed.stdout
    assert "sha256" not in run(path, "list", "--json").stdout
    assert json.loads(run(path, "list", "--json").stdout)[0]["id"] == kept.id
    assert run(path, "revoke", kept.id).exit_code == 0
    assert read_tokens(path) == {}
    again = run(path, "revoke", kept.id)
    assert again.exit_code == 1
    assert "no token has the ID" in again.stderr


def test_a_wrong_tenant_or_no_file_is_a_sentence(tmp_path: Path) -> None:
    hostile = run(tmp_path / "tokens.json", "new", "--scope", "read", "--tenant", "../\x1b[31m")
    nowhere = CliRunner().invoke(cli, ["token", "list", "--config", "/dev/null"])

    assert (hostile.exit_code, nowhere.exit_code) == (2, 2)
    assert "no tenant name" in hostile.stderr
    assert "\x1b" not in hostile.stderr
    assert not (tmp_path / "tokens.json").exists()


def test_a_file_that_holds_no_tokens_is_named_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("shop")

    told = run(path, "new", "--scope", "read")

    assert told.exit_code == 2
    assert f"the tokens file {path} cannot be read" in told.stderr
    assert path.read_text() == "shop"
