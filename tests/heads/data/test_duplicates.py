"""Copies of a recording are listed, and a split that has one on both sides warns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_world import World

from mgc.cache.errors import ConfigError
from mgc.heads.data.duplicates import find_duplicates
from mgc.heads.data.splits import make_split
from mgc.heads.data.task import labelled_tracks


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tracks 9 and 20 have the audio file of track 2; track 11 is a louder, noisy copy of track 3. Track 1 failed."""
    world = World(failed={1})
    random = np.random.default_rng(3)
    bands = random.normal(0, 8, (40, 128, 4)).astype(np.float16)
    world.mel += np.repeat(bands, world.mel.shape[2] // 4, axis=2)
    for copy, original in ((9, 2), (20, 2), (11, 3)):
        world.mel[copy], world.mel_frames[copy] = world.mel[original], world.mel_frames[original]
    world.mel[11] += (6 + random.normal(0, 1, world.mel[11].shape)).astype(np.float16)
    store = world.write(tmp_path_factory.mktemp("duplicates") / "s.zarr")
    yield store
    store.close()


def test_equal_files_and_near_copies_are_grouped(world: Any, call: Callable[..., Any]) -> None:
    (group,) = find_duplicates(world)
    assert (group.ids, group.equal_files, group.similarity) == (("t0002", "t0009", "t0020"), True, 1.0)
    document = call("store", "duplicates", world.path, "--near", "--json").json
    assert [group["ids"] for group in document["groups"]] == [["t0002", "t0009", "t0020"], ["t0003", "t0011"]]
    assert document["groups"][1]["equal_files"] is False
    assert 0.92 <= document["groups"][1]["similarity"] < 1
    assert len(call("store", "duplicates", world.path, "--near", "--threshold", "1", "--json").json["groups"]) == 1
    assert "2 recordings under several ids, 5 tracks" in call("store", "duplicates", world.path, "--near").out


def test_few_tracks_are_not_compared(tmp_path: Path) -> None:
    with World(n_tracks=5).write(tmp_path / "s.zarr") as store:
        assert find_duplicates(store) == []
        with pytest.raises(ConfigError, match="at least 20 tracks"):
            find_duplicates(store, near=True)


def test_split_with_one_file_on_both_sides_warns_and_split_by_artist_has_none(world: Any) -> None:
    labelled, _ = labelled_tracks(world)
    copies = ("t0002", "t0009", "t0020")
    warned = 0
    for seed in range(8):
        split = make_split(labelled.tracks, labelled.labels, policy="random", seed=seed)
        trained = any(name in split.ids["train"] for name in copies)
        leaked = sum(name not in split.ids["train"] for name in copies) if trained else 0
        notes = [note for note in split.notes if "audio file of a training track" in note]
        assert len(notes) == bool(leaked)
        if leaked:
            assert notes[0].startswith(f"{leaked} validation ")
            warned += 1
        by_artist = make_split(labelled.tracks, labelled.labels, policy="artist", seed=seed)
        assert not any("audio file of a training track" in note for note in by_artist.notes)
    assert 0 < warned < 8
