"""Export as flat ``.npy`` files, which NumPy maps into memory, with an index in JSON.

A feature is one file with one row per track. The entries of all tracks of a sequence follow each other in one file, and
those of track i are ``offsets[i]`` to ``offsets[i + 1]`` of ``NAME_offsets.npy``.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..durable import rename_durable
from .features import Feature, blocks
from .job import Export, Piece, small_piece


def npy_pieces(export: Export) -> Iterator[Piece]:
    """Yield the files of the export."""
    for feature in export.features:
        yield Piece(key=f"{feature.name}.npy", n=len(export.view), write=partial(_write_values, feature))
        if feature.lengths is not None:
            yield small_piece(f"{feature.name}_offsets.npy", partial(npy_bytes, _offsets(feature)))
    store = export.view.store
    if store.embeds_genres and store.genres:
        order = [store.genres.index(name) for name in export.view.genres]
        yield small_piece("genre_embedding.npy", lambda: npy_bytes(store.genre_embedding[order]))
    yield small_piece("index.json", partial(_index, export))


def npy_bytes(values: npt.NDArray[Any]) -> bytes:
    """Return the content of a ``.npy`` file."""
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _offsets(feature: Feature) -> npt.NDArray[np.int64]:
    assert feature.lengths is not None
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(feature.lengths)])


def _index(export: Export) -> bytes:
    """Return the index: ids, splits, labels and genres in the order of the rows, recipe, shapes and dtypes."""
    column = {name: i for i, name in enumerate(export.view.genres)}
    tracks = {name: export.tracks.column(name).to_pylist() for name in export.tracks.column_names}
    labels = [[column[name] for name in names] for names in tracks.pop("genres")]
    names = {"id": "ids", "split": "splits"}
    index = {**export.document, **{names.get(name, name): values for name, values in tracks.items()}, "labels": labels}
    return (json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode()


def _write_values(feature: Feature, path: Path, on_rows: Callable[[int], None]) -> None:
    """Write the values of all tracks block by block; after a kill, continue behind the last block but one.

    Each block is on the disk before the next one is written, so only the last one may be incomplete.
    """
    offsets = np.arange(len(feature.has) + 1) if feature.lengths is None else _offsets(feature)
    file_blocks = list(blocks(np.arange(len(feature.has)), feature.row_bytes))
    header = _header(feature, (int(offsets[-1]), *feature.shape))
    entry_bytes = math.prod(feature.shape) * feature.dtype.itemsize
    ends = len(header) + np.asarray([offsets[block[-1] + 1] for block in file_blocks]) * entry_bytes
    draft = path.with_name(f".{path.name}.partial")
    draft.touch()
    with draft.open("r+b") as file:
        n_done = max(0, int(np.searchsorted(ends, draft.stat().st_size, side="right")) - 1)
        file.write(header)
        file.seek(ends[n_done - 1] if n_done else len(header))
        file.truncate()
        for block in file_blocks[n_done:]:
            values = feature.read(block)
            if feature.lengths is not None:
                kept = np.arange(values.shape[1]) < feature.lengths[block][:, None]
                values = values[kept]
            file.write(np.ascontiguousarray(values).data.cast("B") if values.size else b"")
            file.flush()
            os.fsync(file.fileno())
            on_rows(int(block[-1]) + 1)
    rename_durable(draft, path)


def _header(feature: Feature, shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(feature.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()
