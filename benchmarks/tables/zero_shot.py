"""Score genres that a model was not trained on, from their names, on a synthetic benchmark.

python -m benchmarks.tables.zero_shot --folder zero_shot > benchmarks/tables/zero_shot.md

The genres of the benchmark are named after their evidence: a topic of the lyrics ("sea"), a motif of the audio ("reedy
rising"), or two topics. Genres are held out of the training labels, and scored on the test tracks.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import print_heading
from benchmarks.tables.world import make_store
from benchmarks.worlds.labels import LabelSets, generated_label_sets
from benchmarks.worlds.motifs import MOTIFS
from benchmarks.worlds.songs import BenchmarkWorld, make_evidence
from benchmarks.worlds.topics import TOPICS
from mgc import api
from mgc.cache.reading.store import FeatureStore
from mgc.cache.reading.view import StoreView
from mgc.heads.data.artist_groups import bootstrap_groups
from mgc.heads.evaluation.predict import score_store
from mgc.heads.evaluation.zero_shot import check_zero_shot, with_zero_shot
from mgc.heads.metrics.bootstrap import Resampling
from mgc.heads.model.graph import cosine
from mgc.heads.runs.published_model import load_run
from mgc.pipeline.text.encoder import TextSource, embed_prompts

SEED, N_SONGS, CLIP_S, EPOCHS, REPLICATES = 0, 1200, 2.0, 12, 500
HELD_OUT = {"words": 10, "sound": 6, "both": 4}
"""Number of held-out genres by the modality of their evidence."""
MIN_POSITIVES = 5
"""Positive test tracks of a trained genre in the comparison."""
KINDS = {"words": "lyrics", "sound": "audio", "both": "both"}


def named_world() -> tuple[BenchmarkWorld, tuple[str, ...]]:
    """Return the benchmark with genres that are named after their evidence, and the kind of each."""
    labels = generated_label_sets(SEED)
    evidence = make_evidence(len(labels.genres), SEED)
    topics, names = list(TOPICS), []
    for kind, styles in zip(evidence.kinds, evidence.styles, strict=True):
        words = [topics[topic] for _, topic in styles if topic is not None]
        sounds = [" ".join(MOTIFS[motif]) for motif, _ in styles if motif is not None]
        name = " and ".join(dict.fromkeys(words if kind != "sound" else sounds))
        names.append(name if name not in names else f"{name} {len(names)}")
    named = LabelSets(genres=tuple(names), artists=labels.artists, origin=labels.origin)
    return BenchmarkWorld(labels=named, seed=SEED), evidence.kinds


def held_out(world: BenchmarkWorld, kinds: tuple[str, ...]) -> dict[str, str]:
    """Return every second of the more frequent genres of each kind, with its kind."""
    chosen = {}
    for kind, n in HELD_OUT.items():
        of_kind = [name for name, other in zip(world.labels.genres, kinds, strict=True) if other == kind]
        chosen |= dict.fromkeys(of_kind[1 : 2 * n : 2], kind)
    return chosen


def areas(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve for (R, N) weights of tracks, (R,); ties count half."""
    order = np.argsort(scores, kind="stable")
    _, tie = np.unique(scores[order], return_inverse=True)
    positive = weights[:, order] * labels[order]
    negative = weights[:, order] * ~labels[order]
    by_level = np.zeros((2, len(weights), tie.max() + 1))
    for i, values in enumerate((positive, negative)):
        np.add.at(by_level[i].T, tie, values.T)
    below = np.cumsum(by_level[1], axis=1) - by_level[1] / 2
    with np.errstate(invalid="ignore"):
        area: np.ndarray = (by_level[0] * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return area


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("zero_shot"))
    parser.add_argument("--songs", type=int, default=N_SONGS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    options = parser.parse_args()
    world, kinds = named_world()
    unseen = held_out(world, kinds)
    store = make_store(options.folder, world, options.songs, clip_s=CLIP_S, workers=0)
    trained = [name for name in world.labels.genres if name not in unseen]
    run = options.folder / f"run-{options.songs}-{options.epochs}"
    if not (run / "report.html").exists():
        settings = {"encoder": "tiny", "head": "query", "epochs": options.epochs, "split": "manifest", "lr": 1e-3}
        with FeatureStore.open(store) as features:
            known = [name for name in trained if name in features.genres]
        api.train(store, run, options={**settings, "genres": known})
    loaded = load_run(run)
    with FeatureStore.open(store) as features:
        embed = functools.partial(embed_prompts, recipe=loaded.recipe, text=TextSource())
        there = [name for name in unseen if name in features.genres]
        model = with_zero_shot(loaded, there, lambda names: embed(names))
        tracks = StoreView(features).sel(split="test")
        scores = {"mean free vector": score_store(model, features, tracks.rows).scores}
        head = check_zero_shot(model)
        with torch.no_grad():
            for values in (head.query, head.output):
                values[-len(there) :] = 0
        scores["no free vector"] = score_store(model, features, tracks.rows).scores
        labels = tracks.labels(model.genres)
        vectors = embed(model.genres).astype(np.float64)
    centred = vectors - vectors[: len(loaded.genres)].mean(axis=0)
    near = cosine(centred)[len(loaded.genres) :, : len(loaded.genres)].argmax(axis=1)
    groups = bootstrap_groups(tracks.tracks)
    resampling = Resampling.of(groups, REPLICATES, SEED)
    weights = np.vstack([np.ones((1, len(labels))), resampling.draws[:, resampling.group_of]])
    systems = {name: values[:, len(loaded.genres) :] for name, values in scores.items()}
    systems["nearest trained name"] = scores["mean free vector"][:, near]
    results = {
        name: np.stack([areas(labels[:, len(loaded.genres) + i], values[:, i], weights) for i in range(len(there))])
        for name, values in systems.items()
    }
    note = f": {options.songs} songs of {CLIP_S:g} s, {options.epochs} epochs, encoder tiny, MiniLM."
    print_heading("Genres that the model was not trained on", __file__, note, torch_version=torch.__version__)
    print(
        f"{len(loaded.genres)} genres trained, {len(there)} held out of the labels; {len(labels)} test tracks by "
        f"{len(set(groups))} unseen artists. Area under the ROC curve (AUC), with 95 % CI over artists; chance is 0.5. "
        "`mgc predict --genres` uses the mean free vector.\n"
    )
    kind_of = dict(zip(world.labels.genres, kinds, strict=True))
    n_positive = labels.sum(axis=0)
    print(f"| evidence | {' | '.join(f'held out: {name}' for name in results)} | trained |")
    print("|---|---|" + "---|" * len(results))
    for kind in HELD_OUT:
        rows = [i for i, name in enumerate(there) if unseen[name] == kind]
        known = [i for i, name in enumerate(loaded.genres) if kind_of[name] == kind and n_positive[i] >= MIN_POSITIVES]
        of_known = np.stack([areas(labels[:, i], scores["mean free vector"][:, i], weights) for i in known])
        cells = " | ".join(cell(values[rows]) for values in results.values())
        print(f"| {KINDS[kind]}: means over {len(rows)} and {len(known)} genres | {cells} | {cell(of_known)} |")
    print(f"\n| genre | evidence | positives | nearest trained name | {' | '.join(results)} |")
    print("|---|---|---|---|" + "---|" * len(results))
    for i, name in enumerate(there):
        cells = " | ".join(cell(values[[i]]) for values in results.values())
        n = n_positive[len(loaded.genres) + i]
        print(f"| {name} | {KINDS[unseen[name]]} | {n} | {loaded.genres[near[i]]} | {cells} |")


def cell(areas_: np.ndarray) -> str:
    """Return the mean over genres of (G, 1 + R) areas, with the interval of its replicates."""
    areas_ = areas_[~np.isnan(areas_[:, 0])]
    if not len(areas_):
        return "–"  # no positive test track
    mean = np.nanmean(areas_, axis=0)
    low, high = np.nanpercentile(mean[1:], [2.5, 97.5])
    return f"{mean[0]:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
