"""Checkpoints that survive ``kill -9``: tensors in safetensors, everything else in sealed JSON; nothing is pickled.

``last/state.json`` is the one point of truth. It names the weights and optimizer files of its epoch with their sha256
and is replaced by a rename once they are on disk, so that a run killed at any instant is at the end of one epoch or
another. ``best/`` is a folder published from that state, and can be made again from it.

Random numbers need no saved state: those of an epoch are a function of the seed and the epoch's number.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..cache.durable import file_sha256, fsync_dir, fsync_tree, replace_file, seal, unseal, write_durable
from ..cache.errors import RunError, StoreCorruptError

FORMAT_VERSION = 1


@dataclass(kw_only=True)
class RunState:
    """Where a run stands at the end of an epoch.

    Attributes
    ----------
    epoch, step : epochs and optimizer steps done.
    config : ``TrainConfig.to_dict()``.
    task : what the run learns from, as ``Task.identity``; a resumed run must have the same.
    best_epoch, best_map : epoch (from 1) with the best validation mAP; 0 and None before there is one.
    best : what ``best/`` says of that epoch: thresholds and validation metrics.
    stopped_early : no epoch follows, by `patience`.
    files : role -> {"name", "sha256"} of the tensors in ``last/``: weights, optimizer, best.
    """

    epoch: int
    step: int
    config: dict[str, Any]
    task: dict[str, Any]
    best_epoch: int = 0
    best_map: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    stopped_early: bool = False
    files: dict[str, dict[str, str]] = field(default_factory=dict)


def save_state(run: Path, state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Commit the end of an epoch to ``last/``; `state.files` is filled in.

    If the epoch is the best so far (``state.best_epoch == state.epoch``) its weights are kept until a better one's.
    """
    last = run / "last"
    last.mkdir(parents=True, exist_ok=True)
    weights = _write_tensors(last / f"weights-{state.epoch:06d}.safetensors", model_tensors(model))
    moments = _write_tensors(last / f"optimizer-{state.epoch:06d}.safetensors", optimizer_tensors(optimizer, model))
    best = weights if state.best_epoch == state.epoch else state.files.get("best", weights)
    state.files = {"weights": weights, "optimizer": moments, "best": best}
    replace_file(last / "state.json", seal({"format_version": FORMAT_VERSION, **vars(state)}))
    kept = {entry["name"] for entry in state.files.values()} | {"state.json"}
    for path in last.iterdir():
        if path.name not in kept:
            path.unlink()


def load_state(run: Path) -> RunState | None:
    """The state of a run, its files checked against their hashes; None where no epoch was committed yet.

    Raises
    ------
    RunError
        If the checkpoint is cut, altered or of another format.
    """
    path = run / "last" / "state.json"
    if not path.exists():
        return None
    data = read_sealed(path)
    version = data.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise RunError(f"{path}: checkpoint format {version}, but this mgc reads {FORMAT_VERSION}")
    try:
        state = RunState(**data)
    except TypeError as error:
        raise RunError(f"{path}: not a checkpoint of this mgc ({error})") from error
    for entry in state.files.values():
        check_file(path.parent / entry["name"], entry["sha256"])
    return state


def restore(run: Path, state: RunState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give `model` and `optimizer` what they held when `state` was saved."""
    load_weights(model, state_file(run, state, "weights"))
    load_optimizer(optimizer, model, load_tensors(state_file(run, state, "optimizer")))


def state_file(run: Path, state: RunState, role: str) -> Path:
    return run / "last" / state.files[role]["name"]


def publish_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Replace `folder` by one holding `files`, all of it on disk before the swap."""
    partial = folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, data in files.items():
        write_durable(partial / name, data)
    fsync_tree(partial)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    fsync_dir(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def read_sealed(path: Path) -> dict[str, Any]:
    """A sealed JSON file of a run.

    Raises
    ------
    RunError
        If it is missing, cut or altered.
    """
    try:
        return unseal(path)
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing; is this a run folder (or its best/), whole?") from error
    except (StoreCorruptError, OSError) as error:
        raise RunError(f"{path}: cut short or altered ({error})") from error


def check_file(path: Path, sha256: str) -> None:
    """Refuse a file that is not what was recorded when it was written."""
    if not path.is_file():
        raise RunError(f"{path}: missing, but the checkpoint names it; restore it, or train again")
    if file_sha256(path) != sha256:
        raise RunError(f"{path}: cut short or altered: its sha256 is not the recorded {sha256[:12]}...; restore it, "
                       "or train again")  # fmt: skip


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers on the CPU, contiguous, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill `model` from a safetensors file.

    Raises
    ------
    RunError
        If names or shapes are not the model's.
    """
    try:
        model.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        raise RunError(f"{path}: these are not weights of this model: {error}") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: cannot be read as safetensors ({error})") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as ``<parameter>/<quantity>``; parameters without a gradient yet have none."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for quantity, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{quantity}"] = value.detach().cpu().contiguous()
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`optimizer_tensors`, into a fresh optimizer over the same parameters.

    Moments take the memory layout of their parameter: another layout could take another kernel and round otherwise.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, quantity = key.rsplit("/", 1)
        if name not in parameters:
            raise RunError(f"the checkpoint's optimizer has state for {name!r}, which this model does not have")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        elif optimizer.defaults.get("fused"):
            value = value.to(parameter.device)
        optimizer.state[parameter][quantity] = value


def tensor_bytes(tensors: dict[str, Tensor]) -> bytes:
    return safetensors.torch.save(tensors)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    data = tensor_bytes(tensors)
    replace_file(path, data)
    return {"name": path.name, "sha256": hashlib.sha256(data).hexdigest()}
