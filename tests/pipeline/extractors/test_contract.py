"""The contract of extractors: batches, preparation, names, and sources without labels."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sequence_extractors import (
    BATCHED,
    OPTIONS,
    SEQUENCE,
    extractor,
    make_songs,
    peak,
    tree,
)

import mgc
from mgc import api
from mgc.cache.errors import ConfigError, RecipeMismatchError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe, added_fingerprints, feature_set_recipe, recipe_document
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.extractors import registry
from mgc.pipeline.extractors.registry import BUILT_IN
from mgc.pipeline.sources.manifest import Source, Track

pytestmark = pytest.mark.usefixtures("sequence_extractors")


WRONG = {
    "empty": (np.zeros((0, 64)), "values of shape (0, 64), announced was (20, 64)"),
    "too long": (np.zeros((21, 64)), "values of shape (21, 64), announced was (20, 64)"),
    "of other width": (np.zeros((3, 63)), "values of shape (3, 63), announced was (20, 64)"),
    "not finite": (np.full((3, 64), np.nan), "values that are not finite"),
}


@pytest.mark.parametrize(("values", "output"), WRONG.values(), ids=WRONG.keys())
def test_wrong_sequences_fail_their_track(values: Any, output: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        extractor("x", compute=lambda: values).values()
    assert output in str(error.value)


def test_batches_are_of_the_announced_size_and_an_error_fails_one_track(
    tones: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def batch(clips: list[np.ndarray], rate_hz: int) -> list[float]:
        sizes.append(len(clips))
        return [loud(samples, rate_hz) for samples in clips]

    def loud(samples: np.ndarray, rate_hz: int) -> float:
        if round(peak(samples, rate_hz), 1) == 0.3:
            raise ZeroDivisionError
        return peak(samples, rate_hz)

    source, before = tones
    for compute_batch in (batch, lambda clips, rate_hz: batch(clips, rate_hz)[:-1]):
        sizes.clear()
        store = Path(shutil.copytree(before, tmp_path / f"{id(compute_batch)}.zarr"))
        three = dataclasses.replace(BATCHED, compute=loud, compute_batch=compute_batch, batch_size=3)
        monkeypatch.setattr(registry, "BUILT_IN", {"peak": three})
        report = api.extract(source, store, add="peak", **OPTIONS)
        assert (report.ok, report.reasons) == (6, {"EXTRACTOR_FAILED": 1})
        assert sorted(sizes) == [1, 2, 2, 2], "parts have two tracks, the last has one"
        with FeatureStore.open(store) as opened:
            (failed,) = (
                opened.added_outcomes("peak")
                .filter(opened.added_outcomes("peak").column("reason").is_valid())
                .to_pylist()
            )
            assert (failed["row"], failed["detail"]) == (2, "the extractor raised ZeroDivisionError")
        assert verify(store, full=True) == []


def test_prepare_is_called_once_per_process(
    tones: tuple[Source, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    class Network:
        weight: float | None = None

        def load(self) -> None:
            calls.append(1)
            if len(calls) == 1:
                raise ConfigError("the weights are missing. Install them.")
            self.weight = 2.0

        def compute(self, samples: np.ndarray, rate_hz: int) -> float:
            assert self.weight is not None
            return self.weight

    network = Network()
    loaded = dataclasses.replace(
        BATCHED, compute=network.compute, compute_batch=None, batch_size=1, prepare=network.load
    )
    monkeypatch.setattr(registry, "BUILT_IN", {"peak": loaded})
    store = Path(shutil.copytree(tones[1], tmp_path / "s.zarr"))
    with pytest.raises(ConfigError, match="--add peak: the weights are missing"):
        api.extract(tones[0], store, add="peak", **OPTIONS)
    assert read_plan(store).added == {}
    assert api.extract(tones[0], store, add="peak", **OPTIONS).parts_built == 4
    assert len(calls) == 2, "after an error again, then once for all parts"


def test_recipes_of_older_extractors_are_unchanged() -> None:
    """The fingerprints were printed by the version before sequences."""
    older = {
        "pooled_mel": "ec3165b21709c7ffb21856f3dae8ab4aaf8c359d8d09c32336a047ed73d57e00",
        "musicnn": "4985a10279d6223ddaaa60dfa3772d52a50c86593d721ed0445dc0e64ecc794b",
        "musicnn_tags": "eed0f41140cf3e6c64ff9b84b64bbbefbfe831b39711637c0e4e921a3485b827",
    }
    for name, fingerprint in older.items():
        recipe = BUILT_IN[name].recipe(MelRecipe())
        assert added_fingerprints(recipe, {}) == {name: fingerprint}
        assert "length" not in recipe_document(recipe)
    document = json.loads(json.dumps(recipe_document(SEQUENCE.recipe(MelRecipe()))))
    assert feature_set_recipe(document) == SEQUENCE.recipe(MelRecipe())


@pytest.mark.parametrize(
    ("changed", "output"),
    [
        ({"length": "x_time"}, "length 'x_time'; use one of its dims"),
        ({"batch_size": 4}, "batch_size 4; use 2 or more with compute_batch"),
        ({"compute_batch": list}, "batch_size 1; use 2 or more with compute_batch"),
        ({"batch_size": 0}, "batch_size 0"),
        (
            {"input": "text", "sample_rate_hz": None, "batch_size": 2, "compute_batch": list},
            "only clips are computed in",
        ),
    ],
)
def test_definition_of_sequences_and_batches_is_validated(changed: dict[str, Any], output: str) -> None:
    with pytest.raises(ConfigError, match=output):
        extractor("x", **changed)


CLASHES = {
    "own name": (extractor("x", dims=("x", "x_dim"), length=None), "its dimension 'x' has the name of an array"),
    "own length": (extractor("x", dims=("x_frame", "x_length")), "its dimension 'x_length' has the name of an array"),
    "another array": (extractor("x", dims=("x_frame", "mel_frames")), "its dimension 'mel_frames' has the name of an"),
    "a dimension": (extractor("frame"), "the store has a dimension 'frame'"),
    "added array": (extractor("x", dims=("x_frame", "peak")), "its dimension 'peak' has the name of an array"),
    "added length": (extractor("levels_length"), "has arrays or folders of that name already"),
}


@pytest.mark.parametrize(("clash", "output"), CLASHES.values(), ids=CLASHES.keys())
def test_array_and_dimension_of_one_name_are_refused(
    tones: tuple[Source, Path], sequence_store: Path, monkeypatch: pytest.MonkeyPatch, clash: Any, output: str
) -> None:
    monkeypatch.setattr(registry, "BUILT_IN", {clash.name: clash})
    with pytest.raises(ConfigError, match=output):
        api.extract(tones[0], sequence_store, add=clash.name, **OPTIONS)
    assert clash.name not in read_plan(sequence_store).added


def test_adding_needs_no_labels_and_ignores_other_tracks(tones: tuple[Source, Path], tmp_path: Path) -> None:
    source, before = tones
    whole = Path(shutil.copytree(before, tmp_path / "whole.zarr"))
    api.extract(source, whole, add="levels", **OPTIONS)
    bare = [Track(id=track.id, path=track.path) for track in source.tracks]
    other = [Track(id=track.id, path=track.path, genres=("rock",), artists=("x",), song="y") for track in source.tracks]
    for i, tracks in enumerate((bare, other, [*bare, Track(id="more", path="0.wav")])):
        store = Path(shutil.copytree(before, tmp_path / f"{i}.zarr"))
        report = api.extract(Source(root=source.root, tracks=tracks), store, add="levels", **OPTIONS)
        assert (report.ok, report.planned) == (7, 7)
        assert list(report.remarks) == (["1 track of the source ignored: not in the store"] if i == 2 else [])
        assert tree(store) == tree(whole)
        assert mgc.open(store).tracks.column("genres").to_pylist() == [["jazz"]] * 7


def test_adding_still_needs_the_same_tracks_and_files(tones: tuple[Source, Path], tmp_path: Path) -> None:
    source, before = tones
    store = Path(shutil.copytree(before, tmp_path / "s.zarr"))
    bare = [Track(id=track.id, path=track.path) for track in source.tracks]
    moved = [dataclasses.replace(bare[0], path="1.wav"), *bare[1:]]
    renamed = [*bare[1:], Track(id="more", path="0.wav")]
    for tracks, output in (
        (moved, "track t0, path: '0.wav'"),
        (bare[1:], "1 track only in the store: t0"),
        (renamed, "1 track only in this command: more"),
    ):
        with pytest.raises(RecipeMismatchError, match=output):
            api.extract(Source(root=source.root, tracks=tracks), store, add="levels", **OPTIONS)


def test_command_adds_to_a_labelled_store_from_the_bare_folder(tmp_path: Path, call: Any) -> None:
    source = make_songs(tmp_path / "songs")
    labels = tmp_path / "genres.csv"
    labels.write_text("id,genres,artist\n" + "".join(f"{i}.wav,jazz,a{i}\n" for i in range(7)))
    store = tmp_path / "s.zarr"
    made = call(
        "extract", source.root, "-o", store, "--labels", labels, "--features", "mel", "--clip-s", 1, "--workers", 0
    )
    assert made.code == 0
    added = call("extract", source.root, "-o", store, "--add", "levels", "--workers", 0)
    assert (added.code, "planned 7 = ok 7 + failed 0" in added.out) == (0, True)
    assert "--labels" not in added.err
    assert mgc.open(store).tracks.column("artists").to_pylist()[0] == ["a0"]
