"""Save and load checkpoints that survive ``kill -9``, a full disk and a flipped bit, without pickle.

``last/`` holds the checkpoints to resume from. ``state-<epoch>.json`` lists weights and optimizer by file name and
sha256. It is renamed into place once they are on disk, so a run killed at any time has a complete checkpoint. The
newest two ends of epochs are kept, so that the older one can replace a damaged one. The newest checkpoint within an
epoch, ``state-<epoch>+<steps>.json``, is kept until that epoch ends. ``best/`` is published from a checkpoint, and can
be published again from it.

A checkpoint at the end of an epoch saves no random state, since the random numbers of an epoch are a function of seed
and epoch. A checkpoint within an epoch saves the states of torch's generators.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ...cache.durable import file_sha256, fsync_dir, fsync_tree, replace_file, seal, write_durable
from ...cache.errors import RunError
from ...cache.messages import counted
from .documents import FORMAT_VERSION, DamagedError, StateDocument, check_document, check_file, read_sealed
from .tensor_files import load_optimizer, load_tensors, load_weights, model_tensors, optimizer_tensors

WEIGHTS = "model.safetensors"
"""Weights in ``best/``: the same bytes as those of the best epoch in ``last/``, so that either can repair the other."""

Point = tuple[int, int]
"""Position of a checkpoint: completed epochs, and completed steps of the next epoch."""


@dataclass(kw_only=True)
class RunState:
    """State of a run.

    Attributes
    ----------
    epoch, step : completed epochs, and optimizer steps at their end.
    config : ``TrainConfig.to_dict()``.
    task : ``Task.identity``, which must be equal in a resumed run.
    machine : :func:`mgc.heads.device.machine`, which the last bits of weights depend on.
    within : progress of the next epoch: ``steps``, ``sums`` of the losses, ``gradients`` of its first batch,
        ``seconds``; None at the end of an epoch.
    best_epoch, best_map : epoch (from 1) with the best validation mAP; 0 and None before the first.
    best : thresholds and validation metrics of that epoch, for ``best/``.
    stopped_early : whether `patience` ended the run.
    files : role -> {"name", "sha256"} of the tensor files in ``last/``: weights, optimizer, best; within an epoch also
        random.
    """

    epoch: int
    step: int
    config: dict[str, Any]
    task: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=dict)
    within: dict[str, Any] | None = None
    best_epoch: int = 0
    best_map: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    stopped_early: bool = False
    files: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        """Whether no epoch of the run is left."""
        epochs = self.config.get("epochs")
        return self.stopped_early or (epochs is not None and self.epoch >= epochs)

    @property
    def point(self) -> Point:
        return self.epoch, 0 if self.within is None else int(self.within["steps"])


def save_state(
    run: Path,
    state: RunState,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    random: Mapping[str, Tensor] | None = None,
) -> None:
    """Commit a checkpoint to ``last/`` and set `state.files`. On failure, earlier checkpoints stay.

    The weights of the best epoch so far (``state.best_epoch == state.epoch``) are kept until a better epoch.

    Parameters
    ----------
    random : states of torch's generators, for a checkpoint within an epoch.
    """
    last, label = run / "last", _label(state.point)
    if not last.is_dir():
        last.mkdir(parents=True)
        fsync_dir(run)
    files = {role: entry for role, entry in state.files.items() if role != "random"}
    tensors = {"weights": model_tensors(model), "optimizer": optimizer_tensors(optimizer, model)}
    if random is not None:
        tensors["random"] = dict(random)
    try:
        for role, values in tensors.items():
            data = safetensors.torch.save(values)
            name = f"{role}-{label}.safetensors"
            replace_file(last / name, data)
            files[role] = {"name": name, "sha256": hashlib.sha256(data).hexdigest()}
        if state.within is None and state.best_epoch == state.epoch:
            files["best"] = files["weights"]
        document = {"format_version": FORMAT_VERSION, **vars(state), "files": files}
        replace_file(last / f"state-{label}.json", seal(document))
    except OSError:
        with contextlib.suppress(OSError):
            sweep_points(last, at_most=state.point)  # frees disk space; earlier checkpoints do not need these files
        raise
    state.files = files
    sweep_points(last, at_most=state.point)


def find_state(run: Path) -> tuple[RunState | None, list[str]]:
    """Return the newest intact checkpoint of a run, None before the first, and warnings of damaged files.

    Damaged weights are repaired from ``best/`` if it holds the same weights intact.

    Raises
    ------
    RunError
        If no checkpoint is intact, or one has another format.
    """
    refused: list[str] = []
    for point in sorted(_points(run / "last"), reverse=True):
        path = run / "last" / f"state-{_label(point)}.json"
        try:
            state = _read_state(path)
            repairs = [_check_or_repair(run, entry) for entry in state.files.values()]
        except DamagedError as error:
            refused.append(str(error))
            continue
        position = f"the end of epoch {state.epoch}" + (f" and {counted(point[1], 'step')}" if point[1] else "")
        return state, [f"{damage}; resuming from {position}" for damage in refused] + list(filter(None, repairs))
    if refused:
        raise RunError(
            f"{'; '.join(refused)}; no checkpoint of this run is intact. Restore the files from a copy, or train again "
            "in another folder."
        )
    return None, []


def newest_state(run: Path) -> RunState | None:
    """Return the newest intact state of a run, without checking its tensors; None before the first."""
    for point in sorted(_points(run / "last"), reverse=True):
        with contextlib.suppress(RunError):
            return _read_state(run / "last" / f"state-{_label(point)}.json")
    return None


def restore(run: Path, state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load the weights and the optimizer state of a checkpoint into `model` and `optimizer`."""
    load_weights(model, state_file(run, state, "weights"))
    load_optimizer(optimizer, model, load_tensors(state_file(run, state, "optimizer")))


