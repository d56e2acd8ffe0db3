"""Train every system of the paper on a few real songs, in folds of whole songs, as a test that all of them train.

    MGC_REAL_DATA=... python -m benchmarks.tables.songs [--folder F] > benchmarks/tables/songs.md

MGC_REAL_DATA/songs is a folder in Music4All's layout. A repeated call resumes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from benchmarks.machine import print_heading
from mgc import api

CLIP_S, FOLDS, SEEDS = 5.0, 5, 1
OPTIONS = {
    "encoder": "tiny",
    "epochs": 10,
    "batch_size": 16,
    "lr": 1e-3,
    "lr_halve_every": 4,
    "device": "cpu",
    "precision": "fp32",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("tables") / "songs")
    options = parser.parse_args()
    songs = Path(os.environ.get("MGC_REAL_DATA") or "nowhere") / "songs"
    if not songs.is_dir():
        print(f"{songs}: no such folder. Set MGC_REAL_DATA to the folder that holds songs/.", file=sys.stderr)
        return 2
    store = options.folder / "songs.zarr"
    source = api.read_source(songs).source
    extracted = api.extract(source, store, clip_s=CLIP_S, text_model="minilm", text_precision="fp32")
    tables = api.ablate(
        store,
        options.folder / "ablation",
        tables=["systems"],
        n_seeds=SEEDS,
        n_folds=FOLDS,
        fold_by="song",
        options=OPTIONS,
    )
    print_heading(
        "Every system on a few real songs",
        __file__,
        f". {extracted.ok} of {extracted.planned} clips were read, {CLIP_S:g} s of each.",
        torch_version=torch.__version__,
    )
    page = (options.folder / "ablation" / "tables.md").read_text(encoding="utf-8")
    print("\n".join(line for line in page.splitlines()[2:] if not line.startswith("![")).strip())
    return 1 if tables.to_dict()["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
