"""Read and write ``predictions.parquet``: the scores of a run's test tracks, one row per track.

``mgc evaluate`` writes it; comparisons, ablations and reports read it. ``metrics.json`` holds its sha256 and the
thresholds, which ties both files to one model.

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
from ..runs.documents import read_sealed, refuse_store

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
LISTED = ("artists", "song", "path", "offset_s")
"""Columns by which people and players identify a track."""
SCORE_PREFIX = "score: "
"""Prefix of the names of score columns, before the genre."""


@dataclass(frozen=True, kw_only=True)
class ScoredTracks:
    """A system's scores of a run's test tracks.

    Attributes
    ----------
    run : run folder, for messages.
    ids : (N,) track ids.
    groups : (N,) unit of the bootstrap: the first known artist of a track, else the track itself.
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
        position = {track_id: i for i, track_id in enumerate(self.ids)}
        index = np.asarray([position[track_id] for track_id in ids], dtype=np.int64)
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
    """Write ``predictions.parquet``: id, group, genres (all labels), and one score column per genre of the model.

    If `tracks` has them, also artists, song, path (relative to the source's root) and offset_s (start of the clip in
    the file, in s).

    Returns
    -------
    str
        The sha256 of the file, for ``metrics.json``.
    """
    columns = {"id": tracks.column("id"), "group": pa.array(groups, pa.string()), "genres": tracks.column("genres")}
    columns |= {name: tracks.column(name) for name in LISTED if name in tracks.column_names}
    columns |= {f"{SCORE_PREFIX}{genre}": pa.array(column) for genre, column in zip(genres, scores.T, strict=True)}
    data = table_bytes(pa.table(columns))
    replace_file(run / PREDICTIONS_FILE, data)
    return hashlib.sha256(data).hexdigest()


def load_predictions(run: Path) -> ScoredTracks:
    """Read the scores of the test split that ``mgc evaluate`` saved.

    Raises
    ------
    RunError
        If the run has not been evaluated, or the hash of the predictions differs from that in its metrics.
    """
    return load_listed_predictions(run)[0]


def load_listed_predictions(run: Path) -> tuple[ScoredTracks, list[dict[str, Any]]]:
    """Read the scores, and for each track its id, artists, song, path and offset_s; None for values the store lacks."""
    refuse_store(run)
    if not run.exists():
        raise RunError(f"{run}: no such folder. Give a run of `mgc train`.")
    path = run / PREDICTIONS_FILE
    metrics = read_sealed(run / METRICS_FILE).get("test") if (run / METRICS_FILE).exists() else None
    if metrics is None or not path.is_file():
        raise RunError(f"{run}: not evaluated on its test split. Run: mgc evaluate {run} STORE")
    if file_sha256(path) != metrics["predictions_sha256"]:
        raise RunError(f"{path}: does not match {METRICS_FILE}. Run: mgc evaluate {run} STORE")
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
