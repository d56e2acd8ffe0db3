"""Extractors of sequences and of batches: their arrays, and their support by all commands."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
from sequence_extractors import (
    ALL,
    LAYERS,
    OPTIONS,
    RATE_HZ,
    SECONDS,
    extractor,
    frames,
    make_songs,
    peak,
    tree,
)

import mgc
from mgc import api
from mgc.cache.durable import seal, unseal
from mgc.cache.errors import StoreCorruptError, TrackUnavailableError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import ExtractorRecipe, MelRecipe
from mgc.cache.format.schema import added_arrays
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.hdf5_writer import convert
from mgc.cache.upkeep.select import select
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.audio.clip_reader import ClipReader
from mgc.pipeline.extractors import registry
from mgc.pipeline.sources.manifest import Source

pytestmark = pytest.mark.usefixtures("sequence_extractors")

LENGTHS = [max(1, round(seconds * 10)) for seconds in SECONDS]
LENGTHS[1] = 3  # of 3.5 frames

KILLED = """
import sys
from pathlib import Path
from sequence_extractors import killed_after, make_songs
from mgc import api
from mgc.pipeline.extractors.registry import BUILT_IN

store, name, n_tracks = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
BUILT_IN[name] = killed_after(n_tracks, name)
api.extract(make_songs(store.parent / "songs"), store, add=name, workers=0)
"""


def samples_of(source: Source, i: int) -> np.ndarray:
    with ClipReader(MelRecipe(clip_s=2.0, sample_rate_hz=RATE_HZ, fmax_hz=RATE_HZ / 2), form="samples") as reader:
        return reader.read_samples(source.root / f"{i}.wav").samples


def test_sequences_are_padded_and_their_lengths_stored(tones: tuple[Source, Path], sequence_sample: Path) -> None:
    assert verify(sequence_sample, full=True) == []
    view = mgc.open(sequence_sample)
    lengths = view["levels_length"]
    assert (lengths.dtype, lengths.unit, lengths[:].tolist()) == (np.uint32, "steps", LENGTHS)
    for i, length in enumerate(LENGTHS):
        expected = frames(samples_of(tones[0], i), RATE_HZ)
        np.testing.assert_array_equal(view["levels"][i][:length], expected[0].astype(np.float32))
        assert np.isnan(view["levels"][i][length:]).all()
        np.testing.assert_array_equal(view["layers"][i][:, :length], expected.astype(np.float32))
        assert np.isnan(view["layers"][i][:, length:]).all()
        assert (view["counts"][i][length:] == 0).all()
        assert view["peak"][i] == pytest.approx(peak(samples_of(tones[0], i), RATE_HZ))


def test_only_chunks_with_values_are_stored_and_read(sequence_sample: Path) -> None:
    """One track times a divisor of the frames up to 128, as for token states."""
    long = extractor("long", shape=(1500, 64)).recipe(MelRecipe())
    assert [spec.inner for spec in added_arrays("long", long)] == [(), (1, 125, 64), ()]
    assert [spec.inner for spec in added_arrays("layers", LAYERS.recipe(MelRecipe()))] == [(), (1, 2, 20, 64), ()]
    with FeatureStore.open(sequence_sample) as store:
        assert store.read("levels", [1], length=3).shape == (1, 3, 64)


def test_plain_tools_see_the_lengths(sequence_sample: Path) -> None:
    plain = xarray.open_zarr(sequence_sample, chunks=None)
    assert plain["layers"].dims == ("track", "layers_layer", "layers_frame", "layers_dim")
    assert plain["layers_length"].dims == ("track",)
    assert plain["layers_length"].attrs["units"] == "steps"
    assert not {"levels", "levels_length"} & set(plain.coords)
    assert plain.attrs["added"]["levels"]["recipe"]["length"] == "levels_frame"


@pytest.mark.parametrize("name", ALL)
def test_killed_extraction_continues_to_identical_bytes(
    tones: tuple[Source, Path], sequence_sample: Path, tmp_path: Path, name: str
) -> None:
    source, before = tones
    shutil.copytree(source.root, tmp_path / "songs")
    expected = shutil.copytree(before, tmp_path / "whole.zarr")
    api.extract(source, expected, add=name, **OPTIONS)
    killed = shutil.copytree(before, tmp_path / "killed.zarr")
    for n_tracks in (0, 3):
        command = [sys.executable, "-c", KILLED, killed, name, str(n_tracks)]
        environment = {"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": ""}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == -9, done.stderr
    built = api.extract(source, killed, add=name, **OPTIONS).parts_built
    assert 0 < built < 4
    assert tree(killed) == tree(expected)


@pytest.mark.parametrize("name", ALL)
def test_damage_is_repaired_to_identical_bytes(tones: tuple[Source, Path], sequence_store: Path, name: str) -> None:
    before = tree(sequence_store)
    arrays = [spec.name for spec in read_plan(sequence_store).arrays(name)]
    for array in arrays:
        file = (
            next(path for path in sorted((sequence_store / array / "c" / "1").rglob("*")) if path.is_file())
            if (sequence_store / array / "c" / "1").is_dir()
            else sequence_store / array / "c" / "1"
        )
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        damages = verify(sequence_store, full=True)
        assert {(damage.array, damage.part, damage.feature_set) for damage in damages} == {(array, 1, name)}
        assert api.store_repair(sequence_store, tones[0]).parts_built == 1
        assert verify(sequence_store, full=True) == []
    changed = {key for key, data in before.items() if tree(sequence_store).get(key) != data}
    assert all(key.startswith("commits/") for key in changed), "a repaired part has a new record, and the same values"


def test_takedown_and_compaction_remove_values_and_length(sequence_store: Path) -> None:
    api.store_drop(sequence_store, ["t2"])
    api.store_compact(sequence_store)
    assert verify(sequence_store, full=True) == []
    plain = xarray.open_zarr(sequence_store, chunks=None)
    assert plain["levels_length"].values[2] == 0
    assert np.isnan(plain["levels"][2]).all()
    assert (plain["counts"][2] == 0).all()


def test_conversion_and_selection_keep_sequences(sequence_store: Path, tmp_path: Path) -> None:
    convert(sequence_store, tmp_path / "s.h5")
    sealed = mgc.open(tmp_path / "s.h5")
    for name in [*ALL, "levels_length", "layers_length"]:
        np.testing.assert_array_equal(sealed[name][:], mgc.open(sequence_store)[name][:])
    convert(tmp_path / "s.h5", tmp_path / "again.zarr")
    assert tree(tmp_path / "again.zarr") == tree(sequence_store)
    assert select(mgc.open(sequence_store).take([4, 0]), tmp_path / "some.zarr") == []
    assert verify(tmp_path / "some.zarr", full=True) == []
    some = mgc.open(tmp_path / "some.zarr")
    assert some["layers_length"][:].tolist() == [LENGTHS[0], LENGTHS[4]]
    np.testing.assert_array_equal(some["layers"][1], mgc.open(sequence_store)["layers"][4])


def test_sequence_called_length_can_be_selected(
    tones: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "BUILT_IN", {"length": extractor("length")})
    store = Path(shutil.copytree(tones[1], tmp_path / "s.zarr"))
    api.extract(tones[0], store, add="length", **OPTIONS)
    assert select(mgc.open(store).take([1]), tmp_path / "some.zarr") == []
    assert mgc.open(tmp_path / "some.zarr")["length_length"][:].tolist() == [3]


def test_sequence_can_be_removed_and_its_name_used_again(
    tones: tuple[Source, Path], sequence_store: Path, monkeypatch: pytest.MonkeyPatch, call: Any
) -> None:
    listed = {item["name"]: item for item in call("store", "info", sequence_store, "--json").json["added"]}
    assert listed["levels"]["ok"] == 7
    assert {item["name"] for item in call("store", "info", sequence_store, "--json").json["arrays"]} >= {
        "levels_length"
    }
    call("store", "drop", sequence_store, "--feature", "levels")
    assert not any(key.startswith("levels") for key in tree(sequence_store))
    monkeypatch.setattr(registry, "BUILT_IN", {"levels": extractor("levels", length=None, compute=_whole)})
    assert api.extract(tones[0], sequence_store, add="levels", **OPTIONS).ok == 7
    assert "levels_length" not in mgc.open(sequence_store).features
    assert verify(sequence_store, full=True) == []


def _whole(samples: Any, rate_hz: int) -> Any:
    return np.zeros((20, 64))


def test_length_of_a_foreign_record_is_checked(sequence_store: Path, tmp_path: Path) -> None:
    record = sequence_store / "features" / "levels.json"
    document = unseal(record)
    for length in ("other", 3, ""):
        document["recipe"]["length"] = length
        record.write_bytes(seal(document))
        with pytest.raises(StoreCorruptError, match="length"):
            mgc.open(sequence_store)


def test_verify_finds_values_that_contradict_the_length(sequence_store: Path) -> None:
    """As recorded by a writer that breaks the format: the checksums match."""
    from mgc.cache.format.sequences import wrong_rows

    recipe = read_plan(sequence_store).added["levels"].recipe
    assert isinstance(recipe, ExtractorRecipe)
    view = mgc.open(sequence_store)
    values, lengths, ok = view["levels"][:], view["levels_length"][:], np.ones(7, np.bool_)
    assert not wrong_rows(recipe, values, lengths, ok).any()
    for i, length in ((0, 0), (1, 4), (2, 21), (3, 6)):
        changed = lengths.copy()
        changed[i] = length
        assert np.flatnonzero(wrong_rows(recipe, values, changed, ok)).tolist() == [i]
    values[4, 0, 0] = np.inf
    assert np.flatnonzero(wrong_rows(recipe, values, lengths, ok)).tolist() == [4]
    ok[4] = False
    assert np.flatnonzero(wrong_rows(recipe, values, lengths, ok)).tolist() == [4], "no features, but a length"
    peaks = read_plan(sequence_store).added["peak"].recipe
    assert isinstance(peaks, ExtractorRecipe)
    assert wrong_rows(peaks, np.array([1, np.nan, np.nan]), None, np.array([True, True, False])).tolist() == [0, 1, 0]


def test_text_extractor_without_any_lyrics_in_a_part_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_songs(tmp_path / "songs")
    words = Source(
        root=source.root,
        tracks=[
            dataclasses.replace(track, lyrics="a b c" if i == 6 else None) for i, track in enumerate(source.tracks)
        ],
    )
    store = tmp_path / "s.zarr"
    api.extract(words, store, features=("mel",), clip_s=1.0, part_rows=2, **OPTIONS)
    text = extractor(
        "words",
        input="text",
        sample_rate_hz=None,
        dims=("words_frame",),
        shape=(4,),
        length="words_frame",
        compute=_words,
    )
    monkeypatch.setattr(registry, "BUILT_IN", {"words": text})
    assert api.extract(words, store, add="words", **OPTIONS).ok == 7
    assert verify(store, full=True) == []
    assert mgc.open(store)["words_length"][:].tolist() == [0] * 6 + [3]


def _words(text: str) -> list[float]:
    return [float(len(word)) for word in text.split()]


def test_unavailable_sequences_are_refused_when_read(
    tones: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(samples: np.ndarray, rate_hz: int) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(registry, "BUILT_IN", {"levels": extractor("levels", compute=fails)})
    store = Path(shutil.copytree(tones[1], tmp_path / "s.zarr"))
    assert api.extract(tones[0], store, add="levels", **OPTIONS).failed == 7
    with pytest.raises(TrackUnavailableError, match="EXTRACTOR_FAILED"):
        mgc.open(store)["levels_length"][:]
    assert len(mgc.open(store).sel(feature="levels_length")) == 0
    assert verify(store, full=True) == []
