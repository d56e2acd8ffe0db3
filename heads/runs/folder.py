"""A run's folder besides its checkpoints: reading it for a resume, and what is written before the first epoch."""

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

from ...cache.distribution import __version__
from ...cache.durable import replace_file, seal
from ...cache.errors import RunError, SaveError
from ...cache.format.layout import library_versions
from ...cache.reading.store import FeatureStore
from ..config import TrainConfig
from ..data.batches import Placement
from ..data.splits import Split
from ..data.task import Task
from .checkpoint import RunState, find_state, read_sealed, sweep_drafts
from .history import EpochRecord, rewind_history


def read_saved(run: Path, config: TrainConfig, *, resume: bool) -> tuple[RunState | None, Split | None, list[str]]:
    """Read the newest whole checkpoint of a run, and its split, both None where there is none; and warnings.

    Raises
    ------
    RunError
        If there is a run and it is not to be resumed, or was asked for other things, or no checkpoint is whole.
    """
    used = [name for name in ("config.yaml", "last", "best") if (run / name).exists()]
    if used and not resume:
        raise RunError(f"{run}: there is a run here already ({', '.join(used)}); resume it, or give another folder")
    state, warnings = find_state(run)
    if state is None:
        if (run / "best").exists():
            raise RunError(
                f"{run}: best/ is there, but {run / 'last'} holds no checkpoint; restore it from a copy, or train "
                "again in another folder"
            )
        return None, None, []
    differences = config.differences(TrainConfig.from_dict(state.config))
    if differences:
        raise RunError(
            f"{run}: this run was started with other options: {'; '.join(differences)}; resume with the same ones, or "
            "start a new run"
        )
    split = None
    try:
        split = Split.load(run / "splits.json")
    except RunError as error:
        warnings.append(f"{error}; made again")  # and compared: it decides the tracks of `Task.identity`
    return state, split, warnings


def write_start(
    run: Path, state: RunState, config: TrainConfig, task: Task, about: dict[str, Any]
) -> list[EpochRecord]:
    """Write what is known before the first epoch; returns the records of the epochs that are done."""
    run.mkdir(parents=True, exist_ok=True)
    sweep_drafts(run)
    task.split.save(run / "splits.json")
    replace_file(run / "config.yaml", config.to_yaml().encode())
    replace_file(run / "run.json", seal(about))
    return rewind_history(run / "metrics.jsonl", state.epoch)


@contextlib.contextmanager
def saving(run: Path, what: str, *, whole_epochs: int) -> Iterator[None]:
    """Turn a failing disk into an error that says what is safe and what to do.

    Parameters
    ----------
    what : what is written.
    whole_epochs : epochs that are on disk and whole.

    Raises
    ------
    SaveError
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        safe = f"the run is whole up to epoch {whole_epochs}" if whole_epochs else "no epoch was saved before"
        raise SaveError(
            f"{error.filename or run}: {reason}: {what} could not be written; {safe}. Make room (or "
            "raise ulimit -f, or repair the disk), then run the same command with --resume"
        ) from error


def refuse_other_machine(run: Path, state: RunState, machine: dict[str, Any], *, deterministic: bool) -> list[str]:
    """Return a warning where a resumed run computes with other last bits than it was started with.

    Raises
    ------
    RunError
        If it was asked to be deterministic.
    """
    now, then = machine, state.machine
    changes = [f"{key} {then.get(key)} there, {now[key]} here" for key in now if then.get(key) != now[key]]
    if not changes:
        return []
    changed = f"{run}: this run was started in another setting ({'; '.join(changes)})"
    if deterministic:
        raise RunError(
            f"{changed}, and its weights would not come out the same; resume it in the old setting (threads: "
            "OMP_NUM_THREADS), or start a new run"
        )
    return [f"{changed}; its weights will differ in their last bits from an undisturbed run's"]


_IDENTITY = {
    "fingerprints": "recipe fingerprints",
    "genres": "genres to learn",
    "n_tracks": "number of tracks",
    "tracks_sha256": "audio, lyrics or labels of the training and validation tracks",
}
"""The entries of ``Task.identity`` in words."""


def refuse_other_task(run: Path, state: RunState | None, task: Task) -> None:
    """Raise RunError where a run is resumed on other data than it was started on."""
    if state is None or state.task == task.identity:
        return
    differences = [name for key, name in _IDENTITY.items() if state.task.get(key) != task.identity[key]]
    raise RunError(
        f"{run}: this run was started on other data: it differs in {', '.join(differences)}; resume with the store it "
        "was started on, or start a new run"
    )


LIBRARIES = ("mgc", "torch", "numpy")
"""What computes."""


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
    """Return the values of ``run.json``; its last session is the training that begins now after `epoch` epochs."""
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
    with contextlib.suppress(RunError, OSError):  # a file that is missing, damaged or older than sessions are
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
    """What this process was started with, without the folder that its program lies in."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    return shlex.join([name, *sys.argv[1:]])
