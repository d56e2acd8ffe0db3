"""Write a store of ten tracks in three parts with random numbers, small enough to be interrupted at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.cache.format import layout
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe, Recipe, TextRecipe
from mgc.cache.format.schema import FAILED, OK, Flag
from mgc.cache.format.tables import OUTCOME_SCHEMA, plan_table
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import append_generation, create_store

MEL = MelRecipe(clip_s=0.5)
TEXT = TextRecipe(model="tiny", weights_sha256="0" * 64, tokenizer_sha256="1" * 64, hidden_size=12, max_tokens=300)
RECIPE = Recipe(mel=MEL, lyrics=TEXT)
N_TRACKS, PART_ROWS, FAILED_ROW = 10, 4, 5
GENRES = ["jazz", "rock"]


def _cached(make: Callable[..., dict[str, bytes]]) -> Callable[..., dict[str, bytes]]:
    """Cache documents by their arguments, since zarr would take most of a campaign's time to write them."""
    cache: dict[str, dict[str, bytes]] = {}

    def documents(
        plan: Mapping[str, Any], added: Mapping[str, TextRecipe], *, n_rows: int, n_genres: int
    ) -> dict[str, bytes]:
        key = repr((plan, added, n_rows, n_genres))
        if key not in cache:
            cache[key] = make(plan, added, n_rows=n_rows, n_genres=n_genres)
        return dict(cache[key])

    return documents


layout.metadata_documents = _cached(layout.metadata_documents)


def features(row: int) -> dict[str, np.ndarray]:
    """Generate the features of a track from its row only; lyrics have 0 to 270 tokens."""
    rng = np.random.default_rng(row)
    tokens = row % N_TRACKS * 30
    lyrics = np.zeros((TEXT.max_tokens, TEXT.hidden_size), np.float16)
    lyrics[:tokens] = rng.normal(size=(tokens, TEXT.hidden_size))
    return {
        "mel": rng.normal(size=(MEL.n_mels, MEL.n_frames)).astype(np.float16),
        "mel_frames": np.uint16(MEL.n_frames),
        "lyrics": lyrics,
        "lyrics_tokens": np.uint16(tokens),
        "lyrics_tokens_full": np.uint32(tokens),
        "lyrics_pooled": rng.normal(size=TEXT.hidden_size).astype(np.float32) * np.float32(tokens > 0),
        "status": np.uint8(OK),
        "flags": np.uint32(Flag.SHORT),
    }


def part_content(rows: range) -> tuple[dict[str, np.ndarray], pa.Table]:
    """Return arrays and outcomes of a part; one track has failed."""
    arrays = {name: np.stack([features(row)[name] for row in rows]) for name in features(0)}
    shared = {"status": OK, "flags": int(Flag.SHORT), "seconds": 0.5}
    texts = [sha256(text).hexdigest() if text.any() else None for text in arrays["lyrics"]]
    outcomes = [{"row": row, **shared, "lyrics_sha256": text} for row, text in zip(rows, texts, strict=True)]
    if FAILED_ROW in rows:
        i = rows.index(FAILED_ROW)
        arrays["mel"][i], arrays["lyrics_pooled"][i], arrays["lyrics"][i] = np.nan, np.nan, 0
        arrays["status"][i] = FAILED
        outcomes[i] |= {"status": FAILED, "reason": "EMPTY", "detail": "no samples", "lyrics_sha256": None}
    return arrays, pa.Table.from_pylist(outcomes, schema=OUTCOME_SCHEMA)


def create(path: Path, n_tracks: int = N_TRACKS) -> Path:
    """Plan the store without filling it."""
    tracks = [
        {"id": f"t{row:02}", "path": f"{row}.mp3", "artists": ["a"], "genres": ["rock"]} for row in range(n_tracks)
    ]
    embedding = np.arange(2 * 12, dtype=np.float32).reshape(2, 12)
    assert create_store(
        path,
        tracks=plan_table(tracks),
        recipe=RECIPE,
        part_rows=PART_ROWS,
        genres=GENRES,
        genre_embedding=embedding,
    )
    return path


def fill(path: Path, parts: Iterable[int] = range(3)) -> None:
    """Commit parts."""
    plan = read_plan(path)
    for part in parts:
        commit_part(path, part, *part_content(plan.part_range(part)))
    roll_forward(path)


def append_late_track(path: Path) -> None:
    """Append a second generation: one more track, with a new genre."""
    late = plan_table([{"id": "t99", "path": "99.mp3", "artists": [], "genres": ["soul"]}])
    embedding = np.ones((1, TEXT.hidden_size), np.float32)
    append_generation(path, read_plan(path), "append", late, new_genres=["soul"], genre_embedding=embedding)


def tree(path: Path) -> dict[str, bytes | None]:
    """Read everything below a folder except logs: relative path -> content, None for a folder."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes() if file.is_file() else None
        for file in sorted(path.rglob("*"))
        if file.relative_to(path).parts[0] != "log"
    }
