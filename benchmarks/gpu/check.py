"""Check on a CUDA device that results equal those of the CPU, that bf16 training converges, and that runs resume.

    python -m benchmarks.gpu.check                     on a machine with a CUDA device
    python -m benchmarks.gpu.check --device cpu        a dry run, which shows nothing about CUDA

Exit code: 0 every check passed, 1 one failed, 3 no CUDA device, nothing checked.
"""

import copy
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.device import NO_DEVICE, is_missing, parse_device
from benchmarks.machine import print_heading
from benchmarks.worlds.noise import DRY, FULL, N_GENRES, Size, make_store
from mgc.cache.format.recipe import MelRecipe
from mgc.heads.config import SWITCHES, TrainConfig, switched_on
from mgc.heads.model.batch import Batch
from mgc.heads.model.graph import build_adjacency
from mgc.heads.model.losses import total_loss
from mgc.heads.model.model import build_system
from mgc.heads.model.system import System
from mgc.heads.runs.checkpoint import find_state, state_file
from mgc.heads.runs.tensor_files import load_tensors
from mgc.heads.training.train import TrainingResult, train

Check = tuple[str, bool, str]


def float64_check(size: Size, device: torch.device) -> Iterator[Check]:
    """Compare loss and gradients in float64, where rounding does not matter."""
    for name in ("ru2023", "santana", "pandeya"):
        system, batch = make_system(size, 0, name).double(), make_batch(size, 4, 320, seed=0)
        loss, gradient = differences(system, batch, device)
        yield f"float64 loss of {name}, relative difference from the CPU", loss < 1e-10, f"{loss:.1e}, at most 1e-10"
        yield f"float64 gradients of {name}, worst parameter", gradient < 1e-8, f"{gradient:.1e}, at most 1e-8"


def float32_check(size: Size, device: torch.device) -> Iterator[Check]:
    """Compare gradients in float32: they agree within 1e-4 unless rounding changes the maximum of a max-pooling.

    One such change moves the gradient by 1e-3 or more, as between two memory layouts on one CPU, and a clip of 30 s has
    thousands of maxima. The check therefore uses the median over nine small problems.
    """
    n_frames = MelRecipe(clip_s=size.clip_s).n_frames
    loss, _ = differences(make_system(size, 0), make_batch(size, 4, n_frames, seed=0), device)
    yield f"float32 loss, clips of {size.clip_s:g} s", loss < 1e-4, f"{loss:.1e}, at most 1e-4"
    worst = [differences(make_system(size, seed), make_batch(size, 2, 64, seed), device)[1] for seed in range(9)]
    median = statistics.median(worst)
    listed = " ".join(f"{value:.0e}" for value in sorted(worst))
    yield "float32 gradients, worst parameter", median < 1e-4, f"median {median:.1e} of {listed}, at most 1e-4"


def bf16_check(size: Size, device: torch.device, folder: Path) -> Iterator[Check]:
    """Check that training under bf16 autocast memorises 32 tracks of noise."""
    config = training(size, device, precision="bf16", epochs=size.epochs, lr=1e-3)
    started = time.perf_counter()
    result = train(make_store(size, folder / "bf16.zarr"), folder / "bf16", config)
    first, last = result.history[0].classification, result.history[-1].classification
    yield (
        "bf16 overfits 32 tracks",
        result.precision == "bf16" and last < 0.05 < first,
        f"cross-entropy {first:.3f} -> {last:.4f} in {size.epochs} epochs and {time.perf_counter() - started:.0f} s, "
        f"at most 0.05; {result.placement}",
    )


def resume_check(size: Size, device: torch.device, folder: Path) -> Iterator[Check]:
    """Compare a run resumed after two epochs with one of four epochs, relative to the difference of repeated runs.

    All switches are on, since they draw the most random numbers, except the schedule, which depends on the number of
    epochs.
    """
    switches = {k: v for k, v in switched_on(*SWITCHES).items() if k not in ("schedule", "warmup_epochs")}
    store = make_store(size, folder / "resume.zarr")
    config = replace(training(size, device, precision="fp32", epochs=4), **switches)
    straight = final_weights(train(store, folder / "straight", config))
    again = final_weights(train(store, folder / "again", config))
    half = final_weights(train(store, folder / "resumed", replace(config, epochs=2)))
    resumed = final_weights(train(store, folder / "resumed", config, resume=True))
    moved = distance(straight, half)
    noise, error = distance(straight, again) / moved, distance(straight, resumed) / moved
    allowed = max(3 * noise, 1e-3) if device.type == "cuda" else 0.0
    yield (
        "a resumed run ends where an uninterrupted one does",
        moved > 0 and error <= allowed,
        f"distance {error:.1e} of the way since the resume, at most {allowed:.1e}; repeated run {noise:.1e}",
    )


