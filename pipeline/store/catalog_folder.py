"""Where a catalog's RocksDB stands, and how it is set up."""

from __future__ import annotations

import shutil
from pathlib import Path

from rocksdict import BlockBasedOptions, Cache, Options

from pipeline.store import filter_groups

LAYOUT = 6  # of the folder; one of another layout is emptied
ENTRIES, ROWS, TOTALS, META = "entries", "rows", "totals", "meta"
FAMILIES = (ENTRIES, ROWS, TOTALS, META, *filter_groups.FAMILIES)
CACHE_BYTES = 32 << 20


def folder(data_dir: Path) -> Path:
    """Where the database stands; folders of other layouts are removed."""
    data_dir.mkdir(parents=True, exist_ok=True)
    found = data_dir / f"catalog-{LAYOUT}"
    for other in data_dir.glob("catalog*"):
        if other != found and other.is_dir():
            shutil.rmtree(other, ignore_errors=True)
    return found


def options() -> Options:
    """Of the database and of each of its families."""
    found = Options(raw_mode=True)
    found.create_if_missing(True)
    found.create_missing_column_families(True)
    found.set_write_buffer_size(8 << 20)
    found.set_db_write_buffer_size(32 << 20)
    found.set_max_background_jobs(1)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(CACHE_BYTES // len(FAMILIES)))
    found.set_block_based_table_factory(table)
    return found
