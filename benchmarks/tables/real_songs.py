"""Compare audio features on real songs: tags without training, retrieval of the same song, probes, and the heads.

    python -m benchmarks.tables.real_songs STORE [--folder F] [--seeds N] > benchmarks/tables/real_songs.md
    MGC_REAL_DATA=... python -m benchmarks.tables.real_songs > benchmarks/tables/real_songs.md

STORE is a feature store with mels and any added audio features; without it, one is extracted from MGC_REAL_DATA/songs,
with the features `musicnn`, `musicnn_tags` and `pooled_mel`. A repeated call resumes.

Shapes: N tracks, C genres, F features.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.machine import print_heading
from mgc import api
from mgc.cache.format.recipe import ExtractorRecipe
from mgc.cache.reading.store import FeatureStore
from mgc.heads.data.folds import make_folds
from mgc.heads.data.task import labelled_tracks
from mgc.heads.metrics.bootstrap import Resampling, estimate, interval
from mgc.heads.metrics.multilabel import ranking_metrics
from mgc.pipeline.extractors.musicnn import TAGS

FOLDS, REPLICATES, SEED = 5, 1000, 0
ADDED = ("musicnn", "musicnn_tags", "pooled_mel")
OPTIONS: Mapping[str, Any] = {"encoder": "tiny", "device": "cpu", "precision": "fp32"}
Float = npt.NDArray[np.float64]


def extract(folder: Path) -> Path:
    """Extract the shared songs and add the features; return the path of the store."""
    songs = Path(os.environ.get("MGC_REAL_DATA") or "nowhere") / "songs"
    if not songs.is_dir():
        raise SystemExit(f"{songs}: no such folder. Give a store, or set MGC_REAL_DATA.")

    store, source = folder / "songs.zarr", api.read_source(songs).source
    api.extract(source, store, text_model="minilm", text_precision="fp32", workers=0)
    for name in ADDED:
        api.extract(source, store, add=name, workers=0)
    return store


class Songs:
    """The labelled tracks of a store whose features are all there.

    Attributes
    ----------
    names, labels : (C,) genres and (N, C) bool.
    songs : (N,) name of the song of each track; the track's own id without one.
    features : name -> (N, F) float64.
    """

    def __init__(self, store: FeatureStore) -> None:
        added = [name for name, recipe in store.added.items() if isinstance(recipe, ExtractorRecipe)]
        labelled, _ = labelled_tracks(store.requiring(added))
        tracks, rows = labelled.tracks, labelled.rows
        self.names: Sequence[str] = store.genres
        self.labels = np.asarray(labelled.labels, dtype=np.bool_)
        self.ids: list[str] = tracks.column("id").to_pylist()
        artists, titles = tracks.column("artists").to_pylist(), tracks.column("song").to_pylist()
        self.songs = [
            f"{'|'.join(artist or ())} - {title}" if title else name
            for artist, title, name in zip(artists, titles, self.ids, strict=True)
        ]
        self.features = {name: store.read(name, rows).reshape(len(rows), -1).astype(np.float64) for name in added}

    def resampling(self) -> Resampling:
        """Return draws of whole songs."""
        return Resampling.of(self.songs, REPLICATES, SEED)


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def print_tags(songs: Songs) -> None:
    """Print the area under the ROC curve of each genre that is a tag of musicnn."""
    print(
        "\n## Tags without training\n\nArea under the ROC curve of the tags of `musicnn_tags` whose name is a "
        "genre of the collection. CI: 95 %, whole songs are drawn.\n\n"
        "| tag | AUC | clips with it | songs with it |\n|---|---|---|---|"
    )
    scores, columns = songs.features["musicnn_tags"], {plain(tag): i for i, tag in enumerate(TAGS)}
    for c, name in enumerate(songs.names):
        positive = songs.labels[:, c]
        if plain(name) not in columns or not 0 < positive.sum() < len(positive):
            continue
        score = scores[:, [columns[plain(name)]]]
        cell = estimate(*ranking_metrics(positive[:, None], score, songs.resampling())["roc_auc"])
        n_songs = len({song for song, has in zip(songs.songs, positive, strict=True) if has})
        print(f"| {name} | {_cell(cell.value, cell.low, cell.high)} | {positive.sum()} | {n_songs} |")


def print_retrieval(songs: Songs) -> None:
    """Print how often the nearest other clip, by cosine, is one of the same song."""
    print(
        "\n## The same song\n\nShare of clips whose nearest other clip is one of the same song: cosine of features "
        "that are standardised over the collection. Only clips of songs with several clips count.\n\n"
        "| feature | share of clips | clips | songs |\n|---|---|---|---|"
    )
    _, of_song = np.unique(songs.songs, return_inverse=True)
    several = np.bincount(of_song)[of_song] > 1
    resampling = Resampling.of(np.asarray(songs.songs)[several], REPLICATES, SEED)
    for name, values in songs.features.items():
        spread = values.std(axis=0)
        scaled = (values - values.mean(axis=0))[:, spread > 0] / spread[spread > 0]
        unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -np.inf)
        hits = (of_song[cosine.argmax(axis=1)] == of_song)[several].astype(np.float64)
        low, high = interval(_means(hits, resampling))
        n_songs = len(set(of_song[several].tolist()))
        print(f"| {name} | {_cell(hits.mean(), low, high)} | {several.sum()} | {n_songs} |")


def print_probes(store: FeatureStore, songs: Songs) -> None:
    """Print the mAP of a logistic regression on each feature, in the folds of the heads."""
    folds = make_folds(store, FOLDS, by="song")
    position = {track: i for i, track in enumerate(songs.ids)}
    print(
        f"\n## Probes\n\nLogistic regression per genre on standardised features, {FOLDS} folds by song, trained on all "
        "other folds. Genres without a positive track in some training set are left out.\n\n"
        "| feature | mAP | genres |\n|---|---|---|"
    )
    tests = [[position[track] for track in fold.split.ids["test"] if track in position] for fold in folds]
    trains = [sorted(set(range(len(songs.ids))) - set(test)) for test in tests]
    kept = np.all([songs.labels[train].sum(axis=0) > 0 for train in trains], axis=0)
    kept &= np.all([songs.labels[train].sum(axis=0) < len(train) for train in trains], axis=0)
    tested = sorted(track for test in tests for track in test)
    resampling = Resampling.of([songs.songs[i] for i in tested], REPLICATES, SEED)
    for name, values in songs.features.items():
        scores = np.zeros((len(songs.ids), int(kept.sum())))
        for train, test in zip(trains, tests, strict=True):
            for c, genre in enumerate(np.flatnonzero(kept)):
                probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
                probe.fit(values[train], songs.labels[train, genre])
                scores[test, c] = probe.predict_proba(values[test])[:, 1]
        found = ranking_metrics(songs.labels[tested][:, kept], scores[tested], resampling)
        cell = estimate(*found["mean_average_precision"])
        print(f"| {name} | {_cell(cell.value, cell.low, cell.high)} | {kept.sum()} |")


def _means(values: Float, resampling: Resampling) -> Float:
    """Return the mean of values per replicate."""
    weights = resampling.draws[:, resampling.group_of]
    return (weights @ values) / weights.sum(axis=1)


def _cell(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, nargs="?")
    parser.add_argument("--folder", type=Path, default=Path("tables") / "real-songs")
    parser.add_argument("--seeds", type=int, default=3, help="of the heads; 0 leaves them out")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    store = options.store or extract(options.folder)
    with FeatureStore.open(store) as opened:
        songs = Songs(opened)
        print_heading(
            "Audio features on real songs",
            __file__,
            f". {len(songs.ids)} labelled clips of {len(set(songs.songs))} songs: few, so that intervals are wide.",
            torch_version=torch.__version__,
        )
        if "musicnn_tags" in songs.features:
            print_tags(songs)
        print_retrieval(songs)
        print_probes(opened, songs)
    if options.seeds == 0:
        print("\n## Heads\n\nNot run for this page (`--seeds 0`).")
        return 0
    heads = api.ablate(
        store,
        options.folder / "ablation",
        tables=["audio"],
        n_seeds=options.seeds,
        n_folds=FOLDS,
        fold_by="song",
        options=OPTIONS,
    )
    page = (options.folder / "ablation" / "tables.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines()[2:] if not line.startswith("![")]
    print("\n## Heads\n\n" + "\n".join(lines).strip().replace("\n## ", "\n### "))
    return 1 if heads.to_dict()["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
