"""The larger benchmark world on the CPU in a tiny size: that its code runs, and that features show what they should."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from cuda_device import NO_DEVICE
from feature_world import FeatureWorld, band_of, draw, spectrogram, word_vectors
from songs.labels import generated_label_sets
from songs.motifs import MOTIFS, PARTIALS, movement
from songs.topics import TOPICS
from songs.world import BenchmarkWorld
from tables_gpu import GO_ON, main

from mgc.cache.upkeep.verify import verify

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def asked() -> FeatureWorld:
    world = BenchmarkWorld(labels=generated_label_sets(0), seed=0)
    return FeatureWorld(world=world, n_songs=64, clip_s=2.0, text_dim=384, max_tokens=64, part_rows=16)


def test_a_dry_run_goes_on_where_time_was_up_and_says_that_it_shows_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["dry", "--keep", str(tmp_path / "kept"), "--folder"]
    assert main([*asked, str(tmp_path / "one"), "--minutes", "0"]) == GO_ON
    stopped = capsys.readouterr()
    assert (stopped.out, "0 of 3 parts are drawn" in stopped.err) == ("", True)
    assert main([*asked, str(tmp_path / "one")]) == 0
    page = capsys.readouterr().out
    assert page.startswith(
        "# A dry run of benchmarks/tables_gpu.py on the CPU: it shows that the code runs, and nothing"
    )
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert {"none", "A-L + SCMA", "all", "fp32", "bf16"} <= set(rows)
    assert "8 of 8 runs finished" in page
    assert "Trained on cpu in bf16, fp32" in page
    assert verify(tmp_path / "one" / "features.zarr", full=True) == []
    assert main([*asked, str(tmp_path / "another")]) == 0  # where nothing but what was kept is at hand
    again = capsys.readouterr()
    assert "9 finished runs taken" in again.err
    assert again.out == page


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_nothing_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make", "--folder", str(tmp_path / "f")]) == NO_DEVICE
    assert "nothing was done" in capsys.readouterr().err
    assert not (tmp_path / "f").exists()


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
