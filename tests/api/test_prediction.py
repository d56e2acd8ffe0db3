"""Songs named on standard input, many of them, some that cannot be read, and whole ones."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import mgc
from mgc import api
from mgc.cache.errors import ConfigError
from mgc.pipeline.synth.world import make_collection


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, songs_store: Path) -> Path:
    """A small model of sounds alone."""
    run = tmp_path_factory.mktemp("model") / "run"
    api.train(songs_store, run, options={"encoder": "tiny", "epochs": 1, "modalities": "audio", "split": "manifest"})
    return run


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """Three tones of a second."""
    for i in range(3):
        tone = 0.3 * np.sin(2 * np.pi * 220 * (i + 1) * np.arange(22_050) / 22_050)
        soundfile.write(tmp_path / f"{i}.wav", tone.astype(np.float32), 22_050)
    return tmp_path


def test_predict_continues_after_missing_files_on_stdin(
    model: Path, songs: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(songs / name) for name in ("2.wav", "gone.wav", "0.wav")]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([names[0], "", *names[1:]]) + "\n"))
    done = call("predict", model, "-", "--format", "jsonl")
    assert done.code == 3
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [(row["id"], row["reason"]) for row in rows] == [
        (names[0], None),
        (names[1], "SRC_MISSING"),
        (names[2], None),
    ]
    alone = call("predict", model, names[2], "--json").json["predictions"][0]["scores"]
    assert rows[2]["scores"] == pytest.approx(alone, abs=1e-5)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert "standard input has no paths. Give one path per line." in call("predict", model, "-").err


@pytest.fixture(scope="module")
def model_of_both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of audio and lyrics, with the text encoder that mgc contains."""
    folder = tmp_path_factory.mktemp("both")
    source = api.read_source(make_collection(folder / "songs", 24, clip_s=1.0)).source
    api.extract(source, folder / "songs.zarr", text_model="minilm", clip_s=1.0, workers=0)
    api.train(folder / "songs.zarr", folder / "run", options={"encoder": "tiny", "epochs": 1, "split": "random"})
    return folder / "run"


@pytest.mark.parametrize("windows", ["one", "all"])
def test_output_states_why_songs_have_no_lyrics(model_of_both: Path, songs: Path, call: Any, windows: str) -> None:
    def remark(*inputs: object) -> str | None:
        remarks = call("predict", model_of_both, *inputs, "--windows", windows, "--json").json["remarks"]
        return next((text for text in remarks if " without lyrics" in text), None)

    texts = {"word": b"INSTRUMENTAL\n", "blank": b" \n", "binary": bytes(range(256)) * 4, "words": b"a long road home"}
    for name, text in texts.items():
        (songs / name).write_bytes(text)
    why = {
        "word": " (1 marked as instrumental)",
        "blank": " (1 with empty lyrics)",
        "binary": " (1 with unreadable lyrics)",
    }
    for name, explanation in why.items():
        expected = f"1 of 1 song without lyrics{explanation}: predicted from audio only"
        assert remark(songs / "0.wav", "--lyrics", songs / name) == expected
    assert remark(songs / "0.wav", "--lyrics", songs / "words") is None
    assert remark(songs / "0.wav") == "1 of 1 song without lyrics: predicted from audio only"
    (songs / "0.txt").write_bytes(texts["word"])
    (songs / "1.txt").write_bytes(texts["binary"])
    assert remark(*(songs / f"{i}.wav" for i in range(3))) == (
        "3 of 3 songs without lyrics (1 marked as instrumental, 1 with unreadable lyrics): predicted from audio only"
    )


