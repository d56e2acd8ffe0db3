"""Synthesise the audio of the synthetic benchmark: clips that layer motifs, each a timbre with a movement.

Movement and timbre identify a motif; its pitch is random per song.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from mgc.pipeline.synth.audio import SAMPLE_RATE_HZ, Samples, studio_filter, unit_power

Track64 = npt.NDArray[np.float64]
_TURNS = 50
"""Number of periods after which every partial below returns to its phase, so that phases can wrap and fit float32."""


PARTIALS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "pure": ((2,), (1,)),
    "reedy": (tuple(range(1, 13)), tuple(1 / h**0.7 for h in range(1, 13))),
    "hollow": (tuple(range(1, 12, 2)), tuple(1 / h**0.5 for h in range(1, 12, 2))),
    "bell": ((1, 2.76, 5.4, 8.92), (1, 0.8, 0.6, 0.4)),
    "chord": ((2, 2.52, 3, 4), (1, 1, 1, 0.7)),
}
"""Timbre -> frequencies of its partials relative to the fundamental, and their levels."""
BREATH_RATIO, BREATH_WIDTH_HZ = 2, 300
VOICES = (*PARTIALS, "breath")
"""Timbres; ``breath`` is a band of noise."""


def _voice(name: str, phase: Samples, rng: np.random.Generator) -> Samples:
    """Compute the waveform from the phase (radians) of the fundamental."""
    if name == "breath":
        width = SAMPLE_RATE_HZ // BREATH_WIDTH_HZ
        slow = np.cumsum(rng.standard_normal(len(phase) + width))
        return (slow[width:] - slow[:-width]).astype(np.float32) * np.sin(BREATH_RATIO * phase)
    out = np.zeros_like(phase)
    for ratio, level in zip(*PARTIALS[name], strict=True):
        out += np.float32(level) * np.sin(np.float32(ratio) * phase)
    return out


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
"""Movement -> octaves above the base pitch, and level, from time (s) and a draw of the song, x in [0, 1)."""

MOTIFS: tuple[tuple[str, str], ...] = tuple((voice, move) for voice in VOICES for move in MOVES)


def movement(number: int, t: Track64, rng: np.random.Generator) -> tuple[Track64, Track64]:
    """Return fundamental (Hz) and level at `t` (s) of motif `number`, an index into :data:`MOTIFS`, in one song.

    Pitch, speed and start are drawn by `rng`.
    """
    _, move = MOTIFS[number]
    octaves, level = MOVES[move](t + rng.uniform(0, 2), rng.random())
    base_hz = 160.0 * 2 ** rng.uniform(0, 2)
    start = 1.5 if move == "falling" else 0.0  # falling and rising motifs cover the same range
    return base_hz * 2 ** (octaves + start), level


def motif(number: int, n_samples: int, rng: np.random.Generator) -> Samples:
    """Render motif `number` at a random pitch: (n_samples,) of unit power."""
    pitch_hz, level = movement(number, np.arange(n_samples) / SAMPLE_RATE_HZ, rng)
    phase = (2 * np.pi * ((np.cumsum(pitch_hz) / SAMPLE_RATE_HZ) % _TURNS)).astype(np.float32)
    return unit_power(level.astype(np.float32) * _voice(MOTIFS[number][0], phase, rng))


def render_motifs(numbers: Sequence[int], *, seed: int, index: int, artist: int, clip_s: float) -> Samples:
    """Render a clip with all motifs of `numbers` at once, over noise, with the equaliser of its artist.

    Returns
    -------
    ndarray
        (round(clip_s * 22 050),) float32, mono, peak at most 0.9.
    """
    n_samples = round(clip_s * SAMPLE_RATE_HZ)
    rng = np.random.default_rng([seed, 21, index])
    mix, *motifs = layers(numbers, n_samples, rng)
    for layer in motifs:
        mix += layer
    mix = np.fft.irfft(np.fft.rfft(mix) * studio_filter(seed, artist, n_samples), n_samples).astype(np.float32)
    return mix * np.float32(rng.uniform(0.3, 0.9) / np.abs(mix).max())


def layers(numbers: Sequence[int], n_samples: int, rng: np.random.Generator) -> list[Samples]:
    """Render the noise and each motif of a clip, (n_samples,) each; the clip is their sum before the equaliser."""
    noise = np.float32(rng.uniform(0.03, 0.15)) * rng.standard_normal(n_samples, dtype=np.float32)
    return [noise, *(np.float32(rng.uniform(0.5, 1.0)) * motif(number, n_samples, rng) for number in numbers)]
