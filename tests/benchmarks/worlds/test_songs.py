"""Test the synthetic benchmark: genre sets, evidence in songs, and written files."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from benchmarks.worlds.labels import JAMENDO_TABLES, generated_label_sets, multi_hot, read_label_sets
from benchmarks.worlds.motifs import MOTIFS, motif, render_motifs
from benchmarks.worlds.songs import RELATIVES, SPLIT_SHARES, BenchmarkWorld, make_benchmark, make_evidence
from benchmarks.worlds.topics import TOPICS
from mgc.cache.errors import ConfigError, ManifestError
from mgc.pipeline.sources.datasets import load_source
from mgc.pipeline.sources.options import SourceOptions

N_SONGS = 900


@pytest.fixture(scope="module")
def world() -> BenchmarkWorld:
    return BenchmarkWorld(labels=generated_label_sets(0), seed=0)


@pytest.fixture(scope="module")
def songs(world):
    return world.songs(N_SONGS)


def test_label_rows_are_grouped_by_artist_and_genres_sorted_by_frequency(tmp_path):
    rows = {
        "train": ["t1\ta1\tx\tp\t9.0\tgenre---rock\tgenre---pop", "t2\ta1\tx\tp\t9.0\tgenre---rock"],
        "validation": ["t3\ta2\tx\tp\t9.0\tgenre---jazz\tmood/theme---calm\tgenre---rock"],
        "test": ["t4\ta2\tx\tp\t9.0\tgenre---pop", "t5\ta3\tx\tp\t9.0\tmood/theme---calm"],
    }
    for name, lines in zip(JAMENDO_TABLES, rows.values(), strict=True):
        (tmp_path / name).write_text("\n".join(["TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS", *lines]) + "\n")
    labels = read_label_sets(tmp_path)
    assert labels.genres == ("rock", "pop", "jazz")
    assert labels.artists == (((0, 1), (0,)), ((0, 2), (1,)))
    assert labels.matrix().tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_missing_label_table_is_refused_with_its_name(tmp_path):
    with pytest.raises(ManifestError, match="autotagging_genre-train.tsv"):
        read_label_sets(tmp_path)


def test_genre_frequencies_follow_real_label_rows(real_data):
    labels = read_label_sets(real_data / "mtg_jamendo")
    matrix = labels.matrix()
    assert matrix.shape == (55_094, 87)
    assert labels.genres[0] == "electronic"
    songs = BenchmarkWorld(labels=labels, seed=0).songs(N_SONGS)
    frequency = multi_hot([song.genres for song in songs], 87).mean(axis=0)
    assert np.abs(frequency - matrix.mean(axis=0)).max() < 0.05


def test_generated_label_sets_have_families_and_a_long_tail(world):
    matrix = world.labels.matrix().astype(float)
    p = matrix.mean(axis=0)
    assert matrix.shape[1] == 87
    assert 2.0 < matrix.sum(axis=1).mean() < 3.0
    assert p[0] > 8 * p[60]
    lift = (matrix.T @ matrix / len(matrix)) / np.outer(p, p)
    others = lift[:30, :30][~np.eye(30, dtype=bool)]
    assert others.max() > 4  # genres of one family
    assert others.min() < 0.5  # genres that rarely occur together


def test_own_motifs_and_topics_identify_a_genre_and_shared_ones_do_not(world):
    evidence = world.evidence()
    assert Counter(evidence.kinds) == {"sound": 29, "words": 29, "both": 29}
    assert all(len(set(evidence.kinds[i : i + 3])) == 3 for i in range(0, 87, 3))
    every = [style for styles in evidence.styles for style in styles]
    assert len(set(every)) == len(every) == 29 + 29 + 2 * 29
    for modality in (0, 1):
        owners = Counter(style[modality] for style in every if style[modality] is not None)
        own = {style[modality] for style in every if style[modality] is not None and style[1 - modality] is None}
        shared = {style[modality] for style in every if None not in style}
        assert own.isdisjoint(shared)
        assert all(owners[x] == 1 for x in own)
        assert all(owners[x] >= 4 for x in shared)


def test_too_many_genres_are_refused():
    with pytest.raises(ConfigError, match="too many for the motifs and topics"):
        make_evidence(120, 0)


def test_kin_adds_evidence_of_related_frequent_genres_to_rare_genres(world):
    plain, kin = world.evidence(), dataclasses.replace(world, kin=True).evidence()
    matrix = world.labels.matrix()
    n_frequent = -(-len(world.labels.genres) // 2)
    assert kin.styles[:n_frequent] == plain.styles[:n_frequent]
    for genre in range(n_frequent, len(kin.styles)):
        own, shared = kin.styles[genre][: len(plain.styles[genre])], kin.styles[genre][len(plain.styles[genre]) :]
        assert own == plain.styles[genre]
        together = matrix[matrix[:, genre]][:, :n_frequent].sum(axis=0)
        relatives = sorted(range(n_frequent), key=lambda other: -together[other])[:RELATIVES]
        assert shared == tuple(plain.styles[relative][0] for relative in relatives)


def test_songs_have_evidence_of_their_genres_and_labels_have_noise(world, songs):
    evidence, n_missing, n_checked = world.evidence(), 0, 0
    for song in songs:
        for genre in song.true_genres:
            for modality, present in ((0, song.motifs), (1, song.topics)):
                expected = {style[modality] for style in evidence.styles[genre]} - {None}
                if expected and (modality == 0 or song.lyrics):
                    n_missing, n_checked = n_missing + expected.isdisjoint(present), n_checked + 1
    assert 0.03 < n_missing / n_checked < 0.12
    assert 0.04 < np.mean([song.genres != song.true_genres for song in songs]) < 0.15
    assert all(song.genres for song in songs)


def test_artists_are_in_one_split_and_their_songs_share_genres(songs):
    by_artist = {}
    for song in songs:
        by_artist.setdefault(song.artist, []).append(song)
    assert all(len({song.split for song in own}) == 1 for own in by_artist.values())
    shares = Counter(song.split for song in songs)
    assert all(abs(shares[split] / N_SONGS - share) < 0.03 for split, share in SPLIT_SHARES.items())
    same_artist = [
        len(set(a.genres) & set(b.genres)) > 0 for own in by_artist.values() for a, b in itertools.combinations(own, 2)
    ]
    other_artists = [len(set(a.genres) & set(b.genres)) > 0 for a, b in zip(songs, songs[400:], strict=False)]
    assert np.mean(same_artist) > 1.5 * np.mean(other_artists)


def test_lyrics_are_short_and_some_songs_have_none(songs):
    sung = [song for song in songs if song.lyrics is not None]
    assert 0.06 < 1 - len(sung) / N_SONGS < 0.14
    assert all(20 <= len(song.lyrics.split()) <= 75 for song in sung)
    nouns = [set(words.nouns) for words in TOPICS.values()]
    assert len(set().union(*nouns)) == sum(map(len, nouns))  # no noun belongs to two topics
    for song in sung[:100]:
        assert all(any(noun in song.lyrics for noun in nouns[topic]) for topic in song.topics)


def test_larger_benchmark_starts_with_the_songs_of_a_smaller_one(world, songs):
    assert world.songs(7) == songs[:7]
    assert BenchmarkWorld(labels=world.labels, seed=1).songs(7) != songs[:7]


def _centroid_octaves(samples: np.ndarray) -> np.ndarray:
    """Return the power-weighted mean of log2 frequency per 40 ms."""
    frames = samples[: len(samples) // 882 * 882].reshape(-1, 882) * np.hanning(882)
    power = np.abs(np.fft.rfft(frames))[:, 1:] ** 2
    octaves = np.log2(np.arange(1, power.shape[1] + 1))
    return (power * octaves).sum(axis=1) / power.sum(axis=1)


@pytest.mark.parametrize("voice", ["pure", "reedy", "bell"])
def test_movement_of_motifs_follows_their_name(voice):
    def render(move: str) -> np.ndarray:
        return motif(MOTIFS.index((voice, move)), 5 * 22_050, np.random.default_rng(0))

    steps = {move: np.diff(_centroid_octaves(render(move))) for move in ("held", "rising", "falling", "swaying")}
    assert np.median(steps["rising"]) > 0.01
    assert np.median(steps["falling"]) < -0.01
    assert np.abs(steps["held"]).mean() < 0.5 * np.abs(steps["swaying"]).mean()
    level = np.abs(render("ticking"))[: 22_050 * 4].reshape(-1, 441).max(axis=1)
    spectrum = np.abs(np.fft.rfft(level - level.mean()))
    assert 7.0 <= np.argmax(spectrum[1:]) / 4 + 0.25 <= 9.25  # ticks per second


def test_clips_have_the_given_length_do_not_clip_and_are_reproducible():
    clips = [render_motifs((3, 20), seed=0, index=5, artist=2, clip_s=1.5) for _ in range(2)]
    assert clips[0].shape == (33_075,)
    assert 0.2 < np.abs(clips[0]).max() <= 0.9
    np.testing.assert_array_equal(clips[0], clips[1])
    silent = render_motifs((), seed=0, index=6, artist=2, clip_s=1.5)
    assert np.abs(silent).max() > 0.2  # a song without motifs has noise


def test_songs_of_the_tables_do_not_change():
    """The figures of `make tables` depend on these songs; a change invalidates them."""
    songs = BenchmarkWorld(labels=generated_label_sets(0), seed=0).songs(40)
    text = json.dumps([[s.id, s.artist, s.split, s.true_genres, s.genres, s.motifs, s.topics, s.lyrics] for s in songs])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "1de29400b3ffe699"
    samples = render_motifs(songs[3].motifs, seed=0, index=3, artist=songs[3].artist, clip_s=1.0)[1000::4000]
    np.testing.assert_allclose(samples, [0.0129, -0.0326, -0.0489, 0.0069, -0.0273, 0.0224], atol=2e-4)


def test_written_songs_are_a_complete_source_and_existing_clips_are_kept(world, songs, tmp_path):
    make_benchmark(tmp_path, world, 3, clip_s=0.5)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "audios").iterdir()}
    progress = []
    manifest = make_benchmark(tmp_path, world, 6, clip_s=0.5, workers=2, on_progress=lambda *n: progress.append(n))
    assert progress[-1] == (6, 6)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "audios").iterdir()}
    assert len(after) == 6
    assert before.items() <= after.items()
    tracks = {track.id: track for track in load_source(manifest, SourceOptions()).tracks}
    for song in songs[:6]:
        track = tracks[song.id]
        assert track.genres == tuple(world.labels.genres[genre] for genre in song.genres)
        assert (track.split, track.artists, track.lyrics) == (song.split, (f"Artist {song.artist}",), song.lyrics)
        samples, rate_hz = soundfile.read(Path(manifest).parent / track.path)
        assert (len(samples), rate_hz) == (11_025, 22_050)


def test_zero_songs_are_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="at least one song"):
        make_benchmark(tmp_path, world, 0)
