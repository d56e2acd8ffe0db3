"""Repair with the source: objects that follow from the source are rebuilt byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc import api
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.sources.manifest import Source, Track


def make_source(folder: Path, n: int) -> Source:
    tracks = []
    for i in range(n):
        t = np.arange(22_050) / 22_050
        soundfile.write(folder / f"{i}.wav", (0.2 * np.sin(2 * np.pi * (200 + 50 * i) * t)).astype(np.float32), 22_050)
        tracks.append(
            Track(id=f"t{i}", path=f"{i}.wav", genres=(("rock", "soul", "folk")[i % 3],), lyrics="some words")
        )
    return Source(root=folder, tracks=tracks)


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> tuple[Source, Path]:
    """Five tracks, and two appended, with lyrics and genres."""
    folder = tmp_path_factory.mktemp("songs")
    source = make_source(folder, 7)
    options = {"text_model": "minilm", "workers": 0, "clip_s": 1.0}
    first = Source(root=folder, tracks=[t for t in source.tracks if t.genres[0] != "soul"])
    api.extract(first, folder / "s.zarr", part_rows=2, **options)
    api.extract(source, folder / "s.zarr", append=True, **options)
    return source, folder / "s.zarr"


@pytest.mark.parametrize(
    "key",
    [
        "tracks/0.parquet",
        "tracks/1.parquet",
        "genres/0.parquet",
        "genres/1.parquet",
        "genre_embedding/c/0/0",
        "genre_embedding/c/2/0",
        "commits/1.json",
        "mel/c/3/0/0",
        "plan.json",
        "generations/1.json",
    ],
)
def test_repair_rebuilds_any_object_from_the_source(sample, tmp_path, key):
    source, whole = sample
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    data = bytearray((store / key).read_bytes())
    data[len(data) // 2] ^= 4
    (store / key).write_bytes(data)
    assert any(damage.key == key for damage in verify(store, full=True))
    done = api.store_repair(store, source)
    assert done.left == []
    assert done.pending == 0
    assert verify(store, full=True) == []
    if not key.startswith(("commits", "mel")):
        assert (store / key).read_bytes() == (whole / key).read_bytes()
    with FeatureStore.open(store) as repaired, FeatureStore.open(whole) as before:
        assert repaired.tracks.equals(before.tracks)
        for name in ("mel", "lyrics"):
            np.testing.assert_array_equal(repaired.read(name, repaired.ok_rows), before.read(name, before.ok_rows))


def test_repair_embeds_a_genre_by_its_prompt(sample, tmp_path):
    source, _ = sample
    (tmp_path / "names.csv").write_text("genre,text\nfolk,folk music\nrock,rock and roll\nsoul,soul music\n")
    store = tmp_path / "s.zarr"
    api.extract(source, store, text_model="minilm", workers=0, clip_s=1.0, genre_names=str(tmp_path / "names.csv"))
    chunk = store / "genre_embedding" / "c" / "1" / "0"
    whole = chunk.read_bytes()
    chunk.write_bytes(b"")
    assert api.store_repair(store, source).left == []
    assert chunk.read_bytes() == whole


def test_repair_with_another_source_repairs_nothing(sample, tmp_path):
    source, whole = sample
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    (store / "tracks" / "0.parquet").write_bytes(b"PAR1")
    other = Source(root=source.root, tracks=[Track(id=f"x{i}", path="0.wav") for i in range(7)])
    done = api.store_repair(store, other)
    assert [damage.key for damage in done.left] == ["tracks/0.parquet"]
    assert done.parts_built == 0


def test_takedown_survives_retry_and_repair(sample, tmp_path):
    source, whole = sample
    store = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    assert api.store_drop(store, ["t0", "t1"]) == ["t0", "t1"]
    assert api.store_drop(store, ["t1"]) == []
    with FeatureStore.open(store) as opened:
        counts = opened.counts()
        assert (counts.planned, counts.ok, counts.reasons) == (7, 5, {"DROPPED": 2})
    held = (store / "mel" / "c" / "0" / "0" / "0").stat().st_size
    assert api.store_compact(store) == 2
    assert api.store_compact(store) == 0
    assert verify(store, full=True) == []
    assert (store / "mel" / "c" / "0" / "0" / "0").stat().st_size < held
    import zarr

    group = zarr.open_group(store, mode="r")
    assert np.isnan(group["mel"][0]).all(), "zarr reads none of its bytes"
    assert group["status"][0] == 2
    report = api.extract(source, store, retry_failed=True, workers=0, clip_s=1.0)
    assert (report.ok, report.parts_built) == (5, 0), "a retry does not bring it back"
    (store / "commits" / "0.1.json").unlink()
    done = api.store_repair(store, source)
    assert done.left == []
    with FeatureStore.open(store) as opened:
        assert opened.counts().reasons == {"DROPPED": 2}, "a repair does not bring it back"
    assert np.isnan(zarr.open_group(store, mode="r")["mel"][0]).all()
