"""Public view of a store: the tracks that have features, selections of them, and features by position.

Position i of every feature and row i of `tracks` are the same track.
:class:`~mgc.cache.reading.store.FeatureStore` has array rows, generations and failures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConfigError
from ..format.schema import OK, ArraySpec
from ..messages import counted, did_you_mean, html_summary, join_names
from ..names import match_names
from .store import FeatureStore

Names = str | Iterable[str]


def open_store(path: str | os.PathLike[str], *, text: str | None = None) -> StoreView:
    """Open a feature store; also available as ``mgc.open``.

    Parameters
    ----------
    path : the store's folder, the file of its HDF5 form, or a URL (``s3://bucket/songs.zarr``).
    text : name of an added text feature set (``--add NAME``), which replaces the store's own.

    Raises
    ------
    StoreNotFoundError, StoreFormatError, StoreCorruptError

    Examples
    --------
    >>> import mgc
    >>> store = mgc.open("songs.zarr")
    >>> store
    <StoreView of songs.zarr: 23 tracks; mel, mel_frames, lyrics, lyrics_tokens, lyrics_tokens_full, lyrics_pooled>
    >>> store.tracks.column("id")[0].as_py()
    'song00'
    >>> store["mel"][0].shape
    (128, 44)
    >>> jazz = store.sel(genre="jazz", split="train")
    >>> len(jazz), jazz["lyrics_pooled"][:].shape
    (6, (6, 12))
    """
    return StoreView(FeatureStore.open(path, text=text))


class StoreView:
    """Tracks of a store that have features, or a selection of them, in array-row order.

    Attributes
    ----------
    store : the underlying store, which also has the failed tracks and their reasons.
    rows : (n,) int64, array rows of the tracks in the store.
    """

    def __init__(self, store: FeatureStore, rows: npt.NDArray[np.int64] | None = None) -> None:
        self.store = store
        self.rows = store.ok_rows if rows is None else rows

    @cached_property
    def tracks(self) -> pa.Table:
        """One row per track: ``id``, ``path``, ``artists``, ``song``, ``genres``, ``language``, ``split`` etc."""
        table = self.store.tracks
        table = table.filter(pc.equal(table.column("status"), OK))  # in the order of ok_rows
        return table.take(np.searchsorted(self.store.ok_rows, self.rows))

    @property
    def failures(self) -> pa.Table:
        """Tracks of the whole store that have no features: ``id``, ``path``, ``reason``, ``detail``."""
        table = self.store.newest_tracks(["id", "path", "reason", "detail", "status"])
        return table.filter(pc.not_equal(table.column("status"), OK)).drop_columns(["status"])

    @property
    def features(self) -> list[str]:
        """Names of the features that ``store[name]`` has."""
        return [spec.name for spec in self.store.arrays if spec.name not in ("status", "flags")]

    @property
    def genres(self) -> list[str]:
        """All genres of the whole store, sorted: the columns of :meth:`labels`."""
        return sorted(self.store.genres)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, feature: str) -> FeatureArray:
        """Return a feature of the tracks; values are read when it is indexed.

        Raises
        ------
        StoreError
            If the store has no such feature; the message lists its features.
        """
        return FeatureArray(self, self.store.array(feature))

    def sel(
        self,
        *,
        id: Names | None = None,  # noqa: A002
        genre: Names | None = None,
        artist: Names | None = None,
        language: Names | None = None,
        split: Names | None = None,
        feature: Names | None = None,
    ) -> StoreView:
        """Select the tracks that have one of the given values in every given column.

        A value also matches in another Unicode form if that is unambiguous.

        Parameters
        ----------
        feature : keep the tracks that have all of these features; some tracks may lack an added feature set.
        language : tags as stored, such as ``en``, ``zh-CN`` or ``zxx`` (instrumental).
        split : ``train``, ``validation`` or ``test``, if the source has a split.

        Returns
        -------
        StoreView
            Empty if each value exists but no track has all of them.

        Raises
        ------
        ConfigError
            If no track of this view has a value; the message suggests similar values.

        Examples
        --------
        >>> import mgc
        >>> store = mgc.open("songs.zarr")
        >>> store.sel(genre=["jazz", "folk"], language="en").tracks.column("id").to_pylist()[:2]
        ['song00', 'song01']
        >>> store.sel(genre="jaz")
        Traceback (most recent call last):
        ...
        mgc.cache.errors.ConfigError: no selected track has the genre 'jaz'; did you mean 'jazz'?
        """
        mask = np.ones(len(self), dtype=np.bool_)
        columns = {"id": id, "genres": genre, "artists": artist, "language": language, "split": split}
        for column, names in columns.items():
            if names is not None:
                mask &= self._has(column, [names] if isinstance(names, str) else list(names))
        for name in [feature] if isinstance(feature, str) else feature or ():
            mask &= np.isin(self.rows, self.store.rows_with(name))
        return StoreView(self.store, self.rows[mask])

    def take(self, positions: Sequence[int] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> StoreView:
        """Select tracks by position, in the given order, or by a mask."""
        return StoreView(self.store, self.rows[np.asarray(positions)])

    def labels(self, genres: Sequence[str] | None = None) -> npt.NDArray[np.bool_]:
        """Return the labels of the tracks, (track, genre) bool.

        Parameters
        ----------
        genres : names of the columns; None takes :attr:`genres`, which is the same for every selection from one store.

        Examples
        --------
        >>> import mgc
        >>> mgc.open("songs.zarr").labels(["jazz", "folk"])[:2].tolist()
        [[True, False], [True, False]]
        """
        column = {name: i for i, name in enumerate(self.genres if genres is None else genres)}
        labels = np.zeros((len(self), len(column)), dtype=np.bool_)
        for i, names in enumerate(self.tracks.column("genres").to_pylist()):
            labels[i, [column[name] for name in names if name in column]] = True
        return labels

    def batches(
        self, features: Names, size: int = 16, *, seed: int | None = None, epoch: int = 0, drop_last: bool = False
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Iterate over the tracks once, in batches.

        Parameters
        ----------
        features : names of features.
        size : tracks per batch.
        seed, epoch : seed of the shuffled order; without a seed, the order of `rows`.
        drop_last : skip an incomplete last batch.

        Yields
        ------
        dict
            ``position`` (n,) int64, positions in this view; and one array per feature, (n, ...) in its stored dtype.

        Examples
        --------
        >>> import mgc
        >>> store = mgc.open("songs.zarr")
        >>> [batch["mel"].shape for batch in store.batches("mel", 16)]
        [(16, 128, 44), (7, 128, 44)]
        """
        if size < 1:
            raise ConfigError(f"batch size {size} is too small. Use at least 1.")
        names = [features] if isinstance(features, str) else list(features)
        order = np.arange(len(self)) if seed is None else np.random.default_rng([seed, epoch]).permutation(len(self))
        for first in range(0, len(order), size):
            position = order[first : first + size]
            if len(position) < size and drop_last:
                return
            yield {"position": position} | {name: self.store.read(name, self.rows[position]) for name in names}

    def reopen(self) -> StoreView:
        """Open the same tracks of the same store again, as a forked process must not share open files."""
        return _open_view(*self.__reduce__()[1])

    def close(self) -> None:
        """Close the files of the store, for every view of it."""
        self.store.close()

    def __enter__(self) -> StoreView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StoreView of {self.store.path}: {counted(len(self), 'track')}; {', '.join(self.features)}>"

    def _repr_html_(self) -> str:
        arrays = {name: f"{'×'.join(map(str, self[name].shape))} {self[name].dtype}" for name in self.features}
        genres = f"{len(self.genres)}: {join_names(self.genres, 10)}"
        title = f"StoreView of {self.store.path}"
        return html_summary(title, {"tracks": len(self), "genres": genres, **arrays})

    def __reduce__(self) -> tuple[Callable[..., StoreView], tuple[Any, ...]]:
        return _open_view, (str(self.store.path.absolute()), self.store.text, self.rows)

    def _has(self, column: str, names: list[str]) -> npt.NDArray[np.bool_]:
        """Return a mask (n,) of the tracks with one of `names` in a column of names or of lists of names."""
        values = self.tracks.column(column).to_pylist()
        lists = [value if isinstance(value, list) else [] if value is None else [value] for value in values]
        existing = {name for entry in lists for name in entry}
        if lists and names and not existing:
            message = f"no selected track has a {column.removesuffix('s')}: the source has none."
            if column == "split":
                message += " To select by the split of a run, use the ids in its splits.json."
            raise ConfigError(message)
        if not existing.issuperset(names):
            matches = match_names(names, existing)
            for name in names:
                if name not in matches:
                    hint = did_you_mean(name, sorted(existing), 10)
                    raise ConfigError(f"no selected track has the {column.removesuffix('s')} {name!r}; {hint}")
            names = list(matches.values())
        return np.asarray([not set(names).isdisjoint(entry) for entry in lists], dtype=np.bool_)


