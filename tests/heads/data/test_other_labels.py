"""Test labels from a file: they replace those of the store without extraction, and runs record their hash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mgc import __version__
from mgc.cache.reading.store import FeatureStore
from mgc.heads.evaluation.scored_tracks import load_predictions

TRAIN = ("--encoder", "tiny", "--epochs", 1, "--batch-size", 16)


@pytest.fixture
def labels(small_store: FeatureStore, tmp_path: Path) -> Path:
    """Write labels with two genres for 36 of the 40 tracks, and a row of an unknown track."""
    ids = small_store.tracks.column("id").to_pylist()
    rows = [f"{name},{'jazz|rock' if i % 3 else 'jazz'}" for i, name in enumerate(ids[:36])]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["id,genres", *rows, "nobody,rock"]) + "\n")
    return path


def test_given_labels_are_used_in_training_and_evaluation(
    call: Callable[..., Any], small_store: FeatureStore, labels: Path, tmp_path: Path
) -> None:
    store, run, other = small_store.path, tmp_path / "run", ("--labels", labels, "--genre-delimiter", "|")
    dry = call("train", store, "-o", run, *TRAIN, *other, "--dry-run", "--json").json
    assert dry["genres"] == ["jazz", "rock"]
    trained = call("train", store, "-o", run, *TRAIN, *other, "--json").json
    assert trained["genres"] == ["jazz", "rock"]
    assert trained["remarks"][:2] == [
        "labels.csv labels 36 of 40 tracks; the others are unlabelled",
        "1 row of labels.csv without a track in the store",
    ]
    assert "4 of 40 tracks have no label and are left out" in trained["remarks"]
    evaluated = call("evaluate", run, store, *other, "--json").json
    assert not [line for line in evaluated["warnings"] if "trained on" in line]
    assert load_predictions(run).labels[:, 0].all()  # jazz
    wrong = call("evaluate", run, store, "--json").json
    assert [line for line in wrong["warnings"] if "trained on other labels and is evaluated on the store's own" in line]
    refused = call("train", store, "-o", run, *TRAIN, "--resume")
    assert (refused.code, "labels of the training and validation tracks" in refused.err) == (2, True)
    sha256 = json.loads((run / "run.json").read_text())["labels_sha256"]
    assert (
        f"Labels: from a separate file instead of the collection, sha256 `{sha256}`"
        in (run / "best/README.md").read_text()
    )


def test_ablation_with_given_labels_needs_its_own_folder(
    call: Callable[..., Any], small_store: FeatureStore, labels: Path, tmp_path: Path
) -> None:
    folder, other = tmp_path / "ablation", ("--labels", labels, "--genre-delimiter", "|")
    command = ("ablate", small_store.path, "-o", folder, *TRAIN, "--tables", "components", "--seeds", 1, "--json")
    dry = call(*command, *other, "--dry-run").json
    assert dry["remarks"][0] == "labels.csv labels 36 of 40 tracks; the others are unlabelled"
    ablation = call(*command, *other, "--shard", "1/8").json  # one of the eight runs
    about = ablation["caption"]
    assert (about["runs_finished"], about["genres"], about["mgc"]) == (1, ["jazz", "rock"], [__version__])
    assert ablation["remarks"][0] == dry["remarks"][0]
    assert (
        f"Labels from a table instead of the store (sha256 {about['labels_sha256'][:12]})"
        in (folder / "tables.md").read_text()
    )
    refused = call(*command, "--shard", "1/8")
    assert (refused.code, "(tracks or labels differ)" in refused.err) == (2, True)


def test_genres_of_unknown_tracks_need_no_embedding(
    call: Callable[..., Any], small_store: FeatureStore, labels: Path, tmp_path: Path
) -> None:
    labels.write_text(labels.read_text() + "somebody,polka\n")
    dry = call(
        "train",
        small_store.path,
        "-o",
        tmp_path / "run",
        *TRAIN,
        "--labels",
        labels,
        "--genre-delimiter",
        "|",
        "--dry-run",
        "--json",
    ).json
    assert dry["genres"] == ["jazz", "rock"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,genre\nt0001,rock\n", "no column 'genres'"),
        ("id,genres\nt0001,rock\nt0001,jazz\n", "line 3: track 't0001' is listed twice"),
        ("id,genres\nt0001,rock|jazz\n", "--genre-delimiter '|'"),
        ("id,genres\nnobody,rock\n", "Write each id as the source has it."),
        ("id,genres\nt0001.mp3,rock\n", "Write each id without folder and suffix, as in 't0001'."),
        ("id,genres\nt0001,polka\n", "1 genre without an embedding"),
        ("id,genres\n", "lists no track"),
    ],
)
def test_invalid_labels_are_refused(
    call: Callable[..., Any], small_store: FeatureStore, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    done = call("train", small_store.path, "-o", tmp_path / "run", *TRAIN, "--labels", path)
    assert (done.code, message in done.err) == (2, True), done.err
    assert not (tmp_path / "run").exists()
