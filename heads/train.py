"""Training: from a feature store and a config to a run folder.

A run folder holds ``config.yaml`` (what was asked), ``run.json`` (what that came to), ``splits.json``,
``metrics.jsonl`` (a line an epoch), ``last/`` (the checkpoint to resume from) and ``best/`` (the model to use).
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cache.durable import replace_file, seal
from ..cache.errors import RunError
from ..cache.store import FeatureStore
from .bundle import bundle_files, weights_sha256
from .card import CardFacts
from .checkpoint import RunState, load_state, publish_folder, restore, save_state, state_file
from .config import TrainConfig
from .data import FeatureBatches, Home, choose_home
from .device import resolve_device, resolve_precision
from .history import EpochRecord, append_record, rewind_history
from .loop import EpochLosses, seeded, train_epoch
from .scoring import probabilities, score_logits
from .splits import Split
from .system import System
from .systems import build_system
from .task import Task, prepare
from .thresholds import Thresholds, tune_thresholds
from .validation import is_better, validation_intervals, validation_metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What `on_progress` is told: `done` of `total` in a stage.

    Attributes
    ----------
    stage : ``statistics`` (tracks), ``train`` (steps of an epoch), ``validate`` (tracks) or ``epoch`` (epochs).
    epoch : current epoch, from 1; 0 before the first.
    record : the epoch's record, at the end of an epoch only.
    """

    stage: str
    done: int
    total: int
    epoch: int = 0
    record: EpochRecord | None = None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to.

    Attributes
    ----------
    history : every epoch's record, those before a resume included.
    best_epoch, best_map : the epoch published in ``best/`` and its validation mAP.
    task : split, genres, filters' counts and warnings.
    home : where the features were kept; None if nothing was left to train.
    """

    run: Path
    history: tuple[EpochRecord, ...]
    best_epoch: int
    best_map: float | None
    thresholds: Thresholds
    task: Task
    home: Home | None
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
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> RunResult:
    """Train a model.

    Parameters
    ----------
    run : folder to make.
    labels : genres by track id instead of the store's own.
    resume : go on where the run in this folder stopped; a run that never ended an epoch starts again. `config` and
        the tracks must be the run's, except that `epochs` may grow. On the CPU the weights are the same, bit for bit,
        as those of a run never stopped.

    Raises
    ------
    RunError
        If the folder holds a run already (without `resume`), or another one's (with it).
    ConfigError, TrainingError
        If the store lacks what the config needs, nothing is left to learn from, or a loss is not finite.

    Notes
    -----
    Ru et al. 2023, section 3: Adam, learning rate 1e-4 halved every 50 epochs, batches of 16.
    """
    started = time.monotonic()
    tell = on_progress or (lambda _: None)
    state, split = _open_run(run, config, resume=resume)
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    task = prepare(store, config, labels=labels, split=split,
                   on_track=lambda done, total: tell(Progress(stage="statistics", done=done, total=total)))  # fmt: skip
    _refuse_other_task(run, state, task)
    model, optimizer = _make_model(task, config, device)
    warnings = [*task.warnings, *model.start_warnings()]
    home = choose_home(store, task.examples, device=device, wanted=config.home)
    if state is None:
        state = RunState(epoch=0, step=0, config=config.to_dict(), task=task.identity)
    else:
        state.config = config.to_dict()
        restore(run, state, model, optimizer)
    about = _description(store, task, home, device, precision, model, warnings)
    history = _write_start(run, state, config, task, about)
    publisher = _Publisher(run=run, store=store, task=task, config=config, precision=precision,
                           n_parameters=about["n_parameters"])  # fmt: skip
    publisher.repair(state)
    batches = None
    while state.epoch < config.epochs and not state.stopped_early:
        if batches is None:
            batches = FeatureBatches(store, task.examples, home=home, device=device, text_dim=task.model.text_dim)
        record = _epoch(state, model, optimizer, batches, task, config, device, precision, tell)
        history.append(record)
        log.info("epoch %d: loss %.4f, validation mAP %s, %.1f s", record.epoch, record.loss, record.val_map,
                 record.seconds)  # fmt: skip
        append_record(run / "metrics.jsonl", record)
        if config.patience is not None and state.epoch - state.best_epoch >= config.patience:
            state.stopped_early = True
        save_state(run, state, model, optimizer)
        if state.best_epoch == state.epoch:
            publisher.publish(state)
        tell(Progress(stage="epoch", done=state.epoch, total=config.epochs, epoch=state.epoch, record=record))
    return RunResult(
        run=run,
        history=tuple(history),
        best_epoch=state.best_epoch,
        best_map=state.best_map,
        thresholds=Thresholds.from_dict(state.best["thresholds"]),
        task=task,
        home=None if batches is None else home,
        device=str(device),
        precision=precision,
        n_parameters=about["n_parameters"],
        seconds=time.monotonic() - started,
        stopped_early=state.stopped_early,
        warnings=tuple(warnings),
    )


def _open_run(run: Path, config: TrainConfig, *, resume: bool) -> tuple[RunState | None, Split | None]:
    """State and split of a run to resume; None and None for one to start."""
    used = [name for name in ("config.yaml", "last", "best") if (run / name).exists()]
    if used and not resume:
        raise RunError(f"{run}: there is a run here already ({', '.join(used)}); resume it, or give another folder")
    state = load_state(run)
    if state is None:
        return None, None
    differences = config.differences(TrainConfig.from_dict(state.config))
    if differences:
        raise RunError(f"{run}: this run was started with other options: {'; '.join(differences)}; resume with the "
                       "same ones, or start a new run")  # fmt: skip
    return state, Split.load(run / "splits.json")


def _write_start(
    run: Path, state: RunState, config: TrainConfig, task: Task, about: dict[str, Any]
) -> list[EpochRecord]:
    """Write what is known before the first epoch; returns the records of the epochs that are done."""
    run.mkdir(parents=True, exist_ok=True)
    if state.epoch == 0:
        task.split.save(run / "splits.json")
    replace_file(run / "config.yaml", config.to_yaml().encode())
    replace_file(run / "run.json", seal(about))
    return rewind_history(run / "metrics.jsonl", state.epoch)


def _refuse_other_task(run: Path, state: RunState | None, task: Task) -> None:
    if state is None or state.task == task.identity:
        return
    names = {"fingerprints": "recipe fingerprints", "genres": "genres to learn", "n_tracks": "number of tracks",
             "tracks_sha256": "audio, lyrics or labels of the training and validation tracks"}  # fmt: skip
    found = [names[key] for key in names if state.task.get(key) != task.identity[key]]
    raise RunError(f"{run}: this run was started on other data: it differs in {', '.join(found)}; resume with the "
                   "store it was started on, or start a new run")  # fmt: skip


def _make_model(task: Task, config: TrainConfig, device: torch.device) -> tuple[System, torch.optim.Optimizer]:
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
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=device.type == "cuda")
    return model, optimizer


def _epoch(
    state: RunState,
    model: System,
    optimizer: torch.optim.Optimizer,
    batches: FeatureBatches,
    task: Task,
    config: TrainConfig,
    device: torch.device,
    precision: str,
    tell: Callable[[Progress], None],
) -> EpochRecord:
    """Train and validate once; brings `state` to the end of the epoch."""
    started, epoch = time.monotonic(), state.epoch + 1
    losses = train_epoch(
        model, optimizer, batches, task.n_train, config, epoch=epoch, device=device, precision=precision,
        on_step=lambda done, total: tell(Progress(stage="train", done=done, total=total, epoch=epoch)),
    )  # fmt: skip
    index = np.arange(task.n_train, len(task.examples), dtype=np.int64)
    logits = score_logits(
        model, batches, index, batch_size=config.batch_size,
        on_batch=lambda done: tell(Progress(stage="validate", done=done, total=len(index), epoch=epoch)),
    )  # fmt: skip
    truth, scores = task.examples.labels[index], probabilities(logits).astype(np.float64)
    validation = validation_metrics(truth, scores, logits.astype(np.float64))
    state.epoch, state.step = epoch, state.step + losses.n_steps
    if is_better(validation, state.best.get("validation")):
        state.best_epoch, state.best_map = epoch, validation["map"]
        thresholds = tune_thresholds(truth, scores)
        intervals = validation_intervals(truth, scores, thresholds, task.groups[task.n_train :])
        state.best = {"thresholds": thresholds.to_dict(), "validation": validation, "intervals": intervals}
    return _record(state, losses, validation, config.lr_at(epoch - 1), model, time.monotonic() - started)


def _record(
    state: RunState, losses: EpochLosses, validation: Mapping[str, float | None], lr: float, model: System, s: float
) -> EpochRecord:
    return EpochRecord(
        epoch=state.epoch,
        step=state.step,
        lr=lr,
        loss=losses.total,
        contrastive=losses.contrastive,
        classification=losses.classification,
        tau=None if model.tau is None else float(model.tau.detach()),
        val_bce=validation["bce"],
        val_map=validation["map"],
        val_jaccard=validation["jaccard"],
        val_empty_share=validation["empty_share"],
        seconds=round(s, 3),
    )


@dataclass(frozen=True, kw_only=True)
class _Publisher:
    """Makes ``best/`` of a run's state."""

    run: Path
    store: FeatureStore
    task: Task
    config: TrainConfig
    precision: str
    n_parameters: int

    def publish(self, state: RunState) -> None:
        facts = CardFacts(
            epoch=state.best_epoch,
            n_parameters=self.n_parameters,
            precision=self.precision,
            thresholds=Thresholds.from_dict(state.best["thresholds"]),
            validation=state.best["validation"],
            intervals=state.best["intervals"],
        )
        weights = state_file(self.run, state, "best").read_bytes()
        files = bundle_files(self.task, self.config, self.store.recipe, facts, weights=weights)
        publish_folder(self.run / "best", files)

    def repair(self, state: RunState) -> None:
        """Publish again where a kill fell between the checkpoint and ``best/``."""
        if state.best_epoch and weights_sha256(self.run / "best") != state.files["best"]["sha256"]:
            self.publish(state)


def _description(
    store: FeatureStore,
    task: Task,
    home: Home,
    device: torch.device,
    precision: str,
    model: System,
    warnings: Sequence[str],
) -> dict[str, Any]:
    return {
        "store": store.path.name,
        "fingerprints": dict(store.fingerprints),
        "split": {"policy": task.split.policy, "requested": task.split.requested, "sizes": task.split.sizes},
        "genres": list(task.genres.names),
        "kept": [dataclasses.asdict(kept) for kept in task.kept],
        "n_train": task.n_train,
        "n_validation": len(task.examples) - task.n_train,
        "n_train_without_lyrics": task.n_without_lyrics,
        "home": dataclasses.asdict(home),
        "device": str(device),
        "precision": precision,
        "torch": torch.__version__,
        "n_threads": torch.get_num_threads(),
        "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "warnings": list(warnings),
    }
