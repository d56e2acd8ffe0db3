"""Lyrics longer than 512 tokens: sizes of the store, continuation, and the memory of a part."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from transformers import ModernBertConfig, ModernBertModel

from mgc import api
from mgc.cache.errors import ConfigError, RecipeMismatchError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe, Recipe, TextRecipe
from mgc.cache.format.schema import PART_BYTES, Flag, default_part_rows, track_arrays
from mgc.cache.reading.store import FeatureStore
from mgc.cache.upkeep.verify import verify
from mgc.pipeline.extraction.options import ExtractOptions
from mgc.pipeline.sources.manifest import Source, Track
from mgc.pipeline.text.encoder import TextEncoder
from mgc.pipeline.text.models import find_text_model

SONG = "one two three four five six seven "


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ModernBERT with 1 024 positions and the tokenizer of MiniLM."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-modernbert"
    config = ModernBertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=30522,
        max_position_embeddings=1024, pad_token_id=0, cls_token_id=101, sep_token_id=102,
    )  # fmt: skip
    ModernBertModel(config).save_pretrained(folder)
    shutil.copy(find_text_model("minilm").folder / "tokenizer.json", folder)
    return folder


@pytest.fixture
def songs(tmp_path: Path) -> Source:
    texts = (SONG, SONG * 100, SONG * 200)
    return Source(root=tmp_path, tracks=[Track(id=f"t{i}", path="x", lyrics=text) for i, text in enumerate(texts)])


def options(model: Path, **changes: Any) -> dict[str, Any]:
    return {"features": ("lyrics",), "text_model": str(model), "text_precision": "fp32", "workers": 0} | changes


def test_store_holds_as_many_tokens_as_the_option_and_the_model_allow(model: Path, songs: Source, tmp_path) -> None:
    path = tmp_path / "long.zarr"
    api.extract(songs, path, **options(model, text_max_tokens=1024))
    array = zarr.open_group(path, mode="r")["lyrics"]
    assert (array.shape[1:], array.chunks) == ((1024, 32), (1, 128, 32))
    with FeatureStore.open(path) as store:
        assert store.recipe.lyrics.max_tokens == 1024
        assert store.read("lyrics_tokens", range(3)).tolist() == [9, 702, 1024]
        assert store.read("lyrics_tokens_full", range(3)).tolist() == [9, 702, 1402]
        assert [bool(flags & Flag.LYRICS_TRUNCATED) for flags in store.read("flags", range(3))] == [False, False, True]
        stored = store.read("lyrics", [2])[0]
    alone = TextEncoder(find_text_model(str(model)), max_tokens=1024).encode((SONG * 200).strip())
    np.testing.assert_array_equal(stored, alone.states.astype(np.float16))
    assert verify(path, full=True) == []


def test_continuation_keeps_the_limit_of_the_store_and_refuses_another(model: Path, songs: Source, tmp_path) -> None:
    path = tmp_path / "long.zarr"
    api.extract(songs, path, **options(model, text_max_tokens=64))
    assert api.extract(songs, path, **options(model)).parts_built == 0
    with pytest.raises(RecipeMismatchError, match="max_tokens: 64 in the store, 128 in this command"):
        api.extract(songs, path, **options(model, text_max_tokens=128))
    api.extract(songs, path, **options(model, text_max_tokens=1024, add="long"))
    with FeatureStore.open(path, text="long") as store:
        assert store.read("lyrics_tokens_full", range(3)).tolist() == [9, 702, 1402]
        assert store.recipe.lyrics.max_tokens == 1024


def test_model_with_fewer_positions_is_refused_before_a_store_is_made(songs: Source, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--text-max-tokens 1024: text model minilm has positions for 512 tokens"):
        api.extract(songs, tmp_path / "s.zarr", features=("lyrics",), text_model="minilm", text_max_tokens=1024)
    assert not (tmp_path / "s.zarr").exists()


def test_limits_that_would_make_chunks_of_single_tokens_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"--text-max-tokens 1021: not a multiple of 64\. Use 1024"):
        ExtractOptions(text_max_tokens=1021)
    assert ExtractOptions(text_max_tokens=101).text_max_tokens == 101


@pytest.mark.parametrize("n_tracks", [10, 5000])
@pytest.mark.parametrize(("max_tokens", "hidden_size"), [(512, 768), (8192, 768), (8192, 1024), (2**15, 4096)])
def test_default_part_fits_the_memory_of_a_worker(n_tracks: int, max_tokens: int, hidden_size: int) -> None:
    text = TextRecipe(
        model="x", weights_sha256="0" * 64, tokenizer_sha256="1" * 64, hidden_size=hidden_size, max_tokens=max_tokens
    )
    recipe = Recipe(mel=MelRecipe(), lyrics=text)
    rows = default_part_rows(n_tracks, recipe)
    row_bytes = sum(math.prod(spec.tail) * np.dtype(spec.dtype).itemsize for spec in track_arrays(recipe))
    assert rows == 1 or rows * row_bytes <= PART_BYTES
    if max_tokens == 512:
        assert rows == (128 if n_tracks == 5000 else 16)


def test_part_rows_of_a_store_follow_from_its_recipe(model: Path, songs: Source, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("mgc.cache.format.schema.PART_BYTES", 150_000)
    api.extract(songs, tmp_path / "s.zarr", **options(model, text_max_tokens=1024))
    assert read_plan(tmp_path / "s.zarr").part_rows == 2
