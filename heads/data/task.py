"""Prepare a run before its first step: split, genres, statistics, genre graph, shape of the model.

Everything that is estimated from labels or features uses the training split only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.durable import canonical_json
from ...cache.errors import ConfigError, RunError, TrainingError
from ...cache.format.schema import OK
from ...cache.messages import counted, join_names
from ...cache.reading.store import FeatureStore
from ...cache.steps import Progress, silent
from ..config import TrainConfig
from ..model.config import MEL, ModelConfig
from ..model.graph import Graph, build_adjacency, graph_summary, graph_warnings
from .artist_groups import bootstrap_groups
from .batches import Examples
from .embeddings import EmbeddingStatistics, count_required, embedding_shapes, embedding_statistics, require_audio
from .labels import (
    FilterCount,
    GenreChoice,
    GenresById,
    LabelMatrix,
    choose_genres,
    genre_matrix,
    labels_sha256,
    left_out,
)
from .normalisation import MelStatistics, mel_statistics
from .splits import SPLITS, Split, make_split

Index = npt.NDArray[np.int64]

FEW_VALIDATION_TRACKS = 10
"""Number of validation tracks below which there is a warning."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The learning problem of a run.

    Attributes
    ----------
    split : ids of every split, including tracks without kept genres.
    genres : kept genres with their training counts.
    examples : `n_train` training tracks, then the validation tracks.
    n_test : test tracks with enough of the kept genres.
    groups : unit of the bootstrap per example: its artist.
    filters : counts of each filter of genres and tracks, in order.
    graph, graph_summary : genre graph; None for a model without.
    embedding_statistics : statistics of the added feature sets of the audio input, by name.
    genre_embedding : (C, D); None for a head that does not use genre name prompts.
    model : config of the model.
    identity : values that must be equal for a run to be resumed.
    labels_sha256 : hash of labels that replace those of the store; None without.
    warnings : sentences for users, the most severe first.
    """

    split: Split
    genres: GenreChoice
    examples: Examples
    groups: tuple[str, ...]
    n_train: int
    n_test: int
    filters: tuple[FilterCount, ...]
    statistics: MelStatistics
    embedding_statistics: Mapping[str, EmbeddingStatistics]
    graph: Graph | None
    graph_summary: dict[str, Any] | None
    genre_embedding: npt.NDArray[np.float32] | None
    model: ModelConfig
    identity: dict[str, Any]
    labels_sha256: str | None
    warnings: tuple[str, ...]

    @property
    def train_labels(self) -> LabelMatrix:
        """(n_train, C) bool."""
        return self.examples.labels[: self.n_train]

    @property
    def n_validation(self) -> int:
        return len(self.examples) - self.n_train

    @property
    def sizes(self) -> dict[str, int]:
        """Number of tracks of each split after the filters."""
        return {"train": self.n_train, "validation": self.n_validation, "test": self.n_test}

    @property
    def n_without_lyrics(self) -> int:
        """Number of training tracks without lyrics."""
        return int((self.examples.lyrics_tokens[: self.n_train] == 0).sum())


@dataclass(frozen=True, kw_only=True)
class LabelledTracks:
    """Tracks with features and a label: `tracks` with their outcomes, (n,) array `rows`, (n, G) `labels`."""

    tracks: pa.Table
    rows: Index
    labels: LabelMatrix

    def positions(self, ids: Sequence[str]) -> Index:
        """Return the positions of `ids` among these tracks; other ids are left out."""
        position = {name: i for i, name in enumerate(self.tracks.column("id").to_pylist())}
        return np.asarray([position[name] for name in ids if name in position], dtype=np.int64)


def ok_tracks(store: FeatureStore, labels: GenresById | None = None) -> pa.Table:
    """Return the store's tracks with status ok, in row order; the newest row of a retried track.

    Parameters
    ----------
    labels : genres by track id that replace those of the store. A track that they lack has no genre.
    """
    tracks = store.newest_tracks()
    if labels is not None:
        lists = [list(labels.get(track_id, ())) for track_id in tracks.column("id").to_pylist()]
        field = tracks.schema.field("genres")
        tracks = tracks.set_column(tracks.schema.get_field_index("genres"), field, pa.array(lists, field.type))
    return tracks.filter(pc.equal(tracks.column("status"), OK))


def labelled_tracks(store: FeatureStore, labels: GenresById | None = None) -> tuple[LabelledTracks, FilterCount]:
    """Return the tracks of :func:`ok_tracks` with a label, and their count.

    Raises
    ------
    ConfigError
        If `labels` has a genre without an embedding in the store.
    """
    tracks = ok_tracks(store, labels)
    if labels is not None:
        genres = set(pc.unique(pc.list_flatten(tracks.column("genres"))).to_pylist())
        if unknown := sorted(genres - set(store.genres)):
            without = f"labels: {counted(len(unknown), 'genre')} without an embedding in {store.path}"
            raise ConfigError(f"{without}: {join_names(unknown)}. Extract a new store with these labels.")
    matrix = genre_matrix(tracks.column("genres"), store.genres)
    labelled = np.flatnonzero(matrix.any(axis=1))
    count = FilterCount(filter="labelled", kept=len(labelled), of=len(tracks), unit="tracks")
    tracks = tracks.take(labelled)
    rows = np.asarray(tracks.column("row"), dtype=np.int64)
    return LabelledTracks(tracks=tracks, rows=rows, labels=matrix[labelled]), count


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The tracks and genres of a store for a config.

    Attributes
    ----------
    tracks, rows, labels : table, (N,) array rows and (N, C) labels over the kept genres, of all N labelled tracks.
    positions : by split, positions of the tracks with at least `min_labels` of the kept genres.
    filters : counts of each filter.
    """

    tracks: pa.Table
    rows: Index
    labels: LabelMatrix
    split: Split
    genres: GenreChoice
    positions: Mapping[str, Index]
    filters: tuple[FilterCount, ...]


