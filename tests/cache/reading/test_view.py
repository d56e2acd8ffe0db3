"""StoreView: positions, selections, batches, views for other libraries, smaller stores."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import mgc
from benchmarks.worlds.songs_store import FAILED_SONG, GENRES, N_SONGS, TEXT, features, song
from mgc.cache.errors import ConfigError, StoreError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.tables import ADDED_OUTCOME_SCHEMA
from mgc.cache.upkeep.hdf5_writer import seal_store
from mgc.cache.upkeep.select import select
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import add_feature_set

OK_SONGS = [i for i in range(N_SONGS) if i != FAILED_SONG]


@pytest.fixture(scope="module", params=["zarr", "h5"])
def store(request: pytest.FixtureRequest, songs_store: Path, tmp_path_factory: pytest.TempPathFactory) -> mgc.StoreView:
    if request.param == "zarr":
        return mgc.open(songs_store)
    sealed = tmp_path_factory.mktemp("sealed") / "songs.h5"
    seal_store(songs_store, sealed)
    return mgc.open(sealed)


def number(track_id: str) -> int:
    return int(track_id.removeprefix("song"))


def test_position_i_is_the_same_track_everywhere(store: mgc.StoreView) -> None:
    assert [number(name) for name in store.tracks.column("id").to_pylist()] == OK_SONGS
    for name in ("mel", "lyrics", "lyrics_pooled", "lyrics_tokens"):
        expected = np.stack([features(i)[name] for i in OK_SONGS])
        np.testing.assert_array_equal(np.asarray(store[name]), expected)
        for key in (3, -1, slice(2, 9, 3), [5, 1, 1], (slice(0, 4), 2) if expected.ndim > 1 else 0, ...):
            np.testing.assert_array_equal(store[name][key], expected[key])
    mask = np.arange(len(store)) % 2 == 0
    np.testing.assert_array_equal(store["mel"][mask, :, 3], np.asarray(store["mel"])[mask, :, 3])
    with pytest.raises(IndexError):
        store["mel"][len(store)]
    with pytest.raises(StoreError, match="no array 'chroma'.*Use one of .*mel"):
        store["chroma"]


def test_selections_match_the_values_of_the_source(store: mgc.StoreView) -> None:
    output = {i: song(i) for i in OK_SONGS}
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"genre": "jazz"}, lambda item: "jazz" in item["genres"]),
        (
            {"genre": ["jazz", "folk"], "split": "train"},
            lambda item: {"jazz", "folk"} & {*item["genres"]} and item["split"] == "train",
        ),
        ({"language": "pt", "artist": ("artist 1", "artist 2")}, lambda item: item["artists"] == ["artist 1"]),
        ({"id": "song07"}, lambda item: item["id"] == "song07"),
    ]
    for requested, right in cases:
        chosen = store.sel(**requested)
        assert chosen.tracks.column("id").to_pylist() == [item["id"] for item in output.values() if right(item)]
        assert chosen["mel"].shape[0] == len(chosen) == len(chosen.tracks)
    assert len(store.sel(genre="jazz").sel(split="test")) == len(store.sel(genre="jazz", split="test"))
    assert len(store.sel(id="song00", artist="artist 7")) == 0
    with pytest.raises(ConfigError, match="no selected track has the split 'tset'; did you mean 'test'"):
        store.sel(split="tset")
    with pytest.raises(
        ConfigError, match="no selected track has the artist 'x'; there are: artist 0, artist 1, .*and 2 mo"
    ):
        store.sel(artist="x")
    some = mgc.open(Path(__file__).parents[1] / "golden" / "golden.zarr")
    unsplit = some.take([split is None for split in some.tracks.column("split").to_pylist()])
    with pytest.raises(ConfigError, match="no selected track has a split: the source has none. .*splits.json"):
        unsplit.sel(split="test")
    assert store.failures.to_pylist() == [
        {"id": "song23", "path": "songs/23.mp3", "reason": "NOT_AUDIO", "detail": "its content is HTML"}
    ]


def test_labels_keep_their_columns_in_every_selection(store: mgc.StoreView) -> None:
    assert store.genres == list(GENRES)
    jazz = store.sel(genre="jazz")
    assert jazz.labels().shape == (len(jazz), 3)
    assert jazz.labels()[:, 1].all()
    expected = [[genre in song(i)["genres"] for genre in GENRES] for i in OK_SONGS]
    assert store.labels().tolist() == expected


def test_batches_give_each_track_once_in_an_order_that_the_seed_decides(store: mgc.StoreView) -> None:
    batches = list(store.batches(["mel", "lyrics_tokens"], 5, seed=1))
    assert [len(batch["position"]) for batch in batches] == [5, 5, 5, 5, 3]
    order = np.concatenate([batch["position"] for batch in batches])
    assert sorted(order) == list(range(len(store)))
    assert (order != np.arange(len(store))).any()
    np.testing.assert_array_equal(np.concatenate([batch["mel"] for batch in batches]), store["mel"][order])
    again = np.concatenate([batch["position"] for batch in store.batches("mel", 5, seed=1)])
    other = np.concatenate([batch["position"] for batch in store.batches("mel", 5, seed=1, epoch=1)])
    assert (order == again).all()
    assert (order != other).any()
    assert [len(batch["position"]) for batch in store.batches("mel", 5, drop_last=True)] == [5, 5, 5, 5]
    with pytest.raises(ConfigError, match="batch size 0"):
        next(store.batches("mel", 0))


def test_a_view_travels_to_another_process(store: mgc.StoreView) -> None:
    some = store.sel(split="test")
    copy = pickle.loads(pickle.dumps(some))
    assert copy.tracks == some.tracks
    np.testing.assert_array_equal(copy["mel"][:], some["mel"][:])


def test_torch_reads_through_a_loader_with_workers(store: mgc.StoreView) -> None:
    data = mgc.to_torch(store.sel(split="train"), ["mel", "lyrics_tokens"], genres=["metal", "jazz"])
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="fork")
    batches = list(loader)
    view = store.sel(split="train")
    np.testing.assert_array_equal(torch.cat([item["mel"] for item in batches]).numpy(), view["mel"][:])
    assert torch.cat([item["labels"] for item in batches]).tolist() == view.labels(["metal", "jazz"]).tolist()
    tokens = torch.cat([item["lyrics_tokens"] for item in batches])
    assert tokens.dtype == torch.int64
    np.testing.assert_array_equal(tokens.numpy(), view["lyrics_tokens"][:])
    with pytest.raises(StoreError, match="no array 'chroma'"):
        mgc.to_torch(store, "chroma")


def test_xarray_and_dask_compute_as_numpy(store: mgc.StoreView) -> None:
    songs = mgc.to_xarray(store.sel(language="pt"))
    mel = np.asarray(store.sel(language="pt")["mel"], dtype=np.float64)
    assert songs["mel"].dims == ("track", "mel_band", "frame")
    assert songs["mel"].attrs["units"] == "dB re 1.0"
    assert songs["mel"].chunks is not None
    np.testing.assert_allclose(songs["mel"].astype(float).mean("track").values, mel.mean(axis=0))
    by_split = songs["mel"].astype(float).groupby("split").mean(...)
    chosen = np.asarray(store.sel(language="pt", split="test")["mel"], dtype=np.float64)
    np.testing.assert_allclose(by_split.sel(split="test").values, chosen.mean())
    assert songs["labels"].sel(track="song02").values.tolist() == [g in song(2)["genres"] for g in GENRES]
    frames = mgc.to_dask(store["mel"])[:, :, ::10]
    np.testing.assert_array_equal(frames.compute(), np.asarray(store["mel"])[:, :, ::10])


def test_opening_a_store_imports_nothing_heavy() -> None:
    script = (
        "import sys, mgc; mgc.open; mgc.StoreView; "
        "print(*({'torch', 'librosa', 'transformers', 'dask', 'xarray', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("form", ["zarr", "h5"])
def test_selected_store_verifies_and_has_the_same_features(
    call: Any, store: mgc.StoreView, tmp_path: Path, form: str
) -> None:
    small = tmp_path / f"small.{form}"
    done = call(
        "store",
        "select",
        store.store.path,
        "--split",
        "train",
        "--split",
        "test",
        "--genre",
        "jazz",
        "-o",
        small,
        "--json",
    )
    assert not (small / "staging").exists()
    chosen = store.sel(split=["train", "test"], genre="jazz")
    assert (done.json["tracks"], done.json["of"]) == (len(chosen), len(OK_SONGS))
    assert call("store", "verify", small, "--full").code == 0
    copied = mgc.open(small)
    names = [
        "id",
        "path",
        "artists",
        "song",
        "genres",
        "language",
        "split",
        "status",
        "flags",
        "source_sha256",
        "lyrics_sha256",
        "seconds",
    ]
    assert copied.tracks.select(names) == chosen.tracks.select(names)
    for name in chosen.features:
        np.testing.assert_array_equal(copied[name][:], chosen[name][:])
    assert copied.store.fingerprints == store.store.fingerprints
    assert copied.store.library_versions == store.store.library_versions
    assert copied.genres == sorted({genre for names in chosen.tracks.column("genres").to_pylist() for genre in names})
    every = dict(zip(store.store.genres, store.store.genre_embedding, strict=True))
    np.testing.assert_array_equal(copied.store.genre_embedding, np.stack([every[name] for name in copied.store.genres]))
    assert [path.name for path in tmp_path.iterdir()] == [small.name]
    assert call("store", "select", store.store.path, "--split", "test", "-o", small).code == 2
    assert (
        "no selected track has the genre 'polka'"
        in call("store", "select", store.store.path, "--genre", "polka", "-o", tmp_path / "none.h5").err
    )


def add_negated_text(path: Path, parts: range) -> None:
    """Add a second text encoder, whose states are the negated ones of the first, in some parts only."""
    plan = add_feature_set(
        path,
        read_plan(path),
        "neg",
        dataclasses.replace(TEXT, weights_sha256="c" * 64),
        np.eye(3, 12, dtype=np.float32),
    )
    for part in parts:
        every, failed = [features(i) for i in plan.part_range(part)], [i == FAILED_SONG for i in plan.part_range(part)]
        arrays = {
            spec.name: np.stack([item[spec.name.removesuffix("_neg")] for item in every]) for spec in plan.arrays("neg")
        }
        for name in ("lyrics_neg", "lyrics_pooled_neg"):
            arrays[name] *= -1
        for spec in plan.arrays("neg"):
            arrays[spec.name][failed] = 2 if spec.name == "status_neg" else spec.fill
        outcomes = [
            {"row": i, "status": 2, "reason": "NOT_AUDIO"} if fails else {"row": i, "status": 1}
            for i, fails in zip(plan.part_range(part), failed, strict=True)
        ]
        commit_part(path, part, arrays, pa.Table.from_pylist(outcomes, ADDED_OUTCOME_SCHEMA), feature_set="neg")


def test_select_copies_added_text_features_that_every_track_has(songs_store: Path, tmp_path: Path) -> None:
    path = tmp_path / "songs.zarr"
    shutil.copytree(songs_store, path)
    add_negated_text(path, range(2))
    assert select(mgc.open(path), tmp_path / "all.zarr") == [
        "the features 'neg' are not copied: not every track has them"
    ]
    assert mgc.open(tmp_path / "all.zarr").store.texts == {}
    some = mgc.open(path).take(mgc.open(path).rows < 16).sel(genre="metal")
    assert select(some, tmp_path / "some.h5") == []
    copied, plain = mgc.open(tmp_path / "some.h5", text="neg"), mgc.open(tmp_path / "some.h5")
    np.testing.assert_array_equal(copied["lyrics"][:], -plain["lyrics"][:])
    np.testing.assert_array_equal(plain["lyrics"][:], some["lyrics"][:])
    names = mgc.open(path).store.genres
    np.testing.assert_array_equal(copied.store.genre_embedding, [np.eye(3, 12)[names.index(g)] for g in copied.genres])
    with pytest.raises(ConfigError, match="select from the store without"):
        select(copied, tmp_path / "again.zarr")
