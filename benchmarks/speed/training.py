"""Time training steps on the CPU: the loop of the PyTorch tutorial over .npz files and mgc, each in its own process."""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.training import Training
from benchmarks.speed import rivals, whole_process
from benchmarks.timing import in_turn, spread, table
from benchmarks.worlds.noise import Size, add_noise, make_store
from mgc.cache.machine import cpu_has_bf16
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import PRESETS, TrainConfig
from mgc.heads.data.batches import FeatureBatches, choose_placement, epoch_batches
from mgc.heads.data.embeddings import require_audio
from mgc.heads.data.task import Task, prepare
from mgc.heads.device import reused_memory
from mgc.heads.model.batch import Batch
from mgc.heads.model.losses import total_loss
from mgc.heads.model.system import System
from mgc.heads.training.loop import seeded
from mgc.heads.training.start import make_model

PLAIN = "plain loop: DataLoader with 2 workers over .npz, float32"
BATCH, N_VALIDATION = 16, 4
CPU = torch.device("cpu")
GB = 1e9
_OPEN = ExitStack()


@dataclass(frozen=True)
class Work:
    """Work of every implementation: a store of noise, the model, the number of steps; it is pickled for processes."""

    folder: Path
    encoder: str
    n_steps: int

    @property
    def size(self) -> Size:
        return Size(encoder=self.encoder, text_dim=384, max_tokens=512, clip_s=30.0, epochs=1)

    @property
    def config(self) -> TrainConfig:
        options = {"split": "manifest", "encoder": self.encoder, "device": "cpu", "lr": 1e-6, "batch_size": BATCH}
        return TrainConfig(**{**PRESETS["paper"], **options})

    @property
    def n_tracks(self) -> int:
        return BATCH * self.n_steps

    def open(self) -> tuple[Task, FeatureBatches]:
        return _open(FeatureStore.open(self.folder / "noise.zarr"), self.config)


def _open(store: FeatureStore, config: TrainConfig) -> tuple[Task, FeatureBatches]:
    task = prepare(store, config)
    placement = choose_placement(store, task.examples, device=CPU)
    return task, FeatureBatches(store, task.examples, placement=placement, device=CPU)


def run(folder: Path, encoder: str, n_steps: int, rounds: int) -> str:
    """Time the plain loop, and mgc in each precision, and return the table."""
    work = Work(folder, encoder, n_steps)
    make_store(work.size, folder / "noise.zarr", work.n_tracks, N_VALIDATION)
    write_tracks(work)
    loops: dict[str, Callable[[Work], float]] = {PLAIN: plain_loop}
    for precision in ("bf16", "fp32") if cpu_has_bf16() else ("fp32",):
        loops[f"mgc, {precision}"] = functools.partial(our_loop, precision=precision)
    with process_each(list(loops)) as processes:
        functions = {
            name: lambda name=name, loop=loop: processes[name].submit(loop, work).result()
            for name, loop in loops.items()
        }
        times = in_turn(functions, rounds=rounds, agree=_agree)
        peaks = {name: process.submit(peak_bytes).result() / GB for name, process in processes.items()}
    rate = {name: [work.n_tracks / s for s in times.seconds[name]] for name in loops}
    ratio = {name: "-" if name == PLAIN else times.ratio(PLAIN, name) for name in loops}
    rows = [[name, spread(rate[name], 1, 2), ratio[name], f"{peaks[name]:.2f}"] for name in loops]
    title = f"Training steps: encoder {encoder}, batches of {BATCH} clips of 30 s, one thread"
    note = (
        f"\n\n{n_steps} steps per run, with the same batches, and the same mean loss within 1 % in each round. The "
        "plain loop trains the same layers in the same order. Its token states are padded to 512, those of mgc to the "
        "longest of the batch. It has no checks and no gradient clipping. Each runs in its own process. The memory of "
        "DataLoader's workers is not counted."
    )
    return table(title, ["", "samples/s", "times the plain loop", "GB at most"], rows) + note


