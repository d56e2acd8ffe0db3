"""Stores: written values are read back, mapped or through zarr, also after a kill at any step."""

import contextlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from benchmarks.worlds.small_store import (
    FAILED_ROW,
    GENRES,
    N_TRACKS,
    RECIPE,
    create,
    features,
    fill,
    part_content,
    tree,
)
from mgc.cache.durable import seal, unseal
from mgc.cache.errors import StoreCorruptError, StoreError, StoreFormatError, StoreNotFoundError, TrackUnavailableError
from mgc.cache.format import layout
from mgc.cache.format.layout import object_key
from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.format.schema import FAILED, OK, track_arrays
from mgc.cache.format.tables import plan_table
from mgc.cache.reading import mapped_shard, zarr_reader
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.info import watch
from mgc.cache.writing import publish
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import create_store


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    path = create(tmp_path / "s.zarr")
    fill(path)
    return path


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "zarr"])
def test_rows_are_read_in_any_order(store_path, mapped):
    store = FeatureStore.open(store_path, mapped=mapped)
    rows = np.array([9, 0, 7, 0, 3])
    for name in features(0):
        expected = np.stack([features(row)[name] for row in rows])
        np.testing.assert_array_equal(store.read(name, rows), expected, strict=True)
    np.testing.assert_array_equal(store.genre_embedding, np.arange(24, dtype=np.float32).reshape(2, 12))
    assert store.genres == GENRES
    assert store.recipe == RECIPE


def test_mapped_and_zarr_give_identical_bytes(store_path):
    mapped, plain = FeatureStore.open(store_path), FeatureStore.open(store_path, mapped=False)
    for name in ("mel", "lyrics"):
        assert mapped.read(name, mapped.ok_rows).tobytes() == plain.read(name, plain.ok_rows).tobytes()


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("length", [1, 127, 128, 129, 300, 1000])
def test_length_cuts_tokens(store_path, mapped, length):
    store = FeatureStore.open(store_path, mapped=mapped)
    whole = store.read("lyrics", [9, 1])
    np.testing.assert_array_equal(store.read("lyrics", [9, 1], length=length), whole[:, :length], strict=True)


def test_reading_rows_without_features_raises(store_path):
    store = FeatureStore.open(store_path)
    assert FAILED_ROW not in store.ok_rows
    with pytest.raises(TrackUnavailableError, match=r"t05 \(EMPTY\)"):
        store.read("mel", [1, FAILED_ROW])
    with pytest.raises(KeyError, match="belong to no track"):
        store.read("mel", [10])
    with pytest.raises(KeyError, match=r"rows \[12\] are outside the 12 array rows"):
        store.read("mel", [12])
    with pytest.raises(StoreError, match="no array 'chroma'.* Use one of status, flags, mel"):
        store.read("chroma", [0])


