"""``mgc tag``: tags of songs without training, and reasons for songs that cannot be read."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from mgc import api
from mgc.cache.errors import ConfigError
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.audio.clip_reader import ClipReader
from mgc.pipeline.extractors import musicnn, song_tags

needs_weights = pytest.mark.skipif(find_spec("musicnn") is None, reason=f"no weights: {musicnn.INSTALL}")
RATE_HZ = musicnn.SAMPLE_RATE_HZ


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Noise, a tone, and a text file with the name of a song."""
    folder = tmp_path / "songs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    soundfile.write(folder / "a noise.wav", 0.1 * rng.normal(size=5 * RATE_HZ), RATE_HZ)
    soundfile.write(folder / "b tone.wav", 0.3 * np.sin(np.arange(5 * 44_100) / 30), 44_100)
    (folder / "c.mp3").write_text("<html>404</html>")
    return folder


@pytest.fixture
def long_song(tmp_path: Path) -> Path:
    """76 s: noise, then tones of rising pitch."""
    rng = np.random.default_rng(1)
    times_s = np.arange(46 * RATE_HZ) / RATE_HZ
    tones = 0.3 * np.sin(2 * np.pi * (200 + 20 * times_s) * times_s)
    song = np.concatenate([0.1 * rng.normal(size=30 * RATE_HZ), tones])
    soundfile.write(tmp_path / "long.wav", song, RATE_HZ)
    return tmp_path / "long.wav"


@needs_weights
def test_every_song_has_50_probabilities_or_a_reason(call, songs: Path, tmp_path: Path) -> None:
    done = call("tag", songs, "--json")
    assert done.code == 3
    noise, tone, text = done.json["predictions"]
    assert [Path(song["id"]).name for song in (noise, tone, text)] == ["a noise.wav", "b tone.wav", "c.mp3"]
    assert list(noise["scores"]) == list(musicnn.TAGS)
    by_score = sorted(noise["scores"].items(), key=lambda item: -item[1])
    assert noise["genres"] == [tag for tag, score in by_score if score >= 0.1]
    samples, _ = soundfile.read(songs / "a noise.wav", dtype="float32")
    expected = musicnn.tags(samples, RATE_HZ)
    np.testing.assert_allclose(list(noise["scores"].values()), expected, atol=1e-4)
    assert not np.allclose(list(noise["scores"].values()), list(tone["scores"].values()), atol=0.01)
    assert (text["reason"], text["scores"]) == ("NOT_AUDIO", {})
    assert done.json["model"]["licence"] == "ISC"
    assert any("Million Song Dataset" in remark for remark in done.json["remarks"])
    assert call("tag", songs, "-o", tmp_path / "tags.csv").code == 3
    rows = list(csv.DictReader((tmp_path / "tags.csv").read_text().splitlines()))
    assert float(rows[0]["score: rock"]) == pytest.approx(noise["scores"]["rock"], abs=1e-4)
    assert call("tag", songs, "-o", tmp_path / "tags.jsonl").code == 3
    lines = [json.loads(line) for line in (tmp_path / "tags.jsonl").read_text().splitlines()]
    assert [line["reason"] for line in lines] == [None, None, "NOT_AUDIO"]
    assert call("tag", songs, "-o", tmp_path / "tags.parquet").code == 3
    assert pq.read_table(tmp_path / "tags.parquet")["score: rock"].to_pylist() == [
        *(pytest.approx(song["scores"]["rock"], abs=1e-6) for song in (noise, tone)),
        None,
    ]


@needs_weights
def test_tags_equal_those_of_the_extractor_in_a_store(call, songs: Path, tmp_path: Path) -> None:
    assert call("extract", songs, "-o", tmp_path / "s.zarr", "--features", "mel", "--workers", 0).code == 3
    assert call("extract", songs, "-o", tmp_path / "s.zarr", "--add", "musicnn_tags", "--workers", 0).code == 0
    with FeatureStore.open(tmp_path / "s.zarr") as store:
        stored = store.read("musicnn_tags", store.ok_rows)
    noise, tone, _ = api.tag([songs]).predictions
    np.testing.assert_allclose(stored, [list(song.scores.values()) for song in (noise, tone)], atol=1e-6)


@needs_weights
def test_threshold_selects_tags_and_failures_decide_the_exit_code(call, songs: Path) -> None:
    (song,) = api.tag([songs / "a noise.wav"], threshold=0.0).predictions
    assert song.genres == sorted(musicnn.TAGS, key=lambda tag: -song.scores[tag])
    (song,) = api.tag([songs / "a noise.wav"], threshold=1.0).predictions
    assert song.genres == []
    done = call("tag", songs / "a noise.wav", "--threshold", 1, "--top", 2)
    best, second = sorted(song.scores.items(), key=lambda item: -item[1])[:2]
    first_line, *lines = done.out.splitlines()
    assert (done.code, len(lines)) == (0, 2)
    assert first_line.endswith(f"no tag reaches the threshold; highest: {best[0]} {best[1]:.3f}")
    assert [best[0] in lines[0], second[0] in lines[1]] == [True, True]
    assert call("tag", songs / "c.mp3").code == 2


