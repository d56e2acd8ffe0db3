"""Vectors of models and features, and search with ids, songs and texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from small_world import World

from mgc import api
from mgc.cache.errors import ConfigError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.evaluation.predict import score_store
from mgc.heads.runs.published_model import load_run

Call = Callable[..., Any]


@pytest.fixture(scope="module")
def place(small_store: FeatureStore, evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of a model, in `fused.parquet`, and a store with a sequence of an extractor, in which a track failed."""
    folder = tmp_path_factory.mktemp("vectors")
    api.embed(evaluated_run, [small_store.path], output=folder / "fused.parquet")
    world = World()
    world.write(folder / "s.zarr").close()
    values = np.random.default_rng(5).normal(size=(40, 2, 6, 3)).astype(np.float32)
    dims = ("net_layer", "net_frame", "net_d3")
    world.add(folder / "s.zarr", "net", values, dims=dims, failed=[4]).close()
    np.save(folder / "net.npy", values)
    return folder


def column(path: Path, name: str) -> np.ndarray:
    return np.asarray(pq.read_table(path).column(name).to_pylist(), dtype=np.float32)


def test_vectors_of_a_model_are_its_outputs(place: Path, small_store: FeatureStore, evaluated_run: Path) -> None:
    outputs = score_store(load_run(evaluated_run), small_store).outputs
    table = pq.read_table(place / "fused.parquet")
    assert table.column("id").to_pylist() == [f"t{i:04d}" for i in range(40)]
    assert table.column("genres").to_pylist() == small_store.tracks.column("genres").to_pylist()
    np.testing.assert_array_equal(np.stack(table.column("fused").to_pylist()).astype(np.float32), outputs.fused)
    np.testing.assert_array_equal(np.stack(table.column("audio").to_pylist()), outputs.audio_embedding)
    lyrics = table.column("lyrics").to_pylist()
    assert [i for i, vector in enumerate(lyrics) if vector is None] == list(range(0, 40, 7)), "tracks without lyrics"
    np.testing.assert_array_equal(np.float32(lyrics[1]), outputs.lyrics_embedding[1])


def test_features_are_pooled_over_the_valid_frames(place: Path, call: Call) -> None:
    done = call("embed", place / "s.zarr", "--feature", "mel", "-o", place / "mel.parquet", "--json").json
    assert (done["tracks"], done["vectors"], done["failed"]) == (40, {"pooled": 256}, 0)
    world = World()
    clip = world.mel[3][:, : world.mel_frames[3]].astype(np.float32)
    expected = np.concatenate([clip.mean(axis=1), clip.std(axis=1)])
    np.testing.assert_allclose(column(place / "mel.parquet", "pooled")[3], expected, rtol=1e-5)
    done = call("embed", place / "s.zarr", "--feature", "net", "-o", place / "net.parquet", "--json").json
    assert (done["tracks"], done["vectors"]) == (39, {"pooled": 6})
    assert done["reasons"] == {"EXTRACTOR_FAILED": 1}
    values = np.load(place / "net.npy")
    expected = values[5].mean(axis=1).reshape(-1)
    np.testing.assert_allclose(column(place / "net.parquet", "pooled")[4], expected, rtol=1e-5)
    done = call("embed", place / "s.zarr", "--feature", "lyrics_pooled", "-o", place / "l.parquet", "--json").json
    assert done["tracks"] == 34


def test_id_finds_its_nearest_tracks(place: Path, call: Call) -> None:
    result = call("similar", place / "fused.parquet", "t0003", "--vector", "audio", "--top", "4", "--json").json
    vectors = np.stack(pq.read_table(place / "fused.parquet").column("audio").to_pylist())
    order = np.argsort(-(vectors @ vectors[3]), kind="stable")
    expected = [f"t{i:04d}" for i in order if i != 3][:4]
    assert [row["id"] for row in result["results"]] == expected
    assert (result["standardised"], result["tracks"]) == (False, 40)
    of_lyrics = call("similar", place / "fused.parquet", "t0003", "--vector", "lyrics", "--json").json
    assert (of_lyrics["tracks"], len(of_lyrics["results"])) == (34, 10)
    assert (
        "t0003: nearest of 39 tracks by pooled vectors"
        in call("similar", place / "s.zarr", "t0003", "--feature", "net").out
    )


def test_song_finds_itself_by_a_feature(songs_store: Path, tmp_path: Path, call: Call) -> None:
    tone = 0.1 * np.random.default_rng(0).normal(size=22_050)
    soundfile.write(tmp_path / "a.wav", tone, 22_050)
    api.extract(api.read_source(tmp_path).source, tmp_path / "s.zarr", features=["mel"], clip_s=1.0, workers=0)
    soundfile.write(tmp_path / "b.flac", tone, 22_050)
    unwritable = call("embed", tmp_path / "s.zarr", "--feature", "mel", "-o", "/proc/x.parquet")
    assert (unwritable.code, "No such file or directory" in unwritable.err) == (2, True), "no bug is reported"
    result = call("similar", tmp_path / "s.zarr", tmp_path / "b.flac", "--feature", "mel", "--json").json
    assert [row["id"] for row in result["results"]] == ["a.wav"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("similar {f} nobody", "neither an id in"),
        ("similar {f} t0001 --vector pooled", "no vectors 'pooled'; there are: fused, audio, lyrics"),
        ("similar {f} t0001 --vector nonsense", "--vector nonsense: unknown"),
        ("similar {f}", "give one query"),
        ("similar {f} t0001 --text words", "give one query"),
        ("similar {f} --text words", "needs the model of the vectors"),
        ("similar {f} {song}", "needs the model of the vectors"),
        ("similar {f} t0001 --feature mel", "a store needs --feature NAME"),
        ("similar {s} t0001", "a store needs --feature NAME"),
        ("similar {s} t0001 --feature mell", "did you mean 'mel'?"),
        ("similar {song}.parquet t0001", "No such file"),
        ("similar {broken} t0001", "not a file of vectors"),
        ("similar {foreign} t0001", "not a file of vectors"),
        ("embed {s} -o {f}", "give a run"),
        ("embed {run} -o {f}", "give a run"),
        ("embed {s} {song} --feature mel -o {f}", "give a run"),
        ("embed {run} {s} -o {f}.npy", "Use the suffix .parquet"),
    ],
)
def test_misuse_is_refused_with_the_reason(
    place: Path, evaluated_run: Path, call: Call, words: str, message: str
) -> None:
    (place / "broken.parquet").write_bytes(b"PAR1")
    (place / "a.wav").write_bytes(b"RIFF")
    pq.write_table(pq.read_table(place / "fused.parquet").replace_schema_metadata(None), place / "foreign.parquet")
    names = {
        "f": "fused.parquet",
        "s": "s.zarr",
        "broken": "broken.parquet",
        "foreign": "foreign.parquet",
        "song": "a.wav",
    }
    paths = {name: place / path for name, path in names.items()} | {"run": evaluated_run}
    before = (place / "fused.parquet").read_bytes()
    done = call(*(word.format(**paths) for word in words.split()))
    assert (done.code, message in done.err) == (2, True), done.err
    assert (place / "fused.parquet").read_bytes() == before


def test_vectors_of_another_model_are_not_compared(place: Path, evaluated_run: Path) -> None:
    table = pq.read_table(place / "fused.parquet").replace_schema_metadata({"mgc": '{"model": "0"}'})
    pq.write_table(table, place / "other.parquet")
    with pytest.raises(ConfigError, match="not the model that computed the vectors"):
        api.similar(place / "other.parquet", text="words", run=evaluated_run)
