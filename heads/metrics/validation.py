"""Compute validation metrics of an epoch, and select the better of two epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..results import json_value
from .bootstrap import BoolArray, FloatArray, Resampling, estimate, nan_mean
from .multilabel import decide, decision_metrics, jaccard_per_track, ranking_metrics, ranking_per_genre
from .names import FIXED, FIXED_THRESHOLD
from .thresholds import Thresholds

CARD_REPLICATES = 200
"""Bootstrap replicates for the figures of a model card; few, since every better epoch computes them."""


def is_better(new: Mapping[str, float | None], best: Mapping[str, float | None] | None) -> bool:
    """Return whether `new` has the higher mAP, or at equal mAP the lower cross-entropy; True without a validation mAP.

    Equal mAPs are common on few validation tracks.
    """
    if best is None or new["map"] is None or best["map"] is None:
        return True
    return (new["map"], -(new["bce"] or 0.0)) > (best["map"], -(best["bce"] or 0.0))


def validation_metrics(truth: BoolArray, scores: FloatArray, logits: FloatArray) -> dict[str, float | None]:
    """Return mAP over genres with a positive, Jaccard index and share of empty predictions at 0.5, cross-entropy."""
    if not len(truth):
        return {"map": None, "jaccard": None, "empty_share": None, "bce": None}
    predicted = decide(scores, FIXED_THRESHOLD)
    return {
        "map": json_value(nan_mean(ranking_per_genre(truth, scores)[0])),
        "jaccard": float(jaccard_per_track(truth, predicted).mean()),
        "empty_share": float((~predicted.any(axis=1)).mean()),
        "bce": float((np.logaddexp(0.0, logits) - truth * logits).mean()),
    }


def warning_of_constant_scores(truth: BoolArray, best_map: float | None) -> str | None:
    """Return a warning if the best epoch ranks tracks no better than constant scores, else None.

    The average precision of constant scores is the share of tracks with the genre. Without a genre that some but not
    all validation tracks have, there is nothing to compare, and no warning.
    """
    shares = truth.mean(axis=0) if len(truth) else np.zeros(0)
    if best_map is None or not ((shares > 0) & (shares < 1)).any():
        return None
    constant = float(shares[shares > 0].mean())
    if best_map > 1.01 * constant:
        return None
    return (
        f"validation mAP {best_map:.3f} is that of constant scores ({constant:.3f}): the model has learned nothing. "
        "Use a lower --lr, or --set warmup_epochs=2."
    )


def validation_intervals(
    truth: BoolArray,
    scores: FloatArray,
    thresholds: Thresholds,
    groups: Sequence[str],
    *,
    n_replicates: int = CARD_REPLICATES,
) -> dict[str, dict[str, float | None]]:
    """Return the figures of a model card with 95 % intervals over `groups` (artists); empty without validation tracks.

    Without replicates there are values only.

    Keys: ``map``, and ``jaccard_<column>`` and ``f1_<column>`` for the columns ``fixed`` (0.5), ``tuned`` and
    ``tuned_per_genre``.
    """
    if not len(truth):
        return {}
    resampling = Resampling.of(np.asarray(groups), n_replicates, seed=0)
    intervals = {"map": estimate(*ranking_metrics(truth, scores, resampling)["mean_average_precision"])}
    for column, cut in {FIXED: FIXED_THRESHOLD, **thresholds.by_column}.items():
        metrics = decision_metrics(truth, decide(scores, cut), resampling)
        intervals |= {f"{name}_{column}": estimate(*metrics[name]) for name in ("jaccard", "f1")}
    values: dict[str, dict[str, float | None]] = json_value(intervals)
    return values
