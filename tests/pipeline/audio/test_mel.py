"""Log-mel spectrograms against librosa."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import numpy.typing as npt
import pytest

from mgc.cache.format.recipe import MelRecipe
from mgc.pipeline.audio.clips import decode_clip
from mgc.pipeline.audio.mel import log_mel, mel_bank, mel_frames

pytestmark = pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")  # librosa's

FAST, LIBROSA = MelRecipe(), MelRecipe(backend="librosa")
TOLERANCE_DB = 0.05
FLOAT16_DB = 0.016
RATE_HZ = 22_050

Float32 = npt.NDArray[np.float32]


def reference(y: Float32, recipe: MelRecipe = FAST) -> Float32:
    power = librosa.feature.melspectrogram(
        y=y,
        sr=recipe.sample_rate_hz,
        n_fft=recipe.n_fft,
        hop_length=recipe.hop_length,
        n_mels=recipe.n_mels,
        fmin=recipe.fmin_hz,
        fmax=recipe.fmax_hz,
    )
    return librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)


def worst_db(mel: Float32, wanted: Float32) -> float:
    """Largest difference where the reference is within 80 dB of its maximum."""
    audible = wanted > wanted.max() - 80
    return float(np.abs(mel - wanted)[audible].max())


def signals() -> dict[str, Float32]:
    rng = np.random.default_rng(7)
    t = np.arange(FAST.n_samples) / RATE_HZ
    clicks = np.zeros(FAST.n_samples)
    clicks[::7001] = 1
    return {
        "noise": rng.standard_normal(FAST.n_samples) * 0.3,
        "sweep": np.sin(2 * np.pi * (20 * t + 180 * t**2)),
        "chord": sum(np.sin(2 * np.pi * f * t) for f in (55, 440, 3520, 10_000)) / 4,
        "clicks": clicks,
        "faint noise": rng.standard_normal(FAST.n_samples) * 1e-4,
        "loud noise": rng.standard_normal(FAST.n_samples) * 8,
        "half a clip": np.where(t < 15, rng.standard_normal(FAST.n_samples), 0),
    }


@pytest.mark.parametrize("backend", ["fast", "librosa"])
def test_silence_of_a_whole_clip_is_finite_and_at_the_floor(backend: str) -> None:
    """paper.md check 1."""
    recipe = MelRecipe(backend=backend)
    mel = log_mel(np.zeros(661_500, dtype=np.float32), recipe)
    assert mel.shape == (128, 1292) == (recipe.n_mels, recipe.n_frames)
    assert mel.dtype == np.float32
    assert np.isfinite(mel).all()
    np.testing.assert_allclose(mel, -100, atol=1e-4)


@pytest.mark.parametrize("name", signals())
def test_fast_path_equals_librosa(name: str) -> None:
    y = signals()[name].astype(np.float32)
    wanted = reference(y)
    assert worst_db(log_mel(y, FAST), wanted) < TOLERANCE_DB
    np.testing.assert_array_equal(log_mel(y, LIBROSA), wanted)


@pytest.mark.parametrize(
    "recipe",
    [
        MelRecipe(sample_rate_hz=16_000, n_fft=1024, hop_length=160, n_mels=64, fmin_hz=20, fmax_hz=8_000, clip_s=3),
        MelRecipe(sample_rate_hz=44_100, n_fft=4096, hop_length=1024, n_mels=96, fmin_hz=30, fmax_hz=16_000, clip_s=3),
        MelRecipe(clip_s=0.1),
    ],
)
def test_other_recipes_equal_librosa_too(recipe: MelRecipe) -> None:
    y = np.random.default_rng(1).standard_normal(recipe.n_samples).astype(np.float32)
    mel = log_mel(y, recipe)
    assert mel.shape == (recipe.n_mels, recipe.n_frames)
    assert worst_db(mel, reference(y, recipe)) < TOLERANCE_DB


@pytest.mark.parametrize(
    ("rate_hz", "n_fft", "n_mels", "fmin_hz", "fmax_hz"),
    [(22_050, 2048, 128, 0, 11_025), (16_000, 1024, 64, 20, 8_000), (44_100, 4096, 96, 1_500, 16_000)],
)
def test_the_filter_bank_is_librosas_bit_for_bit(
    rate_hz: int, n_fft: int, n_mels: int, fmin_hz: float, fmax_hz: float
) -> None:
    wanted = librosa.filters.mel(sr=rate_hz, n_fft=n_fft, n_mels=n_mels, fmin=fmin_hz, fmax=fmax_hz)
    np.testing.assert_array_equal(mel_bank(rate_hz, n_fft, n_mels, fmin_hz, fmax_hz), wanted)


def test_twice_the_amplitude_is_six_decibels_more() -> None:
    y = signals()["chord"].astype(np.float32)
    once, twice = log_mel(y, FAST), log_mel(2 * y, FAST)
    audible = once > once.max() - 60
    np.testing.assert_allclose((twice - once)[audible], 20 * np.log10(2), atol=1e-3)


@pytest.mark.parametrize(
    ("n_valid", "frames"), [(1, 1), (512, 1), (513, 2), (22_050, 44), (661_000, 1292), (661_500, 1292), (0, 1)]
)
def test_mel_frames_counts_frames_centred_on_audio(n_valid: int, frames: int) -> None:
    assert mel_frames(n_valid, FAST) == frames


def test_frames_past_mel_frames_are_silent_except_the_last_window() -> None:
    """A window reaches n_fft/2 = 4 hops past the last sample; from there on only the floor is left."""
    y = np.zeros(FAST.n_samples, dtype=np.float32)
    y[:100_000] = np.random.default_rng(0).standard_normal(100_000)
    mel, frames = log_mel(y, FAST), mel_frames(100_000, FAST)
    assert mel[:, frames - 1].max() > 0
    np.testing.assert_allclose(mel[:, frames + 4 :], -100, atol=1e-4)


def test_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="mix down"):
        log_mel(np.zeros((2, 22_050), dtype=np.float32), FAST)


def test_every_real_song_equals_librosa_load_and_melspectrogram(real_data: Path) -> None:
    """Decoding, downmix, resampling, crop and mel together, before and after float16, over all 65 songs."""
    songs = sorted((real_data / "songs/audios").glob("*.mp3"))
    assert len(songs) == 65
    worst: dict[str, float] = {}
    for song in songs:
        y, _ = librosa.load(song, sr=RATE_HZ)
        wanted = reference(librosa.util.fix_length(y, size=FAST.n_samples))
        mel = log_mel(decode_clip(song, FAST).samples, FAST)
        worst[song.name] = worst_db(mel, wanted)
        assert worst_db(mel.astype(np.float16).astype(np.float32), wanted) < TOLERANCE_DB + FLOAT16_DB, song.name
    assert max(worst.values()) < TOLERANCE_DB, worst


def test_the_librosa_backend_is_librosa_on_real_songs(real_data: Path) -> None:
    for song in sorted((real_data / "songs/audios").glob("*.mp3"))[::16]:
        y, _ = librosa.load(song, sr=RATE_HZ)
        wanted = reference(librosa.util.fix_length(y, size=FAST.n_samples))
        mel = log_mel(decode_clip(song, LIBROSA).samples, LIBROSA)
        assert worst_db(mel, wanted) < 1e-3, song.name