@pytest.mark.parametrize("windows", ["one", "all"])
def test_missing_or_invalid_song_fails_on_its_own(model: Path, songs: Path, call: Any, windows: str) -> None:
    (songs / "page.wav").write_text("<html>404</html>")
    names = [str(songs / name) for name in ("gone.wav", "page.wav", "0.wav")]
    done = call("predict", model, *names, "--windows", windows)
    assert done.code == 3
    assert "2 of 3 songs could not be read" in done.err
    told = done.out.splitlines()
    assert told[0].startswith(f"{names[0]}: failed, SRC_MISSING: ")
    assert told[1].startswith(f"{names[1]}: failed, NOT_AUDIO: ")
    assert told[2].startswith(f"{names[2]}")
    assert "failed" not in told[2]
    written = call("predict", model, *names, "--windows", windows, "-o", songs / "scores.jsonl", "--json")
    assert (written.code, written.json["reasons"]) == (3, {"SRC_MISSING": 1, "NOT_AUDIO": 1})
    by_list = mgc.load_model(model).predict_all(names, windows=windows)
    assert [one.reason for one in by_list] == ["SRC_MISSING", "NOT_AUDIO", None]


def test_single_missing_song_is_an_error(model: Path, songs: Path, call: Any) -> None:
    gone = songs / "gone.wav"
    done = call("predict", model, gone)
    assert (done.code, done.out) == (2, "")
    assert f"{gone}: no such file or folder" in done.err
    with pytest.raises(ConfigError, match="no such file"):
        mgc.load_model(model).predict_all(gone)
    assert [one.reason for one in mgc.load_model(model).predict_all([gone])] == ["SRC_MISSING"]


