"""Train a model on a feature store, and write a run folder.

A run folder holds ``config.yaml`` (options), ``run.json`` (provenance), ``splits.json``, ``metrics.jsonl`` (one line
per epoch), ``last/`` (checkpoints to resume from), ``best/`` (the published model), and ``events.*`` for TensorBoard if
requested.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...cache.durable import fsync_dir
from ...cache.errors import StoppedError
from ...cache.messages import counted
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..config import TrainConfig
from ..data.batches import FeatureBatches, Placement
from ..data.labels import GenresById, left_out
from ..data.splits import Split
from ..data.task import Task
from ..device import compiling, deterministic, resolve_device, reused_memory
from ..evaluation.predict import probabilities, score
from ..metrics.thresholds import Thresholds, tune_thresholds
from ..metrics.validation import is_better, validation_intervals, validation_metrics, warning_of_constant_scores
from ..runs.checkpoint import WEIGHTS, publish_folder, save_state, state_file, sweep_points
from ..runs.folder import saving
from ..runs.history import EVENTS, EpochRecord, append_record, training_seconds, warning_of_gradient_ratio
from ..runs.model_card import CardFacts
from ..runs.published_model import bundle_files, has_intervals, weights_sha256
from ..runs.tensor_files import load_weights
from .loop import EpochSums, train_epoch
from .start import OpenRun, epochs_left, exclusive, open_run

log = logging.getLogger(__name__)

SAVE_EVERY_S = 600.0
"""Seconds between checkpoints within an epoch, which limit the loss by a kill in long epochs."""


class EpochLog(Protocol):
    """Receiver of every committed epoch, such as :class:`mgc.heads.runs.tensorboard.EventLog`."""

    def append(self, record: EpochRecord) -> None: ...
    def close(self) -> None: ...


StartEpochLog = Callable[[Path, Sequence[EpochRecord]], EpochLog]
"""Factory of an :class:`EpochLog`, from the run folder and the records of completed epochs."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """Result of a training.

    Attributes
    ----------
    history : records of all epochs, including those before a resume.
    best_epoch, best_map : the epoch published in ``best/`` and its validation mAP.
    task : split, genres, counts of filters, and warnings.
    placement : feature placement; None if no epoch was left to train.
    seconds : time that the epochs took, in all sessions of the run.
    """

    run: Path
    config: TrainConfig
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

    @property
    def nothing_to_do(self) -> str | None:
        """A sentence if the run was finished before; else None."""
        if self.placement is not None:
            return None
        return f"nothing to do: this run is finished, with {counted(len(self.history), 'epoch')}"

    @property
    def remarks(self) -> list[str]:
        """Counts of filters, split, feature placement and warnings, one sentence each."""
        split = self.task.split
        sizes = ", ".join(f"{name} {size}" for name, size in self.task.sizes.items())
        return [
            *filter(None, [self.nothing_to_do]),
            *left_out(self.task.filters),
            f"split {split.policy}: {sizes}",
            *([f"feature placement: {self.placement}"] if self.placement is not None else []),
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values, without paths and remarks."""
        return {
            "epochs": len(self.history),
            "best_epoch": self.best_epoch,
            "best_validation_map": self.best_map,
            "first_loss": self.history[0].loss if self.history else None,
            "last_loss": self.history[-1].loss if self.history else None,
            "split": {"policy": self.task.split.policy, **self.task.sizes},
            "genres": list(self.task.genres.names),
            "preset": self.config.preset,
            "learning_rate": self.config.learning_rate,
            "threshold": self.thresholds.overall,
            "threshold_tuned_on": self.thresholds.n_tracks,
            "device": self.device,
            "precision": self.precision,
            "n_parameters": self.n_parameters,
            "seconds": round(self.seconds, 2),
            "stopped_early": self.stopped_early,
            "nothing_to_do": self.nothing_to_do,
        }


