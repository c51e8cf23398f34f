"""What the tests of questions share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pipeline.query.cuts import PARTITIONS
from topics.settings import KafkaSettings, QuerierSettings, Settings, StoreSettings, WorkerSettings


@pytest.fixture(params=[200, 1], ids=["columns", "maps"])
def world(store_settings: StoreSettings, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """With a column for each attribute, and with one for the most frequent of a scope: the rest stands in maps."""
    return Settings(
        worker=WorkerSettings(attribute_columns_max=request.param),
        store=store_settings,
        kafka=KafkaSettings(partitions=PARTITIONS),
        querier=QuerierSettings(data_dir=tmp_path, threads=2, memory_bytes_max=200 << 20),
    )
