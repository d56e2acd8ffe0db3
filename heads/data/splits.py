"""Training, validation and test tracks: made at training time from a policy and a seed, saved in the run.

Which tracks are *tested* never depends on any track's labels or features, except in the `stratified` policy, which
must look at labels, and through the hashes of equal lyrics and audio that `artist` keeps together. So the test split,
and with it everything a model learns, stays the same when the test tracks' content changes.

The `stratified` policy calls the package iterative-stratification: scikit-learn stratifies by one label only. Its draws
decide which tracks are tested, so code of our own would have to draw the same, or change the splits of existing runs.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...cache.bounds import Between, problem
from ...cache.durable import replace_file, seal, unseal
from ...cache.errors import ConfigError, RunError, StoreCorruptError
from ...cache.format.tables import SPLIT_SPELLINGS
from .artist_groups import LARGE_MIN_TRACKS, LARGE_SHARE, Groups, Index, comparable_artists, group_tracks, seeded_order
from .labels import LabelMatrix

FloatArray = npt.NDArray[np.float64]
SPLITS = ("train", "validation", "test")
SHARES = (0.7, 0.1, 0.2)
FEW_GROUPS = 20


class SplitIds(TypedDict):
    """Ids of the tracks of each split."""

    train: list[str]
    validation: list[str]
    test: list[str]


class SplitDocument(TypedDict):
    """``splits.json``."""

    policy: str
    requested: str
    seed: Annotated[int, Between(0)]
    sizes: NotRequired[dict[str, int]]
    notes: list[str]
    ids: SplitIds


@dataclass(frozen=True, kw_only=True)
class Split:
    """Ids of the tracks of each split.

    Attributes
    ----------
    policy : the policy that made it; `requested` is what was asked for (``auto`` is settled by the tracks).
    ids : split name -> track ids, sorted.
    notes : what a reader should know: large groups, tracks left out, a fallback taken.
    """

    policy: str
    requested: str
    seed: int
    ids: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return {name: len(self.ids[name]) for name in SPLITS}

    def save(self, path: Path) -> None:
        """Write ``splits.json``: in one rename, sealed with its own sha256."""
        fields = {"policy": self.policy, "requested": self.requested, "seed": self.seed, "sizes": self.sizes}
        ids = {name: list(self.ids[name]) for name in SPLITS}
        replace_file(path, seal({**fields, "notes": list(self.notes), "ids": ids}))

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read ``splits.json``.

        Raises
        ------
        RunError
            If it is missing or altered.
        """
        try:
            data = unseal(path)
        except (OSError, StoreCorruptError) as error:
            raise RunError(f"{path}: the split of this run cannot be read ({error})") from error
        if wrong := problem(data, SplitDocument):
            raise RunError(f"{path}: {wrong}; restore it from a copy")
        ids = {name: tuple(data["ids"][name]) for name in SPLITS}
        return cls(ids=ids, notes=tuple(data["notes"]), **{key: data[key] for key in ("policy", "requested", "seed")})


def make_split(tracks: pa.Table, labels: LabelMatrix, *, policy: str, seed: int) -> Split:
    """Split tracks about 70/10/20.

    Parameters
    ----------
    tracks : columns id, artists, song, split, lyrics_sha256, source_sha256; one row per track that may be used.
    labels : (n_tracks, n_genres) over all genres of the store; `stratified` uses all of it, `artist` uses it to
        balance validation against training, the others not at all.
    policy : ``random``, ``stratified``, ``artist``, ``manifest``, or ``auto``: the manifest's own split where it has
        one, else `artist` where most artists are known, else `stratified`.

    Raises
    ------
    ConfigError
        If the policy cannot be had: too few tracks, no known artist, a manifest without training tracks.
    """
    order = np.argsort(np.asarray(tracks.column("id").to_pylist(), dtype=object), kind="stable")
    # Sorted, so that no policy depends on the store's row order.
    ids: list[str] = tracks.column("id").take(order).to_pylist()
    sorted_tracks = _Tracks(table=tracks.take(order), ids=ids, labels=labels[order], seed=seed)
    if len(ids) < 3:
        raise ConfigError(
            f"{len(ids)} labelled tracks cannot be split into training, validation and test: three are "
            "the least, some dozens make sense"
        )
    requested, reasons = policy, list[str]()
    if policy == "auto":
        policy, reasons = _settle_auto(sorted_tracks)
    if policy not in _POLICIES:
        raise ConfigError(f"split policy {policy!r}: not one of auto, {', '.join(_POLICIES)}")
    positions, notes = _POLICIES[policy](sorted_tracks)
    ids_of = {name: tuple(ids[i] for i in np.sort(positions[name]).tolist()) for name in SPLITS}
    return Split(policy=policy, requested=requested, seed=seed, ids=ids_of, notes=(*reasons, *notes))


