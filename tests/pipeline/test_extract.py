"""Extraction without the command line: workers, parts and what a track's failure leaves untouched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from mgc.cache.errors import ConfigError, MgcError, RecipeMismatchError, TextModelError
from mgc.cache.schema import Flag, MelRecipe, Recipe
from mgc.cache.store import FeatureStore
from mgc.pipeline.extract import extract
from mgc.pipeline.manifest import Source, Track
from mgc.pipeline.parts import TextSource
from mgc.pipeline.text import find_text_model, text_recipe

MEL = MelRecipe(clip_s=1.0)


def tones(folder: Path, n: int) -> Source:
    tracks = []
    for i in range(n):
        t = np.arange(22_050) / 22_050
        soundfile.write(folder / f"{i}.wav", (0.2 * np.sin(2 * np.pi * (200 + 50 * i) * t)).astype(np.float32), 22_050)
        tracks.append(Track(id=f"t{i}", path=f"{i}.wav", genres=("rock",)))
    return Source(root=folder, tracks=tracks)


def tree(store: Path) -> dict[str, bytes | None]:
    paths = [path for path in sorted(store.rglob("*")) if path.relative_to(store).parts[0] != "log"]
    return {str(path.relative_to(store)): path.read_bytes() if path.is_file() else None for path in paths}


def test_dask_workers_and_this_process_make_the_same_store(tmp_path):
    source = tones(tmp_path, 7)
    recipe = Recipe(mel=MEL, lyrics=None)
    told = []
    for name, workers in (("here", 0), ("dask", 2)):
        report = extract(
            source, tmp_path / name, recipe=recipe, text=None, part_rows=2, workers=workers, on_progress=told.append
        )
        assert (report.ok, report.parts_built) == (7, 4)
    assert tree(tmp_path / "here") == tree(tmp_path / "dask")
    assert [progress.done for progress in told][-1] == 7
    assert len(list((tmp_path / "dask" / "log").iterdir())) in (1, 2)


def test_a_store_half_done_is_finished_and_only_the_rest_is_built(tmp_path):
    source = tones(tmp_path, 6)
    recipe = Recipe(mel=MEL, lyrics=None)

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.done == 4:
            raise StopError

    with pytest.raises(StopError):
        extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2, on_progress=stop)
    assert len(FeatureStore.open(tmp_path / "s").ok_rows) == 4
    report = extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2)
    assert (report.ok, report.parts_built) == (6, 1)
    extract(source, tmp_path / "whole", recipe=recipe, text=None, part_rows=2)
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")


def test_part_rows_are_frozen_and_something_else_in_the_way_is_not_touched(tmp_path):
    source = tones(tmp_path, 2)
    recipe = Recipe(mel=MEL, lyrics=None)
    extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=2)
    with pytest.raises(RecipeMismatchError, match="part_rows: 2 here, 1 there"):
        extract(source, tmp_path / "s", recipe=recipe, text=None, part_rows=1)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(ConfigError, match="something else than a feature store"):
        extract(source, tmp_path / "photos", recipe=recipe, text=None)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
    with pytest.raises(ConfigError, match="a file is in the way"):
        extract(source, tmp_path / "0.wav", recipe=recipe, text=None)
    with pytest.raises(ConfigError, match="no tracks to extract"):
        extract(Source(root=tmp_path, tracks=[]), tmp_path / "none", recipe=recipe, text=None)


def test_bad_lyrics_cost_the_lyrics_only(tmp_path):
    source = tones(tmp_path, 5)
    (tmp_path / "good.txt").write_text("words of a song")
    (tmp_path / "bad.txt").write_bytes(b"\x81\x8d\x00\xff" * 20)
    (tmp_path / "empty.txt").write_text(" \n")
    paths = ["good.txt", "bad.txt", "empty.txt", "../outside.txt", "nowhere.txt"]
    tracks = [
        Track(id=track.id, path=track.path, lyrics_path=path) for track, path in zip(source.tracks, paths, strict=True)
    ]
    files = find_text_model("minilm")
    recipe = Recipe(mel=MEL, lyrics=text_recipe(files))
    store = tmp_path / "s"
    extract(Source(root=tmp_path, tracks=tracks), store, recipe=recipe, text=TextSource(model="minilm"))
    opened = FeatureStore.open(store)
    assert opened.ok_rows.tolist() == [0, 1, 2, 3, 4]
    flags = [Flag(bits) for bits in opened.tracks.column("flags").to_pylist()]
    wanted = [Flag(0), Flag.LYRICS_FAILED, Flag.EMPTY_LYRICS, Flag.LYRICS_FAILED, Flag.NO_LYRICS]
    text_flags = Flag.LYRICS_FAILED | Flag.EMPTY_LYRICS | Flag.NO_LYRICS
    assert [found & text_flags for found in flags] == wanted
    assert opened.read("lyrics_tokens", [0]).tolist() == [6]
    assert opened.read("lyrics_tokens", [1, 2, 3, 4]).tolist() == [0, 0, 0, 0]
    assert np.isnan(opened.read("lyrics_pooled", [1])).all()


def test_another_encoder_than_the_recipes_is_refused(tmp_path):
    source = tones(tmp_path, 1)
    (tmp_path / "0.txt").write_text("words")
    track = Track(id="t0", path="0.wav", lyrics_path="0.txt")
    found = text_recipe(find_text_model("minilm"))
    wanted = type(found)(**{**vars(found), "weights_sha256": "0" * 64})
    with pytest.raises(TextModelError, match="another encoder than minilm"):
        extract(
            Source(root=source.root, tracks=[track]),
            tmp_path / "s",
            recipe=Recipe(mel=MEL, lyrics=wanted),
            text=TextSource(model="minilm"),
        )
    assert issubclass(TextModelError, MgcError)
