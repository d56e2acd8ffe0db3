from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from mgc import api
from mgc.cache.claims import hold
from mgc.cache.durable import seal, unseal
from mgc.cache.errors import ConfigError, RunError, StoppedError
from mgc.cache.reading.store import FeatureStore
from mgc.heads.ablation import workers
from mgc.heads.ablation.ablate import ablate, dry_run
from mgc.heads.ablation.grid import Grid
from mgc.heads.ablation.paper_tables import COMPONENTS, LAMBDA, PARTS, SYSTEMS, chosen_tables, switches
from mgc.heads.ablation.runs import Work, finished, names_of
from mgc.heads.config import PRESETS, SWITCHES, TrainConfig, merge_options
from mgc.heads.data.folds import make_folds
from mgc.heads.evaluation.scored_tracks import load_predictions
from mgc.reports.ablation import SIGNIFICANCE, markdown, write_ablation

MakeWorld = Callable[..., Any]
SMALL: dict[str, Any] = {
    "encoder": "tiny",
    "epochs": 2,
    "lr": 3e-3,
    "batch_size": 28,
    "precision": "fp32",
    "top_genres": 3,
    "model_options": {"width": 16, "graph_hidden": 16, "projection_dim": 8},
}
N_REPLICATES = 50
MakeWorld = Callable[..., Any]

CHILD = """
import os, signal, sys, json
from pathlib import Path
import torch
from mgc.heads.ablation.ablate import ablate
from mgc.heads.ablation.grid import Grid
from mgc.heads.ablation.paper_tables import COMPONENTS, TableSpec
from mgc.heads.ablation.runs import Work, finished
store, folder, options, when, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
def on_progress(step, done, total, note=""):
    if (step, f"{done} {note}".strip()) == ("runs", when):
        os.kill(os.getpid(), signal.SIGKILL)
rows = tuple(row for row in COMPONENTS.rows if row.name in ("SCMA", "GCEM", "all"))
table = TableSpec(name="components", title="T", rows=rows, reference="all")
plan = Grid(tables=[table], seeds=[0], options=json.loads(options))
ablate(Work(folder=Path(folder), store=Path(store)), plan, n_replicates=50, on_progress=on_progress)
"""


FEW = dataclasses.replace(COMPONENTS, rows=tuple(r for r in COMPONENTS.rows if r.name in ("SCMA", "GCEM", "all")))
"""Three rows of the component table, for time."""


def few_plan(n_seeds: int) -> Grid:
    return Grid(tables=[FEW], seeds=range(n_seeds), options=SMALL)


@pytest.fixture(scope="module")
def complete(small_store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Work, dict[str, Any]]:
    """Perform the component table with two seeds, uninterrupted."""
    work = Work(folder=tmp_path_factory.mktemp("complete") / "ablation", store=small_store.path)
    document = ablate(work, few_plan(2), n_replicates=N_REPLICATES).to_dict()
    write_ablation(work.folder, document)
    return work, document


def row_of(document: dict[str, Any], table: str, name: str) -> dict[str, Any]:
    rows = next(each["rows"] for each in document["tables"] if each["name"] == table)
    return next(row for row in rows if row["name"] == name)


