"""Scores of a run's test tracks: ``predictions.parquet``, one row per track.

Written by ``mgc evaluate``, read by what compares systems track by track. ``metrics.json`` holds its sha256 and the
thresholds that went with it, so that the two cannot be of different models.

Shapes: N tracks, C genres.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ...cache.durable import file_sha256, replace_file
from ...cache.errors import RunError
from ...cache.format.tables import table_bytes
from ..data.labels import genre_matrix
from ..metrics.bootstrap import BoolArray, FloatArray
from ..metrics.names import FIXED, TOP1
from ..runs.checkpoint import read_sealed

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
LISTED = ("artists", "song", "path", "offset_s")
"""Columns by which people and players identify a track."""
SCORE_PREFIX = "score: "
"""Of the score columns' names; the genre follows."""


@dataclass(frozen=True, kw_only=True)
class ScoredTracks:
    """A system's scores of a run's test tracks.

    Attributes
    ----------
    run : where they come from, for messages.
    ids : (N,) track ids.
    groups : (N,) what is resampled together: a track's first known artist, else the track itself.
    genres : (C,) names of the model's outputs.
    labels : (N, C) bool.
    scores : (N, C) float32 in [0, 1].
    thresholds : further decision columns by name (``tuned``, ``tuned_per_genre``), (C,) each.
    """

    run: Path
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    genres: tuple[str, ...]
    labels: BoolArray
    scores: npt.NDArray[np.float32]
    thresholds: Mapping[str, FloatArray]

    def take(self, ids: Sequence[str]) -> ScoredTracks:
        """Return the tracks `ids`, in that order."""
        if tuple(ids) == self.ids:
            return self
        place = {track_id: i for i, track_id in enumerate(self.ids)}
        index = np.asarray([place[track_id] for track_id in ids], dtype=np.int64)
        return dataclasses.replace(
            self,
            ids=tuple(ids),
            groups=tuple(self.groups[i] for i in index),
            labels=self.labels[index],
            scores=self.scores[index],
        )


def save_predictions(
    run: Path, tracks: pa.Table, groups: Sequence[str], genres: Sequence[str], scores: npt.NDArray[np.float32]
) -> str:
    """Write ``predictions.parquet``: id, group, genres (the labels, all of them), and a score a genre of the model.

    Between them, where `tracks` has them: artists, song, path (below the source's root) and offset_s (where in the file
    the clip begins).

    Returns
    -------
    str
        Its sha256, for ``metrics.json``.
    """
    columns = {"id": tracks.column("id"), "group": pa.array(groups, pa.string()), "genres": tracks.column("genres")}
    columns |= {name: tracks.column(name) for name in LISTED if name in tracks.column_names}
    columns |= {f"{SCORE_PREFIX}{genre}": pa.array(column) for genre, column in zip(genres, scores.T, strict=True)}
    data = table_bytes(pa.table(columns))
    replace_file(run / PREDICTIONS_FILE, data)
    return hashlib.sha256(data).hexdigest()


def load_predictions(run: Path) -> ScoredTracks:
    """Read what ``mgc evaluate`` kept of the test split.

    Raises
    ------
    RunError
        If the run has not been evaluated, or its predictions are not those that its metrics were computed from.
    """
    return load_listed_predictions(run)[0]


def load_listed_predictions(run: Path) -> tuple[ScoredTracks, list[dict[str, Any]]]:
    """Read the same, and of each track in that order its id, artists, song, path and offset_s.

    A value that the store does not have is None.
    """
    path = run / PREDICTIONS_FILE
    metrics = read_sealed(run / METRICS_FILE).get("test") if (run / METRICS_FILE).exists() else None
    if metrics is None or not path.is_file():
        raise RunError(f"{run}: no test tracks have been scored here; run: mgc evaluate {run} STORE")
    if file_sha256(path) != metrics["predictions_sha256"]:
        raise RunError(f"{path}: not the scores that {METRICS_FILE} was computed from; run: mgc evaluate {run} STORE")
    with path.open("rb") as file:
        table = pq.read_table(file)
    names = [name for name in table.column_names if name.startswith(SCORE_PREFIX)]
    genres = tuple(name.removeprefix(SCORE_PREFIX) for name in names)
    tracks = ScoredTracks(
        run=run,
        ids=tuple(table.column("id").to_pylist()),
        groups=tuple(table.column("group").to_pylist()),
        genres=genres,
        labels=genre_matrix(table.column("genres"), genres),
        scores=np.stack([table.column(name).to_numpy() for name in names], axis=1),
        thresholds={
            name: np.asarray(column["thresholds"], dtype=np.float64)
            for name, column in metrics["metrics"]["columns"].items()
            if name not in (FIXED, TOP1)
        },
    )
    about = table.select([name for name in ("id", *LISTED) if name in table.column_names])
    return tracks, [{**dict.fromkeys(LISTED), **row} for row in about.to_pylist()]
