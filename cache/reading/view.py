"""The view of a store that users work with: tracks that have features, selections of them, features by position.

Position i of every feature and line i of `tracks` are the same track. Array rows, generations and failures are left to
:class:`~mgc.cache.reading.store.FeatureStore`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConfigError
from ..format.schema import OK, ArraySpec
from ..messages import did_you_mean
from ..names import match_names
from .store import FeatureStore

Names = str | Iterable[str]


def open_store(path: str | os.PathLike[str], *, text: str | None = None) -> StoreView:
    """Open a feature store; in ``mgc``'s own namespace this is ``mgc.open``.

    Parameters
    ----------
    path : the store's folder, or the one file of its HDF5 form.
    text : name of added text features (``--add NAME``), which stand in for the store's own.

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
    """The tracks of a store that have features, or a selection of them, in array-row order.

    Attributes
    ----------
    store : the underlying store; it also has the tracks that failed, and their reasons.
    rows : (n,) int64, array rows of the tracks in the store.
    """

    def __init__(self, store: FeatureStore, rows: npt.NDArray[np.int64] | None = None) -> None:
        self.store = store
        self.rows = store.ok_rows if rows is None else rows

    @cached_property
    def tracks(self) -> pa.Table:
        """One line per track: ``id``, ``path``, ``artists``, ``song``, ``genres``, ``language``, ``split`` etc."""
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
        """Every genre of the whole store, sorted: the columns of :meth:`labels`."""
        return sorted(self.store.genres)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, feature: str) -> FeatureArray:
        """Return a feature of the tracks, which is read when it is indexed.

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
        """Select the tracks that have one of the given values, in every given column.

        A value matches in another Unicode form too, where that is unique.

        Parameters
        ----------
        feature : keep the tracks that have all of these features; an added feature set may lack some tracks.
        language : tags as stored, such as ``en``, ``zh-CN`` or ``zxx`` (instrumental).
        split : ``train``, ``validation`` or ``test``, where the source fixed a split.

        Returns
        -------
        StoreView
            It may be empty: each value exists, but no track has them together.

        Raises
        ------
        ConfigError
            If no track of this view has a value; the message suggests near ones.

        Examples
        --------
        >>> import mgc
        >>> store = mgc.open("songs.zarr")
        >>> store.sel(genre=["jazz", "folk"], language="en").tracks.column("id").to_pylist()[:2]
        ['song00', 'song01']
        >>> store.sel(genre="jaz")
        Traceback (most recent call last):
        ...
        mgc.cache.errors.ConfigError: no track here has the genre 'jaz'; did you mean 'jazz'?
        """
        chosen = np.ones(len(self), dtype=np.bool_)
        columns = {"id": id, "genres": genre, "artists": artist, "language": language, "split": split}
        for column, names in columns.items():
            if names is not None:
                chosen &= self._has(column, [names] if isinstance(names, str) else list(names))
        for name in [feature] if isinstance(feature, str) else feature or ():
            chosen &= np.isin(self.rows, self.store.rows_with(name))
        return StoreView(self.store, self.rows[chosen])

    def take(self, positions: Sequence[int] | npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]) -> StoreView:
        """Select tracks by position, in the given order, or by a mask."""
        return StoreView(self.store, self.rows[np.asarray(positions)])

    def labels(self, genres: Sequence[str] | None = None) -> npt.NDArray[np.bool_]:
        """Return the labels, (track, genre) bool: which genres a track has.

        Parameters
        ----------
        genres : names of the columns; default: :attr:`genres`, the same for every selection from one store.

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
        features : names.
        seed, epoch : decide the order; without a seed the order is that of `rows`.
        drop_last : leave out an incomplete last batch.

        Yields
        ------
        dict
            ``position`` (n,) int64, of the tracks in this view; one array per feature, (n, ...) of the stored dtype.

        Examples
        --------
        >>> import mgc
        >>> store = mgc.open("songs.zarr")
        >>> [batch["mel"].shape for batch in store.batches("mel", 16)]
        [(16, 128, 44), (7, 128, 44)]
        """
        if size < 1:
            raise ConfigError(f"batches of {size} tracks; want at least 1")
        names = [features] if isinstance(features, str) else list(features)
        order = np.arange(len(self)) if seed is None else np.random.default_rng([seed, epoch]).permutation(len(self))
        for first in range(0, len(order), size):
            position = order[first : first + size]
            if len(position) < size and drop_last:
                return
            yield {"position": position} | {name: self.store.read(name, self.rows[position]) for name in names}

    def reopened(self) -> StoreView:
        """Open the same tracks of the same store again: a forked process must not share open files."""
        return _open_view(*self.__reduce__()[1])

    def close(self) -> None:
        """Close the files of the store, for every view of it."""
        self.store.close()

    def __enter__(self) -> StoreView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StoreView of {self.store.path}: {len(self)} tracks; {', '.join(self.features)}>"

    def __reduce__(self) -> tuple[Callable[..., StoreView], tuple[Any, ...]]:
        return _open_view, (str(self.store.path.absolute()), self.store.text, self.rows)

    def _has(self, column: str, names: list[str]) -> npt.NDArray[np.bool_]:
        """Return a mask (n,): tracks that have one of `names` in a column of names or of lists of names."""
        values = self.tracks.column(column).to_pylist()
        lists = [value if isinstance(value, list) else [] if value is None else [value] for value in values]
        existing = {name for entry in lists for name in entry}
        if lists and names and not existing:
            message = f"no track here has a {column.removesuffix('s')}: the source named none"
            if column == "split":
                message += "; a run keeps the one that training made in its splits.json: select by those ids"
            raise ConfigError(message)
        if not existing.issuperset(names):
            matches = match_names(names, existing)
            for name in names:
                if name not in matches:
                    hint = did_you_mean(name, sorted(existing), 10)
                    raise ConfigError(f"no track here has the {column.removesuffix('s')} {name!r}; {hint}")
            names = list(matches.values())
        return np.asarray([not set(names).isdisjoint(entry) for entry in lists], dtype=np.bool_)


class FeatureArray:
    """One feature of the tracks of a view. It reads only what is indexed; NumPy functions accept it.

    Attributes
    ----------
    view : the tracks.
    name, dims, dtype, unit, description : of the array in the store.
    part_rows : tracks per part of the store, which are in one file per feature.
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
            raise ValueError(f"{self.name}: a feature is read into a new array; it cannot be had without a copy")
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        return f"<FeatureArray {self.name} {self.shape} {self.dtype}, {self.unit}; dims {', '.join(self.dims)}>"


def _open_view(path: str, text: str | None, rows: npt.NDArray[np.int64]) -> StoreView:
    return StoreView(FeatureStore.open(Path(path), text=text), rows)
