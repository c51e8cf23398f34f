"""The rules of this repository that a machine can check: layers, sizes, names, and pages that say what is there."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from prometheus_client.metrics import MetricWrapperBase

from agents.cli import load_command
from pipeline import telemetry
from tests.pages import ROOT, commands_of, pages
from topics.settings import fields

LAYERS = {
    "topics": {"topics"},
    "pipeline": {"topics", "pipeline"},
    "infra": {"topics", "infra"},
    "agents": {"topics", "pipeline", "infra", "agents"},
    "spanstream": {"spanstream"},  # the client: it knows the querier by HTTP alone
}
# What a room of pipeline may import of the other rooms; telemetry is for all that do I/O, PROCESS for processes' starts
PROCESS = {"allocator", "http_server", "handed_on"}
ROOMS = {
    "spans": set[str](),
    "partition": {"spans"},
    "store": {"spans", "partition", "telemetry", "clocks"},
    "traceql": set[str](),
    "doors": {"telemetry"},
    "query": {"spans", "partition", "store", "traceql", "doors", "drops", "telemetry"},
    "serve": {"spans", "partition", "store", "traceql", "query", "doors", "drops", "telemetry", *PROCESS},
    "receive": {"spans", "doors", "drops", "telemetry", *PROCESS},
}
PURE_ROOMS = ("spans", "partition", "traceql")
OUTSIDE_WORLD = {
    *("os", "io", "pathlib", "socket", "subprocess", "tempfile", "shutil", "time", "asyncio", "threading", "random"),
    *("confluent_kafka", "aiokafka", "faust", "minio", "urllib3", "aiohttp", "httpx", "rocksdict", "duckdb", "psutil"),
    *("topics.settings", "topics.admin", "topics.producer"),
}
FILE_LINES_MAX = 500
STATEMENTS_MAX = 40
PARAMETERS_MAX = 6
VAGUE_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common|stuff)(_|$)")


def code_of(layer: str) -> list[Path]:
    return sorted((ROOT / layer).rglob("*.py"))


CODE = [path for layer in LAYERS for path in code_of(layer)]
TESTS = code_of("tests")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_names(path: Path) -> set[str]:
    nodes = list(ast.walk(tree_of(path)))  # walk: imports inside functions count too
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


# ---- layers


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_itself_and_earlier_layers(layer: str) -> None:
    forbidden = set(LAYERS) - LAYERS[layer] | {"tests"}

    for path in code_of(layer):
        assert not {name.split(".")[0] for name in imported_names(path)} & forbidden, relative(path)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_of_pipeline_imports_only_rooms_that_a_span_meets_earlier(room: str) -> None:
    for path in code_of(f"pipeline/{room}"):
        rooms = {name.split(".")[1] for name in imported_names(path) if name.startswith("pipeline.")}
        assert not rooms - ROOMS[room] - {room}, relative(path)


def test_every_room_of_pipeline_has_its_rule() -> None:
    found = {path.name for path in (ROOT / "pipeline").iterdir() if (path / "__init__.py").exists()}

    assert found <= set(ROOMS)


@pytest.mark.parametrize("room", PURE_ROOMS)
def test_the_pure_rooms_touch_no_kafka_disk_clock_or_settings(room: str) -> None:
    for path in code_of(f"pipeline/{room}"):
        names = imported_names(path)
        touched = {name for name in names for outside in OUTSIDE_WORLD if f"{name}.".startswith(f"{outside}.")}
        assert not touched, relative(path)


# ---- sizes and names


def test_no_file_is_longer_than_500_lines() -> None:
    long = {relative(path): lines for path in [*CODE, *TESTS] if (lines := len(path.read_text().splitlines())) > 500}

    assert not long


@pytest.mark.parametrize("layer", LAYERS)
def test_a_function_fits_a_screen(layer: str) -> None:
    for path in code_of(layer):
        lines = path.read_text().splitlines()
        for function in functions_of(path):
            where = f"{relative(path)}:{function.lineno} {function.name}"
            statements = sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1
            assert statements <= STATEMENTS_MAX, f"{where} has {statements} statements"
            if "noqa: PLR0913" not in lines[function.lineno - 1]:  # an exception says so where it stands
                assert len(parameters_of(function)) <= PARAMETERS_MAX, where


def parameters_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    given = function.args
    names = [argument.arg for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs]]
    return [name for name in names if name not in ("self", "cls")]


def test_init_files_hold_no_code() -> None:
    inits = [path for path in CODE if path.name == "__init__.py"]

    assert [relative(path) for path in inits if path.read_text().strip()] == ["spanstream/__init__.py"]
    kinds = {type(node) for node in tree_of(ROOT / "spanstream" / "__init__.py").body}
    assert kinds == {ast.Expr, ast.ImportFrom, ast.Assign}  # its docstring, what others import, __all__


def test_a_module_is_named_after_what_it_does() -> None:
    assert not [relative(path) for path in [*CODE, *TESTS] if VAGUE_NAMES.search(path.stem)]


@pytest.mark.parametrize("layer", LAYERS)
def test_what_others_may_use_says_what_it_promises(layer: str) -> None:
    silent = [f"{relative(path)} {name}" for path in code_of(layer) for name in undocumented(tree_of(path))]

    assert not silent


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Public functions, classes and methods of public classes without a docstring, and modules without one."""
    if tree.body and not ast.get_docstring(tree):
        yield "(module)"
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            if not ast.get_docstring(node):
                yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (
                    f"{node.name}.{inner.name}"
                    for inner in node.body
                    if isinstance(inner, kinds)
                    and not inner.name.startswith("_")
                    and not ast.get_docstring(inner)
                    and not is_plain(inner)
                )


