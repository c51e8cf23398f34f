"""Flags made from the settings, and how a command ends: one sentence for an error, never a traceback."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_origin

import rich_click as click
from pydantic.fields import FieldInfo

from agents.commands.terminal import say_error
from agents.exit_codes import FAILED, WRONG_USE
from topics.errors import BadQuestionError, SettingsError, SpanstreamError
from topics.logs import set_up_logs
from topics.settings import Settings, allowed, fields, flag_of, is_secret, load

Command = Callable[..., Any]
ALL = tuple(Settings.model_fields)


def with_settings(*names: str, stays: bool = False) -> Callable[[Command], Command]:
    """Give a command the flags of these sections (`kafka`) or single settings (`querier.http_port`), and --config.

    The command is called with the loaded Settings first. Logs are set up before; a command that does not stay says
    what came of it itself, so that it logs errors alone unless log.level was given. A SpanstreamError ends it with one
    sentence on stderr: exit code 2 for settings and questions, else 1.
    """
    chosen = [(name, field) for name, field in _settings() if name in names or name.split(".")[0] in names]

    def decorate(function: Command) -> Command:
        def run(config: Path | None, **given: Any) -> Any:
            flags = {name: given.pop(_parameter(name)) for name, _ in chosen}
            return _guarded(lambda settings: function(settings, **given), flags, config, stays=stays)

        decorated: Command = functools.update_wrapper(run, function)
        for name, field in reversed(chosen):
            decorated = _option(name, field)(decorated)
        sections = dict.fromkeys(name.split(".")[0] for name, _ in chosen)
        for panel in reversed(["Options", *map(_panel, sections)]):
            decorated = click.option_panel(panel)(decorated)
        return click.option(
            "--config", type=click.Path(path_type=Path), help="Settings file (TOML) instead of ./spanstream.toml"
        )(decorated)

    return decorate


def given_by(context: click.Context) -> tuple[dict[str, Any], Path | None]:
    """The flags and the file that a command with settings was called with: what `load_settings` takes."""
    flags = {name.replace("__", "."): value for name, value in context.params.items() if "__" in name}
    return flags, context.params["config"]


def _guarded(command: Callable[[Settings], Any], flags: dict[str, Any], config: Path | None, *, stays: bool) -> Any:
    debug = False
    try:
        loaded = load(flags, config)
        settings = loaded.settings
        debug = settings.log.level == "debug"
        quiet = not stays and loaded.origins["log.level"] == "default"
        set_up_logs(settings.log.model_copy(update={"level": "error"}) if quiet else settings.log)
        return command(settings)
    except SpanstreamError as exc:
        if debug:
            raise
        say_error(str(exc))
        sys.exit(WRONG_USE if isinstance(exc, SettingsError | BadQuestionError) else FAILED)
    except BrokenPipeError:  # as in `spanstream search | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except OSError as exc:
        if debug or not exc.filename:  # a bug of ours; of a file or folder it says all
            raise
        say_error(f"{exc.filename}: {exc.strerror}")
        sys.exit(FAILED)


def _panel(section: str) -> str:
    return f"Settings: {section}"


def _settings() -> Iterator[tuple[str, FieldInfo]]:
    return ((f"{section}.{name}", field) for section, name, field in fields())


def _parameter(name: str) -> str:
    return name.replace(".", "__")


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    """Values stay text here: the settings check them all at once, and name the flag."""
    panel, flag = _panel(name.split(".")[0]), flag_of(name)
    help_text = f"{field.description} {_bounds_and_default(field)}"
    if field.annotation is bool:
        both = f"{flag}/--no-{flag[2:]}"
        return click.option(both, _parameter(name), default=None, help=help_text, panel=panel)
    return click.option(flag, _parameter(name), metavar=_metavar(field), default=None, help=help_text, panel=panel)


def _metavar(field: FieldInfo) -> str:
    kinds: dict[Any, str] = {int: "N", float: "X", Path: "PATH"}
    return "A,B" if get_origin(field.annotation) is tuple else kinds.get(field.annotation, "TEXT")


def _bounds_and_default(field: FieldInfo) -> str:
    bounds = "" if field.annotation in (str, bool) or get_origin(field.annotation) is tuple else allowed(field)
    default = "" if is_secret(field) or field.default == "" else f"default {_shown(field.default)}"
    told = "; ".join(filter(None, [bounds if bounds not in ("a path", "text") else "", default]))
    return f"({told})" if told else ""


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(default)
    return str(default).lower() if isinstance(default, bool) else str(default)