def test_plain_zarr_and_xarray_read_it(store_path):
    group = zarr.open_group(store_path, mode="r")
    assert group.attrs["recipe"]["mel"]["hop_length"] == 512
    np.testing.assert_array_equal(group["mel"][9], features(9)["mel"])
    assert np.isnan(group["mel"][FAILED_ROW]).all()
    assert group["status"][:].tolist() == [OK] * 5 + [FAILED] + [OK] * 4 + [0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xarray.open_zarr(store_path, chunks=None)
    assert dataset.mel.dims == ("track", "mel_band", "frame")
    assert dataset.mel.attrs["units"] == "dB re 1.0"
    assert dataset.genre_embedding.dims == ("genre", "text_dim")
    np.testing.assert_array_equal(dataset.lyrics[9].values, features(9)["lyrics"])


def test_uncommitted_rows_are_absent_and_committed_ones_never_change(tmp_path):
    path = create(tmp_path / "s.zarr")
    fill(path, [1])
    early = FeatureStore.open(path)
    assert early.ok_rows.tolist() == [4, 6, 7]
    before = early.read("mel", early.ok_rows)
    with pytest.raises(TrackUnavailableError, match="t00 .not extracted yet"):
        early.read("mel", [0])
    fill(path, [0, 2])
    np.testing.assert_array_equal(early.read("mel", early.ok_rows), before)
    assert len(FeatureStore.open(path).ok_rows) == N_TRACKS - 1


def test_first_commit_of_a_part_wins(store_path):
    before = tree(store_path)
    arrays, outcomes = part_content(range(4, 8))
    record = commit_part(store_path, 1, {**arrays, "mel": arrays["mel"] + 1}, outcomes)
    roll_forward(store_path)
    assert tree(store_path) == before
    assert record["counts"] == {"ok": 3, "failed": 1}
    assert record["reasons"] == {"EMPTY": 1}


def test_two_writers_at_once_make_one_store(tmp_path):
    path, clean = create(tmp_path / "two.zarr"), create(tmp_path / "clean.zarr")
    fill(clean)
    with ThreadPoolExecutor(2) as both:
        for done in [both.submit(fill, path) for _ in range(2)]:
            done.result()
    fill(path, [])
    assert tree(path) == tree(clean)


def rewritten(path: Path, data: bytes) -> None:
    path.unlink()  # the name may be a hard link
    path.write_bytes(data)


@pytest.mark.parametrize("array", ["mel", "lyrics", "lyrics_tokens"])
def test_a_deleted_object_is_an_error_not_fill(store_path, array):
    key = object_key({spec.name: spec for spec in FeatureStore.open(store_path).arrays}[array], 0)
    (store_path / key).unlink()
    store = FeatureStore.open(store_path)
    with pytest.raises(StoreCorruptError, match="missing, but part 0 was committed with it"):
        store.read(array, [0, 1])
    assert array == "lyrics_tokens" or store.read(array, [4]).any()


@pytest.mark.parametrize(
    "places",
    [
        [(zarr_reader, "read_rows"), (zarr_reader, "MappedShard")],
        [(layout, "open_regular"), (mapped_shard, "open_regular")],
    ],
    ids=["read", "open"],
)
@pytest.mark.parametrize("array", ["mel", "lyrics_tokens"])
@pytest.mark.parametrize("mapped", [True, False])
def test_an_object_that_is_deleted_just_before_the_read_is_an_error(store_path, places, array, mapped, monkeypatch):
    """It was there when the reader looked, if the reader looks before it reads, or before it opens."""

    def delete_first(real):
        def read(*args):
            (store_path / object_key(spec, 0)).unlink(missing_ok=True)
            return real(*args)

        return read

    reader = zarr_reader.ZarrReader(store_path, mapped=mapped)
    spec = next(spec for spec in track_arrays(reader.recipe) if spec.name == array)
    for module, name in places:
        monkeypatch.setattr(module, name, delete_first(getattr(module, name)))
    rows, out = np.array([0]), np.empty((1, *spec.tail), spec.dtype)

    def read():
        return reader.read_into(spec, out, rows) if array == "mel" else reader.column(spec, rows)

    with pytest.raises(StoreCorruptError, match="missing, but part 0 was committed with it"):
        read()


@pytest.mark.parametrize("place", [0, 1000, -30, -2])
def test_a_flipped_bit_in_a_shard_is_found(store_path, place):
    shard = store_path / "mel" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[place] ^= 0x10
    rewritten(shard, bytes(data))
    with pytest.raises(StoreCorruptError, match="checksum|shard index"):
        FeatureStore.open(store_path).read("mel", [0, 1, 2, 3])


def test_altered_or_missing_tables_are_refused(store_path):
    table = store_path / "tracks" / "0.parquet"
    other = create(store_path.parent / "other.zarr") / "genres" / "0.parquet"
    whole = table.read_bytes()
    rewritten(table, other.read_bytes())
    with pytest.raises(StoreCorruptError, match="altered since it was planned"):
        FeatureStore.open(store_path)
    rewritten(table, whole)
    outcome = store_path / "rows" / "1.parquet"
    rewritten(outcome, outcome.read_bytes()[:50])
    with pytest.raises(StoreCorruptError, match="not a valid table"):
        FeatureStore.open(store_path)


def test_files_of_a_file_manager_are_ignored(store_path):
    (store_path / "commits" / ".DS_Store").write_bytes(b"x")
    (store_path / "staging").mkdir()
    (store_path / "staging" / ".nfs0001").write_bytes(b"x")
    assert len(FeatureStore.open(store_path).ok_rows) == N_TRACKS - 1


def test_staging_may_vanish_while_it_is_listed(store_path, monkeypatch):
    """Any reader removes it when it is empty, between another's look whether it is there and what is in it."""
    staging = store_path / "staging"

    def vanishing(look):
        def looked(folder="."):
            if str(folder) == str(staging):
                with contextlib.suppress(FileNotFoundError):
                    staging.rmdir()
            return look(folder)

        return looked

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, vanishing(getattr(os, name)))
    for look in (
        lambda: publish.sweep(store_path, "commits/0.json"),
        lambda: publish.refuse_busy(store_path),
        lambda: next(watch(store_path)),
    ):
        staging.mkdir(exist_ok=True)
        look()


def test_more_shards_than_open_files_allowed(store_path, monkeypatch):
    monkeypatch.setattr(zarr_reader, "_MAX_MAPPED", 1)
    store = FeatureStore.open(store_path)
    for rows in ([0, 9, 4], [9, 0, 7]):
        np.testing.assert_array_equal(store.read("mel", rows), np.stack([features(row)["mel"] for row in rows]))
    assert len(store.reader._shards) == 1


def test_creating_twice_leaves_the_first(store_path):
    before = tree(store_path)
    created = create_store(
        store_path, tracks=plan_table([]), recipe=RECIPE, part_rows=4, genres=[], genre_embedding=None
    )
    assert not created
    assert tree(store_path) == before
    assert [entry.name for entry in store_path.parent.iterdir()] == [store_path.name]


def test_no_store_other_format_and_altered_plan_are_refused(store_path, tmp_path):
    with pytest.raises(StoreNotFoundError, match="not a feature store"):
        FeatureStore.open(tmp_path / "nothing")
    plan = store_path / "plan.json"
    text = plan.read_text()
    plan.write_text(text.replace('"part_rows": 4', '"part_rows": 5'))
    with pytest.raises(StoreCorruptError, match="does not match its own sha256"):
        FeatureStore.open(store_path)
    document = unseal(_rewritten(plan, text)) | {"format_version": 99}
    plan.write_bytes(seal(document))
    with pytest.raises(StoreFormatError, match="store format 99"):
        FeatureStore.open(store_path)


def _rewritten(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_shard_cut_short_is_refused(store_path):
    shard = store_path / "mel" / "c" / "0" / "0" / "0"
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(StoreCorruptError, match="shard index"):
        FeatureStore.open(store_path).read("mel", [0])


def test_recipe_differences_are_readable_and_fingerprints_follow():
    other = Recipe(mel=MelRecipe(clip_s=0.5, hop_length=256), lyrics=None)
    lines = RECIPE.differences(other)
    assert "mel.hop_length: 512 in the store, 256 in this command" in lines
    assert "lyrics.hidden_size: 12 in the store, absent in this command" in lines
    assert Recipe.from_dict(RECIPE.to_dict()) == RECIPE
    assert RECIPE.fingerprints()["mel"] != other.fingerprints()["mel"]
