"""Scores of the windows of whole songs, one row per window, as Parquet or JSON.

Shapes: W windows of a song, C genres.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ...cache.durable import atomic_write
from .prediction_files import PredictedBlock
from .scored_tracks import SCORE_PREFIX


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Scores of the windows of one song, in order.

    Attributes
    ----------
    id, file : of the song, and its audio file.
    starts_s, ends_s : (W,) float64, in the song.
    scores : (W, C) float32; NaN for a window without scores.
    reasons : (W,) reason codes; None for a window with scores.
    """

    id: str
    file: Path
    starts_s: npt.NDArray[np.float64]
    ends_s: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]
    reasons: Sequence[str | None]


AddTimeline = Callable[[Timeline], None]


def timelines_of(
    blocks: Sequence[PredictedBlock],
    positions: pa.Table,
    *,
    songs: Mapping[str, Path],
    song_of: Mapping[str, int],
    starts_s: Mapping[str, float],
    clip_s: float,
) -> Iterator[Timeline]:
    """Yield the timelines of songs from predictions of their windows.

    Parameters
    ----------
    positions : columns id, offset_s and seconds (of the whole file) of the windows; null for unreadable ones.
    songs : id -> audio file, in the order of the indices in `song_of`.
    song_of, starts_s : as of :func:`mgc.heads.evaluation.whole_songs.mean_over_windows`.
    clip_s : length of a window in seconds.
    """
    positions_of = {row["id"]: (row["offset_s"], row["seconds"]) for row in positions.to_pylist()}
    windows: list[list[tuple[str, str | None, npt.NDArray[np.float32]]]] = [[] for _ in songs]
    for block in blocks:
        for track, scores in zip(block.tracks.to_pylist(), block.scores, strict=True):
            windows[song_of[track["id"]]].append((track["id"], track["reason"], scores))
    for (song, file), rows in zip(songs.items(), windows, strict=True):
        rows.sort(key=lambda row: row[0])
        starts = np.asarray([starts_s.get(window, positions_of[window][0] or 0.0) for window, _, _ in rows])
        ends = starts + clip_s
        if known := [seconds for window, _, _ in rows if (seconds := positions_of[window][1]) is not None]:
            ends = np.minimum(ends, max(known))
        yield Timeline(
            id=song,
            file=file,
            starts_s=starts,
            ends_s=ends,
            scores=np.stack([scores for _, _, scores in rows]),
            reasons=[reason for _, reason, _ in rows],
        )


@contextmanager
def write_timelines(path: Path, genres: Sequence[str]) -> Iterator[AddTimeline]:
    """Yield a function that writes the windows of a song to `path`, which appears once the file is complete.

    The suffix is a key of `WRITERS`. Columns: id, start_s, end_s, reason, and the scores as in
    :mod:`mgc.heads.evaluation.prediction_files`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as draft, WRITERS[path.suffix.lower()](draft, genres) as add:
        yield add


@contextmanager
def _write_parquet(draft: Path, genres: Sequence[str]) -> Iterator[AddTimeline]:
    about = [("id", pa.string()), ("start_s", pa.float64()), ("end_s", pa.float64()), ("reason", pa.string())]
    schema = pa.schema([*about, *((f"{SCORE_PREFIX}{genre}", pa.float32()) for genre in genres)])
    with pq.ParquetWriter(draft, schema, compression="zstd", store_schema=False) as writer:

        def add(song: Timeline) -> None:
            scores = [pa.array(column, mask=np.isnan(column)) for column in song.scores.T]
            ids = pa.array([song.id] * len(song.scores), pa.string())
            reasons = pa.array(song.reasons, pa.string())
            writer.write_table(
                pa.table([ids, pa.array(song.starts_s), pa.array(song.ends_s), reasons, *scores], schema=schema)
            )

        yield add


@contextmanager
def _write_lines(draft: Path, genres: Sequence[str]) -> Iterator[AddTimeline]:
    with draft.open("x", encoding="utf-8") as file:
        yield lambda song: file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _rows(song, genres))


@contextmanager
def _write_document(draft: Path, genres: Sequence[str]) -> Iterator[AddTimeline]:
    """Write one JSON array."""
    with draft.open("x", encoding="utf-8") as file:
        separator = "[\n"

        def add(song: Timeline) -> None:
            nonlocal separator
            for row in _rows(song, genres):
                file.write(separator + json.dumps(row, ensure_ascii=False))
                separator = ",\n"

        yield add
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def _rows(song: Timeline, genres: Sequence[str]) -> Iterator[dict[str, Any]]:
    columns = (song.starts_s.tolist(), song.ends_s.tolist(), song.reasons, song.scores.tolist())
    for start_s, end_s, reason, scores in zip(*columns, strict=True):
        by_genre = {} if np.isnan(scores[0]) else dict(zip(genres, scores, strict=True))
        yield {"id": song.id, "start_s": start_s, "end_s": end_s, "reason": reason, "scores": by_genre}


WRITERS = {".parquet": _write_parquet, ".json": _write_document, ".jsonl": _write_lines}
