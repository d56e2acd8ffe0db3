"""Measure speed as ratios within one run: to the code that a user would write without mgc, and to the limit.

    python -m benchmarks.speed.run > benchmarks/speed/speed.md
    python -m benchmarks.speed.run --quick --only audio text

Results are compared in the same run, which ends if they differ. One thread, unless a table states otherwise. The
text before the tables, benchmarks/speed/speed_reading.txt, is written by hand and cites only printed figures.
"""

from __future__ import annotations

import os

from benchmarks.machine import ONE_THREAD, print_heading

os.environ.update(ONE_THREAD, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")

import argparse
import tempfile
import warnings
from pathlib import Path

import torch

from benchmarks.speed.inputs import make_lyrics, random_bert, write_clips
from mgc.cache.machine import cpu_has_bf16

SECTIONS = ("audio", "text", "extract", "commit", "overhead", "growth", "reads", "train")
READING = Path(__file__).parent / "speed_reading.txt"


def print_sections(names: list[str], folder: Path, rounds: int, quick: bool) -> None:
    """Print the tables of the sections `names`; modules of other sections are not imported."""
    if "audio" in names:
        from benchmarks.speed import audio

        clips = write_clips(folder / "clips", 4 if quick else 16)
        show(audio.run(clips, folder, rounds))
    if "text" in names:
        from benchmarks.speed import text

        lyrics = make_lyrics(4 if quick else 16)
        show(text.run("minilm", "MiniLM", lyrics, rounds, alternatives=True))
        bert = random_bert(folder / "bert-base")
        show(text.run(bert, "BERT-base, random weights", lyrics[::2], rounds, alternatives=False))
    if "extract" in names:
        from benchmarks.speed import extraction

        bert = random_bert(folder / "bert-base")
        amounts = extraction.BF16 if cpu_has_bf16() else extraction.FP32
        show(extraction.run(folder / "songs", bert, extraction.QUICK if quick else amounts, rounds))
    if "commit" in names:
        from benchmarks.speed import commit

        show(commit.run(folder / "commit", 8 if quick else 128, rounds))
    if "overhead" in names:
        from benchmarks.speed import overhead

        show(overhead.run(folder / "overhead", rounds))
    if "growth" in names:
        from benchmarks.speed import extraction

        sizes = [64, 128, 256] if quick else [1000, 10_000, 100_000]
        show(extraction.growth(folder / "growth", sizes, workers=2))
    if "reads" in names:
        from benchmarks.speed import reads

        (folder / "reads").mkdir()
        show(reads.run(folder / "reads", 0.25 if quick else 2.2, rounds))
    if "train" in names:
        from benchmarks.speed import training

        (folder / "train").mkdir()
        show(training.run(folder / "train", "tiny" if quick else "base", 2 if quick else 3, rounds))
        show(training.embeddings(folder / "train", 65, 1 if quick else rounds))


def show(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small inputs: a test of the code, not of its speed")
    parser.add_argument("--rounds", type=int, help="timed runs per implementation")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 5)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print_heading(
        "Speed",
        __file__,
        f"{' --quick' if options.quick else ''}: median [lowest, highest] of {rounds} rounds; ratios are medians over "
        "rounds in which both ran.",
        torch_version=torch.__version__,
    )
    if not options.quick:
        show(f"\n{READING.read_text(encoding='utf-8').rstrip()}")
    with tempfile.TemporaryDirectory() as scratch:
        print_sections(options.only, Path(scratch), rounds, options.quick)


if __name__ == "__main__":
    main()
