"""Audio of the generated demo collection: six scenes, each with its rhythm, harmony and timbre.

A scene decides tempo, patterns and swing; scale, progressions and size of chords; waveforms, drive and drums. An artist
adds an equaliser and a room; a song draws its own key, tempo, patterns and melody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 22_050
Samples = npt.NDArray[np.float32]
TABLE_SIZE = 2048
P_GUEST_DRUMMER = 0.1  # a song whose drums come from some other scene


@dataclass(frozen=True, kw_only=True)
class Beat:
    """Tempo and drums; pairs are ranges. Swing 0 is straight; at 1 the second eighth of a beat is on its last third."""

    bpm: tuple[float, float]
    swing: float
    ride: bool
    gain: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Harmony:
    """Chords and bass line.

    Attributes
    ----------
    scale : semitones above the key.
    progressions : digits are scale degrees, one per bar; separated by spaces.
    notes, octave : of a chord.
    walking : the bass moves through the chord.
    """

    scale: tuple[int, ...]
    progressions: str
    notes: int
    octave: int
    walking: bool


@dataclass(frozen=True, kw_only=True)
class Timbre:
    """Waveforms, decay times in s, and the range of the gain before a tanh (`drive`)."""

    chord: str
    chord_s: float
    drive: tuple[float, float]
    bass: str
    lead: str
    lead_s: float


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Rhythm, harmony and timbre of a scene.

    Attributes
    ----------
    kick, snare, hat, chord, bass : patterns of 16 steps per bar, separated by spaces; ``x`` is a hit, ``o`` a soft one.
    """

    beat: Beat
    kick: str
    snare: str
    hat: str
    chord: str
    bass: str
    harmony: Harmony
    timbre: Timbre


MAJOR, MINOR, BLUES = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 3, 4, 5, 7, 9, 10)

SOUNDS: dict[str, Scene] = {
    "band": Scene(
        beat=Beat(bpm=(105, 150), swing=0.0, ride=False, gain=(0.7, 1.1)),
        kick="x.......x.x..... x.....x.x....... x..x....x..x....",
        snare="....x.......x... ....x.......x..o",
        hat="x.x.x.x.x.x.x.x. x.o.x.o.x.o.x.o.",
        chord="x.x.x.x.x.x.x.x. x..x..x.x..x..x. x...x.x.x...x.x.",
        bass="x.x.x.x.x.x.x.x. x...x.x.x...x...",
        harmony=Harmony(scale=MAJOR, progressions="0453 0343 5304", notes=3, octave=0, walking=False),
        timbre=Timbre(chord="saw", chord_s=0.35, drive=(1.5, 4.0), bass="saw", lead="square", lead_s=0.5),
    ),
    "heavy": Scene(
        beat=Beat(bpm=(130, 190), swing=0.0, ride=False, gain=(0.8, 1.2)),
        kick="xxxxxxxxxxxxxxxx x.xxx.xxx.xxx.xx xx..xx..xx..xx..",
        snare="....x.......x... ........x.......",
        hat="x...x...x...x... x.x.x.x.x.x.x.x.",
        chord="x.xxx.xxx.xxx.xx xxx.xxx.xxx.xxx. x..x..x..x..x.x.",
        bass="x.x.x.x.x.x.x.x. xxxxxxxxxxxxxxxx",
        harmony=Harmony(scale=MINOR, progressions="0056 0106 0534", notes=2, octave=-1, walking=False),
        timbre=Timbre(chord="saw", chord_s=0.25, drive=(8.0, 20.0), bass="saw", lead="saw", lead_s=0.4),
    ),
    "machine": Scene(
        beat=Beat(bpm=(116, 136), swing=0.0, ride=False, gain=(0.7, 1.1)),
        kick="x...x...x...x... x...x...x...x.x.",
        snare="....x.......x... ................",
        hat="..x...x...x...x. ..x...x...x...xx x.xxx.xxx.xxx.xx",
        chord="..x...x...x...x. x..x..x..x..x.x. x.xxx.xxx.xxx.xx",
        bass="..x...x...x...x. ..xx..xx..xx..xx",
        harmony=Harmony(scale=MINOR, progressions="0056 0526 0003", notes=3, octave=1, walking=False),
        timbre=Timbre(chord="square", chord_s=0.18, drive=(0.5, 1.5), bass="square", lead="saw", lead_s=0.2),
    ),
    "swing": Scene(
        beat=Beat(bpm=(110, 190), swing=1.0, ride=True, gain=(0.35, 0.7)),
        kick="o...o...o...o... o.........o.....",
        snare="......o.......o. ..........o.....",
        hat="x...x.x.x...x.x.",
        chord="x.....x......... ......x.......x. x.......x.x.....",
        bass="x...x...x...x...",
        harmony=Harmony(scale=MAJOR, progressions="1405 0514 2514", notes=5, octave=0, walking=True),
        timbre=Timbre(chord="bell", chord_s=0.45, drive=(0.3, 0.8), bass="triangle", lead="reed", lead_s=0.4),
    ),
    "shuffle": Scene(
        beat=Beat(bpm=(75, 120), swing=1.0, ride=False, gain=(0.5, 0.9)),
        kick="x.......x....... x.....x.x.....x.",
        snare="....x.......x...",
        hat="x.x.x.x.x.x.x.x.",
        chord="x.x.x.x.x.x.x.x. x.....x.x.....x.",
        bass="x.x.x.x.x.x.x.x. x...x...x...x...",
        harmony=Harmony(scale=BLUES, progressions="0304 0034 0340", notes=4, octave=0, walking=True),
        timbre=Timbre(chord="organ", chord_s=0.4, drive=(1.0, 3.0), bass="triangle", lead="saw", lead_s=0.7),
    ),
    "acoustic": Scene(
        beat=Beat(bpm=(75, 130), swing=0.0, ride=False, gain=(0.0, 0.25)),
        kick="x.......x.......",
        snare="....o.......o...",
        hat="o.o.o.o.o.o.o.o. ................",
        chord="x.x.x.x.x.x.x.x. x..xx.x.x..xx.x. x.xxx.xxx.xxx.xx",
        bass="x.......x.......",
        harmony=Harmony(scale=MAJOR, progressions="0453 0304 5304 0234", notes=4, octave=0, walking=False),
        timbre=Timbre(chord="string", chord_s=0.6, drive=(0.2, 0.5), bass="triangle", lead="string", lead_s=0.8),
    ),
}
"""Scene name (as in :data:`mgc.pipeline.synth.world.SCENES`) -> its parameters."""


