"""Comparing two systems: the same tracks, the same draws of artists, and no verdict where the interval holds 0."""

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
    """Labels that are the same for every system; scores that follow them by `skill` (0: not at all)."""
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


def as_run(run: Path, of: ScoredTracks) -> Path:
    """What ``mgc evaluate`` leaves in a run folder."""
    genres = [[name for name, has in zip(of.genres, row, strict=True) if has] for row in of.labels.tolist()]
    tracks = pa.table({"id": list(of.ids), "genres": pa.array(genres, pa.list_(pa.string()))})
    run.mkdir()
    digest = save_predictions(run, tracks, of.groups, of.genres, of.scores)
    columns = {name: {"thresholds": cut.tolist()} for name, cut in of.thresholds.items()}
    test = {"predictions_sha256": digest, "metrics": {"columns": {"fixed": {}, **columns}}}
    replace_file(run / "metrics.json", seal({"test": test}))
    return run


def test_differences_are_of_the_metrics_and_intervals_of_copied_artists():
    """Against scikit-learn on tracks copied out as often as their artist was drawn."""
    one, other = scored("a", 1, skill=0.3), scored("b", 2, skill=0.4)
    found = {(d.column, d.metric): d for d in paired_differences([one], [other], n_replicates=40, seed=3)}
    for system, part in ((one, "first"), (other, "second")):
        alone = evaluate_predictions(
            system.labels, system.scores, thresholds=system.thresholds, groups=system.groups, n_replicates=40, seed=3
        )
        assert getattr(found[None, "mean_average_precision"], part) == alone.mean_average_precision
        for column in ("fixed", "tuned", "top1_where_empty"):
            for metric in ("jaccard", "hamming_loss", "micro_f1", "macro_f1"):
                assert getattr(found[column, metric], part) == getattr(alone.columns[column], metric)
    resampling = Resampling.of(one.groups, 40, 3)
    assert len(resampling.draws) == 40
    copies = [np.repeat(np.arange(60), draw[resampling.group_of].astype(int)) for draw in resampling.draws]

    def interval_of(value: Callable[[Any, Any], float]) -> tuple[float, float]:
        differences = [value(other.labels[c], other.scores[c]) - value(one.labels[c], one.scores[c]) for c in copies]
        low, high = np.quantile(differences, [0.025, 0.975])
        return float(low), float(high)

    for key, value in {
        (None, "mean_average_precision"): lambda y, s: average_precision_score(y, s, average="macro"),
        ("fixed", "jaccard"): lambda y, s: jaccard_score(y, s >= 0.5, average="samples"),
        ("tuned", "micro_f1"): lambda y, s: f1_score(y, s >= 0.4, average="micro"),
    }.items():
        difference = found[key].difference
        assert (difference.low, difference.high) == pytest.approx(interval_of(value))
        assert difference.value == pytest.approx(found[key].second.value - found[key].first.value)


def test_pairing_decides_what_two_intervals_alone_leave_open():
    """A little better on every artist: the two intervals overlap, but that of the difference does not hold 0."""
    one = scored("a", 1, skill=0.3)
    better = dataclasses.replace(one, scores=np.where(one.labels, one.scores + 0.05, one.scores - 0.05))
    differences = {(d.column, d.metric): d for d in paired_differences([one], [better])}
    jaccard, hamming = differences["fixed", "jaccard"], differences["fixed", "hamming_loss"]
    assert jaccard.first.high > jaccard.second.low
    assert (jaccard.better, hamming.better) == ("second", "second")
    assert hamming.difference.high < 0 < jaccard.difference.low
    fewer = dataclasses.replace(one, groups=tuple(f"artist {i % 19}" for i in range(60)))
    few = paired_differences([fewer], [dataclasses.replace(better, groups=fewer.groups)])
    assert [difference.better for difference in few] == [None] * len(few)  # 19 artists are too few to tell
    turned = {(d.column, d.metric): d.better for d in paired_differences([better], [one])}
    assert turned["fixed", "jaccard"] == turned["fixed", "hamming_loss"] == "first"


