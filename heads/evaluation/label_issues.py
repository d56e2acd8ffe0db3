"""Labels that are probably wrong or missing, from the scores of models that were not trained on the track.

Shapes: N tracks, C genres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...cache.errors import RunError
from ..metrics.bootstrap import BoolArray
from ..results import Result
from .scored_tracks import load_predictions

MIN_TRACKS = 5
"""Number of scored tracks with a genre below which its labels are not judged."""
Kind = Literal["wrong", "missing"]


@dataclass(frozen=True, kw_only=True)
class LabelIssue(Result):
    """A genre of a track that is probably ``wrong``, or a ``missing`` one.

    Attributes
    ----------
    confidence : score of the label as it is: that of the genre if it is labelled, else 1 minus it.
    """

    id: str
    genre: str
    kind: Kind
    confidence: float


def find_issues(labels: BoolArray, scores: npt.NDArray[np.floating[Any]]) -> list[tuple[int, int, Kind, float]]:
    """Return track, genre, kind and confidence of the issues among (N, C) labels, the lowest confidence first.

    Notes
    -----
    Confident learning, one genre against the rest (Northcutt, Jiang and Chuang 2021, doi:10.1613/jair.1.12125). A label
    is an issue if its score is below the mean score of the tracks without the genre. A missing label is one if the
    score is at or above the mean score of the tracks with the genre. Both are ranked by self-confidence.
    """
    support = labels.sum(axis=0)
    judged = (support >= MIN_TRACKS) & (len(labels) - support >= MIN_TRACKS)
    with np.errstate(invalid="ignore"):
        with_genre = np.where(labels, scores, 0.0).sum(axis=0) / support
        without_genre = np.where(labels, 0.0, scores).sum(axis=0) / (len(labels) - support)
    kinds: tuple[tuple[Kind, BoolArray], ...] = (
        ("wrong", labels & judged & (scores < without_genre)),
        ("missing", ~labels & judged & (scores >= with_genre)),
    )
    found = [
        (int(i), int(c), kind, float(scores[i, c] if kind == "wrong" else 1 - scores[i, c]))
        for kind, mask in kinds
        for i, c in np.argwhere(mask)
    ]
    return sorted(found, key=lambda issue: issue[3])


def label_issues(runs: Sequence[Path], labels: Mapping[str, Sequence[str]]) -> tuple[list[LabelIssue], int]:
    """Return the issues of labelled tracks, and the number of tracks that were judged.

    Parameters
    ----------
    runs : evaluated run folders, and folders of `mgc ablate`, of which all runs count. A track that several runs
        tested has the mean of their scores. With folds, every track is tested.
    labels : id of a track -> its genres.

    Raises
    ------
    RunError
        If a run is not evaluated, or the runs have different genres.
    """
    folders = [
        run
        for folder in runs
        for run in (sorted(path.parent for path in folder.glob("runs/*/predictions.parquet")) or [folder])
    ]
    sums: dict[str, npt.NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    genres: tuple[str, ...] = ()
    for folder in folders:
        scored = load_predictions(folder)
        if genres and scored.genres != genres:
            raise RunError(f"{folder}: other genres than {folders[0]}. Give runs with the same genres.")
        genres = scored.genres
        for track, scores in zip(scored.ids, scored.scores.astype(np.float64), strict=True):
            if labels.get(track):
                sums[track] = sums[track] + scores if track in sums else scores
                counts[track] = counts.get(track, 0) + 1
    ids = sorted(sums)
    if not ids:
        raise RunError(f"{folders[0]}: none of its test tracks has a label in the store. Give runs of this store.")
    truth = np.asarray([[genre in labels[track] for genre in genres] for track in ids])
    means = np.stack([sums[track] / counts[track] for track in ids])
    found = find_issues(truth, means)
    return [LabelIssue(id=ids[i], genre=genres[c], kind=kind, confidence=value) for i, c, kind, value in found], len(
        ids
    )
