"""Test the generated features of the larger synthetic benchmark, on the CPU, against their songs."""

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
def benchmark() -> FeatureWorld:
    world = BenchmarkWorld(labels=generated_label_sets(0), seed=0)
    return FeatureWorld(world=world, n_songs=64, clip_s=2.0, text_dim=384, max_tokens=64, part_rows=16)


def test_bands_agree_with_librosa() -> None:
    centres_hz = librosa.mel_frequencies(n_mels=130, fmin=0, fmax=11_025)[1:-1]
    np.testing.assert_allclose(band_of(centres_hz), np.arange(128), atol=1e-6)


def test_loudest_band_follows_the_motif(benchmark: FeatureWorld) -> None:
    """The song has a single motif with one strong moving partial."""
    rising = MOTIFS.index(("pure", "rising"))
    song = next(song for song in benchmark.songs() if not song.motifs)
    song = type(song)(**{**vars(song), "motifs": (rising,)})
    mel = spectrogram(song, 87, CPU, torch.Generator().manual_seed(0)).numpy()
    own = np.random.default_rng([song.seed, 32, song.index])
    own.uniform(-0.5, 0.5)  # the noise floor, drawn first
    pitch_hz, _ = movement(rising, np.arange(87) * 512 / 22_050, own)
    expected = band_of(PARTIALS["pure"][0][0] * pitch_hz)
    assert np.median(np.abs(mel.argmax(axis=0) - expected)) < 1.5


def test_words_of_a_topic_are_similar_and_states_follow_the_words(benchmark: FeatureWorld) -> None:
    songs = benchmark.songs()
    words = word_vectors(songs, benchmark.text_dim, 0)
    arrays = draw(benchmark, songs[:16], words, CPU)

    def mean_cosine(topic: str, other: str) -> float:
        def vectors_of(topic: str) -> np.ndarray:
            nouns = [noun for noun in TOPICS[topic].nouns if noun in words.row]
            vectors = words.vectors[[words.row[noun] for noun in nouns]].numpy()
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

        return float((vectors_of(topic)[:, None] * vectors_of(other)[None]).sum(axis=-1).mean())

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
