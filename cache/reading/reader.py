"""Protocol of the readers that :class:`mgc.cache.reading.store.FeatureStore` uses, one for each form of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..format.recipe import FeatureSetRecipe, Recipe
from ..format.schema import ArraySpec


class StoreReader(Protocol):
    """Reader of one form of a store, with the content committed when it was opened; not to be shared by processes.

    Attributes
    ----------
    recipe, fingerprints : of the store's own features.
    library_versions : name -> version of the libraries that computed the features.
    part_rows : array rows per part.
    n_rows : length of every track array.
    embeds_genres : whether the store has genre embeddings.
    added : name -> recipe of the added feature sets.
    tracks : one row per planned track, in array-row order: columns of the plan, then of the outcomes.
    genres : names of the rows of the genre embeddings.
    """

    recipe: Recipe
    fingerprints: dict[str, str]
    library_versions: dict[str, str]
    part_rows: int
    n_rows: int
    embeds_genres: bool
    added: dict[str, FeatureSetRecipe]
    tracks: pa.Table
    genres: list[str]

    def local_files(self, prefix: str | None = None) -> Path:
        """Return a local path with the names and sizes of all files of the store.

        Parameters
        ----------
        prefix : of the keys of files whose content is needed, too.
        """

    def genre_embedding(self, feature_set: str | None = None) -> npt.NDArray[np.float32]:
        """Read the genre embeddings, (genre, text_dim); NaN for genres that the added feature set lacks."""

    def added_outcomes(self, feature_set: str) -> pa.Table:
        """Read the outcomes of the committed parts of an added feature set."""

    def column(self, spec: ArraySpec, rows: npt.NDArray[np.int64], span: slice = slice(None)) -> npt.NDArray[Any]:
        """Read the rows `span` of a small array, by default all, (n, ...).

        Raises
        ------
        StoreCorruptError
            If it is damaged, or an object that holds one of `rows` is missing.
        """

    def read_into(self, spec: ArraySpec, out: npt.NDArray[Any], rows: npt.NDArray[np.int64]) -> None:
        """Fill `out`, (len(rows), length, ...), with the first `length` values of each of `rows` of a sharded array.

        Raises
        ------
        StoreCorruptError
            If the array is damaged, or an object that holds one of `rows` is missing.
        """

    def close(self) -> None:
        """Close the files."""
