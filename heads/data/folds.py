"""Cross-validation for collections too small to hold out one test split: folds of whole artists, or of whole songs.

Each fold is the test split once, with the next one as validation; the test predictions of all folds are pooled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...cache.errors import ConfigError
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
    """Number `number` of `of` folds, counted from 1; its split tests on that fold."""

    number: int
    of: int
    by: By
    split: Split


def make_folds(
    store: FeatureStore, n_folds: int, *, by: By = "artist", seed: int = 0, labels: GenresById | None = None
) -> list[Fold]:
    """Folds of the labelled tracks of a store.

    Parameters
    ----------
    by : what stays in one fold: ``artist`` as in the artist split; ``song``, recordings of one title by one artist, the
        same lyrics or the same file, which leaves other songs of a tested artist to learn from.
    seed : decides among equally good folds.

    Raises
    ------
    ConfigError
        If there are fewer groups than folds, or fewer than three folds.
    """
    if n_folds < MIN_FOLDS:
        raise ConfigError(f"folds {n_folds}: want at least {MIN_FOLDS}: one to test, one to validate, one to train on")
    labelled, _ = labelled_tracks(store, labels)
    ids: list[str] = labelled.tracks.column("id").to_pylist()
    groups = group_tracks(labelled.tracks) if by == "artist" else _group_songs(labelled.tracks)
    if groups.n_groups < n_folds:
        few = f"the {len(ids)} tracks are {groups.n_groups} groups by {by}"
        raise ConfigError(f"folds {n_folds}: {few}; want no more folds than groups")
    fold_of = _assign(groups, ids, labelled.labels, n_folds, seed)[groups.of_track]
    return [
        Fold(number=k + 1, of=n_folds, by=by, split=_split(ids, fold_of, k, n_folds, by, seed)) for k in range(n_folds)
    ]


def _group_songs(tracks: pa.Table) -> Groups:
    """As :func:`group_tracks`, where a title by an artist takes the artist's place."""
    artists, songs = tracks.column("artists").to_pylist(), tracks.column("song").to_pylist()
    ids = tracks.column("id").to_pylist()
    titles = [
        [f"{'|'.join(names or ())} - {song}" if song else f"track {name}"]
        for names, song, name in zip(artists, songs, ids, strict=True)
    ]
    index = tracks.schema.get_field_index("artists")
    return group_tracks(tracks.set_column(index, "artists", pa.array(titles, pa.list_(pa.string()))))


def _assign(groups: Groups, ids: Sequence[str], labels: npt.NDArray[np.bool_], n_folds: int, seed: int) -> Index:
    """(n_groups,) fold of each group: the largest groups first, each into the fold that has least of its labels.

    Notes
    -----
    Greedy on sum_c have_c step_c / total_c, where the number of tracks counts as one more label: a genre of two songs
    comes into two folds, so that each can be learned from the other.
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