@dataclass(frozen=True, kw_only=True)
class _Tracks:
    """Tracks to split, in the order of their ids, with (n_tracks, n_genres) labels."""

    table: pa.Table
    ids: list[str]
    labels: LabelMatrix
    seed: int

    @cached_property
    def groups(self) -> Groups:
        return group_tracks(self.table)

    @cached_property
    def n_unknown(self) -> int:
        """Tracks without a known artist."""
        return sum(not comparable_artists(names) for names in self.table.column("artists").to_pylist())


Division = tuple[dict[str, Index], list[str]]
"""Positions of the tracks of each split, and notes for the reader."""


def _settle_auto(tracks: _Tracks) -> tuple[str, list[str]]:
    n_tracks = len(tracks.ids)
    if tracks.table.column("split").null_count < n_tracks:
        return "manifest", []
    n_known = n_tracks - tracks.n_unknown
    if n_known < n_tracks / 2:
        return "stratified", [f"artists are known for {n_known} of {n_tracks} tracks: split by labels, not by artist"]
    if tracks.groups.n_groups < 3:
        groups = f"all tracks fall into {tracks.groups.n_groups} artist groups"
        return "stratified", [f"{groups}: split by labels, not by artist"]
    return "artist", []


def _targets(n_tracks: int) -> tuple[int, int]:
    """Validation and test tracks wanted of `n_tracks`."""
    return max(1, round(SHARES[1] * n_tracks)), max(1, round(SHARES[2] * n_tracks))


def _random(tracks: _Tracks) -> Division:
    n_validation, n_test = _targets(len(tracks.ids))
    test, validation, train = np.split(seeded_order(tracks.ids, tracks.seed), [n_test, n_test + n_validation])
    return {"test": test, "validation": validation, "train": train}, []


def _stratified(tracks: _Tracks) -> Division:
    """Iterative stratification (Sechidis et al. 2011): each genre's tracks are spread by the same shares."""
    from iterstrat.ml_stratifiers import IterativeStratification

    fold = IterativeStratification(tracks.labels, np.asarray(SHARES), np.random.RandomState(tracks.seed))
    positions = {name: np.flatnonzero(fold == number) for number, name in enumerate(SPLITS)}
    if empty := [name for name in SPLITS if not len(positions[name])]:
        few = f"{len(tracks.ids)} tracks are too few to stratify"
        raise ConfigError(f"{few}: no {' and no '.join(empty)} track; use the random split")
    return positions, []


def _artist(tracks: _Tracks) -> Division:
    """Whole groups: test first, by sizes only; then validation, near training in its labels."""
    groups, n_tracks = tracks.groups, len(tracks.ids)
    if tracks.n_unknown == n_tracks:
        raise ConfigError(
            "split=artist: no track has a known artist; give the manifest an artist column, or use stratified or random"
        )
    if groups.n_groups < 3:
        raise ConfigError(
            f"split=artist: the {n_tracks} tracks fall into {groups.n_groups} groups that share artist, lyrics or "
            "audio, and three are needed; use stratified or random"
        )
    n_validation, n_test = _targets(n_tracks)
    profile, order = groups.profile(tracks.labels), groups.order(tracks.ids, tracks.seed)
    test = hold_out(profile[:, -1], order, n_test)
    validation = hold_out_balanced(profile, order[~np.isin(order, test)], n_validation)
    in_test, in_validation = np.isin(groups.of_track, test), np.isin(groups.of_track, validation)
    positions = {
        "train": np.flatnonzero(~in_test & ~in_validation),
        "validation": np.flatnonzero(in_validation),
        "test": np.flatnonzero(in_test),
    }
    notes = list(groups.warnings)
    if groups.n_groups < FEW_GROUPS:
        notes.append(
            f"only {groups.n_groups} groups of tracks share no artist, lyrics or audio, so the splits are coarse and "
            "may differ in their genres; split=stratified is even, but tests on artists that were trained on"
        )
    if tracks.n_unknown:
        unknown = f"the artist of {tracks.n_unknown} of {n_tracks} tracks is not known"
        notes.append(f"{unknown}: they may share one across splits")
    return positions, notes


