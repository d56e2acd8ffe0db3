"""One epoch of training: steps, losses, and a stop where numbers stop being numbers."""

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
"""Steps between looks at the loss; each look makes the host wait for a GPU."""


_WARM_UP_STEPS = 8
"""Steps of an epoch before a model is compiled unasked; with fewer, compiling is not worth its time."""


@dataclass(kw_only=True)
class Learner:
    """A model in training; `precision` ``bf16`` runs its forward pass under autocast, losses and weights in float32.

    `compiled` : whether the model's steps are compiled by now.
    """

    model: System
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    device: torch.device
    precision: str
    compiled: bool = False

    def start_step(self, step: int) -> None:
        """Compile the model before a step: where that was asked for; on CUDA after a warm-up unless it was refused.

        One graph serves all lengths and batch sizes (``dynamic``); a CUDA graph is recorded per shape of a batch.
        Unasked, a model that torch cannot compile trains as it is.
        """
        wanted, on_cuda = self.config.compile, self.device.type == "cuda"
        if not self.compiled and (wanted or (wanted is None and on_cuda and step > _WARM_UP_STEPS)):
            torch._dynamo.config.suppress_errors = wanted is None
            self.model.compile(dynamic=True, mode="reduce-overhead" if on_cuda else None)
            self.compiled = True
        if self.compiled and on_cuda:
            # From here the outputs of the last step may be overwritten.
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True)
class EpochSums:
    """How far an epoch has come.

    Attributes
    ----------
    steps : optimizer steps done.
    sums : over the tracks of these steps, of the total loss, its contrastive and its classification part.
    gradients : of its first batch, :func:`mgc.heads.model.losses.gradient_norms`; None where there are none.
    """

    steps: int
    sums: tuple[float, float, float]
    gradients: tuple[float, float] | None = None


@contextlib.contextmanager
def seeded(seed: int, epoch: int, device: torch.device) -> Iterator[None]:
    """Torch's random numbers as a function of (seed, epoch), and the caller's generators left as they were.

    Epoch 0 is the making of the model; epochs of training count from 1.
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
    """Train on the first `n_train` examples of `batches` once.

    Parameters
    ----------
    epoch : counted from 1; with the seed it decides order and dropout.
    start : what `save` was given where the epoch was left.
    wants_save : asked after each step whether to `save`.
    save : given how far the epoch is, and the states of torch's generators.

    Raises
    ------
    TrainingError
        If a loss or a gradient is not finite; names the tracks.
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
    """Raise if a value is not finite: with one copy from the device, however many steps there are."""
    finite = torch.stack([value for value, _ in steps]).isfinite().tolist()
    if all(finite):
        return
    batch = batches.batch(steps[finite.index(False)][1])
    ids = dict(zip(batches.examples.rows.tolist(), batches.examples.ids, strict=True))
    problem = f"epoch {epoch}: loss or gradient is not finite"
    if rows := _nonfinite_rows(batch):
        tracks = ", ".join(ids[row] for row in rows)
        raise TrainingError(
            f"{problem}; the stored features of {tracks} are not finite: extract them again, or leave them out"
        )
    tracks = ", ".join(ids[row] for row in batch.rows.tolist())
    raise TrainingError(
        f"{problem} in the batch of {tracks}; their features are finite: try a lower lr, or precision=fp32"
    )


def _nonfinite_rows(batch: Batch) -> list[int]:
    """Rows whose own features, in the frames and tokens that count, are not finite."""
    frames = torch.arange(batch.mel.shape[2], device=batch.mel.device) < batch.mel_frames[:, None]
    mel = (batch.mel.isfinite() | ~frames[:, None, :]).flatten(1).all(1)
    lyrics = batch.lyrics.isfinite().flatten(1).all(1) & batch.lyrics_pooled.isfinite().all(1)
    rows: list[int] = batch.rows[~(mel & lyrics)].tolist()
    return rows
