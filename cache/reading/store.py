"""The public reader of a feature store: planned tracks, their outcomes, and features by array row."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConfigError, StoreCorruptError, StoreError, TrackUnavailableError
from ..format.recipe import ExtractorRecipe, FeatureSetRecipe, TextRecipe, added_fingerprints, text_fingerprints
from ..format.schema import ABSENT, FAILED, OK, ArraySpec, added_arrays, text_arrays, track_arrays
from ..messages import counted
from ..places import ObjectPath, place
from .hdf5_reader import Hdf5Reader
from .object_reader import ObjectReader
from .outcomes import Counts, count_outcomes, with_outcomes
from .reader import StoreReader
from .zarr_reader import ZarrReader


class FeatureStore:
    """A feature store opened for reading, with the parts that were committed when it was opened.

    Attributes
    ----------
    path : folder of the store, or its HDF5 file.
    reader : reader of its form, which has all planned tracks.
    recipe : recipe of the features; `fingerprints` holds its sha256 per feature.
    library_versions : name -> version of the libraries that computed the features.
    added : name -> recipe of all added feature sets.
    text : name of the added text feature set that replaces the store's own; None for the store's own.
    tracks : one row per planned track, in array-row order: columns of the plan, then of the outcomes. Array rows are in
        its column ``row``; rows between two generations of the plan may belong to no track. A retried track has one row
        per attempt, the newest last.
    status : (row,) uint8; 0 absent, 1 ok, 2 failed.
    ok_rows : array rows that have features, ascending, int64.
    required : of :meth:`requiring`: name of a feature set -> number of tracks with status ok that lack it.
    genres : names of the rows of `genre_embedding`, which the store has if `embeds_genres`.

    Examples
    --------
    >>> store = FeatureStore.open("songs.zarr")
    >>> store.read("mel", store.ok_rows[:16]).shape
    (16, 128, 44)
    """

    def __init__(self, path: Path, *, mapped: bool = True, text: str | None = None) -> None:
        self.path = path
        if isinstance(path, ObjectPath):
            self.reader: StoreReader = ObjectReader(path)
        else:
            self.reader = Hdf5Reader(path) if path.is_file() else ZarrReader(path, mapped=mapped)
        self.added: dict[str, FeatureSetRecipe] = dict(self.reader.added)
        self.text = text
        self.library_versions = self.reader.library_versions
        self.recipe, self.fingerprints = self.reader.recipe, self.reader.fingerprints
        self.part_rows = self.reader.part_rows
        self.tracks = self.reader.tracks
        if text is not None and text in self.added:
            self.tracks = with_outcomes(self.tracks, self.reader.added_outcomes(text))
        self.genres = self.reader.genres
        if len(set(self.genres)) < len(self.genres):
            raise StoreCorruptError(f"{path}: the table of genres has a duplicate name. Restore the store from a copy.")
        self.embeds_genres = self.reader.embeds_genres
        self._replaced_embedding: npt.NDArray[np.float32] | None = None
        self._specs = {spec.name: spec for spec in track_arrays(self.recipe)}
        if text is not None:
            self._replace_text(text)
        self._extractor_of: dict[str, str] = {}
        """Array -> feature set of an extractor."""
        for name, recipe in self.extractors.items():
            for spec in added_arrays(name, recipe)[1:]:
                self._specs[spec.name], self._extractor_of[spec.name] = spec, name
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._rows_with: dict[str, npt.NDArray[np.int64]] = {}
        self._rows = np.asarray(self.tracks.column("row"))
        self.required: Mapping[str, int] = {}
        self.status, self.ok_rows = self._status()

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, mapped: bool = True, text: str | None = None) -> FeatureStore:
        """Open a store for reading.

        Parameters
        ----------
        path : the store's folder, the file of its HDF5 form, or a URL (``s3://bucket/songs.zarr``).
        mapped : memory-map shards; False reads everything through zarr.
        text : name of an added text feature set. It replaces the store's own, and rows that lack it count as absent.

        Raises
        ------
        StoreNotFoundError, StoreFormatError, StoreCorruptError
        """
        return cls(place(path), mapped=mapped, text=text)

    def requiring(self, names: Iterable[str]) -> FeatureStore:
        """Return a reader of the same files in which tracks without these added feature sets have no status ok.

        Such a track has the status and the reason code of the feature set. `fingerprints` covers the feature sets.

        Raises
        ------
        ConfigError
            If there is no added feature set of one of the names.
        """
        other = copy.copy(self)
        for name in names:
            if name in other.required:
                continue
            self._refuse_other_set(name)
            n_before = other.counts().ok
            other.tracks = with_outcomes(other.tracks, self.added_outcomes(name))
            other.required = {**other.required, name: n_before - other.counts().ok}
            prints = added_fingerprints(self.added[name], self.recipe.genre_names)
            other.fingerprints = {**other.fingerprints, **prints}
        other.status, other.ok_rows = other._status()
        other._rows_with = {}
        return other

    @property
    def arrays(self) -> list[ArraySpec]:
        """Description of each track array: name, dims, dtype, unit."""
        return [self.array(name) for name in self._specs]

    def array(self, name: str) -> ArraySpec:
        """Return the description of one track array.

        Raises
        ------
        StoreError
            If the store has no such array.
        """
        return dataclasses.replace(self._spec(name), name=name)

    @property
    def genre_embedding(self) -> npt.NDArray[np.float32]:
        """Mean hidden state of the text encoder over each genre name prompt, (genre, text_dim) float32."""
        if not self.reader.embeds_genres or not self.genres:
            raise StoreError(
                f"{self.path}: no genre embeddings. Extract a store with the features lyrics and genres, from tracks "
                "with genres."
            )
        if self._replaced_embedding is not None:
            return self._replaced_embedding
        embedding = self.reader.genre_embedding(self.text)
        if np.isnan(embedding).any():
            raise StoreError(
                f"{self.path}: genres were appended after the feature set {self.text!r}. Run `mgc extract` with --add "
                f"{self.text} again."
            )
        return embedding

    @property
    def has_other_names(self) -> bool:
        """Whether :meth:`use_genre_names` was called."""
        return self._replaced_embedding is not None

    def use_genre_names(self, genre_names: Mapping[str, str], embedding: npt.NDArray[np.float32]) -> None:
        """Replace the genre name prompts and embeddings in this reader, and in stores selected from it.

        Parameters
        ----------
        genre_names : genre name prompts, as in :class:`~mgc.cache.format.recipe.Recipe`.
        embedding : (genre, text_dim) float32, their embeddings by the store's own text encoder.
        """
        current = self.genre_embedding
        if embedding.shape != current.shape or embedding.dtype != current.dtype:
            raise ValueError(
                f"embedding must be {current.dtype} {current.shape}, not {embedding.dtype} {embedding.shape}"
            )
        self.recipe = dataclasses.replace(self.recipe, genre_names=dict(genre_names))
        self.fingerprints = {**self.fingerprints, **self.recipe.fingerprints()}
        self._replaced_embedding = embedding

    def counts(self, feature_set: str | None = None) -> Counts:
        """Count the tracks that are ok, failed (by reason) and pending, and those with each flag.

        Parameters
        ----------
        feature_set : name of an added feature set; None for the store's own features. For an added feature set, tracks
            that failed in the store itself do not count, and there are no flags.
        """
        tracks = self.newest_tracks(["status", "reason", "flags"], feature_set=feature_set)
        if feature_set is not None:
            own = self.newest_tracks(["status"]).column("status")
            tracks = tracks.filter(pc.not_equal(own, FAILED))
        return count_outcomes(tracks, with_flags=feature_set is None)

    def local_files(self, prefix: str | None = None) -> Path:
        """Return a local path with the names and sizes of all files, and the content of those below `prefix`."""
        return self.reader.local_files(prefix)

    @property
    def pending_note(self) -> str | None:
        """Return a sentence on the tracks that are not extracted yet; None for a complete store."""
        own = np.asarray(self.reader.tracks.column("status"))
        pending = int((self.newest & (own != FAILED) & (self.status[self._rows] == ABSENT)).sum())
        if not pending:
            return None
        added = [f"`mgc extract --add {name}`" for name in (self.text, *self.required) if name is not None]
        command, tracks = " and ".join(added) or "`mgc extract`", counted(int(self.newest.sum()), "track")
        return f"{self.path}: {pending} of {tracks} pending. Run {command} again to finish the extraction."

    def newest_tracks(self, columns: Sequence[str] | None = None, *, feature_set: str | None = None) -> pa.Table:
        """Return the newest row of each track of `tracks`, or some of their columns.

        Parameters
        ----------
        feature_set : name of an added feature set, whose status, reason and detail replace the store's own.

        Raises
        ------
        ConfigError
            If there is no added feature set of that name.
        """
        tracks = self.tracks
        if feature_set is not None:
            self._refuse_other_set(feature_set)
            tracks = with_outcomes(tracks, self.added_outcomes(feature_set))
        tracks = tracks if columns is None else tracks.select(columns)
        return tracks if self.newest.all() else tracks.filter(pa.array(self.newest))

    def added_outcomes(self, feature_set: str) -> pa.Table:
        """Return the outcomes of an added feature set, without pending tracks.

        The columns are ``row``, ``status``, ``reason``, ``detail``, and ``lyrics_sha256`` for features of lyrics.
        """
        return self.reader.added_outcomes(feature_set)

    @cached_property
    def newest(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows of `tracks` that are the newest attempt of their track, (len(tracks),) bool."""
        newest = np.ones(len(self._rows), dtype=np.bool_)
        ids = self.tracks.column("id")
        ascending = pc.all(pc.less(ids[:-1], ids[1:]), min_count=0).as_py()  # cheap, and true for a single generation
        if not ascending and pc.count_distinct(ids).as_py() < len(newest):
            last = {name: i for i, name in enumerate(ids.to_pylist())}
            newest[:] = False
            newest[list(last.values())] = True
        return newest

    def read(
        self,
        name: str,
        rows: Sequence[int] | npt.NDArray[np.integer[Any]],
        *,
        out: npt.NDArray[Any] | None = None,
        length: int | None = None,
    ) -> npt.NDArray[Any]:
        """Read a feature of array rows, in the given order.

        Parameters
        ----------
        name : an array of the store, such as ``mel``.
        rows : array rows, each with status ok.
        out : (len(rows), *tail) array of the stored dtype to fill; None allocates one.
        length : read only the first `length` values of the first dimension after ``track`` (tokens of ``lyrics``).

        Returns
        -------
        numpy.ndarray
            (len(rows), *tail) in the stored dtype and unit; see :meth:`array`.

        Raises
        ------
        TrackUnavailableError
            If a row is absent, failed or out of range; the message lists the tracks.
        StoreError
            If the store has no such array.
        """
        indices = np.asarray(rows, dtype=np.int64)
        spec = self._spec(name)
        self._refuse_unavailable(indices)
        if name in self._extractor_of and not np.isin(indices, self.rows_with(name)).all():
            self._refuse_without(self._extractor_of[name], indices)
        if not spec.sharded:
            values: npt.NDArray[Any] = self._column(name)[indices]
            if out is None:
                return values
            out[...] = values
            return out
        tail = spec.tail if length is None else (min(length, spec.tail[0]), *spec.tail[1:])
        if out is None:
            out = np.empty((len(indices), *tail), dtype=spec.dtype)
        elif out.shape != (len(indices), *tail) or out.dtype != np.dtype(spec.dtype):
            raise ValueError(f"out must be {spec.dtype} {(len(indices), *tail)}, not {out.dtype} {out.shape}")
        self.reader.read_into(spec, out, indices)
        return out

    def close(self) -> None:
        """Close the files."""
        self.reader.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def texts(self) -> dict[str, TextRecipe]:
        """Name -> recipe of the added feature sets of text encoders; see `text` of :meth:`open`."""
        return {name: recipe for name, recipe in self.added.items() if isinstance(recipe, TextRecipe)}

    @property
    def extractors(self) -> dict[str, ExtractorRecipe]:
        """Name -> recipe of the added feature sets of extractors; each has an array of that name, and a sequence also
        ``NAME_length``."""
        return {name: recipe for name, recipe in self.added.items() if isinstance(recipe, ExtractorRecipe)}

    def rows_with(self, name: str) -> npt.NDArray[np.int64]:
        """Return the array rows that have a feature: all of `ok_rows`, or fewer for an added feature set.

        Raises
        ------
        StoreError
            If the store has no such array.
        """
        self._spec(name)
        if name not in self._extractor_of:
            return self.ok_rows
        name = self._extractor_of[name]
        if name not in self._rows_with:
            outcomes = self.reader.added_outcomes(name)
            rows = np.asarray(outcomes.filter(pc.equal(outcomes.column("status"), OK)).column("row"))
            self._rows_with[name] = np.intersect1d(rows, self.ok_rows)
        return self._rows_with[name]

    def _status(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Return the status of every array row, and the rows with status ok."""
        status = np.full(self.reader.n_rows, ABSENT, dtype=np.uint8)
        status[self._rows] = np.asarray(self.tracks.column("status"))
        return status, np.flatnonzero(status == OK)

    def _refuse_other_set(self, name: str) -> None:
        if name not in self.added:
            raise ConfigError(f"no added feature set {name!r}: {self.path} (added: {', '.join(self.added) or 'none'})")

    def _replace_text(self, text: str) -> None:
        """Replace the store's own text features by those of an added feature set."""
        recipe = self.texts.get(text)
        if recipe is None:
            names = ", ".join(self.texts) or "none"
            raise StoreError(f"no added text feature set {text!r}: {self.path} (added: {names})")
        self.recipe = dataclasses.replace(self.recipe, lyrics=recipe)
        self.fingerprints = {**self.fingerprints, **text_fingerprints(recipe, self.recipe.genre_names)}
        stored = dict(zip((spec.name for spec in text_arrays(recipe)), text_arrays(recipe, text), strict=True))
        self._specs = {spec.name: stored.get(spec.name, spec) for spec in track_arrays(self.recipe)}

    def _spec(self, name: str) -> ArraySpec:
        if name not in self._specs:
            raise StoreError(f"no array {name!r}: {self.path}. Use one of {', '.join(self._specs)}.")
        return self._specs[name]

    def _refuse_unavailable(self, rows: npt.NDArray[np.int64]) -> None:
        out_of_range = rows[(rows < 0) | (rows >= len(self.status))]
        if len(out_of_range):
            raise TrackUnavailableError(
                f"{self.path}: rows {out_of_range[:5].tolist()} are outside the {len(self.status)} array rows"
            )
        unavailable = rows[self.status[rows] != OK]
        if len(unavailable):
            first = unavailable[:5]
            if not np.isin(first, self._rows).all():
                raise TrackUnavailableError(f"{self.path}: some of rows {first.tolist()} belong to no track")
            tracks = self._tracks_of(first).select(["id", "reason"]).to_pylist()
            names = ", ".join(f"{track['id']} ({track['reason'] or 'not extracted yet'})" for track in tracks)
            raise TrackUnavailableError(
                f"{self.path}: {len(unavailable)} of the requested tracks have no features: {names}. "
                "Read rows in `ok_rows` only."
            )

    def _refuse_without(self, name: str, rows: npt.NDArray[np.int64]) -> None:
        """Refuse rows that lack an extractor's feature; the message lists their tracks."""
        unavailable = rows[~np.isin(rows, self.rows_with(name))]
        reasons = {outcome["row"]: outcome["reason"] for outcome in self.reader.added_outcomes(name).to_pylist()}
        tracks = self._tracks_of(unavailable[:5]).select(["id", "row"]).to_pylist()
        names = ", ".join(f"{track['id']} ({reasons.get(track['row']) or 'not extracted yet'})" for track in tracks)
        raise TrackUnavailableError(
            f"{self.path}: {len(unavailable)} of the requested tracks have no {name!r}: {names}. "
            f"Select tracks with `mgc.open(...).sel(feature={name!r})`; `mgc store failures {self.path} "
            f"--feature {name}` lists the reasons."
        )

    def _tracks_of(self, rows: npt.NDArray[np.int64]) -> pa.Table:
        return self.tracks.take(np.searchsorted(self._rows, rows))

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name not in self._columns:
            self._columns[name] = self.reader.column(self._spec(name), self.rows_with(name))
        return self._columns[name]