def saved_random(run: Path, state: RunState) -> dict[str, Tensor]:
    """Return the states of torch's generators at a checkpoint within an epoch."""
    return load_tensors(state_file(run, state, "random"))


def state_file(run: Path, state: RunState, role: str) -> Path:
    return run / "last" / state.files[role]["name"]


def publish_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace `folder` by one with `files`, which are on disk before the swap. On failure, the old folder stays."""
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, data in files.items():
            write_durable(partial / name, data)
        fsync_tree(partial)
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    except OSError:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_dir(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep_drafts(run: Path) -> None:
    """Remove the drafts of interrupted writes from a run folder."""
    for path in (*run.glob(".*.partial"), *run.glob(".*.old")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _label(point: Point) -> str:
    epoch, steps = point
    return f"{epoch:06d}" + (f"+{steps:06d}" if steps else "")


def _points(last: Path) -> Iterator[Point]:
    for path in last.glob("state-*.json"):
        if match := re.fullmatch(r"state-(\d+)(?:\+(\d+))?\.json", path.name):
            yield int(match[1]), int(match[2] or 0)


def _read_state(path: Path) -> RunState:
    data = read_sealed(path)
    check_document(path, data, StateDocument)
    state = RunState(**{name: value for name, value in data.items() if name != "format_version"})
    roles = {role for role, needed in (("best", state.best_epoch), ("random", state.within)) if needed}
    if roles - state.files.keys() or path.name != f"state-{_label(state.point)}.json":
        raise RunError(f"{path}: content does not match the name. Restore the file from a copy.")
    return state


def _check_or_repair(run: Path, entry: Mapping[str, str]) -> str | None:
    path, spare = run / "last" / entry["name"], run / "best" / WEIGHTS
    try:
        check_file(path, entry["sha256"])
    except DamagedError as damage:
        if not spare.is_file() or file_sha256(spare) != entry["sha256"]:
            raise
        replace_file(path, spare.read_bytes())
        return f"{damage}; repaired from {spare}"
    return None


def sweep_points(last: Path, *, at_most: Point) -> None:
    """Keep the newest two ends of epochs up to `at_most` and the newest checkpoint; remove all other files."""
    points = sorted(point for point in _points(last) if point <= at_most)
    ends = [point for point in points if point[1] == 0]
    needed = set()
    for point in [*ends[-2:], *points[-1:]]:
        path = last / f"state-{_label(point)}.json"
        with contextlib.suppress(RunError):
            needed |= {path.name, *(entry["name"] for entry in _read_state(path).files.values())}
    for path in last.iterdir():
        if path.name not in needed:
            path.unlink()
