"""Fill the paper's tables from one store: plan the runs, perform the unfinished ones, tabulate the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...cache.errors import ConfigError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..data.labels import GenresById
from ..data.task import select
from ..model.config import MEL
from ..results import Result
from ..training.dry_run import DryRun
from ..training.dry_run import dry_run as time_steps
from .grid import Grid, GridRun
from .results import Ablation, tabulate
from .runs import Failure, Work, finished, open_folder
from .workers import perform_all


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
) -> Ablation:
    """Fill the tables of `grid`, or continue to fill them.

    Parameters
    ----------
    work : store and folder of the runs. Finished runs of the same configuration are reused; interrupted runs are
        resumed.
    jobs : number of processes.
    shard : (i, n): perform every n-th run only, starting with the i-th (counted from 1), and do not wait for other
        processes.
    training : False tabulates the finished runs without training.
    n_replicates : number of bootstrap replicates.
    stop : polled during training. Once it returns True, runs save their state and `ablate` raises ``StoppedError``.
    on_progress : receives the number of finished runs, and the epoch of the current run.

    Raises
    ------
    ConfigError, RunError, SaveError, StoppedError
    """
    runs = grid.runs if shard is None else grid.runs[shard[0] - 1 :: shard[1]]
    failures: list[Failure] = []
    claimed: list[GridRun] = []
    with work.open() as store:
        if training:
            refuse_empty_splits(store, grid, work.labels)
        open_folder(work.folder, store, work.labels)
        if training:
            finished_keys = {run.key for run in grid.runs if finished(work.folder, run) is not None}

            def count_run(run: GridRun, epoch: str | None) -> None:
                if epoch is None:
                    finished_keys.add(run.key)
                note = "" if epoch is None else f"{run.title}, {epoch}"
                on_progress("runs", len(finished_keys), len(grid.runs), note)

            failures, claimed = perform_all(
                work, runs, jobs=jobs, wait_for_others=shard is None, stop=stop or (lambda: False), on_run=count_run
            )
        return tabulate(
            work, grid, store, failures=failures, claimed=claimed, n_replicates=n_replicates, on_progress=on_progress
        )


def refuse_empty_splits(store: FeatureStore, grid: Grid, labels: GenresById | None) -> None:
    """Check that validation and test split have tracks, before any run is trained.

    Raises
    ------
    ConfigError
        If one of them is empty. Folds have their own check.
    """
    if grid.folds:
        return
    chosen = select(store, grid.runs[0].config, labels=labels)
    sizes = {name: len(positions) for name, positions in chosen.positions.items()}
    for name in ("validation", "test"):
        if not sizes[name]:
            raise ConfigError(
                f"{store.path}: no {name} track is left (split {chosen.split.policy}, tracks with a kept genre: "
                f"{', '.join(f'{name} {size}' for name, size in sizes.items())}). Use --folds 5 or another --split, or "
                "keep more genres."
            )


@dataclass(frozen=True, kw_only=True)
class PlannedRun(Result):
    """A run, the table rows that it fills, its state (``to do``, ``begun``, ``finished``) and its remaining seconds."""

    key: str
    fills: tuple[str, ...]
    seed: int
    fold: int | None
    state: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class AblationForecast(Result):
    """The runs, and an estimate of the remaining `seconds` of training with `jobs` processes.

    Attributes
    ----------
    epoch_s, timed_steps : by system, modalities and audio inputs: the seconds per epoch, and the number of steps behind
        them.
    warnings : of the tracks and genres that the runs use.
    """

    runs: list[PlannedRun]
    epoch_s: dict[str, float]
    timed_steps: dict[str, int]
    jobs: int
    seconds: float
    warnings: list[str]


def dry_run(work: Work, grid: Grid, *, jobs: int = 1, on_progress: Progress = silent) -> AblationForecast:
    """List the runs and estimate their time from a few real steps of each system, without writing to the folder."""
    finished_keys = {run.key for run in grid.runs if finished(work.folder, run) is not None}
    systems: dict[str, GridRun] = {}
    for run in grid.runs:
        if run.key not in finished_keys:
            systems.setdefault(_system(run), run)
    timed: dict[str, DryRun] = {}
    with work.open() as store:
        for system, run in systems.items():
            on_progress("measure", len(timed), len(systems), system)
            timed[system] = time_steps(store, run.config, labels=work.labels)
    if systems:
        on_progress("measure", len(systems), len(systems))
    runs: list[PlannedRun] = []
    for run in grid.runs:
        state, seconds = "finished", 0.0
        if run.key not in finished_keys:
            state = "begun" if (work.folder / "runs" / run.key).exists() else "to do"
            measured = timed[_system(run)]
            seconds = run.config.settled(measured.task.n_train).n_epochs * measured.epoch_s
        fold = None if run.fold is None else run.fold.number
        runs.append(
            PlannedRun(key=run.key, fills=run.serves, seed=run.config.seed, fold=fold, state=state, seconds=seconds)
        )
    return AblationForecast(
        runs=runs,
        epoch_s={system: measured.epoch_s for system, measured in timed.items()},
        timed_steps={system: measured.timed_steps for system, measured in timed.items()},
        jobs=jobs,
        seconds=sum(run.seconds for run in runs) / jobs,
        warnings=list(dict.fromkeys(warning for measured in timed.values() for warning in measured.warnings)),
    )


def _system(run: GridRun) -> str:
    """Return system, modalities and audio inputs, which decide the duration of a step."""
    audio = "" if run.config.audio == (MEL,) else f", {' + '.join(run.config.audio)}"
    return f"{run.config.model}, {run.config.modalities}{audio}"
