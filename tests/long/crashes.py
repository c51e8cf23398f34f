"""All cells of the crash matrix, and one cell with a protection taken out, which must be found out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.store.objects import ObjectStore
from tests.crash_matrix import CELLS, RECOVERS_WITHIN_S, Cell, run
from tests.long.figures import Figure
from topics.settings import Settings

STEPS_ASKED = "CRASH_STEPS"  # names with commas: these steps only


def figures(settings: Settings, folder: Path) -> Iterator[Figure]:
    """Spans lost and doubled over all cells; how long the last worker took to store everything."""
    store = ObjectStore(settings.store)
    store.ensure_buckets()
    asked = set(filter(None, os.environ.get(STEPS_ASKED, "").split(",")))
    found = run(settings, folder, [cell for cell in CELLS if not asked or cell.step in asked])
    for cell in found.survived:
        print("the worker did not die:", cell, flush=True)  # noqa: T201
    yield Figure(f"crashes: lost spans over {found.cells} cells", found.lost, "spans", 0)
    yield Figure("crashes: doubled spans", found.doubled, "spans", 0)
    yield Figure("crashes: cells whose step was not met", len(found.survived), "cells", 0)
    yield Figure("crashes: seconds to recover", found.recovery_s_max, "s", RECOVERS_WITHIN_S)
    other = settings.kafka.model_copy(
        update={"topic_prefix": f"{settings.kafka.topic_prefix}w-", "group": f"{settings.kafka.group}-w"}
    )
    (folder / "without").mkdir()
    cells = [Cell("ack", same=True, disk=True)]
    sabotaged = run(settings.model_copy(update={"kafka": other}), folder / "without", cells, without="window rebuilt")
    yield Figure("crashes: a forgotten window that is not found out", int(not sabotaged.doubled), "runs", 0)
    store.close()
