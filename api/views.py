"""Conversion of a store to dask arrays, an xarray dataset or a torch dataset."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..cache.reading.view import FeatureArray, Names, StoreView
from .shared import extra

if TYPE_CHECKING:
    import xarray

    from ..heads.data.torch_dataset import TrackDataset


def to_dask(feature: FeatureArray) -> Any:
    """Return a feature as a ``dask.array.Array`` with one chunk per part of the store.

    Examples
    --------
    >>> import mgc
    >>> mel = mgc.to_dask(mgc.open("songs.zarr")["mel"])
    >>> round(float(mel.astype("float32").mean().compute()), 1)
    -40.5
    """
    with extra("xarray"):
        import dask.array as da
        import numpy as np
        from dask.base import tokenize

    chunks = (feature.part_rows, *(-1 for _ in feature.shape[1:]))
    name = f"{feature.name}-{tokenize(feature.view)}"
    # The reader is not thread-safe, and copies from mapped memory gain nothing from threads.
    return da.from_array(
        feature, chunks=chunks, name=name, lock=True, meta=np.empty((0,) * feature.ndim, feature.dtype)
    )


def to_xarray(store: StoreView) -> xarray.Dataset:
    """Return the tracks of a view as a lazy ``xarray.Dataset``.

    It has every feature with dims and units; ``labels`` (track, genre); ids, languages and splits along ``track`` (""
    where they are unknown); and the recipe as JSON in the attributes.

    Examples
    --------
    >>> import mgc
    >>> songs = mgc.to_xarray(mgc.open("songs.zarr"))
    >>> songs["mel"].sel(track="song00").dims
    ('mel_band', 'frame')
    >>> songs["labels"].sel(genre="jazz").sum().item()
    8
    """
    with extra("xarray"):
        import xarray

    def text(column: str) -> list[str]:
        return [value or "" for value in store.tracks.column(column).to_pylist()]

    arrays = {name: store[name] for name in store.features}
    return xarray.Dataset(
        {
            name: (array.dims, to_dask(array), {"units": array.unit, "description": array.description})
            for name, array in arrays.items()
        }
        | {"labels": (("track", "genre"), store.labels(), {"description": "which genres a track has"})},
        coords={
            "track": text("id"),
            "genre": store.genres,
            "language": ("track", text("language")),
            "split": ("track", text("split")),
        },
        attrs={"recipe": json.dumps(store.store.recipe.to_dict()), "store": store.store.path.name},
    )


def to_torch(store: StoreView, features: Names, genres: Sequence[str] | None = None) -> TrackDataset:
    """Return the tracks of a view as a torch dataset; see :class:`mgc.heads.data.torch_dataset.TrackDataset`.

    Examples
    --------
    >>> import mgc, torch
    >>> train = mgc.to_torch(mgc.open("songs.zarr").sel(split="train"), "mel", genres=["jazz", "folk"])
    >>> batch = next(iter(torch.utils.data.DataLoader(train, batch_size=4)))
    >>> batch["mel"].shape, batch["labels"].tolist()[0]
    (torch.Size([4, 128, 44]), [1.0, 0.0])
    """
    with extra("train"):
        from ..heads.data.torch_dataset import TrackDataset

    return TrackDataset(store, features, genres)
