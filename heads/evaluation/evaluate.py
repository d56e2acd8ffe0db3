"""Evaluate a run's best model on a split of a store, and save every metric in the run folder."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...cache.durable import replace_file, seal
from ...cache.errors import ConfigError, RunError
from ...cache.messages import counted
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent, within
from ..data.artist_groups import bootstrap_groups, count_with_artist
from ..data.labels import GenresById, genre_matrix, labels_sha256
from ..data.splits import SPLITS, Split
from ..data.task import ok_tracks
from ..metrics.bootstrap import BoolArray
from ..metrics.calibration import Calibration, calibration
from ..metrics.multilabel import Metrics, evaluate_predictions
from ..metrics.phrases import by_artists
from ..metrics.retrieval import alignment
from ..metrics.trivial_baselines import baseline_scores
from ..results import Result
from ..runs.documents import read_sealed
from ..runs.published_model import LoadedModel, load_run
from .predict import ScoredStore, lyrics_warnings, score_store, store_for, tracks_with_lyrics
from .scored_tracks import METRICS_FILE, save_predictions
from .slices import slices_by

ALL = "all"
"""Split name for every labelled track of the store, including training tracks."""

MIN_TRACKS, MIN_GROUPS = 20, 5
"""Numbers of tracks and of artists below which an evaluation warns."""
TOO_FEW = "too few to judge a model"


@dataclass(frozen=True, kw_only=True)
class Evaluation(Result):
    """Figures of a model on the tracks of a split.

    Attributes
    ----------
    policy : policy of the run's split; None for a published model without its run folder.
    n_tracks : scored tracks.
    n_left_out : tracks without a genre of the model.
    n_missing : tracks of the split that the store lacks.
    n_with_artist : scored tracks with a known artist. Each other track is a group of its own.
    epoch, lr : epoch of the model, and its initial learning rate.
    threshold, threshold_tuned_on : overall threshold, and the number of validation tracks it was tuned on. With 0, all
        thresholds are 0.5.
    baselines : metrics of the systems without features; see :mod:`mgc.heads.metrics.trivial_baselines`.
    parts : metrics by available modalities, without rows per genre, which would have too few tracks.
    slices : column -> value -> metrics of the tracks with that value, likewise; empty without `by`, and then left out
        of the JSON values.
    alignment : cross-modal retrieval, or the ``reason`` why it cannot be measured.
    predictions_sha256 : hash of the saved scores of the test split; None for other splits, and then left out of the
        JSON values.
    """

    split: str
    policy: str | None
    store: str
    n_tracks: int
    n_left_out: int
    n_missing: int
    n_seen_in_training: int
    n_with_artist: int
    epoch: int
    lr: float
    threshold: float
    threshold_tuned_on: int
    metrics: Metrics
    baselines: Mapping[str, Metrics]
    parts: Mapping[str, Mapping[str, Any]]
    calibration: Calibration
    alignment: Mapping[str, Any]
    warnings: Sequence[str]
    predictions_sha256: str | None = None
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, in their order, as JSON values."""
        values = super().to_dict()
        if self.predictions_sha256 is None:
            del values["predictions_sha256"]
        if not self.slices:
            del values["slices"]
        return values


