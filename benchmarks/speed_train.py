"""Training steps on the CPU: the loop of the PyTorch tutorial over .npz files, and ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rivals
import torch
from gpu import Training
from gpu_check import Size, make_store
from pairs import in_turn, spread, table
from torch import Tensor

from mgc.heads.batch import Batch
from mgc.heads.config import PRESETS, TrainConfig
from mgc.heads.data import FeatureBatches, choose_home, epoch_batches
from mgc.heads.device import resolve_precision
from mgc.heads.loop import seeded
from mgc.heads.losses import total_loss
from mgc.heads.system import System
from mgc.heads.task import prepare
from mgc.heads.train import make_model

PLAIN = "plain loop: DataLoader with 2 workers over .npz, float32"
BATCH, N_VALIDATION = 16, 4
CPU = torch.device("cpu")


def run(folder: Path, encoder: str, n_steps: int, rounds: int) -> str:
    size = Size(encoder=encoder, text_dim=384, max_tokens=512, clip_s=30.0, epochs=1)
    store = make_store(size, folder / "noise.zarr", BATCH * n_steps, N_VALIDATION)
    config = TrainConfig(**{**PRESETS["paper"], "split": "manifest", "encoder": encoder, "device": "cpu", "lr": 1e-6,
                            "batch_size": BATCH})  # fmt: skip
    precision = resolve_precision("auto", CPU)
    task = prepare(store, config)
    home = choose_home(store, task.examples, device=CPU)
    batches = FeatureBatches(store, task.examples, home=home, device=CPU)
    order = epoch_batches(task.n_train, BATCH, seed=config.seed, epoch=1)
    write_tracks(folder / "npz", batches, task.n_train, size.max_tokens)
    dataset = rivals.NpyTracks(folder / "npz", task.n_train)
    ours = Training(task, batches, config, CPU, precision)
    plain, _ = make_model(task, config, CPU)
    plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    start = {name: tensor.clone() for name, tensor in plain.state_dict().items()}

    def plain_loop() -> float:
        plain.load_state_dict(start)
        with seeded(config.seed, 1, CPU):
            losses = rivals.plain_training(plain, _loss(config), dataset, [rows.tolist() for rows in order], config.lr)
        return float(np.mean(losses))

    def our_loop() -> float:
        ours.model.load_state_dict(start)
        return ours.epoch(ours.batches).sums[0] / task.n_train

    name = f"mgc, {precision}"
    times = in_turn({PLAIN: plain_loop, name: our_loop}, rounds=rounds, agree=_agree)
    rate = {one: [task.n_train / s for s in times.seconds[one]] for one in times.seconds}
    rows = [[one, spread(rate[one], 1, 2), "-" if one == PLAIN else times.ratio(PLAIN, one)] for one in rate]
    title = f"Training steps: encoder {encoder}, batches of {BATCH} clips of 30 s, one thread"
    note = (f"\n\n{n_steps} steps a run, the same batches and the same mean loss within 1 % in each round. The plain "
            "loop trains the same layers in the same order; its token states are padded to 512, ours to the longest "
            "of the batch; it checks and clips nothing.")  # fmt: skip
    return table(title, ["", "samples/s", "times the plain loop"], rows) + note


def write_tracks(folder: Path, batches: FeatureBatches, n: int, max_tokens: int) -> None:
    """One .npz a track with what a batch needs of it, token states padded to `max_tokens`."""
    folder.mkdir()
    for index in range(n):
        one = batches.batch(np.array([index]))
        fields = {field.name: getattr(one, field.name)[0] for field in dataclasses.fields(one)}
        states = fields["lyrics"]
        fields["lyrics"] = torch.nn.functional.pad(states, (0, 0, 0, max_tokens - len(states)))
        np.savez(folder / f"{index}.npz", **{name: value.numpy() for name, value in fields.items()})


def _loss(config: TrainConfig) -> Any:
    def loss_of(model: System, batch: Mapping[str, Tensor]) -> Tensor:
        whole = Batch(**batch)
        return total_loss(model(whole), whole, config.lambda_).total

    return loss_of


def _agree(one: float, other: float) -> str | None:
    return None if np.isclose(one, other, rtol=1e-2) else f"mean loss {one} against {other}"