def waiting_check(size: Size, device: torch.device) -> Iterator[Check]:
    """Check that a step does not wait for values from the device; torch raises if it does."""
    for name in ("ru2023", "santana", "pandeya"):
        system = make_system(size, 0, name).to(device).train()
        batch = make_batch(size, 4, 320, seed=0).to(device)
        optimizer = torch.optim.Adam(system.parameters(), lr=1e-4, fused=device.type == "cuda")
        train_step(system, batch, optimizer)  # the first step selects algorithms
        synchronisation = "none"
        try:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            train_step(system, batch, optimizer)
        except RuntimeError as error:
            synchronisation = str(error).splitlines()[0]
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
        yield f"synchronisation in a step of {name}", synchronisation == "none", synchronisation


def train_step(system: System, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    with torch.autocast(batch.mel.device.type, dtype=torch.bfloat16):
        outputs = system(batch)
    optimizer.zero_grad(set_to_none=True)
    total_loss(outputs, batch).total.backward()
    torch.nn.utils.clip_grad_norm_(system.parameters(), 1.0)
    optimizer.step()
    system.clamp_temperature()


def differences(reference: System, batch: Batch, device: torch.device) -> tuple[float, float]:
    """Return the relative differences between CPU and `device`: of the loss, and of the worst parameter's gradient.

    The norm of a gradient counts as at least 1e-3 of the norm of all gradients.
    """
    other = copy.deepcopy(reference).to(device).to(memory_format=torch.channels_last)
    loss, gradients = loss_and_gradients(reference, batch)
    other_loss, other_gradients = loss_and_gradients(other, batch.to(device))
    least = 1e-3 * sum(float(g.square().sum()) for g in gradients.values()) ** 0.5
    worst = max(
        float((other_gradients[name] - gradient).norm()) / max(float(gradient.norm()), least)
        for name, gradient in gradients.items()
    )
    return abs(other_loss - loss) / abs(loss), worst


def loss_and_gradients(model: System, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    loss = total_loss(model(batch), batch).total
    loss.backward()
    return float(loss.detach()), {
        name: p.grad.double().cpu() for name, p in model.named_parameters() if p.grad is not None
    }


def make_system(size: Size, seed: int, name: str = "ru2023") -> System:
    """Build a system in training mode, without dropout, since its random numbers differ between devices."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    names, labels = rng.normal(size=(N_GENRES, size.text_dim)), rng.random((200, N_GENRES)) < 0.2
    options = TrainConfig(model=name, encoder=size.encoder, model_options={"dropout": 0.0})
    config = options.model_config(n_genres=N_GENRES, text_dim=size.text_dim, n_mels=128)
    adjacency = build_adjacency(labels, names, config.graph_options).adjacency
    return build_system(config, adjacency=adjacency, genre_embedding=names, mel_mean=-40.0, mel_std=15.0).train()


def make_batch(size: Size, n_tracks: int, n_frames: int, seed: int) -> Batch:
    """Draw a batch of noise; the last clip is short, and the first of more than two tracks has no lyrics."""
    torch.manual_seed(seed)
    keys = torch.arange(n_tracks)
    tokens = torch.randint(3, size.max_tokens + 1, (n_tracks,))
    mel_frames = torch.full((n_tracks,), n_frames)
    mel_frames[-1] = n_frames // 2 + 3
    if n_tracks > 2:
        tokens[0] = 0
    return Batch(
        mel=15 * torch.randn(n_tracks, 128, n_frames) - 40,
        mel_frames=mel_frames,
        lyrics=torch.randn(n_tracks, size.max_tokens, size.text_dim),
        lyrics_tokens=tokens,
        lyrics_pooled=torch.randn(n_tracks, size.text_dim),
        labels=(torch.rand(n_tracks, N_GENRES) < 0.3).float(),
        track_key=keys,
        lyrics_key=torch.where(tokens > 0, keys, -1),
        rows=keys,
    )


def training(size: Size, device: torch.device, *, precision: str, epochs: int, lr: float = 1e-4) -> TrainConfig:
    return TrainConfig(
        split="manifest", encoder=size.encoder, device=device.type, precision=precision, epochs=epochs, lr=lr
    )


def final_weights(result: TrainingResult) -> dict[str, torch.Tensor]:
    state = find_state(result.run)[0]
    return {name: tensor.double() for name, tensor in load_tensors(state_file(result.run, state, "weights")).items()}


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return sum(float((a[name] - b[name]).square().sum()) for name in a) ** 0.5


def main() -> int:
    device, device_name = parse_device(__doc__)
    if is_missing(device, "checked"):
        return NO_DEVICE
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    size = FULL if device.type == "cuda" else DRY
    print_heading(f"GPU check: {device_name}", __file__, torch_version=torch.__version__)
    print("| check | passed | figures |\n|---|---|---|")
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for checks in (
            float64_check(size, device),
            float32_check(size, device),
            waiting_check(size, device),
            bf16_check(size, device, folder),
            resume_check(size, device, folder),
        ):
            for name, passed, figures in checks:
                failed += not passed
                print(f"| {name} | {'yes' if passed else 'NO'} | {figures} |", flush=True)
    if device.type == "cpu":
        print("\nDry run on the CPU: it tests the code of the checks, not CUDA.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
