"""Training speed on a CUDA device: samples/s, what waiting for data costs, a roofline, the paper's whole training.

Run: python benchmarks/gpu.py > benchmarks/gpu.md    on a machine with a CUDA device
     python benchmarks/gpu.py --device cpu           a dry run: the same code on the CPU, which shows nothing about CUDA

Exit code: 0 done, 3 there is no CUDA device and nothing was measured.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cuda_device import NO_DEVICE, device_given, is_missing
from gpu_check import DRY, FULL, Size, make_store
from machine import describe
from pairs import Times, in_turn, spread, table
from torch.utils.flop_counter import FlopCounterMode

from mgc.heads.config import PRESETS, TrainConfig
from mgc.heads.data.batches import FeatureBatches, choose_placement, epoch_batches
from mgc.heads.data.task import Task, prepare
from mgc.heads.device import resolve_precision
from mgc.heads.evaluation.scoring import score
from mgc.heads.model.batch import Batch
from mgc.heads.model.losses import total_loss
from mgc.heads.model.system import System
from mgc.heads.training.loop import EpochSums, train_epoch
from mgc.heads.training.start import make_model

PAPER_TRAIN, PAPER_VALIDATION, PAPER_EPOCHS = 30_555, 4_365, 100
TRAIN, READY = "as training reads them", "batches laid ready"


@dataclass(frozen=True)
class Load:
    """How much is measured; lyrics of a store are 4 tokens to `size.max_tokens` long, evenly spread."""

    size: Size
    n_train: int
    n_validation: int
    batch_sizes: tuple[int, ...]
    compiled: tuple[bool, ...]
    epochs_a_run: int
    rounds: int
    matrix: int


ON_CUDA = Load(replace(FULL, max_tokens=512), 512, 128, (16, 256), (False, True), epochs_a_run=4, rounds=5, matrix=8192)
ON_CPU = Load(replace(DRY, clip_s=0.8), 8, 4, (4, 8), (False,), epochs_a_run=1, rounds=1, matrix=256)


class ReadyBatches:
    """The batches of one epoch on the device, handed out in its order again and again."""

    def __init__(self, batches: FeatureBatches, order: list[np.ndarray]) -> None:
        self.examples = batches.examples
        self._batches = [batches.batch(index) for index in order]

    def __call__(self, indices: Iterable[Any]) -> Iterator[Batch]:
        return (batch for batch, _ in zip(self._batches, indices, strict=True))


class Training:
    """A model at work on a store of noise with batches of one size."""

    def __init__(self, task: Task, batches: FeatureBatches, config: TrainConfig, device: torch.device, precision: str):
        self.task, self.batches, self.config, self.device, self.precision = task, batches, config, device, precision
        self.model, self.optimizer = make_model(task, config, device)
        self.ready = ReadyBatches(batches, epoch_batches(task.n_train, config.batch_size, seed=config.seed, epoch=1))

    def epoch(self, batches: Any) -> EpochSums:
        """Epoch 1, whichever it is: the order that lies ready."""
        return train_epoch(self.model, self.optimizer, batches, self.task.n_train, self.config, epoch=1,
                           device=self.device, precision=self.precision)  # fmt: skip

    def step_cost(self) -> tuple[float, float]:
        """Operations of one step, and bytes that layers read and write in it."""
        batch = self.batches.batch(np.arange(self.config.batch_size))
        eager = torch.compiler.set_stance("force_eager")
        with eager, FlopCounterMode(display=False) as counter, counted_bytes(self.model) as moved:
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
                outputs = self.model.train()(batch)
            total_loss(outputs, batch, self.config.lambda_).total.backward()
        self.optimizer.zero_grad(set_to_none=True)
        return float(counter.get_total_flops()), 3.0 * moved[0]  # backward reads and writes about twice as much again


class counted_bytes:  # noqa: N801
    """Bytes of what goes into and comes out of each layer in a forward pass."""

    def __init__(self, model: System) -> None:
        self._layers = [module for module in model.modules() if not list(module.children())]
        self._moved = [0.0]

    def __enter__(self) -> list[float]:
        def add(_: Any, given: Any, made: Any) -> None:
            tensors = [one for one in (*given, made) if isinstance(one, torch.Tensor)]
            self._moved[0] += sum(one.numel() * one.element_size() for one in tensors)

        self._hooks = [layer.register_forward_hook(add) for layer in self._layers]
        return self._moved

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def measure(load: Load, device: torch.device, folder: Path) -> None:
    """Print everything."""
    store = make_store(load.size, folder / "noise.zarr", load.n_train, load.n_validation)
    config = TrainConfig(**{**PRESETS["paper"], "split": "manifest", "encoder": load.size.encoder,
                            "device": device.type, "lr": 1e-9})  # fmt: skip
    precision = resolve_precision(config.precision, device)
    task = prepare(store, config)
    home = choose_placement(store, task.examples, device=device)
    batches = FeatureBatches(store, task.examples, placement=home, device=device)
    peaks = peak_rates(load.matrix, device, precision)
    n_tokens = task.examples.lyrics_tokens.mean()
    print(f"\n{load.n_train} tracks of {load.size.clip_s:g} s, {n_tokens:.0f} tokens a lyric on average; encoder "
          f"{load.size.encoder}, {precision}; {home}. Matrix product {peaks[0] / 1e12:.2f} TFLOP/s, copying "
          f"{peaks[1] / 1e9:.0f} GB/s, both measured here.")  # fmt: skip
    steps, roofs, rates = [], [], {}
    for batch_size, compiled in itertools.product(load.batch_sizes, load.compiled):
        name = f"{batch_size}, compiled" if compiled else str(batch_size)
        asked = replace(config, batch_size=batch_size, compile=compiled)
        training = Training(task, batches, asked, device, precision)
        times = timed(training, load)
        n = load.n_train * load.epochs_a_run
        rates[name] = [n / seconds for seconds in times.seconds[TRAIN]]
        waiting = [1 - r / t for r, t in zip(times.seconds[READY], times.seconds[TRAIN], strict=True)]
        steps.append([name, spread(rates[name], 1, 0), spread(waiting, 100, 1)])
        roofs.append([name, *roofline(training, peaks, times.median(TRAIN) / n * batch_size)])
    print(table("Training", ["batch", "samples/s", "% of a step spent waiting for data"], steps))
    print("\nThe same batches laid ready on the device give the same losses (compared in each round); the time that "
          "they save is the waiting.")  # fmt: skip
    header = ["batch", "GFLOP a step", "GB a step", "roofline, ms", "bound by", "measured, ms", "share of the roofline"]
    print(table("Roofline", header, roofs))
    print("\nThe roofline is the larger of operations over the rate of matrix products and bytes of layers' inputs and "
          "outputs over that of copying; fused layers could move fewer bytes.")  # fmt: skip
    project(training, load, rates, config.batch_size)


def timed(training: Training, load: Load) -> Times:
    """Epochs with batches gathered and with batches laid ready, in turn."""

    def run(batches: Any) -> Callable[[], EpochSums]:
        return lambda: [training.epoch(batches) for _ in range(load.epochs_a_run)][-1]

    return in_turn({TRAIN: run(training.batches), READY: run(training.ready)}, rounds=load.rounds, agree=same_losses)


def same_losses(one: EpochSums, other: EpochSums) -> str | None:
    return None if np.allclose(one.sums, other.sums, rtol=1e-2) else f"{one.sums} against {other.sums}"


def roofline(training: Training, peaks: tuple[float, float], step_s: float) -> list[object]:
    operations, moved = training.step_cost()
    by_operations, by_bytes = operations / peaks[0], moved / peaks[1]
    bound = max(by_operations, by_bytes)
    return [f"{operations / 1e9:.4g}", f"{moved / 1e9:.3g}", f"{bound * 1e3:.2f}",
            "operations" if bound == by_operations else "memory", f"{step_s * 1e3:.2f}",
            f"{bound / step_s:.2f}"]  # fmt: skip


def project(training: Training, load: Load, rates: dict[str, list[float]], batch_size: int) -> None:
    """The paper's training: its split, its number of epochs, validation after each."""
    index = np.arange(load.n_train, load.n_train + load.n_validation)
    scoring = in_turn({"": lambda: score(training.model, training.batches, index, batch_size=batch_size)},
                      rounds=load.rounds)  # fmt: skip
    score_s = scoring.median("") / load.n_validation * PAPER_VALIDATION
    rows = []
    for name, rate in rates.items():
        minutes = [PAPER_EPOCHS * (PAPER_TRAIN / one + score_s) / 60 for one in rate]
        rows.append([name, spread(minutes, 1, 1)])
    print(table(f"The paper's training: {PAPER_TRAIN} tracks, {PAPER_EPOCHS} epochs, {PAPER_VALIDATION} to validate on",
                ["batch", "minutes, projected"], rows))  # fmt: skip
    print("\nWithout reading the features once at the start, checkpoints, and the metrics of each epoch.")


def peak_rates(n: int, device: torch.device, precision: str) -> tuple[float, float]:
    """Operations a second of a large matrix product, bytes a second of a copy, read and written."""
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    product_s = best_of(lambda: a @ a, device)
    copy_s = best_of(lambda: a.clone(), device)
    return 2 * n**3 / product_s, 2 * a.numel() * a.element_size() / copy_s


def best_of(work: Callable[[], object], device: torch.device, tries: int = 10) -> float:
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> int:
    device, name = device_given(__doc__)
    if is_missing(device, "measured"):
        return NO_DEVICE
    print(f"# Training speed: {name}\n\ntorch {torch.__version__}; {describe()}. Printed by benchmarks/gpu.py: median "
          "[lowest, highest] of the rounds.")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        measure(ON_CUDA if device.type == "cuda" else ON_CPU, device, Path(scratch))
    if device.type == "cuda":
        print(f"\nPeak of device memory: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB.")
    else:
        print("\nThis was a dry run on the CPU: the code works; nothing was learnt about CUDA.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
