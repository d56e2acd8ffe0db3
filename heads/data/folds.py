"""Divide a small collection into folds of whole artists or songs, for cross-validation.

Each fold is the test split once, with the next fold as validation split. The test predictions of all folds are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...cache.errors import ConfigError
from ...cache.messages import counted
from ...cache.reading.store import FeatureStore
from .artist_groups import Groups, group_tracks
from .labels import GenresById
from .splits import Split
from .task import labelled_tracks

By = Literal["artist", "song"]
Index = npt.NDArray[np.int64]

MIN_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Fold `number` of `of`, counted from 1, with the split that tests on it."""

    number: int
    of: int
    by: By
    split: Split


def make_folds(
    store: FeatureStore, n_folds: int, *, by: By = "artist", seed: int = 0, labels: GenresById | None = None
) -> list[Fold]:
    """Divide the labelled tracks of a store into folds.

    Parameters
    ----------
    by : unit that stays in one fold: ``artist``, as in the artist split, or ``song``: recordings of a title by an
        artist, and tracks with the same lyrics or file. With ``song``, other songs of a tested artist are trained on.
    seed : breaks ties between equally good folds.

    Raises
    ------
    ConfigError
        If there are fewer groups than folds, or fewer than three folds.
    """
    if n_folds < MIN_FOLDS:
        raise ConfigError(
            f"folds {n_folds}: too few. Use at least {MIN_FOLDS}: one each for training, validation and test."
        )
    labelled, _ = labelled_tracks(store, labels)
    ids: list[str] = labelled.tracks.column("id").to_pylist()
    groups = group_tracks(labelled.tracks) if by == "artist" else _group_songs(labelled.tracks)
    if groups.n_groups < n_folds:
        few = f"{counted(len(ids), 'track')} in {counted(groups.n_groups, 'group')} by {by}"
        raise ConfigError(f"folds {n_folds}: {few}. Use at most as many folds as groups.")
    fold_of = _assign(groups, ids, labelled.labels, n_folds, seed)[groups.of_track]
    return [
        Fold(number=k + 1, of=n_folds, by=by, split=_split(ids, fold_of, k, n_folds, by, seed)) for k in range(n_folds)
    ]


def _group_songs(tracks: pa.Table) -> Groups:
    """Group tracks like :func:`group_tracks`, by title and artist instead of artist."""
    artists, songs = tracks.column("artists").to_pylist(), tracks.column("song").to_pylist()
    ids = tracks.column("id").to_pylist()
    titles = [
        [f"{'|'.join(names or ())} - {song}" if song else f"track {name}"]
        for names, song, name in zip(artists, songs, ids, strict=True)
    ]
    index = tracks.schema.get_field_index("artists")
    return group_tracks(tracks.set_column(index, "artists", pa.array(titles, pa.list_(pa.string()))))


def _assign(groups: Groups, ids: Sequence[str], labels: npt.NDArray[np.bool_], n_folds: int, seed: int) -> Index:
    """Return the (n_groups,) fold of each group: the largest groups first, each to the fold with fewest of its labels.

    Notes
    -----
    Greedy minimisation of sum_c have_c step_c / total_c, with the number of tracks as one more label. A genre with two
    songs goes to two folds, so that either can be predicted by a model trained on the other.
    """
    profile, shuffled = groups.profile(labels), groups.order(ids, seed)
    order = shuffled[np.argsort(-profile[shuffled, -1], kind="stable")]
    total = np.maximum(profile.sum(axis=0), 1.0)
    have = np.zeros((n_folds, profile.shape[1]))
    fold_of = np.zeros(groups.n_groups, dtype=np.int64)
    for group in order.tolist():
        cost = have @ (profile[group] / total)
        fold_of[group] = int(np.lexsort((have[:, -1], cost))[0])
        have[fold_of[group]] += profile[group]
    return fold_of


def _split(ids: Sequence[str], fold_of: Index, test: int, n_folds: int, by: By, seed: int) -> Split:
    validation = (test + 1) % n_folds
    name_of = {test: "test", validation: "validation"}
    ids_of: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for track_id, fold in zip(ids, fold_of.tolist(), strict=True):
        ids_of[name_of.get(fold, "train")].append(track_id)
    return Split(
        policy=f"{n_folds} folds by {by}",
        requested=f"fold {test + 1} of {n_folds} by {by}",
        seed=seed,
        ids={name: tuple(sorted(fold_ids)) for name, fold_ids in ids_of.items()},
    )
