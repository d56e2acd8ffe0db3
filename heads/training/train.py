"""Training: from a feature store and a config to a run folder.

A run folder holds ``config.yaml`` (what was asked), ``run.json`` (what that came to), ``splits.json``,
``metrics.jsonl`` (a line an epoch), ``last/`` (the checkpoints to resume from) and ``best/`` (the model to use); with
an event log, ``events.*`` for TensorBoard.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...cache.errors import StoppedError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..config import TrainConfig
from ..data.batches import FeatureBatches, Placement, choose_placement
from ..data.splits import Split
from ..data.task import Task, prepare
from ..device import compiling, deterministic, machine, resolve_device, resolve_precision, reused_memory
from ..evaluation.scoring import probabilities, score_logits
from ..metrics.thresholds import Thresholds, tune_thresholds
from ..metrics.validation import is_better, learnt_nothing, validation_intervals, validation_metrics
from ..model.graph import graph_sentence
from ..model.system import System
from ..model.systems import build_system
from ..runs.checkpoint import RunState, restore, save_state, saved_random
from ..runs.folder import (
    Publisher,
    describe_run,
    open_run,
    refuse_other_machine,
    refuse_other_task,
    saving,
    this_session,
    write_start,
)
from ..runs.history import EpochRecord, append_record
from .loop import EpochSums, seeded, train_epoch

log = logging.getLogger(__name__)

SAVE_EVERY_S = 600.0
"""Between checkpoints inside an epoch: what a kill may cost where epochs are long."""


class EpochLog(Protocol):
    """Told of every epoch once it is committed; :class:`mgc.heads.runs.tensorboard.EventLog` is one."""

    def append(self, record: EpochRecord) -> None: ...
    def close(self) -> None: ...


StartEpochLog = Callable[[Path, Sequence[EpochRecord]], EpochLog]
"""Made of the run folder and the records of the epochs that are done."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to.

    Attributes
    ----------
    history : every epoch's record, those before a resume included.
    best_epoch, best_map : the epoch published in ``best/`` and its validation mAP.
    task : split, genres, filters' counts and warnings.
    placement : where the features were kept; None if nothing was left to train.
    """

    run: Path
    history: tuple[EpochRecord, ...]
    best_epoch: int
    best_map: float | None
    thresholds: Thresholds
    task: Task
    placement: Placement | None
    device: str
    precision: str
    n_parameters: int
    seconds: float
    stopped_early: bool
    warnings: tuple[str, ...]


def train(
    store: FeatureStore,
    run: Path,
    config: TrainConfig,
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    split: Split | None = None,
    resume: bool = False,
    save_every_s: float = SAVE_EVERY_S,
    stop: Callable[[], bool] | None = None,
    epoch_log: StartEpochLog | None = None,
    on_progress: Progress = silent,
) -> RunResult:
    """Train a model.

    Parameters
    ----------
    run : folder to make.
    labels : genres by track id instead of the store's own.
    split : the tracks of each split, instead of those that the config's policy makes; a run resumed keeps its own.
    resume : go on where the run in this folder stopped; a run that has saved nothing yet starts again. `config` and
        the tracks must be the run's, except that `epochs` may grow. On the CPU the weights are the same, bit for bit,
        as those of a run never stopped.
    save_every_s : seconds between checkpoints inside an epoch; each end of an epoch is one anyway.
    stop : asked after each step; once it says True, the run saves where it is and ends.
    epoch_log : opened when training starts, and told of every epoch beside ``metrics.jsonl``.

    Raises
    ------
    RunError
        If the folder holds a run already (without `resume`), or another one's (with it).
    ConfigError, TrainingError
        If the store lacks what the config needs, nothing is left to learn from, or a loss is not finite.
    SaveError
        If the disk is full or fails; the checkpoints that were there are whole.
    StoppedError
        If `stop` said so.

    Notes
    -----
    Ru et al. 2023, section 3: Adam, learning rate 1e-4 halved every 50 epochs, batches of 16.
    """
    device = resolve_device(config.device)
    with deterministic(config.deterministic), compiling(config.compile):
        training = _Training(store, run, config, device, labels, split, resume, save_every_s, stop, on_progress)
        with training.logging_epochs(epoch_log):
            return training.finish()


class _Training:
    """A run at work: what it learns from, the model, and how far it is."""

    def __init__(
        self,
        store: FeatureStore,
        run: Path,
        config: TrainConfig,
        device: torch.device,
        labels: Mapping[str, Sequence[str]] | None,
        split: Split | None,
        resume: bool,
        save_every_s: float,
        stop: Callable[[], bool] | None,
        on_progress: Progress,
    ) -> None:
        self.started = self.saved = time.monotonic()
        self.store, self.run, self.config, self.device = store, run, config, device
        self.save_every_s = save_every_s
        self.stop = stop or (lambda: False)
        self.on_progress = on_progress
        self.epoch_log: EpochLog | None = None
        self.precision = resolve_precision(config.precision, device)
        opened = open_run(run, config, resume=resume)
        self.task = prepare(
            store, config, labels=labels, split=opened.split or split, on_progress=self._taking_statistics
        )
        refuse_other_task(run, opened.state, self.task)
        if self.task.graph_summary is not None:
            log.info("%s", graph_sentence(self.task.graph_summary))
        self.model, self.optimizer = make_model(self.task, config, device)
        self.warnings = [*opened.warnings, *self.task.warnings, *self.model.start_warnings()]
        self.placement = choose_placement(store, self.task.examples, device=device, wanted=config.home)
        log.info("%s", self.placement)
        setting = machine(device, self.precision)
        self.state = opened.state or RunState(
            epoch=0, step=0, config=config.to_dict(), task=self.task.identity, machine=setting
        )
        self.start: tuple[EpochSums, dict[str, Tensor]] | None = None
        if opened.state is not None:
            moved = refuse_other_machine(run, self.state, setting, deterministic=config.deterministic)
            self.warnings += moved
            for warning in (*opened.warnings, *moved):  # now, and not when the training is over
                log.warning("%s", warning)
            self._restore()
        self.about = describe_run(store, self.task, self.placement, device, self.precision, self.model, self.warnings)
        with saving(run, "the files of a new run", self._safe()):
            session = this_session(epoch=self.state.epoch, device=device, precision=self.precision)
            self.history = write_start(run, self.state, config, self.task, self.about, session)
        if [record.epoch for record in self.history] != list(range(1, self.state.epoch + 1)):
            self.warnings.append(f"{run / 'metrics.jsonl'}: lines of earlier epochs are lost; weights are not touched")
        self.publisher = Publisher(run=run, store=store, task=self.task, config=config, precision=self.precision,
                                   n_parameters=self.about["n_parameters"])  # fmt: skip

    @contextmanager
    def logging_epochs(self, start: StartEpochLog | None) -> Iterator[None]:
        if start is None:
            yield
            return
        with saving(self.run, "the epoch log", self._safe()):
            self.epoch_log = start(self.run, self.history)
        try:
            yield
        finally:
            self.epoch_log.close()

    def finish(self) -> RunResult:
        """Train until nothing is left to do."""
        state = self.state
        with saving(self.run, "best/", self._safe()):
            self.publisher.repair(state)
        something_was_left = self._goes_on()
        if something_was_left:
            batches = FeatureBatches(self.store, self.task.examples, placement=self.placement, device=self.device,
                                     text_dim=self.task.model.text_dim)  # fmt: skip
            with reused_memory(self.device):
                while self._goes_on():
                    self._end_epoch(self._epoch(batches))
        nothing = learnt_nothing(self.task.examples.labels[self.task.n_train :], state.best_map)
        return RunResult(
            run=self.run,
            history=tuple(self.history),
            best_epoch=state.best_epoch,
            best_map=state.best_map,
            thresholds=Thresholds.from_dict(state.best["thresholds"]),
            task=self.task,
            placement=self.placement if something_was_left else None,
            device=str(self.device),
            precision=self.precision,
            n_parameters=self.about["n_parameters"],
            seconds=time.monotonic() - self.started,
            stopped_early=state.stopped_early,
            warnings=(*self.warnings, *([] if nothing is None else [nothing])),
        )

    def _goes_on(self) -> bool:
        return self.state.epoch < self.config.epochs and not self.state.stopped_early

    def _epoch(self, batches: FeatureBatches) -> EpochRecord:
        """Train and validate once; brings the state to the end of the epoch."""
        state, task, config, epoch = self.state, self.task, self.config, self.state.epoch + 1
        self.epoch_started = time.monotonic() - (0.0 if state.within is None else state.within["seconds"])
        sums = train_epoch(
            self.model, self.optimizer, batches, task.n_train, config, epoch=epoch, device=self.device,
            precision=self.precision, start=self.start, wants_save=self._wants_save, save=self._save_within,
        )  # fmt: skip
        index = np.arange(task.n_train, len(task.examples), dtype=np.int64)

        def look(step: str, done: int, total: int, note: str = "") -> None:
            if self.stop():
                self._save_within(sums, {})

        logits = score_logits(self.model, batches, index, batch_size=config.batch_size, on_progress=look)
        truth, scores = task.examples.labels[index], probabilities(logits).astype(np.float64)
        validation = validation_metrics(truth, scores, logits.astype(np.float64))
        state.epoch, state.step, state.within, self.start = epoch, state.step + sums.steps, None, None
        if is_better(validation, state.best.get("validation")):
            state.best_epoch, state.best_map = epoch, validation["map"]
            thresholds = tune_thresholds(truth, scores)
            intervals = validation_intervals(truth, scores, thresholds, task.groups[task.n_train :])
            state.best = {"thresholds": thresholds.to_dict(), "validation": validation, "intervals": intervals}
        return self._record(sums, validation)

    def _end_epoch(self, record: EpochRecord) -> None:
        """Commit the epoch, publish what is best, tell."""
        state, config = self.state, self.config
        if config.patience is not None and state.epoch - state.best_epoch >= config.patience:
            state.stopped_early = True
        with saving(self.run, f"the checkpoint of epoch {state.epoch}", self._safe(before=state.epoch)):
            append_record(self.run / "metrics.jsonl", record)
            save_state(self.run, state, self.model, self.optimizer)
        self.saved = time.monotonic()
        if state.best_epoch == state.epoch:
            with saving(self.run, "best/", self._safe()):
                self.publisher.publish(state)
        self.history.append(record)
        if self.epoch_log is not None:
            with saving(self.run, "the epoch log", self._safe()):
                self.epoch_log.append(record)
        log.info("epoch %d: loss %.4f, validation mAP %s, %.1f s", record.epoch, record.loss, record.val_map,
                 record.seconds)  # fmt: skip
        validated = "" if record.val_map is None else f", validation mAP {record.val_map:.3f}"
        self.on_progress("train", state.epoch, config.epochs, f"loss {record.loss:.3f}{validated}")
        if self.stop() and state.epoch < config.epochs and not state.stopped_early:
            raise StoppedError(f"{self.run}: stopped after epoch {state.epoch}, which is saved; go on with --resume")

    def _restore(self) -> None:
        state = self.state
        state.config = self.config.to_dict()
        restore(self.run, state, self.model, self.optimizer)
        if state.within is not None:
            sums = EpochSums(steps=state.within["steps"], sums=tuple(state.within["sums"]))
            self.start = sums, saved_random(self.run, state)

    def _wants_save(self) -> bool:
        return self.stop() or time.monotonic() - self.saved >= self.save_every_s

    def _save_within(self, sums: EpochSums, random: dict[str, Tensor]) -> None:
        """Commit a point inside the epoch; there the run ends if it was asked to.

        Raises
        ------
        StoppedError
        """
        state, epoch = self.state, self.state.epoch + 1
        within = {"steps": sums.steps, "sums": list(sums.sums), "seconds": time.monotonic() - self.epoch_started}
        point = dataclasses.replace(state, within=within)
        with saving(self.run, f"a checkpoint within epoch {epoch}", self._safe()):
            save_state(self.run, point, self.model, self.optimizer, random=random)
        self.saved = time.monotonic()
        if self.stop():
            raise StoppedError(f"{self.run}: stopped in epoch {epoch} after {sums.steps} steps, which are saved; go on "
                               "with --resume")  # fmt: skip

    def _safe(self, before: int | None = None) -> str:
        """What is on disk and whole."""
        epoch = self.state.epoch if before is None else before - 1
        return f"the run is whole up to epoch {epoch}" if epoch else "no epoch was saved before"

    def _taking_statistics(self, step: str, done: int, total: int, note: str = "") -> None:
        self.on_progress(step, done, total, note)
        if self.stop():
            raise StoppedError(f"{self.run}: stopped before the first step; nothing new was to be saved")

    def _record(self, sums: EpochSums, validation: Mapping[str, float | None]) -> EpochRecord:
        loss, contrastive, classification = (value / self.task.n_train for value in sums.sums)
        return EpochRecord(
            epoch=self.state.epoch,
            step=self.state.step,
            lr=self.config.lr_at(self.state.epoch - 1),
            loss=loss,
            contrastive=contrastive,
            classification=classification,
            tau=None if self.model.tau is None else float(self.model.tau.detach()),
            val_bce=validation["bce"],
            val_map=validation["map"],
            val_jaccard=validation["jaccard"],
            val_empty_share=validation["empty_share"],
            seconds=round(time.monotonic() - self.epoch_started, 3),
        )


def make_model(task: Task, config: TrainConfig, device: torch.device) -> tuple[System, torch.optim.Optimizer]:
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
    optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=device.type == "cuda")
    return model, optimizer
