"""The paper's tables on two benchmark worlds, under each preset: make a world, train everything, print the results.

    python -m benchmarks.tables.paper run [UNIT...] [--world plain|kin] [--folder tables] [--processes 2]
    python -m benchmarks.tables.paper report > benchmarks/tables/paper.md

`run` without UNIT performs all, which takes about twenty hours on two cores; a repeated call continues.
FOLDER holds the songs of the worlds, their stores and the runs; what a finished unit has found goes to
benchmarks/tables/results/<world>-<unit>.json, of which `report` makes the page. `make tables` does both. The text about
the tables, benchmarks/tables/paper_reading.txt, is written by hand and cites only printed figures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.machine import ROOT, describe, print_heading
from benchmarks.tables import frozen_cnn
from benchmarks.tables.world import CLIP_S, N_SONGS, SEED, label_sets, make_store, print_world
from benchmarks.worlds.songs import BenchmarkWorld
from mgc import api
from mgc.cache.durable import replace_file
from mgc.cache.reading.store import FeatureStore
from mgc.heads.ablation.ablate import ablate
from mgc.heads.ablation.grid import Grid
from mgc.heads.ablation.paper_tables import PARTS, Row, TableSpec, chosen_tables, switches
from mgc.heads.ablation.runs import Work, names_of
from mgc.heads.config import PRESETS, TrainConfig
from mgc.heads.data.task import prepare
from mgc.heads.model.config import Conditional, GraphOptions, Normalisation
from mgc.heads.model.graph import build_adjacency, graph_summary
from mgc.heads.model.model import build_system
from mgc.pipeline.sources.label_tables import genre_names
from mgc.reports.ablation import markdown

READING = Path(__file__).parent / "paper_reading.txt"
RESULTS = Path(__file__).parent / "results"
SEEDS = 3
OPTIONS: Mapping[str, Any] = {
    "encoder": "tiny",
    "epochs": 10,
    "batch_size": 16,
    "lr": 1e-3,
    "lr_halve_every": 3,
    "split": "manifest",
    "device": "cpu",
    "precision": "fp32",
}
WORLDS: Mapping[str, bool] = {"plain": False, "kin": True}
"""Worlds by name, and whether co-occurring genres have similar audio."""
TEXT_DIM, N_GENRES = 384, 87


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Tables that are trained together.

    Attributes
    ----------
    preset : of all rows; None where rows name their own.
    tables : names of the tables of `mgc ablate`, or functions that make others.
    frozen : whether the audio CNN is frozen (benchmarks/tables/frozen_cnn.py), so that a run takes seconds.
    """

    preset: str | None
    tables: tuple[str | Callable[[], TableSpec], ...]
    frozen: bool = False

    def grid(self, names: str | None) -> Grid:
        tables = [
            table() if callable(table) else chosen_tables([table], preset=self.preset)[0] for table in self.tables
        ]
        taken = {option for table in tables for row in table.rows for option in row.options}
        shared = {name: value for name, value in OPTIONS.items() if name not in taken}
        if self.frozen:
            shared["audio"] = frozen_cnn.NAME
        return Grid(tables=tables, preset=self.preset, options=shared, seeds=range(SEEDS), names=names)


def presets() -> TableSpec:
    """Each preset as a row."""
    rows = tuple(Row(name=name, options={**PRESETS[name], **OPTIONS}) for name in PRESETS)
    return TableSpec(name="presets", title="Presets", reference="default", rows=rows)


