"""Generate the features of the synthetic benchmark directly on the device, without audio files and text encoder.

Songs, genres, motifs, topics and lyrics are those of benchmarks/worlds/songs.py. A mel spectrogram is synthesised, not
computed from audio: a peak at each partial of each moving motif, over a noise floor, with the scatter of a periodogram
and the equaliser of the artist. The state of a token is a random vector of its word, near that of its topic for nouns,
plus noise without context. Vectors of genre names are random, so only co-occurrence informs the graph. docs/design/004
explains these choices and their limits.

Shapes: B songs, M mel bands, T frames, K partials, L tokens, D text width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from benchmarks.worlds.motifs import BREATH_RATIO, BREATH_WIDTH_HZ, MOTIFS, PARTIALS, movement
from benchmarks.worlds.songs import BenchmarkSong, BenchmarkWorld
from benchmarks.worlds.topics import TOPICS
from mgc.cache.errors import StoppedError
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import MelRecipe, Recipe, TextRecipe
from mgc.cache.format.records import committed
from mgc.cache.format.schema import OK
from mgc.cache.format.tables import OUTCOME_SCHEMA, plan_table
from mgc.cache.writing.commits import commit_part, roll_forward
from mgc.cache.writing.creation import create_store
from mgc.pipeline.synth.audio import SAMPLE_RATE_HZ, studio_filter

FLOOR = 2e-3
"""Ratio of the noise power in a band to the power of a partial of level 1."""
TOKEN_NOISE = 0.5
WITHOUT_MODEL = "0" * 64


@dataclass(frozen=True, kw_only=True)
class FeatureWorld:
    """Songs of a benchmark and the size of their features."""

    world: BenchmarkWorld
    n_songs: int
    clip_s: float = 30.0
    text_dim: int = 384
    max_tokens: int = 128
    part_rows: int = 128

    def songs(self) -> list[BenchmarkSong]:
        """Return the songs in the order of the store's rows."""
        return sorted(self.world.songs(self.n_songs), key=lambda song: song.id)

    @property
    def recipe(self) -> Recipe:
        """Recipe without an encoder."""
        text = TextRecipe(
            model="drawn",
            weights_sha256=WITHOUT_MODEL,
            tokenizer_sha256=WITHOUT_MODEL,
            hidden_size=self.text_dim,
            max_tokens=self.max_tokens,
        )
        return Recipe(mel=MelRecipe(clip_s=self.clip_s), lyrics=text)


def write_store(
    features: FeatureWorld, path: Path, device: torch.device, *, stop: Callable[[], bool] = lambda: False
) -> Path:
    """Generate all features and commit them part by part; existing parts are kept.

    Raises
    ------
    StoppedError
        If `stop` returns True between two parts.
    """
    songs, genres = features.songs(), features.world.labels.genres
    if not path.exists():
        random = np.random.default_rng([features.world.seed, 30]).normal(size=(len(genres), features.text_dim))
        create_store(
            path,
            tracks=plan_table([_track(song, genres) for song in songs]),
            recipe=features.recipe,
            part_rows=features.part_rows,
            genres=sorted(genres),
            genre_embedding=random.astype(np.float32),
        )
    plan = read_plan(path)
    words = word_vectors(songs, features.text_dim, features.world.seed).to(device)
    for part in sorted(set(range(plan.n_parts)) - committed(path).keys()):
        if stop():
            raise StoppedError(f"{path}: {part} of {plan.n_parts} parts are written")
        rows = plan.part_range(part)
        arrays = draw(features, songs[rows.start : rows.stop], words, device)
        outcomes = pa.Table.from_pylist([_outcome(row, songs[row]) for row in rows], schema=OUTCOME_SCHEMA)
        commit_part(path, part, arrays, outcomes)
    roll_forward(path)
    return path


def _track(song: BenchmarkSong, genres: Sequence[str]) -> dict[str, Any]:
    return {
        "id": song.id,
        "path": f"{song.id}.flac",
        "artists": [f"Artist {song.artist}"],
        "song": f"Song {song.index}",
        "genres": [genres[genre] for genre in song.genres],
        "split": song.split,
    }


def _outcome(row: int, song: BenchmarkSong) -> dict[str, Any]:
    source = hashlib.sha256(song.id.encode()).hexdigest()
    lyrics = None if song.lyrics is None else hashlib.sha256(song.lyrics.encode()).hexdigest()
    return {"row": row, "status": OK, "flags": 0, "source_sha256": source, "lyrics_sha256": lyrics}


@dataclass(frozen=True, kw_only=True)
class Words:
    """A vector for every word: (V, D); rows 0, 1 and 2 are padding, [CLS] and [SEP]."""

    row: dict[str, int]
    vectors: Tensor

    def to(self, device: torch.device) -> Words:
        return Words(row=self.row, vectors=self.vectors.to(device))


