"""Waveform to log-mel spectrogram (Ru et al. 2023, section 3.1; definitions of librosa).

The fast path is librosa's arithmetic in single precision, batch by batch, with the filter bank as a sparse matrix. It
imports no librosa: that costs a second and 100 MB in every decoding child. Tests hold the bank equal to
``librosa.filters.mel`` bit for bit, and the spectrogram to librosa's within 0.05 dB.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...cache.format.mel_scale import hz_to_mel, mel_to_hz
from ...cache.format.recipe import MelRecipe

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Float32 = npt.NDArray[np.float32]

AMIN = np.float32(1e-10)
"""Floor of the mel power: -100 dB, what digital silence becomes."""

_BATCH_FRAMES = 32  # 32 frames of 2048 samples, and what is made of them, stay in the second-level cache


def log_mel(samples: npt.ArrayLike, recipe: MelRecipe) -> Float32:
    """Return the log-mel power spectrogram in dB re 1.0.

    Parameters
    ----------
    samples : (n_samples,) float32, mono, at ``recipe.sample_rate_hz``.
    recipe : its ``backend`` chooses librosa itself or the fast path.

    Returns
    -------
    (n_mels, 1 + n_samples // hop_length) float32, dB; digital silence is -100.

    Notes
    -----
    ``10 log10(max(1e-10, M |rfft(w x_t)|^2))``, with w a periodic Hann window of n_fft samples, frames centred on
    multiples of the hop, zeros beyond both ends, and M the bank of :func:`mel_bank`.
    """
    y = np.ascontiguousarray(samples, dtype=np.float32)
    if y.ndim != 1:
        raise ValueError(f"log_mel takes one channel, shape (n_samples,), not {y.shape}: mix down first")
    if recipe.backend == "librosa":
        return _librosa_log_mel(y, recipe)
    power = mel_power(y, recipe)
    np.maximum(power, AMIN, out=power)
    np.log10(power, out=power)
    power *= np.float32(10)
    return power


def mel_frames(n_valid: int, recipe: MelRecipe) -> int:
    """Frames that hold audio: those whose centre lies before sample `n_valid`, from 1 to ``recipe.n_frames``."""
    return min(max(1, math.ceil(n_valid / recipe.hop_length)), recipe.n_frames)


def mel_bank(sample_rate_hz: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float) -> Float32:
    """Return triangular filters on the Slaney mel scale, each of unit area: ``librosa.filters.mel``, bit for bit.

    Returns
    -------
    (n_mels, 1 + n_fft // 2) float32, per Hz.
    """
    bins_hz = np.fft.rfftfreq(n_fft, d=1.0 / sample_rate_hz)
    edges_hz = mel_to_hz(np.linspace(hz_to_mel(fmin_hz), hz_to_mel(fmax_hz), n_mels + 2))
    widths_hz = np.diff(edges_hz)
    ramps_hz = np.subtract.outer(edges_hz, bins_hz)
    bank = np.zeros((n_mels, len(bins_hz)), dtype=np.float32)
    for band in range(n_mels):
        rising = -ramps_hz[band] / widths_hz[band]
        falling = ramps_hz[band + 2] / widths_hz[band + 1]
        bank[band] = np.maximum(0, np.minimum(rising, falling))
    bank *= (2.0 / (edges_hz[2:] - edges_hz[:-2]))[:, np.newaxis]
    return bank


def mel_power(y: Float32, recipe: MelRecipe) -> Float32:
    """Return the mel power of contiguous samples (n_samples,) by the fast path, (n_mels, 1 + n_samples // hop_length).

    Notes
    -----
    ``M |rfft(w x_t)|^2``, see :func:`log_mel`.
    """
    import scipy.fft

    window, bank = _tables(recipe)
    n_fft, hop = recipe.n_fft, recipe.hop_length
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(y, n_fft // 2), n_fft)[::hop]
    power = np.empty((recipe.n_mels, len(frames)), dtype=np.float32)
    windowed = np.empty((_BATCH_FRAMES, n_fft), dtype=np.float32)
    spectra = np.empty((n_fft // 2 + 1, _BATCH_FRAMES), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # absurd float samples become inf here; the caller refuses them
        for first in range(0, len(frames), _BATCH_FRAMES):
            batch = frames[first : first + _BATCH_FRAMES]
            n = len(batch)
            np.multiply(batch, window, out=windowed[:n])
            parts = scipy.fft.rfft(windowed[:n].T, axis=0).view(np.float32)  # (bins, 2 n): the bank wants bins as rows
            parts *= parts
            np.add(parts[:, 0::2], parts[:, 1::2], out=spectra[:, :n])
            power[:, first : first + n] = bank @ spectra[:, :n]
    return power


def _librosa_log_mel(y: Float32, recipe: MelRecipe) -> Float32:
    import librosa

    power = librosa.feature.melspectrogram(
        y=y,
        sr=recipe.sample_rate_hz,
        n_fft=recipe.n_fft,
        hop_length=recipe.hop_length,
        n_mels=recipe.n_mels,
        fmin=recipe.fmin_hz,
        fmax=recipe.fmax_hz,
    )
    return np.asarray(librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None), dtype=np.float32)


@lru_cache(maxsize=4)
def _tables(recipe: MelRecipe) -> tuple[Float32, csr_array]:
    """Return the window, and the bank as a sparse matrix: 2 018 of its 131 200 weights are not zero."""
    from scipy.sparse import csr_array

    phase = 2 * np.pi * np.arange(recipe.n_fft) / recipe.n_fft
    window = (0.5 - 0.5 * np.cos(phase)).astype(np.float32)
    bank = mel_bank(recipe.sample_rate_hz, recipe.n_fft, recipe.n_mels, recipe.fmin_hz, recipe.fmax_hz)
    return window, csr_array(bank)
