"""Compute multi-label metrics (example-based, micro, macro, ranking, per genre) with intervals that resample artists.

Conventions
-----------
* The paper's "accuracy" is read as the example-based Jaccard index and its "F-measure" as example-based F1 (Godbole and
  Sarawagi 2004). Both are means over tracks, and both are 1 for a track with empty truth and empty prediction.
* A genre is predicted if its score is at or above its threshold.
* Genres without a positive are listed and left out of macro means, not averaged in as 0. ROC-AUC also needs a negative.
* Undefined values are NaN in Python and null in JSON. Without any track, all values are NaN.

Metrics: Jaccard, F1 (example-based), subset accuracy, Hamming loss, micro F1, macro F1, mAP, macro ROC-AUC; per genre
precision, recall, F1, average precision, ROC-AUC, support. Shapes: N tracks, C genres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..results import Result
from .bootstrap import BoolArray, Estimate, FloatArray, Resampling, estimate, nan_mean, ratio
from .names import FIXED, FIXED_THRESHOLD, RANKING_METRICS, TOP1


@dataclass(frozen=True, kw_only=True)
class ThresholdColumn(Result):
    """Metrics of the decisions at (C,) `thresholds`; `empty_share` is the share of tracks without a prediction."""

    jaccard: Estimate
    f1: Estimate
    subset_accuracy: Estimate
    hamming_loss: Estimate
    micro_f1: Estimate
    macro_f1: Estimate
    empty_share: float
    thresholds: FloatArray


Replicated = tuple[float, FloatArray]
"""Value of a metric, and its (R,) bootstrap replicates."""


@dataclass(frozen=True, kw_only=True)
class GenreRow(Result):
    """Metrics of one genre: support (number of tracks), ranking metrics, and precision, recall and F1 per column."""

    genre: str
    support: int
    average_precision: float
    roc_auc: float
    precision: Mapping[str, float]
    recall: Mapping[str, float]
    f1: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Metrics(Result):
    """All metrics of one system on one split.

    Attributes
    ----------
    n_tracks, n_groups : scored tracks, and resampled groups (artists).
    n_unlabelled : tracks left out because they have none of the genres.
    mean_average_precision, roc_auc : macro means over the genres for which they are defined.
    columns : by name: ``fixed``, the given thresholds, ``top1_where_empty``.
    genres : one row per genre, in the order of the label columns.
    undefined_genres : names of genres without a positive.
    n_replicates, seed : of the bootstrap; without replicates every interval is NaN.
    """

    n_tracks: int
    n_unlabelled: int
    n_groups: int
    mean_average_precision: Estimate
    roc_auc: Estimate
    columns: Mapping[str, ThresholdColumn]
    genres: Sequence[GenreRow]
    undefined_genres: Sequence[str]
    n_replicates: int
    seed: int


def evaluate_predictions(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    *,
    genres: Sequence[str] | None = None,
    thresholds: Mapping[str, float | npt.ArrayLike] | None = None,
    groups: npt.ArrayLike | None = None,
    n_replicates: int = 1000,
    seed: int = 0,
) -> Metrics:
    """Compute every metric of a system.

    Parameters
    ----------
    labels : (N, C) 0/1. Tracks with none of the genres are left out and counted.
    scores : (N, C) finite, higher is likelier. The columns at 0.5 need probabilities.
    genres : C names; default: the column numbers.
    thresholds : further columns by name, each with one threshold or (C,) thresholds, tuned on the validation split.
    groups : (N,) integers or strings, the unit of the bootstrap (the artist); default: each track is its own group.
    n_replicates, seed : of the bootstrap; 0 for none.

    Raises
    ------
    ValueError
        If shapes disagree, a label is not 0 or 1, a score or threshold is not finite, or a column name is reserved.
    """
    y, s = label_matrix(labels), np.asarray(scores, dtype=np.float64)
    check_same_shape(y, s)
    not_finite = np.flatnonzero(~np.isfinite(s).all(axis=1))
    if len(not_finite):
        raise ValueError(f"scores of {len(not_finite)} tracks hold NaN or infinity (first: row {not_finite[0]})")
    names = [str(j) for j in range(y.shape[1])] if genres is None else [str(name) for name in genres]
    if len(names) != y.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"{y.shape[1]} label columns need as many different genre names, got {len(names)}")
    group_of = np.arange(len(y)) if groups is None else np.asarray(groups)
    if group_of.shape != (len(y),):
        raise ValueError(f"groups must have shape ({len(y)},), one per track, not {group_of.shape}")
    cuts = _threshold_columns(thresholds or {}, y.shape[1])

    labelled = y.any(axis=1)
    y, s = y[labelled], s[labelled]
    resampling = Resampling.of(group_of[labelled], n_replicates, seed)
    predicted = {name: decide(s, cut) for name, cut in cuts.items()}
    cuts[TOP1] = cuts[FIXED]
    predicted[TOP1] = decide(s, cuts[TOP1], top1_where_empty=True)

    ap, auc = ranking_per_genre(y, s)
    ranking = {name: estimate(*metric) for name, metric in ranking_metrics(y, s, resampling).items()}
    return Metrics(
        n_tracks=len(y),
        n_unlabelled=int((~labelled).sum()),
        n_groups=resampling.n_groups,
        **ranking,
        columns={name: _column(y, predicted[name], cut, resampling) for name, cut in cuts.items()},
        genres=_genre_rows(names, y, predicted, ap, auc),
        undefined_genres=[names[j] for j in np.flatnonzero(y.sum(axis=0) == 0)],
        n_replicates=resampling.n_replicates,
        seed=seed,
    )


def decide(scores: npt.ArrayLike, threshold: float | npt.ArrayLike, *, top1_where_empty: bool = False) -> BoolArray:
    """Return (N, C) bool decisions: scores at or above the threshold, a number or (C,).

    With `top1_where_empty`, a track with no score at its threshold gets its top genre (the first of ties).
    """
    s = np.asarray(scores, dtype=np.float64)
    predicted: BoolArray = s >= np.asarray(threshold, dtype=np.float64)
    if top1_where_empty and s.size:
        empty = np.flatnonzero(~predicted.any(axis=1))
        predicted[empty, s[empty].argmax(axis=1)] = True
    return predicted


def jaccard_per_track(labels: BoolArray, predicted: BoolArray) -> FloatArray:
    """Return (N,) intersection over union; 1 if both are empty."""
    hits, union = (labels & predicted).sum(axis=1), (labels | predicted).sum(axis=1)
    return np.where(union > 0, hits / np.maximum(union, 1), 1.0)


def f1_per_track(labels: BoolArray, predicted: BoolArray) -> FloatArray:
    """Return (N,) ``2 |Y & P| / (|Y| + |P|)``; 1 if both are empty."""
    hits, both = (labels & predicted).sum(axis=1), labels.sum(axis=1) + predicted.sum(axis=1)
    return np.where(both > 0, 2 * hits / np.maximum(both, 1), 1.0)


def ranking_per_genre(labels: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (C,) average precision and (C,) ROC-AUC; NaN for genres without a positive (ROC-AUC: or a negative)."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    ap, auc = np.full((2, labels.shape[1]), np.nan)
    for genre in range(labels.shape[1]):
        y, s = labels[:, genre], scores[:, genre]
        if y.any():
            ap[genre] = average_precision_score(y, s)
            if not y.all():
                auc[genre] = roc_auc_score(y, s)
    return ap, auc


def decision_metrics(labels: BoolArray, predicted: BoolArray, resampling: Resampling) -> dict[str, Replicated]:
    """Return the metrics of :data:`~mgc.heads.metrics.names.DECISION_METRICS` for (N, C) decisions, with replicates."""
    y, p = labels, predicted
    hits, total = (y & p).astype(np.float64), y.astype(np.float64) + p
    per_track: dict[str, FloatArray] = {
        "jaccard": jaccard_per_track(y, p),
        "f1": f1_per_track(y, p),
        "subset_accuracy": (y == p).all(axis=1).astype(np.float64),
        "hamming_loss": (y != p).mean(axis=1),
    }
    metrics = {name: (float(nan_mean(values)), resampling.means(values)) for name, values in per_track.items()}
    hits_R, total_R = resampling.sums(hits), resampling.sums(total)
    has_track, has_track_R = y.sum(axis=0) > 0, resampling.sums(y) > 0
    macro = nan_mean(np.where(has_track, ratio(2 * hits.sum(axis=0), total.sum(axis=0)), np.nan))
    macro_R = nan_mean(np.where(has_track_R, ratio(2 * hits_R, total_R), np.nan))
    micro_R = ratio(2 * hits_R.sum(axis=1), total_R.sum(axis=1))
    micro = ratio(2 * hits.sum(), total.sum())
    return {**metrics, "micro_f1": (float(micro), micro_R), "macro_f1": (float(macro), macro_R)}


def ranking_metrics(labels: BoolArray, scores: FloatArray, resampling: Resampling) -> dict[str, Replicated]:
    """Return mean average precision and macro ROC-AUC of (N, C) scores, with their bootstrap replicates."""
    values = (float(nan_mean(per_genre)) for per_genre in ranking_per_genre(labels, scores))
    return dict(zip(RANKING_METRICS, zip(values, resampling.ranking(labels, scores), strict=True), strict=True))


def _column(y: BoolArray, p: BoolArray, cut: FloatArray, resampling: Resampling) -> ThresholdColumn:
    return ThresholdColumn(
        thresholds=cut,
        **{name: estimate(*metric) for name, metric in decision_metrics(y, p, resampling).items()},
        empty_share=float(nan_mean(np.equal(p.sum(axis=1), 0).astype(np.float64))),
    )


def _genre_rows(
    names: Sequence[str], y: BoolArray, predicted: Mapping[str, BoolArray], ap: FloatArray, auc: FloatArray
) -> list[GenreRow]:
    support = y.sum(axis=0)
    precision, recall, f1 = {}, {}, {}
    for name, p in predicted.items():
        hits = (y & p).sum(axis=0)
        precision[name] = ratio(hits, p.sum(axis=0))
        recall[name] = ratio(hits, support)
        # Without a positive, F1 is 0 or undefined for any system, so a value would not describe this one.
        f1[name] = np.where(support > 0, ratio(2 * hits, support + p.sum(axis=0)), np.nan)
    return [
        GenreRow(
            genre=genre,
            support=int(support[j]),
            average_precision=float(ap[j]),
            roc_auc=float(auc[j]),
            precision={name: float(values[j]) for name, values in precision.items()},
            recall={name: float(values[j]) for name, values in recall.items()},
            f1={name: float(values[j]) for name, values in f1.items()},
        )
        for j, genre in enumerate(names)
    ]


def label_matrix(labels: npt.ArrayLike) -> BoolArray:
    """Return labels as (N, C) bool; raise ``ValueError`` unless they are a 0/1 matrix with at least one genre."""
    y = np.asarray(labels)
    if y.ndim != 2 or y.shape[1] == 0:
        raise ValueError(f"labels must have shape (tracks, genres) with at least one genre, not {y.shape}")
    if y.dtype != np.bool_ and not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    return y.astype(np.bool_)


def check_same_shape(labels: BoolArray, scores: FloatArray) -> None:
    if scores.shape != labels.shape:
        raise ValueError(f"scores have shape {scores.shape} but labels {labels.shape}")


def _threshold_columns(thresholds: Mapping[str, float | npt.ArrayLike], n_genres: int) -> dict[str, FloatArray]:
    cuts = {FIXED: np.full(n_genres, FIXED_THRESHOLD)}
    for name, threshold in thresholds.items():
        values = np.asarray(threshold, dtype=np.float64)
        if name in (FIXED, TOP1):
            raise ValueError(f"thresholds {name!r}: reserved name. Use another.")
        if values.shape not in ((), (n_genres,)) or not np.isfinite(values).all():
            raise ValueError(f"thresholds {name!r} must be one finite number or {n_genres}, not shape {values.shape}")
        cuts[name] = np.broadcast_to(values, (n_genres,)).copy()
    return cuts