def embeddings(folder: Path, n_tracks: int, rounds: int) -> str:
    """Time `mgc train --audio` on an added feature set as a whole process, and project its rate to large stores."""
    path, name, epochs = folder / "embeddings.zarr", "encoder", 15
    make_store(
        Size(encoder="base", text_dim=384, max_tokens=512, clip_s=1.5, epochs=epochs),
        path,
        n_tracks - N_VALIDATION,
        N_VALIDATION,
    ).close()
    add_noise(path, name, 200)
    rows = []
    for modalities in ("both", "audio"):
        options = {"audio": name, "modalities": modalities, "split": "manifest", "device": "cpu", "epochs": epochs}
        command = [sys.executable, "-m", "mgc", "train", path]
        command += [word for option, value in options.items() for word in (f"--{option}", value)]
        runs = [whole_process.run([*command, "-o", folder / f"{modalities}{turn}"]) for turn in range(rounds)]
        precision = "bf16" if cpu_has_bf16() else "fp32"
        config = TrainConfig(**{**options, "audio": (name,)})
        with require_audio(FeatureStore.open(path), [name]) as store:
            training = Training(*_open(store, config), config, CPU, precision)
            rates = [training.task.n_train / _epoch_s(training) for _ in range(rounds + 1)][1:]
        seconds = [spread([getattr(run, kind) for run in runs], 1, 1) for kind in ("cpu_s", "seconds")]
        hours = epochs * 100_000 / statistics.median(rates) / 3600
        rows.append([modalities, *seconds, spread(rates, 1, 0), f"{hours:.2g}"])
    title = f"`mgc train --audio NAME`: {epochs} epochs on vectors of a pretrained encoder, {n_tracks} tracks"
    note = (
        "\n\nThe whole command: start, training, validation per epoch, checkpoints and report page. samples/s: of the "
        f"steps alone, one thread, {precision}; the hours are projected from it. Lyrics have 4 to 512 tokens."
    )
    header = ["modalities", "CPU s", "s", "samples/s", f"h for {epochs} epochs of 100 000 tracks"]
    return table(title, header, rows) + note


def _epoch_s(training: Training) -> float:
    started = time.perf_counter()
    training.epoch(training.batches)
    return time.perf_counter() - started


@contextmanager
def process_each(names: list[str]) -> Iterator[dict[str, ProcessPoolExecutor]]:
    """Start one process per name, so that their memory is separate."""
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = (
            ProcessPoolExecutor(1, mp_context=spawn, initializer=torch.set_num_threads, initargs=(1,)) for _ in names
        )
        yield {name: stack.enter_context(pool) for name, pool in zip(names, pools, strict=True)}


def peak_bytes() -> int:
    """Return the peak memory of this process (Linux). The value of getrusage includes the parent process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def plain_loop(work: Work) -> float:
    """Train with the plain loop; return the mean loss."""
    model, start, order = _plain(work)
    model.load_state_dict(start)
    dataset = rivals.NpyTracks(work.folder / "npz", work.n_tracks)
    with seeded(work.config.seed, 1, CPU):
        losses = rivals.plain_training(model, _loss(work.config), dataset, order, work.config.lr)
    return float(np.mean(losses))


def our_loop(work: Work, precision: str) -> float:
    """Train with the loop of mgc; return the mean loss."""
    training, start = _mgc_training(work, precision)
    training.model.load_state_dict(start)
    return training.epoch(training.batches).sums[0] / work.n_tracks


@functools.lru_cache(maxsize=1)
def _plain(work: Work) -> tuple[System, dict[str, Tensor], list[list[int]]]:
    task, _ = work.open()
    model, _ = make_model(task, work.config, CPU)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    order = epoch_batches(task.n_train, BATCH, seed=work.config.seed, epoch=1)
    return model, _copy_weights(model), [rows.tolist() for rows in order]


@functools.lru_cache(maxsize=1)
def _mgc_training(work: Work, precision: str) -> tuple[Training, dict[str, Tensor]]:
    _OPEN.enter_context(reused_memory(CPU))  # as in training, for the life of this process
    training = Training(*work.open(), work.config, CPU, precision)
    return training, _copy_weights(training.model)


def _copy_weights(model: System) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def write_tracks(work: Work) -> None:
    """Write one .npz file per track with all its features; token states are padded to the maximum."""
    _, batches = work.open()
    (work.folder / "npz").mkdir()
    for index in range(work.n_tracks):
        batch = batches.batch(np.array([index]))
        fields = {name: value[0] for name, value in vars(batch).items() if isinstance(value, Tensor)}
        states = fields["lyrics"]
        fields["lyrics"] = torch.nn.functional.pad(states, (0, 0, 0, work.size.max_tokens - len(states)))
        np.savez(work.folder / "npz" / f"{index}.npz", **{name: value.numpy() for name, value in fields.items()})


def _loss(config: TrainConfig) -> Any:
    def loss_of(model: System, fields: Mapping[str, Tensor]) -> Tensor:
        batch = Batch(**fields)
        return total_loss(model(batch), batch, config.lambda_).total

    return loss_of


def _agree(reference: float, other: float) -> str | None:
    return None if np.isclose(reference, other, rtol=1e-2) else f"mean loss {reference} against {other}"
