"""Column types of the tables of a store (planned tracks, outcomes, genres), and their Parquet files."""

from __future__ import annotations

import errno
import gc
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..durable import open_regular
from ..errors import StoreCorruptError
from .schema import ABSENT, FAILED, OK

PLAN_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("artists", pa.list_(pa.string()), nullable=False),
        pa.field("song", pa.string()),
        pa.field("genres", pa.list_(pa.string()), nullable=False),
        pa.field("language", pa.string()),
        pa.field("split", pa.string()),
        pa.field("lyrics_path", pa.string()),
        pa.field("inline_lyrics_sha256", pa.string()),
    ]
)
"""One row per planned track, sorted by id. Paths are relative to the source's root; lyrics texts are never stored."""

SPLIT_SPELLINGS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Spelling of a split in sources, in lower case -> its name in mgc."""

OUTCOME_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("status", pa.uint8(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("flags", pa.uint32(), nullable=False),
        pa.field("source_sha256", pa.string()),
        pa.field("lyrics_sha256", pa.string()),
        pa.field("offset_s", pa.float64()),
        pa.field("seconds", pa.float64()),
        pa.field("sample_rate_hz", pa.int32()),
        pa.field("channels", pa.int16()),
    ]
)
"""Outcomes of extraction, one row per track: only what the plan and the files' bytes determine."""

ADDED_OUTCOME_SCHEMA = pa.schema(
    [OUTCOME_SCHEMA.field(name) for name in ("row", "status", "reason", "detail", "lyrics_sha256")]
)
"""Outcomes in an added feature set."""

GENRE_SCHEMA = pa.schema([pa.field("row", pa.int64(), nullable=False), pa.field("name", pa.string(), nullable=False)])
"""Names of the rows of ``genre_embedding``: every genre of the plan's tracks; those of one generation are sorted."""

_BATCH_ROWS = 1 << 13


def outcome_schema(feature_set: str | None) -> pa.Schema:
    """Return the columns of the outcome tables of the store itself, or of an added feature set."""
    return OUTCOME_SCHEMA if feature_set is None else ADDED_OUTCOME_SCHEMA


def plan_table(tracks: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Return the planned tracks as a table: `tracks` sorted by id, array rows numbered from 0.

    Iterate over `tracks` once, in batches: a generator may yield millions of them.
    """
    schema = pa.schema([field for field in PLAN_SCHEMA if field.name != "row"])
    iterator = iter(tracks)
    batches = [schema.empty_table()]
    was_enabled = gc.isenabled()
    gc.disable()  # it would go through all tracks of a large source many times and find no cycle
    try:
        while batch := list(itertools.islice(iterator, _BATCH_ROWS)):
            batches.append(pa.Table.from_pylist(batch, schema=schema))
    finally:
        if was_enabled:
            gc.enable()
    table = pa.concat_tables(batches).combine_chunks()
    ids = table.column("id")
    if not pc.all(pc.less_equal(ids[:-1], ids[1:]), min_count=0).as_py():
        table = table.sort_by("id")
    return table.add_column(0, PLAN_SCHEMA.field("row"), pa.array(np.arange(table.num_rows), pa.int64()))


def genre_table(rows: range, names: Sequence[str]) -> pa.Table:
    """Return the table of the genres with these rows of ``genre_embedding``."""
    return pa.table([pa.array(rows, pa.int64()), pa.array(names, pa.string())], schema=GENRE_SCHEMA)


def with_rows(tracks: pa.Table, rows: range) -> pa.Table:
    """Return `tracks` with other array rows."""
    return with_column(tracks, "row", pa.array(rows, pa.int64()))


def with_column(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return `table` with other values in a column, cast to its type."""
    index = table.schema.get_field_index(name)
    field = table.schema.field(index)
    return table.set_column(index, field, values.cast(field.type))


def absent_outcomes(rows: range) -> pa.Table:
    """Return outcomes of rows without a commit."""
    values = {"row": rows, "status": [ABSENT] * len(rows), "flags": [0] * len(rows)}
    nothing = [None] * len(rows)
    return pa.table({name: values.get(name, nothing) for name in OUTCOME_SCHEMA.names}, schema=OUTCOME_SCHEMA)


def table_bytes(table: pa.Table) -> bytes:
    """Return a table as Parquet whose bytes depend on it alone (one row group, zstd, no pandas metadata)."""
    table, sink = table.replace_schema_metadata(None), pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=max(1, table.num_rows), store_schema=False)
    return bytes(sink.getvalue())


def read_table(path: Path, schema: pa.Schema, rows: range) -> pa.Table:
    """Read a Parquet file of a store; its columns get the types of `schema`.

    Parameters
    ----------
    rows : what its column ``row`` must hold.

    Raises
    ------
    StoreCorruptError
        If the file is missing or truncated, or its columns, types, rows, nulls or texts are not those of the format.
    """
    try:
        with open_regular(path) as file:
            # Not pq.read_table, which takes twice as long; opening a store of a million tracks reads 8000 such files.
            parquet = pq.ParquetFile(file)
            if parquet.metadata.num_rows != len(rows):
                raise ValueError(f"{parquet.metadata.num_rows} rows instead of {len(rows)}")
            if names := sorted(set(parquet.schema_arrow.names) ^ set(schema.names)):
                raise ValueError(f"columns that are missing or not documented: {', '.join(names)[:200]}")
            table = parquet.read(use_threads=False).select(schema.names).cast(schema)
        table.validate(full=True)
        check_content(table, rows)
        return table
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            raise
        raise StoreCorruptError(f"{path}: not a valid table ({error}). Restore it from a copy.") from error


def check_content(table: pa.Table, rows: range | None) -> None:
    """Compare rows, nulls and status of a table with the format.

    Parameters
    ----------
    rows : what the column ``row`` must hold; None for any.

    Raises
    ------
    ValueError
    """
    for field in table.schema:
        column = table.column(field.name)
        nulls = column.null_count
        if pa.types.is_list(field.type):
            nulls += sum(chunk.values.null_count for chunk in column.chunks)
        if nulls and not field.nullable:
            raise ValueError(f"{field.name} has {nulls} null values")
    if rows is not None and not np.array_equal(table.column("row"), np.arange(rows.start, rows.stop)):
        raise ValueError(f"its rows are not {rows.start} to {rows.stop - 1}")
    if "status" in table.column_names and not np.isin(np.asarray(table.column("status")), (OK, FAILED)).all():
        raise ValueError("a status that is neither ok nor failed")
