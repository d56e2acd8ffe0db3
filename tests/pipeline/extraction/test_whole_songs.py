"""Whole songs as windows: number, start, and batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from mgc.cache.errors import ClipError
from mgc.cache.format.recipe import MelRecipe
from mgc.pipeline.audio.clips import audio_seconds, decode_clip
from mgc.pipeline.audio.containers import Caps
from mgc.pipeline.extraction.whole_songs import batch_songs, count_windows
from mgc.pipeline.sources.manifest import Source, Track

RECIPE = MelRecipe(clip_s=2.0)


@pytest.mark.parametrize("name", ["song.wav", "song.flac", "song.ogg", "song.mp3"])
def test_concatenated_windows_equal_the_song(name: str, tmp_path: Path) -> None:
    """Each is decoded by itself, from a seek; together they are the file decoded and resampled in one go."""
    audio = 0.2 * np.random.default_rng(0).standard_normal(round(7.3 * 44_100)).cumsum()
    audio -= np.convolve(audio, np.ones(441) / 441, "same")
    path = tmp_path / name
    soundfile.write(path, 0.5 * audio / np.abs(audio).max(), 44_100)
    decoded, _ = soundfile.read(path, dtype="float32")
    whole = soxr.resample(decoded, 44_100, 22_050, quality="HQ")
    clips = [decode_clip(path, RECIPE, start_s=2.0 * k) for k in range(4)]
    assert [clip.offset_s for clip in clips] == [0, 2, 4, 6]
    assert {round(clip.seconds, 1) for clip in clips} == {round(audio_seconds(path, Caps()), 1)} == {7.3}
    concatenated = np.concatenate([clip.samples[: clip.n_valid] for clip in clips])[: len(whole)]
    loss_db = 20 * np.log10(
        np.sqrt(np.mean((concatenated - whole[: len(concatenated)]) ** 2)) / np.sqrt(np.mean(whole**2))
    )
    assert loss_db < -60
    with pytest.raises(ClipError, match="EMPTY|DECODE_ERROR"):
        decode_clip(path, RECIPE, start_s=8.0)


def test_batches_keep_songs_together_in_order_with_their_lyrics(tmp_path: Path) -> None:
    for name, seconds in (("b", 5.2), ("a", 2.9), ("c", 9.0)):
        soundfile.write(tmp_path / f"{name}.wav", np.full(round(seconds * 8_000), 0.1), 8_000)
    tracks = [Track(id=name, path=f"{name}.wav", lyrics_path=f"{name}.txt") for name in ("b", "a", "gone", "c")]
    source, progress = Source(root=tmp_path, tracks=tracks), list[int]()
    counts = count_windows(source, RECIPE, lambda step, done, total, note="": progress.append(done))
    assert (counts, progress) == ([3, 1, 1, 5], [1, 2, 3, 4])  # 0.6, 0.45 and 0.5 of a clip are left over
    batches = list(batch_songs(source, counts, RECIPE, max_windows=4))
    assert [[song.id for song in batch.songs] for batch in batches] == [["a", "b"], ["c"], ["gone"]]
    first = batches[0]
    assert [track.path for track in first.source.tracks] == ["a.wav", "b.wav", "b.wav", "b.wav"]
    assert [track.lyrics_path for track in first.source.tracks] == ["a.txt", "b.txt", "b.txt", "b.txt"]
    ids = [track.id for track in first.source.tracks]
    assert ids == sorted(ids)
    assert [first.starts_s.get(name) for name in ids] == [None, 0.0, 2.0, 4.0]
    assert [first.song_of[name] for name in ids] == [0, 1, 1, 1]
