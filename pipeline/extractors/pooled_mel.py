"""Built-in extractor: a clip's log-mel spectrogram pooled over time, for probes and audio search."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...cache.format.recipe import MelRecipe
from ..audio.mel import log_mel
from .extractor import Extractor

STATISTICS = ("mean", "standard deviation", "10th percentile", "median", "90th percentile", "mean absolute change")
_RECIPE = MelRecipe()


def pooled_mel(samples: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float32]:
    """Return statistics of each mel band over the frames of a clip.

    Parameters
    ----------
    samples : (n,) float32, mono.
    sample_rate_hz : 22 050, as the bands are laid out for it.

    Returns
    -------
    (6, 128) float32, dB: :data:`STATISTICS`; the last one of neighbouring frames, 0 where there is only one.
    """
    if sample_rate_hz != _RECIPE.sample_rate_hz:
        raise ValueError(f"clips of {sample_rate_hz} Hz; the mel bands are laid out for {_RECIPE.sample_rate_hz} Hz")
    mel = log_mel(samples, _RECIPE).astype(np.float64)
    change = np.abs(np.diff(mel, axis=1)).mean(axis=1) if mel.shape[1] > 1 else np.zeros(len(mel))
    low, middle, high = np.percentile(mel, [10, 50, 90], axis=1)
    return np.stack([mel.mean(axis=1), mel.std(axis=1), low, middle, high, change]).astype(np.float32)


POOLED_MEL = Extractor(
    name="pooled_mel",
    version="1",
    input="clip",
    dims=("pooled_mel_statistic", "mel_band"),
    shape=(len(STATISTICS), _RECIPE.n_mels),
    dtype="float32",
    unit="dB",
    description="log-mel spectrogram pooled over time: " + ", ".join(STATISTICS),
    compute=pooled_mel,
    parameters={
        "statistics": list(STATISTICS),
        **{name: getattr(_RECIPE, name) for name in ("n_fft", "hop_length", "n_mels", "fmin_hz", "fmax_hz")},
    },
)
