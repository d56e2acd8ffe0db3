"""Models and optimizers as safetensors, exactly: names, values and memory layouts come back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ...cache.errors import RunError


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
    except (RuntimeError, TypeError) as error:
        raise RunError(f"{path}: these are not weights of this model: {error}") from error


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of a safetensors file, by name, from its header alone.

    Raises
    ------
    RunError
        If it is not such a file.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: cannot be read as safetensors ({error})") from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: cannot be read as safetensors ({error})") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as ``<parameter>/<quantity>``; parameters without a gradient yet have none."""
    return {
        f"{name}/{quantity}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Inverse of :func:`optimizer_tensors`, into a fresh optimizer over the same parameters.

    Moments take the memory layout of their parameter: another layout could take another kernel and round otherwise.
    """
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, quantity = key.rpartition("/")
        if name not in parameters:
            raise RunError(f"the checkpoint's optimizer has state for {name!r}, which this model does not have")
        parameter = parameters[name]
        if value.shape not in ((), parameter.shape):
            raise RunError(f"the checkpoint's optimizer has {quantity!r} of {name!r} in another shape")
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        elif optimizer.defaults.get("fused"):
            value = value.to(parameter.device)
        optimizer.state[parameter][quantity] = value
