"""The file of tokens on disk: only its owner reads it, and a reader sees it whole, before a change or after."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.doors import tokens
from topics.errors import NotFoundError, SettingsError


def read_tokens(path: Path) -> tokens.Tokens:
    """What it holds; nothing where there is no file. Raises SettingsError."""
    try:
        return tokens.parsed(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, SettingsError) as error:
        raise SettingsError(f"the tokens file {path} cannot be read: {error}") from error


def add_token(path: Path, kept: tokens.KeptToken) -> None:
    """Write a token beside the others. Raises SettingsError."""
    _changed(path, lambda known: known | {kept.id: kept})


def revoke_token(path: Path, number: str) -> None:
    """Take a token out. Raises NotFoundError, SettingsError."""

    def without(known: tokens.Tokens) -> tokens.Tokens:
        if number not in known:
            raise NotFoundError(f"no token has the ID {number[:40]!a}: `spanstream token list` shows them")
        return {id_: token for id_, token in known.items() if id_ != number}

    _changed(path, without)


def _changed(path: Path, change: Callable[[tokens.Tokens], tokens.Tokens]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two commands at a time would lose one's change
            text = tokens.text_of(change(read_tokens(path)))
            new = path.with_name(f"{path.name}.new")
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
    except OSError as error:
        raise SettingsError(f"the tokens file {path} cannot be written: {error}") from error
