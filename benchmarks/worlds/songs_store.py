"""Write a store of 24 generated songs with recognisable genres, artists and languages, for examples and tests.

A genre raises its own mel bands, an artist some bands slightly, and a language one direction of the token states. One
song in four has no lyrics; one song failed. The release check copies this file out of the tree, so it imports mgc only.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mgc.cache.format.recipe import MelRecipe, Recipe, TextRecipe
from mgc.cache.format.schema import FAILED, OK
from mgc.cache.format.tables import OUTCOME_SCHEMA, plan_table
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import create_store

MEL = MelRecipe(clip_s=1.0)
TEXT = TextRecipe(model="made-up", weights_sha256="a" * 64, tokenizer_sha256="b" * 64, hidden_size=12, max_tokens=24)
GENRES, N_SONGS, PART_ROWS, FAILED_SONG = ("folk", "jazz", "metal"), 24, 8, 23


def song(i: int) -> dict[str, Any]:
    """Return the track of song i: two songs per artist, one or two genres, two languages, a split by artist."""
    artist = i // 2
    genres = {GENRES[(artist + 1) % 3], *([GENRES[(artist + 2) % 3]] if i % 8 == 7 else [])}
    return {
        "id": f"song{i:02d}",
        "path": f"songs/{i:02d}.mp3",
        "artists": [f"artist {artist}"],
        "song": f"Song {i}",
        "genres": sorted(genres),
        "language": "en" if artist % 2 == 0 else "pt",
        "split": "test" if artist % 4 == 3 else "validation" if artist == 5 else "train",
    }


def features(i: int) -> dict[str, Any]:
    """Generate the features of song i from its number only."""
    track, random = song(i), np.random.default_rng(i)
    mel = random.normal(-45, 4, (MEL.n_mels, MEL.n_frames))
    for genre in track["genres"]:
        mel[30 * GENRES.index(genre) : 30 * GENRES.index(genre) + 30] += 18
    mel += np.random.default_rng(1000 + i // 2).normal(0, 3, (MEL.n_mels, 1))
    n_tokens = 0 if i % 4 == 3 else 8 + i % 12
    lyrics = random.normal(0, 1, (TEXT.max_tokens, TEXT.hidden_size))
    lyrics[:, 0] += 3 if track["language"] == "en" else -3
    lyrics[n_tokens:] = 0
    pooled = lyrics[1 : n_tokens - 1].mean(axis=0) if n_tokens else np.full(TEXT.hidden_size, np.nan)
    return {
        "status": np.uint8(OK),
        "flags": np.uint32(0),
        "mel": mel.astype(np.float16),
        "mel_frames": np.uint16(MEL.n_frames),
        "lyrics": lyrics.astype(np.float16),
        "lyrics_tokens": np.uint16(n_tokens),
        "lyrics_tokens_full": np.uint32(n_tokens),
        "lyrics_pooled": pooled.astype(np.float32),
    }


def write_songs_store(path: Path) -> Path:
    """Write the songs as a finished store at `path`."""
    embedding = np.random.default_rng(0).normal(size=(len(GENRES), TEXT.hidden_size)).astype(np.float32)
    create_store(
        path,
        tracks=plan_table([song(i) for i in range(N_SONGS)]),
        recipe=Recipe(mel=MEL, lyrics=TEXT),
        part_rows=PART_ROWS,
        genres=GENRES,
        genre_embedding=embedding,
    )
    for part in range(-(-N_SONGS // PART_ROWS)):
        rows = range(part * PART_ROWS, min((part + 1) * PART_ROWS, N_SONGS))
        songs = [features(i) for i in rows]
        arrays = {name: np.stack([song[name] for song in songs]) for name in songs[0]}
        if FAILED_SONG in rows:
            _fail(arrays, FAILED_SONG - rows.start)
        commit_part(path, part, arrays, pa.Table.from_pylist([_outcome(i) for i in rows], schema=OUTCOME_SCHEMA))
    return path


def _fail(arrays: dict[str, np.ndarray], i: int) -> None:
    for name, values in arrays.items():
        values[i] = {"status": FAILED, "mel": np.nan, "lyrics_pooled": np.nan}.get(name, 0)


def _outcome(i: int) -> dict[str, Any]:
    if i == FAILED_SONG:
        return {"row": i, "status": FAILED, "flags": 0, "reason": "NOT_AUDIO", "detail": "its content is HTML"}
    words = None if i % 4 == 3 else hashlib.sha256(f"words {i}".encode()).hexdigest()
    clip = hashlib.sha256(f"clip {i}".encode()).hexdigest()
    return {
        "row": i,
        "status": OK,
        "flags": 0,
        "source_sha256": clip,
        "lyrics_sha256": words,
        "offset_s": 0.0,
        "seconds": 1.0,
        "sample_rate_hz": 22_050,
        "channels": 1,
    }