def test_equal_configurations_share_one_run_and_runs_are_ordered_by_seed() -> None:
    tables = chosen_tables(preset="paper")
    plan = Grid(tables=tables, preset="paper", options={"epochs": 3}, seeds=range(3))
    n_switches = 2 + 2 + len(SWITCHES) + 1  # parts and other heads off or on, each switch, the preset
    trained_of = {"systems": 5, "components": 8, "lambda": 11, "switches": n_switches}
    assert {spec.name: sum(bool(plan.keys(row, 0)) for row in spec.rows) for spec in plan.tables} == trained_of
    assert len(plan.runs) == len({run.key for run in plan.runs})
    assert [run.config.seed for run in plan.runs] == sorted(run.config.seed for run in plan.runs)
    assert set(Counter(name for run in plan.runs for name in run.serves).values()) == {3}
    shared = {run.serves for run in plan.runs if len(run.serves) > 1}
    assert shared == {
        ("systems: ru2023", "components: all", "lambda: 0.3", "switches: paper"),
        ("components: A-L + GCEM", "switches: without cross-modal attention"),
        ("components: SCMA + GCEM", "switches: without audio-lyrics loss"),
        ("components: A-L + SCMA", "switches: linear head"),
    }
    assert {(run.config.split, run.config.split_seed) for run in plan.runs} == {("random", 0)}
    swept = [run.config.lambda_ for run in Grid(tables=[LAMBDA], seeds=[0]).runs]
    np.testing.assert_allclose(swept, np.arange(11) / 10)


def test_tables_carry_the_warnings_of_their_runs_and_of_too_few_artists(complete: tuple[Work, dict[str, Any]]) -> None:
    """Without the warning, a reader may compare an accuracy on a tiny collection with the published figures."""
    work, document = complete
    first, *others = document["caption"]["warnings"]
    n_artists = document["caption"]["n_artists"]
    assert n_artists < 20
    assert first.startswith(f"only {n_artists} artists in the test split: confidence intervals")
    assert "--folds 5" in first
    warned = {warning for run in few_plan(2).runs for warning in (finished(work.folder, run) or {})["warnings"]}
    assert {re.sub(r" \((each run|\d+ of 6 runs)\)$", "", warning) for warning in others} == warned
    page = (work.folder / "tables.md").read_text()
    assert all(f"- {warning}" in page for warning in (first, *others))


@pytest.mark.parametrize(("empty", "filled"), [("validation", "test"), ("test", "validation")])
def test_empty_validation_or_test_split_is_refused_before_training(
    make_world: MakeWorld, tmp_path: Path, empty: str, filled: str
) -> None:
    world = make_world()
    for i, track in enumerate(world.tracks):
        track["split"] = "train" if i < 28 else empty if i < 38 else filled
        track["genres"] = ["rare"] if 28 <= i < 38 else ["rock"]
    store = world.write(tmp_path / "s.zarr")
    work = Work(folder=tmp_path / "ablation", store=store.path)
    with pytest.raises(ConfigError, match=rf"no {empty} track is left \(split manifest.*{filled} 2.*--folds 5"):
        ablate(work, few_plan(1))
    assert not work.folder.exists()


def test_stopping_names_the_next_step_and_saves_the_run(small_store: FeatureStore, tmp_path: Path) -> None:
    work, polls = Work(folder=tmp_path / "ablation", store=small_store.path), iter(range(100))
    with pytest.raises(StoppedError, match="Run the same command again") as raised:
        ablate(work, few_plan(1), stop=lambda: next(polls) > 4)
    assert "--resume" not in str(raised.value)
    assert list((work.folder / "runs").glob("*/last/state-*"))  # the stop came within a run


def test_published_figures_equal_those_of_the_paper() -> None:
    published = {row.name: row.published for spec in (SYSTEMS, COMPONENTS) for row in spec.rows if row.published}
    assert published == {
        "santana (reconstructed)": (0.354, 0.419),
        "pandeya (reconstructed)": (0.387, 0.442),
        "ru2023": (0.456, 0.534),
        "none": (0.372, 0.438),
        "A-L": (0.396, 0.475),
        "SCMA": (0.408, 0.491),
        "GCEM": (0.403, 0.487),
        "A-L + SCMA": (0.425, 0.513),
        "A-L + GCEM": (0.419, 0.508),
        "SCMA + GCEM": (0.437, 0.515),
        "all": (0.456, 0.534),
    }


