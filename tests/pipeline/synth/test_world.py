"""The generated demo collection: properties of songs and files."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from mgc.cache.errors import ConfigError
from mgc.pipeline.synth import audio, lyrics, world


def _files(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _table(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return world.make_collection(tmp_path_factory.mktemp("world"), 16, 0, clip_s=4.0, workers=2)


def test_same_seed_gives_same_bytes_with_any_threads(collection: Path, tmp_path: Path) -> None:
    fewer = _files(world.make_collection(tmp_path / "again", 5, 0, clip_s=4.0, workers=1))
    whole = _files(collection)
    media = {name for name in fewer if not name.endswith(".csv")}
    assert len(media) == 10
    assert {name: whole[name] for name in media} == {name: fewer[name] for name in media}
    assert (tmp_path / "again/id_genres.csv").read_text() == "".join(
        (collection / "id_genres.csv").read_text().splitlines(keepends=True)[:6]
    )
    other = _files(world.make_collection(tmp_path / "other", 5, 1, clip_s=4.0))
    assert media.isdisjoint(other)


def test_layout_is_that_of_music4all(collection: Path) -> None:
    headers = {
        "id_information.csv": ["id", "artist", "song", "album_name"],
        "id_genres.csv": ["id", "genres"],
        "id_lang.csv": ["id", "lang"],
    }
    tables = {name: _table(collection / name) for name in headers}
    ids = [row[0] for row in tables["id_genres.csv"][1:]]
    assert len(set(ids)) == 16
    assert all(len(id_) == 16 and id_.isascii() and id_.isalnum() for id_ in ids)
    for name, header in headers.items():
        assert tables[name][0] == header
        assert [row[0] for row in tables[name][1:]] == ids
        assert {len(row) for row in tables[name]} == {len(header)}
    assert {path.stem for path in (collection / "audios").iterdir()} == set(ids)
    for id_, language in tables["id_lang.csv"][1:]:
        text = (collection / "lyrics" / f"{id_}.txt").read_text(encoding="utf-8")
        assert (text.strip() == "INSTRUMENTAL") == (language == "INTRUMENTAL")
        assert language in {"en", "INTRUMENTAL"}


def test_clips_decode_to_the_length_asked_for_mono_unclipped_and_loud_enough(collection: Path) -> None:
    for path in (collection / "audios").iterdir():
        samples, rate_hz = soundfile.read(path)
        assert samples.shape == (4 * 22_050,)
        assert rate_hz == 22_050
        assert 0.1 < np.abs(samples).max() < 1.0


def test_progress_counts_up_to_the_number_of_songs(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    world.make_collection(
        tmp_path, 3, 0, clip_s=0.5, on_progress=lambda step, done, total, note="": seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("n_songs", "clip_s"), [(0, 30.0), (4, 0.0)])
def test_empty_collection_is_refused(tmp_path: Path, n_songs: int, clip_s: float) -> None:
    with pytest.raises(ConfigError, match="at least one song"):
        world.make_collection(tmp_path, n_songs, clip_s=clip_s)


@pytest.mark.parametrize("seed", range(6))
def test_240_songs_are_neither_trivial_nor_hopeless(seed: int) -> None:
    songs = [world.make_song(seed, index) for index in range(240)]
    counts = Counter(genre for song in songs for genre in song.genres)
    top = max(counts, key=lambda genre: counts[genre])
    majority_jaccard = np.mean([(top in song.genres) / len(song.genres) for song in songs])
    assert 8 <= len(counts) <= 12
    assert min(counts.values()) >= 10
    assert 1.4 <= sum(counts.values()) / len(songs) <= 2.0
    assert 0.2 <= majority_jaccard <= 0.35
    assert 0.05 <= np.mean([song.lyrics is None for song in songs]) <= 0.16
    assert len({song.artist.name for song in songs}) == 80
    assert max(Counter(song.artist.name for song in songs).values()) <= 5
    assert len({song.title for song in songs}) == len({song.id for song in songs}) == 240
    assert all(40 <= len(song.lyrics.split()) <= 160 for song in songs if song.lyrics)


def test_genres_co_occur_and_exclude_each_other() -> None:
    pairs = Counter(p for i in range(2000) for p in itertools.permutations(world.make_song(0, i).genres, 2))
    alone = Counter(g for i in range(2000) for g in world.make_song(0, i).genres)
    assert pairs["metal", "rock"] > 0.75 * alone["metal"]
    assert pairs["punk", "rock"] > 0.75 * alone["punk"]
    assert pairs["jazz", "electronic"] < 0.05 * alone["jazz"]


def test_the_rules_leave_no_song_without_a_genre() -> None:
    rng = np.random.default_rng(0)
    for scene in world.SCENES:
        for theme in (*lyrics.THEMES, "none"):
            assert world.genres_of(scene, theme, rng)


def test_names_of_artists_never_repeat() -> None:
    assert len({world.make_artist(0, number).name for number in range(3000)}) == 3000


@pytest.mark.parametrize("n_songs", [1, 12, 20, 240])
def test_predicted_song_is_by_an_unseen_artist(n_songs: int) -> None:
    song = world.unheard_song(0, n_songs)
    assert song.index >= n_songs
    assert song.lyrics is not None
    assert song.artist.name not in {world.make_song(0, index).artist.name for index in range(n_songs)}


def test_swing_delays_the_off_beat_and_machines_are_straight() -> None:
    for name, low, high in (("machine", 0.45, 0.55), ("swing", 0.57, 0.70)):
        starts = audio.step_starts(audio.SOUNDS[name], 22_050 * 30, np.random.default_rng(0))
        beat = np.diff(starts[:, 0]).mean() / 4
        off_beat = (starts[:, 2] - starts[:, 0]).mean() / beat
        assert low < off_beat < high


def test_tempo_of_the_machine_scene_is_detectable() -> None:
    """librosa's beat tracker finds 116 to 136 beats a minute (or the half or double of it) in rendered songs."""
    songs = [song for song in map(world.make_song, itertools.repeat(0), range(60)) if song.scene == "machine"][:3]
    for song in songs:
        tempo = float(np.atleast_1d(librosa.feature.tempo(y=world.render_song(song, clip_s=12.0), sr=22_050))[0])
        assert any(112 <= tempo * factor <= 140 for factor in (0.5, 1, 2))
