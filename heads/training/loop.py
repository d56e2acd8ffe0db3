"""Train one epoch: steps, losses, and an error for values that are not finite."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...cache.errors import TrainingError
from ..config import TrainConfig
from ..data.batches import FeatureBatches, Index, epoch_batches
from ..model.batch import Batch
from ..model.losses import gradient_norms, total_loss
from ..model.system import System
from .augment import augment_batch

_CHECK_EVERY = {"cpu": 1, "cuda": 16}
"""Number of steps between checks of the loss; on a GPU, each check makes the host wait."""


_WARM_UP_STEPS = 8
"""Steps of an epoch before a model is compiled by default. In shorter epochs, compiling takes longer than it saves."""


@dataclass(kw_only=True)
class Learner:
    """Model in training.

    Attributes
    ----------
    precision : ``bf16`` runs the forward pass under autocast; losses and weights are float32.
    compiled : whether the steps of the model are compiled.
    """

    model: System
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    device: torch.device
    precision: str
    compiled: bool = False

    def start_step(self, step: int) -> None:
        """Compile the model before the first step with ``compile=True``; with None, on CUDA after `_WARM_UP_STEPS`.

        One graph serves all lengths and batch sizes (``dynamic``); a CUDA graph is recorded per shape of a batch. With
        None, a model that torch cannot compile is trained without compilation.
        """
        enabled, on_cuda = self.config.compile, self.device.type == "cuda"
        if not self.compiled and (enabled or (enabled is None and on_cuda and step > _WARM_UP_STEPS)):
            torch._dynamo.config.suppress_errors = enabled is None
            self.model.compile(dynamic=True, mode="reduce-overhead" if on_cuda else None)
            self.compiled = True
        if self.compiled and on_cuda:
            # From now on, a CUDA graph may overwrite the outputs of the last step.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class EpochSums:
    """Progress of an epoch.

    Attributes
    ----------
    steps : completed optimizer steps.
    sums : sums over the tracks of these steps: total, contrastive and classification loss.
    gradients : :func:`mgc.heads.model.losses.gradient_norms` of the first batch; None if undefined.
    """

    steps: int
    sums: tuple[float, float, float]
    gradients: tuple[float, float] | None = None


@contextlib.contextmanager
def seeded(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators with (seed, epoch) within the block, and restore them after it.

    Epoch 0 is the initialisation of the model; epochs of training count from 1.
    """
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(state[0]))
        yield


def train_epoch(
    learner: Learner,
    batches: FeatureBatches,
    n_train: int,
    *,
    epoch: int,
    start: tuple[EpochSums, Mapping[str, Tensor]] | None = None,
    wants_save: Callable[[], bool] | None = None,
    save: Callable[[EpochSums, dict[str, Tensor]], None] | None = None,
) -> EpochSums:
    """Train for one epoch on the first `n_train` examples of `batches`.

    Parameters
    ----------
    epoch : counted from 1; order and dropout are a function of seed and epoch.
    start : arguments of `save` at the point where the epoch was interrupted.
    wants_save : polled after each step; True calls `save`.
    save : receives the progress of the epoch, and the states of torch's generators.

    Raises
    ------
    TrainingError
        If a loss or a gradient is not finite. The message lists the tracks.
    """
    model, optimizer, config, device = learner.model, learner.optimizer, learner.config, learner.device
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = config.lr_at(epoch - 1)
    lambda_ = config.lambda_at(epoch - 1)
    order = epoch_batches(n_train, config.batch_size, seed=config.seed, epoch=epoch)
    done, random = start if start is not None else (EpochSums(steps=0, sums=(0.0, 0.0, 0.0)), {})
    sums = torch.tensor(done.sums, device=device, dtype=torch.float64)
    norms = None if done.gradients is None else torch.tensor(done.gradients)
    unchecked: list[tuple[Tensor, Index]] = []
    with seeded(config.seed, epoch, device):
        _set_random(random, device)
        for step, batch in enumerate(batches(order[done.steps :]), start=done.steps + 1):
            learner.start_step(step)
            changed = augment_batch(batch, config)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=learner.precision == "bf16"):
                outputs = model(changed)
            losses = total_loss(
                outputs, changed, lambda_, loss=config.loss, sum_over_genres=config.bce_reduction == "sum"
            )
            if step == 1:
                norms = gradient_norms(outputs, losses, lambda_)
            optimizer.zero_grad(set_to_none=True)
            losses.total.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            optimizer.step()
            model.clamp_temperature()
            parts = torch.stack([losses.total, losses.contrastive, losses.classification]).detach()
            sums += parts.double() * len(batch)
            unchecked.append((parts[0] + norm, order[step - 1]))
            saving = wants_save is not None and wants_save()
            if len(unchecked) >= _CHECK_EVERY.get(device.type, 1) or step == len(order) or saving:
                _refuse_nonfinite(unchecked, batches, epoch)
                unchecked.clear()
            if saving and save is not None:
                save(_epoch_sums(step, sums, norms), _random(device))
    return _epoch_sums(len(order), sums, norms)


def _epoch_sums(steps: int, sums: Tensor, norms: Tensor | None) -> EpochSums:
    total, contrastive, classification = sums.tolist()
    gradients = None if norms is None else (float(norms[0]), float(norms[1]))
    return EpochSums(steps=steps, sums=(total, contrastive, classification), gradients=gradients)


def _random(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random(states: Mapping[str, Tensor], device: torch.device) -> None:
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _refuse_nonfinite(steps: list[tuple[Tensor, Index]], batches: FeatureBatches, epoch: int) -> None:
    """Raise if a value is not finite; all values are copied from the device at once."""
    finite = torch.stack([value for value, _ in steps]).isfinite().tolist()
    if all(finite):
        return
    batch = batches.batch(steps[finite.index(False)][1])
    ids = dict(zip(batches.examples.rows.tolist(), batches.examples.ids, strict=True))
    problem = f"epoch {epoch}: loss or gradient is not finite"
    if rows := _nonfinite_rows(batch):
        tracks = ", ".join(ids[row] for row in rows)
        raise TrainingError(
            f"{problem}: stored features of {tracks} are not finite. Extract into a new store, or exclude them."
        )
    tracks = ", ".join(ids[row] for row in batch.rows.tolist())
    raise TrainingError(
        f"{problem} in the batch of {tracks}, whose features are finite. Use a lower --lr, or --precision fp32."
    )


def _nonfinite_rows(batch: Batch) -> list[int]:
    """Return the rows with valid frames, tokens or embeddings that are not finite."""
    frames = torch.arange(batch.mel.shape[2], device=batch.mel.device) < batch.mel_frames[:, None]
    finite = (batch.mel.isfinite() | ~frames[:, None, :]).flatten(1).all(1)
    for values in (batch.lyrics, batch.lyrics_pooled, *(values for values, _ in batch.embeddings.values())):
        finite &= values.isfinite().flatten(1).all(1)
    rows: list[int] = batch.rows[~finite].tolist()
    return rows
