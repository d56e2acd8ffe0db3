"""Features that are drawn for the larger benchmark world, on the CPU: they show what their songs have."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import torch

from benchmarks.worlds.features import FeatureWorld, band_of, draw, spectrogram, word_vectors
from benchmarks.worlds.labels import generated_label_sets
from benchmarks.worlds.motifs import MOTIFS, PARTIALS, movement
from benchmarks.worlds.songs import BenchmarkWorld
from benchmarks.worlds.topics import TOPICS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def asked() -> FeatureWorld:
    world = BenchmarkWorld(labels=generated_label_sets(0), seed=0)
    return FeatureWorld(world=world, n_songs=64, clip_s=2.0, text_dim=384, max_tokens=64, part_rows=16)


def test_bands_are_those_of_the_filter_bank() -> None:
    centres_hz = librosa.mel_frequencies(n_mels=130, fmin=0, fmax=11_025)[1:-1]
    np.testing.assert_allclose(band_of(centres_hz), np.arange(128), atol=1e-6)


def test_the_loudest_band_follows_a_motif(asked: FeatureWorld) -> None:
    """A song of one motif with a single strong partial that slides: the spectrogram's ridge is where it moves to."""
    rising = MOTIFS.index(("pure", "rising"))
    song = next(song for song in asked.songs() if not song.motifs)
    song = type(song)(**{**vars(song), "motifs": (rising,)})
    mel = spectrogram(song, 87, CPU, torch.Generator().manual_seed(0)).numpy()
    own = np.random.default_rng([song.seed, 32, song.index])
    own.uniform(-0.5, 0.5)  # the floor, which is drawn first
    pitch_hz, _ = movement(rising, np.arange(87) * 512 / 22_050, own)
    wanted = band_of(PARTIALS["pure"][0][0] * pitch_hz)
    assert np.median(np.abs(mel.argmax(axis=0) - wanted)) < 1.5


def test_words_of_one_topic_are_alike_and_lyrics_are_their_words(asked: FeatureWorld) -> None:
    songs = asked.songs()
    words = word_vectors(songs, asked.text_dim, 0)
    arrays = draw(asked, songs[:16], words, CPU)

    def mean_cosine(one: str, other: str) -> float:
        def of(topic: str) -> np.ndarray:
            nouns = [noun for noun in TOPICS[topic].nouns if noun in words.row]
            found = words.vectors[[words.row[noun] for noun in nouns]].numpy()
            return found / np.linalg.norm(found, axis=1, keepdims=True)

        return float((of(one)[:, None] * of(other)[None]).sum(axis=-1).mean())

    assert mean_cosine("sea", "sea") > 0.4
    assert abs(mean_cosine("sea", "law")) < 0.2
    for song, states, n, pooled in zip(
        songs, arrays["lyrics"], arrays["lyrics_tokens"], arrays["lyrics_pooled"], strict=False
    ):
        assert n == (0 if song.lyrics is None else len(song.lyrics.split()) + 2)
        assert not states[n:].any()
        if song.lyrics is None:
            assert np.isnan(pooled).all()
            continue
        np.testing.assert_allclose(states[1 : n - 1].astype(np.float32).mean(axis=0), pooled, atol=1e-3)
        nearest = words.vectors.numpy() @ states[1].astype(np.float32)
        assert nearest.argmax() == words.row[song.lyrics.split()[0]]
