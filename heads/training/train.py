"""Training: from a feature store and a config to a run folder.

A run folder holds ``config.yaml`` (what was asked), ``run.json`` (what that came to), ``splits.json``,
``metrics.jsonl`` (a line an epoch), ``last/`` (the checkpoints to resume from) and ``best/`` (the model to use); with
an event log, ``events.*`` for TensorBoard.
"""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ...cache.durable import fsync_dir
from ...cache.errors import StoppedError
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..config import TrainConfig
from ..data.batches import FeatureBatches, Placement
from ..data.labels import GenresById
from ..data.splits import Split
from ..data.task import Task
from ..device import compiling, deterministic, resolve_device, reused_memory
from ..evaluation.predict import probabilities, score
from ..metrics.thresholds import Thresholds, tune_thresholds
from ..metrics.validation import is_better, learnt_nothing, validation_intervals, validation_metrics
from ..runs.checkpoint import publish_folder, save_state, state_file, sweep_points
from ..runs.folder import saving
from ..runs.history import EpochRecord, append_record
from ..runs.model_card import CardFacts
from ..runs.published_model import bundle_files, weights_sha256
from .loop import EpochSums, train_epoch
from .start import OpenRun, only_training, open_run

log = logging.getLogger(__name__)

SAVE_EVERY_S = 600.0
"""Between checkpoints inside an epoch: what a kill may cost where epochs are long."""


MAX_RATIO = 10.0
"""Of the audio-lyrics loss's gradient over that of the classification loss."""


class EpochLog(Protocol):
    """Receives every epoch once it is committed; :class:`mgc.heads.runs.tensorboard.EventLog` is one."""

    def append(self, record: EpochRecord) -> None: ...
    def close(self) -> None: ...


