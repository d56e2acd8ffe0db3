"""Perform the runs of an ablation's folder, and recognise the finished ones.

A folder holds ``ablation.json`` (hashes of tracks, labels and recipes), ``runs/<key>/`` (run folders; ``result.json``
seals a finished one, which keeps the files that the tables are computed from) and ``claims/`` (locks of the runs that
processes are working on).
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...cache.claims import hold
from ...cache.distribution import __version__
from ...cache.durable import canonical_json, file_sha256, replace_file, seal, unseal
from ...cache.errors import ConfigError, RunError, StoppedError, StoreCorruptError, TrainingError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress
from ..data.labels import GenresById
from ..data.task import ok_tracks
from ..evaluation.evaluate import TOO_FEW, evaluate
from ..evaluation.scored_tracks import PREDICTIONS_FILE
from ..model.config import upgrade_options
from ..results import Result
from ..runs.documents import read_sealed
from ..runs.published_model import load_run
from ..training.train import train
from .grid import NOT_PART_OF_A_RUN, GridRun

log = logging.getLogger(__name__)

STOPPED = "stopped: finished runs and checkpoints are kept. Run the same command again to continue."

RESULT_FILE = "result.json"
ABOUT_FILE = "ablation.json"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Stores, labels and folder that the runs of a grid share.

    Attributes
    ----------
    text : name of an added text feature set of the store; None for its own.
    names_store : a store of the same tracks with other genre name prompts, for the runs that need it.
    added_audio : names of added feature sets that tracks need, since a run has them as audio input.
    """

    folder: Path
    store: Path
    text: str | None = None
    labels: GenresById | None = None
    keep_runs: bool = False
    names_store: Path | None = None
    added_audio: tuple[str, ...] = ()

    def open(self, run: GridRun | None = None) -> FeatureStore:
        """Open the store that a run learns from; the store itself without a run."""
        path = self.store if run is None or run.names is None else self.names_store
        assert path is not None
        return FeatureStore.open(path, text=self.text).requiring(self.added_audio)


def names_of(store: FeatureStore, names_store: FeatureStore, labels: GenresById | None = None) -> str:
    """Return a hash of the genre embedding of a second store, which identifies its genre name prompts.

    Raises
    ------
    ConfigError
        If the second store differs from `store` in more than the genre name prompts.
    """

    def content_except_names(either: FeatureStore) -> tuple[dict[str, str], list[str], str]:
        fingerprints = {name: value for name, value in either.fingerprints.items() if name != "genre_embedding"}
        return fingerprints, list(either.genres), _tracks_sha256(either, labels)

    if content_except_names(store) != content_except_names(names_store):
        raise ConfigError(
            f"{names_store.path}: tracks, genres or recipe differ from those of {store.path}. Extract the same source "
            "with the same options, except --genre-names."
        )
    return hashlib.sha256(names_store.genre_embedding.tobytes()).hexdigest()[:8]


def _tracks_sha256(store: FeatureStore, labels: GenresById | None) -> str:
    tracks = ok_tracks(store, labels).select(["id", "artists", "genres", "split", "source_sha256", "lyrics_sha256"])
    tracks = tracks.sort_by("id")  # another store of the same tracks may have another row order
    return hashlib.sha256(canonical_json(tracks.to_pylist())).hexdigest()


def open_folder(folder: Path, store: FeatureStore, labels: GenresById | None = None) -> None:
    """Create the ablation's folder, or check that its results belong to this store.

    Raises
    ------
    RunError
        If its results are of other features, tracks or labels.
    """
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / "claims").mkdir(exist_ok=True)
    prints, tracks = dict(store.fingerprints), _tracks_sha256(store, labels)
    path = folder / ABOUT_FILE
    earlier: dict[str, Any] = {"fingerprints": prints, "tracks_sha256": tracks}
    if path.exists():
        earlier = read_sealed(path)
    before: dict[str, str] = earlier.get("fingerprints", {})
    # Tables may have different added feature sets as audio input: those of only one side are no difference.
    audio = store.extractors.keys() & (before.keys() ^ prints.keys())
    own = [{name: sha256 for name, sha256 in side.items() if name not in audio} for side in (before, prints)]
    differences = ["recipes"] * (own[0] != own[1])
    differences += ["tracks or labels"] * (earlier.get("tracks_sha256") != tracks)
    if differences:
        raise RunError(
            f"{folder}: its runs used other data than {store.path} ({', '.join(differences)} differ). Use another "
            "folder, or the store of its runs."
        )
    about = {"store": store.path.name, "fingerprints": {**before, **prints}, "tracks_sha256": tracks}
    if about != earlier:
        replace_file(path, seal(about))