@lru_cache(maxsize=256)
def _cycles(wave: str, partials: int) -> tuple[Samples, Samples]:
    """One cycle of a waveform with that many partials, bright and dull: (TABLE_SIZE,) each."""
    h = np.arange(1, partials + 1)
    formants = 1 / (1 + ((h - 5) / 1.5) ** 2) + 0.4 / (1 + ((h - 9) / 2) ** 2)
    shapes = {
        "saw": 1 / h,
        "square": (h % 2) / h,
        "triangle": (h % 2) / h**2.0,
        "organ": np.where(np.isin(h, [1, 2, 3, 4, 6, 8]), 1 / np.sqrt(h), 0),
        "bell": 1 / h**1.6,
        "reed": (h % 2 + 0.3) / h**1.2,
        "string": 1 / h**1.2,
        "voice": 1 / h**1.5 + formants * 0.5,
    }
    waves = np.sin(2 * np.pi * np.outer(h, np.arange(TABLE_SIZE) / TABLE_SIZE))
    return (shapes[wave] @ waves).astype(np.float32), (shapes[wave] / h @ waves).astype(np.float32)


def _tone(wave: str, pitch: float, seconds: float, decay_s: float) -> Samples:
    """A note at MIDI `pitch`, band-limited, with a fast attack and an exponential decay; high partials decay sooner."""
    f_hz = 440.0 * 2 ** ((pitch - 69) / 12)
    bright, dull = _cycles(wave, max(1, min(40, int(0.45 * SAMPLE_RATE_HZ / f_hz))))
    steps = np.arange(int(seconds * SAMPLE_RATE_HZ))
    index = (steps * (f_hz / SAMPLE_RATE_HZ * TABLE_SIZE)).astype(np.int64) % TABLE_SIZE
    t = steps.astype(np.float32) / np.float32(SAMPLE_RATE_HZ)
    envelope = np.minimum(t / 0.004, 1) * np.exp(-t / decay_s) * np.minimum((seconds - t) / 0.01, 1)
    fade = np.exp(-t / (0.4 * decay_s))
    return np.asarray(envelope * (fade * bright[index] + (1 - fade) * dull[index]), dtype=np.float32)


