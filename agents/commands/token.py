"""`spanstream token new|list|revoke`: who may write, read and operate, for which tenants."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import rich_click as click
from rich.text import Text

from agents.commands.options import with_settings
from agents.commands.terminal import bare_table, say, show_table, write_json
from pipeline.doors import tokens
from pipeline.doors.token_file import add_token, read_tokens, revoke_token
from topics.errors import SettingsError
from topics.settings import Settings


@click.group()
def token() -> None:
    """Bearer tokens: each is shown once, when it is made, and kept as a hash in the file doors.tokens_path."""


@token.command()
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(tokens.SCOPES),
    multiple=True,
    required=True,
    help="write: send spans; read: ask; admin, with all tenants only: /metrics, /status. May be given often",
)
@click.option("--tenant", "tenants", multiple=True, help="For this tenant only (default: all). May be given often")
@click.option("--note", default="", help="What it is for")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
@with_settings("doors.tokens_path", "log")
def new(
    settings: Settings,
    *,
    scopes: tuple[tokens.ScopeName, ...],
    tenants: tuple[str, ...],
    note: str,
    as_json: bool,
) -> None:
    """Make a token and print it on stdout. Running processes take it within a second."""
    path = _path(settings)
    text, kept = tokens.made(tuple(dict.fromkeys(scopes)), tuple(dict.fromkeys(tenants)) or ("*",), note[:200])
    add_token(path, kept)
    if as_json:
        write_json({"id": kept.id, "token": text, "scopes": kept.scopes, "tenants": kept.tenants})
        return
    sys.stdout.write(text + "\n")
    say(f"token {kept.id} stands in {path} as a hash; this is the only time that it is shown")


@token.command("list")
@click.option("--json", "as_json", is_flag=True, help="For scripts")
@with_settings("doors.tokens_path", "log")
def list_(settings: Settings, *, as_json: bool) -> None:
    """The tokens: ID, scopes, tenants, when each was made and what for."""
    known = list(read_tokens(_path(settings)).values())
    if as_json:
        write_json([one.model_dump(exclude={"sha256"}) for one in known])
        return
    table = bare_table()
    for title in ("id", "scopes", "tenants", "made", "note"):
        table.add_column(title, overflow="fold")
    for one in known:
        made = datetime.fromtimestamp(one.created_unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(*map(Text, (one.id, " ".join(one.scopes), " ".join(one.tenants), made, one.note)))
    show_table(table)


@token.command()
@click.argument("token_id")
@with_settings("doors.tokens_path", "log")
def revoke(settings: Settings, *, token_id: str) -> None:
    """Take a token back by its ID. Running processes refuse it within a second."""
    revoke_token(_path(settings), token_id)
    say(f"token {token_id} is revoked")


def _path(settings: Settings) -> Path:
    if not settings.doors.tokens_path:
        raise SettingsError("doors.tokens_path is empty: name the file of tokens (--doors-tokens-path)")
    return Path(settings.doors.tokens_path)