def test_component_rows_enable_only_the_components_in_their_name() -> None:
    parts = {"A-L": "contrastive", "SCMA": "attention", "GCEM": "head"}
    for row in COMPONENTS.rows:
        expected = {option: row.name == "all" or name in row.name.split(" + ") for name, option in parts.items()}
        head = "graph" if expected.pop("head") else "linear"
        assert row.options == {**expected, "head": head}


@pytest.mark.parametrize("preset", PRESETS)
def test_switch_rows_change_only_the_switch_in_their_name(preset: str) -> None:
    table = switches(preset)
    plan = Grid(tables=[table], preset=preset, seeds=[0])
    rows = {row.name: plan.config(row, 0).to_dict() for row in table.rows}
    plain = rows.pop(preset)
    assert plain == {**TrainConfig.from_preset(preset).to_dict()}
    assert rows.pop("genre names") == plain
    for name, config in rows.items():
        change = {**PARTS, **SWITCHES}[name.removeprefix("without ")]
        differing = {option for option in config if config[option] != plain[option]}
        assert differing == set(change), name
        if not name.startswith("without "):
            assert config == TrainConfig.from_dict(merge_options(plain, change)).to_dict()
    assert ("prior bias" in rows) == (preset == "paper")
    assert ("graph reweighted" in rows) == (preset == "paper")
    assert ("without prior bias" in rows) == (preset != "paper")


def test_rows_keep_the_model_options_of_the_ablation() -> None:
    table = switches("paper")
    plan = Grid(tables=[table], options={"model_options": {"width": 32}}, seeds=[0])
    options = {row.name: plan.config(row, 0).model_options for row in table.rows}
    assert options["genre vectors not centred"] == {"width": 32, "graph_similarity": "raw"}
    assert options["paper"] == options["asymmetric loss"] == {"width": 32}


def test_metrics_equal_those_of_scikit_learn(complete: tuple[Work, dict[str, Any]]) -> None:
    work, document = complete
    plan, scores = few_plan(2), {}
    for row in FEW.rows:
        scores[row.name] = []
        for key in (key for seed in range(2) for key in plan.keys(row, seed)):
            table = pq.read_table(work.folder / "runs" / key / "predictions.parquet").sort_by("id").to_pylist()
            genres = [name.removeprefix("score: ") for name in table[0] if name.startswith("score: ")]
            y = np.asarray([[genre in track["genres"] for genre in genres] for track in table])
            s = np.asarray([[track[f"score: {genre}"] for genre in genres] for track in table])
            scores[row.name].append((y[y.any(axis=1)], s[y.any(axis=1)]))
    metrics = row_of(document, "components", "GCEM")["metrics"]
    jaccard, reference = (
        [jaccard_score(y, s >= 0.5, average="samples", zero_division=0) for y, s in scores[name]]
        for name in ("GCEM", "all")
    )
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(jaccard))
    assert metrics["accuracy"]["sd"] == pytest.approx(np.std(jaccard, ddof=1))
    assert metrics["accuracy"]["difference"]["value"] == pytest.approx(np.mean(jaccard) - np.mean(reference))
    f1 = [f1_score(y, s >= 0.5, average="samples", zero_division=0) for y, s in scores["GCEM"]]
    assert metrics["f1"]["value"] == pytest.approx(np.mean(f1))
    precision = [
        np.mean([average_precision_score(y[:, c], s[:, c]) for c in range(y.shape[1]) if y[:, c].any()])
        for y, s in scores["GCEM"]
    ]
    assert metrics["map"]["value"] == pytest.approx(np.mean(precision))
    empty = [(s < 0.5).all(axis=1) for _, s in scores["GCEM"]]
    assert metrics["empty_share"]["value"] == pytest.approx(np.mean(empty))
    about = document["caption"]
    y, _ = scores["GCEM"][0]
    assert (about["n_test"], about["n_genres"]) == y.shape
    assert about["n_songs"] == len(y)  # every track of the store is a song of its own
    assert about["few"]