StartEpochLog = Callable[[Path, Sequence[EpochRecord]], EpochLog]
"""Made of the run folder and the records of the epochs that are done."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """The outcome of a training.

    Attributes
    ----------
    history : every epoch's record, those before a resume included.
    best_epoch, best_map : the epoch published in ``best/`` and its validation mAP.
    task : split, genres, filters' counts and warnings.
    placement : where the features were kept; None if nothing was left to train.
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
    def remarks(self) -> list[str]:
        """What the filters left, the split, the placement, and the warnings, a sentence each."""
        split = self.task.split
        sizes = ", ".join(f"{name} {size}" for name, size in split.sizes.items())
        return [
            *(str(count) for count in self.task.filters),
            f"split {split.policy}: {sizes}",
            *([f"features kept in: {self.placement}"] if self.placement is not None else []),
            *(f"warning: {warning}" for warning in self.warnings),
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON values; no path, and none of the remarks."""
        return {
            "epochs": len(self.history),
            "best_epoch": self.best_epoch,
            "best_validation_map": self.best_map,
            "first_loss": self.history[0].loss if self.history else None,
            "last_loss": self.history[-1].loss if self.history else None,
            "split": {"policy": self.task.split.policy, **self.task.split.sizes},
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
    on_progress: Progress = silent,
) -> TrainingResult:
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
    epoch_log : opened when training starts; receives every epoch, as ``metrics.jsonl`` does.

    Raises
    ------
    RunError
        If the folder holds a run already (without `resume`), or one of other options, data or bits (with it).
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
    stop = stop or (lambda: False)
    device = resolve_device(config.device)

    def stop_while_preparing(step: str, done: int, total: int, note: str = "") -> None:
        on_progress(step, done, total, note)
        if stop():
            raise StoppedError(f"{run}: stopped before the first step; nothing new was to be saved")

    with only_training(run), deterministic(config.deterministic), compiling(config.compile):
        opened = open_run(
            store,
            run,
            config,
            device=device,
            labels=labels,
            split=split,
            resume=resume,
            on_progress=stop_while_preparing,
        )
        training = _Training(opened, save_every_s=save_every_s, stop=stop, on_progress=on_progress)
        with training.logging_epochs(epoch_log):
            return training.finish()


def drowned(history: Sequence[EpochRecord]) -> str | None:
    """Return a warning where the audio-lyrics loss drowns the other at the shared encoder in most epochs, else None."""
    ratios = [
        record.gradient_contrastive / record.gradient_classification
        for record in history
        if record.gradient_contrastive and record.gradient_classification
    ]
    ratio = statistics.median(ratios) if ratios else 0.0
    if ratio <= MAX_RATIO:
        return None
    return (
        f"at the audio encoder the gradient of the audio-lyrics loss is {ratio:.0f} times that of the classification "
        "loss (median over epochs), so the encoder learns little about genres; lower lambda, or set bce_reduction=sum"
    )


class _Training:
    """The epochs of a run: trains, validates, saves, publishes."""

    def __init__(self, run: OpenRun, *, save_every_s: float, stop: Callable[[], bool], on_progress: Progress) -> None:
        self.run, self.state = run, run.state
        self.save_every_s, self.stop, self.on_progress = save_every_s, stop, on_progress
        self.saved_s = self.epoch_started_s = run.started_s
        self.epoch_log: EpochLog | None = None

    @contextmanager
    def logging_epochs(self, start: StartEpochLog | None) -> Iterator[None]:
        if start is None:
            yield
            return
        with saving(self.run.folder, "the epoch log", whole_epochs=self.state.epoch):
            self.epoch_log = start(self.run.folder, self.run.history)
        with closing(self.epoch_log):
            yield

    def finish(self) -> TrainingResult:
        """Train until no epoch is left."""
        run, state, task = self.run, self.state, self.run.task
        with saving(run.folder, "best/", whole_epochs=state.epoch):
            if state.best_epoch and weights_sha256(run.folder / "best") != state.files["best"]["sha256"]:
                self._publish()  # a kill fell between the checkpoint and best/
            if not self._epochs_left():  # a kill or a power cut may have left older checkpoints, which no save removes
                sweep_points(run.folder / "last", at_most=state.point)
                fsync_dir(run.folder / "last")
        placement = run.placement if self._epochs_left() else None
        if placement is not None:
            batches = FeatureBatches(
                run.store, task.examples, placement=placement, device=run.device, text_dim=task.model.text_dim
            )
            with reused_memory(run.device):
                while self._epochs_left():
                    self._end_epoch(self._epoch(batches))
        nothing = learnt_nothing(task.examples.labels[task.n_train :], state.best_map)
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
            seconds=time.monotonic() - run.started_s,
            stopped_early=state.stopped_early,
            warnings=(*run.warnings, *filter(None, (nothing, drowned(run.history)))),
        )

    def _epochs_left(self) -> bool:
        return self.state.epoch < self.run.config.n_epochs and not self.state.stopped_early

    def _epoch(self, batches: FeatureBatches) -> EpochRecord:
        """Train and validate once; brings the state to the end of the epoch."""
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
        index = np.arange(task.n_train, len(task.examples), dtype=np.int64)

        def stop_while_validating(step: str, done: int, total: int, note: str = "") -> None:
            if self.stop():
                self._save_within(sums, {})

        outputs = score(run.model, batches, index, batch_size=run.config.batch_size, on_progress=stop_while_validating)
        truth, scores = task.examples.labels[index], probabilities(outputs.logits).astype(np.float64)
        validation = validation_metrics(truth, scores, outputs.logits.astype(np.float64))
        state.epoch, state.step, state.within, run.within = epoch, state.step + sums.steps, None, None
        if is_better(validation, state.best.get("validation")):
            state.best_epoch, state.best_map = epoch, validation["map"]
            thresholds = tune_thresholds(truth, scores)
            intervals = validation_intervals(truth, scores, thresholds, task.groups[task.n_train :])
            state.best = {"thresholds": thresholds.to_dict(), "validation": validation, "intervals": intervals}
        return self._record(sums, validation)

    def _end_epoch(self, record: EpochRecord) -> None:
        """Commit the epoch, publish what is best, report."""
        run, state, config = self.run, self.state, self.run.config
        if config.patience is not None and state.epoch - state.best_epoch >= config.patience:
            state.stopped_early = True
        with saving(run.folder, f"the checkpoint of epoch {state.epoch}", whole_epochs=state.epoch - 1):
            append_record(run.folder / "metrics.jsonl", record)
            save_state(run.folder, state, run.model, run.optimizer)
        self.saved_s = time.monotonic()
        if state.best_epoch == state.epoch:
            with saving(run.folder, "best/", whole_epochs=state.epoch):
                self._publish()
        run.history.append(record)
        if self.epoch_log is not None:
            with saving(run.folder, "the epoch log", whole_epochs=state.epoch):
                self.epoch_log.append(record)
        message = "epoch %d: loss %.4f, validation mAP %s, %.1f s"
        log.info(message, record.epoch, record.loss, record.val_map, record.seconds)
        validated = "" if record.val_map is None else f", validation mAP {record.val_map:.3f}"
        self.on_progress("train", state.epoch, config.n_epochs, f"loss {record.loss:.3f}{validated}")
        if self.stop() and self._epochs_left():
            raise StoppedError(f"{run.folder}: stopped after epoch {state.epoch}, which is saved; go on with --resume")

    def _publish(self) -> None:
        """Make ``best/`` of the best epoch so far."""
        run, state, best = self.run, self.state, self.state.best
        facts = CardFacts(
            epoch=state.best_epoch,
            n_parameters=run.model.n_parameters,
            precision=run.precision,
            thresholds=Thresholds.from_dict(best["thresholds"]),
            validation=best["validation"],
            intervals=best["intervals"],
        )
        weights = state_file(run.folder, state, "best").read_bytes()
        files = bundle_files(run.task, run.config, run.store.recipe, facts, weights=weights)
        publish_folder(run.folder / "best", files)

    def _wants_save(self) -> bool:
        return self.stop() or time.monotonic() - self.saved_s >= self.save_every_s

    def _save_within(self, sums: EpochSums, random: dict[str, Tensor]) -> None:
        """Commit a point inside the epoch; there the run ends if it was asked to.

        Raises
        ------
        StoppedError
        """
        run, epoch = self.run, self.state.epoch + 1
        within = {
            "steps": sums.steps,
            "sums": list(sums.sums),
            "gradients": None if sums.gradients is None else list(sums.gradients),
            "seconds": time.monotonic() - self.epoch_started_s,
        }
        point = dataclasses.replace(self.state, within=within)
        with saving(run.folder, f"a checkpoint within epoch {epoch}", whole_epochs=self.state.epoch):
            save_state(run.folder, point, run.model, run.optimizer, random=random)
        self.saved_s = time.monotonic()
        if self.stop():
            steps = f"stopped in epoch {epoch} after {sums.steps} steps, which are saved"
            raise StoppedError(f"{run.folder}: {steps}; go on with --resume")

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
