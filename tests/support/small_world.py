"""Small stores for the tests of training: random features from which the labels can be predicted."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from benchmarks.chromium import Chromium
from mgc.cache.format.plan import read_plan
from mgc.cache.format.recipe import ExtractorRecipe, MelRecipe, Recipe, TextRecipe
from mgc.cache.format.schema import FAILED, OK
from mgc.cache.format.tables import ADDED_OUTCOME_SCHEMA, OUTCOME_SCHEMA, plan_table
from mgc.cache.reading.store import FeatureStore
from mgc.cache.writing.commits import commit_part
from mgc.cache.writing.creation import add_feature_set, create_store
from mgc.heads.config import TrainConfig
from mgc.heads.evaluation.evaluate import evaluate
from mgc.heads.training.train import train

GENRES = ("blues", "folk", "jazz", "metal", "rock")
TEXT_DIM, MAX_TOKENS = 12, 24
MEL = MelRecipe(clip_s=1.0)
TEXT = TextRecipe(
    model="tiny", weights_sha256="a" * 64, tokenizer_sha256="b" * 64, hidden_size=TEXT_DIM, max_tokens=MAX_TOKENS
)


@dataclass(kw_only=True)
class World:
    """Tracks and features of a store to be written; tests change the fields they need.

    A genre lifts its own mel bands and, where a track has lyrics, its own text dimension.
    """

    GENRES: ClassVar[tuple[str, ...]] = GENRES
    n_tracks: int = 40
    seed: int = 0
    recipe: Recipe = field(default_factory=lambda: Recipe(mel=MEL, lyrics=TEXT))
    tracks: list[dict[str, Any]] = field(default_factory=list)
    mel: npt.NDArray[np.float16] = field(init=False)
    mel_frames: npt.NDArray[np.uint16] = field(init=False)
    lyrics: npt.NDArray[np.float16] = field(init=False)
    lyrics_tokens: npt.NDArray[np.uint16] = field(init=False)
    failed: set[int] = field(default_factory=set)
    flags: dict[int, int] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        labels = random.random((self.n_tracks, len(GENRES))) < 0.3
        labels[np.arange(self.n_tracks), np.arange(self.n_tracks) % len(GENRES)] = True
        if not self.tracks:
            self.tracks = [
                {
                    "id": f"t{i:04d}",
                    "path": f"t{i:04d}.wav",
                    "artists": [f"artist {i // 2}"],
                    "song": f"song {i}",
                    "genres": [name for name, has in zip(GENRES, labels[i], strict=True) if has],
                }
                for i in range(self.n_tracks)
            ]
        n_frames = MEL.n_frames
        mel = random.normal(-40, 5, (self.n_tracks, MEL.n_mels, n_frames))
        for genre in range(len(GENRES)):
            mel[labels[:, genre], 20 * genre : 20 * genre + 20] += 15
        self.mel = mel.astype(np.float16)
        self.mel_frames = random.integers(n_frames // 2, n_frames + 1, self.n_tracks).astype(np.uint16)
        self.lyrics_tokens = random.integers(4, MAX_TOKENS + 1, self.n_tracks).astype(np.uint16)
        self.lyrics_tokens[::7] = 0
        lyrics = random.normal(0, 1, (self.n_tracks, MAX_TOKENS, TEXT_DIM))
        lyrics[:, :, : len(GENRES)] += 2 * labels[:, None, :]
        lyrics[np.arange(MAX_TOKENS) >= self.lyrics_tokens[:, None]] = 0
        self.lyrics = lyrics.astype(np.float16)

    @property
    def pooled(self) -> npt.NDArray[np.float32]:
        pooled = np.full((self.n_tracks, TEXT_DIM), np.nan, dtype=np.float32)
        for i, n in enumerate(self.lyrics_tokens.tolist()):
            if n:
                pooled[i] = self.lyrics[i, 1 : n - 1].astype(np.float32).mean(axis=0)
        return pooled

    def write(
        self, path: Path, *, part_rows: int = 16, genres: Sequence[str] | None = None, n_parts: int | None = None
    ) -> FeatureStore:
        """Write the world as a store, with only its first `n_parts` parts extracted where that is given.

        `tracks` must be in the order of their ids, which is the order of rows.
        """
        names = sorted({name for track in self.tracks for name in track["genres"]} | set(genres or ()))
        embedding = np.stack([self.name_vector(name) for name in names])
        table = plan_table(self.tracks)
        assert table.column("id").to_pylist() == [track["id"] for track in self.tracks]
        create_store(
            path,
            tracks=table,
            recipe=self.recipe,
            part_rows=part_rows,
            genres=names,
            genre_embedding=embedding if self.recipe.lyrics else None,
        )
        for part in range(-(-self.n_tracks // part_rows) if n_parts is None else n_parts):
            rows = range(part * part_rows, min((part + 1) * part_rows, self.n_tracks))
            commit_part(
                path,
                part,
                self._arrays(slice(rows.start, rows.stop)),
                pa.Table.from_pylist(self._outcomes(rows), schema=OUTCOME_SCHEMA),
            )
        return FeatureStore.open(path)

    def add(
        self,
        path: Path,
        name: str,
        values: npt.NDArray[Any],
        *,
        dims: Sequence[str] | None = None,
        lengths: npt.NDArray[np.integer[Any]] | None = None,
        failed: Collection[int] = (),
        n_parts: int | None = None,
        **changes: Any,
    ) -> FeatureStore:
        """Add the feature set of an extractor of clips to a written world, and return its store.

        Parameters
        ----------
        values : (track, ...) of one dtype. dims : names of its dimensions after the first; default: one per dimension.
        lengths : (track,) valid entries of a sequence, along its first dimension that ends in ``_frame``.
        failed : tracks that fail with ``EXTRACTOR_FAILED``.
        n_parts : extract only the first parts. changes : fields of the recipe.
        """
        dims = tuple(dims or (f"{name}_d{axis}" for axis in range(1, values.ndim)))
        frame = next((dim for dim in dims if dim.endswith("_frame")), None)
        if lengths is not None:
            changes["length"] = frame
        recipe = ExtractorRecipe(
            **{
                "extractor": name,
                "version": "1",
                "input": "clip",
                "dims": dims,
                "shape": values.shape[1:],
                "dtype": values.dtype.name,
                "unit": "1",
                "description": name,
                "parameters": {},
                "clip": {"clip_s": MEL.clip_s},
                **changes,
            }
        )
        plan = add_feature_set(path, read_plan(path), name, recipe)
        failed = {*failed, *self.failed}
        for part in range(plan.n_parts if n_parts is None else n_parts):
            rows = plan.part_range(part)
            is_ok = np.asarray([row not in failed for row in rows])
            stored = np.where(is_ok.reshape(-1, *[1] * (values.ndim - 1)), values[rows.start : rows.stop], np.nan)
            arrays = {name: stored.astype(values.dtype), f"status_{name}": np.where(is_ok, OK, FAILED).astype(np.uint8)}
            if lengths is not None:
                arrays[f"{name}_length"] = np.where(is_ok, lengths[rows.start : rows.stop], 0).astype(np.uint32)
            outcomes = [
                {"row": row, "status": OK}
                if ok
                else {"row": row, "status": FAILED, "reason": "EXTRACTOR_FAILED", "detail": "text"}
                for row, ok in zip(rows, is_ok, strict=True)
            ]
            table = pa.Table.from_pylist(outcomes, schema=ADDED_OUTCOME_SCHEMA)
            commit_part(path, part, arrays, table, feature_set=name)
        return FeatureStore.open(path)

    @staticmethod
    def name_vector(name: str) -> npt.NDArray[np.float32]:
        """Return a stand-in for the embedding of a genre name."""
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        return np.random.default_rng(seed).normal(size=TEXT_DIM).astype(np.float32)

    def _arrays(self, rows: slice) -> Mapping[str, npt.NDArray[Any]]:
        status = np.asarray([FAILED if i in self.failed else OK for i in range(rows.start, rows.stop)], dtype=np.uint8)
        flags = np.asarray([self.flags.get(i, 0) for i in range(rows.start, rows.stop)], dtype=np.uint32)
        arrays: dict[str, npt.NDArray[Any]] = {"status": status, "flags": flags}
        if self.recipe.mel:
            arrays |= {"mel": self.mel[rows], "mel_frames": self.mel_frames[rows]}
        if self.recipe.lyrics:
            tokens = self.lyrics_tokens[rows]
            arrays |= {
                "lyrics": self.lyrics[rows],
                "lyrics_tokens": tokens,
                "lyrics_pooled": self.pooled[rows],
                "lyrics_tokens_full": tokens.astype(np.uint32),
            }
        return arrays

    def _outcomes(self, rows: range) -> list[dict[str, Any]]:
        def outcome(i: int) -> dict[str, Any]:
            flags = self.flags.get(i, 0)
            if i in self.failed:
                return {
                    "row": i,
                    "status": FAILED,
                    "flags": self.flags.get(i, 0),
                    "reason": "NOT_AUDIO",
                    "detail": "text",
                }
            lyrics = _sha256(self.lyrics[i]) if self.recipe.lyrics and self.lyrics_tokens[i] else None
            return {
                "row": i,
                "status": OK,
                "flags": flags,
                "source_sha256": _sha256(self.mel[i]),
                "lyrics_sha256": lyrics,
                "offset_s": 0.0,
                "seconds": self.seconds.get(i, 1.0),
                "sample_rate_hz": 22_050,
                "channels": 1,
            }

        return [outcome(i) for i in rows]


def _sha256(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    return World


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """40 tracks by 20 artists, five genres, every seventh track without lyrics; shared, so read-only."""
    return World().write(tmp_path_factory.mktemp("store") / "small.zarr")


@pytest.fixture(scope="session")
def evaluated_run(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs on `small_store`, evaluated; shared, so read-only."""
    run = tmp_path_factory.mktemp("run") / "both"
    train(small_store, run, TrainConfig(encoder="tiny", epochs=2, lr=1e-3, device="cpu", batch_size=32))
    evaluate(run, small_store, n_replicates=50)
    return run


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """A headless Chromium for pages; tests that need it are skipped without one."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed: pages are not opened in a browser")
    running = Chromium(program, tmp_path_factory.mktemp("chromium"))
    try:
        yield running
    finally:
        running.close()