def test_json_csv_and_markdown_agree_and_show_the_published_figures(complete: tuple[Work, dict[str, Any]]) -> None:
    work, document = complete
    saved = json.loads((work.folder / "tables.json").read_text())
    assert saved["tables"] == document["tables"]
    lines = list(csv.DictReader(io.StringIO((work.folder / "tables.csv").read_text())))
    line = next(line for line in lines if (line["row"], line["metric"]) == ("SCMA", "accuracy"))
    cell = row_of(document, "components", "SCMA")["metrics"]["accuracy"]
    assert float(line["value"]) == pytest.approx(cell["value"])
    assert (line["published"], line["verdict"]) == ("0.408", SIGNIFICANCE.get(cell["verdict"], cell["verdict"]))
    page = (work.folder / "tables.md").read_text()
    shown = next(text for text in page.splitlines() if text.startswith("| SCMA |"))
    assert (cell["low"], cell["high"]) == (None, None)  # too few artists
    assert "Brackets" not in page
    wide = copy.deepcopy(saved)
    row_of(wide, "components", "SCMA")["metrics"]["accuracy"] |= {"low": 0.1, "high": 0.9}
    assert "Brackets are 95 % confidence intervals (CI) from" in markdown(wide)
    assert f"| {cell['value']:.3f} ± {cell['sd']:.3f} |" in shown
    assert shown.endswith("| 0.408 | 0.491 |")
    assert "published accuracy, Music4All" in page
    about = document["caption"]
    tested = f"{about['n_test']} test tracks; the test tracks are {about['n_songs']} songs by"
    assert f"{about['n_validation']} validation and {tested} {about['n_artists']} artists; 3 genres" in page
    assert not list(work.folder.glob("runs/*/last")) + list(work.folder.glob("runs/*/best"))


def test_plots_are_self_contained_svg_files_with_every_row(complete: tuple[Work, dict[str, Any]]) -> None:
    from xml.etree import ElementTree

    svg = (complete[0].folder / "components.svg").read_text()
    assert set(re.findall(r"var\((--\w+)\)", svg)) <= set(re.findall(r"(--\w+):", svg))  # defines its own colours
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {row.name for row in FEW.rows} | {"published, Music4All"} <= texts


def test_resume_after_sigkill_gives_identical_tables(
    small_store: FeatureStore, complete: tuple[Work, dict[str, Any]], tmp_path: Path
) -> None:
    """The first kill comes between two runs, the second within a run."""
    work = Work(folder=tmp_path / "a", store=small_store.path)
    for when, n_finished in (("1", 1), ("1 components: GCEM, seed 0, epoch 1 of 2", 1)):
        arguments = [work.store, work.folder, json.dumps(SMALL), when, torch.get_num_threads()]
        child = subprocess.run([sys.executable, "-c", CHILD, *map(str, arguments)], env=os.environ, check=False)
        assert child.returncode == -signal.SIGKILL
        sealed = {path: path.stat().st_mtime_ns for path in work.folder.glob("runs/*/result.json")}
        assert len(sealed) == n_finished
    document = ablate(work, few_plan(1), n_replicates=N_REPLICATES).to_dict()
    assert all(path.stat().st_mtime_ns == then for path, then in sealed.items())
    assert (document["caption"]["runs_finished"], document["claimed"], document["failures"]) == (3, [], [])
    reports: list[tuple[str, int]] = []
    undisturbed = ablate(
        complete[0],
        few_plan(1),
        n_replicates=N_REPLICATES,
        on_progress=lambda step, done, total, note="": reports.append((step, done)),
    ).to_dict()
    assert document["tables"] == undisturbed["tables"]
    assert [done for step, done in reports if step == "runs"] == [3] * 3  # all runs were finished
    assert row_of(undisturbed, "components", "GCEM")["metrics"]["accuracy"]["sd"] is None


