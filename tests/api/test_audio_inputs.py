"""Predict and compare through the public functions with models whose audio input is an added feature set."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny_encoders import save_encoder

from mgc import api
from mgc.cache.errors import ConfigError, RecipeMismatchError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.ablation.paper_tables import chosen_tables
from mgc.pipeline.extractors import registry
from mgc.pipeline.extractors.extractor import Extractor
from mgc.pipeline.extractors.registry import BUILT_IN
from mgc.pipeline.synth.world import make_collection

RATE_HZ, FRAME, N_FRAMES = 8_000, 400, 20
OPTIONS: dict[str, Any] = {"encoder": "tiny", "epochs": 2, "split": "random", "precision": "fp32"}


def levels(samples: np.ndarray[Any, Any], rate_hz: int) -> np.ndarray[Any, Any]:
    """Two layers of the bands of whole frames of 0.05 s, (2, n, 16)."""
    n = max(1, len(samples) // FRAME)
    padded = np.pad(samples, (0, max(0, n * FRAME - len(samples))))[: n * FRAME].reshape(n, FRAME)
    bands = np.abs(np.fft.rfft(padded, axis=1))[:, 1:161].reshape(n, 16, 10).mean(axis=2)
    return np.stack([bands, np.sqrt(bands)])


LEVELS = Extractor(
    name="levels",
    version="1",
    input="clip",
    dims=("levels_layer", "levels_frame", "levels_dim"),
    shape=(2, N_FRAMES, 16),
    length="levels_frame",
    dtype="float32",
    unit="1",
    description="levels of a test",
    compute=levels,
    sample_rate_hz=RATE_HZ,
)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with 24 songs of 3 s and a store of their middle second: mel, pooled_mel, and the sequence `levels`."""
    folder = tmp_path_factory.mktemp("audio")
    source = api.read_source(make_collection(folder / "songs", 24, clip_s=3.0)).source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "BUILT_IN", {**BUILT_IN, "levels": LEVELS})
        api.extract(source, folder / "s.zarr", features=("mel",), clip_s=1.0, workers=0)
        for name in ("pooled_mel", "levels"):
            api.extract(source, folder / "s.zarr", add=name, workers=0)
    return folder


@pytest.fixture(autouse=True)
def with_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "BUILT_IN", {**BUILT_IN, "levels": LEVELS})


@pytest.fixture(scope="module", params=["levels", "pooled_mel", "mel,pooled_mel"])
def run(request: pytest.FixtureRequest, collection: Path) -> Path:
    path = collection / f"run-{request.param}"
    options = {**OPTIONS, "modalities": "audio", "audio": request.param}
    api.train(collection / "s.zarr", path, options=options)
    return path


def first_song(collection: Path) -> Path:
    with FeatureStore.open(collection / "s.zarr") as store:
        return collection / "songs" / str(store.tracks.column("path")[0])


def test_prediction_from_files_equals_that_from_the_store(run: Path, collection: Path) -> None:
    from_store = {song.id: song for song in api.predict(run, [collection / "s.zarr"]).predictions}
    with FeatureStore.open(collection / "s.zarr") as store:
        paths = dict(zip(*(store.tracks.column(name).to_pylist() for name in ("id", "path")), strict=True))
    files = {track: collection / "songs" / path for track, path in list(paths.items())[:5]}
    for track, file in files.items():
        (song,) = api.predict(run, [file]).predictions
        assert song.scores == pytest.approx(from_store[track].scores, abs=1e-4)
        assert sum(song.scores.values()) > 0


def test_whole_songs_are_means_over_their_windows(run: Path, collection: Path) -> None:
    song = first_song(collection)
    samples, rate = soundfile.read(song)
    (whole,) = api.predict(run, [song], windows="all").predictions
    scores = []
    for k in range(3):
        path = collection / f"{k}.wav"
        soundfile.write(path, samples[k * rate : (k + 1) * rate], rate, subtype="FLOAT")
        scores.append(api.predict(run, [path]).predictions[0].scores)
    assert whole.windows == 3
    for genre, score in whole.scores.items():
        assert score == pytest.approx(np.mean([each[genre] for each in scores]), abs=2e-3)


