"""Names of metrics, of ways to decide and of baselines: keys of files and what people read, in the order of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FIXED, TUNED, TUNED_PER_GENRE, TOP1 = "fixed", "tuned", "tuned_per_genre", "top1_where_empty"
"""Columns of metrics: how genres are decided from scores."""

FIXED_THRESHOLD = 0.5
"""The paper's, of the columns ``fixed`` and ``top1_where_empty``."""


class Metric(NamedTuple):
    """A metric as people read it; `higher_is_better` is None where neither is."""

    name: str
    higher_is_better: bool | None = True


class Label(NamedTuple):
    """A name for pages, and a short one for the terminal."""

    name: str
    short: str


DECISION_METRICS: Mapping[str, Metric] = {
    "jaccard": Metric("Jaccard"),
    "f1": Metric("F1"),
    "subset_accuracy": Metric("subset accuracy"),
    "hamming_loss": Metric("Hamming loss", higher_is_better=False),
    "micro_f1": Metric("micro F1"),
    "macro_f1": Metric("macro F1"),
}
"""Metrics of decisions; every column has them."""

RANKING_METRICS: Mapping[str, Metric] = {
    "mean_average_precision": Metric("mAP"),
    "roc_auc": Metric("ROC-AUC"),
}
"""Metrics of scores, without a decision."""

METRICS: Mapping[str, Metric] = {**RANKING_METRICS, **DECISION_METRICS}

ABLATION_METRICS: Mapping[str, Metric] = {
    "accuracy": Metric("accuracy"),
    "f1": Metric("F"),
    "accuracy_tuned": Metric("accuracy, tuned"),
    "f1_tuned": Metric("F, tuned"),
    "map": Metric("mAP"),
    "empty_share": Metric("empty", higher_is_better=None),
    "subset_accuracy": Metric("exact set"),
    "accuracy_top1": Metric("accuracy, 0.5 or top 1"),
}
"""Metrics of an ablation, by the paper's names.

"accuracy" is the example-based Jaccard index and F the example-based F1, both at threshold 0.5 unless ``tuned``: at the
one threshold tuned on validation tracks. ``empty`` is the share of tracks without a prediction at 0.5.
"""

CARD_METRICS: Mapping[str, str] = {
    "map": "mAP (macro, genres with a validation track)",
    "jaccard_fixed": "Jaccard at threshold 0.5",
    "f1_fixed": "F1 (example-based) at 0.5",
    "jaccard_tuned": "Jaccard at the overall threshold",
    "f1_tuned": "F1 at the overall threshold",
    "jaccard_tuned_per_genre": "Jaccard at the thresholds a genre",
    "f1_tuned_per_genre": "F1 at the thresholds a genre",
}
"""Validation figures of a model card (:func:`mgc.heads.metrics.validation.validation_intervals`)."""

COLUMNS: Mapping[str | None, Label] = {
    None: Label("the ranking", "ranking"),
    FIXED: Label("threshold 0.5 (the paper's)", "at 0.5"),
    TUNED: Label("one threshold, tuned on validation", "tuned"),
    TUNED_PER_GENRE: Label("a threshold a genre, tuned on validation", "tuned a genre"),
    TOP1: Label("0.5, highest score where nothing passes", "0.5 or top 1"),
}
"""By what a metric is decided; None: by the ranking of scores alone."""

BASELINES: Mapping[str, Label] = {
    "label_prior": Label("label prior", "prior"),
    "majority": Label("majority label set", "majority"),
    "label_frequency": Label("genres drawn by their frequency", "frequency"),
}
"""Systems that see no features (:mod:`mgc.heads.metrics.trivial_baselines`)."""


def column_label(column: str | None) -> Label:
    """Return the names of a column; its key where it is none of :data:`COLUMNS`, as with thresholds of one's own."""
    return COLUMNS.get(column) or Label(str(column), str(column))
