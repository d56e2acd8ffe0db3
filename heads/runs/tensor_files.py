"""Save and load models and optimizers as safetensors; names, values and memory layouts are restored exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ...cache.errors import RunError


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers on the CPU, contiguous, as safetensors requires."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a safetensors file into `model`.

    Raises
    ------
    RunError
        If names or shapes do not match the model.
    """
    try:
        model.load_state_dict(load_tensors(path))
    except (RuntimeError, TypeError) as error:
        raise RunError(f"{path}: not the weights of this model: {error}") from error


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a safetensors file, by name, from its header alone.

    Raises
    ------
    RunError
        If the file is not valid.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error}). Restore it from a copy.") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: not a valid safetensors file ({error}). Restore it from a copy.") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return the optimizer's state as ``<parameter>/<quantity>``; parameters without a gradient so far have none."""
    return {
        f"{name}/{quantity}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the result of :func:`optimizer_tensors` into a new optimizer over the same parameters.

    Moments get the memory layout of their parameter, since another layout may select another kernel, which rounds
    differently.

    Raises
    ------
    RunError
        If names or shapes do not match the model.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("/")
        if name not in parameters:
            raise RunError(f"checkpoint, optimizer: unknown parameter {name!r}. Restore the run from a copy.")
        parameter = parameters[name]
        if value.shape not in ((), parameter.shape):
            raise RunError(f"checkpoint, optimizer: wrong shape of {key!r}. Restore the run from a copy.")
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        elif optimizer.defaults.get("fused"):
            value = value.to(parameter.device)
        optimizer.state[parameter][quantity] = value
