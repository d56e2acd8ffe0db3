"""Write a store of noise, for training in tests of speed, memory or exactness; its labels can only be memorised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import ExtractorRecipe, MelRecipe, Recipe, TextRecipe
from mgc.cache.format.schema import OK
from mgc.cache.format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import add_feature_set, create_store

N_GENRES = 10


@dataclass(frozen=True)
class Size:
    """Size of a store and its model: as in the paper on a GPU, small on the CPU."""

    encoder: str
    text_dim: int
    max_tokens: int
    clip_s: float
    epochs: int


FULL = Size(encoder="base", text_dim=768, max_tokens=128, clip_s=30.0, epochs=60)
DRY = Size(encoder="tiny", text_dim=24, max_tokens=12, clip_s=1.5, epochs=25)


def make_store(size: Size, path: Path, n_train: int = 32, n_validation: int = 8) -> FeatureStore:
    """Write a store of noise, whose labels can only be memorised, and open it."""
    rng = np.random.default_rng(0)
    n = n_train + n_validation
    mel = MelRecipe(clip_s=size.clip_s)
    text = TextRecipe(
        model="noise",
        weights_sha256="0" * 64,
        tokenizer_sha256="0" * 64,
        hidden_size=size.text_dim,
        max_tokens=size.max_tokens,
    )
    genres = [f"genre {j}" for j in range(N_GENRES)]
    labels = rng.random((n, N_GENRES)) < 0.2
    labels[np.arange(n), np.arange(n) % N_GENRES] = True
    tracks = [
        {
            "id": f"{i:03d}",
            "path": f"{i:03d}.wav",
            "artists": [f"artist {i}"],
            "genres": [name for name, has in zip(genres, labels[i], strict=True) if has],
            "split": "train" if i < n_train else "validation",
        }
        for i in range(n)
    ]
    embedding = rng.normal(size=(N_GENRES, size.text_dim)).astype(np.float32)
    tokens = rng.integers(4, size.max_tokens + 1, n)
    lyrics = rng.normal(size=(n, size.max_tokens, size.text_dim))
    lyrics[np.arange(size.max_tokens) >= tokens[:, None]] = 0.0
    arrays = {
        "status": np.full(n, OK, dtype=np.uint8),
        "flags": np.zeros(n, dtype=np.uint32),
        "mel": rng.normal(-40, 15, (n, mel.n_mels, mel.n_frames)).astype(np.float16),
        "mel_frames": np.full(n, mel.n_frames, dtype=np.uint16),
        "lyrics": lyrics.astype(np.float16),
        "lyrics_tokens": tokens.astype(np.uint16),
        "lyrics_tokens_full": tokens.astype(np.uint32),
        "lyrics_pooled": np.stack(
            [states[1 : k - 1].mean(axis=0) for states, k in zip(lyrics, tokens, strict=True)]
        ).astype(np.float32),
    }
    outcomes = [
        {"row": i, "status": OK, "flags": 0, "source_sha256": f"{i:064x}", "lyrics_sha256": f"{i:064x}"}
        for i in range(n)
    ]
    create_store(
        path,
        tracks=plan_table(tracks),
        recipe=Recipe(mel=mel, lyrics=text),
        part_rows=n,
        genres=genres,
        genre_embedding=embedding,
    )
    commit_part(path, 0, arrays, pa.Table.from_pylist(outcomes, schema=OUTCOME_SCHEMA))
    return FeatureStore.open(path)


def add_noise(path: Path, name: str, width: int) -> None:
    """Add a feature set of vectors, one of `width` values per track, to a store of noise."""
    recipe = ExtractorRecipe(
        extractor=name,
        version="1",
        input="clip",
        dims=(f"{name}_dim",),
        shape=(width,),
        dtype="float32",
        unit="1",
        description="noise",
        parameters={},
        clip={},
    )
    plan = add_feature_set(path, read_plan(path), name, recipe)
    n = len(plan.part_range(0))
    values = np.random.default_rng(1).normal(size=(n, width)).astype(np.float32)
    outcomes = pa.Table.from_pylist([{"row": row, "status": OK} for row in range(n)], schema=ADDED_OUTCOME_SCHEMA)
    arrays = {name: values, f"status_{name}": np.full(n, OK, dtype=np.uint8)}
    commit_part(path, 0, arrays, outcomes, feature_set=name)
