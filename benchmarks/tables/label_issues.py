"""Print how many of the doubtful labels that `mgc store labels` lists first are wrong, on the synthetic benchmark.

The labels of its songs have planted noise: labels of genres without evidence in the song, and genres whose label was
removed (`benchmarks.worlds.songs`). The run of `benchmarks.tables.explain` judges its validation and test songs. A song
can also lack the evidence of a correct label, and no model can tell this from a wrong label.

    python -m benchmarks.tables.label_issues [--folder tables] > benchmarks/tables/label_issues.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import print_heading
from benchmarks.tables.paper import OPTIONS, world_of
from benchmarks.tables.world import CLIP_S, N_SONGS, make_store
from benchmarks.worlds.labels import multi_hot
from mgc import api
from mgc.cache.reading.store import FeatureStore
from mgc.heads.evaluation.label_issues import MIN_TRACKS, find_issues
from mgc.heads.evaluation.predict import score_store
from mgc.heads.runs.published_model import load_run

RANKS = (10, 20, 40, 80)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("tables"))
    folder = parser.parse_args().folder
    world = world_of("plain")
    path, run = make_store(folder / "plain", world, N_SONGS, clip_s=CLIP_S, workers=0), folder / "run"
    if not (run / "best" / "config.json").exists():
        api.train(path, run, preset="default", options=dict(OPTIONS))
    loaded, songs = load_run(run), {song.id: song for song in world.songs(N_SONGS)}
    with FeatureStore.open(path) as store:
        tracks = [track for track in store.tracks.to_pylist() if track["split"] != "train"]
        scores = score_store(loaded, store, np.asarray([track["row"] for track in tracks])).scores
    columns = [world.labels.genres.index(genre) for genre in loaded.genres]
    judged = [songs[track["id"]] for track in tracks]
    labels, truth = (
        multi_hot(sets, len(world.labels.genres))[:, columns]
        for sets in ([song.genres for song in judged], [song.true_genres for song in judged])
    )
    print_heading(
        "Doubtful labels on the synthetic benchmark",
        __file__,
        ", which describes the check. The world is made by our own code (docs/design/004).",
        torch_version=torch.__version__,
    )
    often = (labels.sum(axis=0) >= MIN_TRACKS) & (len(labels) - labels.sum(axis=0) >= MIN_TRACKS)
    print(
        f"{len(judged)} songs, {int(often.sum())} genres with at least {MIN_TRACKS} of them.\n\n"
        f"| kind | planted | share at random | listed |{''.join(f' precision, first {rank} |' for rank in RANKS)}\n"
        f"|---|---|---|---|{'---|' * len(RANKS)}"
    )
    issues = find_issues(labels, scores)
    for kind, side in (("wrong", labels), ("missing", ~labels)):
        hits = [bool(truth[i, c] != labels[i, c]) for i, c, found, _ in issues if found == kind]
        planted, possible = (side & (truth != labels))[:, often].sum(), side[:, often].sum()
        shares = "".join(f" {np.mean(hits[:rank]):.2f} |" for rank in RANKS)
        print(f"| {kind} | {planted} | {planted / possible:.4f} | {len(hits)} |{shares}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
