"""Doubtful labels: planted ones rank first. Genre names that are spelled alike, with the name to write."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from mgc.cache.reading.store import FeatureStore
from mgc.heads.evaluation.label_issues import find_issues
from mgc.heads.evaluation.scored_tracks import load_predictions
from mgc.pipeline.sources.genre_aliases import similar_genres


def test_planted_issues_rank_first() -> None:
    """60 tracks, 3 genres; the scores of labelled and unlabelled tracks overlap, and 9 labels are flipped."""
    random = np.random.default_rng(0)
    truth = random.random((60, 3)) < 0.4
    logits = np.where(truth, 2.0, -2.0) + random.normal(0, 1, truth.shape)
    planted = [(i, i % 3) for i in range(0, 54, 6)]
    labels = truth.copy()
    for i, c in planted:
        labels[i, c] ^= True
        logits[i, c] = 3.0 if truth[i, c] else -3.0
    found = find_issues(labels, 1 / (1 + np.exp(-logits)))
    first = {(i, c) for i, c, _, _ in found[: len(planted)]}
    assert len(first & set(planted)) >= 8
    assert all(kind == ("wrong" if labels[i, c] else "missing") for i, c, kind, _ in found)
    confidences = [confidence for *_, confidence in found]
    assert confidences == sorted(confidences)


def test_rare_genres_are_not_judged() -> None:
    labels = np.zeros((20, 2), dtype=bool)
    labels[:4, 0] = labels[:10, 1] = True
    scores = np.where(labels, 0.1, 0.9)
    assert {c for _, c, _, _ in find_issues(labels, scores)} == {1}


def test_similar_names_and_the_name_to_write() -> None:
    tracks = {
        "Hip-Hop": 50,
        "hip hop": 9,
        "hiphop": 1,
        "rock": 90,
        "r\u043eck": 1,
        "ballad": 7,
        "ballads": 2,
        "shoegaze": 20,
        "shoegase": 1,
        "classical": 5,
        "classcial": 1,
        "dnb": 3,
        "drum and bass": 8,
        "electronic": 40,
        "electronica": 9,
        "punk": 30,
        "funk": 20,
        "pop rock": 4,
        "pop/rock": 3,
        "post rock": 6,
    }
    found = {genre.name: (genre.into, genre.reason) for genre in similar_genres(tracks)}
    assert found == {
        "hip hop": ("Hip-Hop", "spelling"),
        "hiphop": ("Hip-Hop", "spelling"),
        "r\u043eck": ("rock", "spelling"),
        "dnb": ("drum and bass", "spelling"),
        "ballads": ("ballad", "plural"),
        "shoegase": ("shoegaze", "typing error"),
        "classcial": ("classical", "typing error"),
    }


def test_command_judges_test_tracks_and_writes_a_table_for_merge_genres(
    small_store: FeatureStore, evaluated_run: Path, make_world: Any, tmp_path: Path, call: Any
) -> None:
    found = call("store", "labels", small_store.path, "--run", evaluated_run, "--json").json
    scored = load_predictions(evaluated_run)
    assert (found["judged"], found["labelled"]) == (len(scored.ids), 40)
    expected = [
        {"id": scored.ids[i], "genre": scored.genres[c], "kind": kind, "confidence": confidence}
        for i, c, kind, confidence in find_issues(scored.labels, scored.scores.astype(np.float64))
    ]
    assert sorted(map(repr, found["issues"])) == sorted(map(repr, expected))
    world = make_world()
    world.tracks[0]["genres"] = ["Blues", *world.tracks[0]["genres"]]
    store = world.write(tmp_path / "other.zarr")
    done = call("store", "labels", store.path, "-o", tmp_path / "merge.csv")
    assert (done.code, "Blues" in done.out) == (0, True)
    with (tmp_path / "merge.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file)) == [{"from": "Blues", "to": "blues"}]
    assert call("report", store.path, "-o", tmp_path / "store.html").code == 0
    assert "Genre names that are spelled alike" in (tmp_path / "store.html").read_text(encoding="utf-8")
    ablation = tmp_path / "small" / "runs"
    for name in ("one", "two"):
        shutil.copytree(evaluated_run, ablation / name)
    pooled = call("store", "labels", small_store.path, "--run", tmp_path / "small", "--json").json
    assert pooled["issues"] == found["issues"]
    refused = call("store", "labels", small_store.path, "--run", tmp_path)
    assert refused.code == 2