def evaluate(
    run: Path,
    store: FeatureStore,
    *,
    split: str = "test",
    by: Sequence[str] = (),
    labels: GenresById | None = None,
    n_replicates: int = 1000,
    seed: int = 0,
    batch_size: int = 16,
    device: str = "auto",
    save: bool = True,
    on_progress: Progress = silent,
) -> Evaluation:
    """Evaluate a run's best model.

    Parameters
    ----------
    run : run folder; with ``split="all"`` also a published model (``best/``).
    split : ``test``, ``validation`` or ``train`` of the run, or ``all`` tracks of `store`, which may be another store
        than the one the run was trained on.
    by : columns of the track table; see :func:`mgc.heads.evaluation.slices.slices_by`.
    labels : genres by track id, in place of the store's own.
    n_replicates, seed : of the bootstrap over artists.
    save : write the result to the run's ``metrics.json``, under the name of the split, and the scores of test tracks to
        ``predictions.parquet``.

    Raises
    ------
    ConfigError
        If there is no such split.
    RunError
        If the store has no track of the split, or none with a genre of the model.
    RecipeMismatchError
        If the store's features have another recipe than those the model was trained on.
    """
    if split not in (*SPLITS, ALL):
        raise ConfigError(f"split {split!r}: unknown. Choose one of {', '.join((*SPLITS, ALL))}.")
    loaded = load_run(run)
    store = store_for(loaded, store)
    own = Split.load(run / "splits.json") if (run / "splits.json").exists() else None
    tracks, n_missing = _tracks_of(store, own, split, run, labels)
    truth = genre_matrix(tracks.column("genres"), loaded.genres)
    enough = np.flatnonzero(truth.sum(axis=1) >= loaded.training.min_labels)
    if not len(enough):
        raise RunError(
            store.pending_note
            or f"{store.path}: none of {counted(len(tracks), 'track')} has a genre of the model in {run}. Evaluate on "
            "a store with its genres, or map labels with --merge-genres."
        )
    n_left_out = len(tracks) - len(enough)
    tracks, truth = tracks.take(enough), truth[enough]
    masks_by_column = {column: slices_by(tracks, column) for column in by}
    rows = np.asarray(tracks.column("row"), dtype=np.int64)
    scored = score_store(
        loaded, store, rows, batch_size=batch_size, device=device, on_progress=within(on_progress, step="evaluate")
    )
    scores, has_lyrics = scored.scores, tracks_with_lyrics(store, rows)
    trained_on = set(own.ids["train"]) if own is not None else set()
    artists = np.asarray(bootstrap_groups(tracks))
    measure = functools.partial(
        evaluate_predictions,
        genres=loaded.genres,
        thresholds=loaded.thresholds.by_column,
        n_replicates=n_replicates,
        seed=seed,
    )
    metrics = measure(truth, scores, groups=artists)

    def summary(mask: BoolArray) -> dict[str, Any]:
        subset = metrics if mask.all() else measure(truth[mask], scores[mask], groups=artists[mask])
        return {name: value for name, value in subset.to_dict().items() if name != "genres"}

    sha256 = None
    if save and own is not None and split == "test":
        sha256 = save_predictions(run, tracks, artists.tolist(), loaded.genres, scores)
    result = Evaluation(
        split=split,
        policy=own.policy if own is not None else None,
        store=store.path.name,
        n_tracks=len(rows),
        n_left_out=n_left_out,
        n_missing=n_missing,
        n_seen_in_training=sum(track_id in trained_on for track_id in tracks.column("id").to_pylist()),
        n_with_artist=count_with_artist(artists),
        epoch=loaded.epoch,
        lr=loaded.training.learning_rate,
        threshold=loaded.thresholds.overall,
        threshold_tuned_on=loaded.thresholds.n_tracks,
        metrics=metrics,
        baselines={
            name: evaluate_predictions(truth, scores, genres=loaded.genres, n_replicates=0)
            for name, scores in baseline_scores(loaded.label_prior, loaded.majority, len(truth)).items()
        },
        parts={name: summary(mask) for name, mask in _by_modalities(store, has_lyrics).items()},
        calibration=calibration(truth, scores),
        alignment=_alignment(loaded, scored, artists, n_replicates, seed),
        warnings=[
            *filter(None, [store.pending_note]),
            *_few_warnings(artists.tolist()),
            *_label_warnings(run, labels),
            *lyrics_warnings(loaded, has_lyrics),
        ],
        predictions_sha256=sha256,
        slices={
            column: {name: summary(mask) for name, mask in masks.items()} for column, masks in masks_by_column.items()
        },
    )
    if save and own is not None:
        path = run / METRICS_FILE
        other_splits = read_sealed(path) if path.exists() else {}
        replace_file(path, seal({**other_splits, split: result.to_dict()}))
    return result