def train(
    store: FeatureStore,
    run: Path,
    config: TrainConfig,
    *,
    labels: GenresById | None = None,
    split: Split | None = None,
    resume: bool = False,
    save_every_s: float = SAVE_EVERY_S,
    stop: Callable[[], bool] | None = None,
    epoch_log: StartEpochLog | None = None,
    on_warning: Callable[[str], None] = log.warning,
    on_progress: Progress = silent,
) -> TrainingResult:
    """Train a model.

    Parameters
    ----------
    run : run folder.
    labels : genres by track id that replace those of the store.
    split : split to use instead of that of the config's policy; a resumed run keeps its own.
    resume : continue the run in the folder; a run without a checkpoint starts again. `config` and the tracks must be
        those of the run, except that `epochs` may grow. A finished run needs no `resume`. On the CPU, the weights are
        those of an uninterrupted run, bit for bit.
    save_every_s : seconds between checkpoints within an epoch; the end of each epoch is saved in any case.
    stop : polled after each step. Once it returns True, the run saves a checkpoint and ends.
    epoch_log : opened when training starts; receives every committed epoch, like ``metrics.jsonl``.
    on_warning : receives each warning that is known before the first step, the most severe first.

    Raises
    ------
    RunError
        If the folder holds an unfinished run and `resume` is False, or a run with other options, data or bits.
    ConfigError, TrainingError
        If the store lacks features that the config needs, the filters leave too little, or a loss is not finite.
    SaveError
        If the disk is full or fails. Earlier checkpoints stay intact.
    StoppedError
        If `stop` returned True.

    Notes
    -----
    Ru et al. 2023, section 3: Adam, learning rate 1e-4 halved every 50 epochs, batches of 16.
    """
    stop = stop or (lambda: False)
    device = resolve_device(config.device)

    def stop_while_preparing(step: str, done: int, total: int, note: str = "") -> None:
        on_progress(step, done, total, note)
        if stop():
            raise StoppedError(f"{run}: stopped before the first step, with nothing to save")

    with exclusive(run), deterministic(config.deterministic), compiling(bool(config.compile)):
        opened = open_run(
            store,
            run,
            config,
            device=device,
            labels=labels,
            split=split,
            resume=resume,
            on_warning=on_warning,
            on_progress=stop_while_preparing,
        )
        training = _Training(opened, save_every_s=save_every_s, stop=stop, on_progress=on_progress)
        is_logged = opened.state.is_finished and any(run.glob(EVENTS))
        with training.logging_epochs(None if is_logged else epoch_log):
            return training.finish()


