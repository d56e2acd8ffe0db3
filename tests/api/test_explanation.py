"""Explanations of a score: planted causes are found, hidden words equal texts without them, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from benchmarks.worlds.songs_store import GENRES, song
from mgc import api
from mgc.pipeline.sources.manifest import track_lyrics
from mgc.pipeline.synth.world import make_collection


@pytest.fixture(scope="module")
def audio_run(tmp_path_factory: pytest.TempPathFactory, songs_store: Path) -> Path:
    """A model of the store in which genre i raises the mel bands from 30 i on."""
    run = tmp_path_factory.mktemp("audio") / "run"
    options = {"encoder": "tiny", "epochs": 8, "lr": 3e-3, "modalities": "audio", "split": "manifest", "batch_size": 4}
    api.train(songs_store, run, options=options)
    return run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Songs with lyrics, their store, and a model of both modalities."""
    folder = tmp_path_factory.mktemp("both")
    source = api.read_source(make_collection(folder / "songs", 24, clip_s=1.0)).source
    api.extract(source, folder / "songs.zarr", text_model="minilm", clip_s=1.0, workers=0)
    api.train(folder / "songs.zarr", folder / "run", options={"encoder": "tiny", "epochs": 1, "split": "random"})
    (folder / "lyrics.txt").write_text("The lighthouse, the harbour.\nDon't go — 漢字", encoding="utf-8")
    return folder


def one_song(world: Path) -> Path:
    return min(path for path in (world / "songs").rglob("*") if path.suffix in (".flac", ".mp3", ".ogg", ".wav"))


def test_bands_that_the_genre_raises_support_it(audio_run: Path, songs_store: Path) -> None:
    """More than the bands that the other genres raise, for nearly every song: the model is small, and learns both."""
    wins = 0
    for i in range(8):
        genre = song(i)["genres"][0]
        found = api.explain(audio_run, songs_store, track=song(i)["id"], genres=[genre]).to_dict()
        (explained,) = found["genres"]
        effects = [band["effect"] for band in explained["bands"]]
        assert (len(explained["seconds"]), len(effects)) == (20, 16)
        raised = [sum(effects[30 * k // 8 : 30 * (k + 1) // 8]) for k in range(len(GENRES))]
        own = raised.pop(GENRES.index(genre))
        wins += own > max(0.0, float(np.mean(raised)))
    assert wins >= 7


def test_words_are_the_text_without_them(world: Path, call: Any) -> None:
    lyrics, audio = world / "lyrics.txt", one_song(world)
    found = call("explain", world / "run", audio, "--lyrics", lyrics, "--json").json
    text, (genre, *_) = lyrics.read_text(encoding="utf-8"), found["genres"]
    words = genre["words"]
    assert [word["word"] for word in words] == ["The", "lighthouse", "the", "harbour", "Don't", "go", "漢", "字"]
    assert [text[word["start"] : word["end"]] for word in words] == [word["word"] for word in words]
    (world / "without.txt").write_text(text.replace("lighthouse", ""), encoding="utf-8")
    model = api.load_model(world / "run")
    score = model.predict(audio, lyrics=lyrics).scores[genre["genre"]]
    without = model.predict(audio, lyrics=world / "without.txt").scores[genre["genre"]]
    assert genre["score"] == pytest.approx(score, abs=1e-4)
    assert words[1]["score"] == pytest.approx(without, abs=1e-4)
    odds = np.log(score / (1 - score)) - np.log(without / (1 - without))
    assert words[1]["effect"] == pytest.approx(odds, abs=2e-3)
    (world / "empty.txt").write_text("instrumental", encoding="utf-8")
    audio_only = model.predict(audio, lyrics=world / "empty.txt").scores[genre["genre"]]
    hidden = {region["modality"]: region["score"] for region in genre["modalities"]}
    assert hidden["lyrics"] == pytest.approx(audio_only, abs=1e-4)
    attention = found["attention"]
    assert np.sum(attention["of_words"], axis=1) == pytest.approx(np.ones(8), abs=1e-5)
    assert np.shape(attention["of_frames"]) == (len(attention["starts_s"]), 8)
    assert np.all(np.sum(attention["of_frames"], axis=1) < 1)


def test_silent_song_with_lyrics_without_a_word(world: Path, call: Any) -> None:
    soundfile.write(world / "silent.wav", np.zeros(22_050), 22_050)
    (world / "marks.txt").write_text("... !!! \N{EM DASH}", encoding="utf-8")
    given = ("explain", world / "run", world / "silent.wav", "--lyrics", world / "marks.txt", "--json")
    found = call(*given, "-o", world / "silent.html").json
    assert "words" not in found["genres"][0]
    assert found["lyrics"] == "... !!! \N{EM DASH}"
    assert any(remark.startswith("flags: SILENT") for remark in found["remarks"])
    assert (world / "silent.html").exists()


def test_store_track_needs_the_text_of_its_lyrics(world: Path, call: Any) -> None:
    source = api.read_source(world / "songs").source
    track = next(track for track in source.tracks if track_lyrics(track, source.root, None).text)
    given = (world / "run", world / "songs.zarr", "--track", track.id, "--json")
    found = call("explain", *given).json
    assert "words" not in found["genres"][0]
    assert any("Give the lyrics file with --lyrics" in remark for remark in found["remarks"])
    own = world / "own.txt"
    own.write_text(track_lyrics(track, source.root, None).text or "", encoding="utf-8")
    with_words = call("explain", *given, "--lyrics", own).json
    assert with_words["genres"][0]["words"]
    assert with_words["genres"][0]["seconds"] == found["genres"][0]["seconds"]
    other = call("explain", *given, "--lyrics", world / "lyrics.txt")
    assert (other.code, "other SHA-256" in other.err) == (2, True)


def test_text_lists_the_strongest_regions(world: Path, call: Any) -> None:
    done = call("explain", world / "run", one_song(world), "--top", 1, "--segments", 5, "--bands", 3, "-q")
    lines = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["modalities", "seconds", "bands"]
    assert lines[2].count(" s (") == 3


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("song.wav", "--genre", "jaz"), "--genre 'jaz': not a genre of the model; did you mean 'jazz'?"),
        (("song.wav", "--track", "song00"), "--track needs a feature store"),
        (("STORE",), "Give the id of a track with --track"),
        (("STORE", "--track", "song0"), "--track 'song0': not in"),
        (("STORE", "--track", "song23"), "NOT_AUDIO: song23: its content is HTML"),
        (("FOLDER",), "is a folder. Give one audio file."),
        (("song.wav", "-o", "page.pdf"), "Use the suffix .html"),
        (("gone.wav",), "gone.wav: no such file or folder"),
        (("page.wav",), "NOT_AUDIO"),
    ],
)
def test_refusals(
    audio_run: Path, songs_store: Path, tmp_path: Path, call: Any, arguments: tuple[str, ...], problem: str
) -> None:
    soundfile.write(tmp_path / "song.wav", 0.3 * np.sin(np.arange(22_050) / 9), 22_050)
    (tmp_path / "page.wav").write_text("<html>404</html>")
    paths = {"STORE": songs_store, "FOLDER": tmp_path}
    given = [paths.get(name, tmp_path / name if "." in name else name) for name in arguments]
    done = call("explain", audio_run, *given)
    assert (done.code, done.out) == (2, "")
    assert problem in done.err
    assert not (tmp_path / "page.pdf").exists()