def select(
    store: FeatureStore, config: TrainConfig, *, labels: GenresById | None = None, split: Split | None = None
) -> Selection:
    """Choose genres and tracks, and split them; parameters and errors as in :func:`prepare`."""
    labelled, labelled_count = labelled_tracks(store, labels)
    if not len(labelled.rows):
        no_labels = f"{store.path}: no track with features has a label. See `mgc store failures`, or give --labels."
        raise TrainingError(store.pending_note or no_labels)
    if split is None:
        split = make_split(labelled.tracks, labelled.labels, policy=config.split, seed=config.split_seed)
    positions = {name: labelled.positions(split.ids[name]) for name in SPLITS}
    missing = sum(len(split.ids[name]) - len(positions[name]) for name in ("train", "validation"))
    if missing:
        raise RunError(
            store.pending_note
            or f"{store.path}: {missing} training and validation tracks of the run are missing, or have no label. "
            "Resume with the store of the run."
        )
    genres = choose_genres(
        labelled.labels[positions["train"]],
        store.genres,
        listed=config.genres,
        top_genres=config.top_genres,
        min_genre_count=config.min_genre_count,
    )
    matrix = labelled.labels[:, genres.columns]
    enough = matrix.sum(axis=1) >= config.min_labels
    filters = [
        *count_required(store),
        labelled_count,
        *genres.steps,
        *_count_tracks(positions, enough, config.min_labels),
    ]
    return Selection(
        tracks=labelled.tracks,
        rows=labelled.rows,
        labels=matrix,
        split=split,
        genres=genres,
        positions={name: index[enough[index]] for name, index in positions.items()},
        filters=tuple(filters),
    )


def prepare(
    store: FeatureStore,
    config: TrainConfig,
    *,
    labels: GenresById | None = None,
    split: Split | None = None,
    on_progress: Progress = silent,
) -> Task:
    """Prepare the task of `config` on `store`.

    Parameters
    ----------
    labels : genres by track id that replace those of the store.
    split : split of the run that is resumed; None makes a new one.
    on_progress : receives the number of tracks read, and their total, while statistics are computed.

    Raises
    ------
    ConfigError
        If the store lacks features that the model needs, or the split policy cannot be applied.
    RunError
        If training or validation tracks of a resumed run are missing.
    TrainingError
        If the filters leave too few tracks or no genre.
    """
    _check_features(store, config)
    store = require_audio(store, config.added_audio)
    chosen = select(store, config, labels=labels, split=split)
    split, genres, matrix = chosen.split, chosen.genres, chosen.labels
    train, validation = chosen.positions["train"], chosen.positions["validation"]
    if len(train) < 2:
        filters = "; ".join(left_out(chosen.filters))
        raise TrainingError(
            f"{store.path}: {counted(len(train), 'training track')} left ({filters}). Relax the filters."
        )
    index = np.concatenate([train, validation])
    tracks = chosen.tracks.take(index)
    examples = Examples.of(store, chosen.rows[index], matrix[index], config.audio)
    embedding = store.genre_embedding[genres.columns] if config.head != "linear" else None
    model = config.model_config(
        n_genres=len(genres.names),
        text_dim=store.recipe.lyrics.hidden_size if store.recipe.lyrics is not None else 1,
        n_mels=store.recipe.mel.n_mels if store.recipe.mel is not None else 128,
        embeddings=embedding_shapes(store, config),
    )
    graph = None
    if config.head == "graph" and embedding is not None:
        graph = build_adjacency(matrix[train], embedding, model.graph_options)
    summary = graph_summary(graph, genres.names) if graph is not None else None
    warnings = [  # the most severe first
        *_empty_split_warnings(len(validation), len(chosen.positions["test"])),
        *_genre_warnings(store, config, genres),
        *split.notes,
        *filter(None, [store.pending_note]),
        *_lambda_warnings(config),
        *(graph_warnings(summary, model.graph_options) if summary is not None else ()),
        *_validation_warnings(matrix[validation], genres),
    ]
    return Task(
        split=split,
        genres=genres,
        examples=examples,
        groups=tuple(bootstrap_groups(tracks)),
        n_train=len(train),
        n_test=len(chosen.positions["test"]),
        filters=chosen.filters,
        statistics=_mel_statistics(store, examples.take(np.arange(len(train))), model, on_progress),
        embedding_statistics={
            name: embedding_statistics(
                store, name, examples.rows[: len(train)], steps[: len(train)], on_progress=on_progress
            )
            for name, steps in examples.steps.items()
        },
        graph=graph,
        graph_summary=summary,
        genre_embedding=embedding,
        model=model,
        identity=_identity(store, examples, genres, tracks),
        labels_sha256=labels_sha256(labels),
        warnings=tuple(warnings),
    )


