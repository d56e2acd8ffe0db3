"""All stages on real songs through the command line: extract, resume, read, train, evaluate, predict."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import xarray
import zarr
from tiny_encoders import save_encoder
from transformers import AutoModel, AutoTokenizer

from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.format.schema import Flag
from mgc.cache.format.tables import OUTCOME_SCHEMA, PLAN_SCHEMA
from mgc.cache.reading.store import FeatureStore
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import create_store
from mgc.pipeline.text.lyrics import load_lyrics
from mgc.pipeline.text.models import find_text_model

FP32 = ("--text-model", "minilm", "--text-precision", "fp32")


def tree(store: Path) -> dict[str, bytes | None]:
    """Return every file and folder of a store except ``log/``, which is not compared."""
    paths = [path for path in sorted(store.rglob("*")) if path.relative_to(store).parts[0] != "log"]
    return {str(path.relative_to(store)): path.read_bytes() if path.is_file() else None for path in paths}


@pytest.fixture(scope="session")
def songs(real_data, mgc_json, tmp_path_factory) -> Path:
    """A store of the 65 clips; fp32 text, 8 rows per part."""
    path = tmp_path_factory.mktemp("songs") / "songs.zarr"
    report = mgc_json(
        "extract",
        real_data / "songs",
        "-o",
        path,
        "--text-model",
        "minilm",
        "--text-precision",
        "fp32",
        "--part-rows",
        8,
    )
    assert (report["planned"], report["ok"], report["failed"], report["pending"]) == (65, 65, 0, 0)
    assert report["flags"]["SILENT"] == 1
    assert report["reasons"] == {}
    return path


@pytest.fixture(scope="session")
def run(songs, mgc, tmp_path_factory) -> Path:
    """A small model trained on the 65 clips."""
    path = tmp_path_factory.mktemp("run") / "run"
    mgc("train", songs, "-o", path, "--encoder", "tiny", "--epochs", 10, "--lr", 2e-3, "--split", "artist")
    return path


def test_a_repeated_extraction_changes_nothing(songs, real_data, mgc_json):
    before = tree(songs)
    report = mgc_json(
        "extract",
        real_data / "songs",
        "-o",
        songs,
        "--text-model",
        "minilm",
        "--text-precision",
        "fp32",
        "--part-rows",
        8,
    )
    assert report["parts_built"] == 0
    assert report["ok"] == 65
    assert tree(songs) == before


def test_a_different_recipe_is_refused_with_the_difference(songs, real_data, mgc):
    done = mgc("extract", real_data / "songs", "-o", songs, *FP32, "--clip-s", 10, code=2)
    assert "mel.clip_s: 30.0 in the store, 10.0 in this command" in done.stderr
    assert "Traceback" not in done.stderr


def test_resume_after_sigkill_gives_identical_bytes(songs, real_data, mgc_json, tmp_path):
    path = tmp_path / "killed.zarr"
    command = [
        "extract",
        str(real_data / "songs"),
        "-o",
        str(path),
        *FP32,
        "--part-rows",
        "8",
        "--workers",
        "1",
    ]
    commits = path / "commits"
    process = subprocess.Popen([sys.executable, "-m", "mgc", *command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (commits.is_dir() and len(list(commits.iterdir())) >= 2):
        assert process.poll() is None, "the extraction ended before it could be killed"
        assert time.monotonic() < deadline, "no two commits in four minutes"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(list(commits.iterdir()))
    assert 2 <= done <= 7, f"{done} of 9 commits: at least two must be there, at least two to come"
    report = mgc_json(*command)
    assert report["ok"] == 65
    assert 2 <= report["parts_built"] <= 7
    assert tree(path) == tree(songs)


def test_audio_encoder_joins_the_store_after_sigkill_with_identical_bytes(songs, real_data, mgc, mgc_json, tmp_path):
    model = save_encoder("hubert", tmp_path / "hubert")
    stores = [Path(shutil.copytree(songs, tmp_path / name)) for name in ("whole.zarr", "killed.zarr")]
    options = ("--add", "hubert", "--audio-model", f"hf:{model}", "--audio-layers", "0,2", "--audio-pooling", "frames")
    # The source is bare: no labels, and no other features.
    commands = [("extract", real_data / "songs", "-o", store, *options, "--workers", 1) for store in stores]
    report = mgc_json(*commands[0])
    assert (report["ok"], report["failed"], report["parts_built"]) == (65, 0, 9)
    commits = stores[1] / "commits" / "hubert"
    process = subprocess.Popen([sys.executable, "-m", "mgc", *map(str, commands[1])], stderr=subprocess.DEVNULL)
    while len(list(commits.iterdir()) if commits.is_dir() else ()) < 2:
        assert process.poll() is None, "the extraction ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < mgc_json(*commands[1])["parts_built"] <= 7
    assert tree(stores[1]) == tree(stores[0])
    assert mgc("store", "verify", stores[1], "--full").returncode == 0
    with FeatureStore.open(stores[1]) as store:
        lengths = store.read("hubert_length", store.ok_rows)
        assert store.array("hubert").tail == (2, 1499, 16)
        assert 1 <= lengths.min() <= lengths.max() <= 1499


def test_plain_zarr_and_xarray_read_dims_units_and_recipe(songs):
    group = zarr.open_group(songs, mode="r")
    assert group["mel"].metadata.dimension_names == ("track", "mel_band", "frame")
    assert group["mel"].attrs["units"] == "dB re 1.0"
    assert group.attrs["recipe"]["mel"]["hop_length"] == 512
    dataset = xarray.open_zarr(songs)
    assert dataset.mel.sizes == {"track": 72, "mel_band": 128, "frame": 1292}
    assert dataset.lyrics.dims == ("track", "token", "text_dim")
    assert dataset.attrs["recipe"]["lyrics"]["model"] == "minilm"
    assert dataset.status.values.tolist() == [1] * 65 + [0] * 7


@pytest.mark.filterwarnings("ignore:'(aifc|audioop|sunau)' is deprecated:DeprecationWarning")  # librosa's own imports
def test_stored_mels_equal_those_of_librosa(songs, real_data):
    store = FeatureStore.open(songs)
    worst = 0.0
    for track in store.tracks.to_pylist():
        samples, rate = librosa.load(real_data / "songs" / track["path"], sr=22_050)
        samples = librosa.util.fix_length(samples, size=661_500)
        power = librosa.feature.melspectrogram(y=samples, sr=rate, n_fft=2048, hop_length=512, n_mels=128)
        expected = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
        stored = store.read("mel", [track["row"]])[0].astype(np.float64)
        audible = expected > expected.max() - 80
        worst = max(worst, float(np.abs(stored - expected)[audible].max()))
    assert worst <= 0.05, f"{worst:.4f} dB from librosa"


def test_stored_token_states_equal_those_of_the_plain_model(songs, real_data):
    files = find_text_model("minilm")
    tokenizer = AutoTokenizer.from_pretrained(files.folder)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    model = AutoModel.from_pretrained(files.folder).eval()
    store = FeatureStore.open(songs)
    compared = 0
    for track in store.tracks.to_pylist():
        kept = int(store.read("lyrics_tokens", [track["row"]])[0])
        if kept == 0:
            assert Flag(track["flags"]) & (Flag.NO_LYRICS | Flag.EMPTY_LYRICS | Flag.INSTRUMENTAL)
            continue
        text = load_lyrics(real_data / "songs" / track["lyrics_path"]).text
        ids = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        with torch.inference_mode():
            expected = model(**ids).last_hidden_state[0].numpy()
        stored = store.read("lyrics", [track["row"]])[0].astype(np.float32)
        assert len(expected) == kept
        norms = np.linalg.norm(stored[:kept], axis=1) * np.linalg.norm(expected, axis=1)
        assert ((stored[:kept] * expected).sum(axis=1) / norms).min() > 0.9999
        assert not stored[kept:].any()
        np.testing.assert_allclose(
            store.read("lyrics_pooled", [track["row"]])[0], expected[1:-1].mean(axis=0), atol=1e-4
        )
        compared += 1
    assert compared == 15


def test_a_folder_of_invalid_files_gives_the_expected_outcomes(real_data, mgc_json, tmp_path):
    report = mgc_json(
        "extract", real_data / "torture", "-o", tmp_path / "t.zarr", "--features", "mel", "--max-failures", "50%"
    )
    assert report["planned"] == report["ok"] + report["failed"] == 44
    found = {track["id"]: track for track in FeatureStore.open(tmp_path / "t.zarr").tracks.to_pylist()}
    lines = (real_data / "torture" / "OUTCOMES.tsv").read_text().splitlines()[1:]
    wrong = []
    for file, outcome, reasons, flags in (line.split("\t") for line in lines):
        track = found[file]
        if outcome == "ok":
            missing = set(flags.split()) - set(Flag(track["flags"]).names)
            right = track["status"] == 1 and not missing
        else:
            right = track["status"] == 2 and track["reason"] in reasons.split("|")
        if not right:
            wrong.append((file, track["reason"], Flag(track["flags"]).names))
    assert wrong == []
    assert len(lines) == 44


def test_training_learns_the_training_songs(run, songs, mgc_json):
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert epochs[-1]["loss"] < epochs[0]["loss"] / 2
    result = mgc_json("evaluate", run, songs, "--split", "train")
    prior = result["baselines"]["label_prior"]["mean_average_precision"]["value"]
    assert result["metrics"]["mean_average_precision"]["value"] > prior + 0.2


def test_a_new_clip_is_predicted_with_and_without_lyrics(run, real_data, mgc, mgc_json):
    clip = real_data / "songs_nc" / "audios" / "8GmWiugWLRk3zKrX.mp3"
    words = real_data / "songs_nc" / "lyrics" / "8GmWiugWLRk3zKrX.txt"
    with_lyrics = mgc_json("predict", run, clip, "--lyrics", words)["predictions"][0]
    without = mgc_json("predict", run, clip)
    assert with_lyrics["scores"].keys() == without["predictions"][0]["scores"].keys()
    assert with_lyrics["scores"] != without["predictions"][0]["scores"]
    assert any("without lyrics" in remark for remark in without["remarks"])
    text = mgc("predict", run, clip, "--lyrics", words)
    best = max(with_lyrics["scores"], key=with_lyrics["scores"].get)
    assert best in text.stdout
    assert f"{with_lyrics['scores'][best]:.3f}" in text.stdout


def test_predictions_as_csv_keep_every_score_when_the_first_song_fails(run, real_data, mgc, tmp_path):
    (tmp_path / "a.mp3").write_text("<html>no song</html>")
    clip = real_data / "songs_nc" / "audios" / "8GmWiugWLRk3zKrX.mp3"
    done = mgc("predict", run, tmp_path / "a.mp3", clip, "--format", "csv", code=3)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["reason"] for row in sorted(rows, key=lambda row: row["id"] == str(clip))] == ["NOT_AUDIO", ""]
    good = next(row for row in rows if row["id"] == str(clip))
    assert all(0 <= float(value) <= 1 for name, value in good.items() if name.startswith("score: "))
    assert sum(name.startswith("score: ") for name in good) >= 2


def test_predicting_a_file_equals_extracting_and_evaluating_it(run, real_data, mgc_json, tmp_path):
    path = tmp_path / "nc.zarr"
    report = mgc_json("extract", real_data / "songs_nc", "-o", path, *FP32)
    assert (report["planned"], report["ok"]) == (22, 22)
    evaluated = mgc_json("evaluate", run, path, "--split", "all")
    assert evaluated["n_seen_in_training"] == 0
    stored = {row["id"]: row["scores"] for row in mgc_json("predict", run, path)["predictions"]}
    assert len(stored) == 22
    assert evaluated["n_tracks"] >= 1  # those with a genre that the model knows
    for name in sorted(stored)[:2]:
        files = real_data / "songs_nc" / "audios" / f"{name}.mp3", real_data / "songs_nc" / "lyrics" / f"{name}.txt"
        alone = mgc_json("predict", run, files[0], "--lyrics", files[1])["predictions"][0]["scores"]
        assert alone == pytest.approx(stored[name], abs=1e-4)


@pytest.fixture(scope="session")
def short_clips(songs, tmp_path_factory) -> Path:
    """The first second of each of the 65 clips, to save time."""
    path = tmp_path_factory.mktemp("short") / "short.zarr"
    recipe = MelRecipe(clip_s=1.0)
    with FeatureStore.open(songs) as store:
        tracks, rows = store.tracks, store.ok_rows
        create_store(
            path,
            tracks=tracks.select(PLAN_SCHEMA.names),
            recipe=Recipe(mel=recipe, lyrics=store.recipe.lyrics),
            part_rows=len(rows),
            genres=store.genres,
            genre_embedding=store.genre_embedding,
        )
        arrays = {
            name: store.read(name, rows) for name in ("lyrics", "lyrics_tokens", "lyrics_tokens_full", "lyrics_pooled")
        }
        arrays |= {
            "mel": store.read("mel", rows)[:, :, : recipe.n_frames],
            "mel_frames": np.minimum(store.read("mel_frames", rows), recipe.n_frames),
            "status": np.ones(len(rows), dtype=np.uint8),
            "flags": np.asarray(tracks.column("flags")),
        }
        commit_part(path, 0, arrays, tracks.select(OUTCOME_SCHEMA.names))
    return path


def test_tables_on_folds_of_whole_songs_contain_every_system_and_no_significance(
    short_clips, real_data, mgc_json, tmp_path
):
    result = mgc_json(
        "ablate",
        short_clips,
        "-o",
        tmp_path / "a",
        "--tables",
        "systems",
        "--seeds",
        1,
        "--folds",
        3,
        "--fold-by",
        "song",
        "--encoder",
        "tiny",
        "--epochs",
        1,
        "--lr",
        1e-3,
        "--device",
        "cpu",
        "--precision",
        "fp32",
    )
    rows = {row["name"]: row for row in result["tables"][0]["rows"]}
    assert len(rows) == 8
    assert all(0 <= row["metrics"]["map"]["value"] <= 1 for row in rows.values())
    verdicts = {cell["verdict"] for row in rows.values() for cell in row["metrics"].values() if cell["difference"]}
    assert verdicts == {"not tested"}
    about = result["caption"]
    with (real_data / "songs" / "id_information.csv").open(newline="", encoding="utf-8") as file:
        songs = {(row["artist"], row["song"]) for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)}
    assert 20 <= about["n_songs"] <= len(songs) == 29
    assert about["n_test"] + about["n_test_left_out"] == 65
    assert about["n_genres"] + len(about["genres_left_out"]) <= 14
    page = (tmp_path / "a" / "tables.md").read_text(encoding="utf-8")
    assert re.search(rf"{about['n_songs']} songs (by|in) .+ are too few to compare systems", page)
    assert "reconstructed" in page


@pytest.mark.skipif(find_spec("musicnn") is None, reason="the package with the weights is not installed")
def test_tags_of_a_song_are_those_in_the_readme(real_data, mgc, tmp_path):
    shutil.copy(real_data / "songs" / "audios" / "1UasU2CVuVieR2RK.mp3", tmp_path / "song.mp3")
    shown = mgc("tag", tmp_path / "song.mp3", "--top", 2).stdout.replace(f"{tmp_path}/", "")
    assert f"```text\n{shown}```" in (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(find_spec("musicnn") is None, reason="the package with the weights is not installed")
def test_training_on_musicnn_predicts_files_as_stored_tracks(real_data, mgc, mgc_json, tmp_path):
    store, run, few = tmp_path / "s.zarr", tmp_path / "run", ("--limit", 16)
    mgc("extract", real_data / "songs", "-o", store, "--features", "mel", "--workers", 0, *few)
    report = mgc_json("extract", real_data / "songs", "-o", store, "--add", "musicnn", "--workers", 0, *few)
    assert (report["planned"], report["ok"]) == (16, 16)
    options = ("--audio", "musicnn", "--modalities", "audio", "--split", "random", "--epochs", 40)
    result = mgc_json("train", store, "-o", run, *options)
    assert result["last_loss"] < result["first_loss"] / 2
    scores = {row["id"]: row["scores"] for row in mgc_json("predict", run, store)["predictions"]}
    with FeatureStore.open(store) as features:
        track = features.tracks.slice(0, 1).to_pylist()[0]
    (song,) = mgc_json("predict", run, real_data / "songs" / track["path"])["predictions"]
    assert song["scores"] == pytest.approx(scores[track["id"]], abs=1e-4)