def is_plain(node: ast.AST) -> bool:
    """A property or a method of one line: its name says it."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and len(node.body) == 1


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_a_test_is_named_by_a_sentence(path: Path) -> None:
    short = [function.name for function in functions_of(path) if function.name.startswith("test_")]

    assert not [name for name in short if len(name.split("_")) < 5]


# ---- errors, metrics, settings


def test_errors_of_ours_stand_in_one_file() -> None:
    elsewhere = [
        f"{relative(path)} {node.name}"
        for path in CODE
        if relative(path) not in ("topics/errors.py", "spanstream/errors.py")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("SpanstreamError") for base in node.bases)
    ]

    assert not elsewhere


def metric_names() -> set[str]:
    """As Prometheus sees them."""
    metrics = [metric for metric in vars(telemetry).values() if isinstance(metric, MetricWrapperBase)]
    return {one.name + ("_total" if one.type == "counter" else "") for metric in metrics for one in metric.describe()}


def test_every_metric_is_described_and_every_described_metric_exists() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()

    described = set(re.findall(r"`(spanstream_[a-z_]+)`", page))

    assert described == metric_names()


def warnings_of(path: Path) -> set[str]:
    """The events that a module logs as a warning, an error or with a traceback, of those that it names right there."""
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call) and node.args]
    warned = [call for call in calls if ast.unparse(call.func) in ("log.warning", "log.error", "log.exception")]
    return {str(call.args[0].value) for call in warned if isinstance(call.args[0], ast.Constant)}


def test_every_warning_in_the_log_is_described_and_every_described_one_exists() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    table = page.partition("## What the log says")[2].partition("\n## ")[0]

    described = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}

    assert set[str]().union(*map(warnings_of, CODE)) <= described
    code = "".join(path.read_text() for path in CODE)
    assert not {name for name in described if f'"{name}"' not in code}


def test_metrics_are_defined_in_one_file() -> None:
    definers = {
        relative(path)
        for path in CODE
        for name in imported_names(path)
        if name in {f"prometheus_client.{kind}" for kind in ("Counter", "Gauge", "Histogram", "Summary")}
    }

    assert definers == {"pipeline/telemetry.py"}


def test_every_setting_says_what_it_is() -> None:
    assert not [f"{section}.{name}" for section, name, field in fields() if len(field.description or "") < 5]


def test_every_setting_is_read_by_code_that_knows_its_section() -> None:
    """Nearly so: a field's name stands after a dot, in a file where its section's name stands."""
    files = [path.read_text() for path in CODE if not relative(path).endswith("settings.py")]

    unread = [
        f"{section}.{name}"
        for section, name, _ in fields()
        if not any(
            re.search(rf"[.]{name}\b", text) and re.search(rf"\b{section}\b|{section.title()}Settings", text)
            for text in files
        )
    ]

    assert not unread


# ---- pages


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text()
    wanted = [*project["dependencies"], *(one for many in project["optional-dependencies"].values() for one in many)]
    names = {re.split(r"[\[=<>; ]", one)[0] for one in wanted} - {"spanstream"}

    explained = set(re.findall(r"^\| `([^`]+)`", page, re.MULTILINE))

    assert explained == names


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_links_and_paths_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text()

    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = re.findall(r"`((?:topics|pipeline|agents|infra|spanstream|tests|docs)/[\w./-]+)`", text)

    assert not [target for target in linked if not (page.parent / target).exists()]
    assert not [target for target in named if not (ROOT / target.rstrip("/")).exists()]


@pytest.mark.parametrize("page", pages(), ids=relative)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    for program, *words in commands_of(page):
        if program == "make":
            assert {word for word in words if "=" not in word} <= targets, words
        else:
            check_command(words)


def check_command(words: list[str]) -> None:
    command: Any = load_command(words[0])
    rest = words[1:]
    while isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    known = {flag for param in command.params for flag in [*param.opts, *param.secondary_opts]} | {"--help"}
    assert not [word for word in rest if word.startswith("--") and word.split("=")[0] not in known], words