class _Training:
    """The epochs of a run: train, validate, save, publish."""

    def __init__(self, run: OpenRun, *, save_every_s: float, stop: Callable[[], bool], on_progress: Progress) -> None:
        self.run, self.state = run, run.state
        self.save_every_s, self.stop, self.on_progress = save_every_s, stop, on_progress
        self.saved_s = self.epoch_started_s = run.started_s
        self.epoch_log: EpochLog | None = None
        self.best_scores: npt.NDArray[np.float64] | None = None

    @contextmanager
    def logging_epochs(self, start: StartEpochLog | None) -> Iterator[None]:
        if start is None:
            yield
            return
        with saving(self.run.folder, "the epoch log", saved_epochs=self.state.epoch):
            self.epoch_log = start(self.run.folder, self.run.history)
        with closing(self.epoch_log):
            yield

    def finish(self) -> TrainingResult:
        """Perform the remaining epochs."""
        run, state, task = self.run, self.state, self.run.task
        with saving(run.folder, "best/", saved_epochs=state.epoch):
            if state.best_epoch and weights_sha256(run.folder / "best") != state.files["best"]["sha256"]:
                self._publish()  # a kill came between the checkpoint and best/
            if not self._epochs_left():  # after a kill or a power cut, older checkpoints may remain
                sweep_points(run.folder / "last", at_most=state.point)
                fsync_dir(run.folder / "last")
        placement = run.placement if self._epochs_left() or not has_intervals(run.folder / "best") else None
        if placement is not None:
            batches = FeatureBatches(
                run.store, task.examples, placement=placement, device=run.device, text_dim=task.model.text_dim
            )
            with reused_memory(run.device):
                while self._epochs_left():
                    self._end_epoch(self._epoch(batches))
                self._publish_intervals(batches)
        constant_scores = warning_of_constant_scores(task.examples.labels[task.n_train :], state.best_map)
        return TrainingResult(
            run=run.folder,
            config=run.config,
            history=tuple(run.history),
            best_epoch=state.best_epoch,
            best_map=state.best_map,
            thresholds=Thresholds.from_dict(state.best["thresholds"]),
            task=task,
            placement=placement,
            device=str(run.device),
            precision=run.precision,
            n_parameters=run.model.n_parameters,
            seconds=training_seconds(run.history),
            stopped_early=state.stopped_early,
            warnings=(*run.warnings, *filter(None, (constant_scores, warning_of_gradient_ratio(run.history)))),
        )

    def _epochs_left(self) -> bool:
        return epochs_left(self.state, self.run.config)

    def _epoch(self, batches: FeatureBatches) -> EpochRecord:
        """Train and validate for one epoch, and update the state."""
        run, state, task, epoch = self.run, self.state, self.run.task, self.state.epoch + 1
        self.epoch_started_s = time.monotonic() - (0.0 if state.within is None else state.within["seconds"])
        sums = train_epoch(
            run,
            batches,
            task.n_train,
            epoch=epoch,
            start=run.within,
            wants_save=self._wants_save,
            save=self._save_within,
        )

        def stop_while_validating(step: str, done: int, total: int, note: str = "") -> None:
            if self.stop():
                self._save_within(sums, {})

        logits = self._validation_logits(batches, stop_while_validating)
        truth, scores = task.examples.labels[task.n_train :], probabilities(logits).astype(np.float64)
        validation = validation_metrics(truth, scores, logits.astype(np.float64))
        state.epoch, state.step, state.within, run.within = epoch, state.step + sums.steps, None, None
        if is_better(validation, state.best.get("validation")):
            state.best_epoch, state.best_map = epoch, validation["map"]
            thresholds = tune_thresholds(truth, scores)
            values = validation_intervals(truth, scores, thresholds, task.groups[task.n_train :], n_replicates=0)
            state.best = {"thresholds": thresholds.to_dict(), "validation": validation, "intervals": values}
            self.best_scores = scores
        return self._record(sums, validation)

    def _end_epoch(self, record: EpochRecord) -> None:
        """Commit the epoch, publish it if it is the best, and report it."""
        run, state, config = self.run, self.state, self.run.config
        if config.patience is not None and state.epoch - state.best_epoch >= config.patience:
            state.stopped_early = True
        with saving(run.folder, f"the checkpoint of epoch {state.epoch}", saved_epochs=state.epoch - 1):
            append_record(run.folder / "metrics.jsonl", record)
            save_state(run.folder, state, run.model, run.optimizer)
        self.saved_s = time.monotonic()
        if state.best_epoch == state.epoch:
            with saving(run.folder, "best/", saved_epochs=state.epoch):
                self._publish()
        run.history.append(record)
        if self.epoch_log is not None:
            with saving(run.folder, "the epoch log", saved_epochs=state.epoch):
                self.epoch_log.append(record)
        message = "epoch %d: loss %.4f, validation mAP %s, %.1f s"
        log.info(message, record.epoch, record.loss, record.val_map, record.seconds)
        validated = "" if record.val_map is None else f", validation mAP {record.val_map:.3f}"
        self.on_progress("train", state.epoch, config.n_epochs, f"loss {record.loss:.3f}{validated}")
        if self.stop() and self._epochs_left():
            raise StoppedError(f"{run.folder}: stopped after epoch {state.epoch}, saved. Continue with --resume.")

    def _validation_logits(self, batches: FeatureBatches, on_progress: Progress = silent) -> npt.NDArray[np.float32]:
        """Return the logits of the validation tracks: (track, genre)."""
        run, task = self.run, self.run.task
        index = np.arange(task.n_train, len(task.examples), dtype=np.int64)
        outputs = score(run.model, batches, index, batch_size=run.config.batch_size, tf32=True, on_progress=on_progress)
        return outputs.logits

    def _publish_intervals(self, batches: FeatureBatches) -> None:
        """Publish the best epoch again, with confidence intervals.

        They take longer than an epoch's validation, so they are computed once. After a resume the scores of the best
        epoch may be lost; they are then computed from its weights.
        """
        run, task, best = self.run, self.run.task, self.state.best
        if has_intervals(run.folder / "best"):
            return
        if self.best_scores is None:
            load_weights(run.model, run.folder / "best" / WEIGHTS)
            self.best_scores = probabilities(self._validation_logits(batches)).astype(np.float64)
        truth, groups = task.examples.labels[task.n_train :], task.groups[task.n_train :]
        intervals = validation_intervals(truth, self.best_scores, Thresholds.from_dict(best["thresholds"]), groups)
        with saving(run.folder, "best/", saved_epochs=self.state.epoch):
            self._publish(intervals)

    def _publish(self, intervals: Mapping[str, Mapping[str, float | None]] | None = None) -> None:
        """Publish the best epoch so far to ``best/``; `intervals` are those of a finished run."""
        run, state, best = self.run, self.state, self.state.best
        facts = CardFacts(
            epoch=state.best_epoch,
            n_parameters=run.model.n_parameters,
            precision=run.precision,
            thresholds=Thresholds.from_dict(best["thresholds"]),
            validation=best["validation"],
            estimates=best["intervals"] if intervals is None else intervals,
            finished=intervals is not None,
        )
        weights = state_file(run.folder, state, "best").read_bytes()
        files = bundle_files(run.task, run.config, run.store, facts, weights=weights)
        publish_folder(run.folder / "best", files)

    def _wants_save(self) -> bool:
        return self.stop() or time.monotonic() - self.saved_s >= self.save_every_s

    def _save_within(self, sums: EpochSums, random: dict[str, Tensor]) -> None:
        """Commit a checkpoint within the epoch.

        Raises
        ------
        StoppedError
            If `stop` returns True.
        """
        run, epoch = self.run, self.state.epoch + 1
        within = {
            "steps": sums.steps,
            "sums": list(sums.sums),
            "gradients": None if sums.gradients is None else list(sums.gradients),
            "seconds": time.monotonic() - self.epoch_started_s,
        }
        point = dataclasses.replace(self.state, within=within)
        with saving(run.folder, f"a checkpoint within epoch {epoch}", saved_epochs=self.state.epoch):
            save_state(run.folder, point, run.model, run.optimizer, random=random)
        self.saved_s = time.monotonic()
        if self.stop():
            steps = counted(sums.steps, "step")
            raise StoppedError(f"{run.folder}: stopped in epoch {epoch} after {steps}, saved. Continue with --resume.")

    def _record(self, sums: EpochSums, validation: Mapping[str, float | None]) -> EpochRecord:
        run, tau = self.run, self.run.model.tau
        loss, contrastive, classification = (value / run.task.n_train for value in sums.sums)
        return EpochRecord(
            epoch=self.state.epoch,
            step=self.state.step,
            lr=run.config.lr_at(self.state.epoch - 1),
            loss=loss,
            contrastive=contrastive,
            classification=classification,
            tau=None if tau is None else float(tau.detach()),
            val_bce=validation["bce"],
            val_map=validation["map"],
            val_jaccard=validation["jaccard"],
            val_empty_share=validation["empty_share"],
            seconds=round(time.monotonic() - self.epoch_started_s, 3),
            gradient_contrastive=None if sums.gradients is None else sums.gradients[0],
            gradient_classification=None if sums.gradients is None else sums.gradients[1],
        )
