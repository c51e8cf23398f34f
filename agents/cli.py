"""The `spanstream` command. A subcommand's module is imported only when it runs: `spanstream --help` stays fast."""

from __future__ import annotations

import difflib
import sys
import tomllib
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import click
import rich_click
from rich_click import RichGroup

from agents.exit_codes import INTERRUPTED

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
# Name -> (module, one line for --help), in the order of --help
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Try it": {
        "up": ("agents.commands.up", "Everything on this machine, Kafka and object store included"),
        "demo": ("agents.commands.demo", "The whole way of a span, shown step by step"),
        "load": ("agents.commands.load", "Send realistic spans; --check counts them back"),
        "canary": ("agents.commands.canary", "Write known traces, read them back, say what went missing where"),
        "doctor": ("agents.commands.doctor", "Try every part, say what to do about what fails"),
    },
    "Run it": {
        "receive": ("agents.commands.run", "A receiver: OTLP in, records on Kafka"),
        "worker": ("agents.commands.run", "A worker: deduplicate, index, store"),
        "serve": ("agents.commands.run", "A querier: HTTP API and pages"),
        "dask": ("agents.commands.dask", "Workers that look through stored chunks for queriers"),
        "topics": ("agents.commands.topics", "Create the Kafka topics, or say how they stand"),
        "token": ("agents.commands.token", "Who may write, read and operate, for which tenants"),
        "config": ("agents.commands.config", "The effective settings and where each came from"),
    },
    "Ask it": {
        "trace": ("agents.commands.ask", "One trace as a waterfall"),
        "search": ("agents.commands.ask", "Newest traces that match"),
        "metrics": ("agents.commands.measure", "What spans come to over time, by TraceQL"),
        "sql": ("agents.commands.sql", "Rows of one SELECT over spans and traces"),
        "explain": ("agents.commands.explain", "How a TraceQL query is answered: plan, chunks, time"),
        "services": ("agents.commands.ask", "Services and their operations"),
        "tui": ("agents.commands.tui", "Traces with the keyboard; --from reads a file"),
        "drops": ("agents.commands.ask", "What was not kept as it was sent, by tenant and reason"),
        "tags": ("agents.commands.tags", "Names of attributes"),
        "values": ("agents.commands.tags", "Values of an attribute"),
        "diff": ("agents.commands.diff", "What differs between two traces"),
        "tail": ("agents.commands.tail", "Traces that match, as they arrive"),
        "export": ("agents.commands.export", "Traces into a file: Parquet, OTLP, JSON"),
        "mcp": ("agents.commands.mcp", "Tools for an assistant: the Model Context Protocol on stdio"),
        "where": ("agents.commands.where", "Where a trace stands: partition, offset, chunk, bucket"),
        "chunks": ("agents.commands.where", "The stored chunks"),
        "dead": ("agents.commands.dead", "Records that could not be read"),
        "catalog": ("agents.commands.catalog", "Verify what is stored; make a querier's catalog anew"),
    },
}
_BY_NAME = {name: entry for panel in COMMANDS.values() for name, entry in panel.items()}


class LazyGroup(RichGroup):
    """Knows its subcommands by name; imports one when it is run, or asked for its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Every name, in the order of --help."""
        return list(_BY_NAME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """For lists: name and line only."""
        if cmd_name not in _BY_NAME:
            return None
        return rich_click.RichCommand(name=cmd_name, short_help=_BY_NAME[cmd_name][1])

    def invoke(self, ctx: click.Context) -> Any:
        """Ctrl-C ends with 130 wherever it comes: while a command is imported, and where one asks back."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The real one, imported. An unknown name is answered with the nearest one."""
        if args and args[0] not in _BY_NAME and (close := difflib.get_close_matches(args[0], _BY_NAME, n=1)):
            ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        name, stub, rest = super().resolve_command(ctx, args)
        return (name, load_command(name), rest) if name and stub else (name, stub, rest)


def load_command(name: str) -> click.Command:
    """Import the module of a subcommand and give the command; KeyError for an unknown name."""
    command: Any = getattr(import_module(_BY_NAME[name][0]), name)
    assert isinstance(command, click.Command)
    return command


def version() -> str:
    """Of the installed package; in a clone that is used from its folder, of pyproject.toml."""
    from importlib import metadata

    try:
        return metadata.version("spanstream")
    except metadata.PackageNotFoundError:
        project: dict[str, str] = tomllib.loads(PROJECT.read_text())["project"]
        return project["version"]


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"spanstream {version()}")
        ctx.exit()


# Flags stand whole in a terminal of 80 columns: no column for what kind of value they take
_HELP = rich_click.RichHelpConfiguration(
    options_table_column_types=["required", "opt_all_metavar", "help"], max_width=120, style_options_panel_box=None
)


@rich_click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@rich_click.rich_config(help_config=_HELP)
@rich_click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="The version"
)
def cli() -> None:
    """Trace spans on Kafka: deduplicated, indexed and found at once, stored as Parquet in object storage.

    Every setting is a flag (--kafka-bootstrap-servers), a variable (SPANSTREAM_KAFKA_BOOTSTRAP_SERVERS) and a line in
    spanstream.toml; the first one given counts. `spanstream config` shows them all.
    """


for _panel, _names in COMMANDS.items():
    cli.add_panel(rich_click.RichCommandPanel(_panel, commands=list(_names)))


class _WithoutPandas(MetaPathFinder):
    """pyarrow imports pandas where it is installed, and we use nothing of it: 2 s and 50 MB."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(fullname, name=fullname)


def main() -> None:
    """The entry point. Exit code 0: done; 1: failed; 2: wrong use or settings; 130: Ctrl-C."""
    sys.meta_path.insert(0, _WithoutPandas())
    sys.exit(cli(prog_name="spanstream"))


if __name__ == "__main__":
    main()
