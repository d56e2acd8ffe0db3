"""Command that fills the tables of the paper: ablate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..cache.messages import counted, duration
from ..heads.metrics.names import ABLATION_METRICS
from . import api
from .console import Terminal, estimate, number, print_table, split_names, to_stdout
from .options import Config, StoreArgument, parse_shard, verbose_flags
from .signals import stopping_gently
from .training import label_flags, learning_flags, without_none


def ablate(
    *,
    store: StoreArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to create or continue.", show_default=False)],
    tables: Annotated[
        str | None,
        typer.Option(
            help="Tables: systems, components, lambda, lambda-sum, switches, audio (comma-separated).",
            show_default="systems, components, lambda, switches",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per configuration.")] = 3,
    folds: Annotated[
        int | None, typer.Option(min=3, help="Cross-validation in N pooled folds, for small collections.")
    ] = None,
    fold_by: Annotated[Literal["artist", "song"], typer.Option(help="Group that stays within one fold.")] = "artist",
    names_store: Annotated[
        Path | None,
        typer.Option(
            "--genre-names-store", metavar="STORE", help="Store of the same tracks with other genre name prompts."
        ),
    ] = None,
    labelled: Annotated[dict[str, Any], label_flags],
    learning: Annotated[dict[str, Any], learning_flags],
    lr_halve_every: Annotated[
        int | None, typer.Option(min=1, help="Halve the learning rate every N epochs.", show_default="50")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel processes; if more than one, one thread each.")] = 1,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Train every N-th run from the I-th, for job arrays.")
    ] = None,
    no_train: Annotated[
        bool, typer.Option("--no-train", help="Write the tables of finished runs; train nothing.")
    ] = False,
    keep_runs: Annotated[
        bool, typer.Option("--keep-runs", help="Keep models and checkpoints of finished runs.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List configurations (--verbose: runs) and estimate their duration."),
    ] = False,
    config: Config = None,
    terminal: Annotated[Terminal, verbose_flags],
) -> None:
    """Train the systems of the paper's tables on a store, and list the published numbers.

    The same command continues an interrupted ablation.

    Examples:
      mgc ablate m4a.zarr -o ablation --preset paper
      mgc ablate songs.zarr -o small --folds 5 --encoder tiny --epochs 20
    """
    learning["options"] |= without_none({"lr_halve_every": lr_halve_every})
    with stopping_gently() as stop, terminal.progress() as steps:
        result = api.ablate(
            store,
            output,
            tables=None if tables is None else split_names(tables),
            n_seeds=seeds,
            n_folds=folds,
            fold_by=fold_by,
            names_store=names_store,
            **labelled,
            **learning,
            jobs=jobs,
            shard=parse_shard(shard),
            training=not no_train,
            keep_runs=keep_runs,
            dry_run=dry_run,
            stop=stop,
            on_progress=steps,
        ).to_dict()
    if dry_run:
        terminal.emit(result, lambda: print_planned_runs(result, each=terminal.verbose))
        return
    terminal.emit(result, lambda: print_ablation(result))
    if result["failures"]:
        raise typer.Exit(3)


def print_planned_runs(result: Mapping[str, Any], *, each: bool) -> None:
    """Print the runs of a dry run: one line per configuration, or `each` run."""
    runs = result["runs"]
    configurations: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        configurations.setdefault("; ".join(run["fills"]), []).append(run)
    if each:
        cells = [
            (run["key"], rows, run["seed"], run["fold"], run["state"], duration(run["seconds"]))
            for rows, same in configurations.items()
            for run in same
        ]
        print_table("runs", ("run", "table: row", "seed", "fold", "state", "duration"), cells)
    else:
        counts = [
            (
                rows,
                len({run["seed"] for run in same}),
                len({run["fold"] for run in same} - {None}) or None,
                ", ".join(f"{n} {state}" for state, n in Counter(run["state"] for run in same).items()),
                duration(sum(run["seconds"] for run in same)),
            )
            for rows, same in configurations.items()
        ]
        print_table("configurations", ("table: row", "seeds", "folds", "runs", "duration"), counts)
    for text in (*result["remarks"], *(f"warning: {warning}" for warning in result["warnings"])):
        to_stdout(text)
    for system, seconds in result["epoch_s"].items():
        steps = counted(result["timed_steps"][system], "step")
        to_stdout(f"{system}: about {seconds:.1f} s per epoch (from {steps})")
    jobs = "" if result["jobs"] == 1 else f" in {result['jobs']} jobs"
    to_stdout(
        f"{counted(len(runs), 'run')} of {counted(len(configurations), 'configuration')}, about "
        f"{duration(result['seconds'])} of training left{jobs}"
    )
    if result["epoch_s"]:
        to_stdout(
            "The estimate is from a few steps at the present load of this machine, so it is rough. It excludes reading "
            "the features, and the evaluation of each run."
        )
    to_stdout("nothing was written")


def print_ablation(result: Mapping[str, Any]) -> None:
    names = ("accuracy", "f1", "accuracy_tuned", "map", "empty_share")
    short = [ABLATION_METRICS[name].name.removeprefix("accuracy, ") for name in names]
    for table in result["tables"]:
        published = any(row["published"] for row in table["rows"])
        heads = [*short, f"accuracy - {table['reference']}", ""]
        heads += ["published", "published F"] if published else []
        rows = []
        for row in table["rows"]:
            cells, paper = row["metrics"], row["published"] or {}
            difference = (cells.get("accuracy") or {}).get("difference")
            accuracy = ("", "") if difference is None else (estimate(difference), cells["accuracy"]["verdict"])
            rows.append([row["name"], *(number(cells[name]["value"]) if name in cells else "-" for name in names)])
            rows[-1] += [*accuracy, *([paper.get("accuracy"), paper.get("f1")] if published else [])]
        print_table(table["title"], ("", *heads), rows)
    about = result["caption"]
    to_stdout(f"{about['runs_finished']} of {counted(about['runs'], 'run')} finished")
    for warning in about.get("warnings", ()):
        to_stdout(f"warning: {warning}")
    if result["claimed"]:
        claimed = counted(len(result["claimed"]), "run")
        to_stdout(f"{claimed} in progress in other processes. Repeat the command for their rows.")
    for failure in result["failures"]:
        to_stdout(f"failed: {', '.join(failure['serves'])}: {failure['reason']}")
    for remark in result["remarks"]:
        to_stdout(remark)
    to_stdout(f"written: {', '.join(result['files'])}")
