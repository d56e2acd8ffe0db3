"""The start of a training: a new run, or one that is resumed where its newest checkpoint ends."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...cache.claims import lock
from ...cache.errors import RunError
from ...cache.messages import counted
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress
from ..config import TrainConfig
from ..data.batches import Placement, choose_placement
from ..data.labels import GenresById
from ..data.splits import Split
from ..data.task import Task, prepare
from ..device import machine, resolve_precision
from ..model.graph import graph_sentence
from ..model.model import build_system
from ..model.system import System
from ..runs.checkpoint import RunState, restore, saved_random
from ..runs.folder import (
    describe_run,
    read_saved,
    refuse_other_machine,
    refuse_other_task,
    saving,
    write_start,
)
from ..runs.history import EpochRecord
from .loop import EpochSums, Learner, seeded

log = logging.getLogger(__name__)


@contextmanager
def only_training(run: Path) -> Iterator[None]:
    """Hold a run's folder in a ``with`` block, until the process ends at the latest.

    Raises
    ------
    RunError
        If another process trains in it.
    """
    mark, is_new = run / ".training", not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    mark.touch()
    with lock(mark) as alone:
        if not alone:
            owner = ""
            with contextlib.suppress(FileNotFoundError):  # it has ended since
                owner = mark.read_text()
            owner = owner or "another process"
            raise RunError(f"{run}: {owner} trains in this folder; wait for it, or give another folder")
        mark.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)
            if is_new:
                with contextlib.suppress(OSError):  # there is a run now
                    run.rmdir()


@dataclass(kw_only=True)
class OpenRun(Learner):
    """A run that can train: what it learns from, its model, and how far it is.

    Attributes
    ----------
    started_s : when it was opened, by ``time.monotonic``.
    state : the end of the last epoch; training brings it on.
    within : sums of the epoch that was left, and the states of torch's generators there; None at an epoch's end.
    history : records of the epochs that are done.
    """

    started_s: float
    folder: Path
    store: FeatureStore
    task: Task
    placement: Placement
    state: RunState
    within: tuple[EpochSums, dict[str, Tensor]] | None
    history: list[EpochRecord]
    warnings: list[str]


def open_run(
    store: FeatureStore,
    folder: Path,
    config: TrainConfig,
    *,
    device: torch.device,
    labels: GenresById | None,
    split: Split | None,
    resume: bool,
    on_progress: Progress,
) -> OpenRun:
    """Start a run, or resume it where it stopped; see :func:`mgc.heads.training.train.train`, also for errors."""
    started_s = time.monotonic()
    precision = resolve_precision(config.precision, device)
    state, saved_split, saved_warnings = read_saved(folder, config, resume=resume)
    task = prepare(store, config, labels=labels, split=saved_split or split, on_progress=on_progress)
    refuse_other_task(folder, state, task)
    asked, config = config, _settled(config, task.n_train, state)
    if asked != config:
        log.info("%s", by_rule(config, task.n_train))
        on_progress("train", 0 if state is None else state.epoch, config.n_epochs, by_rule(config, task.n_train))
    if task.graph_summary is not None:
        log.info("%s", graph_sentence(task.graph_summary))
    model, optimizer = make_model(task, config, device)
    placement = choose_placement(store, task.examples, device=device, wanted=config.home)
    log.info("%s", placement)
    warnings = [*saved_warnings, *task.warnings, *model.start_warnings()]
    setting, within = machine(device, precision), None
    if state is None:
        state = RunState(epoch=0, step=0, config=config.to_dict(), task=task.identity, machine=setting)
    else:
        other_setting = refuse_other_machine(folder, state, setting, deterministic=config.deterministic)
        warnings += other_setting
        for warning in (*saved_warnings, *other_setting):  # now, and not when the training is over
            log.warning("%s", warning)
        state.config = config.to_dict()
        restore(folder, state, model, optimizer)
        if state.within is not None:
            gradients = state.within.get("gradients")
            sums = EpochSums(
                steps=state.within["steps"],
                sums=tuple(state.within["sums"]),
                gradients=None if gradients is None else tuple(gradients),
            )
            within = sums, saved_random(folder, state)
    with saving(folder, "the files of a new run", whole_epochs=state.epoch):
        about = describe_run(
            folder,
            store,
            task,
            epoch=state.epoch,
            placement=placement,
            device=device,
            precision=precision,
            n_parameters=model.n_parameters,
            warnings=warnings,
        )
        history = write_start(folder, state, config, task, about)
    if [record.epoch for record in history] != list(range(1, state.epoch + 1)):
        warnings.append(f"{folder / 'metrics.jsonl'}: lines of earlier epochs are lost; weights are not touched")
    return OpenRun(
        started_s=started_s,
        folder=folder,
        store=store,
        config=config,
        task=task,
        model=model,
        optimizer=optimizer,
        device=device,
        precision=precision,
        placement=placement,
        state=state,
        within=within,
        history=history,
        warnings=warnings,
    )


def _settled(config: TrainConfig, n_train: int, state: RunState | None) -> TrainConfig:
    """Return the config with epochs and learning rate as numbers: those of the run so far, or by the rule."""
    if state is not None:
        begun = {name: state.config[name] for name in ("epochs", "lr") if getattr(config, name) is None}
        config = dataclasses.replace(config, **begun)
    return config.settled(n_train)


def by_rule(config: TrainConfig, n_train: int) -> str:
    """The line that says how long a run is to learn, and how fast."""
    steps = counted(config.steps_per_epoch(n_train), "step")
    return (
        f"{config.n_epochs} epochs of {steps}, learning rate {config.learning_rate:g}, by the "
        "number of training tracks; --epochs and --lr change that"
    )


def make_model(task: Task, config: TrainConfig, device: torch.device) -> tuple[System, torch.optim.Optimizer]:
    """Build the system of a task with the weights that the seed gives, and its optimizer."""
    with seeded(config.seed, 0, torch.device("cpu")):
        model = build_system(
            task.model,
            adjacency=None if task.graph is None else task.graph.adjacency,
            genre_embedding=task.genre_embedding,
            mel_mean=task.statistics.mean_db,
            mel_std=task.statistics.std_db,
        )
    if config.prior_bias:
        model.start_at_prior(task.train_labels.sum(axis=0), task.n_train)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.compile:
        model.compile()
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    decaying = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return model, kind(groups, lr=config.learning_rate, fused=device.type == "cuda")
