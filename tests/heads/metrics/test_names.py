"""Test that the tables of names match the computed metrics, columns and baselines."""

from __future__ import annotations

import dataclasses

import numpy as np

from mgc.heads.metrics.multilabel import Metrics, ThresholdColumn
from mgc.heads.metrics.names import (
    ABLATION_METRICS,
    BASELINES,
    CARD_METRICS,
    COLUMNS,
    DECISION_METRICS,
    METRICS,
    RANKING_METRICS,
    column_label,
)
from mgc.heads.metrics.thresholds import tune_thresholds
from mgc.heads.metrics.trivial_baselines import baseline_scores
from mgc.heads.metrics.validation import validation_intervals


def test_every_computed_metric_has_a_name() -> None:
    columns = [field.name for field in dataclasses.fields(ThresholdColumn)]
    assert list(DECISION_METRICS) == [name for name in columns if name not in ("thresholds", "empty_share")]
    assert {field.name for field in dataclasses.fields(Metrics)} >= set(RANKING_METRICS)
    assert list(BASELINES) == list(baseline_scores([0.5], [1], 3))
    truth = np.array([[True, False], [False, True], [True, True]])
    thresholds = tune_thresholds(truth, truth * 0.9)
    assert list(CARD_METRICS) == list(validation_intervals(truth, truth * 0.9, thresholds, ["a", "b", "c"]))


def test_only_hamming_loss_is_better_when_lower() -> None:
    assert [key for key, metric in METRICS.items() if not metric.higher_is_better] == ["hamming_loss"]
    assert [key for key, metric in ABLATION_METRICS.items() if not metric.higher_is_better] == ["empty_share"]


def test_custom_columns_are_labelled_by_their_key() -> None:
    assert column_label("tuned_on_monday") == ("tuned_on_monday", "tuned_on_monday")
    assert all(column_label(column) is label for column, label in COLUMNS.items())
