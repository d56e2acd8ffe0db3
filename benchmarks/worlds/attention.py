"""Test the fusion on two small synthetic problems that only attention can solve.

XOR: the label is an attribute of the audio XOR an attribute of the lyrics. Neither predicts it, and no sum of both
does, which is the limit of a linear classifier on concatenated means. Lookup: each lyrics token holds the name of a
slot and a bit, and the audio holds the name of the slot whose bit is the label; uniform attention weights mix all bits.

The fusion is trained with a linear head, or a query head with one genre, on 2 048 tracks. Accuracy is that on 1 024
held-out tracks.

    python -m benchmarks.worlds.attention [--seeds 3] > benchmarks/worlds/attention.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.machine import print_heading
from mgc.heads.model.fusion import Fusion
from mgc.heads.model.query import QueryHead

World = Callable[[int, torch.Generator], tuple[Tensor, Tensor, Tensor]]


def xor_world(n_tracks: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames (n, 3, 8), tokens (n, 6, 8) and labels (n,)."""
    audio, lyrics = torch.randint(0, 2, (2, n_tracks), generator=rng)
    frames = torch.randn(n_tracks, 3, 8, generator=rng) + (2.0 * audio - 1)[:, None, None]
    tokens = torch.randn(n_tracks, 6, 8, generator=rng) + (2.0 * lyrics - 1)[:, None, None]
    return frames, tokens, (audio ^ lyrics).float()


def lookup_world(n_tracks: int, rng: torch.Generator, n_slots: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames (n, 3, n_slots), tokens (n, n_slots + 2, n_slots + 1) with two special ones, and labels (n,)."""
    names, order = torch.eye(n_slots), torch.rand(n_tracks, n_slots, generator=rng).argsort(dim=1)
    bits = torch.randint(0, 2, (n_tracks, n_slots), generator=rng)
    choice = torch.randint(0, n_slots, (n_tracks,), generator=rng)
    tokens = torch.zeros(n_tracks, n_slots + 2, n_slots + 1)
    tokens[:, 1:-1, :n_slots] = names[order]
    tokens[:, 1:-1, n_slots] = 2.0 * bits.gather(1, order) - 1
    frames = names[choice][:, None].repeat(1, 3, 1)
    return 2 * frames, 2 * tokens, bits.gather(1, choice[:, None])[:, 0].float()


def accuracy(
    world: World, seed: int, *, n_steps: int = 150, attention: bool = True, uniform: bool = False, query: bool = False
) -> float:
    """Train a fusion and a head on `world`; return the accuracy on held-out tracks."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    train, test = world(2048, rng), world(1024, rng)
    audio_dim, text_dim = train[0].shape[2], train[1].shape[2]
    module = Fusion(
        audio_dim=audio_dim, text_dim=text_dim, width=32, heads=2, dropout=0.0, attention=attention, uniform=uniform
    )
    head: nn.Module = nn.Linear(module.out_width, 1)
    if query:
        head = QueryHead(torch.zeros(1, 1), width=32, heads=2, dropout=0.0, ffn=False, uniform=uniform, bias=True)
    optimizer = torch.optim.Adam([*module.parameters(), *head.parameters()], lr=3e-3)

    def score(frames: Tensor, tokens: Tensor) -> Tensor:
        fused = module(*((x, torch.ones(x.shape[:2], dtype=torch.bool)) for x in (frames, tokens)))
        logits: Tensor = head(*fused.memory) if query else head(fused.vector)
        return logits[:, 0]

    for _ in range(n_steps):
        rows = torch.randint(0, 2048, (128,), generator=rng)
        frames, tokens, labels = (x[rows] for x in train)
        loss = nn.functional.binary_cross_entropy_with_logits(score(frames, tokens), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return ((score(test[0], test[1]) > 0) == (test[2] > 0)).float().mean().item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    # problem, system, its options, the bound, and whether the system can solve the problem
    rows = (
        ("XOR", xor_world, "cross-modal attention, linear head", {}, 0.95, True),
        ("XOR", xor_world, "cross-modal attention, query head", {"query": True}, 0.95, True),
        ("XOR", xor_world, "concatenation, linear head", {"attention": False}, 0.80, False),
        ("lookup", lookup_world, "cross-modal attention, linear head", {}, 0.95, True),
        ("lookup", lookup_world, "cross-modal attention, query head", {"query": True}, 0.95, True),
        ("lookup", lookup_world, "uniform attention weights, linear head", {"uniform": True}, 0.85, False),
        (
            "lookup",
            lookup_world,
            "no cross-modal attention, query head",
            {"query": True, "attention": False},
            0.85,
            False,
        ),
    )
    print_heading(
        "Synthetic problems that only attention solves",
        __file__,
        ", which describes the problems. Accuracy on 1 024 held-out tracks, one figure per seed; chance is 0.5.",
        torch_version=torch.__version__,
    )
    print("| problem | system | accuracy | bound | holds |")
    print("|---|---|---|---|---|")
    all_hold = True
    for name, world, system, options, bound, can in rows:
        values = [accuracy(world, seed, **options) for seed in seeds]
        holds = min(values) >= bound if can else max(values) < bound
        all_hold &= holds
        figures = " ".join(f"{value:.3f}" for value in values)
        side = "at least" if can else "under"
        print(f"| {name} | {system} | {figures} | {side} {bound:.2f} | {'yes' if holds else 'NO'} |", flush=True)
    return 0 if all_hold else 1


if __name__ == "__main__":
    raise SystemExit(main())
