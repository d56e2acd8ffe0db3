"""Merge of stores: equal features and provenance, refusals, nothing left after a stop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import MEL, TEXT, World

from mgc import api
from mgc.cache.errors import ConfigError, RecipeMismatchError, StoreCorruptError
from mgc.cache.format.recipe import Recipe
from mgc.cache.reading.view import open_store
from mgc.cache.upkeep import select
from mgc.cache.upkeep.verify import Damage, verify


def site(path: Path, seed: int, *, first: int = 0, extractor_version: str = "1", **changes: Any) -> Path:
    """Write the store of a site: 20 tracks, one of them failed, with ids from `first` on and a scalar feature."""
    world = World(n_tracks=20, seed=seed, failed={3}, **changes)
    for i, track in enumerate(world.tracks):
        track |= {"id": f"t{first + i:04d}", "path": f"songs/t{first + i:04d}.wav"}
        track["genres"] = [*track["genres"], f"genre of {seed}"]
    world.write(path).close()
    tempo = np.random.default_rng(seed).normal(120, 9, 20)
    world.add(path, "tempo", tempo, dims=(), version=extractor_version).close()
    return path


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sites")
    return [site(folder / "north.zarr", 0), site(folder / "south.zarr", 1, first=10)]


@pytest.fixture(scope="module")
def apart(sites: list[Path]) -> list[Path]:
    """Stores without a common id."""
    return [sites[0], site(sites[0].with_name("far.zarr"), 2, first=500)]


def assert_holds(merged: Path, stores: list[Path], prefixes: tuple[str, ...] = ("", "")) -> None:
    with open_store(merged) as view:
        position = {name: i for i, name in enumerate(view.tracks.column("id").to_pylist())}
        assert list(position) == sorted(position)
        rows = view.tracks.to_pylist()
        n = 0
        for store, prefix in zip(stores, prefixes, strict=True):
            with open_store(store) as own:
                for i, track in enumerate(own.tracks.to_pylist()):
                    n += 1
                    there = position[f"{prefix}{track['id']}"]
                    assert rows[there]["path"] == f"{prefix}{track['path']}"
                    for name in ("artists", "genres", "split", "source_sha256", "lyrics_sha256", "seconds", "flags"):
                        assert rows[there][name] == track[name]
                    for name in own.features:
                        assert view[name][there].tobytes() == own[name][i].tobytes()
                for name in own.genres:
                    row = view.store.genre_embedding[view.store.genres.index(name)]
                    np.testing.assert_array_equal(row, own.store.genre_embedding[own.store.genres.index(name)])
        assert n == len(view)


def test_a_merge_holds_the_features_and_provenance_of_all_stores(apart: list[Path], tmp_path: Path) -> None:
    result = api.store_merge(apart, tmp_path / "all.zarr")
    assert (result.tracks, list(result.merged.values())) == (38, [19, 19])
    assert [remark.partition(": ")[2] for remark in result.remarks] == ["1 failed track left out"] * 2
    assert_holds(tmp_path / "all.zarr", apart)
    assert verify(tmp_path / "all.zarr", full=True) == []
    api.store_merge(apart[::-1], tmp_path / "all.h5")
    assert_holds(tmp_path / "all.h5", apart)


def test_equal_ids_are_refused_unless_each_store_has_a_prefix(sites: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"9 ids are in two stores.*'t0010' in .*north.zarr.*Give one --prefix"):
        api.store_merge(sites, tmp_path / "all.zarr")
    assert list(tmp_path.iterdir()) == []
    api.store_merge(sites, tmp_path / "all.zarr", prefixes=["north", "south"])
    assert_holds(tmp_path / "all.zarr", sites, ("north/", "south/"))
    for prefixes, fault in (
        (["one"], "for 2 stores"),
        (["a", "A"], "differ only by case"),
        (["..", "b"], "not the name of a folder"),
        (["a/b", "b"], "not the name of a folder"),
    ):
        with pytest.raises(ConfigError, match=fault):
            api.store_merge(sites, tmp_path / "other.zarr", prefixes=prefixes)


def test_another_recipe_is_refused_with_the_difference(sites: list[Path], tmp_path: Path) -> None:
    other = Recipe(mel=dataclasses.replace(MEL, min_clip_s=0.5), lyrics=TEXT)
    site(tmp_path / "other.zarr", 1, first=500, recipe=other)
    with pytest.raises(RecipeMismatchError, match=r"mel.min_clip_s: 0.05 in .*north.zarr, 0.5 in .*other.zarr"):
        api.store_merge([sites[0], tmp_path / "other.zarr"], tmp_path / "all.zarr")
    assert not (tmp_path / "all.zarr").exists()


def test_a_feature_set_with_another_recipe_is_not_copied(sites: list[Path], tmp_path: Path) -> None:
    site(tmp_path / "newer.zarr", 3, first=500, extractor_version="2")
    result = api.store_merge([sites[0], tmp_path / "newer.zarr"], tmp_path / "all.zarr")
    assert "the features 'tempo' are not copied: not every store has them with the same recipe" in result.remarks
    with open_store(tmp_path / "all.zarr") as view:
        assert "tempo" not in view.features


def test_a_merge_that_stops_leaves_nothing(apart: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(step: str, done: int, total: int, note: str = "") -> None:
        if (step, done) == ("merge", total):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.store_merge(apart, tmp_path / "all.zarr", on_progress=stop)
    assert list(tmp_path.iterdir()) == []
    damage = Damage(kind="altered", key="mel/c/0", detail="altered")
    monkeypatch.setattr(select, "verify", lambda *_, **__: [damage])
    with pytest.raises(StoreCorruptError, match=r"mel/c/0: altered. Check the disk"):
        api.store_merge(apart, tmp_path / "all.zarr")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="needs a local path"):
        api.store_merge(apart, Path("s3://bucket/all.zarr"))
    with pytest.raises(ConfigError, match="two or more different"):
        api.store_merge([apart[0], apart[0]], tmp_path / "all.zarr")