def steps() -> TableSpec:
    """Each preset with a high and a low learning rate, for few epochs and for many."""
    rows = [
        Row(
            name=f"{name}, learning rate {lr:g}, {epochs} epochs",
            options={**PRESETS[name], **OPTIONS, "lr": lr, "epochs": epochs, "lr_halve_every": -(-epochs * 3 // 10)},
        )
        for name in PRESETS
        for epochs in (10, 40)
        for lr in (1e-4, 1e-3)
    ]
    reference = next(row.name for row in rows if row.name.startswith("default, learning rate 0.001, 10"))
    return TableSpec(name="steps", title="Learning rate and epochs", reference=reference, rows=tuple(rows))


def heads() -> TableSpec:
    """The three heads, and a linear head with as many parameters as the query head, under the default preset."""
    rows = (
        Row(name="linear", options={"head": "linear"}),
        Row(name="linear, as large as query", options={"head": "linear", "model_options": {"width": matched_width()}}),
        Row(name="graph", options={"head": "graph"}),
        Row(name="query", options={"head": "query"}),
        Row(name="query, no cross-modal attention", options={"head": "query", "attention": False}),
    )
    return TableSpec(name="heads", title="Heads", reference="linear, as large as query", rows=rows)


def matched_width() -> int:
    """Return the smallest width at which a model with a linear head has as many parameters as one with a query head."""

    def size(**options: Any) -> int:
        config = TrainConfig.from_preset("default", encoder=OPTIONS["encoder"], **options)
        return build_system(config.model_config(n_genres=N_GENRES, text_dim=TEXT_DIM, n_mels=128)).n_parameters

    target, width = size(head="query"), 256
    while size(head="linear", model_options={"width": width}) < target:
        width += 8
    return width


def parts() -> TableSpec:
    """The default preset with each component toggled alone."""
    table = switches("default")
    names = {"default", *PARTS, *(f"without {name}" for name in PARTS)}
    rows = tuple(row for row in table.rows if row.name in names)
    return replace(table, name="parts", title="Each component, toggled alone", rows=rows)


UNITS: Mapping[str, Unit] = {
    "presets": Unit(preset=None, tables=(presets,)),
    "default": Unit(preset="default", tables=("systems", parts)),
    "heads": Unit(preset="default", tables=(heads,)),
    "paper-tuned": Unit(preset="paper-tuned", tables=("systems", "components")),
    "paper": Unit(preset="paper", tables=("systems", "components")),
    "default-switches": Unit(preset="default", tables=("switches",), frozen=True),
    "paper-tuned-switches": Unit(preset="paper-tuned", tables=("switches",), frozen=True),
    "paper-switches": Unit(preset="paper", tables=("switches",), frozen=True),
    "lambda": Unit(preset="paper", tables=("lambda",), frozen=True),
    "lambda-sum": Unit(preset="paper-tuned", tables=("lambda-sum",), frozen=True),
    "steps": Unit(preset=None, tables=(steps,), frozen=True),
}


def world_of(name: str) -> BenchmarkWorld:
    return BenchmarkWorld(labels=label_sets(), seed=SEED, kin=WORLDS[name])


def run(folder: Path, world: str, units: list[str], processes: int) -> int:
    """Make a world and its store, train units on it, and keep their results; return the exit status."""
    labels = label_sets()
    print(f"genre sets: {labels.origin}", file=sys.stderr, flush=True)
    store = make_store(folder / world, world_of(world), N_SONGS, clip_s=CLIP_S, workers=processes)
    named = None
    if set(genre_names("common")) & set(labels.genres):
        named = folder / world / "named.zarr"
        if not named.exists():
            api.store_select(store, named, genre_names="common", text_model="minilm")
    with FeatureStore.open(store) as features:
        names = None
        if named is not None:
            with FeatureStore.open(named) as renamed:
                names = names_of(features, renamed, None)
        keep(world, "graphs", graphs(features))
    trained = Work(folder=folder / world / "runs", store=store, names_store=named)
    frozen = None
    for unit in units:
        if UNITS[unit].frozen and frozen is None:
            copy = frozen_cnn.store_with_frozen_cnn(store, folder / world / "world" / "tracks.jsonl", OPTIONS)
            frozen = Work(folder=folder / world / "runs-frozen", store=copy, added_audio=(frozen_cnn.NAME,))
        work = frozen if UNITS[unit].frozen and frozen is not None else trained
        found = ablate(work, UNITS[unit].grid(None if work is frozen else names), jobs=processes).to_dict()
        if found["failures"]:
            print(json.dumps(found["failures"], indent=1), file=sys.stderr)
            return 1
        keep(world, unit, found)
        print(f"{world}, {unit}: done", file=sys.stderr, flush=True)
    return 0


def keep(world: str, unit: str, found: Mapping[str, Any]) -> None:
    """Write what a unit has found, where and with which code."""
    document = {"machine": describe(), "code": commit(), "tables": found}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(RESULTS / f"{world}-{unit}.json", (text + "\n").encode())


def graphs(store: FeatureStore) -> dict[str, Any]:
    """Describe the genre graph of the training tracks, by its options."""
    task = prepare(store, TrainConfig(**OPTIONS))
    assert task.genre_embedding is not None
    found = {}
    for normalisation in get_args(Normalisation):
        for conditional in get_args(Conditional):
            options = GraphOptions(normalisation=normalisation, conditional=conditional)
            graph = build_adjacency(task.train_labels, task.genre_embedding, options)
            found[f"{normalisation}, {conditional}"] = {
                **graph_summary(graph, task.genres.names),
                "most_frequent": graph.self_weight[np.argsort(-graph.counts, kind="stable")[:5]].tolist(),
            }
    return found


def print_graphs(found: Mapping[str, Any]) -> None:
    """Print how far each graph keeps genres apart."""
    print(
        "\n## Genre graphs\n\nShare of its own weight that a genre keeps in its row of A_hat, by frequency; condition "
        "number and effective rank (of 87) of A_hat applied twice, as in the model.\n\n"
        "| graph, Eq. 2 | five most frequent | frequent half | rare half | condition number | effective rank |\n"
        "|---|---|---|---|---|---|"
    )
    for name, summary in found.items():
        low, high = min(summary["most_frequent"]), max(summary["most_frequent"])
        own, condition = summary["self_weight"], summary["condition_number"]
        shown = "infinite" if condition is None else f"{condition:.0f}"
        print(
            f"| {name} | {low:.3f} to {high:.3f} | {own['frequent']:.3f} | {own['rare']:.3f} | {shown} | "
            f"{summary['effective_rank']:.1f} |"
        )


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def report() -> None:
    """Print the page."""
    print_heading(
        "The paper's tables on the benchmark worlds",
        __file__,
        f". The worlds are made by our own code (docs/design/004): {N_SONGS} songs of {CLIP_S:g} s. None of this is a "
        "result on music. Each unit lists machine and date of its training.",
        torch_version=torch.__version__,
    )
    if READING.exists():
        print(READING.read_text(encoding="utf-8"))
    for world in WORLDS:
        print(f"# The world `{world}`\n")
        print_world(world_of(world), world_of(world).songs(N_SONGS), with_ceilings=True)
        if (RESULTS / f"{world}-graphs.json").exists():
            print_graphs(json.loads((RESULTS / f"{world}-graphs.json").read_text())["tables"])
        for unit in UNITS:
            file = RESULTS / f"{world}-{unit}.json"
            if not file.exists():
                print(f"\n## `{unit}`\n\nNot run yet.")
                continue
            found = json.loads(file.read_text())
            cnn = " The audio CNN is frozen: trained on audio alone, with seed 0." if UNITS[unit].frozen else ""
            print(f"\n## `{unit}`\n\nTrained on {found['machine']}, commit {found['code']}.{cnn}\n")
            print(markdown(found["tables"]).partition("\n")[2].replace("\n## ", "\n### "))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("units", nargs="*", choices=[[], *UNITS])
    parser.add_argument("--world", choices=list(WORLDS))
    parser.add_argument("--folder", type=Path, default=Path("tables"))
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.action == "report":
        report()
        return 0
    for world in WORLDS if options.world is None else [options.world]:
        if status := run(options.folder, world, options.units or list(UNITS), options.processes):
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
