"""Measure training speed on a CUDA device: samples/s, time waiting for data, roofline, projection of the paper's run.

    python -m benchmarks.gpu.speed > benchmarks/gpu/speed.md
    python -m benchmarks.gpu.speed --device cpu        a dry run, which shows nothing about CUDA

Exit code: 0 done, 3 no CUDA device, nothing measured.
"""

import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.device import NO_DEVICE, is_missing, parse_device
from benchmarks.gpu.training import Training
from benchmarks.machine import print_heading
from benchmarks.timing import Times, in_turn, spread, table
from benchmarks.worlds.noise import DRY, FULL, Size, make_store
from mgc.heads.config import PRESETS, TrainConfig
from mgc.heads.data.batches import FeatureBatches, choose_placement
from mgc.heads.data.task import prepare
from mgc.heads.device import resolve_precision
from mgc.heads.evaluation.predict import score
from mgc.heads.training.loop import EpochSums

PAPER_TRAIN, PAPER_VALIDATION, PAPER_EPOCHS = 30_555, 4_365, 100
TRAIN, READY = "gathered batches", "prepared batches"


@dataclass(frozen=True)
class Load:
    """Amount of work; lyrics of the store have 4 to `size.max_tokens` tokens, uniformly distributed."""

    size: Size
    n_train: int
    n_validation: int
    batch_sizes: tuple[int, ...]
    compiled: tuple[bool, ...]
    epochs_per_run: int
    rounds: int
    matrix: int


ON_CUDA = Load(
    replace(FULL, max_tokens=512), 512, 128, (16, 256), (False, True), epochs_per_run=4, rounds=5, matrix=8192
)
ON_CPU = Load(replace(DRY, clip_s=0.8), 8, 4, (4, 8), (False,), epochs_per_run=1, rounds=1, matrix=256)


def measure(load: Load, device: torch.device, folder: Path) -> None:
    """Print all tables."""
    store = make_store(load.size, folder / "noise.zarr", load.n_train, load.n_validation)
    options = {"split": "manifest", "encoder": load.size.encoder, "device": device.type, "lr": 1e-9}
    config = TrainConfig(**{**PRESETS["paper"], **options})
    precision = resolve_precision(config.precision, device)
    task = prepare(store, config)
    placement = choose_placement(store, task.examples, device=device)
    batches = FeatureBatches(store, task.examples, placement=placement, device=device)
    peaks = peak_rates(load.matrix, device, precision)
    n_tokens = task.examples.lyrics_tokens.mean()
    print(
        f"{load.n_train} tracks of {load.size.clip_s:g} s, {n_tokens:.0f} tokens per lyric on average; encoder "
        f"{load.size.encoder}, {precision}; {placement}. Matrix product {peaks[0] / 1e12:.2f} TFLOP/s, copying "
        f"{peaks[1] / 1e9:.0f} GB/s, both measured on this device."
    )
    steps, roofs, rates = [], [], {}
    for batch_size, compiled in itertools.product(load.batch_sizes, load.compiled):
        name = f"{batch_size}, compiled" if compiled else str(batch_size)
        training = Training(task, batches, replace(config, batch_size=batch_size, compile=compiled), device, precision)
        times = timed(training, load)
        n = load.n_train * load.epochs_per_run
        rates[name] = [n / seconds for seconds in times.seconds[TRAIN]]
        waiting = [1 - r / t for r, t in zip(times.seconds[READY], times.seconds[TRAIN], strict=True)]
        steps.append([name, spread(rates[name], 1, 0), spread(waiting, 100, 1), training.step_kernels()])
        roofs.append([name, *roofline(training, peaks, times.median(TRAIN) / n * batch_size)])
    header = ["batch", "samples/s", "% of a step spent waiting for data", "kernels per step if not compiled"]
    print(table("Training", header, steps))
    print(
        "\nThe waiting time is the difference to the same batches, prepared on the device; their losses are equal "
        "(compared in each round)."
    )
    header = ["batch", "GFLOP per step", "GB per step", "roofline, ms", "bound by", "measured, ms", "share of roofline"]
    print(table("Roofline", header, roofs))
    print(
        "\nThe roofline is the larger of two times: operations divided by the rate of matrix products, and bytes of "
        "inputs and outputs of layers divided by the rate of copying. Fused layers could move fewer bytes."
    )
    project(training, load, rates, config.batch_size)


