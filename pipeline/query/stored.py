"""What is stored, as questions see it: the catalog, followed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pipeline.store.catalog import Catalog
from pipeline.store.catalog_feed import CatalogFeed
from pipeline.store.manifest import ChunkEntry
from pipeline.store.objects import ObjectStore
from pipeline.store.reach import Reach
from topics import spans_by_trace
from topics.settings import Settings
from topics.topic import full_name


class CatalogStored:
    """A catalog in `querier.data_dir` and the threads that keep it up."""

    def __init__(self, settings: Settings) -> None:
        topic = full_name(spans_by_trace.TOPIC, settings.kafka)
        self._catalog = Catalog(settings.querier.data_dir, topic, ObjectStore(settings.store))
        self._reach = Reach(settings.store, settings.querier.store_timeout_s)
        self._feed = CatalogFeed(settings, self._catalog)

    def start(self) -> None:
        """Begin to follow the topic and the buckets."""
        self._feed.start()

    def close(self) -> None:
        """End the threads and release the folder."""
        self._reach.close()
        self._feed.close()
        self._catalog.close()

    def missing(self) -> str:
        """Why the catalog may not know all that is stored; empty when it does."""
        return self._feed.missing()

    def horizons(self) -> dict[int, int]:
        """Partition -> H."""
        return self._catalog.horizons()

    def edition(self) -> int:
        """Another number whenever edits begin to count."""
        return self._catalog.edition()

    def unread(self, partition: int) -> list[str]:
        """What is below H and not known, or stands elsewhere: sentences."""
        return [*self._catalog.unread(partition), *filter(None, [self._feed.changed])]

    def damaged(self) -> list[str]:
        """Names of the chunks that count and were found damaged, or not there."""
        return self._catalog.damaged()

    def refresh(self, partition: int) -> None:
        """List the bucket's manifests after H."""
        self._reach.check()
        self._catalog.refresh(partition)

    def chunks_for(self, tenant: str, start_ns: int, end_ns: int) -> list[ChunkEntry]:
        """Chunks with a span in the range, outliers included."""
        return self._catalog.chunks_for(tenant, start_ns, end_ns)

    def chunks_for_trace(
        self, tenant: str, partition: int, trace_id: bytes, start_ns: int | None, end_ns: int | None
    ) -> list[ChunkEntry]:
        """Chunks that may hold spans of the trace."""
        return self._catalog.chunks_for_trace(tenant, partition, trace_id, start_ns, end_ns)

    def tenants(self) -> Iterable[str]:
        """Everybody with a chunk."""
        return self._catalog.tenants()

    def services(self, tenant: str) -> Mapping[str, Mapping[str, int]]:
        """Service -> operation -> spans, over all chunks."""
        return self._catalog.services(tenant)

    def attributes(self, tenant: str) -> Mapping[str, int]:
        """Attribute column -> spans that have it, over all chunks."""
        return self._catalog.attributes(tenant)

    def more_keys(self, tenant: str) -> Iterable[str]:
        """`scope.key` of the keys in map columns, over all chunks."""
        return self._catalog.more_keys(tenant)
