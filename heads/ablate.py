"""The paper's tables from one store: plan the runs, perform what is not finished, tabulate what is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.errors import ConfigError
from ..cache.store import FeatureStore
from .ablate_report import tabulate
from .ablate_rows import chosen_tables
from .ablate_runs import Labels, PlannedRun, finished, open_folder, perform_all, plan_runs
from .train import Progress

DEFAULT_TABLES = ("components", "lambda")


def ablate(
    store: FeatureStore,
    folder: Path,
    *,
    tables: Sequence[str] = DEFAULT_TABLES,
    n_seeds: int = 3,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    labels: Labels | None = None,
    shard: tuple[int, int] | None = None,
    keep_runs: bool = False,
    n_replicates: int = 1000,
    on_progress: Callable[[str, int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Fill the paper's tables, or go on filling them.

    Parameters
    ----------
    folder : what is there of the same configurations is taken as it is; a run cut off is resumed.
    tables : names of :data:`mgc.heads.ablate_rows.TABLES`.
    n_seeds : runs of each configuration, with seeds 0, 1, ...; all share one split.
    preset, options : of :class:`mgc.heads.config.TrainConfig`, for every run; a row's own come on top.
    labels : genres by track id instead of the store's own.
    shard : (i, n): perform every n-th run only, from the i-th on (counted from 1).
    keep_runs : keep checkpoints and models of finished runs.
    n_replicates : of the bootstrap.
    on_progress : told step, done, total and a note.

    Returns
    -------
    dict
        See :func:`mgc.heads.ablate_report.tabulate`; and ``claimed``, the runs that other processes are at work on.

    Raises
    ------
    ConfigError, RunError
    """
    options = dict(options or {})
    if n_seeds < 1:
        raise ConfigError(f"seeds {n_seeds}: want at least one")
    if taken := sorted({"seed", "lambda_", "contrastive", "attention", "graph", "modalities"} & set(options)):
        raise ConfigError(f"{', '.join(taken)}: the tables set these themselves")
    specs, seeds = chosen_tables(tables), range(n_seeds)
    runs = plan_runs(specs, preset=preset, options=options, seeds=seeds)
    open_folder(folder, store, labels)
    mine = runs if shard is None else runs[shard[0] - 1 :: shard[1]]
    tell = on_progress or (lambda *_: None)
    failures, claimed = perform_all(
        folder, mine, store, labels=labels, keep_runs=keep_runs, on_run=_Teller(folder, runs, tell)
    )
    document = tabulate(
        folder, specs, runs, store, preset=preset, options=options, seeds=seeds, labels=labels, failures=failures,
        n_replicates=n_replicates, on_system=lambda done, total: tell("tables", done, total, ""),
    )  # fmt: skip
    return {**document, "claimed": [run.key for run in claimed]}


class _Teller:
    """Progress over the runs, with the epochs of the one at work in the note."""

    def __init__(self, folder: Path, runs: Sequence[PlannedRun], tell: Callable[[str, int, int, str], None]) -> None:
        self._done = {run.key for run in runs if finished(folder, run) is not None}
        self._total, self._tell = len(runs), tell

    def __call__(self, run: PlannedRun, progress: Progress | None) -> None:
        if progress is None:
            self._done.add(run.key)
            self._tell("runs", len(self._done), self._total, "")
        elif progress.record is not None:
            note = f"{run.serves[0]}, seed {run.config.seed}, epoch {progress.epoch} of {progress.total}"
            self._tell("runs", len(self._done), self._total, note)
