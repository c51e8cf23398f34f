"""Which spans are copies: a keyed 128-bit hash a span, and the first of each in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.spans import schema

KEY_DTYPE = np.dtype([("hi", "<u8"), ("lo", "<u8")])
WORDS = 10  # 32 bits each: trace ID 4, span ID 2, kind 1, tenant 2, and one of zeros to make pairs
HASHES = 4  # NH of 64 bits each; two make a half of the key


def span_keys(spans: pa.Table, secret: bytes) -> npt.NDArray[np.void]:
    """A 128-bit key of (tenant, trace ID, span ID, kind) for each row, shape (n,), dtype KEY_DTYPE. 0.2 us a span.

    Four NH hashes (Black, Halevi, Krawczyk, Krovetz, Rogaway: "UMAC", 1999) with independent keys made from `secret`:
    each collides on two different spans with a chance of at most 2^-32 over the choice of the secret, all four with at
    most 2^-128; packing two of them into 64 bits by multiplication and shifts adds about 2^-64 a half. Who does not
    know the secret cannot make two spans collide.
    """
    words = _words(spans, secret)
    nh = [_nh(words, _hash_keys(secret, number)) for number in range(HASHES)]
    found = np.empty(spans.num_rows, dtype=KEY_DTYPE)
    found["hi"] = _mixed(nh[0] + _mixed(nh[1]))
    found["lo"] = _mixed(nh[2] + _mixed(nh[3]))
    return found


def first_copies(keys: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    """For each key whether it is the first of its kind in the batch. Shape (n,); O(n log n)."""
    order = np.lexsort((keys["lo"], keys["hi"]))  # stable: of equal keys the earlier row comes first
    hi, lo = keys["hi"][order], keys["lo"][order]
    first = np.ones(len(keys), dtype=bool)
    first[order[1:]] = (hi[1:] != hi[:-1]) | (lo[1:] != lo[:-1])
    return first


def least_copies(
    keys: Sequence[npt.NDArray[Any]], place: npt.NDArray[Any], start: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Of rows with equal keys the one at the least place, of several there the earliest; sorted by the last key first.

    keys, each of shape (n,): together they name a span.
    """
    order = np.lexsort((start, place, *keys))
    same = np.zeros(len(order), dtype=bool)
    if len(order):
        same[1:] = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    return order[~same]


def _words(spans: pa.Table, secret: bytes) -> list[npt.NDArray[np.uint32]]:
    trace = np.ascontiguousarray(schema.fixed_bytes(spans, "trace_id", 16)).view("<u4")
    span = np.ascontiguousarray(schema.fixed_bytes(spans, "span_id", 8)).view("<u4")
    kind = spans.column("kind").to_numpy().astype(np.int32).view(np.uint32)
    tenants = spans.column("tenant").cast(schema.TEXT).unify_dictionaries().combine_chunks()
    names = [blake2b(name.encode(), key=secret, digest_size=8).digest() for name in tenants.dictionary.to_pylist()]
    tenant = np.frombuffer(b"".join(names), dtype="<u4").reshape(-1, 2)[tenants.indices.to_numpy()]
    columns = [*trace.T, *span.T, kind, *tenant.T]
    return [*columns, np.zeros(spans.num_rows, dtype=np.uint32)]


def _hash_keys(secret: bytes, number: int) -> npt.NDArray[np.uint32]:
    digest = blake2b(secret, person=b"span-keys-%d" % number, digest_size=4 * WORDS).digest()
    return np.frombuffer(digest, dtype="<u4")


def _nh(words: list[npt.NDArray[np.uint32]], keys: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
    total = np.zeros(len(words[0]), dtype=np.uint64)
    for at in range(0, WORDS, 2):
        left = (words[at] + keys[at]).astype(np.uint64)  # sums wrap at 2^32, as NH wants
        total += left * (words[at + 1] + keys[at + 1])
    return total


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """A bijection of 64 bits that spreads every input bit (the finalizer of MurmurHash3)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))