def test_explanation_hides_seconds_in_the_audio_and_extracts_again(run: Path, collection: Path) -> None:
    song = first_song(collection)
    found = api.explain(run, song, n_segments=2, n_bands=3).to_dict()
    genre = found["genres"][0]
    assert [len(genre[kind]) for kind in ("modalities", "seconds", "bands")] == [1, 2, 3]
    assert "extracted again" in found["methods"]["bands"]
    first = genre["seconds"][0]
    samples, rate = soundfile.read(song)
    clip = samples[round(first["start_s"] * rate) : round(genre["seconds"][1]["end_s"] * rate)].copy()
    clip[: round((first["end_s"] - first["start_s"]) * rate)] = 0.0
    soundfile.write(collection / "half.wav", clip, rate, subtype="FLOAT")
    (half,) = api.predict(run, [collection / "half.wav"]).predictions
    assert first["score"] == pytest.approx(half.scores[genre["genre"]], abs=2e-3)
    of_store = api.explain(run, collection / "s.zarr", track=Path(song).stem).to_dict()
    assert "seconds" not in of_store["genres"][0]
    assert any("needs the audio file" in remark for remark in of_store["remarks"])


def test_another_or_no_extractor_is_refused_before_extraction(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = collection / "run-refused"
    api.train(collection / "s.zarr", path, options={**OPTIONS, "epochs": 1, "modalities": "audio", "audio": "levels"})
    song = first_song(collection)
    monkeypatch.setattr(registry, "BUILT_IN", {"levels": dataclasses.replace(LEVELS, version="2")})
    with pytest.raises(RecipeMismatchError, match="levels.version: 1 in .*, 2 in this installation"):
        api.predict(path, [song])
    monkeypatch.setattr(registry, "BUILT_IN", {})
    with pytest.raises(ConfigError, match="needs the feature set 'levels': no extractor 'levels'"):
        api.predict(path, [song])


def test_table_of_audio_inputs_has_each_input_alone_and_with_mel() -> None:
    (table,) = chosen_tables(["audio"], has_mel=True, added=["clap", "musicnn"])
    assert [row.name for row in table.rows] == ["mel", "clap", "musicnn", "mel + clap", "mel + musicnn"]
    assert table.reference == "mel"
    (table,) = chosen_tables(["audio"], has_mel=False, added=["clap"])
    assert [row.name for row in table.rows] == ["clap"]
    with pytest.raises(ConfigError, match="no added audio features"):
        chosen_tables(["audio"])


def test_train_command_states_what_it_trained_on(collection: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    run = tmp_path / "run"
    arguments = ["--audio", "mel,levels", "--modalities", "audio", "--encoder", "tiny", "--epochs", 1]
    dry = call("train", collection / "s.zarr", "-o", run, *arguments, "--dry-run")
    assert (dry.code, run.exists()) == (0, False)
    assert call("train", collection / "s.zarr", "-o", run, *arguments, "--tensorboard").code == 0
    assert json.loads((run / "best" / "preprocessor.json").read_text())["added"].keys() == {"levels"}
    assert "mel, levels" in (run / "report.html").read_text()
    assert call("evaluate", run, collection / "s.zarr").code == 0
    missing = call("train", collection / "s.zarr", "-o", tmp_path / "no", "--audio", "clap", "--modalities", "audio")
    assert missing.code == 2
    assert "--add clap" in missing.err


def test_model_on_a_pretrained_encoder_finds_it_by_audio_model(collection: Path, tmp_path: Path) -> None:
    """All layers and frames of a small random encoder, whose folder has another name at prediction."""
    source = api.read_source(collection / "songs").source
    store, run = Path(shutil.copytree(collection / "s.zarr", tmp_path / "s.zarr")), tmp_path / "run"
    model = save_encoder("hubert", tmp_path / "hubert")
    pooling = {"audio_layers": "all", "audio_pooling": "frames"}
    api.extract(source, store, add="net", audio_model=f"hf:{model}", workers=0, **pooling)
    api.train(store, run, options={**OPTIONS, "epochs": 1, "modalities": "audio", "audio": "net"})
    from_store = {song.id: song for song in api.predict(run, [store]).predictions}
    with FeatureStore.open(store) as features:
        track = features.tracks.slice(0, 1).to_pylist()[0]
    moved = model.rename(tmp_path / "elsewhere")
    song = collection / "songs" / track["path"]
    (prediction,) = api.predict(run, [song], audio_model=f"hf:{moved}").predictions
    assert prediction.scores == pytest.approx(from_store[track["id"]].scores, abs=1e-4)
    with pytest.raises(ConfigError, match="needs the feature set 'net': audio model 'hubert'"):
        api.predict(run, [song])
