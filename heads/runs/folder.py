"""Read a run folder to resume it, and write its files before the first epoch; checkpoints are elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from ...cache.distribution import __version__
from ...cache.durable import replace_file, seal
from ...cache.errors import RunError, SaveError
from ...cache.format.layout import library_versions
from ...cache.reading.store import FeatureStore
from ..config import TrainConfig
from ..data.batches import Placement
from ..data.splits import Split
from ..data.task import Task
from .checkpoint import RunState, find_state, newest_state, sweep_drafts
from .documents import read_sealed
from .history import EpochRecord, rewind_history


def read_saved(run: Path, config: TrainConfig, *, resume: bool) -> tuple[RunState | None, Split | None, list[str]]:
    """Return the newest intact checkpoint of a run and its split, None for a new run, and warnings.

    Raises
    ------
    RunError
        If there is an unfinished run and `resume` is False, the run has other options, or no checkpoint is intact.
    """
    used = [name for name in ("config.yaml", "last", "best") if (run / name).exists()]
    newest = newest_state(run)
    if used and not resume and (newest is None or not newest.is_finished):
        raise RunError(
            f"{run}: contains an unfinished run ({', '.join(used)}). Continue it with --resume, or use another folder."
        )
    state, warnings = find_state(run)
    if state is None:
        if (run / "best").exists():
            raise RunError(
                f"{run / 'last'}: no checkpoint, although best/ exists. Restore last/ from a copy, or train again in "
                "another folder."
            )
        return None, None, []
    saved = TrainConfig.from_dict(state.config)
    differences = config.differences(saved)
    if not resume and config.epochs not in (None, saved.epochs):
        differences.append(f"epochs: {config.epochs}, was {saved.epochs} (train more with --resume)")
    if differences:
        raise RunError(
            f"{run}: this run was started with other options: {'; '.join(differences)}. Use the same options, or "
            "another folder."
        )
    split = None
    try:
        split = Split.load(run / "splits.json")
    except RunError as error:
        # `Task.identity` covers the tracks of the split, so that another split would be refused.
        warnings.append(f"{error} It is made again now.")
    return state, split, warnings


def write_start(
    run: Path, state: RunState, config: TrainConfig, task: Task, about: dict[str, Any], *, finished: bool
) -> list[EpochRecord]:
    """Write the files of a run before its next epoch; return the records of completed epochs.

    Of a `finished` run, only missing and damaged files are written.
    """
    run.mkdir(parents=True, exist_ok=True)
    sweep_drafts(run)
    if not (finished and _is_intact(run / "splits.json")):
        task.split.save(run / "splits.json")
    if not (finished and _is_intact(run / "config.yaml")):
        replace_file(run / "config.yaml", config.to_yaml().encode())
    if not (finished and _is_intact(run / "run.json")):
        replace_file(run / "run.json", seal(about))
    return rewind_history(run / "metrics.jsonl", state.epoch)


def _is_intact(path: Path) -> bool:
    """Whether a sealed file, or a YAML mapping, can be read."""
    try:
        found = yaml.safe_load(path.read_bytes()) if path.suffix == ".yaml" else read_sealed(path)
    except (OSError, RunError, yaml.YAMLError):
        return False
    return isinstance(found, dict)


@contextlib.contextmanager
def saving(run: Path, content: str, *, saved_epochs: int | None = None) -> Iterator[None]:
    """Turn an error of the disk into a ``SaveError`` that states what is saved and what to do.

    Parameters
    ----------
    content : name of the content that is written, for the message.
    saved_epochs : number of epochs that are saved; None if it is not known yet.

    Raises
    ------
    SaveError
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        saved = f"; the run is saved up to epoch {saved_epochs}" if saved_epochs else "; no epoch is saved yet"
        if saved_epochs is None:
            saved = ""
        raise SaveError(
            f"{error.filename or run}: {reason}: could not write {content}{saved}. Free disk space (or raise "
            "ulimit -f, repair the disk, or allow writing to the folder), then run the same command with --resume."
        ) from error


def refuse_other_machine(run: Path, state: RunState, machine: dict[str, Any], *, deterministic: bool) -> list[str]:
    """Return a warning if hardware or settings of a resumed run have changed, so that last bits will differ.

    Raises
    ------
    RunError
        If so, and the run is `deterministic`.
    """
    before = state.machine
    changes = [f"{key}: {machine[key]}, was {before.get(key)}" for key in machine if before.get(key) != machine[key]]
    if not changes:
        return []
    changed = f"{run}: hardware or settings have changed since the start ({'; '.join(changes)})"
    if deterministic:
        raise RunError(
            f"{changed}, so the weights of a deterministic run would differ. Resume with the old settings (threads: "
            "OMP_NUM_THREADS), or start a new run."
        )
    return [f"{changed}; the weights will differ in their last bits from those of an uninterrupted run"]


_IDENTITY = {
    "fingerprints": "recipe fingerprints",
    "genres": "genres to learn",
    "n_tracks": "number of tracks",
    "tracks_sha256": "audio, lyrics or labels of the training and validation tracks",
}
"""Entries of ``Task.identity`` as printed in messages."""


def refuse_other_task(run: Path, state: RunState | None, task: Task) -> None:
    """Raise :class:`RunError` if a run is resumed on other data than it was started on."""
    if state is None or state.task == task.identity:
        return
    differences = [name for key, name in _IDENTITY.items() if state.task.get(key) != task.identity[key]]
    raise RunError(
        f"{run}: this run was started on other data: it differs in {', '.join(differences)}. Resume with the store of "
        "the run, or start a new run."
    )


LIBRARIES = ("mgc", "torch", "numpy")
"""Libraries whose versions ``run.json`` records."""


def describe_run(
    run: Path,
    store: FeatureStore,
    task: Task,
    *,
    epoch: int,
    placement: Placement,
    device: torch.device,
    precision: str,
    n_parameters: int,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return the content of ``run.json``; its last session is the training that starts now, after `epoch` epochs."""
    versions = library_versions()
    session = {
        "started_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "after_epoch": epoch,
        "command": _command_line(),
        "versions": {"python": platform.python_version()}
        | {name: versions[name] for name in LIBRARIES if name in versions},
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "precision": precision,
        "n_threads": torch.get_num_threads(),
    }
    earlier: list[dict[str, Any]] = []
    with contextlib.suppress(RunError, OSError):  # missing, damaged, or of mgc 0.1, which wrote no sessions
        earlier = read_sealed(run / "run.json").get("sessions", [])
    return {
        "store": store.path.name,
        "fingerprints": dict(store.fingerprints),
        "store_versions": dict(store.library_versions),
        "split": {"policy": task.split.policy, "requested": task.split.requested, "sizes": task.split.sizes},
        "genres": list(task.genres.names),
        "kept": [dataclasses.asdict(count) for count in task.filters],
        "labels_sha256": task.labels_sha256,
        "n_train": task.n_train,
        "n_validation": task.n_validation,
        "n_train_without_lyrics": task.n_without_lyrics,
        "home": dataclasses.asdict(placement),
        "device": str(device),
        "precision": precision,
        "mgc": __version__,
        "torch": torch.__version__,
        "n_threads": torch.get_num_threads(),
        "n_parameters": n_parameters,
        "graph": task.graph_summary,
        "warnings": list(warnings),
        "sessions": [*earlier, session],
    }


def _command_line() -> str:
    """Return the command line of this process, without the folder of the program."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])
