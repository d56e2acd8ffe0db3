"""Classify from lyrics whose token states were computed in fp32, bf16 and int8, with everything else equal.

    MGC_REAL_DATA=... python -m benchmarks.tables.text_precision [--folder F] > benchmarks/tables/text_precision.md

The songs are those of benchmarks/tables/paper.py (world `plain`), and the real songs of MGC_REAL_DATA in folds of whole
songs. A repeated call resumes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import print_heading
from benchmarks.tables.paper import OPTIONS, world_of
from benchmarks.tables.world import CLIP_S, N_SONGS, make_store
from benchmarks.timing import table
from mgc import api
from mgc.cache.reading.store import FeatureStore
from mgc.heads.ablation.ablate import ablate
from mgc.heads.ablation.grid import Grid
from mgc.heads.ablation.paper_tables import Row, TableSpec
from mgc.heads.ablation.runs import Work
from mgc.heads.data.folds import Fold, make_folds

PRECISIONS: dict[str, str | None] = {"fp32": None, "bf16": "bf16", "int8": "int8"}
"""Precision -> feature set of the store that holds it; None for the store's own."""
SEEDS, FOLDS = 3, 5
ROW = Row(name="lyrics only", options={"modalities": "lyrics"})
TABLE = TableSpec(name="lyrics", title="Lyrics only", reference=ROW.name, rows=(ROW,))


def add_precisions(source: Path, store: Path) -> None:
    """Add the token states in bf16 and int8 to a store that has those in fp32."""
    for name in filter(None, PRECISIONS.values()):
        api.extract(api.read_source(source).source, store, add=name, text_model="minilm", text_precision=name)


def compare(title: str, store: Path, folder: Path, folds: Sequence[Fold]) -> str:
    """Train on each precision; return a table."""
    rows: list[list[Any]] = []
    options = {**OPTIONS, **({"split": "auto"} if folds else {})}
    for precision, feature_set in PRECISIONS.items():
        work = Work(folder=folder / precision, store=store, text=feature_set)
        grid = Grid(tables=[TABLE], preset="default", options=options, seeds=range(SEEDS), folds=folds)
        document = ablate(work, grid).to_dict()
        if document["failures"]:
            raise SystemExit(str(document["failures"]))
        metrics = document["tables"][0]["rows"][0]["metrics"]
        cells = [
            f"{metrics[name]['value']:.3f} ± {metrics[name]['sd'] or 0.0:.3f}" for name in ("accuracy_tuned", "map")
        ]
        rows.append([precision, *cells, *(f"{cosine:.5f}" for cosine in cosines(store, feature_set))])
    header = ["features", "accuracy, tuned", "mAP", "least cosine of a track to fp32", "mean"]
    return table(title, header, rows)


def cosines(store: Path, feature_set: str | None) -> tuple[float, float]:
    """Return the least and the mean cosine of the pooled lyrics of a track to those in fp32."""
    with FeatureStore.open(store) as first, FeatureStore.open(store, text=feature_set) as second:
        a, b = first.read("lyrics_pooled", first.ok_rows), second.read("lyrics_pooled", second.ok_rows)
    has_lyrics = np.abs(a).sum(axis=1) > 0
    a, b = a[has_lyrics].astype(np.float64), b[has_lyrics].astype(np.float64)
    values = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(values.min()), float(values.mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("tables"))
    options = parser.parse_args()
    print_heading(
        "Lyrics features in fp32, bf16 and int8",
        __file__,
        f": lyrics only, preset default, mean ± deviation of {SEEDS} seeds. None of this is a result on music.",
        torch_version=torch.__version__,
    )
    store = make_store(options.folder / "plain", world_of("plain"), N_SONGS, clip_s=CLIP_S, workers=2)
    add_precisions(options.folder / "plain" / "world" / "tracks.jsonl", store)
    print(compare(f"Synthetic benchmark: {N_SONGS} songs", store, options.folder / "text-precision", []), flush=True)
    songs = Path(os.environ.get("MGC_REAL_DATA") or "nowhere") / "songs"
    if not songs.is_dir():
        print("\nReal songs: not run, because MGC_REAL_DATA is not set.")
        return 0
    store = options.folder / "songs-lyrics.zarr"
    source = api.read_source(songs).source
    api.extract(source, store, features=("lyrics", "genres"), text_model="minilm", text_precision="fp32")
    add_precisions(songs, store)
    with FeatureStore.open(store) as opened:
        folds = make_folds(opened, FOLDS, by="song")
        n_tracks = len(opened.ok_rows)
    title = f"Real songs: {n_tracks} clips in {FOLDS} folds of whole songs"
    print(compare(title, store, options.folder / "text-precision-songs", folds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