def finished(folder: Path, run: GridRun) -> dict[str, Any] | None:
    """Return the sealed result of a run; None if it is unfinished, altered, or has other options."""
    path = folder / "runs" / run.key
    try:
        result = unseal(path / RESULT_FILE)
        intact = file_sha256(path / PREDICTIONS_FILE) == result["predictions_sha256"]
    except (OSError, StoreCorruptError, KeyError):
        return None
    now, then = run.config.to_dict(), upgrade_options(result["config"])
    same = all(then.get(name, now[name]) == now[name] for name in now if name not in NOT_PART_OF_A_RUN)
    return result if intact and same else None


def _perform(work: Work, run: GridRun, store: FeatureStore, stop: Callable[[], bool], on_progress: Progress) -> None:
    """Train or resume one run, score its test tracks and seal the result.

    Raises
    ------
    RunError, ConfigError, TrainingError, SaveError, StoppedError
        As :func:`mgc.heads.training.train.train` and :func:`mgc.heads.evaluation.evaluate.evaluate` raise them.
    """
    path = work.folder / "runs" / run.key
    split = None if run.fold is None else run.fold.split
    try:
        trained = train(
            store,
            path,
            run.config,
            labels=work.labels,
            split=split,
            resume=True,
            stop=stop,
            on_warning=log.info,  # the tables list the warnings of all runs
            on_progress=on_progress,
        )
    except StoppedError as error:
        raise StoppedError(STOPPED) from error
    evaluation = evaluate(path, store, labels=work.labels, n_replicates=0, device=run.config.device)
    loaded = load_run(path)
    result = {
        "config": run.config.to_dict(),
        "split": trained.task.split.policy,
        "n_train": loaded.n_train,
        "n_validation": trained.task.n_validation,
        "n_test": evaluation.n_tracks,
        "n_test_left_out": evaluation.n_left_out,
        "genres": list(loaded.genres),
        "label_prior": loaded.label_prior.tolist(),
        "majority": loaded.majority.astype(float).tolist(),
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "seconds": round(sum(record.seconds for record in trained.history), 2),
        "n_parameters": trained.n_parameters,
        "mgc": __version__,
        "device": trained.device,
        "precision": trained.precision,
        # the tables pool the test tracks of all folds, and have a warning of their own
        "warnings": [*trained.warnings, *(text for text in evaluation.warnings if TOO_FEW not in text)],
        "predictions_sha256": evaluation.predictions_sha256,
    }
    replace_file(path / RESULT_FILE, seal(result))


@dataclass(frozen=True, kw_only=True)
class Failure(Result):
    """A run that could not be trained, with the reason."""

    key: str
    serves: tuple[str, ...]
    reason: str


Outcome = Literal["done", "claimed"] | Failure


def attempt(work: Work, run: GridRun, *, stop: Callable[[], bool], on_epoch: Callable[[str], None]) -> Outcome:
    """Finish a run, unless it is finished or claimed by another process, and return the outcome.

    A run that cannot be trained returns a :class:`Failure`, so that the other runs continue. A full disk or `stop`
    raises, since it concerns all runs. The checkpoints of a finished run are deleted unless ``work.keep_runs``.
    """

    def report_epoch(step: str, done: int, total: int, note: str = "") -> None:
        if step == "train":
            on_epoch(f"epoch {done} of {total}")

    if finished(work.folder, run) is None:
        with work.open(run) as store, hold(work.folder / "claims" / run.key) as is_held:
            if not is_held:
                return "claimed"
            try:
                if finished(work.folder, run) is None:  # another process may have finished it before this claim
                    _perform(work, run, store, stop, report_epoch)
            except (RunError, ConfigError, TrainingError) as error:
                return Failure(key=run.key, serves=run.serves, reason=str(error))
    if not work.keep_runs:  # also for runs finished earlier: a kill may have come between sealing and deleting
        for name in ("last", "best"):
            shutil.rmtree(work.folder / "runs" / run.key / name, ignore_errors=True)
    return "done"