def _manifest(tracks: _Tracks) -> Division:
    names = [(name or "").strip().lower() for name in tracks.table.column("split").to_pylist()]
    if unknown := sorted({name for name in names if name and name not in SPLIT_SPELLINGS}):
        raise ConfigError(f"split=manifest: the manifest names splits {unknown}; want train, validation, test")
    of_track = np.asarray([SPLIT_SPELLINGS.get(name, "") for name in names])
    positions = {name: np.flatnonzero(of_track == name) for name in SPLITS}
    if not len(positions["train"]):
        raise ConfigError("split=manifest: the manifest's `split` column names no training track")
    notes = []
    if left_out := int((of_track == "").sum()):
        notes.append(f"{left_out} of {len(names)} tracks have no split in the manifest and are left out")
    if not len(positions["validation"]):
        positions["train"], positions["validation"] = _carve_validation(tracks, positions["train"])
        notes.append(
            f"the manifest has no validation split: {len(positions['validation'])} training tracks serve as one"
        )
    if not len(positions["test"]):
        notes.append("the manifest has no test split")
    return positions, notes


_POLICIES = {"manifest": _manifest, "artist": _artist, "stratified": _stratified, "random": _random}


def _carve_validation(tracks: _Tracks, train: Index) -> tuple[Index, Index]:
    """An eighth of the training tracks, in whole groups (tracks without any link are groups of their own)."""
    groups = group_tracks(tracks.table.take(train))
    if groups.n_groups < 2:
        groups = Groups(of_track=np.arange(len(train)), n_groups=len(train))
    if groups.n_groups < 2:
        raise ConfigError("split=manifest: one training track and no validation track; both are needed")
    order = groups.order([tracks.ids[i] for i in train.tolist()], tracks.seed)
    share = SHARES[1] / (SHARES[0] + SHARES[1])
    target = max(1, round(share * len(train)))
    taken = hold_out_balanced(groups.profile(tracks.labels[train]), order, target)
    held_out = np.isin(groups.of_track, taken)
    return train[~held_out], train[held_out]


CANDIDATES = 64


def hold_out(sizes: FloatArray, order: Index, target: int) -> Index:
    """Whole groups, in `order`, up to `target` tracks in all, leaving at least two groups; looks at sizes only.

    Groups above 5 % of the tracks (and of 20 tracks) are passed over, lest one of them make up most of a split.
    """
    limit = max(LARGE_SHARE * sizes.sum(), LARGE_MIN_TRACKS)
    taken: list[int] = []
    room = float(target)
    for group in order.tolist():
        if sizes[group] <= min(room, limit) and len(taken) < len(order) - 2:
            taken.append(group)
            room -= sizes[group]
    return _at_least_one(taken, sizes, order)


def hold_out_balanced(profile: FloatArray, order: Index, target: int) -> Index:
    """As :func:`hold_out`, but by labels too: takes groups that bring the taken ones nearer to the labels of all.

    At least one group is left.

    Parameters
    ----------
    profile : of :meth:`Groups.profile`; only the groups of `order` are looked at.

    Notes
    -----
    Greedy on the distance sum_c (have_c - want_c)^2 / want_c, where the number of tracks counts as one more label:
    again and again, of the next 64 groups of `order` that fit, the one with the best change a track.
    """
    sizes = profile[:, -1]
    want = profile[order].sum(axis=0) * target / max(1, sizes[order].sum())
    have = np.zeros_like(want)
    limit = max(LARGE_SHARE * sizes.sum(), LARGE_MIN_TRACKS)
    waiting = deque(order[sizes[order] <= limit].tolist())
    pool: list[int] = []
    taken: list[int] = []
    while len(taken) < len(order) - 1:
        pool = [group for group in pool if sizes[group] <= target - have[-1]]
        while waiting and len(pool) < CANDIDATES:
            group = waiting.popleft()
            if sizes[group] <= target - have[-1]:
                pool.append(group)
        if not pool:
            break
        step = profile[pool]
        growth = (step * (2 * (have - want) + step) / np.maximum(want, 1.0)).sum(axis=1) / sizes[pool]
        chosen = pool.pop(int(growth.argmin()))
        taken.append(chosen)
        have += profile[chosen]
    return _at_least_one(taken, sizes, order)


def _at_least_one(taken: list[int], sizes: FloatArray, order: Index) -> Index:
    """Return the groups that are taken, or else the smallest."""
    return np.asarray(taken or order[[np.argmin(sizes[order])]], dtype=np.int64)
