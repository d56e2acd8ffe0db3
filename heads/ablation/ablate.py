"""The paper's tables from one store: plan the runs, perform what is not finished, tabulate what is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..training.dry_run import dry_run as time_steps
from .grid import Grid, GridRun
from .results import tabulate
from .runs import Failure, finished, open_folder
from .workers import Work, perform_all


def ablate(
    work: Work,
    grid: Grid,
    *,
    jobs: int = 1,
    shard: tuple[int, int] | None = None,
    training: bool = True,
    n_replicates: int = 1000,
    stop: Callable[[], bool] | None = None,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Fill the tables of `grid`, or go on filling them.

    Parameters
    ----------
    work : where the runs are; a run of the same configuration is taken as it is, one cut off is resumed.
    jobs : processes.
    shard : (i, n): perform every n-th run only, from the i-th on (counted from 1), and wait for nobody.
    training : False tabulates what is finished.
    n_replicates : of the bootstrap.
    stop : asked again and again; once it says True, runs save where they are, and it ends.
    on_progress : receives runs finished, and the epoch of the run at work.

    Returns
    -------
    dict
        See :func:`mgc.heads.ablation.results.tabulate`; and ``claimed``, the runs that other processes are at work on.

    Raises
    ------
    ConfigError, RunError, SaveError, StoppedError
    """
    runs = grid.runs if shard is None else grid.runs[shard[0] - 1 :: shard[1]]
    failures: list[Failure] = []
    claimed: list[GridRun] = []
    with FeatureStore.open(work.store, text=work.text) as store:
        open_folder(work.folder, store, work.labels)
        if training:
            counter = _RunCounter(work.folder, grid.runs, on_progress)
            failures, claimed = perform_all(
                work, runs, jobs=jobs, wait_for_others=shard is None, stop=stop, on_run=counter
            )
        document = tabulate(
            work.folder,
            grid,
            store,
            labels=work.labels,
            failures=failures,
            n_replicates=n_replicates,
            on_progress=on_progress,
        )
    return {**document, "claimed": [run.key for run in claimed]}


class _RunCounter:
    """Counts the runs that are finished, with the epoch of the one at work as a note."""

    def __init__(self, folder: Path, runs: list[GridRun], on_progress: Progress) -> None:
        self._finished = {run.key for run in runs if finished(folder, run) is not None}
        self._total, self._on_progress = len(runs), on_progress

    def __call__(self, run: GridRun, epoch: str | None) -> None:
        if epoch is None:
            self._finished.add(run.key)
        self._on_progress("runs", len(self._finished), self._total, "" if epoch is None else f"{run.title}, {epoch}")


def dry_run(work: Work, grid: Grid, *, jobs: int = 1, on_progress: Progress = silent) -> dict[str, Any]:
    """List the runs and estimate their time from a few real steps of each system; writes nothing in the folder.

    Returns
    -------
    dict
        JSON values: ``runs`` (key, what it fills, seed, fold, state, seconds left), ``epoch_s`` by system and
        modalities, ``seconds`` left in all, shared out to `jobs`.
    """
    epoch_s: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    with FeatureStore.open(work.store, text=work.text) as store:
        for i, run in enumerate(grid.runs):
            system = f"{run.config.model}, {run.config.modalities}"
            state = "begun" if (work.folder / "runs" / run.key).exists() else "to do"
            if finished(work.folder, run) is not None:
                state = "finished"
            elif system not in epoch_s:
                on_progress("measure", i, len(grid.runs), run.title)
                epoch_s[system] = time_steps(store, run.config, labels=work.labels).epoch_s
            rows.append(
                {
                    "key": run.key,
                    "fills": list(run.serves),
                    "seed": run.config.seed,
                    "fold": None if run.fold is None else run.fold.number,
                    "state": state,
                    "seconds": 0.0 if state == "finished" else run.config.epochs * epoch_s[system],
                }
            )
    return {"runs": rows, "epoch_s": epoch_s, "jobs": jobs, "seconds": sum(row["seconds"] for row in rows) / jobs}
