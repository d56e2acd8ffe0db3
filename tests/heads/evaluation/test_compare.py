"""Test the comparison of two systems: same tracks, same draws of artists, significance only if the CI excludes 0."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from mgc.cache.durable import replace_file, seal
from mgc.cache.errors import RunError
from mgc.heads.evaluation.compare import compare_runs, paired_differences
from mgc.heads.evaluation.scored_tracks import ScoredTracks, save_predictions
from mgc.heads.metrics.bootstrap import Resampling
from mgc.heads.metrics.multilabel import evaluate_predictions

GENRES = ("folk", "jazz", "rock")


def scored(name: str, seed: int, *, skill: float, n: int = 60) -> ScoredTracks:
    """Return the same labels for every system, with scores that follow them by `skill` (0: not at all)."""
    world = np.random.default_rng(7)
    labels = world.random((n, 3)) < 0.4
    labels[np.arange(n), np.arange(n) % 3] = True
    noise = np.random.default_rng(seed).random((n, 3))
    return ScoredTracks(
        run=Path(name),
        ids=tuple(f"t{i:03d}" for i in range(n)),
        groups=tuple(f"artist {i // 3}" for i in range(n)),
        genres=GENRES,
        labels=labels,
        scores=(skill * labels + (1 - skill) * noise).astype(np.float32),
        thresholds={"tuned": np.full(3, 0.4)},
    )


def as_run(run: Path, scores: ScoredTracks) -> Path:
    """Write the files that ``mgc evaluate`` writes to a run folder."""
    genres = [[name for name, has in zip(scores.genres, row, strict=True) if has] for row in scores.labels.tolist()]
    tracks = pa.table({"id": list(scores.ids), "genres": pa.array(genres, pa.list_(pa.string()))})
    run.mkdir()
    digest = save_predictions(run, tracks, scores.groups, scores.genres, scores.scores)
    columns = {name: {"thresholds": cut.tolist()} for name, cut in scores.thresholds.items()}
    test = {"predictions_sha256": digest, "metrics": {"columns": {"fixed": {}, **columns}}}
    replace_file(run / "metrics.json", seal({"test": test}))
    return run


def test_differences_and_intervals_equal_those_of_scikit_learn_on_copied_tracks():
    """For scikit-learn, each track is copied as often as its artist is drawn."""
    first, other = scored("a", 1, skill=0.3), scored("b", 2, skill=0.4)
    rows = {(d.column, d.metric): d for d in paired_differences([first], [other], n_replicates=40, seed=3)}
    for system, side in ((first, "first"), (other, "second")):
        single = evaluate_predictions(
            system.labels, system.scores, thresholds=system.thresholds, groups=system.groups, n_replicates=40, seed=3
        )
        assert getattr(rows[None, "mean_average_precision"], side) == single.mean_average_precision
        for column in ("fixed", "tuned", "top1_where_empty"):
            for metric in ("jaccard", "hamming_loss", "micro_f1", "macro_f1"):
                assert getattr(rows[column, metric], side) == getattr(single.columns[column], metric)
    resampling = Resampling.of(first.groups, 40, 3)
    assert len(resampling.draws) == 40
    copies = [np.repeat(np.arange(60), draw[resampling.group_of].astype(int)) for draw in resampling.draws]

    def interval_of(value: Callable[[Any, Any], float]) -> tuple[float, float]:
        differences = [
            value(other.labels[c], other.scores[c]) - value(first.labels[c], first.scores[c]) for c in copies
        ]
        low, high = np.quantile(differences, [0.025, 0.975])
        return float(low), float(high)

    for key, value in {
        (None, "mean_average_precision"): lambda y, s: average_precision_score(y, s, average="macro"),
        ("fixed", "jaccard"): lambda y, s: jaccard_score(y, s >= 0.5, average="samples"),
        ("tuned", "micro_f1"): lambda y, s: f1_score(y, s >= 0.4, average="micro"),
    }.items():
        difference = rows[key].difference
        assert (difference.low, difference.high) == pytest.approx(interval_of(value))
        assert difference.value == pytest.approx(rows[key].second.value - rows[key].first.value)


def test_paired_difference_can_be_significant_although_the_intervals_overlap():
    """The second system is slightly better for every artist."""
    base = scored("a", 1, skill=0.3)
    better = dataclasses.replace(base, scores=np.where(base.labels, base.scores + 0.05, base.scores - 0.05))
    differences = {(d.column, d.metric): d for d in paired_differences([base], [better])}
    jaccard, hamming = differences["fixed", "jaccard"], differences["fixed", "hamming_loss"]
    assert jaccard.first.high > jaccard.second.low
    assert (jaccard.better, hamming.better) == ("second", "second")
    assert hamming.difference.high < 0 < jaccard.difference.low
    fewer = dataclasses.replace(base, groups=tuple(f"artist {i % 19}" for i in range(60)))
    few = paired_differences([fewer], [dataclasses.replace(better, groups=fewer.groups)])
    assert [difference.better for difference in few] == [None] * len(few)  # 19 artists are too few
    swapped = {(d.column, d.metric): d.better for d in paired_differences([better], [base])}
    assert swapped["fixed", "jaccard"] == swapped["fixed", "hamming_loss"] == "first"


def test_equal_systems_and_systems_of_equal_skill_differ_not_significantly():
    system = scored("a", 1, skill=0.3)
    for difference in paired_differences([system], [system], n_replicates=50):
        assert (difference.difference.value, difference.difference.low, difference.difference.high) == (0, 0, 0)
        assert difference.better is None
        assert difference.to_dict()["decided"] is False
    differences = paired_differences([system], [scored("b", 2, skill=0.3)], n_replicates=300)
    assert sum(difference.better is None for difference in differences) > len(differences) / 2


def test_several_seeds_count_as_their_mean():
    seeds, others = [scored("a", i, skill=0.3) for i in range(3)], [scored("b", 9, skill=0.4)]
    mean = paired_differences(seeds, others, n_replicates=20)
    by_seed = [paired_differences([seed], others, n_replicates=20) for seed in seeds]
    for row, *rows in zip(mean, *by_seed, strict=True):
        assert row.first.value == pytest.approx(np.mean([each.first.value for each in rows]))
        assert row.difference.value == pytest.approx(np.mean([each.difference.value for each in rows]))


def test_track_order_does_not_change_differences(tmp_path):
    first, other = scored("a", 1, skill=0.3), scored("b", 2, skill=0.4)
    order = np.random.default_rng(0).permutation(60)
    shuffled = dataclasses.replace(
        other,
        ids=tuple(np.array(other.ids)[order].tolist()),
        groups=tuple(np.array(other.groups)[order].tolist()),
        labels=other.labels[order],
        scores=other.scores[order],
    )
    expected = paired_differences([first], [other], n_replicates=20)
    assert paired_differences([first], [shuffled], n_replicates=20) == expected


def test_runs_with_other_test_data_are_refused_with_the_differences(tmp_path):
    first = as_run(tmp_path / "first", scored("", 1, skill=0.3))
    base = scored("", 2, skill=0.4)
    fewer = dataclasses.replace(
        base, ids=(*base.ids[:58], "x1", "x2"), groups=(*base.groups[:58], "track x1", "track x2")
    )
    labels = base.labels.copy()
    labels[4] = ~labels[4]
    for name, other, message in (
        ("tracks", fewer, r"2 test tracks \(t058, t059\) only in .*first\n.*2 test tracks \(x1, x2\) only.*--common"),
        ("labels", dataclasses.replace(base, labels=labels), r"1 track \(t004\) with other labels"),
        ("genres", dataclasses.replace(base, genres=("folk", "jazz", "metal")), r"1 genre \(rock\) only in"),
        ("order", dataclasses.replace(base, genres=("jazz", "folk", "rock")), "in another order"),
        ("artists", dataclasses.replace(base, groups=("artist z", *base.groups[1:])), r"\(t000\) with other artists"),
    ):
        with pytest.raises(RunError, match=f"(?s){message}"):
            compare_runs(first, as_run(tmp_path / name, other))
    shared = compare_runs(first, tmp_path / "tracks", common=True, n_replicates=10)
    assert (shared.n_tracks, shared.n_only_first, shared.n_only_second) == (58, 2, 2)
    with pytest.raises(RunError, match="not evaluated on its test split"):
        compare_runs(first, tmp_path)


def test_compare_prints_which_differences_are_significant(call, tmp_path):
    first = as_run(tmp_path / "first", scored("", 1, skill=0.1))
    other = as_run(tmp_path / "other", scored("", 2, skill=0.7))
    done = call("compare", first, other, "--replicates", 200)
    assert done.code == 0
    line = next(line for line in done.out.splitlines() if line.startswith("jaccard, at 0.5"))
    assert "second is better" in line
    same = call("compare", first, first, "--replicates", 20)
    assert "is better" not in same.out
    assert same.out.count("not significant") == 20
    result = call("compare", first, other, "--replicates", 200, "--json").json
    row = next(row for row in result["differences"] if (row["column"], row["metric"]) == ("fixed", "jaccard"))
    assert (row["decided"], row["better"]) == (True, "second")
    assert f"{row['difference']['value']:+.3f}" in line
    refused = call("compare", first, tmp_path / "missing")
    assert (refused.code, "no such folder. Give a run" in refused.err) == (2, True)
