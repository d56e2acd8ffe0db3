"""Sections of a run report: calibration, genres, confusions, worst predictions, genre graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..cache.names import find_file
from ..heads.evaluation.scored_tracks import ScoredTracks
from ..heads.metrics.bootstrap import BoolArray, FloatArray
from ..heads.metrics.confusions import Confusions, confusions
from ..heads.metrics.multilabel import decide, jaccard_per_track
from ..heads.metrics.names import TUNED, TUNED_PER_GENRE
from .charts import Chart, heat_map, reliability_chart
from .html import Json, audio_url

MAX_PAIRS = 60
MAX_DRAWN = 120
"""Maximum number of genres in a map; the most frequent ones."""
N_NEIGHBOURS = 4
MIN_MISSED = 3
"""Minimum number of missed tracks for a row of the confusion map; shares of fewer are not informative."""
MAX_SHOWN = 20
"""Maximum length of the list of worst predictions."""
_MIN_PROBABILITY = 1e-7
"""Scores are clipped to this distance from 0 and 1, where the logarithm would be infinite."""


class Song(NamedTuple):
    """The URL of a track's audio file, or the reason why the page has no player for it."""

    source: str | None = None
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Player:
    """Find audio files for a report in the folder `page`.

    Attributes
    ----------
    root : root folder of the tracks' paths; None if unknown.
    clip_s : length of the clip that the model uses, in seconds.
    """

    page: Path
    root: Path | None = None
    clip_s: float | None = None

    def song(self, path: str | None, offset_s: float | None) -> Song:
        """Return the URL of a track's clip, or the reason why there is none; both None without an audio root."""
        if self.root is None:
            return Song()
        if path is None:
            return Song(problem="Unknown audio file. Run mgc evaluate again.")
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts:
            return Song(problem=f"{path} is outside the audio root.")
        file = find_file(self.root, path)
        if not file.is_file():
            return Song(problem=f"No file {path} in the audio root.")
        if not offset_s:
            return Song(source=audio_url(file, self.page))
        end = "" if self.clip_s is None else f",{offset_s + self.clip_s:g}"
        return Song(source=f"{audio_url(file, self.page)}#t={offset_s:g}{end}")


def reliability(evaluation: Json) -> Chart | None:
    """Draw the reliability diagram; None if the evaluation has no calibration."""
    calibration = evaluation.get("calibration")
    if not calibration or calibration["expected_calibration_error"] is None:
        return None
    return reliability_chart(calibration["bins"], title="Reliability diagram")


def genre_rows(evaluation: Json, labels: Json) -> list[tuple[Json, object, float]]:
    """Return metrics, training tracks and per-genre threshold of each genre, the most frequent first."""
    if not evaluation:
        return []
    metrics = evaluation["metrics"]
    trained = dict(zip(labels.get("genres", []), labels.get("train_counts", []), strict=False))
    cuts = metrics["columns"][TUNED_PER_GENRE]["thresholds"]
    rows = [(row, trained.get(row["genre"], "–"), cut) for row, cut in zip(metrics["genres"], cuts, strict=True)]
    return sorted(rows, key=lambda row: (-row[0]["support"], row[0]["genre"]))


def confused_genres(scored: ScoredTracks) -> dict[str, Any]:
    """Count confusions (predicted instead of missed) at the tuned overall threshold."""
    threshold = float(scored.thresholds[TUNED][0])
    counts = confusions(scored.labels, decide(scored.scores, threshold))
    pairs, shares, names = counts.pairs(), counts.shares, scored.genres
    return {
        "threshold": threshold,
        "n_missed": counts.missed.sum(),
        "n_alone": counts.without_wrong.sum(),
        "n_pairs": len(pairs),
        "pairs": [
            {
                "missed": names[i],
                "predicted": names[j],
                "n_tracks": counts.predicted_instead[i, j],
                "share": shares[i, j],
                "n_missed": counts.missed[i],
                "support": counts.support[i],
            }
            for i, j in pairs[:MAX_PAIRS]
        ],
        "min_missed": MIN_MISSED,
        "n_few": ((counts.missed > 0) & (counts.missed < MIN_MISSED)).sum(),
        **_confusion_chart(names, counts),
    }


def _confusion_chart(names: Sequence[str], counts: Confusions) -> dict[str, Any]:
    """Draw the shares of all genres in any confusion as a heat map; None for fewer than two genres."""
    shares = np.where(counts.missed[:, None] >= MIN_MISSED, np.nan_to_num(counts.shares), 0.0)
    taking_part = np.flatnonzero(shares.any(axis=0) | shares.any(axis=1))
    if len(taking_part) < 2:
        return {"chart": None}
    chart = genre_map(
        [names[i] for i in taking_part.tolist()],
        shares[np.ix_(taking_part, taking_part)],
        counts.support[taking_part],
        title="Confusion map",
        x_label="genre predicted instead",
        y_label="missed genre",
        unit="share of missed tracks (0 to 1)",
    )
    return {"chart": chart, "n_drawn": min(len(taking_part), MAX_DRAWN), "n_genres": len(taking_part)}


