"""Names of metrics, decision rules and baselines: keys of files and printed names, in the order of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

FIXED, TUNED, TUNED_PER_GENRE, TOP1 = "fixed", "tuned", "tuned_per_genre", "top1_where_empty"
"""Columns of metrics: rules that decide from scores which genres are predicted."""

FIXED_THRESHOLD = 0.5
"""Threshold of the columns ``fixed`` and ``top1_where_empty``; the paper's."""


class Metric(NamedTuple):
    """Printed name of a metric; `higher_is_better` is None if it has no better direction."""

    name: str
    higher_is_better: bool | None = True


class Label(NamedTuple):
    """Name for pages, and short name for the terminal."""

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
"""Metrics of decisions, in every column."""

RANKING_METRICS: Mapping[str, Metric] = {
    "mean_average_precision": Metric("mAP"),
    "roc_auc": Metric("ROC-AUC"),
}
"""Metrics of scores, without decisions."""

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
"""Metrics of an ablation, with the paper's names.

"accuracy" is the example-based Jaccard index and F the example-based F1, at threshold 0.5; ``tuned`` ones use the
overall threshold tuned on validation tracks. ``empty`` is the share of tracks without a prediction at 0.5.
"""

CARD_METRICS: Mapping[str, str] = {
    "map": "mAP (macro, genres with a validation track)",
    "jaccard_fixed": "Jaccard at threshold 0.5",
    "f1_fixed": "F1 (example-based) at 0.5",
    "jaccard_tuned": "Jaccard at the overall threshold",
    "f1_tuned": "F1 at the overall threshold",
    "jaccard_tuned_per_genre": "Jaccard at per-genre thresholds",
    "f1_tuned_per_genre": "F1 at per-genre thresholds",
}
"""Validation figures of a model card (:func:`mgc.heads.metrics.validation.validation_intervals`)."""

COLUMNS: Mapping[str | None, Label] = {
    None: Label("none (ranking)", "ranking"),
    FIXED: Label("threshold 0.5 (the paper's)", "at 0.5"),
    TUNED: Label("overall threshold, tuned on validation", "tuned"),
    TUNED_PER_GENRE: Label("per-genre thresholds, tuned on validation", "tuned per genre"),
    TOP1: Label("0.5, or the top genre if none reaches it", "0.5 or top 1"),
}
"""Decision rules of metrics; None for metrics of the ranking."""

BASELINES: Mapping[str, Label] = {
    "label_prior": Label("label prior", "prior"),
    "majority": Label("majority label set", "majority"),
    "label_frequency": Label("genres drawn by their frequency", "frequency"),
}
"""Systems without features (:mod:`mgc.heads.metrics.trivial_baselines`)."""


def decision_columns(tuned_on: int | None) -> list[str]:
    """Return the decision rules to show; without validation tracks (`tuned_on` is 0), tuned thresholds are all 0.5."""
    untuned = (TUNED, TUNED_PER_GENRE) if tuned_on == 0 else ()
    return [column for column in COLUMNS if column is not None and column not in untuned]


def column_label(column: str | None) -> Label:
    """Return the names of a column; the key itself for a column outside :data:`COLUMNS`, as with custom thresholds."""
    return COLUMNS.get(column) or Label(str(column), str(column))