def _mel_statistics(
    store: FeatureStore, training: Examples, model: ModelConfig, on_progress: Progress
) -> MelStatistics:
    if MEL not in model.audio:
        return MelStatistics(mean_db=0.0, std_db=1.0, n_values=0)
    return mel_statistics(store, training.rows, training.mel_frames, level=model.mel_level, on_progress=on_progress)


def _check_features(store: FeatureStore, config: TrainConfig) -> None:
    if store.recipe.mel is None and config.modalities != "lyrics" and MEL in config.audio:
        raise ConfigError(f"{store.path}: no mel features. Train with --modalities lyrics, or extract audio.")
    if store.recipe.lyrics is None and (config.modalities != "audio" or config.head != "linear"):
        raise ConfigError(
            f"{store.path}: no text features. Train with --modalities audio and --head linear, or extract lyrics."
        )


def _count_tracks(positions: Mapping[str, Index], enough: npt.NDArray[np.bool_], min_labels: int) -> list[FilterCount]:
    units = {"train": "training tracks", "validation": "validation tracks", "test": "test tracks"}
    step = f"min_labels={min_labels}"
    return [
        FilterCount(filter=step, kept=int(enough[index].sum()), of=len(index), unit=units[name])
        for name, index in positions.items()
    ]


def _identity(store: FeatureStore, examples: Examples, genres: GenreChoice, tracks: pa.Table) -> dict[str, Any]:
    """Return recipe fingerprints, genres, and a hash of audio, lyrics and labels of training and validation tracks."""
    content = tracks.select(["source_sha256", "lyrics_sha256"]).to_pylist()
    lines = [
        [name, *track.values(), np.flatnonzero(labels).tolist()]
        for name, track, labels in zip(examples.ids, content, examples.labels, strict=True)
    ]
    return {
        "fingerprints": dict(store.fingerprints),
        "genres": list(genres.names),
        "n_tracks": len(lines),
        "tracks_sha256": hashlib.sha256(canonical_json(lines)).hexdigest(),
    }


def _lambda_warnings(config: TrainConfig) -> list[str]:
    if not config.contrastive or config.lambda_ != 1:
        return []
    return [
        "lambda = 1 trains with the audio-lyrics loss only: fusion and classifier are not trained, and "
        "scores are meaningless"
    ]


def _genre_warnings(store: FeatureStore, config: TrainConfig, genres: GenreChoice) -> list[str]:
    """Warn of genres without a training track, unless genres are filtered, and of a filter without effect."""
    for step in genres.steps:
        if step.filter == f"top_genres={config.top_genres}" and step.of < (config.top_genres or 0):
            return [f"{step.filter}: only {counted(step.of, 'genre')} to choose from, and all are kept"]
    absent = [name for name in store.genres if name not in genres.names]
    if not absent or config.genres is not None or config.top_genres is not None or config.min_genre_count > 1:
        return []
    untrained = f"{len(absent)} of {len(store.genres)} genres have no training track"
    return [f"{untrained} and are not learned: {join_names(absent, 10)}"]


def _empty_split_warnings(n_validation: int, n_test: int) -> list[str]:
    warnings = []
    if not n_validation:
        warnings.append("no validation track is left: the last epoch is used as the best, and thresholds stay at 0.5")
    if not n_test:
        warnings.append("no test track is left: `mgc evaluate` cannot test this model on its own split")
    return warnings


def _validation_warnings(validation: LabelMatrix, genres: GenreChoice) -> list[str]:
    if not len(validation):
        return []
    warnings = []
    if len(validation) < FEW_VALIDATION_TRACKS:
        warnings.append(
            f"only {counted(len(validation), 'validation track')}: best epoch and thresholds are unreliable. Add "
            "tracks, or give a split in the manifest."
        )
    has_track = np.any(validation, axis=0).tolist()
    if absent := [name for name, has in zip(genres.names, has_track, strict=True) if not has]:
        unvalidated = f"{len(absent)} of {len(genres.names)} genres have no validation track"
        warnings.append(f"{unvalidated} and are excluded from the validation mAP: {join_names(absent, 10)}")
    return warnings
