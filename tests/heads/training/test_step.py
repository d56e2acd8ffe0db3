"""Test properties of a training step on a GPU without one: kernels, device of tensors, and number of compilations."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.gpu.kernels import KernelCount
from mgc.heads.config import TrainConfig
from mgc.heads.model import audio_cnn
from mgc.heads.model.batch import Batch
from mgc.heads.model.config import EmbeddingShape, ModelConfig
from mgc.heads.model.losses import total_loss
from mgc.heads.model.model import build_system
from mgc.heads.model.system import System
from mgc.heads.training.augment import augment_batch

C, D, N_TRACKS, N_FRAMES, N_TOKENS = 10, 24, 16, 320, 12
STATES = EmbeddingShape(dim=7, layers=2)
OFF = {"attention": False, "contrastive": False, "head": "linear"}
SYSTEMS: dict[str, dict[str, Any]] = {
    "graph": {"head": "graph"},
    "linear": {"head": "linear"},
    "query": {"head": "query"},
    "embeddings": {"head": "graph", "audio": ("states",), "embeddings": {"states": STATES}},
    "mel and embeddings": {"head": "query", "audio": ("mel", "states"), "embeddings": {"states": STATES}},
    "santana": {"model": "santana", "modalities": "audio", **OFF},
    "pandeya": {"model": "pandeya", **OFF},
}
FRAMES = {
    "equal": [N_FRAMES] * N_TRACKS,
    "one 2 short": [N_FRAMES] * (N_TRACKS - 1) + [N_FRAMES - 2],
    "varied": [N_FRAMES - 7 * i for i in range(N_TRACKS)],
}
HEADS = ("graph", "linear", "query", "embeddings", "mel and embeddings")


@pytest.fixture(autouse=True)
def padding_by_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_cnn, "_IN_PLACE", False)


def system(name: str) -> System:
    """Return a system without dropout, with which a CPU has no fused attention, in contrast to a GPU."""
    torch.manual_seed(1)
    options = {"encoder": "tiny", "width": 32, "graph_hidden": 32, "dropout": 0.0, **SYSTEMS[name]}
    config = ModelConfig(n_genres=C, text_dim=D, **options)
    return build_system(config, mel_mean=-40.0, mel_std=20.0).to(memory_format=torch.channels_last).train()


def batch(frames: list[int], n_tokens: int = N_TOKENS, seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    n = len(frames)
    tokens = torch.randint(0, n_tokens + 1, (n,))
    tokens[:2] = torch.tensor([n_tokens, 0])
    keys = torch.arange(n)
    return Batch(
        mel=20 * torch.randn(n, 128, N_FRAMES) - 40,
        mel_frames=torch.tensor(frames),
        lyrics=torch.randn(n, n_tokens, D),
        lyrics_tokens=tokens,
        lyrics_pooled=torch.randn(n, D) * (tokens > 0)[:, None],
        labels=(torch.rand(n, C) < 0.3).float(),
        track_key=keys,
        lyrics_key=torch.where(tokens > 0, keys, -1),
        rows=keys,
        embeddings={"states": (torch.randn(n, 2, 30, 7), torch.tensor([30, *range(1, n)]).clamp(max=30))},
    )


def step(model: System, tracks: Batch, *, precision: str = "fp32") -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
        outputs = model(tracks)
    loss = total_loss(outputs, tracks).total
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def count(name: str, lengths: str, precision: str = "fp32") -> KernelCount:
    model, tracks = system(name), batch(FRAMES[lengths])
    with KernelCount() as counted:
        step(model, tracks, precision=precision)
    return counted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", HEADS)
def test_number_of_kernels_of_a_step_is_small_and_independent_of_clip_lengths(name: str, precision: str) -> None:
    """Forward pass, loss and backward pass are counted, without casts to bf16 and the (fused) optimizer."""
    counts = {lengths: count(name, lengths, precision) for lengths in FRAMES}
    kernels = {lengths: counted.kernels.total() - counted.kernels["_to_copy"] for lengths, counted in counts.items()}
    views = {lengths: counted.views.total() for lengths, counted in counts.items()}
    more = 30 if name == "mel and embeddings" else 0  # a second input
    assert kernels["equal"] <= 205 + more
    assert kernels["one 2 short"] == kernels["varied"] <= 250 + more
    assert views["one 2 short"] == views["varied"] <= 410 + more
    assert not any(counted.waits for counted in counts.values())


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("lengths", ["equal", "varied"])
def test_step_creates_no_tensor_on_another_device(name: str, lengths: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, whose tensors have no values, torch raises if tensors of the host and of the device mix.

    The test leaves out autocast, which does not support this device.
    """
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    tracks = batch(FRAMES[lengths])
    model, moved = system(name).to("meta"), tracks.to("meta")
    assert moved.padded == (lengths == "varied")
    augmented = augment_batch(moved, TrainConfig(spec_augment=True, modality_dropout=0.5))
    loss = step(model, augmented)
    assert loss.is_meta
    assert all(p.grad is None or p.grad.is_meta for p in model.parameters())
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    model.clamp_temperature()
    mixed = dataclasses.replace(tracks, labels=tracks.labels.to("meta"))
    with pytest.raises(RuntimeError, match="device"):  # the property of torch that the test relies on
        total_loss(system(name)(mixed), mixed)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch raises it itself
@pytest.mark.parametrize("name", ["query", "mel and embeddings"])
def test_epoch_with_varying_lengths_compiles_at_most_3_graphs(name: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = system(name)
    model.compile(dynamic=True, backend="eager")
    rng = np.random.default_rng(0)
    for seed, n_tracks in enumerate([N_TRACKS] * 5 + [N_TRACKS + 1, 7]):
        frames = rng.integers(20, N_FRAMES + 1, n_tracks).tolist() if seed % 3 else [N_FRAMES] * n_tracks
        tracks = batch(frames, n_tokens=int(rng.integers(2, 40)), seed=seed)
        loss = step(model, tracks)
        assert torch.isfinite(loss)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
