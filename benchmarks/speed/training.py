"""Training steps on the CPU: the loop of the PyTorch tutorial over .npz files, and ours, each in its own process."""

from __future__ import annotations

import functools
import multiprocessing
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
from benchmarks.speed import rivals
from benchmarks.timing import in_turn, spread, table
from benchmarks.worlds.noise import Size, make_store
from mgc.cache.machine import cpu_has_bf16
from mgc.cache.reading.store import FeatureStore
from mgc.heads.config import PRESETS, TrainConfig
from mgc.heads.data.batches import FeatureBatches, choose_placement, epoch_batches
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
    """What every entrant trains: a store of noise, the model, the number of steps; pickles, for their processes."""

    folder: Path
    encoder: str
    n_steps: int

    @property
    def size(self) -> Size:
        return Size(encoder=self.encoder, text_dim=384, max_tokens=512, clip_s=30.0, epochs=1)

    @property
    def config(self) -> TrainConfig:
        return TrainConfig(**{**PRESETS["paper"], "split": "manifest", "encoder": self.encoder, "device": "cpu",
                              "lr": 1e-6, "batch_size": BATCH})  # fmt: skip

    @property
    def n_tracks(self) -> int:
        return BATCH * self.n_steps

    def opened(self) -> tuple[Task, FeatureBatches]:
        store = FeatureStore.open(self.folder / "noise.zarr")
        task = prepare(store, self.config)
        home = choose_placement(store, task.examples, device=CPU)
        return task, FeatureBatches(store, task.examples, placement=home, device=CPU)


def run(folder: Path, encoder: str, n_steps: int, rounds: int) -> str:
    work = Work(folder, encoder, n_steps)
    make_store(work.size, folder / "noise.zarr", work.n_tracks, N_VALIDATION)
    write_tracks(work)
    loops: dict[str, Callable[[Work], float]] = {PLAIN: plain_loop}
    for precision in ("bf16", "fp32") if cpu_has_bf16() else ("fp32",):
        loops[f"mgc, {precision}"] = functools.partial(our_loop, precision=precision)
    with process_each(list(loops)) as processes:
        entrants = {name: lambda name=name, loop=loop: processes[name].submit(loop, work).result()
                    for name, loop in loops.items()}  # fmt: skip
        times = in_turn(entrants, rounds=rounds, agree=_agree)
        peaks = {name: process.submit(peak_bytes).result() / GB for name, process in processes.items()}
    rate = {name: [work.n_tracks / s for s in times.seconds[name]] for name in loops}
    rows = [[name, spread(rate[name], 1, 2), "-" if name == PLAIN else times.ratio(PLAIN, name), f"{peaks[name]:.2f}"]
            for name in loops]  # fmt: skip
    title = f"Training steps: encoder {encoder}, batches of {BATCH} clips of 30 s, one thread"
    note = (f"\n\n{n_steps} steps a run, the same batches and the same mean loss within 1 % in each round. The plain "
            "loop trains the same layers in the same order; its token states are padded to 512, ours to the longest "
            "of the batch; it checks and clips nothing. Each has a process of its own; the memory of DataLoader's "
            "workers is not counted.")  # fmt: skip
    return table(title, ["", "samples/s", "times the plain loop", "GB at most"], rows) + note


@contextmanager
def process_each(names: list[str]) -> Iterator[dict[str, ProcessPoolExecutor]]:
    """A process for each name: what one does with its memory is no matter to the next."""
    fresh = multiprocessing.get_context("spawn")
    pools = {name: ProcessPoolExecutor(1, mp_context=fresh, initializer=torch.set_num_threads, initargs=(1,))
             for name in names}  # fmt: skip
    try:
        yield pools
    finally:
        for pool in pools.values():
            pool.shutdown()


def peak_bytes() -> int:
    """The most memory that this process ever held (Linux); what getrusage says includes the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


def plain_loop(work: Work) -> float:
    model, start, order = _plain(work)
    model.load_state_dict(start)
    dataset = rivals.NpyTracks(work.folder / "npz", work.n_tracks)
    with seeded(work.config.seed, 1, CPU):
        losses = rivals.plain_training(model, _loss(work.config), dataset, order, work.config.lr)
    return float(np.mean(losses))


def our_loop(work: Work, precision: str) -> float:
    ours, start = _ours(work, precision)
    ours.model.load_state_dict(start)
    return ours.epoch(ours.batches).sums[0] / work.n_tracks


@functools.lru_cache(maxsize=1)
def _plain(work: Work) -> tuple[System, dict[str, Tensor], list[list[int]]]:
    task, _ = work.opened()
    model, _ = make_model(task, work.config, CPU)
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    order = epoch_batches(task.n_train, BATCH, seed=work.config.seed, epoch=1)
    return model, _copied(model), [rows.tolist() for rows in order]


@functools.lru_cache(maxsize=1)
def _ours(work: Work, precision: str) -> tuple[Training, dict[str, Tensor]]:
    _OPEN.enter_context(reused_memory(CPU))  # as in training; it goes on for as long as this process lives
    ours = Training(*work.opened(), work.config, CPU, precision)
    return ours, _copied(ours.model)


def _copied(model: System) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def write_tracks(work: Work) -> None:
    """One .npz a track with what a batch needs of it, token states padded to the longest that there may be."""
    _, batches = work.opened()
    (work.folder / "npz").mkdir()
    for index in range(work.n_tracks):
        one = batches.batch(np.array([index]))
        fields = {name: value[0] for name, value in vars(one).items() if isinstance(value, Tensor)}
        states = fields["lyrics"]
        fields["lyrics"] = torch.nn.functional.pad(states, (0, 0, 0, work.size.max_tokens - len(states)))
        np.savez(work.folder / "npz" / f"{index}.npz", **{name: value.numpy() for name, value in fields.items()})


def _loss(config: TrainConfig) -> Any:
    def loss_of(model: System, batch: Mapping[str, Tensor]) -> Tensor:
        whole = Batch(**batch)
        return total_loss(model(whole), whole, config.lambda_).total

    return loss_of


def _agree(one: float, other: float) -> str | None:
    return None if np.isclose(one, other, rtol=1e-2) else f"mean loss {one} against {other}"
