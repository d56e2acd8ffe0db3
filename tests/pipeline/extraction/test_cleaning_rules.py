"""A store keeps the cleaning rule of its lyrics when tracks or features are added."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from keywords import extract

import mgc
from mgc import api
from mgc.cache.errors import ConfigError
from mgc.cache.format.recipe import MelRecipe, Recipe
from mgc.cache.reading.store import FeatureStore
from mgc.pipeline.extraction import added_builders
from mgc.pipeline.extractors.extractor import Extractor
from mgc.pipeline.extractors.registry import BUILT_IN
from mgc.pipeline.sources.manifest import Source, Track
from mgc.pipeline.text.encoder import TextEncoder, TextSource, text_recipe
from mgc.pipeline.text.lyrics import CLEANING_RULE, clean_lyrics
from mgc.pipeline.text.models import find_text_model

TIMED = "[00:01.00]one line\n[00:05.00]and two"
OPTIONS: dict[str, Any] = {"features": ("lyrics", "genres"), "text_model": "minilm", "workers": 0}


def songs(folder: Path, n: int) -> Source:
    tracks = [Track(id=f"t{i}", path=f"{i}.wav", genres=("rock",), lyrics=f"{TIMED} {i}") for i in range(n)]
    return Source(root=folder, tracks=tracks)


def make(folder: Path, rule: int) -> Path:
    recipe = Recipe(mel=None, lyrics=text_recipe(find_text_model("minilm"), cleaning=rule))
    extract(
        songs(folder, 2),
        folder / "s.zarr",
        recipe=recipe,
        text=TextSource(model="minilm"),
        features=("lyrics", "genres"),
    )
    return folder / "s.zarr"


def texts_sha256(rule: int, n: int) -> list[str]:
    return [hashlib.sha256(clean_lyrics(f"{TIMED} {i}", rule)[0].encode()).hexdigest() for i in range(n)]


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = Extractor(
        name="words",
        version="1",
        input="text",
        dims=(),
        shape=(),
        dtype="float32",
        unit="words",
        description="words of the lyrics",
        compute=lambda text: len(text.split()),
    )
    monkeypatch.setitem(BUILT_IN, "words", extractor)


@pytest.mark.parametrize("rule", [1, CLEANING_RULE])
def test_resumed_store_keeps_its_cleaning_rule_and_notes_an_older_one(tmp_path: Path, rule: int) -> None:
    store = make(tmp_path, rule)
    report = api.extract(songs(tmp_path, 3), store, append=True, **OPTIONS)
    assert [remark[:29] for remark in report.remarks] == ["lyrics were cleaned by rule 1"][: CLEANING_RULE - rule]
    with FeatureStore.open(store) as opened:
        assert opened.recipe.lyrics is not None
        assert opened.recipe.lyrics.cleaning == rule
        assert opened.tracks.column("lyrics_sha256").to_pylist() == texts_sha256(rule, 3)
    assert api.extract(songs(tmp_path, 3), store, **OPTIONS).remarks == ()  # no lyrics were read


@pytest.mark.parametrize("rule", [1, CLEANING_RULE])
@pytest.mark.usefixtures("words")
def test_an_added_feature_set_takes_the_rule_of_the_store(tmp_path: Path, rule: int) -> None:
    store = make(tmp_path, rule)
    for options in ({"add": "again", "text_model": "minilm"}, {"add": "words"}):
        report = api.extract(songs(tmp_path, 2), store, workers=0, **options)
        assert (report.ok, report.failed) == (2, 0)
    with FeatureStore.open(store) as opened:
        assert opened.texts["again"].cleaning == rule
        assert opened.read("words", [0, 1]).tolist() == [len(clean_lyrics(TIMED, rule)[0].split()) + 1] * 2


@pytest.mark.usefixtures("words")
def test_an_extractor_of_lyrics_keeps_its_rule_in_a_store_without_lyrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, recipe = songs(tmp_path, 3), Recipe(mel=MelRecipe(clip_s=1.0), lyrics=None)
    for track in source.tracks:
        soundfile.write(tmp_path / track.path, np.random.default_rng(1).normal(0, 0.1, 22_050), 22_050)
    for rule in (1, CLEANING_RULE):
        store = tmp_path / f"{rule}.zarr"
        extract(songs(tmp_path, 2), store, recipe=recipe, text=None, features=("mel",))
        with monkeypatch.context() as patch:
            patch.setattr(added_builders, "CLEANING_RULE", rule)  # as in an older version
            api.extract(songs(tmp_path, 2), store, add="words", workers=0)
        extract(source, store, recipe=recipe, text=None, features=("mel",), append=True)
        api.extract(source, store, add="words", workers=0)  # continued by this version
        with mgc.open(store) as opened:
            n_words = len(clean_lyrics(TIMED, rule)[0].split()) + 1
            assert opened["words"][:].tolist() == [n_words] * 3
        with FeatureStore.open(store) as opened_store:
            recorded = opened_store.added["words"].parameters  # type: ignore[union-attr]
        assert recorded == ({} if rule == 1 else {"lyrics_cleaning": rule})


def test_a_rule_of_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("mgc.pipeline.text.encoder.CLEANING_RULE", 9)
        store = make(tmp_path, 9)
    with pytest.raises(ConfigError, match=f"by rule 9: this version of mgc has the rules 1 to {CLEANING_RULE}"):
        api.extract(songs(tmp_path, 3), store, append=True, **OPTIONS)
    with pytest.raises(ConfigError, match="rule 9"):
        api.extract(songs(tmp_path, 2), store, add="again", text_model="minilm", workers=0)


def test_the_rule_is_part_of_the_fingerprint() -> None:
    files = find_text_model("minilm")
    recipes = [Recipe(mel=None, lyrics=text_recipe(files, cleaning=rule)) for rule in (1, 2)]
    assert recipes[0].fingerprints()["lyrics"] != recipes[1].fingerprints()["lyrics"]
    assert TextEncoder(files).recipe == recipes[1].lyrics
