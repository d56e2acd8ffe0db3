"""Compute mean and standard deviation of the log-mel spectrograms of the training split, which normalise all others."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...cache.errors import TrainingError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..model.audio_cnn import at_level
from ..model.config import MelLevel
from .moments import Moments

_READ_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class MelStatistics:
    """Mean and standard deviation in dB over `n_values` values of valid frames; `std_db` is 1 for constant values."""

    mean_db: float
    std_db: float
    n_values: int


def mel_statistics(
    store: FeatureStore,
    rows: npt.NDArray[np.int64],
    mel_frames: npt.NDArray[np.int64],
    *,
    level: MelLevel | None = None,
    on_progress: Progress = silent,
) -> MelStatistics:
    """Compute statistics over all bands of valid frames; mean 0 and standard deviation 1 for a store without mels.

    Parameters
    ----------
    rows : (n,) training rows only.
    mel_frames : (n,) number of valid frames per row; padding is left out.
    level : level at which the model reads mels; default: as stored.
    on_progress : receives the number of tracks read so far.

    Raises
    ------
    TrainingError
        If a stored mel is not finite.

    Notes
    -----
    One pass in float64 (:class:`Moments`).
    """
    moments = Moments()
    if store.recipe.mel is None:
        return MelStatistics(mean_db=0.0, std_db=1.0, n_values=0)
    for first in range(0, len(rows), _READ_AT_ONCE):
        chunk = rows[first : first + _READ_AT_ONCE]
        mels = torch.from_numpy(store.read("mel", chunk)).float()
        frames = mel_frames[first : first + len(chunk)]
        levelled = at_level(level or MelLevel(), mels, torch.from_numpy(frames)).numpy()
        for mel, n_frames, row in zip(levelled, frames.tolist(), chunk.tolist(), strict=True):
            values = mel[:, : max(1, n_frames)].astype(np.float64).ravel()
            if not math.isfinite(values.sum()):
                raise TrainingError(
                    f"{store.path}, {_name(store, row)}: the stored mel is not finite. Extract into a new store."
                )
            moments.add(values)
        on_progress("statistics", first + len(chunk), len(rows))
    std = float(moments.std)
    return MelStatistics(mean_db=float(moments.mean), std_db=std if std > 1e-6 else 1.0, n_values=moments.n)


def _name(store: FeatureStore, row: int) -> str:
    position = int(np.searchsorted(np.asarray(store.tracks.column("row")), row))
    return f"track {store.tracks.column('id')[position].as_py()!r} (row {row})"