def timed(training: Training, load: Load) -> Times:
    """Time epochs with gathered and with prepared batches, in turn."""

    def run(batches: Any) -> Callable[[], EpochSums]:
        return lambda: [training.epoch(batches) for _ in range(load.epochs_per_run)][-1]

    return in_turn({TRAIN: run(training.batches), READY: run(training.ready)}, rounds=load.rounds, agree=same_losses)


def same_losses(reference: EpochSums, other: EpochSums) -> str | None:
    return None if np.allclose(reference.sums, other.sums, rtol=1e-2) else f"{reference.sums} against {other.sums}"


def roofline(training: Training, peaks: tuple[float, float], step_s: float) -> list[object]:
    """Return the cells of one row of the roofline table."""
    operations, moved = training.step_cost()
    by_operations, by_bytes = operations / peaks[0], moved / peaks[1]
    bound = max(by_operations, by_bytes)
    return [
        f"{operations / 1e9:.4g}",
        f"{moved / 1e9:.3g}",
        f"{bound * 1e3:.2f}",
        "operations" if bound == by_operations else "memory",
        f"{step_s * 1e3:.2f}",
        f"{bound / step_s:.2f}",
    ]


def project(training: Training, load: Load, rates: dict[str, list[float]], batch_size: int) -> None:
    """Project the time of the paper's training: its split, its number of epochs, validation after each."""
    index = np.arange(load.n_train, load.n_train + load.n_validation)
    scoring = in_turn(
        {"": lambda: score(training.model, training.batches, index, batch_size=batch_size)}, rounds=load.rounds
    )
    score_s = scoring.median("") / load.n_validation * PAPER_VALIDATION
    rows = []
    for name, samples_per_s in rates.items():
        minutes = [PAPER_EPOCHS * (PAPER_TRAIN / rate + score_s) / 60 for rate in samples_per_s]
        rows.append([name, spread(minutes, 1, 1)])
    title = f"The paper's training: {PAPER_TRAIN} tracks, {PAPER_EPOCHS} epochs, {PAPER_VALIDATION} validation tracks"
    print(table(title, ["batch", "minutes, projected"], rows))
    print("\nThe projection leaves out the reading of features at the start, checkpoints, and the metrics per epoch.")


def peak_rates(n: int, device: torch.device, precision: str) -> tuple[float, float]:
    """Measure operations per second of a large matrix product, and bytes per second (read and written) of a copy."""
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    product_s = best_of(lambda: a @ a, device)
    copy_s = best_of(lambda: a.clone(), device)
    return 2 * n**3 / product_s, 2 * a.numel() * a.element_size() / copy_s


def best_of(work: Callable[[], object], device: torch.device, repeats: int = 10) -> float:
    """Return the time in s of the fastest of several calls."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main() -> int:
    device, name = parse_device(__doc__)
    if is_missing(device, "measured"):
        return NO_DEVICE
    note = ": median [lowest, highest] of the rounds."
    print_heading(f"Training speed: {name}", __file__, note, torch_version=torch.__version__)
    with tempfile.TemporaryDirectory() as scratch:
        measure(ON_CUDA if device.type == "cuda" else ON_CPU, device, Path(scratch))
    if device.type == "cuda":
        print(f"\nPeak of device memory: {torch.cuda.max_memory_allocated() / 1e9:.2f} GB.")
    else:
        print("\nDry run on the CPU: it tests the code, not CUDA.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
