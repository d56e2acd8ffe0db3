"""Train Table 2 on a synthetic benchmark of 20 000 songs, and compare bf16 with fp32, on a machine with a CUDA device.

    python -m benchmarks.tables.gpu make   [--folder F]   draw the features on the device (worlds/features.py)
    python -m benchmarks.tables.gpu train  [--folder F]   train the missing runs
    python -m benchmarks.tables.gpu report [--folder F]   print the tables
    python -m benchmarks.tables.gpu dry    [--folder F]   all three in a tiny size on the CPU, as a test of the code

`make` and `train` end after --minutes (8) with exit code 75; repeat them until they end with 0. Start with one seed;
`--seeds 3` reuses its runs. Finished runs (a few MB each) are copied to --keep and back, so that a new machine trains
only the missing runs, on newly drawn features.

Exit codes: 0 done, 1 a run failed, 3 no CUDA device, nothing done, 75 time is over: repeat the command.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu.device import NO_DEVICE, is_missing
from benchmarks.machine import print_heading
from benchmarks.tables.world import SEED, label_sets, print_world
from benchmarks.worlds.features import FeatureWorld, write_store
from benchmarks.worlds.songs import BenchmarkWorld
from mgc.cache.errors import StoppedError
from mgc.heads.ablation.ablate import ablate
from mgc.heads.ablation.grid import Grid
from mgc.heads.ablation.paper_tables import COMPONENTS, Row, TableSpec
from mgc.heads.ablation.runs import Work
from mgc.reports.ablation import markdown

UNFINISHED = 75
"""Exit code when the time is over."""
RESULT_FILES = ("result.json", "metrics.json", "predictions.parquet")

PRECISION = TableSpec(
    name="precision",
    title="bf16 and fp32, the same seeds",
    reference="fp32",
    rows=(Row(name="fp32", options={"precision": "fp32"}), Row(name="bf16", options={"precision": "bf16"})),
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the world and the models."""

    device: str
    n_songs: int
    clip_s: float
    text_dim: int
    max_tokens: int
    part_rows: int
    encoder: str
    epochs: int
    lr_halve_every: int
    top_genres: int | None = None

    def world(self) -> FeatureWorld:
        return FeatureWorld(
            world=BenchmarkWorld(labels=label_sets(), seed=SEED),
            n_songs=self.n_songs,
            clip_s=self.clip_s,
            text_dim=self.text_dim,
            max_tokens=self.max_tokens,
            part_rows=self.part_rows,
        )

    def plans(self, n_seeds: int) -> list[Grid]:
        """Plan Table 2 in the device's usual precision, and its last row in two precisions."""
        options = {
            "encoder": self.encoder,
            "epochs": self.epochs,
            "batch_size": 64,
            "lr": 1e-3,
            "lr_halve_every": self.lr_halve_every,
            "top_genres": self.top_genres,
            "device": self.device,
        }
        usual = {"precision": "bf16" if self.device == "cuda" else "fp32"}
        return [
            Grid(tables=[COMPONENTS], options=options | usual, seeds=range(n_seeds)),
            Grid(tables=[PRECISION], options=options, seeds=range(n_seeds)),
        ]


FULL = Size(
    device="cuda",
    n_songs=20_000,
    clip_s=30.0,
    text_dim=384,
    max_tokens=128,
    part_rows=128,
    encoder="base",
    epochs=12,
    lr_halve_every=4,
)
DRY = Size(
    device="cpu",
    n_songs=48,
    clip_s=1.0,
    text_dim=16,
    max_tokens=64,
    part_rows=16,
    encoder="tiny",
    epochs=1,
    lr_halve_every=1,
    top_genres=4,
)


def work(folder: Path) -> Work:
    """Return the work of both tables in one folder, since they share the row "all"."""
    return Work(folder=folder / "ablation", store=folder / "features.zarr")


def copy_finished(source: Path, target: Path) -> int:
    """Copy the results of finished runs that `target` lacks from `source`; return their number."""
    if not (source / "ablation.json").exists():
        return 0
    (target / "runs").mkdir(parents=True, exist_ok=True)
    if not (target / "ablation.json").exists():
        shutil.copyfile(source / "ablation.json", target / "ablation.json")
    copied = 0
    for result in sorted(source.glob("runs/*/result.json")):
        copy = target / "runs" / result.parent.name
        if (copy / "result.json").exists():
            continue
        copy.mkdir(exist_ok=True)
        for name in reversed(RESULT_FILES):  # result.json last, since it marks the run as finished
            shutil.copyfile(result.parent / name, copy / name)
        copied += 1
    return copied


def train(folder: Path, size: Size, n_seeds: int, keep: Path, stop: Callable[[], bool]) -> int:
    """Train the missing runs; return 1 if a run failed."""
    print(f"{copy_finished(keep, folder / 'ablation')} finished runs copied from {keep}", file=sys.stderr)
    failures = []
    try:
        for plan in size.plans(n_seeds):
            failures += ablate(work(folder), plan, stop=stop).failures
    finally:
        print(f"{copy_finished(folder / 'ablation', keep)} finished runs copied to {keep}", file=sys.stderr)
    for failure in failures:
        print(failure.reason, file=sys.stderr)
    return 1 if failures else 0


def report(folder: Path, size: Size, n_seeds: int) -> None:
    """Print the page."""
    title = "Dry run of benchmarks/tables/gpu.py on the CPU: a test of the code, without meaning for CUDA"
    if size.device == "cuda":
        title = f"Table 2 on {size.n_songs} songs: {torch.cuda.get_device_name()}"
    print_heading(
        title,
        __file__,
        ". Features are drawn on the device (benchmarks/worlds/features.py; docs/design/004). These are not results "
        "on music.",
        torch_version=torch.__version__,
    )
    features = size.world()
    print_world(features.world, features.songs(), with_ceilings=size is FULL)
    for plan in size.plans(n_seeds):
        document = ablate(work(folder), plan, training=False).to_dict()
        print("\n" + markdown(document).removeprefix("# Ablations\n").strip())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["make", "train", "report", "dry"])
    parser.add_argument("--folder", type=Path, default=Path("tables-gpu"))
    parser.add_argument("--keep", type=Path, help="default: FOLDER/kept")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=8.0)
    options = parser.parse_args(arguments)
    size = DRY if options.action == "dry" else FULL
    if is_missing(torch.device(size.device), "done"):
        return NO_DEVICE
    deadline = time.monotonic() + 60 * options.minutes

    def stop() -> bool:
        return time.monotonic() >= deadline

    code = 0
    try:
        if options.action in ("make", "dry"):
            write_store(size.world(), options.folder / "features.zarr", torch.device(size.device), stop=stop)
        if options.action in ("train", "dry"):
            code = train(options.folder, size, options.seeds, options.keep or options.folder / "kept", stop)
    except StoppedError as error:
        print(f"time is over, run the command again to continue: {error}", file=sys.stderr)
        return UNFINISHED
    if options.action in ("report", "dry"):
        report(options.folder, size, options.seeds)
    return code


if __name__ == "__main__":
    sys.exit(main())