def _drum_kit(ride: bool, rng: np.random.Generator) -> dict[str, Samples]:
    """One-shot kick, snare and hat (or ride cymbal), tuned a little differently for each song."""
    t = np.arange(int(0.5 * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    noise = rng.standard_normal((2, len(t)))
    low_hz, sweep, decay_s = rng.uniform(42, 60), rng.uniform(2, 5), rng.uniform(0.1, 0.2)
    kick = np.sin(2 * np.pi * (low_hz * t + sweep * (1 - np.exp(-t / 0.03)))) * np.exp(-t / decay_s)
    snare = noise[0] * 0.5 * np.exp(-t / rng.uniform(0.06, 0.14))
    snare += 0.6 * np.sin(2 * np.pi * rng.uniform(160, 230) * t) * np.exp(-t / 0.07)
    decay_s = rng.uniform(0.15, 0.3) if ride else rng.uniform(0.02, 0.06)
    hat = np.diff(noise[1], append=0.0) * 0.35 * np.exp(-t / decay_s)
    if ride:
        hat += 0.1 * np.sign(np.sin(2 * np.pi * rng.uniform(3000, 4500) * t)) * np.exp(-t / 0.2)
    return {name: sound.astype(np.float32) for name, sound in (("kick", kick), ("snare", snare), ("hat", hat))}


def step_starts(scene: Scene, n_samples: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Sample at which each of the 16 steps of each bar begins: (bars, 16), swung, with a player's small errors."""
    bar_s = 4 * 60 / rng.uniform(*scene.beat.bpm)
    bars = int(np.ceil(n_samples / SAMPLE_RATE_HZ / bar_s))
    beat, within = np.divmod(np.arange(16) / 4, 1)
    swung = beat + np.interp(within, [0, 0.5, 1], [0, 0.5 + scene.beat.swing * rng.uniform(0.7, 1.0) / 6, 1])
    late_s = np.abs(rng.normal(0, 0.004, size=(bars, 16)))
    return ((np.arange(bars)[:, None] * bar_s + swung / 4 * bar_s + late_s) * SAMPLE_RATE_HZ).astype(np.int64)


def _hit(out: Samples, start: int, sound: Samples, gain: float) -> None:
    n = min(len(sound), len(out) - start)
    if n > 0:
        out[start : start + n] += np.float32(gain) * sound[:n]


def _strikes(pattern: str, rng: np.random.Generator) -> list[tuple[int, float]]:
    """(step, gain) of a pattern's hits in one bar, some left out, each a little louder or softer."""
    loud = {"x": 1.0, "o": 0.4}
    return [(i, loud[c] * rng.uniform(0.8, 1.1)) for i, c in enumerate(pattern) if c != "." and rng.random() > 0.05]


def _pitch(scene: Scene, degree: int) -> int:
    """Semitones above the key of a scale degree (0 is the key itself; any integer)."""
    octave, step = divmod(degree, len(scene.harmony.scale))
    return 12 * octave + scene.harmony.scale[step]


def _pick(patterns: str, rng: np.random.Generator) -> str:
    choices = patterns.split()
    return choices[rng.integers(len(choices))]


def _drums(scene: Scene, starts: npt.NDArray[np.int64], n_samples: int, rng: np.random.Generator) -> Samples:
    out = np.zeros(n_samples, np.float32)
    kit = _drum_kit(scene.beat.ride, rng)
    patterns = {"kick": _pick(scene.kick, rng), "snare": _pick(scene.snare, rng), "hat": _pick(scene.hat, rng)}
    for bar, steps in enumerate(starts):
        if bar % 4 == 0:
            playing = rng.random() < 0.85
        for name, pattern in patterns.items():
            for step, gain in _strikes(pattern, rng):
                _hit(out, int(steps[step]), kit[name], gain * playing)
    return out * np.float32(rng.uniform(*scene.beat.gain))


def _harmony(
    scene: Scene, starts: npt.NDArray[np.int64], n_samples: int, tuning: float, rng: np.random.Generator
) -> tuple[Samples, Samples]:
    """Chords (through the drive) and bass: (n_samples,) each, of unit power."""
    chords, bass = np.zeros((2, n_samples), np.float32)
    harmony, timbre = scene.harmony, scene.timbre
    progression = _pick(harmony.progressions, rng)
    pattern, bass_pattern = _pick(scene.chord, rng), _pick(scene.bass, rng)
    apart = 4 if harmony.notes == 2 else 2  # two notes are a fifth, more are stacked thirds
    notes: dict[int, Samples] = {}
    strums: dict[int, Samples] = {}
    root = 48 + 12 * harmony.octave + tuning
    for bar, steps in enumerate(starts):
        degree = int(progression[bar % len(progression)])
        if degree not in strums:
            pitches = [root + _pitch(scene, degree + apart * k) for k in range(harmony.notes)]
            tones = [_tone(timbre.chord, pitch, 3 * timbre.chord_s, timbre.chord_s) for pitch in pitches]
            strums[degree] = np.sum(tones, axis=0)
        for step, gain in _strikes(pattern, rng):
            _hit(chords, int(steps[step]), strums[degree], gain)
        for step, gain in _strikes(bass_pattern, rng):
            low = degree + (2 * (step // 4) if harmony.walking else 0)
            if low not in notes:
                notes[low] = _tone(timbre.bass, 36 + tuning + _pitch(scene, low), 0.5, 0.3)
            _hit(bass, int(steps[step]), notes[low], gain)
    driven = np.tanh(rng.uniform(*timbre.drive) * unit_power(chords))
    return unit_power(driven), unit_power(bass)


def _melody(
    scene: Scene, starts: npt.NDArray[np.int64], n_samples: int, tuning: float, sung: bool, rng: np.random.Generator
) -> Samples:
    """A random walk on the scale, sung or played, resting in some sections: (n_samples,) of unit power."""
    out = np.zeros(n_samples, np.float32)
    wave, decay_s = ("voice", 0.5) if sung else (scene.timbre.lead, scene.timbre.lead_s)
    notes: dict[int, Samples] = {}
    degree = 4
    for bar, steps in enumerate(starts):
        if bar % 4 == 0:
            playing = rng.random() < 0.7
        for step in range(0, 16, 2):
            if playing and rng.random() < 0.45:
                degree = int(np.clip(degree + rng.integers(-2, 3), -3, 11))
                if degree not in notes:
                    notes[degree] = _tone(wave, 60 + tuning + _pitch(scene, degree), 2 * decay_s, decay_s)
                _hit(out, int(steps[step]), notes[degree], rng.uniform(0.7, 1.0))
    return unit_power(out)


def unit_power(samples: Samples) -> Samples:
    return samples / np.float32(max(1e-6, float(np.sqrt(np.dot(samples, samples) / len(samples)))))


@lru_cache(maxsize=8)
def studio_filter(seed: int, artist: int, n_samples: int) -> npt.NDArray[np.complex64]:
    """An artist's equaliser and room, as one filter in the frequency domain: (n_samples // 2 + 1,)."""
    rng = np.random.default_rng([seed, 6, artist])
    f_hz = np.fft.rfftfreq(n_samples, 1 / SAMPLE_RATE_HZ).astype(np.float32) + 20
    octaves = np.log2(f_hz / 1000)
    gain_db = rng.uniform(-2.0, 2.0) * octaves - 3 * np.log2(1 + (f_hz / rng.uniform(4_000, 10_500)) ** 4)
    for _ in range(2):
        gain_db += rng.uniform(-6, 6) * np.exp(-(((octaves - rng.uniform(-3, 3)) / 0.7) ** 2))
    t = np.arange(min(n_samples, SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    room = rng.uniform(0.0, 0.06) * rng.standard_normal(len(t)) * np.exp(-t / rng.uniform(0.05, 0.3))
    room[0] = 1.0
    return np.asarray(10 ** (gain_db / 20) * np.fft.rfft(room, n_samples), dtype=np.complex64)


def render(scene_name: str, *, seed: int, index: int, artist: int, sung: bool, clip_s: float) -> Samples:
    """Return the audio of one song, with the equaliser and room of its artist.

    Parameters
    ----------
    scene_name : a key of :data:`SOUNDS`.
    seed, index, artist : numbers of the world, the song and the artist; they determine all random draws.
    sung : whether a voice has the melody, or an instrument.

    Returns
    -------
    ndarray
        (round(clip_s * 22 050),) float32, mono, peak at most 0.9.
    """
    n_samples = round(clip_s * SAMPLE_RATE_HZ)
    rng = np.random.default_rng([seed, 5, index])
    scene = SOUNDS[scene_name]
    tuning = int(rng.integers(-5, 7)) + rng.normal(0, 0.1)
    starts = step_starts(scene, n_samples, rng)
    drummer = SOUNDS[list(SOUNDS)[rng.integers(len(SOUNDS))]] if rng.random() < P_GUEST_DRUMMER else scene
    chords, bass = _harmony(scene, starts, n_samples, tuning, rng)
    mix = rng.uniform(0.7, 1.1) * chords + rng.uniform(0.5, 0.9) * bass
    mix += rng.uniform(0.4, 0.9) * _melody(scene, starts, n_samples, tuning, sung, rng)
    mix += 2.5 * _drums(drummer, starts, n_samples, rng)
    mix = np.fft.irfft(np.fft.rfft(unit_power(mix)) * studio_filter(seed, artist, n_samples), n_samples)
    mix = mix.astype(np.float32)
    mix += np.float32(10 ** rng.uniform(-4, -2)) * rng.standard_normal(n_samples, dtype=np.float32)
    return mix * np.float32(rng.uniform(0.3, 0.9) / np.abs(mix).max())
