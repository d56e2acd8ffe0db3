"""Speed as ratios, side by side in one run: against what a user would otherwise write, and against the limit.

    python benchmarks/speed.py > benchmarks/speed.md
    python benchmarks/speed.py --quick --only audio text

Each pair compares its results in the same run and ends it where they disagree. One thread, unless a table says more.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")

import argparse
import tempfile
import warnings
from pathlib import Path

import torch
from machine import describe
from speed_songs import make_lyrics, random_bert, write_clips

from mgc.cache.machine import cpu_has_bf16

SECTIONS = ("audio", "text", "extract", "growth", "reads", "train")


def sections(names: list[str], folder: Path, rounds: int, quick: bool) -> None:
    if "audio" in names:
        import speed_audio

        clips = write_clips(folder / "clips", 4 if quick else 16)
        show(speed_audio.run(clips, folder, rounds))
    if "text" in names:
        import speed_text

        lyrics = make_lyrics(4 if quick else 16)
        show(speed_text.run("minilm", "MiniLM", lyrics, rounds, alternatives=True))
        bert = random_bert(folder / "bert-base")
        show(speed_text.run(bert, "BERT-base, random weights", lyrics[::2], rounds, alternatives=False))
    if "extract" in names:
        import speed_extract

        bert = random_bert(folder / "bert-base")
        many = speed_extract.BF16 if cpu_has_bf16() else speed_extract.FP32
        show(speed_extract.run(folder / "songs", bert, speed_extract.QUICK if quick else many, rounds))
    if "growth" in names:
        import speed_extract

        sizes = [64, 128, 256] if quick else [1000, 4000, 16_000]
        show(speed_extract.growth(folder / "growth", sizes, workers=2))
    if "reads" in names:
        import speed_reads

        (folder / "reads").mkdir()
        show(speed_reads.run(folder / "reads", 0.25 if quick else 2.2, rounds))
    if "train" in names:
        import speed_train

        (folder / "train").mkdir()
        show(speed_train.run(folder / "train", "tiny" if quick else "base", 2 if quick else 3, rounds))


def show(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and small: whether it runs, not how fast")
    parser.add_argument("--rounds", type=int, help="runs of each entrant")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    given = parser.parse_args()
    rounds = given.rounds or (3 if given.quick else 5)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("# Speed\n")
    print(f"{describe()}; torch {torch.__version__}. Printed by benchmarks/speed.py"
          f"{' --quick' if given.quick else ''}: median [lowest, highest] of {rounds} rounds; ratios are medians over "
          "rounds in which both ran.")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        sections(given.only, Path(scratch), rounds, given.quick)


if __name__ == "__main__":
    main()
