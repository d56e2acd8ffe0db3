"""Table 2 on a benchmark world of 20 000 songs, and bf16 against fp32: for a machine with a CUDA device.

    python -m benchmarks.tables.gpu make   [--folder F]   draws the features on the device (worlds/features.py)
    python -m benchmarks.tables.gpu train  [--folder F]   trains what is not trained yet
    python -m benchmarks.tables.gpu report [--folder F]   prints the tables
    python -m benchmarks.tables.gpu dry    [--folder F]   all three in a tiny size on the CPU, which shows nothing

`make` and `train` end after --minutes (8) with exit code 75; started again, they go on, and once nothing is left they
end with 0. One seed first; `--seeds 3` afterwards builds on what is there. Finished runs (a few MB each) are copied
to --keep too, and taken from there: a machine that starts bare trains only what is missing, on features drawn anew.

Exit codes: 0 done, 1 a run failed, 3 there is no CUDA device and nothing was done, 75 time is up: run it again.
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
from benchmarks.tables.world import SEED, ceilings, facts, label_sets
from benchmarks.worlds.features import FeatureWorld, write_store
from benchmarks.worlds.songs import BenchmarkWorld
from mgc.cache.errors import StoppedError
from mgc.heads.ablation.ablate import ablate
from mgc.heads.ablation.grid import Grid
from mgc.heads.ablation.paper_tables import COMPONENTS, Row, TableSpec
from mgc.heads.ablation.workers import Work
from mgc.reports.ablation import markdown

GO_ON = 75
KEPT_OF_A_RUN = ("result.json", "metrics.json", "predictions.parquet")

PRECISION = TableSpec(
    name="precision",
    title="bf16 against fp32, the same seeds",
    reference="fp32",
    rows=(Row(name="fp32", options={"precision": "fp32"}), Row(name="bf16", options={"precision": "bf16"})),
)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the world and the models are."""

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
            world=BenchmarkWorld(labels=label_sets(), seed=SEED), n_songs=self.n_songs, clip_s=self.clip_s,
            text_dim=self.text_dim, max_tokens=self.max_tokens, part_rows=self.part_rows,
        )  # fmt: skip

    def plans(self, n_seeds: int) -> list[Grid]:
        """Table 2 in the device's usual precision, and its last row in two precisions."""
        options = {"encoder": self.encoder, "epochs": self.epochs, "batch_size": 64, "lr": 1e-3,
                   "lr_halve_every": self.lr_halve_every, "top_genres": self.top_genres,
                   "device": self.device}  # fmt: skip
        usual = {"precision": "bf16" if self.device == "cuda" else "fp32"}
        return [
            Grid(tables=[COMPONENTS], options=options | usual, seeds=range(n_seeds)),
            Grid(tables=[PRECISION], options=options, seeds=range(n_seeds)),
        ]


FULL = Size(device="cuda", n_songs=20_000, clip_s=30.0, text_dim=384, max_tokens=128, part_rows=128, encoder="base",
            epochs=12, lr_halve_every=4)  # fmt: skip
DRY = Size(device="cpu", n_songs=48, clip_s=1.0, text_dim=16, max_tokens=64, part_rows=16, encoder="tiny", epochs=1,
           lr_halve_every=1, top_genres=4)  # fmt: skip


def work(folder: Path) -> Work:
    """One folder for both tables: "all" in the usual precision is a row of both."""
    return Work(folder=folder / "ablation", store=folder / "features.zarr")


def copy_finished(source: Path, target: Path) -> int:
    """Copy what tables are made from, of the runs that are finished in one ablation's folder and not in the other.

    Returns how many there were.
    """
    if not (source / "ablation.json").exists():
        return 0
    (target / "runs").mkdir(parents=True, exist_ok=True)
    if not (target / "ablation.json").exists():
        shutil.copyfile(source / "ablation.json", target / "ablation.json")
    copied = 0
    for result in sorted(source.glob("runs/*/result.json")):
        home = target / "runs" / result.parent.name
        if (home / "result.json").exists():
            continue
        home.mkdir(exist_ok=True)
        for name in reversed(KEPT_OF_A_RUN):  # result.json, which says that the run is finished, comes last
            shutil.copyfile(result.parent / name, home / name)
        copied += 1
    return copied


def train(folder: Path, size: Size, n_seeds: int, keep: Path, stop: Callable[[], bool]) -> int:
    taken = copy_finished(keep, folder / "ablation")
    print(f"{taken} finished runs taken from {keep}", file=sys.stderr)
    failures = []
    try:
        for plan in size.plans(n_seeds):
            failures += ablate(work(folder), plan, stop=stop)["failures"]
    finally:
        print(f"{copy_finished(folder / 'ablation', keep)} finished runs kept in {keep}", file=sys.stderr)
    for failure in failures:
        print(failure["reason"], file=sys.stderr)
    return 1 if failures else 0


def report(folder: Path, size: Size, n_seeds: int) -> None:
    asked = size.world()
    songs = asked.songs()
    title = "A dry run of benchmarks/tables/gpu.py on the CPU: it shows that the code runs, and nothing else"
    if size.device == "cuda":
        title = f"Table 2 on {size.n_songs} songs: {torch.cuda.get_device_name()}"
    print_heading(
        title,
        __file__,
        ". Features are drawn on the device (benchmarks/worlds/features.py; docs/design/004). None of this is a "
        "result on music.",
        torch_version=torch.__version__,
    )
    print("## The world\n\n| | |\n|---|---|")
    for name, value in facts(asked.world, songs):
        print(f"| {name} | {value} |")
    if size is FULL:
        print("\nWhat could be known, without sounds or words to make out (Jaccard index on the test songs of a "
              "logistic regression that is told motifs and topics):\n\n| told | Jaccard |\n|---|---|")  # fmt: skip
        for name, figure in ceilings(asked.world, songs).items():
            print(f"| {name} | {figure:.3f} |")
    for plan in size.plans(n_seeds):
        document = ablate(work(folder), plan, training=False)
        print("\n" + markdown(document).removeprefix("# Ablations\n").strip())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "train", "report", "dry"])
    parser.add_argument("--folder", type=Path, default=Path("tables-gpu"))
    parser.add_argument("--keep", type=Path, help="default: FOLDER/kept")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=8.0)
    given = parser.parse_args(arguments)
    size = DRY if given.what == "dry" else FULL
    if is_missing(torch.device(size.device), "done"):
        return NO_DEVICE
    deadline = time.monotonic() + 60 * given.minutes

    def stop() -> bool:
        return time.monotonic() >= deadline

    code = 0
    try:
        if given.what in ("make", "dry"):
            write_store(size.world(), given.folder / "features.zarr", torch.device(size.device), stop=stop)
        if given.what in ("train", "dry"):
            code = train(given.folder, size, given.seeds, given.keep or given.folder / "kept", stop)
    except StoppedError as error:
        print(f"time is up, run it again to go on: {error}", file=sys.stderr)
        return GO_ON
    if given.what in ("report", "dry"):
        report(given.folder, size, given.seeds)
    return code


if __name__ == "__main__":
    sys.exit(main())
