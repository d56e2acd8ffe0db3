"""Train a model on batches of a store, on any device, and compute the cost of a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.kernels import KernelCount
from mgc.heads.config import TrainConfig
from mgc.heads.data.batches import FeatureBatches, epoch_batches
from mgc.heads.data.task import Task
from mgc.heads.model.batch import Batch
from mgc.heads.model.losses import total_loss
from mgc.heads.model.system import System
from mgc.heads.training.loop import EpochSums, Learner, train_epoch
from mgc.heads.training.start import make_model


class ReadyBatches:
    """The batches of one epoch, kept on the device and returned in the same order every time."""

    def __init__(self, batches: FeatureBatches, order: list[np.ndarray]) -> None:
        self.examples = batches.examples
        self._batches = [batches.batch(index) for index in order]

    def __call__(self, indices: Iterable[Any]) -> Iterator[Batch]:
        return (batch for batch, _ in zip(self._batches, indices, strict=True))


class Training:
    """A model in training, with batches of one size."""

    def __init__(self, task: Task, batches: FeatureBatches, config: TrainConfig, device: torch.device, precision: str):
        self.task, self.batches, self.config, self.device, self.precision = task, batches, config, device, precision
        self.model, self.optimizer = make_model(task, config, device)
        self.learner = Learner(
            model=self.model, optimizer=self.optimizer, config=config, device=device, precision=precision
        )
        self.ready = ReadyBatches(batches, epoch_batches(task.n_train, config.batch_size, seed=config.seed, epoch=1))

    def epoch(self, batches: Any) -> EpochSums:
        """Train epoch 1 in each call, since the prepared batches have its order."""
        return train_epoch(self.learner, batches, self.task.n_train, epoch=1)

    def step_cost(self) -> tuple[float, float]:
        """Return the operations of one step, and the bytes that its layers read and write."""
        with FlopCounterMode(display=False) as counter, counted_bytes(self.model) as moved:
            self._step(self._batch())
        return float(counter.get_total_flops()), 3.0 * moved[0]  # the backward pass moves about twice as much again

    def step_kernels(self) -> int:
        """Return the kernels of forward pass, loss and backward pass of a model that is not compiled."""
        batch = self._batch()
        with KernelCount() as counted:
            self._step(batch)
        return counted.kernels.total()

    def _batch(self) -> Batch:
        return self.batches.batch(np.arange(self.config.batch_size))

    def _step(self, batch: Batch) -> None:
        with torch.compiler.set_stance("force_eager"):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                outputs = self.model.train()(batch)
            total_loss(outputs, batch, self.config.lambda_).total.backward()
        self.optimizer.zero_grad(set_to_none=True)


class counted_bytes:  # noqa: N801
    """Context that counts the bytes of inputs and outputs of each layer in a forward pass."""

    def __init__(self, model: System) -> None:
        self._layers = [module for module in model.modules() if not list(module.children())]
        self._moved = [0.0]

    def __enter__(self) -> list[float]:
        def add(_: Any, inputs: Any, output: Any) -> None:
            tensors = [value for value in (*inputs, output) if isinstance(value, torch.Tensor)]
            self._moved[0] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)

        self._hooks = [layer.register_forward_hook(add) for layer in self._layers]
        return self._moved

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
