"""What an epoch is judged by: a few metrics on the validation split, and which of two epochs is the better one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .labels import Matrix
from .metrics import decide, jaccard_per_track, ranking_per_genre
from .thresholds import PAPER_THRESHOLD

FloatArray = npt.NDArray[np.float64]


def is_better(new: Mapping[str, float | None], best: Mapping[str, float | None] | None) -> bool:
    """Higher mAP; at equal mAP, frequent on few tracks, lower cross-entropy. Without any, the latest epoch counts."""
    if best is None or new["map"] is None or best["map"] is None:
        return True
    return (new["map"], -(new["bce"] or 0.0)) > (best["map"], -(best["bce"] or 0.0))


def validation_metrics(truth: Matrix, scores: FloatArray, logits: FloatArray) -> dict[str, float | None]:
    """mAP over genres with a positive; Jaccard and empty predictions at 0.5; mean cross-entropy."""
    if not len(truth):
        return {"map": None, "jaccard": None, "empty_share": None, "bce": None}
    precisions = ranking_per_genre(truth, scores)[0]
    predicted = decide(scores, PAPER_THRESHOLD)
    return {
        "map": float(np.nanmean(precisions)) if np.isfinite(precisions).any() else None,
        "jaccard": float(jaccard_per_track(truth, predicted).mean()),
        "empty_share": float((~predicted.any(axis=1)).mean()),
        "bce": float((np.logaddexp(0.0, logits) - truth * logits).mean()),
    }
