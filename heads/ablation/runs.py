"""The runs of an ablation's folder: what is finished, and how one more gets finished.

A folder holds ``ablation.json`` (the tracks it is about), ``runs/<key>/`` (a run folder each; a finished one is sealed
by ``result.json`` and keeps what the tables are computed from) and ``claims/`` (who is at work on what).
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from ...cache.claims import hold
from ...cache.durable import canonical_json, file_sha256, replace_file, seal, unseal
from ...cache.errors import ConfigError, RunError, StoreCorruptError, TrainingError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..data.task import ok_tracks
from ..evaluation.evaluate import evaluate
from ..evaluation.scored_tracks import PREDICTIONS_FILE
from ..runs.checkpoint import read_sealed
from ..runs.published_model import load_run
from ..training.train import train
from .grid import NOT_PART_OF_A_RUN, PlannedRun

RESULT_FILE = "result.json"
ABOUT_FILE = "ablation.json"

GenresById = Mapping[str, Sequence[str]]


def names_of(store: FeatureStore, names_store: FeatureStore, labels: GenresById | None = None) -> str:
    """What tells the genre names of a second store of the same tracks from others: a hash of its genre embedding.

    Raises
    ------
    ConfigError
        If it is not a store of the same tracks, labels and features.
    """
    prints = [{k: v for k, v in each.fingerprints.items() if k != "genre_embedding"} for each in (store, names_store)]
    if prints[0] != prints[1] or _about(store, labels) != _about(names_store, labels):
        raise ConfigError(f"{names_store.path}: not the tracks, genres and recipe of {store.path}; extract the same "
                          "source in the same way, with other genre names only")  # fmt: skip
    return hashlib.sha256(names_store.genre_embedding.tobytes()).hexdigest()[:8]


def _about(store: FeatureStore, labels: GenresById | None) -> tuple[list[str], str]:
    return list(store.genres), _tracks_sha256(store, labels)


def _tracks_sha256(store: FeatureStore, labels: GenresById | None) -> str:
    tracks = ok_tracks(store, labels).select(["id", "artists", "genres", "split", "source_sha256", "lyrics_sha256"])
    tracks = tracks.sort_by("id")  # a copy may have them in other rows
    return hashlib.sha256(canonical_json(tracks.to_pylist())).hexdigest()


def open_folder(folder: Path, store: FeatureStore, labels: GenresById | None = None) -> None:
    """Make the ablation's folder, or see that what is in it is about the same tracks.

    Raises
    ------
    RunError
        If its results are of other features, tracks or labels.
    """
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "claims").mkdir(exist_ok=True)
    about = {
        "store": store.path.name,
        "fingerprints": dict(store.fingerprints),
        "tracks_sha256": _tracks_sha256(store, labels),
    }
    path = folder / ABOUT_FILE
    if not path.exists():
        replace_file(path, seal(about))
        return
    known = read_sealed(path)
    told = {"fingerprints": "recipes", "tracks_sha256": "tracks or labels"}
    differences = [said for name, said in told.items() if known.get(name) != about[name]]
    if differences:
        raise RunError(f"{folder}: its runs are of other data than {store.path} ({', '.join(differences)} differ); "
                       "give another folder, or the store it was begun with")  # fmt: skip


def finished(folder: Path, run: PlannedRun) -> dict[str, Any] | None:
    """The sealed result of a run; None where it is not finished, was altered, or was made by other options."""
    path = folder / "runs" / run.key
    try:
        result = unseal(path / RESULT_FILE)
        whole = file_sha256(path / PREDICTIONS_FILE) == result["predictions_sha256"]
    except (OSError, StoreCorruptError, KeyError):
        return None
    now, then = run.config.to_dict(), result["config"]
    same = all(then.get(name, now[name]) == now[name] for name in now if name not in NOT_PART_OF_A_RUN)
    return result if whole and same else None


def perform(
    folder: Path,
    run: PlannedRun,
    store: FeatureStore,
    *,
    labels: GenresById | None = None,
    keep_run: bool = False,
    stop: Callable[[], bool] | None = None,
    on_progress: Progress = silent,
) -> dict[str, Any]:
    """Train, or go on training, one run; score its test tracks; seal the result; drop its checkpoints.

    Raises
    ------
    RunError, ConfigError, TrainingError, SaveError, StoppedError
    """
    path = folder / "runs" / run.key
    split = None if run.fold is None else run.fold.split
    trained = train(
        store, path, run.config, labels=labels, split=split, resume=True, stop=stop, on_progress=on_progress
    )
    evaluation = evaluate(path, store, labels=labels, n_replicates=0, device=run.config.device)
    loaded = load_run(path)
    result = {
        "config": run.config.to_dict(),
        "split": trained.task.split.policy,
        "n_train": loaded.n_train,
        "n_validation": trained.task.n_validation,
        "n_test": evaluation["n_tracks"],
        "n_test_left_out": evaluation["n_left_out"],
        "genres": list(loaded.genres),
        "label_prior": (loaded.train_counts / max(1, loaded.n_train)).tolist(),
        "majority": loaded.majority.astype(float).tolist(),
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "seconds": round(sum(record.seconds for record in trained.history), 2),
        "n_parameters": trained.n_parameters,
        "mgc": metadata.version("mgc"),
        "device": trained.device,
        "precision": trained.precision,
        "warnings": [*trained.warnings, *evaluation["warnings"]],
        "predictions_sha256": evaluation["predictions_sha256"],
    }
    replace_file(path / RESULT_FILE, seal(result))
    if not keep_run:
        drop_checkpoints(path)
    return result


def drop_checkpoints(run: Path) -> None:
    """What only a run to be continued, or a model to be used, needs."""
    for name in ("last", "best"):
        shutil.rmtree(run / name, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that could not be trained, and why."""

    key: str
    serves: tuple[str, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


Outcome = Literal["done", "claimed"] | Failure


def attempt(
    folder: Path,
    run: PlannedRun,
    store: FeatureStore,
    *,
    labels: GenresById | None = None,
    keep_run: bool = False,
    stop: Callable[[], bool] | None = None,
    on_progress: Progress = silent,
) -> Outcome:
    """Finish a run, unless it is finished or another process is at work on it; says what came of it.

    A run that cannot be trained is a :class:`Failure`, so that the others go on; a full disk or `stop` is not.
    """
    if finished(folder, run) is None:
        with hold(folder / "claims" / run.key) as mine:
            if not mine:
                return "claimed"
            try:
                if finished(folder, run) is None:  # another process may have ended it just before
                    perform(folder, run, store, labels=labels, keep_run=keep_run, stop=stop, on_progress=on_progress)
            except (RunError, ConfigError, TrainingError) as error:
                return Failure(key=run.key, serves=run.serves, reason=str(error))
    if not keep_run:
        drop_checkpoints(folder / "runs" / run.key)  # where a kill fell between sealing and dropping
    return "done"
