"""Provide tracks of a store as a torch dataset, for other models; mgc's own use :mod:`mgc.heads.data.batches`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...cache.messages import counted, html_summary, join_names
from ...cache.reading.view import Names, StoreView


class TrackDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Features and labels of the tracks of a view, by position, for a ``DataLoader``.

    Parameters
    ----------
    view : the tracks, such as ``store.sel(split="train")``.
    features : names of one or more features.
    genres : columns of ``labels``; default: every genre of the store.

    Notes
    -----
    An item holds ``position`` (int64), ``labels`` (n_genres,) float32 and each feature as stored, except that integers
    are converted to int64. A batch is read at once. Each worker process opens the store itself.
    """

    def __init__(self, view: StoreView, features: Names, genres: Sequence[str] | None = None) -> None:
        self._view, self._process = view, os.getpid()
        self.features = [features] if isinstance(features, str) else list(features)
        self.genres = list(view.genres if genres is None else genres)
        self._labels = torch.from_numpy(view.labels(self.genres).astype(np.float32))
        for name in self.features:
            view.store.array(name)

    def __len__(self) -> int:
        return len(self._view)

    def __repr__(self) -> str:
        tracks, genres = counted(len(self), "track"), counted(len(self.genres), "genre")
        return f"<TrackDataset of {self._view.store.path}: {tracks}, {genres}; {', '.join(self.features)}>"

    def _repr_html_(self) -> str:
        facts = {"tracks": len(self), "features": ", ".join(self.features)}
        genres = f"{len(self.genres)}: {join_names(self.genres, 10)}"
        return html_summary(f"TrackDataset of {self._view.store.path}", {**facts, "genres": genres})

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: list[int]) -> list[dict[str, Tensor]]:
        """Return the items at several positions, read at once; a ``DataLoader`` calls this for a batch."""
        if os.getpid() != self._process:
            self._view, self._process = self._view.reopen(), os.getpid()
        read = {name: _tensor(self._view[name][positions]) for name in self.features}
        return [
            {"position": torch.tensor(position), "labels": self._labels[position]}
            | {name: values[i] for name, values in read.items()}
            for i, position in enumerate(positions)
        ]


def _tensor(values: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(values.astype(np.int64) if values.dtype.kind in "ui" else values)
