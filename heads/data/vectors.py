"""Vectors of tracks: pooled features of a store, and Parquet files of vectors, one row per track.

A model gives ``fused`` and, if it was trained with the audio-lyrics loss, ``audio`` and ``lyrics``. A stored feature
gives ``pooled``. The metadata of a file record what computed it, so that no search mixes two models.

Shapes: n tracks, D values.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ...cache.durable import atomic_write, fingerprint
from ...cache.errors import ConfigError
from ...cache.format.recipe import recipe_document
from ...cache.messages import did_you_mean
from ...cache.reading.store import FeatureStore
from ...cache.reading.view import StoreView
from ...cache.steps import Progress
from .embeddings import read_embeddings, read_steps

Float32 = npt.NDArray[np.float32]

SHARED = ("audio", "lyrics")
"""Vectors of the space in which the audio-lyrics loss compares both modalities."""
NAMES = ("fused", *SHARED, "pooled")
MEL, LYRICS = "mel", "lyrics_pooled"
_VALUES_AT_ONCE = 2**24
_ABOUT = b"mgc"


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Vectors of n tracks.

    Attributes
    ----------
    tracks : columns id, genres.
    values : one of `NAMES` -> (n, D) float32; a row of NaN for a track without it, such as one without lyrics.
    about : what computed them: ``model`` or ``feature``, with a hash.
    """

    tracks: pa.Table
    values: Mapping[str, Float32]
    about: Mapping[str, str]

    @classmethod
    def of(
        cls, store: FeatureStore, rows: npt.NDArray[np.int64], values: Mapping[str, Float32], about: Mapping[str, str]
    ) -> Vectors:
        """Return vectors of array rows of a store."""
        return cls(tracks=StoreView(store, rows).tracks.select(["id", "genres"]), values=values, about=about)


def pooled_vectors(store: FeatureStore, name: str, on_progress: Progress) -> Iterator[Vectors]:
    """Yield a stored feature as one vector per track, in blocks.

    ``mel`` becomes the mean and the standard deviation of each band over time, in dB. The feature set of an extractor
    becomes its mean over time, with layers and other axes one after another. ``lyrics_pooled`` is read as stored.

    Raises
    ------
    ConfigError
        If the store has no such feature, or no track has it.
    """
    stored = {spec.name for spec in store.arrays}
    names = [feature for feature in (MEL, LYRICS) if feature in stored] + sorted(store.extractors)
    if name not in names:
        raise ConfigError(f"--feature {name}: {store.path} has no such feature to pool; {did_you_mean(name, names)}")
    rows = store.rows_with(name)
    if name == LYRICS:
        rows = rows[store.read("lyrics_tokens", rows) > 0]
    if not len(rows):
        raise ConfigError(f"{store.path}: no track has the feature {name!r}.")
    recipe = store.extractors.get(name, store.recipe.lyrics if name == LYRICS else store.recipe.mel)
    assert recipe is not None
    about = {"feature": name, "sha256": fingerprint(recipe_document(recipe))}
    at_once = max(1, _VALUES_AT_ONCE // int(np.prod(store.array(name).tail)))
    for start in range(0, len(rows), at_once):
        block = rows[start : start + at_once]
        yield Vectors.of(store, block, {"pooled": _pool(store, name, block)}, about)
        on_progress("embed", start + len(block), len(rows))


def _pool(store: FeatureStore, name: str, rows: npt.NDArray[np.int64]) -> Float32:
    if name == LYRICS:
        return store.read(name, rows).astype(np.float32)
    if name == MEL:
        frames = np.maximum(store.read("mel_frames", rows), 1).tolist()
        clips = [clip[:, :n].astype(np.float32) for clip, n in zip(store.read(name, rows), frames, strict=True)]
        return np.stack([np.concatenate([clip.mean(axis=1), clip.std(axis=1)]) for clip in clips])
    steps = np.maximum(read_steps(store, name, rows), 1)
    values = read_embeddings(store, name, rows, steps, longest=int(steps.max()))
    mean = values.sum(axis=2, dtype=np.float32) / steps[:, None, None]
    pooled: Float32 = mean.reshape(len(rows), -1).astype(np.float32)
    return pooled


def refuse_other_vectors(path: Path) -> None:
    """Raise :class:`ConfigError` unless `path` is the name of a file of vectors."""
    if path.suffix.lower() != ".parquet":
        raise ConfigError(f"{path}: unknown format of vectors. Use the suffix .parquet.")


def write_vectors(path: Path, blocks: Iterable[Vectors]) -> tuple[int, dict[str, int]]:
    """Write a file with one row group per block; it appears under its name once it is complete.

    Returns
    -------
    n_tracks : number of rows.
    sizes : name -> D.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    n_tracks, sizes = 0, dict[str, int]()
    writer: pq.ParquetWriter | None = None
    with atomic_write(path) as draft, draft.open("xb") as file:
        try:
            for block in blocks:
                table = block.tracks.replace_schema_metadata({_ABOUT: json.dumps(dict(block.about))})
                for name, values in block.values.items():
                    flat, mask = pa.array(values.astype(np.float32).ravel()), pa.array(np.isnan(values[:, 0]))
                    sizes[name] = values.shape[1]
                    table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, sizes[name], mask=mask))
                writer = writer or pq.ParquetWriter(file, table.schema, compression="none", use_dictionary=False)
                writer.write_table(table)
                n_tracks += len(table)
        finally:
            if writer is not None:
                writer.close()
    return n_tracks, sizes


def read_vectors(path: Path, name: str | None = None) -> tuple[str, Vectors]:
    """Read one kind of vectors of a file, without the tracks that lack it; memory is 4 bytes per value.

    Parameters
    ----------
    name : one of `NAMES`; None takes the first that the file has.

    Returns
    -------
    name, vectors

    Raises
    ------
    ConfigError
        If it is not a file of vectors, or has none of that name.
    """
    refuse_other_vectors(path)
    try:
        with path.open("rb") as source:
            file = pq.ParquetFile(source)
            about = json.loads(file.schema_arrow.metadata[_ABOUT])
            sizes = {field.name: field.type.list_size for field in file.schema_arrow if field.name in NAMES}
            name = name or next(iter(sizes))
            if name not in sizes:
                raise ConfigError(f"{path}: no vectors {name!r}; {did_you_mean(name, list(sizes))}")
            values, done = np.empty((file.metadata.num_rows, sizes[name]), dtype=np.float32), 0
            has = np.zeros(len(values), dtype=np.bool_)
            for group in range(file.num_row_groups):
                column = file.read_row_group(group, [name]).column(name).combine_chunks()
                valid = np.asarray(column.is_valid())
                has[done : done + len(column)] = valid
                values[done : done + len(column)][valid] = column.flatten().to_numpy().reshape(-1, sizes[name])
                done += len(column)
            tracks = file.read(["id", "genres"])
    except (pa.ArrowException, AttributeError, KeyError, StopIteration, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not a file of vectors. Write it with `mgc embed`.") from error
    if not has.all():
        tracks, values = tracks.filter(pa.array(has)), values[has]
    return name, Vectors(tracks=tracks, values={name: values}, about=about)
