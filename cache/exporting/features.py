"""Features to export: their arrays, and the cut of padded sequences to their lengths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..format.schema import ArraySpec, length_name, text_arrays
from ..messages import did_you_mean
from ..reading.store import FeatureStore
from ..reading.view import StoreView

BLOCK_BYTES = 2**25
"""Bytes of features that an export holds in memory at once, unless one track has more."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One array of the store, for the tracks of a view.

    Attributes
    ----------
    spec : name, dims, shape, dtype and unit, as the store describes them.
    has : (n,) bool, tracks that have the feature; some may lack an added feature set.
    lengths : of a sequence, (n,) int64, entries per track along `axis` of a track's values; else None.
    """

    spec: ArraySpec
    has: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64] | None
    axis: int
    _store: FeatureStore
    _own_name: str
    _rows: Rows

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.spec.dtype).newbyteorder("<")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a track; for a sequence, of one entry."""
        tail = self.spec.tail
        return tail if self.lengths is None else tail[: self.axis] + tail[self.axis + 1 :]

    @property
    def row_bytes(self) -> int:
        """Bytes of a track in memory, with padding."""
        return math.prod(self.spec.tail) * self.dtype.itemsize

    def read(self, positions: Rows) -> npt.NDArray[Any]:
        """Read the values of tracks in ascending order, (n, *tail), with fill where a track lacks the feature.

        The first dimension of a track's values is that of its entries, for a sequence.
        """
        has, rows = self.has[positions], self._rows[positions][self.has[positions]]
        values = np.full((len(positions), *self.spec.tail), self.spec.fill, self.dtype)
        if len(rows) and self.spec.sharded:
            values[has] = self._store.read(self._own_name, rows)
        elif len(rows):  # only the parts of these rows: the whole array may not fit in memory
            first, last = int(rows[0]), int(rows[-1])
            values[has] = self._store.reader.column(self.spec, rows, slice(first, last + 1))[rows - first]
        return values if self.lengths is None else np.moveaxis(values, 1 + self.axis, 1)

    def tracks(self, positions: Rows) -> Iterator[npt.NDArray[Any] | None]:
        """Yield the values of each track, a sequence without padding; None where a track lacks the feature."""
        for position, values in zip(positions.tolist(), self.read(positions), strict=True):
            if not self.has[position]:
                yield None
            else:
                yield values if self.lengths is None else values[: self.lengths[position]]

    def to_dict(self) -> dict[str, Any]:
        """Return a description for readers of the export; lists the positions of tracks without the feature."""
        dims = list(self.spec.dims[1:])
        if self.lengths is not None:
            dims.insert(0, dims.pop(self.axis))
        document = {
            "dims": dims,
            "shape": [*([] if self.lengths is None else [None]), *self.shape],
            "dtype": self.spec.dtype,
            "unit": self.spec.unit,
            "description": self.spec.description,
        }
        missing = np.flatnonzero(~self.has).tolist()
        return {**document, "missing": missing} if missing else document


def features_of(view: StoreView, names: Sequence[str] | None, opened: ExitStack) -> list[Feature]:
    """Return the features to export, with those of all added feature sets.

    Parameters
    ----------
    names : names of arrays; None takes all. The lengths that belong to an array are taken with it.
    opened : receives the stores that must stay open.

    Raises
    ------
    ConfigError
        If there is no feature of a name.
    """
    features = [_feature(view, view.store, view.store.array(name)) for name in view.features]
    for text, recipe in view.store.texts.items():
        store = opened.enter_context(FeatureStore.open(view.store.path, text=text))
        features += [_feature(view, store, spec) for spec in text_arrays(recipe, text)]
    if names is None:
        return features
    known = [feature.name for feature in features]
    for name in names:
        if name not in known:
            raise ConfigError(f"{view.store.path}: no feature {name!r}; {did_you_mean(name, known)}")
    wanted = {*names, *(lengths for name in names for lengths in _companions(name))}
    return [feature for feature in features if feature.name in wanted]


def _feature(view: StoreView, store: FeatureStore, spec: ArraySpec) -> Feature:
    own_name = spec.name if store.text is None else spec.name.removesuffix(f"_{store.text}")
    has = np.isin(view.rows, store.rows_with(own_name))
    recipe = store.extractors.get(own_name)
    axis, lengths_name = 0, "lyrics_tokens" if own_name == "lyrics" else None
    if recipe is not None and recipe.length is not None:
        axis, lengths_name = recipe.dims.index(recipe.length), length_name(own_name)
    lengths = None
    if lengths_name is not None:
        lengths = np.zeros(len(view), np.int64)
        lengths[has] = store.read(lengths_name, view.rows[has])
    return Feature(spec=spec, has=has, lengths=lengths, axis=axis, _store=store, _own_name=own_name, _rows=view.rows)


def _companions(name: str) -> tuple[str, ...]:
    kind, underscore, text = name.partition("_")
    counted = {"mel": "mel_frames", "lyrics": "lyrics_tokens"}.get(kind)
    return (length_name(name), *(() if counted is None else (counted + underscore + text,)))


def blocks(positions: Rows, row_bytes: int) -> Iterator[Rows]:
    """Divide tracks into blocks that fit in memory (:data:`BLOCK_BYTES`)."""
    n_rows = max(1, BLOCK_BYTES // max(1, row_bytes))
    return (positions[first : first + n_rows] for first in range(0, len(positions), n_rows))
