"""`spanstream catalog` on a real MinIO: all is well, damage is told by the exit code, a catalog is made anew."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agents.commands.catalog import catalog
from pipeline.store import commit
from pipeline.store.catalog import Catalog
from pipeline.store.manifest import Manifest
from pipeline.store.objects import ObjectStore
from tests.pipeline.store.test_commit import NOW, sealed
from topics.settings import Settings, StoreSettings

pytestmark = pytest.mark.integration


def called(store: StoreSettings, *words: str) -> Result:
    flags: Any = (
        *("--store-endpoint", store.endpoint, "--store-buckets", ",".join(store.buckets)),
        *("--store-access-key", store.access_key),
    )
    secret = {"SPANSTREAM_STORE_SECRET_KEY": store.secret_key.get_secret_value()}
    return CliRunner().invoke(catalog, [*words, *flags], env=secret)


@pytest.fixture
def stored(store_settings: StoreSettings) -> list[Manifest]:
    """Two ranges of partition 3."""
    store, settings = ObjectStore(store_settings), Settings(store=store_settings)
    manifests = [
        commit.store_range(
            store, settings, sealed(first, first + 4), worker="http://w", now_unix_ns=NOW, stop=threading.Event()
        )
        for first in (0, 5)
    ]
    store.close()
    return [one for one in manifests if one is not None]


def test_what_is_stored_is_verified_and_damage_is_told(store_settings: StoreSettings, stored: list[Manifest]) -> None:
    well = called(store_settings, "verify", "--json")
    store = ObjectStore(store_settings)
    store.remove(stored[1].chunks[0].bucket, stored[1].chunks[0].name)
    store.close()
    damaged = called(store_settings, "verify")

    assert well.exit_code == 0, well.output
    document = json.loads(well.stdout)
    assert (document["problems"], document["partitions"][0]["spans"]) == (0, 4)
    assert damaged.exit_code == 1
    assert stored[1].chunks[0].name in damaged.stdout
    assert "1 problems" in damaged.stderr


def test_a_catalog_is_made_anew_from_the_buckets(
    store_settings: StoreSettings, stored: list[Manifest], tmp_path: Path
) -> None:
    answer = called(store_settings, "rebuild", "--json", "--querier-data-dir", str(tmp_path))

    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout) == {"partitions": 1, "manifests": 2, "filters": 2, "horizons": {"3": 10}}
    store = ObjectStore(store_settings)
    opened = Catalog(tmp_path, "spans_by_trace", store)
    assert {one.name for one in opened.chunks_for("shop", 0, 2**63)} == {one.chunks[0].name for one in stored}
    running = called(store_settings, "rebuild", "--querier-data-dir", str(tmp_path))
    opened.close()
    store.close()
    assert running.exit_code == 1
    assert "is the querier running?" in running.stderr