@needs_weights
def test_whole_song_is_the_mean_over_all_its_windows(call, long_song: Path) -> None:
    done = call("tag", long_song, "--windows", "all", "--json")
    (song,) = done.json["predictions"]
    samples, _ = soundfile.read(long_song, dtype="float32")
    windows = musicnn.network()(musicnn.windows_of(samples))[1]
    assert song["windows"] == len(windows) == 25
    # Frames at the edges of a clip of 30 s see zeros beyond it, so equality is approximate.
    np.testing.assert_allclose(list(song["scores"].values()), windows.mean(axis=0), atol=5e-3)
    (middle,) = api.tag([long_song]).predictions
    assert not np.allclose(list(middle.scores.values()), windows.mean(axis=0), atol=0.02)
    assert middle.windows is None


@needs_weights
def test_every_song_is_decoded_once(monkeypatch: pytest.MonkeyPatch, songs: Path, long_song: Path) -> None:
    reads: Counter[tuple[str, float | None]] = Counter()
    read_samples = ClipReader.read_samples

    def count(reader: ClipReader, path: Path, start_s: float | None = None):
        reads[path.name, start_s] += 1
        return read_samples(reader, path, start_s)

    monkeypatch.setattr(ClipReader, "read_samples", count)
    monkeypatch.setattr(ClipReader, "read", None)
    monkeypatch.setattr(ClipReader, "read_seconds", None)
    api.tag([songs, long_song])
    assert reads == {(name, None): 1 for name in ("a noise.wav", "b tone.wav", "c.mp3", "long.wav")}
    reads.clear()
    api.tag([long_song], windows="all")
    assert [start_s for _, start_s in reads] == pytest.approx([0, 29.92, 59.84])
    assert set(reads.values()) == {1}


@needs_weights
def test_workers_give_the_same_tags_in_the_same_order(songs: Path, long_song: Path) -> None:
    inputs = [long_song, songs / "gone.mp3", songs]
    alone, parallel = (api.tag(inputs, windows="all", workers=workers) for workers in (0, 3))
    assert [song.id for song in alone.predictions] == [song.id for song in parallel.predictions]
    assert [song.reason for song in parallel.predictions] == [None, "SRC_MISSING", None, None, "NOT_AUDIO"]
    for one, other in zip(alone.predictions, parallel.predictions, strict=True):
        np.testing.assert_allclose(list(one.scores.values()), list(other.scores.values()), atol=1e-5)


@needs_weights
def test_unreadable_window_fails_alone_and_unreadable_scores_fail_the_song(
    monkeypatch: pytest.MonkeyPatch, songs: Path, long_song: Path
) -> None:
    network, n_calls = musicnn.network(), 0

    def damage(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        nonlocal n_calls
        n_calls += 1
        features, tags = network(windows)
        return features, tags * (np.nan if n_calls in (2, 4) else 1)

    monkeypatch.setattr(song_tags, "network", lambda: damage)
    long, noise, _, _ = api.tag([long_song, songs], windows="all").predictions
    assert (long.windows, long.failed_windows, long.reason) == (15, 10, None)
    assert str(long.detail).startswith("the windows from 29.92 s: EXTRACTOR_FAILED")
    assert (noise.reason, noise.scores) == ("EXTRACTOR_FAILED", {})


@needs_weights
def test_timeline_has_a_row_per_3_s_and_leaves_the_mean_as_it_is(
    call, songs: Path, long_song: Path, tmp_path: Path
) -> None:
    plain = call("tag", long_song, songs, "--windows", "all", "-o", tmp_path / "plain.csv")
    timed = call("tag", long_song, songs, "--timeline", tmp_path / "t.parquet", "-o", tmp_path / "timed.csv")
    assert (plain.code, timed.code) == (3, 3)
    assert (tmp_path / "plain.csv").read_bytes() == (tmp_path / "timed.csv").read_bytes()
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    ids = [str(path) for path in (long_song, songs / "a noise.wav", songs / "b tone.wav", songs / "c.mp3")]
    assert [row["id"] for row in rows] == [ids[0]] * 25 + ids[1:]
    np.testing.assert_allclose([row["start_s"] for row in rows[:25]], 2.992 * np.arange(25))
    np.testing.assert_allclose([row["end_s"] for row in rows[:25]], 2.992 * np.arange(1, 26))
    assert (rows[-1]["reason"], rows[-1]["score: rock"]) == ("NOT_AUDIO", None)
    means = {row["id"]: row for row in csv.DictReader((tmp_path / "plain.csv").read_text().splitlines())}
    mean = np.mean([row["score: rock"] for row in rows[:25]])
    assert float(means[ids[0]]["score: rock"]) == pytest.approx(mean, abs=1e-6)
    assert call("tag", long_song, songs, "--timeline", tmp_path / "page.html").code == 3
    page = (tmp_path / "page.html").read_text()
    assert 'src="long.wav"' in page
    assert "NOT_AUDIO" in page


@needs_weights
def test_paths_come_from_standard_input(call, songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{songs / 'b tone.wav'}\n{songs / 'gone.wav'}\n"))
    done = call("tag", "-", "--json")
    assert [song["reason"] for song in done.json["predictions"]] == [None, "SRC_MISSING"]
    assert done.code == 3
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    done = call("tag", "-")
    assert (done.code, "standard input has no paths" in done.err) == (2, True)


def test_missing_weights_and_files_are_refused_before_anything_is_decoded(
    call, songs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    done = call("tag", tmp_path / "empty")
    assert (done.code, "no audio file in this folder" in done.err) == (2, True)
    with pytest.raises(ConfigError, match="windows 'some'"):
        api.tag([songs], windows="some")
    musicnn.network.cache_clear()
    monkeypatch.setattr(musicnn, "find_spec", lambda name: None)
    done = call("tag", songs)
    assert (done.code, "pip install --no-deps musicnn==0.1.0" in done.err) == (2, True)
