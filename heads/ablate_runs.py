"""The paper's ablations as a list of training runs: each configuration once, resumable run by run.

A folder holds ``ablation.json`` (the tracks it is about), ``runs/<key>/`` (a run folder each; a finished one is sealed
by ``result.json`` and keeps what the tables are computed from) and ``claims/`` (who is at work on what).
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.claims import hold
from ..cache.durable import file_sha256, replace_file, seal, unseal
from ..cache.errors import MgcError, RunError, StoreCorruptError
from ..cache.schema import canonical_json
from ..cache.store import FeatureStore
from .ablate_rows import TableSpec
from .bundle import load_run
from .checkpoint import read_sealed
from .config import TrainConfig
from .evaluate import evaluate
from .predictions import PREDICTIONS_FILE
from .task import newest_tracks
from .train import Progress, train

RESULT_FILE = "result.json"
ABOUT_FILE = "ablation.json"

_NOT_PART_OF_A_RUN = ("preset", "device", "home")
"""Options that do not decide what a run learns."""

Labels = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training run, and the table rows (``components: all``) that it serves."""

    config: TrainConfig
    serves: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of its folder: a hash of the options that are not the defaults, and the seed.

        Only what differs from the defaults counts, so that an option added to mgc later does not orphan results.
        """
        return run_key(self.config)


def run_key(config: TrainConfig) -> str:
    """See :attr:`PlannedRun.key`."""
    defaults, values = TrainConfig().to_dict(), config.to_dict()
    told = {name: value for name, value in values.items() if value != defaults[name] and name not in _NOT_PART_OF_A_RUN}
    told.pop("seed", None)
    return f"{hashlib.sha256(canonical_json(told)).hexdigest()[:12]}-seed{config.seed}"


def row_config(preset: str | None, options: Mapping[str, Any], row: Mapping[str, Any], seed: int) -> TrainConfig:
    """The options of the whole ablation, then those of the row."""
    return TrainConfig.from_preset(preset, **{**options, **row, "seed": seed})


def plan_runs(
    tables: Sequence[TableSpec], *, preset: str | None, options: Mapping[str, Any], seeds: Sequence[int]
) -> list[PlannedRun]:
    """The runs that fill `tables`, equal configurations once; all of one seed before the next.

    Seeds come last so that whole tables, of fewer seeds, are there early.
    """
    planned: dict[str, PlannedRun] = {}
    for seed in seeds:
        for table in tables:
            for row in table.rows:
                config = row_config(preset, options, row.options, seed)
                name, key = f"{table.name}: {row.name}", run_key(config)
                known = planned.get(key)
                serves = (name,) if known is None else (*known.serves, name)
                planned[key] = PlannedRun(config=config, serves=serves)
    return list(planned.values())


def open_folder(folder: Path, store: FeatureStore, labels: Labels | None = None) -> None:
    """Make the ablation's folder, or see that what is in it is about the same tracks.

    Raises
    ------
    RunError
        If its results are of other features, tracks or labels.
    """
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "claims").mkdir(exist_ok=True)
    tracks = newest_tracks(store, labels).select(["id", "artists", "genres", "split", "source_sha256", "lyrics_sha256"])
    about = {
        "store": store.path.name,
        "fingerprints": dict(store.fingerprints),
        "n_tracks": len(tracks),
        "tracks_sha256": hashlib.sha256(canonical_json(tracks.to_pylist())).hexdigest(),
    }
    path = folder / ABOUT_FILE
    if not path.exists():
        replace_file(path, seal(about))
        return
    known = read_sealed(path)
    differences = [name for name in about if name != "store" and known.get(name) != about[name]]
    if differences:
        raise RunError(f"{folder}: its runs are of other data than {store.path} ({', '.join(differences)} differ); "
                       "give another folder, or the store it was begun with")  # fmt: skip


def finished(folder: Path, run: PlannedRun) -> dict[str, Any] | None:
    """The sealed result of a run; None where it is not finished, was altered, or was made by other options."""
    home = folder / "runs" / run.key
    try:
        result = unseal(home / RESULT_FILE)
        whole = file_sha256(home / PREDICTIONS_FILE) == result["predictions_sha256"]
    except (OSError, StoreCorruptError, KeyError):
        return None
    now, then = run.config.to_dict(), result["config"]
    same = all(then.get(name, now[name]) == now[name] for name in now if name not in _NOT_PART_OF_A_RUN)
    return result if whole and same else None


def perform(
    folder: Path,
    run: PlannedRun,
    store: FeatureStore,
    *,
    labels: Labels | None = None,
    keep_run: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Train, or go on training, one run; score its test tracks; seal the result; drop its checkpoints.

    Raises
    ------
    RunError, ConfigError, TrainingError
    """
    home = folder / "runs" / run.key
    trained = train(store, home, run.config, labels=labels, resume=True, on_progress=on_progress)
    evaluation = evaluate(home, store, labels=labels, n_replicates=0, device=run.config.device)
    loaded = load_run(home)
    result = {
        "config": run.config.to_dict(),
        "split": trained.task.split.policy,
        "n_train": loaded.n_train,
        "n_validation": len(trained.task.examples) - trained.task.n_train,
        "n_test": evaluation["n_tracks"],
        "n_test_left_out": evaluation["n_left_out"],
        "genres": list(loaded.genres),
        "trivial": {
            "label_prior": (loaded.train_counts / max(1, loaded.n_train)).tolist(),
            "majority": loaded.majority.astype(float).tolist(),
        },
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "seconds": round(sum(record.seconds for record in trained.history), 2),
        "n_parameters": trained.n_parameters,
        "device": trained.device,
        "precision": trained.precision,
        "warnings": [*trained.warnings, *evaluation["warnings"]],
        "predictions_sha256": evaluation["predictions_sha256"],
    }
    replace_file(home / RESULT_FILE, seal(result))
    if not keep_run:
        drop_checkpoints(home)
    return result


def drop_checkpoints(home: Path) -> None:
    """What only a run to be continued, or a model to be used, needs."""
    for name in ("last", "best"):
        shutil.rmtree(home / name, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that could not be trained, and why."""

    key: str
    serves: tuple[str, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def perform_all(
    folder: Path,
    runs: Sequence[PlannedRun],
    store: FeatureStore,
    *,
    labels: Labels | None = None,
    keep_runs: bool = False,
    on_run: Callable[[PlannedRun, Progress | None], None] | None = None,
) -> tuple[list[Failure], list[PlannedRun]]:
    """Perform what is not finished and not claimed by another process.

    Parameters
    ----------
    on_run : told each run's progress, and None once it is finished (those that were before, too).

    Returns
    -------
    failures : runs that cannot be trained; the others go on without them.
    claimed : runs that others are at work on.
    """
    tell = on_run or (lambda run, progress: None)
    failures, claimed = [], []
    for run in runs:
        if finished(folder, run) is None:
            with hold(folder / "claims" / run.key) as mine:
                if not mine:
                    claimed.append(run)
                    continue
                if finished(folder, run) is None:  # another process may have ended it just before
                    try:
                        perform(folder, run, store, labels=labels, keep_run=keep_runs,
                                on_progress=lambda progress, run=run: tell(run, progress))  # type: ignore[misc] # fmt: skip
                    except MgcError as error:
                        failures.append(Failure(key=run.key, serves=run.serves, reason=str(error)))
                        continue
        if not keep_runs:
            drop_checkpoints(folder / "runs" / run.key)  # where a kill fell between sealing and dropping
        tell(run, None)
    return failures, claimed