def test_a_system_does_not_differ_from_itself_and_two_of_a_kind_are_undecided():
    one = scored("a", 1, skill=0.3)
    for difference in paired_differences([one], [one], n_replicates=50):
        assert (difference.difference.value, difference.difference.low, difference.difference.high) == (0, 0, 0)
        assert difference.better is None
        assert difference.to_dict()["decided"] is False
    found = paired_differences([one], [scored("b", 2, skill=0.3)], n_replicates=300)
    assert sum(difference.better is None for difference in found) > len(found) / 2


def test_several_seeds_count_as_their_mean():
    ones, others = [scored("a", i, skill=0.3) for i in range(3)], [scored("b", 9, skill=0.4)]
    together = paired_differences(ones, others, n_replicates=20)
    apart = [paired_differences([one], others, n_replicates=20) for one in ones]
    for row, *rows in zip(together, *apart, strict=True):
        assert row.first.value == pytest.approx(np.mean([each.first.value for each in rows]))
        assert row.difference.value == pytest.approx(np.mean([each.difference.value for each in rows]))


def test_the_order_of_the_tracks_does_not_matter(tmp_path):
    one, other = scored("a", 1, skill=0.3), scored("b", 2, skill=0.4)
    order = np.random.default_rng(0).permutation(60)
    turned = dataclasses.replace(
        other,
        ids=tuple(np.array(other.ids)[order].tolist()),
        groups=tuple(np.array(other.groups)[order].tolist()),
        labels=other.labels[order],
        scores=other.scores[order],
    )
    assert paired_differences([one], [turned], n_replicates=20) == paired_differences([one], [other], n_replicates=20)


def test_runs_that_were_tested_on_something_else_are_refused_with_what_differs(tmp_path):
    one = as_run(tmp_path / "one", scored("", 1, skill=0.3))
    base = scored("", 2, skill=0.4)
    fewer = dataclasses.replace(
        base, ids=(*base.ids[:58], "x1", "x2"), groups=(*base.groups[:58], "track x1", "track x2")
    )
    labels = base.labels.copy()
    labels[4] = ~labels[4]
    for name, other, said in (
        ("tracks", fewer, r"2 test tracks \(t058, t059\) only in .*one\n.*2 test tracks \(x1, x2\) only in .*--common"),
        ("labels", dataclasses.replace(base, labels=labels), r"1 track \(t004\) with other labels"),
        ("genres", dataclasses.replace(base, genres=("folk", "jazz", "metal")), r"1 genre \(rock\) only in"),
        ("order", dataclasses.replace(base, genres=("jazz", "folk", "rock")), "in another order"),
        ("artists", dataclasses.replace(base, groups=("artist z", *base.groups[1:])), r"\(t000\) with other artists"),
    ):
        with pytest.raises(RunError, match=f"(?s){said}"):
            compare_runs(one, as_run(tmp_path / name, other))
    shared = compare_runs(one, tmp_path / "tracks", common=True, n_replicates=10)
    assert (shared.n_tracks, shared.n_only_first, shared.n_only_second) == (58, 2, 2)
    with pytest.raises(RunError, match="no test tracks have been scored here"):
        compare_runs(one, tmp_path)


def test_a_user_reads_which_differences_are_decided(call, tmp_path):
    one = as_run(tmp_path / "one", scored("", 1, skill=0.1))
    other = as_run(tmp_path / "other", scored("", 2, skill=0.7))
    done = call("compare", one, other, "--replicates", 200)
    assert done.code == 0
    line = next(line for line in done.out.splitlines() if line.startswith("jaccard, at 0.5"))
    assert "second is better" in line
    same = call("compare", one, one, "--replicates", 20)
    assert "is better" not in same.out
    assert same.out.count("undecided") == 20
    result = call("compare", one, other, "--replicates", 200, "--json").json
    row = next(row for row in result["differences"] if (row["column"], row["metric"]) == ("fixed", "jaccard"))
    assert (row["decided"], row["better"]) == (True, "second")
    assert f"{row['difference']['value']:+.3f}" in line
    refused = call("compare", one, tmp_path / "nowhere")
    assert (refused.code, "mgc evaluate" in refused.err) == (2, True)