def worst_predictions(scored: ScoredTracks, listing: Sequence[Json], player: Player) -> dict[str, Any]:
    """List the tracks with the lowest Jaccard index of predicted and labelled genres, without correct ones."""
    threshold = float(scored.thresholds[TUNED][0])
    predicted = decide(scored.scores, threshold)
    overlap, loss = jaccard_per_track(scored.labels, predicted), cross_entropy(scored.labels, scored.scores)
    worst = [i for i in worst_tracks(overlap, loss)[:MAX_SHOWN].tolist() if overlap[i] < 1]
    return {
        "threshold": threshold,
        "audio_root": player.root,
        "clip_s": player.clip_s,
        "cards": [
            {
                "id": listing[i]["id"],
                "title": _title(listing[i]),
                "labels": _scored_genres(scored, i, scored.labels[i], predicted[i]),
                "predicted": _scored_genres(scored, i, predicted[i], scored.labels[i]),
                "song": player.song(listing[i]["path"], listing[i]["offset_s"]),
                "jaccard": overlap[i],
                "cross_entropy": loss[i],
            }
            for i in worst
        ],
    }


def worst_tracks(overlap: FloatArray, loss: FloatArray) -> npt.NDArray[np.int64]:
    """Return (N,) track indices sorted by ascending `overlap`, then descending `loss`."""
    return np.lexsort((-loss, overlap))


def cross_entropy(labels: BoolArray, scores: npt.NDArray[np.float32]) -> FloatArray:
    """Return the (N,) binary cross-entropy per track, averaged over genres, in nats."""
    s = np.clip(scores.astype(np.float64), _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)
    mean: FloatArray = -np.where(labels, np.log(s), np.log(1 - s)).mean(axis=1)
    return mean


def _title(track: Json) -> str:
    artists = ", ".join(track["artists"] or ())
    return " – ".join(part for part in (artists, track["song"] or "") if part) or str(track["id"])


def _scored_genres(scored: ScoredTracks, i: int, chosen: BoolArray, other: BoolArray) -> list[Json]:
    """Return the `chosen` genres of track `i`, the highest score first; genres also in `other` are correct."""
    order = np.flatnonzero(chosen)[np.argsort(-scored.scores[i][chosen], kind="stable")]
    return [{"name": scored.genres[j], "score": scored.scores[i, j], "correct": other[j]} for j in order]


def genre_graph(graph: Json) -> dict[str, Any] | None:
    """Return summary, map and neighbours of a ``graph.json``; None if the model uses no graph."""
    if not graph.get("used"):
        return None
    names, counts, weights = graph["genres"], np.asarray(graph["counts"]), np.asarray(graph["adjacency"])
    labels = {
        "x_label": "other genre",
        "y_label": "genre",
        "unit": "weight in the normalised adjacency matrix (no unit)",
    }
    nearest = [[(names[j], weight) for j, weight in row] for row in neighbours(weights, N_NEIGHBOURS)]
    by_count = np.argsort(-counts, kind="stable")
    return {
        "summary": graph["summary"],
        "uses_names": graph.get("options", {}).get("normalisation") != "ml-gcn",
        "chart": genre_map(names, weights, counts, title="Genre graph", **labels),
        "n_drawn": min(len(names), MAX_DRAWN),
        "rows": [(names[i], counts[i], graph["self_weight"][i], nearest[i]) for i in by_count],
    }


def genre_map(
    names: Sequence[str], weights: FloatArray, counts: npt.NDArray[np.int64], *, title: str, **labels: str
) -> Chart:
    """Draw a (C, C) matrix, related genres next to each other; at most `MAX_DRAWN`, by their counts (C,)."""
    frequent = np.sort(np.argsort(-counts, kind="stable")[:MAX_DRAWN])
    drawn = frequent[clustered_order(weights[np.ix_(frequent, frequent)])]
    return heat_map([names[i] for i in drawn.tolist()], weights[np.ix_(drawn, drawn)], title=title, **labels)


def clustered_order(adjacency: FloatArray) -> npt.NDArray[np.int64]:
    """Return a (C,) order that puts genres with large mutual weights next to each other.

    Notes
    -----
    Average linkage over ``1 - w_ij / max w`` of the symmetrised weights; leaves in optimal order (Bar-Joseph et al.
    2001).
    """
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    weights = (adjacency + adjacency.T) / 2
    np.fill_diagonal(weights, 0.0)
    top = float(weights.max(initial=0.0))
    if len(weights) < 3 or top <= 0:
        return np.arange(len(weights), dtype=np.int64)
    distance = 1 - weights / top
    np.fill_diagonal(distance, 0.0)
    order = leaves_list(linkage(squareform(distance, checks=False), method="average", optimal_ordering=True))
    return np.asarray(order, dtype=np.int64)


def neighbours(adjacency: FloatArray, n: int) -> list[list[tuple[int, float]]]:
    """Return, for each genre, the `n` other genres of largest weight, with their weights; zero weights are omitted."""
    others = np.where(np.eye(len(adjacency), dtype=bool), 0.0, adjacency)
    order = np.argsort(-others, axis=1, kind="stable")[:, :n]
    return [[(int(j), float(row[j])) for j in best if row[j] > 0] for row, best in zip(others, order, strict=True)]