class FeatureArray:
    """One feature of the tracks of a view; only indexed values are read. NumPy functions accept it.

    Attributes
    ----------
    view : view with the tracks.
    name, dims, dtype, unit, description : of the array in the store.
    part_rows : rows per part of the store; the rows of a part are in one file.
    shape : (n, ...).
    """

    def __init__(self, view: StoreView, spec: ArraySpec) -> None:
        self.view = view
        self.name, self.dims, self.unit, self.description = spec.name, spec.dims, spec.unit, spec.description
        self.dtype = np.dtype(spec.dtype)
        self.shape = (len(view), *spec.tail)
        self.ndim = len(self.shape)
        self.part_rows = view.store.part_rows

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        """Index like a NumPy array: a position, a slice, positions or a mask first, then any NumPy index."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        rows = self.view.rows[first]
        single = rows.ndim == 0
        features = self.view.store.read(self.name, rows[None] if single else rows)
        indexed: npt.NDArray[Any] = features[(0 if single else slice(None), *rest)]
        return indexed

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError(f"{self.name}: reading a feature always makes a new array. Do not pass copy=False.")
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        return f"<FeatureArray {self.name} {self.shape} {self.dtype}, {self.unit}; dims {', '.join(self.dims)}>"


def _open_view(path: str, text: str | None, rows: npt.NDArray[np.int64]) -> StoreView:
    return StoreView(FeatureStore.open(path, text=text), rows)
