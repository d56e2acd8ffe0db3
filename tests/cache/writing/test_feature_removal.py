"""Removal of added feature sets: complete or undone after any interruption, and the name is free again."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from benchmarks.campaigns.faults import Killed, faults
from benchmarks.worlds.full_store import OTHER, TEMPO, create_full, fill_pending
from benchmarks.worlds.small_store import tree
from mgc.cache.claims import hold
from mgc.cache.errors import ConfigError, StoreCorruptError
from mgc.cache.format.plan import read_plan, unfinished_removals
from mgc.cache.format.tables import ADDED_OUTCOME_SCHEMA
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.cache.upkeep.verify import verify
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import add_feature_set
from mgc.cache.writing.feature_removal import remove_feature_set


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return create_full(tmp_path_factory.mktemp("whole") / "s.zarr")


@pytest.fixture
def store(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "s.zarr"))


def keys(store: Path) -> set[str]:
    """Return the keys of the files of a store, without logs and quarantine."""
    return {key for key, data in tree(store).items() if data is not None}


@pytest.mark.parametrize("name", ["tempo", "other"])
def test_removal_deletes_the_feature_set_and_nothing_else(store, name):
    before = tree(store)
    remove_feature_set(store, name)
    after = tree(store)
    assert verify(store, full=True) == []
    assert {key for key in after if after[key] != before[key]} == {"zarr.json"}
    gone = {key for key, data in before.items() if data is not None} - keys(store)
    assert gone
    assert all(name in key.split(".")[0] for key in gone)
    assert not any(name in key for key in keys(store))
    group = zarr.open_group(store, mode="r")
    assert not [key for key in group if name in key]
    assert name not in group.attrs["added"]
    with FeatureStore.open(store) as opened:
        assert list(opened.added) == [item for item in ("other", "tempo") if item != name]


def test_interrupted_removal_is_complete_or_undone(whole, tmp_path):
    path = tmp_path / "clean" / "s.zarr"
    shutil.copytree(whole, path)
    with faults(path) as watch:
        remove_feature_set(path, "other")
    clean, n = tree(path), len(watch.operations)
    assert n > 20
    for fault in ("kill", "EIO"):
        for at in range(0, n, 1 if fault == "kill" else 4):
            path = Path(shutil.copytree(whole, tmp_path / f"{fault}{at}" / "s.zarr"))
            with faults(path, fault, at) as watch, contextlib.suppress(Killed, OSError):
                remove_feature_set(path, "other")
            assert watch.fired
            assert verify(path, full=True) == []
            assert unfinished_removals(path) == [], "the next reader completes the removal"
            with FeatureStore.open(path) as opened:
                decided = "other" not in opened.added
            if not decided:
                remove_feature_set(path, "other")
            assert tree(path) == clean, f"{fault} at {at}"
            shutil.rmtree(path.parent)


def test_killed_removal_hides_the_feature_set_and_is_completed_later(store):
    with faults(store, "kill", 2), contextlib.suppress(Killed):  # after the rename and its fsync
        remove_feature_set(store, "tempo")
    assert unfinished_removals(store) == ["tempo"]
    assert "tempo" not in read_plan(store).added
    assert (store / "tempo").is_dir()
    remove_feature_set(store, "tempo")
    assert not (store / "tempo").exists()
    assert unfinished_removals(store) == []


def test_name_can_be_reused_and_an_old_process_is_refused(store):
    old = read_plan(store)
    remove_feature_set(store, "tempo")
    newer = dataclasses.replace(TEMPO, version="2", shape=(5,), dtype="int16")
    add_feature_set(store, read_plan(store), "tempo", newer)
    rows = old.part_range(0)
    arrays = {spec.name: np.ones((len(rows), *spec.tail), spec.dtype) for spec in old.arrays("tempo")}
    outcomes = ADDED_OUTCOME_SCHEMA.empty_table()
    with pytest.raises(ConfigError, match="'tempo' was removed during its extraction"):
        commit_part(store, 0, arrays, outcomes, feature_set="tempo", plan=old)
    fill_pending(store)
    assert verify(store, full=True) == []
    with FeatureStore.open(store) as opened:
        assert opened.extractors["tempo"].version == "2"
        assert opened.read("tempo", opened.rows_with("tempo")).shape[1:] == (5,)


def test_open_reader_raises_after_removal_of_a_feature_set(store):
    with FeatureStore.open(store) as before:
        assert len(before.rows_with("tempo"))
        remove_feature_set(store, "tempo")
        with pytest.raises(StoreCorruptError, match="Open the store again"):
            before.read("tempo", before.ok_rows[:1])
        assert np.isfinite(before.read("mel", before.ok_rows)).all()


def test_deleted_object_of_an_added_feature_set_raises(store):
    (store / "tempo" / "c" / "0" / "0").unlink()
    with FeatureStore.open(store) as opened, pytest.raises(StoreCorruptError, match="missing, but part 0 was comm"):
        opened.read("tempo", opened.rows_with("tempo"))


def test_invalid_removal_is_refused(store):
    for name in ("mel", "temp", "../features/tempo"):
        with pytest.raises(ConfigError, match=r"no added feature set .* \(added: other, tempo\)"):
            remove_feature_set(store, name)
    (store / "staging").mkdir()
    with (
        hold(store / "staging" / "commits+tempo+0~claim"),
        pytest.raises(ConfigError, match="an extraction is running"),
    ):
        remove_feature_set(store, "tempo")
    assert verify(store) == []
    assert "tempo" in read_plan(store).added


@pytest.mark.parametrize("name", ["rows", "tracks", "staging"])
def test_no_feature_is_called_like_a_folder_of_the_store(store, name):
    with pytest.raises(ConfigError, match="has arrays or folders of that name"):
        add_feature_set(store, read_plan(store), name, dataclasses.replace(TEMPO, extractor=name, dims=("x",)))


def test_removal_of_a_feature_set_named_as_an_array_keeps_the_array(store):
    add_feature_set(store, read_plan(store), "mel", OTHER, np.ones((3, 6), np.float32))
    before = keys(store)
    remove_feature_set(store, "mel")
    assert verify(store, full=True) == []
    assert {key for key in before if key.startswith("mel/")} <= keys(store)


def test_conversion_after_removal_has_no_trace_of_the_feature_set(store, tmp_path):
    remove_feature_set(store, "tempo")
    convert(store, tmp_path / "s.h5")
    names: list[str] = []
    with h5py.File(tmp_path / "s.h5") as file:
        file.visit(names.append)
    assert not [name for name in names if "tempo" in name]
    assert [name for name in names if "other" in name]
    convert(tmp_path / "s.h5", tmp_path / "again.zarr")
    assert keys(tmp_path / "again.zarr") == {key for key in keys(store) if not key.startswith(("quarantine", "log"))}