def word_vectors(songs: Sequence[BenchmarkSong], text_dim: int, seed: int) -> Words:
    """Draw unit-variance vectors; a noun shares half the power of its vector with its topic."""
    names = sorted({word for song in songs if song.lyrics for word in song.lyrics.split()})
    rng = np.random.default_rng([seed, 31])
    own = rng.normal(size=(len(names), text_dim))
    topics = rng.normal(size=(len(TOPICS), text_dim))
    topic_of = {word: n for n, topic in enumerate(TOPICS.values()) for noun in topic.nouns for word in noun.split()}
    for row, name in zip(own, names, strict=True):
        if (topic := topic_of.get(name.strip(","))) is not None:
            row[:] = (row + topics[topic]) / 2**0.5
    special = np.concatenate([np.zeros((1, text_dim)), rng.normal(size=(2, text_dim))])
    vectors = torch.from_numpy(np.concatenate([special, own]).astype(np.float32))
    return Words(row={name: n + 3 for n, name in enumerate(names)}, vectors=vectors)


def draw(
    features: FeatureWorld, songs: Sequence[BenchmarkSong], words: Words, device: torch.device
) -> dict[str, np.ndarray]:
    """Generate all arrays of some songs."""
    rng = torch.Generator(device).manual_seed(songs[0].index + 1_000_003 * features.world.seed)
    n, n_frames = len(songs), features.recipe.mel.n_frames
    mel = torch.stack([spectrogram(song, n_frames, device, rng) for song in songs])
    rows = torch.zeros(n, features.max_tokens, dtype=torch.int64)
    tokens = np.zeros(n, dtype=np.int64)
    for i, (line, song) in enumerate(zip(rows, songs, strict=True)):
        if song.lyrics is not None:
            inner = [words.row[word] for word in song.lyrics.split()][: features.max_tokens - 2]
            line[: len(inner) + 2] = torch.tensor([1, *inner, 2])
            tokens[i] = len(inner) + 2
    rows = rows.to(device)
    states = words.vectors[rows]
    states = states + TOKEN_NOISE * torch.randn(states.shape, device=device, generator=rng)
    states = states.masked_fill((rows == 0)[..., None], 0.0).half()
    inside = (rows > 2)[..., None]
    pooled = (states.float() * inside).sum(1) / inside.sum(1)  # 0/0 is NaN, which marks missing lyrics
    return {
        "status": np.full(n, OK, dtype=np.uint8),
        "flags": np.zeros(n, dtype=np.uint32),
        "mel": mel.half().cpu().numpy(),
        "mel_frames": np.full(n, n_frames, dtype=np.uint16),
        "lyrics": states.cpu().numpy(),
        "lyrics_tokens": tokens.astype(np.uint16),
        "lyrics_tokens_full": tokens.astype(np.uint32),
        "lyrics_pooled": pooled.cpu().numpy(),
    }


def spectrogram(song: BenchmarkSong, n_frames: int, device: torch.device, rng: torch.Generator) -> Tensor:
    """Generate the mel spectrogram of a song: (M, T) float32, in dB."""
    own = np.random.default_rng([song.seed, 32, song.index])
    n_mels, t = MelRecipe().n_mels, np.arange(n_frames) * MelRecipe().hop_length / SAMPLE_RATE_HZ
    bands = torch.arange(n_mels, device=device, dtype=torch.float32)[:, None, None]
    power = torch.full((n_mels, n_frames), FLOOR * 10 ** own.uniform(-0.5, 0.5), device=device)
    for number in song.motifs:
        pitch_hz, level = movement(number, t, own)
        ratios, levels = PARTIALS.get(MOTIFS[number][0], ((BREATH_RATIO,), (1.0,)))
        breath = MOTIFS[number][0] == "breath"
        partials_hz = np.outer(ratios, pitch_hz)
        centres = torch.from_numpy(band_of(partials_hz)).float().to(device)
        width = torch.from_numpy(band_of(partials_hz + BREATH_WIDTH_HZ / 2) - band_of(partials_hz)) if breath else 0.7
        width = width.float().to(device) if isinstance(width, Tensor) else width
        strength = torch.from_numpy(np.outer(np.square(levels), np.square(level))).float().to(device)
        power += own.uniform(0.25, 1.0) * (strength * torch.exp(-0.5 * ((centres - bands) / width) ** 2)).sum(1)
    # Bins of a periodogram are exponentially distributed; a mel band averages a few of them.
    scatter = -torch.rand((2, n_mels, n_frames), device=device, generator=rng).clamp(min=1e-6).log().mean(dim=0)
    gain_db = torch.from_numpy(studio_gain_db(song, n_mels)).float().to(device)
    return 10 * torch.log10(power * scatter + 1e-10) + gain_db[:, None] + own.uniform(10.0, 25.0)


def band_of(frequency_hz: np.ndarray) -> np.ndarray:
    """Return the position of a frequency among the centres of Slaney's mel bands; 0 is the lowest."""

    def mel(hz: np.ndarray) -> np.ndarray:
        return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1) / 1000) * 27 / np.log(6.4))

    top = float(mel(np.array(SAMPLE_RATE_HZ / 2)))
    return np.asarray(mel(frequency_hz) / top * (MelRecipe().n_mels + 1) - 1)


def studio_gain_db(song: BenchmarkSong, n_mels: int) -> np.ndarray:
    """Return the gain of the artist's equaliser at the centre of each band: (M,)."""
    all_hz = np.arange(SAMPLE_RATE_HZ // 2 + 1)
    centres_hz = np.interp(np.arange(n_mels), band_of(all_hz), all_hz).astype(int)
    return np.asarray(20 * np.log10(np.abs(studio_filter(song.seed, song.artist, SAMPLE_RATE_HZ)[centres_hz]) + 1e-5))
