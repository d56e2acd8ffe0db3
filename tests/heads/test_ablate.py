from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from mgc.cache.errors import ConfigError, RunError
from mgc.cache.store import FeatureStore
from mgc.heads.ablate import ablate
from mgc.heads.ablate_rows import COMPONENTS, LAMBDA
from mgc.heads.ablate_runs import plan_runs

MakeWorld = Callable[..., Any]
SMALL = {
    "encoder": "tiny", "epochs": 2, "lr": 3e-3, "batch_size": 28, "precision": "fp32", "top_genres": 3,
    "model_options": {"width": 16, "graph_hidden": 16, "projection_dim": 8},
}  # fmt: skip

CHILD = """
import os, signal, sys, json
from pathlib import Path
import torch
from mgc.cache.store import FeatureStore
from mgc.heads.ablate import ablate
store, folder, options, when, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
def on_progress(step, done, total, note):
    if (step, f"{done} {note}".strip()) == ("runs", when):
        os.kill(os.getpid(), signal.SIGKILL)
ablate(FeatureStore.open(store), Path(folder), tables=["components"], n_seeds=1, options=json.loads(options),
       n_replicates=50, on_progress=on_progress)
"""


@pytest.fixture(scope="module")
def whole(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The component table with two seeds, that nobody interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "ablation"
    return folder, ablate(small_store, folder, tables=["components"], n_seeds=2, options=SMALL, n_replicates=50)


def row_of(document: dict[str, Any], table: str, name: str) -> dict[str, Any]:
    rows = next(found["rows"] for found in document["tables"] if found["name"] == table)
    return next(row for row in rows if row["name"] == name)


def test_equal_configurations_are_trained_once_and_the_first_seed_comes_first() -> None:
    runs = plan_runs([COMPONENTS, LAMBDA], preset="paper", options=SMALL, seeds=range(3))
    assert len(runs) == len({run.key for run in runs}) == 3 * (8 + 11 - 1)
    assert [run.config.seed for run in runs] == sorted(run.config.seed for run in runs)
    serves = Counter(name for run in runs for name in run.serves)
    assert set(serves.values()) == {3}
    both = next(run for run in runs if len(run.serves) > 1)
    assert both.serves == ("components: all", "lambda: 0.3")
    assert {(run.config.split, run.config.split_seed) for run in runs} == {("random", 0)}
    assert sorted(run.config.lambda_ for run in runs if run.config.seed == 0 and run.config.contrastive) == [
        pytest.approx(value) for value in sorted([*np.arange(11) / 10, 0.3, 0.3, 0.3])
    ]  # four rows of the component table have the audio-lyrics loss; "all" is the sweep's 0.3


def test_published_numbers_are_the_papers() -> None:
    published = {row.name: row.published for row in COMPONENTS.rows}
    assert published == {
        "none": (0.372, 0.438), "A-L": (0.396, 0.475), "SCMA": (0.408, 0.491), "GCEM": (0.403, 0.487),
        "A-L + SCMA": (0.425, 0.513), "A-L + GCEM": (0.419, 0.508), "SCMA + GCEM": (0.437, 0.515),
        "all": (0.456, 0.534),
    }  # fmt: skip
    for row in COMPONENTS.rows:
        parts = {"A-L": "contrastive", "SCMA": "attention", "GCEM": "graph"}
        expected = {option: row.name == "all" or name in row.name.split(" + ") for name, option in parts.items()}
        assert row.options == expected


def test_the_figures_are_those_of_a_second_way_of_computing(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, document = whole
    scores: dict[str, list[tuple[Any, ...]]] = {"GCEM": [], "all": []}
    for run in plan_runs([COMPONENTS], preset=None, options=SMALL, seeds=range(2)):
        name = run.serves[0].removeprefix("components: ")
        if name in scores:
            table = pq.read_table(folder / "runs" / run.key / "predictions.parquet").sort_by("id").to_pylist()
            genres = [key.removeprefix("score: ") for key in table[0] if key.startswith("score: ")]
            y = np.asarray([[genre in row["genres"] for genre in genres] for row in table])
            s = np.asarray([[row[f"score: {genre}"] for genre in genres] for row in table])
            scores[name].append((y, s, [row["group"] for row in table]))
    row = row_of(document, "components", "GCEM")
    metrics = row["metrics"]
    jaccard = [jaccard_score(y, s >= 0.5, average="samples", zero_division=0) for y, s, _ in scores["GCEM"]]
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(jaccard))
    assert metrics["accuracy"]["sd"] == pytest.approx(np.std(jaccard, ddof=1))
    f1 = [f1_score(y, s >= 0.5, average="samples", zero_division=0) for y, s, _ in scores["GCEM"]]
    assert metrics["f1"]["value"] == pytest.approx(np.mean(f1))
    precision = [
        np.mean([average_precision_score(y[:, c], s[:, c]) for c in range(y.shape[1]) if y[:, c].any()])
        for y, s, _ in scores["GCEM"]
    ]
    assert metrics["map"]["value"] == pytest.approx(np.mean(precision))
    empty = [(s < 0.5).all(axis=1) for _, s, _ in scores["GCEM"]]
    assert metrics["empty_share"]["value"] == pytest.approx(np.mean(empty))
    reference = [jaccard_score(y, s >= 0.5, average="samples", zero_division=0) for y, s, _ in scores["all"]]
    assert metrics["accuracy"]["difference"]["value"] == pytest.approx(np.mean(jaccard) - np.mean(reference))
    about = document["caption"]
    y, _, groups = scores["GCEM"][0]
    assert (about["n_test"], about["n_artists"], about["n_genres"]) == (len(y), len(set(groups)), y.shape[1])
    assert about["n_songs"] == len(y)  # every track of the store is a song of its own


def test_the_files_tell_the_same_and_show_what_was_published(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, document = whole
    saved = json.loads((folder / "tables.json").read_text())
    assert saved["tables"] == document["tables"]
    lines = list(csv.DictReader(io.StringIO((folder / "tables.csv").read_text())))
    line = next(line for line in lines if (line["row"], line["metric"]) == ("SCMA", "accuracy"))
    cell = row_of(document, "components", "SCMA")["metrics"]["accuracy"]
    assert float(line["value"]) == pytest.approx(cell["value"])
    assert line["published"] == "0.408"
    assert line["verdict"] == cell["verdict"]
    page = (folder / "tables.md").read_text()
    shown = next(text for text in page.splitlines() if text.startswith("| SCMA |"))
    assert f"{cell['value']:.3f} ± {cell['sd']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]" in shown
    assert shown.endswith("| 0.408 | 0.491 |")
    assert "published accuracy, Music4All" in page
    about = document["caption"]
    tested = (
        f"{about['n_test']} test tracks; the test tracks are {about['n_songs']} songs by {about['n_artists']} artists"
    )
    assert f"{about['n_train']} training, {about['n_validation']} validation and {tested}; 3 genres" in page
    assert not list(folder.glob("runs/*/last")) + list(folder.glob("runs/*/best"))


def test_an_ablation_killed_and_run_again_has_the_same_tables(
    small_store: FeatureStore, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Killed between two runs, then inside another."""
    folder = tmp_path / "a"
    for when, n_finished in (("3", 3), ("5 components: A-L + GCEM, seed 0, epoch 1 of 2", 5)):
        arguments = [small_store.path, folder, json.dumps(SMALL), when, torch.get_num_threads()]
        child = subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], env=os.environ, check=False)
        assert child.returncode == -signal.SIGKILL
        sealed = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
        assert len(sealed) == n_finished
    document = ablate(small_store, folder, tables=["components"], n_seeds=1, options=SMALL, n_replicates=50)
    assert all(path.stat().st_mtime_ns == then for path, then in sealed.items())
    assert (document["caption"]["runs_finished"], document["claimed"], document["failures"]) == (8, [], [])
    undisturbed = ablate(small_store, whole[0], tables=["components"], n_seeds=1, options=SMALL, n_replicates=50)
    assert document["tables"] == undisturbed["tables"]


def test_fewer_seeds_are_taken_from_what_is_there(
    small_store: FeatureStore, whole: tuple[Path, dict[str, Any]]
) -> None:
    folder, both = whole
    told: list[tuple[str, int]] = []
    one = ablate(small_store, folder, tables=["components"], n_seeds=1, options=SMALL, n_replicates=50,
                 on_progress=lambda step, done, total, note: told.append((step, done)))  # fmt: skip
    assert [done for step, done in told if step == "runs"] == [8] * 8
    cell = row_of(one, "components", "none")["metrics"]["accuracy"]
    assert cell["sd"] is None
    assert row_of(both, "components", "none")["n_seeds"] == 2


def test_other_tracks_and_options_of_the_tables_own_are_refused(
    small_store: FeatureStore, make_world: MakeWorld, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    other = make_world(seed=1).write(tmp_path / "other.zarr")
    with pytest.raises(RunError, match="of other data"):
        ablate(other, whole[0], tables=["components"], n_seeds=1, options=SMALL)
    with pytest.raises(ConfigError, match="attention: the tables set these"):
        ablate(small_store, tmp_path / "a", options={"attention": False})
    with pytest.raises(ConfigError, match="want some of components"):
        ablate(small_store, tmp_path / "a", tables=["componets"])