def test_worker_processes_give_the_scores_of_one_process(model: Path, songs: Path) -> None:
    many = songs / "many"
    many.mkdir()
    for i in range(api.MANY_SONGS):
        shutil.copyfile(songs / f"{i % 3}.wav", many / f"{i:02}.wav")
    spread = api.predict(model, [many])
    here = api.predict(model, [many], workers=0)
    assert len(spread.predictions) == api.MANY_SONGS
    assert [one.id for one in spread.predictions] == [one.id for one in here.predictions]
    for one, other in zip(spread.predictions, here.predictions, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


def long_song(path: Path, n_clips: float, clip_s: float, *, broken: bool = False) -> np.ndarray[Any, Any]:
    """A song that is another tone in every clip; its samples. In a broken one, one of the first is no number."""
    n_samples = round(n_clips * clip_s * 22_050)
    t = np.arange(n_samples) / 22_050
    sound = (0.3 * np.sin(2 * np.pi * 220 * (1 + t // clip_s) * t)).astype(np.float32)
    if broken:
        sound[100] = np.nan
    soundfile.write(path, sound, 22_050, subtype="FLOAT")
    return sound


def test_whole_song_scores_are_the_mean_over_its_windows(model: Path, tmp_path: Path) -> None:
    """The clips are cut out and predicted one by one; the last, more than half full, counts like the others."""
    loaded = mgc.load_model(model)
    assert loaded.recipe.mel is not None
    clip_s = loaded.recipe.mel.clip_s
    sound = long_song(tmp_path / "long.wav", 3.6, clip_s)
    cut = round(clip_s * 22_050)
    for k in range(4):
        soundfile.write(tmp_path / f"{k}.wav", sound[k * cut : (k + 1) * cut], 22_050, subtype="FLOAT")
    alone = [loaded.predict(tmp_path / f"{k}.wav").scores for k in range(4)]
    whole = loaded.predict(tmp_path / "long.wav", windows="all")
    assert (whole.windows, whole.failed_windows, whole.reason) == (4, 0, None)
    for genre in loaded.genres:
        assert whole.scores[genre] == pytest.approx(np.mean([scores[genre] for scores in alone]), abs=1e-6)
    assert len({scores[loaded.genres[0]] for scores in alone}) == 4  # the clips do differ
    assert not {"SHORT", "NO_LABEL"} & set(whole.flags)  # of a window, and of an unlabelled song
    assert "NO_LYRICS" in whole.flags
    assert whole.scores != loaded.predict(tmp_path / "long.wav").scores


def test_song_of_one_window_has_equal_scores_in_both_modes(model: Path, tmp_path: Path) -> None:
    loaded = mgc.load_model(model)
    assert loaded.recipe.mel is not None
    for name, n_clips in (("short", 0.3), ("full", 1.0), ("over", 1.45)):
        long_song(tmp_path / f"{name}.wav", n_clips, loaded.recipe.mel.clip_s)
    (tmp_path / "page.wav").write_text("<html>404</html>")
    one, every = loaded.predict_all(tmp_path), loaded.predict_all(tmp_path, windows="all")
    for before, after in zip(one, every, strict=True):
        assert (after.windows, after.failed_windows) == ((0, 1) if after.reason else (1, 0))
        assert dataclasses.replace(after, windows=None, failed_windows=None) == before


def test_failed_window_is_left_out_and_reported(
    model: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = mgc.load_model(model)
    assert loaded.recipe.mel is not None
    clip_s = loaded.recipe.mel.clip_s
    sound = long_song(Path("broken.wav"), 3, clip_s, broken=True)
    long_song(Path("half.wav"), 1.6, clip_s)
    done = call("predict", model, "broken.wav", "half.wav", "--windows", "all", "-o", "scores.csv", "--json")
    assert "1 song with failed windows: broken.wav" in done.err
    with Path("scores.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert [rows["broken.wav"][name] for name in ("windows", "failed_windows", "reason")] == ["2", "1", ""]
    assert rows["broken.wav"]["detail"].startswith("the window at 0 s: NONFINITE: ")
    assert [rows["half.wav"][name] for name in ("windows", "failed_windows", "detail")] == ["2", "0", ""]
    cut = round(clip_s * 22_050)
    for name, part in (("second.wav", sound[cut : 2 * cut]), ("third.wav", sound[2 * cut :])):
        soundfile.write(name, part, 22_050, subtype="FLOAT")
    read = [loaded.predict(name).scores for name in ("second.wav", "third.wav")]
    for genre in loaded.genres:
        score = float(rows["broken.wav"][f"score: {genre}"])
        assert score == pytest.approx((read[0][genre] + read[1][genre]) / 2, abs=1e-6)
    shown = call("predict", model, "broken.wav", "--windows", "all").out
    assert "broken.wav (2 windows; 1 failed: the window at 0 s: NONFINITE" in shown
    sound[:] = np.nan
    soundfile.write("lost.wav", sound, 22_050, subtype="FLOAT")
    lost = call("predict", model, "lost.wav", "--windows", "all", "--json")
    assert (lost.code, lost.json["failed"]) == (2, 1)
    (only,) = lost.json["predictions"]
    assert (only["reason"], only["windows"], only["failed_windows"]) == ("NONFINITE", 0, 3)


def test_timeline_has_the_scores_of_each_window_and_leaves_the_mean_as_it_is(
    model: Path, tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = mgc.load_model(model)
    assert loaded.recipe.mel is not None
    clip_s = loaded.recipe.mel.clip_s
    long_song(Path("long.wav"), 2.6, clip_s)
    long_song(Path("broken.wav"), 2, clip_s, broken=True)
    long_song(Path("short.wav"), 0.4, clip_s)
    names = ["long.wav", "gone.wav", "broken.wav", "short.wav"]
    plain = call("predict", model, *names, "--windows", "all", "-o", "plain.parquet", "--json")
    timed = call("predict", model, *names, "--timeline", "t.parquet", "-o", "timed.parquet", "--json")
    assert (timed.code, timed.json["remarks"]) == (plain.code, plain.json["remarks"])
    assert Path("plain.parquet").read_bytes() == Path("timed.parquet").read_bytes()
    rows = pq.read_table("t.parquet").to_pylist()
    assert [(row["id"], row["start_s"], row["end_s"], row["reason"]) for row in rows] == [
        ("broken.wav", 0, clip_s, "NONFINITE"),
        ("broken.wav", clip_s, 2 * clip_s, None),
        ("gone.wav", 0, clip_s, "SRC_MISSING"),
        ("long.wav", 0, clip_s, None),
        ("long.wav", clip_s, 2 * clip_s, None),
        ("long.wav", 2 * clip_s, pytest.approx(2.6 * clip_s, abs=0.001), None),
        ("short.wav", 0, pytest.approx(0.4 * clip_s, abs=0.001), None),
    ]
    means = {row["id"]: row for row in pq.read_table("plain.parquet").to_pylist()}
    for genre in loaded.genres:
        name = f"score: {genre}"
        scores = [row[name] for row in rows]
        assert [scores[0], scores[2], means["gone.wav"][name]] == [None, None, None]
        assert means["long.wav"][name] == np.float32(np.mean(scores[3:6]))
        assert (means["broken.wav"][name], means["short.wav"][name]) == (scores[1], scores[6])
    assert call("predict", model, *names, "--timeline", "t.jsonl").code == 3
    lines = [json.loads(line) for line in Path("t.jsonl").read_text().splitlines()]
    assert call("predict", model, *names, "--timeline", "t.json").code == 3
    assert json.loads(Path("t.json").read_text()) == lines
    assert [(line["id"], line["start_s"]) for line in lines] == [(row["id"], row["start_s"]) for row in rows]
    assert lines[0]["scores"] == {}
    genre = loaded.genres[0]
    assert lines[5]["scores"][genre] == pytest.approx(rows[5][f"score: {genre}"], abs=1e-6)


def test_timeline_is_refused_before_anything_is_decoded(model: Path, songs: Path, songs_store: Path, call: Any) -> None:
    done = call("predict", model, songs / "0.wav", "--timeline", songs / "t.txt")
    assert (done.code, "Use one of the suffixes .parquet, .json, .jsonl, .html" in done.err) == (2, True)
    assert "holds one clip per track" in call("predict", model, songs_store, "--timeline", songs / "t.html").err
    for i in range(51):
        (songs / f"many{i}.wav").touch()
    done = call("predict", model, songs, "--timeline", songs / "t.html")
    assert (done.code, "54 songs, a page shows up to 50. Use .parquet" in done.err) == (2, True)
    assert not list(songs.glob("*t.*"))


def test_windows_option_needs_audio_files(model: Path, songs_store: Path, call: Any) -> None:
    done = call("predict", model, songs_store, "--windows", "all")
    assert done.code == 2
    assert "a store holds one clip per track" in done.err
    with pytest.raises(ConfigError, match="windows .every.: unknown"):
        mgc.load_model(model).predict("song.wav", windows="every")


def test_text_and_song_are_queries_in_the_space_of_the_model(
    model_of_both: Path, songs: Path, call: Any, tmp_path: Path
) -> None:
    """The lyrics of a track, given as a text, and its audio, given as a file, get the vectors of the track itself."""
    store, file = model_of_both.parent / "songs.zarr", tmp_path / "v.parquet"
    assert call("embed", model_of_both, store, "-o", file, "--json").json["tracks"] == 24
    source = api.read_source(model_of_both.parent / "songs").source
    track = next(track for track in source.tracks if track.lyrics_path is not None)
    text = (source.root / track.lyrics_path).read_text()
    query = ("similar", file, "--run", model_of_both, "--top", "1", "--json")
    by_text = call(*query, "--text", text, "--vector", "lyrics").json
    assert by_text["results"][0]["id"] == track.id
    assert by_text["results"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert call(*query, "--text", text).json["vector"] == "audio"
    by_audio = call(*query, source.root / track.path, "--vector", "audio").json
    assert by_audio["results"][0]["id"] == track.id
    assert "no lyrics, so its fused vector" in call(*query, songs / "0.wav").json["remarks"][0]
    assert "no lyrics, so it has no vector 'lyrics'" in call(*query, songs / "0.wav", "--vector", "lyrics").err
    assert "no text is left" in call(*query, "--text", " ").err