def test_processes_divide_runs_and_memory_and_a_failed_run_fails_alone(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store without text can train audio-only systems only, so the other runs fail."""
    monkeypatch.setattr(workers, "free_bytes", lambda _: 2000)
    world = make_world(n_tracks=30)
    world.recipe = type(world.recipe)(mel=world.recipe.mel, lyrics=None)
    world.write(tmp_path / "s.zarr")
    work = Work(folder=tmp_path / "a", store=tmp_path / "s.zarr", keep_runs=True)
    options = {**SMALL, "epochs": 1}
    document = ablate(
        work, Grid(tables=[SYSTEMS], seeds=[0], options=options), jobs=2, n_replicates=N_REPLICATES
    ).to_dict()
    rows = {row["name"]: row for row in document["tables"][0]["rows"]}
    trained = {name for name, row in rows.items() if row["metrics"]}
    assert trained == {"majority label set", "label prior", "label frequency", "santana (reconstructed)"}
    assert "no text features" in rows["ru2023"]["note"]
    assert len(document["failures"]) == 4
    assert [len(list(work.folder.glob(f"runs/*/{name}"))) for name in ("result.json", "best")] == [1, 1]
    about = json.loads(next(work.folder.glob("runs/*/run.json")).read_text())
    assert (about["home"]["name"], about["home"]["free_bytes"]) == ("mapped", 1000)
    tracks = load_predictions(next(work.folder.glob("runs/*/result.json")).parent)
    share = rows["majority label set"]["metrics"]["accuracy"]["value"]
    sets = [
        jaccard_score(tracks.labels, np.tile(genres, (len(tracks.labels), 1)), average="samples", zero_division=0)
        for genres in np.asarray([[b >> c & 1 for c in range(3)] for b in range(1, 8)], dtype=bool)
    ]
    assert min(abs(share - value) for value in sets) < 1e-9  # the same set of genres for every track


def test_folds_test_every_track_once_and_keep_songs_together(make_world: MakeWorld, tmp_path: Path) -> None:
    world = make_world(n_tracks=36)
    for i, track in enumerate(world.tracks):
        track |= {"artists": [f"artist {i // 12}"], "song": f"song {i // 2 % 6}"}
    store = world.write(tmp_path / "s.zarr")
    folds = make_folds(store, 3, by="song")
    tested = [name for fold in folds for name in fold.split.ids["test"]]
    assert sorted(tested) == store.tracks.column("id").to_pylist()
    for fold in folds:
        assert not set(fold.split.ids["test"]) & set(fold.split.ids["train"] + fold.split.ids["validation"])
        song_of = {track["id"]: (track["artists"][0], track["song"]) for track in world.tracks}
        songs = {name: {song_of[track] for track in ids} for name, ids in fold.split.ids.items()}
        assert not songs["test"] & (songs["train"] | songs["validation"])
        assert {artist for artist, _ in songs["test"]} & {artist for artist, _ in songs["train"]}
    by_artist = make_folds(store, 3, by="artist")
    assert all(len({song_of[name][0] for name in fold.split.ids["test"]}) == 1 for fold in by_artist)
    with pytest.raises(ConfigError, match="3 groups by artist"):
        make_folds(store, 4, by="artist")
    plan = Grid(tables=[SYSTEMS], seeds=[0], options={**SMALL, "epochs": 1}, folds=folds)
    santana = next(run for run in plan.runs if run.config.model == "santana")
    assert len(plan.runs) == 3 * 5
    assert santana.key.endswith("-song-fold1of3")


def test_genre_names_row_learns_from_the_second_store(make_world: MakeWorld, tmp_path: Path) -> None:
    class Renamed(make_world):  # type: ignore[misc, valid-type]
        @staticmethod
        def name_vector(name: str) -> Any:
            return make_world.name_vector(f"the music called {name}")

    store, named = make_world(n_tracks=30).write(tmp_path / "s.zarr"), Renamed(n_tracks=30).write(tmp_path / "n.zarr")
    names = names_of(store, named)
    assert names != names_of(store, store)
    with pytest.raises(ConfigError, match="tracks, genres or recipe differ"):
        names_of(store, make_world(n_tracks=32).write(tmp_path / "o.zarr"))
    work = Work(folder=tmp_path / "a", store=store.path, names_store=named.path, keep_runs=True)
    table = switches("paper")
    rows = tuple(row for row in table.rows if row.name in ("paper", "genre names"))
    options = {**SMALL, "epochs": 1, "model_options": {**SMALL["model_options"], "graph_similarity": "raw"}}
    plan = Grid(tables=[dataclasses.replace(table, rows=rows)], seeds=[0], options=options, names=names)
    document = ablate(work, plan, n_replicates=N_REPLICATES).to_dict()
    assert [row["n_seeds"] for row in document["tables"][0]["rows"]] == [1, 1]
    graphs = {
        run.serves[0]: json.loads((work.folder / "runs" / run.key / "best" / "graph.json").read_text())
        for run in plan.runs
    }
    assert graphs["switches: paper"]["a1"] == graphs["switches: genre names"]["a1"]  # same labels
    assert graphs["switches: paper"]["a2"] != graphs["switches: genre names"]["a2"]  # other prompts
    without = ablate(work, dataclasses.replace(plan, names=None), n_replicates=N_REPLICATES).to_dict()
    assert "needs a second store" in without["tables"][0]["rows"][1]["note"]


def test_dry_run_lists_pending_runs_and_writes_nothing(
    small_store: FeatureStore, complete: tuple[Work, dict[str, Any]], tmp_path: Path
) -> None:
    forecast = dry_run(Work(folder=tmp_path / "a", store=small_store.path), few_plan(1)).to_dict()
    listed = api.ablate(
        small_store.path,
        tmp_path / "a",
        tables=["systems"],
        n_seeds=1,
        dry_run=True,
        options={**SMALL, "model_options": {}},
        settings=["width=16", "graph_hidden=16"],
    ).to_dict()
    assert set(listed["epoch_s"]) == {
        "santana, audio",
        "pandeya, both",
        "ru2023, audio",
        "ru2023, lyrics",
        "ru2023, both",
    }
    assert set(listed["timed_steps"]) == set(listed["epoch_s"])
    assert min(listed["timed_steps"].values()) >= 1
    assert not (tmp_path / "a").exists()
    assert [run["state"] for run in forecast["runs"]] == ["to do"] * 3
    assert 0 < forecast["seconds"] == pytest.approx(3 * 2 * forecast["epoch_s"]["ru2023, both"])
    again = dry_run(complete[0], few_plan(2), jobs=2).to_dict()
    assert [run["state"] for run in again["runs"]] == ["finished"] * 6
    assert again["seconds"] == 0


def test_progress_of_a_dry_run_counts_the_measured_systems(
    small_store: FeatureStore, complete: tuple[Work, dict[str, Any]], tmp_path: Path
) -> None:
    shown: list[tuple[str, int, int]] = []

    def on_progress(step: str, done: int, total: int, note: str = "") -> None:
        shown.append((step, done, total))

    plan = few_plan(2)
    assert len(plan.runs) == 6
    dry_run(Work(folder=tmp_path / "a", store=small_store.path), plan, on_progress=on_progress)
    assert shown == [("measure", 0, 1), ("measure", 1, 1)]  # all six runs are of one system
    shown.clear()
    dry_run(complete[0], plan, on_progress=on_progress)
    assert shown == []


def test_dry_run_prints_one_line_per_configuration_and_each_run_on_request(
    small_store: FeatureStore, tmp_path: Path, call: Any
) -> None:
    command = ("ablate", small_store.path, "-o", tmp_path / "a", "--dry-run", "--encoder", "tiny", "--epochs", 1)
    command += ("--set", "width=16", "--set", "graph_hidden=16", "--tables", "systems", "--seeds", 3)
    key = re.compile(r"\b[0-9a-f]{12}-seed[0-2]\b")
    n_genres = len(small_store.genres)
    short = call(*command, "--top-genres", 87).out
    assert not key.search(short)
    for row in ("ru2023", "ru2023, audio only", "ru2023, lyrics only"):
        assert len(re.findall(rf"^systems: {row} +3 +3 to do ", short, re.M)) == 1
    assert "15 runs of 5 configurations" in short
    assert "from a few steps at the present load" in short
    assert f"warning: top_genres=87: only {n_genres} genres to choose from, and all are kept" in short
    each = call(*command, "--top-genres", n_genres, "--verbose").out
    assert len(set(key.findall(each))) == 15
    assert "top_genres" not in each


def test_runs_claimed_by_other_processes_are_skipped(small_store: FeatureStore, tmp_path: Path) -> None:
    work, plan = Work(folder=tmp_path / "a", store=small_store.path), few_plan(1)
    (work.folder / "claims").mkdir(parents=True)
    with ExitStack() as others:
        for run in plan.runs:
            others.enter_context(hold(work.folder / "claims" / run.key))
        document = ablate(work, plan, shard=(1, 1)).to_dict()
    assert document["claimed"] == [run.key for run in plan.runs]
    assert {row["note"] for row in document["tables"][0]["rows"]} == {"not run yet"}
    assert not list(work.folder.glob("runs/*"))


def test_ablation_of_mgc_0_1_is_continued_under_the_new_system_name(
    small_store: FeatureStore, complete: tuple[Work, dict[str, Any]], tmp_path: Path
) -> None:
    folder = shutil.copytree(complete[0].folder, tmp_path / "ablation")
    for path in folder.glob("runs/*/result.json"):
        result = unseal(path)
        assert result["config"]["model"] == "ru2023"
        result["config"]["model"] = "ours"
        path.write_bytes(seal(result))
    sealed = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    document = ablate(dataclasses.replace(complete[0], folder=folder), few_plan(2), n_replicates=N_REPLICATES).to_dict()
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")} == sealed
    assert document["tables"] == complete[1]["tables"]
    (run,) = Grid(tables=[dataclasses.replace(SYSTEMS, rows=SYSTEMS.rows[-1:])], seeds=[0]).runs
    assert (run.serves, run.key) == (("systems: ru2023",), "44136fa355b3-seed0")  # of sha256 of "{}", as in 0.1


def test_finished_requires_intact_files_and_equal_options(
    complete: tuple[Work, dict[str, Any]], tmp_path: Path
) -> None:
    run = few_plan(1).runs[0]
    for name in ("result.json", "predictions.parquet"):
        shutil.copytree(complete[0].folder / "runs" / run.key, tmp_path / name / "runs" / run.key)
        assert finished(tmp_path / name, run) is not None
        altered = tmp_path / name / "runs" / run.key / name
        altered.write_bytes(altered.read_bytes().replace(b"rock", b"folk", 1))
        assert finished(tmp_path / name, run) is None
    other = dataclasses.replace(run, config=dataclasses.replace(run.config, device="cpu"))
    assert other.key == run.key  # the device does not change what is learned
    assert finished(complete[0].folder, other) is not None


def test_other_data_and_options_set_by_the_tables_are_refused(
    make_world: MakeWorld, complete: tuple[Work, dict[str, Any]], tmp_path: Path
) -> None:
    make_world(seed=1).write(tmp_path / "other.zarr")
    with pytest.raises(RunError, match="used other data"):
        ablate(Work(folder=complete[0].folder, store=tmp_path / "other.zarr"), few_plan(1))
    with pytest.raises(ConfigError, match="attention: set by the rows"):
        api.ablate(complete[0].store, tmp_path / "a", settings=["attention=false", "heads=1"])
    with pytest.raises(ConfigError, match="Choose from systems, components"):
        chosen_tables(["componets"])
