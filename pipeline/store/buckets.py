"""Which bucket a trace stands in: by its partition, evenly, and moving few partitions when a bucket is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b

from topics.partitioner import partition_of


def bucket_of(trace_id: bytes, partitions: int, buckets: Sequence[str]) -> str:
    """The bucket of a trace's chunks. Chunks written before a bucket was added are found by their manifests."""
    return bucket_of_partition(partition_of(trace_id, partitions), partitions, buckets)


def bucket_of_partition(partition: int, partitions: int, buckets: Sequence[str]) -> str:
    """Rendezvous hashing with a cap: no bucket gets more than its even share of partitions, rounded up.

    Deterministic, whatever the buckets' order.
    """
    return _placed(partitions, tuple(sorted(buckets)))[partition]


@lru_cache(maxsize=64)
def _placed(partitions: int, buckets: tuple[str, ...]) -> Mapping[int, str]:
    """Partition -> bucket. O(partitions x buckets), hence remembered.

    Pairs of partition and bucket are gone through from the highest score down; each gives the partition its bucket
    unless either is taken.
    """
    left = dict.fromkeys(buckets, -(-partitions // len(buckets)))
    placed: dict[int, str] = {}
    scores = [(_score(one, bucket), one, bucket) for one in range(partitions) for bucket in buckets]
    for _, one, bucket in sorted(scores, reverse=True):
        if one not in placed and left[bucket]:
            placed[one], left[bucket] = bucket, left[bucket] - 1
    return placed


def _score(partition: int, bucket: str) -> bytes:
    return blake2b(f"{partition}/{bucket}".encode(), digest_size=8).digest()
