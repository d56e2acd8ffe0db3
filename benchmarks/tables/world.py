"""Define the synthetic benchmark of `make tables`: constants, store, statistics, and scores of oracle models.

It must not change: the figures of benchmarks/tables/paper.md depend on it. docs/design/004 explains its principles. Its
design used no result of a system, except whether the paper's model learns at all.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.worlds.labels import LabelSets, generated_label_sets, multi_hot, read_label_sets
from benchmarks.worlds.motifs import MOTIFS
from benchmarks.worlds.songs import BenchmarkSong, BenchmarkWorld, make_benchmark
from benchmarks.worlds.topics import TOPICS
from mgc import api

SEED, N_SONGS, CLIP_S = 0, 3000, 5.0
REAL_LABELS = "mtg_jamendo"
"""Folder of MGC_REAL_DATA with MTG-Jamendo's genre tables."""


@functools.cache
def label_sets() -> LabelSets:
    """Return label sets of real tracks if MGC_REAL_DATA has them, else generated ones."""
    folder = Path(os.environ.get("MGC_REAL_DATA") or "nowhere") / REAL_LABELS
    return read_label_sets(folder) if folder.is_dir() else generated_label_sets(SEED)


def make_store(folder: Path, world: BenchmarkWorld, n_songs: int, *, clip_s: float, workers: int) -> Path:
    """Write the songs and extract them as `mgc extract` does; existing files are kept."""
    store = folder / "world.zarr"
    songs = make_benchmark(folder / "world", world, n_songs, clip_s=clip_s, workers=workers)
    # fp32 gives the same features on every machine.
    report = api.extract(
        api.read_source(songs).source, store, clip_s=clip_s, text_model="minilm", text_precision="fp32", workers=workers
    )
    if report.failed or report.pending:
        raise SystemExit(f"{store}: {report.failed} songs failed, {report.pending} pending")
    return store


def jaccard(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the example-based Jaccard index; truth has no empty row."""
    return float(((predicted & truth).sum(axis=1) / (predicted | truth).sum(axis=1)).mean())


def ceilings(world: BenchmarkWorld, songs: Sequence[BenchmarkSong]) -> dict[str, float]:
    """Return the Jaccard index of oracle models, which know motifs and topics of every song, on the test songs.

    They are logistic regressions per genre, fitted to the training songs: on motifs, on topics, on both, and on both
    with one more input per (motif, topic) pair that is a style.
    """
    from sklearn.linear_model import LogisticRegression

    n_genres, evidence = len(world.labels.genres), world.evidence()
    train, test = (np.array([song.split == split for song in songs]) for split in ("train", "test"))
    labels = multi_hot([song.genres for song in songs], n_genres)
    motifs = multi_hot([song.motifs for song in songs], len(MOTIFS))
    silent = np.array([[song.lyrics is None] for song in songs])
    words = np.hstack([multi_hot([song.topics for song in songs], len(TOPICS)), silent])
    pairs = [style for styles in evidence.styles for style in styles if None not in style]
    together = np.stack([motifs[:, motif] & words[:, topic] for motif, topic in pairs], axis=1)
    top = np.arange(n_genres) == labels[train].sum(axis=0).argmax()
    scores = {"most frequent genre": jaccard(np.tile(top, (test.sum(), 1)), labels[test])}
    for name, inputs in {
        "motifs": motifs,
        "topics": words,
        "motifs and topics": np.hstack([motifs, words]),
        "motifs, topics and their pairs": np.hstack([motifs, words, together]),
    }.items():
        predicted = np.zeros_like(labels[test])
        for genre in np.flatnonzero(labels[train].any(axis=0)):
            model = LogisticRegression(C=3.0, max_iter=500).fit(inputs[train], labels[train, genre])
            predicted[:, genre] = model.predict(inputs[test])
        scores[name] = jaccard(predicted, labels[test])
    true = multi_hot([song.true_genres for song in songs], n_genres)
    scores["labels without their noise"] = jaccard(true[test], labels[test])
    return scores


def facts(world: BenchmarkWorld, songs: Sequence[BenchmarkSong]) -> list[tuple[str, str]]:
    """Describe the world, as (name, figure)."""
    labels = world.labels
    matrix = multi_hot([song.genres for song in songs], len(labels.genres))
    target, actual = labels.matrix().mean(axis=0), matrix.mean(axis=0)
    splits = Counter(song.split for song in songs)
    artists = {split: len({song.artist for song in songs if song.split == split}) for split in splits}
    kinds = np.array(world.evidence().kinds)
    shares = {kind: matrix[:, kinds == kind].sum() / matrix.sum() for kind in ("sound", "words", "both")}
    train = np.array([song.split == "train" for song in songs])
    sung = [len(song.lyrics.split()) for song in songs if song.lyrics is not None]
    return [
        ("label sets", labels.origin),
        *((f"{split} songs (artists)", f"{splits[split]} ({artists[split]})") for split in splits),
        ("genres per song", f"{matrix.sum(axis=1).mean():.2f} (in the label rows {target.sum():.2f})"),
        (
            "most frequent genre",
            f"{labels.genres[0]}, {actual[0]:.3f} of songs (in the label rows {target[0]:.3f})",
        ),
        ("largest difference of a genre's frequency from the label rows", f"{np.abs(target - actual).max():.3f}"),
        ("genres with 10 training songs or more", f"{(matrix[train].sum(axis=0) >= 10).sum()} of {len(labels.genres)}"),
        ("labels with evidence in audio, lyrics, both", ", ".join(f"{shares[kind]:.2f}" for kind in shares)),
        ("motifs per song", f"{np.mean([len(song.motifs) for song in songs]):.2f}"),
        ("topics per song", f"{np.mean([len(song.topics) for song in songs]):.2f}"),
        ("songs without lyrics", f"{np.mean([song.lyrics is None for song in songs]):.3f}"),
        ("words per lyric", f"{np.mean(sung):.0f} ({min(sung)} to {max(sung)})"),
    ]


def print_world(world: BenchmarkWorld, songs: Sequence[BenchmarkSong], *, with_ceilings: bool) -> None:
    """Print the section about the benchmark; ceilings take minutes for many songs."""
    print("## The world\n\n| | |\n|---|---|")
    for name, value in facts(world, songs):
        print(f"| {name} | {value} |")
    if not with_ceilings:
        return
    print(
        "\nJaccard index on the test songs of logistic regressions on the true motifs and topics, without audio or "
        "lyrics:\n\n| input | Jaccard |\n|---|---|"
    )
    for name, score in ceilings(world, songs).items():
        print(f"| {name} | {score:.3f} |")
