"""Mean and standard deviation of the training split's log-mels, the two numbers that normalise every spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...cache.errors import TrainingError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..model.audio_cnn import MelLevel

_READ_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class MelStatistics:
    """`mean_db`, `std_db` over `n_values` values in valid frames; a collection without any variation has std 1."""

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
    """Statistics over every band of the frames that hold sound; mean 0 and deviation 1 of a store without mel.

    Parameters
    ----------
    rows : training rows only.
    mel_frames : frames of each that hold sound; padding is left out.
    level : at which the model reads them; as stored by default.
    on_progress : receives the number of tracks read so far.

    Raises
    ------
    TrainingError
        If a stored mel is not finite; names the tracks.

    Notes
    -----
    One pass in float64; tracks are merged by Chan, Golub and LeVeque's update, which does not cancel.
    """
    n_values, mean, squares = 0, 0.0, 0.0
    if store.recipe.mel is None:
        return MelStatistics(mean_db=0.0, std_db=1.0, n_values=0)
    for first in range(0, len(rows), _READ_AT_ONCE):
        chunk = rows[first : first + _READ_AT_ONCE]
        mels = torch.from_numpy(store.read("mel", chunk)).float()
        frames = mel_frames[first : first + len(chunk)]
        levelled = (level or MelLevel()).apply(mels, torch.from_numpy(frames)).numpy()
        for mel, n_frames, row in zip(levelled, frames.tolist(), chunk.tolist(), strict=True):
            values = mel[:, : max(1, n_frames)].astype(np.float64)
            own_mean = float(values.mean())
            if not math.isfinite(own_mean):
                raise TrainingError(f"the stored mel of {_name(store, row)} is not finite; extract the track again")
            delta, total = own_mean - mean, n_values + values.size
            squares += float(((values - own_mean) ** 2).sum()) + delta**2 * n_values * values.size / total
            mean += delta * values.size / total
            n_values = total
        on_progress("statistics", first + len(chunk), len(rows))
    std = math.sqrt(squares / n_values) if n_values else 0.0
    return MelStatistics(mean_db=mean, std_db=std if std > 1e-6 else 1.0, n_values=n_values)


def _name(store: FeatureStore, row: int) -> str:
    position = int(np.searchsorted(np.asarray(store.tracks.column("row")), row))
    return f"track {store.tracks.column('id')[position].as_py()!r} (row {row})"