def _tracks_of(
    store: FeatureStore, own: Split | None, split: str, run: Path, labels: GenresById | None
) -> tuple[pa.Table, int]:
    """Return the tracks to score, and the number of tracks of the split that the store lacks."""
    tracks = ok_tracks(store, labels)
    if split == ALL:
        return tracks, 0
    if own is None:
        raise RunError(
            f"{run}: no splits.json, so its {split} tracks are unknown. Give the run folder, or --split all."
        )
    ids = set(own.ids[split])
    if not ids:
        raise RunError(f"{run}: the run has no {split} tracks. Evaluate another split.")
    index = np.flatnonzero([track_id in ids for track_id in tracks.column("id").to_pylist()])
    if not len(index):
        raise RunError(
            store.pending_note
            or f"{store.path}: none of the run's {len(ids)} {split} tracks is in this store. Evaluate on the run's own "
            "store, or on all tracks of this one with --split all."
        )
    return tracks.take(index), len(ids) - len(index)


def _alignment(
    loaded: LoadedModel, scored: ScoredStore, artists: npt.ArrayLike, n_replicates: int, seed: int
) -> dict[str, Any]:
    """Measure cross-modal retrieval, or return the ``reason`` why it cannot be measured."""
    outputs, examples = scored.outputs, scored.examples
    if outputs.audio_embedding is None or outputs.lyrics_embedding is None:
        return {"reason": "the model has no audio-lyrics projections: it was trained without the audio-lyrics loss"}
    retrieval = alignment(
        outputs.audio_embedding,
        outputs.lyrics_embedding,
        track_key=examples.track_key,
        lyrics_key=examples.lyrics_key,
        groups=artists,
        n_replicates=n_replicates,
        seed=seed,
    )
    if retrieval is None:
        return {"reason": "fewer than two of these tracks have both audio and lyrics"}
    untrained = {"note": "lambda was 0, so the projections were never trained"} if not loaded.training.lambda_ else {}
    return {**retrieval.to_dict(), **untrained}


def _few_warnings(groups: Sequence[str]) -> list[str]:
    """Warn if the scored tracks, with these groups, are too few: then every model, and chance, can look perfect."""
    n_groups = len(set(groups))
    if len(groups) >= MIN_TRACKS and n_groups >= MIN_GROUPS:
        return []
    tracks = f"{counted(len(groups), 'track')} {by_artists(len(groups), n_groups, count_with_artist(groups))}"
    return [f"only {tracks}: {TOO_FEW}. Evaluate on at least {MIN_TRACKS} tracks in {MIN_GROUPS} groups."]


def _label_warnings(run: Path, labels: GenresById | None) -> list[str]:
    """Warn if the model was trained on other labels than it is evaluated on; ``best/`` alone does not record them."""
    if not (run / "run.json").exists():
        return []
    in_training, in_evaluation = read_sealed(run / "run.json").get("labels_sha256"), labels_sha256(labels)
    if in_training == in_evaluation:
        return []
    trained, evaluated = (
        "the store's own labels" if sha256 is None else "other labels" for sha256 in (in_training, in_evaluation)
    )
    return [f"the run was trained on {trained} and is evaluated on {evaluated}: see --labels and --merge-genres"]


def _by_modalities(store: FeatureStore, has_lyrics: BoolArray) -> dict[str, BoolArray]:
    """Return masks of the tracks with audio and lyrics, audio only, lyrics only, or neither.

    Extraction with audio fails a track whose audio is invalid, even if it has lyrics. The last two masks are therefore
    empty for stores with audio.
    """
    has_audio = np.full(len(has_lyrics), store.recipe.mel is not None)
    return {
        "sound and lyrics": has_audio & has_lyrics,
        "sound only": has_audio & ~has_lyrics,
        "lyrics only": ~has_audio & has_lyrics,
        "neither": ~has_audio & ~has_lyrics,
    }
