"""Readers that require added feature sets: tracks without them have no status ok, and keep the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgc.cache.errors import ConfigError
from mgc.cache.format.recipe import added_fingerprints
from mgc.cache.format.schema import FAILED, OK
from mgc.cache.reading.store import FeatureStore


@pytest.fixture
def store(make_world: Callable[..., Any], tmp_path: Path) -> FeatureStore:
    """Store of 40 tracks; track 3 failed, track 5 failed in `first`, tracks 5 and 6 failed in `second`."""
    world = make_world(failed={3})
    path = tmp_path / "s.zarr"
    world.write(path).close()
    world.add(path, "first", np.ones((40, 2), np.float32), failed={5}).close()
    return world.add(path, "second", np.ones((40, 2), np.float32), failed={5, 6})  # type: ignore[no-any-return]


def test_required_feature_set_replaces_outcomes_and_counts_the_tracks_that_lack_it(store: FeatureStore) -> None:
    both = store.requiring(["second", "first"])
    assert (store.counts().ok, both.counts().ok) == (39, 37)
    assert both.required == {"second": 2, "first": 0}
    assert both.ok_rows.tolist() == [row for row in range(40) if row not in (3, 5, 6)]
    assert {row: both.status[row] for row in (2, 3, 6)} == {2: OK, 3: FAILED, 6: FAILED}
    reasons = {track["id"]: track["reason"] for track in both.newest_tracks().to_pylist() if track["reason"]}
    assert reasons == {"t0003": "NOT_AUDIO", "t0005": "EXTRACTOR_FAILED", "t0006": "EXTRACTOR_FAILED"}
    for name in ("first", "second"):
        assert both.fingerprints[name] == added_fingerprints(store.added[name], {})[name]
        assert name not in store.fingerprints
    assert both.requiring(["first"]).required == both.required
    assert store.requiring([]).ok_rows.tolist() == store.ok_rows.tolist()


def test_unfinished_feature_set_is_pending(make_world: Callable[..., Any], tmp_path: Path) -> None:
    world, path = make_world(), tmp_path / "s.zarr"
    world.write(path).close()
    with world.add(path, "late", np.ones((40, 2), np.float32), n_parts=2) as store:
        assert store.pending_note is None
        required = store.requiring(["late"])
        assert (required.counts().ok, required.counts().pending, required.required) == (32, 8, {"late": 8})
        assert "8 of 40 tracks pending. Run `mgc extract --add late` again" in str(required.pending_note)


def test_unknown_feature_set_is_refused_with_the_added_ones(store: FeatureStore) -> None:
    with pytest.raises(ConfigError, match=r"no added feature set 'third'.*first, second"):
        store.requiring(["third"])
