"""Export as a Parquet data set: one row per track, files per split, a data set card and Croissant metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ..durable import atomic_write
from ..format.tables import OUTCOME_SCHEMA, PLAN_SCHEMA
from .cards import croissant, dataset_card
from .features import Feature, Rows, blocks
from .job import TRACK_COLUMNS, Export, Piece, small_piece

_TRACK_FIELDS = pa.unify_schemas([PLAN_SCHEMA, OUTCOME_SCHEMA])


def parquet_pieces(export: Export) -> Iterator[Piece]:
    """Yield the files of the export."""
    for key, positions in export.divided("data/{split}-{i:05d}-of-{n:05d}.parquet"):
        yield Piece(key=key, n=len(positions), write=partial(_write_file, export, positions))
    yield small_piece("README.md", lambda: dataset_card(export).encode())
    yield small_piece("croissant.json", lambda: croissant(export, _schema(export)).encode())


def _schema(export: Export) -> pa.Schema:
    features = [pa.field(feature.name, _type(feature), metadata=_metadata(feature)) for feature in export.features]
    return pa.schema([*(_TRACK_FIELDS.field(name) for name in TRACK_COLUMNS), *features])


def _metadata(feature: Feature) -> dict[str, str]:
    return {"unit": feature.spec.unit, "description": feature.spec.description}


def _type(feature: Feature) -> pa.DataType:
    kind = pa.from_numpy_dtype(feature.dtype)
    for length in reversed(feature.shape):
        kind = pa.list_(kind, length)
    return kind if feature.lengths is None else pa.list_(kind)


def _write_file(export: Export, positions: Rows, path: Path, on_rows: Callable[[int], None]) -> None:
    schema, done = _schema(export), 0
    with atomic_write(path) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for block in blocks(positions, export.row_bytes):
            columns = [*export.tracks.take(block).columns, *(_column(feature, block) for feature in export.features)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(block))
            done += len(block)
            on_rows(done)


def _column(feature: Feature, positions: Rows) -> pa.Array:
    """Return the values of tracks as a column; a track without the feature has null."""
    values, mask = feature.read(positions), pa.array(~feature.has[positions])
    if feature.lengths is None:
        if not feature.shape:
            return pa.array(values, mask=~feature.has[positions])
        return _fixed(values.reshape(-1), feature.shape, mask)
    lengths = feature.lengths[positions]
    offsets = pa.array(np.concatenate([np.zeros(1, np.int32), np.cumsum(lengths, dtype=np.int32)]))
    kept = np.ascontiguousarray(values[np.arange(values.shape[1]) < lengths[:, None]])
    entries = pa.array(kept) if not feature.shape else _fixed(kept.reshape(-1), feature.shape)
    return pa.ListArray.from_arrays(offsets, entries, mask=mask)


def _fixed(values: npt.NDArray[Any], shape: tuple[int, ...], mask: pa.Array | None = None) -> pa.Array:
    """Nest flat values in lists of fixed sizes."""
    nested = pa.array(values)
    for i, length in reversed(list(enumerate(shape))):
        nested = pa.FixedSizeListArray.from_arrays(nested, length, mask=mask if i == 0 else None)
    return nested
