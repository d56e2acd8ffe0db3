"""The sounds of the benchmark world: motifs, each a voice moving in its own way, and clips that layer them.

A motif is recognised by how it moves and by its timbre, never by its pitch, which every song draws anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from .synth_sound import SAMPLE_RATE_HZ, Samples, studio_filter, unit_power

Track64 = npt.NDArray[np.float64]
_TURNS = 50
"""Every ratio of partials below is whole after so many turns: phases can start again, and float32 holds them."""


def _partials(ratios: Sequence[float], levels: Sequence[float]) -> Callable[[Samples, np.random.Generator], Samples]:
    def voice(phase: Samples, rng: np.random.Generator) -> Samples:
        out = np.zeros_like(phase)
        for ratio, level in zip(ratios, levels, strict=True):
            out += np.float32(level) * np.sin(np.float32(ratio) * phase)
        return out

    return voice


def _noise_band(phase: Samples, rng: np.random.Generator) -> Samples:
    width = SAMPLE_RATE_HZ // 300
    slow = np.cumsum(rng.standard_normal(len(phase) + width))
    return (slow[width:] - slow[:-width]).astype(np.float32) * np.sin(2 * phase)


VOICES: dict[str, Callable[[Samples, np.random.Generator], Samples]] = {
    "pure": _partials([2], [1]),
    "reedy": _partials(range(1, 13), [1 / h**0.7 for h in range(1, 13)]),
    "hollow": _partials(range(1, 12, 2), [1 / h**0.5 for h in range(1, 12, 2)]),
    "bell": _partials([1, 2.76, 5.4, 8.92], [1, 0.8, 0.6, 0.4]),
    "chord": _partials([2, 2.52, 3, 4], [1, 1, 1, 0.7]),
    "breath": _noise_band,
}
"""Timbre -> waveform from the phase (radians) of the fundamental."""


def _pulses(t: Track64, rate_hz: float, decay_s: float) -> Track64:
    return np.exp(-((t * rate_hz) % 1.0) / rate_hz / decay_s)


MOVES: dict[str, Callable[[Track64, float], tuple[Track64, Track64]]] = {
    "held": lambda t, x: (np.zeros_like(t), np.ones_like(t)),
    "struck": lambda t, x: (np.zeros_like(t), _pulses(t, 1.6 + 0.8 * x, 0.12)),
    "ticking": lambda t, x: (np.zeros_like(t), _pulses(t, 7.0 + 2.0 * x, 0.025)),
    "rising": lambda t, x: (1.5 * ((t * (0.8 + 0.4 * x)) % 1.0), np.ones_like(t)),
    "falling": lambda t, x: (-1.5 * ((t * (0.8 + 0.4 * x)) % 1.0), np.ones_like(t)),
    "swaying": lambda t, x: (0.45 * np.sin(2 * np.pi * (2.0 + x) * t), np.ones_like(t)),
}
"""Way of moving -> octaves above the base pitch, and level, from time (s) and the song's own draw x in [0, 1)."""

MOTIFS: tuple[tuple[str, str], ...] = tuple((voice, move) for voice in VOICES for move in MOVES)


def motif(number: int, n_samples: int, rng: np.random.Generator) -> Samples:
    """Motif `number` (an index into :data:`MOTIFS`) at a pitch of its own: (n_samples,) of unit power."""
    voice, move = MOTIFS[number]
    t = np.arange(n_samples) / SAMPLE_RATE_HZ + rng.uniform(0, 2)
    octaves, level = MOVES[move](t, rng.random())
    base_hz = 160.0 * 2 ** rng.uniform(0, 2)
    start = 1.5 if move == "falling" else 0.0  # so that falling and rising cover the same range
    turns = np.cumsum(base_hz * 2 ** (octaves + start)) / SAMPLE_RATE_HZ
    phase = (2 * np.pi * (turns % _TURNS)).astype(np.float32)
    return unit_power(level.astype(np.float32) * VOICES[voice](phase, rng))


def render_motifs(numbers: Sequence[int], *, seed: int, index: int, artist: int, clip_s: float) -> Samples:
    """A clip in which all of `numbers` sound at once, over noise, in the studio of its artist.

    Returns
    -------
    ndarray
        (round(clip_s * 22 050),) float32, mono, peak at most 0.9.
    """
    n_samples = round(clip_s * SAMPLE_RATE_HZ)
    rng = np.random.default_rng([seed, 21, index])
    mix = np.float32(rng.uniform(0.03, 0.15)) * rng.standard_normal(n_samples, dtype=np.float32)
    for number in numbers:
        mix += np.float32(rng.uniform(0.5, 1.0)) * motif(number, n_samples, rng)
    mix = np.fft.irfft(np.fft.rfft(mix) * studio_filter(seed, artist, n_samples), n_samples).astype(np.float32)
    return mix * np.float32(rng.uniform(0.3, 0.9) / np.abs(mix).max())
