"""Write predictions of a whole catalogue as Parquet, CSV or JSON Lines, block by block.

One row per track. ``genres`` are the predicted genres, the highest score first. A failed track has a ``reason`` code,
no genres and no scores. In CSV, the names in a cell are separated by ``|``. Predictions of whole songs also have the
columns ``windows`` (number of windows with scores) and ``failed_windows``. The file appears under its name once it is
complete.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ...cache.durable import atomic_write
from ...cache.errors import ConfigError
from ...cache.format.schema import Flag
from ...cache.messages import csv_header, csv_row
from .scored_tracks import SCORE_PREFIX

_ABOUT = (
    ("id", pa.string()),
    ("genres", pa.list_(pa.string())),
    ("flags", pa.list_(pa.string())),
    ("reason", pa.string()),
    ("detail", pa.string()),
)
ZERO_SHOT_PREFIX = "zero-shot score: "
"""Prefix of the names of score columns of genres that the model was not trained on."""
_WINDOWS = (("windows", pa.int32()), ("failed_windows", pa.int32()))


@dataclass(frozen=True, kw_only=True)
class PredictedBlock:
    """Consecutive tracks of a catalogue, including failed ones.

    Attributes
    ----------
    tracks : columns id, flags, reason, detail; a pending track has reason ``PENDING``. Predictions of whole songs also
        have windows and failed_windows.
    genres : names of the C outputs.
    has_scores : (n,) bool, False for failed tracks.
    scores : (n, C) float32; NaN for failed tracks.
    predicted : (n, C) bool, predicted genres.
    n_zero_shot : number of genres at the end that the model was not trained on; these are never predicted.
    """

    tracks: pa.Table
    genres: tuple[str, ...]
    has_scores: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float32]
    predicted: npt.NDArray[np.bool_]
    n_zero_shot: int = 0

    @property
    def columns(self) -> list[str]:
        """Names of the C columns of scores."""
        n_trained = len(self.genres) - self.n_zero_shot
        prefixes = [SCORE_PREFIX] * n_trained + [ZERO_SHOT_PREFIX] * self.n_zero_shot
        return [f"{prefix}{genre}" for prefix, genre in zip(prefixes, self.genres, strict=True)]


def _about(block: PredictedBlock) -> tuple[tuple[str, pa.DataType], ...]:
    """Return names and types of the columns next to the scores."""
    return (*_ABOUT, *_WINDOWS) if "windows" in block.tracks.column_names else _ABOUT


def write_predictions(path: Path, blocks: Iterable[PredictedBlock]) -> tuple[int, dict[str, int]]:
    """Write `blocks` in the format given by the suffix of `path`.

    Returns
    -------
    n_tracks : number of rows.
    reasons : number of tracks without scores by reason code.

    Raises
    ------
    ConfigError
        If the suffix is none of .parquet, .csv, .jsonl.
    """
    refuse_other_suffix(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    n_tracks, reasons = 0, Counter[str]()

    def counted() -> Iterator[PredictedBlock]:
        nonlocal n_tracks
        for block in blocks:
            n_tracks += block.tracks.num_rows
            reasons.update(block.tracks.column("reason").filter(pa.array(~block.has_scores)).to_pylist())
            yield block

    with atomic_write(path) as draft:
        _WRITERS[path.suffix.lower()](draft, counted())
    return n_tracks, dict(reasons.most_common())


def refuse_other_suffix(path: Path) -> None:
    """Raise :class:`ConfigError` unless the suffix of `path` is that of a supported format."""
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(f"{path}: unknown format. Use one of the suffixes {', '.join(_WRITERS)}.")


def predicted_rows(block: PredictedBlock) -> Iterator[dict[str, Any]]:
    """Yield tracks as plain values.

    Keys: id, genres (the highest score first), scores and zero_shot (by genre; empty for a failed track), flags,
    reason, detail.
    Predictions of whole songs also have windows and failed_windows. The flag NO_LABEL is left out, since prediction
    needs no labels.
    """
    n_trained = len(block.genres) - block.n_zero_shot
    by_score = np.argsort(-block.scores, axis=1, kind="stable")
    columns = (block.has_scores.tolist(), block.scores.tolist(), block.predicted.tolist(), by_score.tolist())
    for track, has_scores, scores, predicted, order in zip(block.tracks.to_pylist(), *columns, strict=True):
        yield {
            "id": track["id"],
            "genres": [block.genres[i] for i in order if predicted[i]],
            "scores": dict(zip(block.genres[:n_trained], scores, strict=False)) if has_scores else {},
            "zero_shot": dict(zip(block.genres[n_trained:], scores[n_trained:], strict=True)) if has_scores else {},
            "flags": (Flag(track["flags"]) & ~Flag.NO_LABEL).names,
            "reason": track["reason"],
            "detail": track["detail"],
            **{name: track[name] for name, _ in _WINDOWS if name in track},
        }


def _write_parquet(draft: Path, blocks: Iterator[PredictedBlock]) -> None:
    """Write one row group per block; scores are float32, null for a failed track."""
    first = _table(next(blocks))
    with pq.ParquetWriter(draft, first.schema, compression="zstd", store_schema=False) as writer:
        writer.write_table(first)
        for block in blocks:
            writer.write_table(_table(block))


def _table(block: PredictedBlock) -> pa.Table:
    rows = list(predicted_rows(block))
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in _about(block)}
    for name, scores in zip(block.columns, block.scores.T, strict=True):
        columns[name] = pa.array(scores, mask=~block.has_scores)
    return pa.table(columns)


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a track of :func:`predicted_rows` with one value per column, as in CSV; a failed track has no scores."""
    about = [name for name, _ in (*_ABOUT, *_WINDOWS) if name in row]
    cells = {name: "|".join(row[name]) if isinstance(row[name], list) else row[name] for name in about}
    cells |= {f"{SCORE_PREFIX}{genre}": score for genre, score in row["scores"].items()}
    return cells | {f"{ZERO_SHOT_PREFIX}{genre}": score for genre, score in row["zero_shot"].items()}


def _write_csv(draft: Path, blocks: Iterator[PredictedBlock]) -> None:
    with draft.open("x", newline="", encoding="utf-8") as file:
        for n, block in enumerate(blocks):
            if n == 0:
                columns = [*(name for name, _ in _about(block)), *block.columns]
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writerow(csv_header(columns))
            writer.writerows(csv_row(flat_row(row)) for row in predicted_rows(block))


def _write_jsonl(draft: Path, blocks: Iterator[PredictedBlock]) -> None:
    with draft.open("x", encoding="utf-8") as file:
        for block in blocks:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in predicted_rows(block))


_WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
