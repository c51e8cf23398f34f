"""Columns of one chunk, some rows at a time, without the engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# What comes of a damaged chunk: its columns' names may be no text, some may lack, or have nulls where there are none
UNREADABLE = (pa.ArrowException, OSError, LookupError, ValueError, TypeError)
PIECE_SPANS = 131_072  # of which the columns are in memory at a time, about


def opened(source: str | pa.Buffer, texts: Collection[str]) -> pq.ParquetFile:
    """A chunk's file. texts: columns that come with a dictionary a row group. Raises what is UNREADABLE."""
    try:
        return pq.ParquetFile(source, read_dictionary=list(texts), memory_map=True)
    except KeyError:  # it does not have all of them
        footer = pq.read_metadata(source)
        there = [name for name in footer.schema.names if name in texts]
        return pq.ParquetFile(source, metadata=footer, read_dictionary=there, memory_map=True)


def pieces(file: pq.ParquetFile, names: Iterable[str]) -> Iterator[tuple[int, pa.Table]]:
    """The number of the first row, and some rows with those of the columns that there are. Raises as `opened`."""
    there = set(file.schema_arrow.names)
    columns = [name for name in names if name in there]
    count = max(1, min(file.num_row_groups, round(file.metadata.num_rows / PIECE_SPANS)))
    first = 0
    for groups in np.array_split(np.arange(file.num_row_groups), count):
        found = file.read_row_groups(groups.tolist(), columns=columns, use_threads=False)
        yield first, found
        first += found.num_rows
