"""Perform a dry run of a training: tracks, genres, memory, and the time of a few real steps."""

from __future__ import annotations

import contextlib
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..config import TrainConfig
from ..data.batches import FeatureBatches, Placement, choose_placement, epoch_batches, in_batches
from ..data.labels import GenresById, left_out
from ..data.task import Task, prepare
from ..device import compiling, deterministic, resolve_device, resolve_precision
from ..evaluation.predict import score
from ..runs.tensor_files import model_tensors, optimizer_tensors
from .loop import Learner, train_epoch
from .start import make_model

_BATCHES, _BUDGET_S = 12, 10.0
"""Number of batches to read, and time limit in s for training steps; at least two are taken, the first is not timed."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """Result of a dry run.

    Attributes
    ----------
    task : split, genres, counts of filters, and warnings.
    n_steps : optimizer steps per epoch.
    step_s, timed_steps : median time of a training step, over this number of steps.
    epoch_s : estimate from `step_s` and a few validation batches.
    read_s : estimate for reading the features once at the start; 0 for placement ``mapped``.
    checkpoint_bytes : size of one checkpoint; two are kept, and a third exists while it is written.
    """

    config: TrainConfig
    task: Task
    placement: Placement
    device: str
    precision: str
    n_parameters: int
    n_steps: int
    step_s: float
    timed_steps: int
    epoch_s: float
    read_s: float
    checkpoint_bytes: int
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        task, placement = self.task, self.placement
        return {
            "kept": left_out(task.filters),
            "split": {"policy": task.split.policy, **task.sizes},
            "genres": list(task.genres.names),
            "train_tracks": task.n_train,
            "train_tracks_without_lyrics": task.n_without_lyrics,
            "validation_tracks": task.n_validation,
            "home": {"name": placement.name, "bytes": placement.n_bytes, "free_bytes": placement.free_bytes},
            "features": str(placement),
            "device": self.device,
            "precision": self.precision,
            "n_parameters": self.n_parameters,
            "batch_size": self.config.batch_size,
            "steps_per_epoch": self.n_steps,
            "epochs": self.config.n_epochs,
            "learning_rate": self.config.learning_rate,
            "timed_steps": self.timed_steps,
            "seconds_per_step": round(self.step_s, 4),
            "seconds_per_epoch": round(self.epoch_s, 2),
            "seconds_to_read": round(self.read_s, 2),
            "checkpoint_bytes": self.checkpoint_bytes,
            "warnings": list(self.warnings),
        }


def dry_run(
    store: FeatureStore, config: TrainConfig, *, labels: GenresById | None = None, on_progress: Progress = silent
) -> DryRun:
    """Prepare a training and time a few steps, without writing files.

    Raises
    ------
    ConfigError, TrainingError
        As :func:`mgc.heads.training.train.train` raises them.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    with deterministic(config.deterministic), compiling(bool(config.compile)):
        task = prepare(store, config, labels=labels, on_progress=on_progress)
        config = config.settled(task.n_train)
        model, optimizer = make_model(task, config, device)
        placement = choose_placement(store, task.examples, device=device, wanted=config.placement)
        batches_of_epoch = epoch_batches(task.n_train, config.batch_size, seed=config.seed, epoch=1)
        sample = np.concatenate(batches_of_epoch[:_BATCHES])
        examples = task.examples.take(sample)
        started = time.perf_counter()
        batches = FeatureBatches(store, examples, placement=placement, device=device, text_dim=task.model.text_dim)
        read_s = (time.perf_counter() - started) / len(sample) * len(task.examples)
        learner = Learner(model=model, optimizer=optimizer, config=config, device=device, precision=precision)
        clock = _Clock(device)
        with contextlib.suppress(_TimeLimit):
            train_epoch(learner, batches, len(sample), epoch=1, wants_save=clock.tick)
        step_s = statistics.median(clock.steps_s)
        few = np.arange(min(len(sample), 2 * config.batch_size), dtype=np.int64)
        started = time.perf_counter()
        score(model, batches, few, batch_size=config.batch_size)
        scoring_s = (time.perf_counter() - started) / len(in_batches(few, config.batch_size))
        n_scored = len(in_batches(np.arange(task.n_validation, dtype=np.int64), config.batch_size))
    tensors = [*model_tensors(model).values(), *optimizer_tensors(optimizer, model).values()]
    return DryRun(
        config=config,
        task=task,
        placement=placement,
        device=str(device),
        precision=precision,
        n_parameters=model.n_parameters,
        n_steps=len(batches_of_epoch),
        step_s=step_s,
        timed_steps=len(clock.steps_s),
        epoch_s=len(batches_of_epoch) * step_s + n_scored * scoring_s,
        read_s=0.0 if placement.name == "mapped" else read_s,
        checkpoint_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        warnings=(*task.warnings, *model.start_warnings()),
    )


class _TimeLimit(Exception):  # noqa: N818
    """The time for training steps is over."""


class _Clock:
    """Durations of steps in s. The first step counts only if there is no other."""

    def __init__(self, device: torch.device) -> None:
        self.steps_s: list[float] = []
        self._device, self._n_steps = device, 0
        self._started = self._last = time.perf_counter()

    def tick(self) -> bool:
        """Record the duration of a step; return False, since no checkpoint is needed."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self._n_steps += 1
        if self._n_steps == 2:
            self.steps_s.clear()
        self.steps_s.append(now - self._last)
        self._last = now
        if self._n_steps >= 2 and now - self._started > _BUDGET_S:
            raise _TimeLimit
        return False
