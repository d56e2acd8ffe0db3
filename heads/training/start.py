"""Start a new run, or resume one from its newest checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
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
from ..data.embeddings import require_audio
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
def exclusive(run: Path) -> Iterator[None]:
    """Lock a run folder for the ``with`` block. The lock ends with the process.

    Raises
    ------
    RunError
        If another process trains in the folder.
    SaveError
        If the lock cannot be written.
    """
    lock_file, is_new = run / ".training", not run.exists()
    with contextlib.ExitStack() as stack:
        with saving(run, "the lock of the folder"):
            run.mkdir(parents=True, exist_ok=True)
            lock_file.touch()
            is_locked = stack.enter_context(lock(lock_file))
            if is_locked:
                lock_file.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        if not is_locked:
            owner = ""
            with contextlib.suppress(FileNotFoundError):  # the owner has just exited
                owner = lock_file.read_text()
            owner = owner or "another process"
            raise RunError(f"{run}: {owner} trains in this folder. Wait for it, or use another folder.")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # the lock ends with the process, and the folder of a run has files
                lock_file.unlink(missing_ok=True)
                if is_new:
                    run.rmdir()


@dataclass(kw_only=True)
class OpenRun(Learner):
    """A run that is ready to train: its task, model and state.

    Attributes
    ----------
    started_s : time at which it was opened, by ``time.monotonic``.
    state : state at the end of the last epoch, which training updates.
    within : sums of an interrupted epoch, and the states of torch's generators; None at the end of an epoch.
    history : records of the completed epochs.
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
    on_warning: Callable[[str], None],
    on_progress: Progress,
) -> OpenRun:
    """Start or resume a run; parameters and errors as in :func:`mgc.heads.training.train.train`."""
    started_s = time.monotonic()
    precision = resolve_precision(config.precision, device)
    state, saved_split, saved_warnings = read_saved(folder, config, resume=resume)
    store = require_audio(store, config.added_audio)
    task = prepare(store, config, labels=labels, split=saved_split or split, on_progress=on_progress)
    refuse_other_task(folder, state, task)
    requested, config = config, _settled(config, task.n_train, state)
    finished = state is not None and not epochs_left(state, config)
    if requested != config and not finished:
        line = by_rule(requested, config, task.n_train)
        log.info("%s", line)
        on_progress("train", 0 if state is None else state.epoch, config.n_epochs, line)
    if task.graph_summary is not None:
        log.info("%s", graph_sentence(task.graph_summary))
    model, optimizer = make_model(task, config, device)
    placement = choose_placement(store, task.examples, device=device, wanted=config.placement)
    log.info("%s", placement)
    warnings = [*saved_warnings, *task.warnings, *model.start_warnings()]
    setting, within = machine(device, precision), None
    if state is None:
        state = RunState(epoch=0, step=0, config=config.to_dict(), task=task.identity, machine=setting)
    else:
        if not finished:
            warnings += refuse_other_machine(folder, state, setting, deterministic=config.deterministic)
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
    with saving(folder, "the files of a new run", saved_epochs=state.epoch):
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
        history = write_start(folder, state, config, task, about, finished=finished)
    if [record.epoch for record in history] != list(range(1, state.epoch + 1)):
        lost = f"{folder / 'metrics.jsonl'}: lines of earlier epochs are missing; weights are not affected"
        warnings.append(lost)
        saved_warnings.append(lost)
    for warning in saved_warnings if finished else warnings:
        on_warning(warning)
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


def epochs_left(state: RunState, config: TrainConfig) -> bool:
    """Whether a run has epochs to train, with a settled config."""
    return state.epoch < config.n_epochs and not state.stopped_early


def _settled(config: TrainConfig, n_train: int, state: RunState | None) -> TrainConfig:
    """Return the config with epochs and learning rate as numbers: those of a resumed run, or by the rule."""
    if state is not None:
        saved = {name: state.config[name] for name in ("epochs", "lr") if getattr(config, name) is None}
        config = dataclasses.replace(config, **saved)
    return config.settled(n_train)


def by_rule(requested: TrainConfig, config: TrainConfig, n_train: int) -> str:
    """Return the log line with those of the epochs and the learning rate that the rule has set."""
    epochs = f"{counted(config.n_epochs, 'epoch')} of {counted(config.steps_per_epoch(n_train), 'step')}"
    rate = f"learning rate {config.learning_rate:g}"
    if requested.epochs is not None:
        return f"{rate}, by the number of steps; set it with --lr"
    if requested.lr is not None:
        return f"{epochs}, by the number of training tracks; set it with --epochs"
    return f"{epochs}, {rate}, by the number of training tracks; set them with --epochs and --lr"


def make_model(task: Task, config: TrainConfig, device: torch.device) -> tuple[System, torch.optim.Optimizer]:
    """Build the system of a task with initial weights by the seed, and its optimizer."""
    with seeded(config.seed, 0, torch.device("cpu")):
        model = build_system(
            task.model,
            adjacency=None if task.graph is None else task.graph.adjacency,
            genre_embedding=task.genre_embedding,
            mel_mean=task.statistics.mean_db,
            mel_std=task.statistics.std_db,
            embedding_statistics={name: (of.mean, of.std) for name, of in task.embedding_statistics.items()},
        )
    if config.prior_bias:
        model.start_at_prior(task.train_labels.sum(axis=0), task.n_train)
    model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    decaying = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return model, kind(groups, lr=config.learning_rate, fused=device.type in ("cuda", "cpu"))
