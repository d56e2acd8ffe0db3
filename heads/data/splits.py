"""Split tracks into training, validation and test split by a policy and a seed; the run saves the result.

The *test* split does not depend on labels or features. There are two exceptions: the `stratified` policy uses labels,
and the `artist` policy keeps tracks with equal hashes of lyrics or audio together. The test split, and with it all that
a model learns, therefore stays the same if the content of test tracks changes.

The `stratified` policy uses the package iterative-stratification, since scikit-learn stratifies by one label only.
Another implementation would have to reproduce its random draws, or change the splits of existing runs.
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
from ...cache.messages import counted
from .artist_groups import LARGE_MIN_TRACKS, LARGE_SHARE, Groups, Index, comparable_artists, group_tracks, seeded_order
from .duplicates import leaks
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
    policy : the policy in use.
    requested : the requested policy, which may be ``auto``.
    ids : sorted track ids by name of the split.
    notes : for users: large groups, tracks left out, a fallback.
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
        """Write ``splits.json`` atomically, sealed with its sha256."""
        fields = {"policy": self.policy, "requested": self.requested, "seed": self.seed, "sizes": self.sizes}
        ids = {name: list(self.ids[name]) for name in SPLITS}
        replace_file(path, seal({**fields, "notes": list(self.notes), "ids": ids}))

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read ``splits.json``.

        Raises
        ------
        RunError
            If the file is missing or altered.
        """
        try:
            data = unseal(path)
        except (OSError, StoreCorruptError) as error:
            raise RunError(
                f"{path}: the split of this run is not readable ({error}). Restore it from a copy."
            ) from error
        if wrong := problem(data, SplitDocument):
            raise RunError(f"{path}: {wrong}. Restore it from a copy.")
        ids = {name: tuple(data["ids"][name]) for name in SPLITS}
        return cls(ids=ids, notes=tuple(data["notes"]), **{key: data[key] for key in ("policy", "requested", "seed")})


def make_split(tracks: pa.Table, labels: LabelMatrix, *, policy: str, seed: int) -> Split:
    """Split tracks about 70/10/20 into training, validation and test split.

    Parameters
    ----------
    tracks : columns id, artists, song, split, lyrics_sha256, source_sha256; one row per usable track.
    labels : (n_tracks, n_genres) over all genres of the store. `stratified` uses them, `artist` balances validation
        against training with them, other policies ignore them.
    policy : ``random``, ``stratified``, ``artist``, ``manifest``, or ``auto``: the manifest's own split if it has one,
        else `artist` if most artists are known, else `stratified`.

    Raises
    ------
    ConfigError
        If the policy cannot be applied: too few tracks, no known artist, a manifest without training tracks.
    """
    # Sorted by id, so that no policy depends on the row order of the store.
    order = np.argsort(np.asarray(tracks.column("id").to_pylist(), dtype=object), kind="stable")
    ids: list[str] = tracks.column("id").take(order).to_pylist()
    sorted_tracks = _Tracks(table=tracks.take(order), ids=ids, labels=labels[order], seed=seed)
    if len(ids) < 3:
        raise ConfigError(
            f"{counted(len(ids), 'labelled track')}: too few for a training, validation and test split. "
            "Use at least 3, preferably several dozen."
        )
    requested, reasons = policy, list[str]()
    if policy == "auto":
        policy, reasons = _settle_auto(sorted_tracks)
    if policy not in _POLICIES:
        raise ConfigError(f"split policy {policy!r}: unknown. Choose one of auto, {', '.join(_POLICIES)}.")
    positions, notes = _POLICIES[policy](sorted_tracks)
    ids_of = {name: tuple(ids[i] for i in np.sort(positions[name]).tolist()) for name in SPLITS}
    return Split(
        policy=policy,
        requested=requested,
        seed=seed,
        ids=ids_of,
        notes=(*reasons, *notes, *leaks(sorted_tracks.table, positions)),
    )


@dataclass(frozen=True, kw_only=True)
class _Tracks:
    """Tracks to split, sorted by id, with (n_tracks, n_genres) labels."""

    table: pa.Table
    ids: list[str]
    labels: LabelMatrix
    seed: int

    @cached_property
    def groups(self) -> Groups:
        return group_tracks(self.table)

    @cached_property
    def n_unknown(self) -> int:
        """Number of tracks without a known artist."""
        return sum(not comparable_artists(names) for names in self.table.column("artists").to_pylist())


Division = tuple[dict[str, Index], list[str]]
"""Positions of the tracks of each split, and notes for users."""


_SHARED_ARTISTS = (
    "Songs of one artist may be in both the training and the test split, and scores may therefore be too high."
)
_ADD_ARTISTS = "Extract with an `artist` column in the table of `mgc extract --labels`."


def _settle_auto(tracks: _Tracks) -> tuple[str, list[str]]:
    n_tracks = len(tracks.ids)
    if tracks.table.column("split").null_count < n_tracks:
        return "manifest", []
    n_known = n_tracks - tracks.n_unknown
    if n_known < n_tracks / 2:
        known = f"the artist is known for {n_known} of {n_tracks} tracks, so the split is by labels and not by artist"
        return "stratified", [f"{known}. {_SHARED_ARTISTS} {_ADD_ARTISTS}"]
    if tracks.groups.n_groups < 3:
        groups = f"the tracks form only {counted(tracks.groups.n_groups, 'artist group')}"
        return "stratified", [f"{groups}, so the split is by labels and not by artist. {_SHARED_ARTISTS}"]
    return "artist", []


def _targets(n_tracks: int) -> tuple[int, int]:
    """Return the target numbers of validation and test tracks."""
    return max(1, round(SHARES[1] * n_tracks)), max(1, round(SHARES[2] * n_tracks))


def _random(tracks: _Tracks) -> Division:
    n_validation, n_test = _targets(len(tracks.ids))
    test, validation, train = np.split(seeded_order(tracks.ids, tracks.seed), [n_test, n_test + n_validation])
    return {"test": test, "validation": validation, "train": train}, []


def _stratified(tracks: _Tracks) -> Division:
    """Divide the tracks of each genre by the same shares: iterative stratification (Sechidis et al. 2011)."""
    from iterstrat.ml_stratifiers import IterativeStratification

    fold = IterativeStratification(tracks.labels, np.asarray(SHARES), np.random.RandomState(tracks.seed))
    positions = {name: np.flatnonzero(fold == number) for number, name in enumerate(SPLITS)}
    if empty := [name for name in SPLITS if not len(positions[name])]:
        few = f"--split stratified: {counted(len(tracks.ids), 'track')}, too few"
        raise ConfigError(f"{few}: no {' and no '.join(empty)} track. Use --split random.")
    return positions, []


def _artist(tracks: _Tracks) -> Division:
    """Divide whole groups: first the test split, by size only; then validation, balanced against training by labels."""
    groups, n_tracks = tracks.groups, len(tracks.ids)
    if tracks.n_unknown == n_tracks:
        raise ConfigError(
            "--split artist: no track has a known artist. Add an artist column to the manifest, or use "
            "--split stratified."
        )
    if groups.n_groups < 3:
        raise ConfigError(
            f"--split artist: {counted(n_tracks, 'track')} in {counted(groups.n_groups, 'group')} by artist, lyrics "
            "and audio, but 3 are needed. Use --split stratified or --split random."
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
            f"only {groups.n_groups} groups of tracks (a group shares artist, lyrics or audio): splits are coarse and "
            "may differ in their genres. --split stratified is balanced, but tests on artists of the training split."
        )
    if tracks.n_unknown:
        notes.append(
            f"the artist of {tracks.n_unknown} of {n_tracks} tracks is unknown. {_SHARED_ARTISTS} {_ADD_ARTISTS}"
        )
    return positions, notes


def _manifest(tracks: _Tracks) -> Division:
    names = [(name or "").strip().lower() for name in tracks.table.column("split").to_pylist()]
    if unknown := sorted({name for name in names if name and name not in SPLIT_SPELLINGS}):
        raise ConfigError(
            f"--split manifest: the `split` column of the manifest has unknown values: {', '.join(unknown)}. Use "
            "train, validation and test."
        )
    of_track = np.asarray([SPLIT_SPELLINGS.get(name, "") for name in names])
    positions = {name: np.flatnonzero(of_track == name) for name in SPLITS}
    if not len(positions["train"]):
        raise ConfigError(
            "--split manifest: the `split` column of the manifest has no training track. Use another split policy."
        )
    notes = []
    if left_out := int((of_track == "").sum()):
        notes.append(f"{left_out} of {len(names)} tracks have no split in the manifest and are left out")
    if not len(positions["validation"]):
        positions["train"], positions["validation"] = _carve_validation(tracks, positions["train"])
        notes.append(
            f"the manifest has no validation split: {len(positions['validation'])} of its training tracks are used"
        )
    return positions, notes


_POLICIES = {"manifest": _manifest, "artist": _artist, "stratified": _stratified, "random": _random}


def _carve_validation(tracks: _Tracks, train: Index) -> tuple[Index, Index]:
    """Divide the training tracks into training and an eighth for validation, in whole groups."""
    groups = group_tracks(tracks.table.take(train))
    if groups.n_groups < 2:
        groups = Groups(of_track=np.arange(len(train)), n_groups=len(train))
    if groups.n_groups < 2:
        raise ConfigError("--split manifest: one training track and no validation track. Add tracks.")
    order = groups.order([tracks.ids[i] for i in train.tolist()], tracks.seed)
    share = SHARES[1] / (SHARES[0] + SHARES[1])
    target = max(1, round(share * len(train)))
    selected = hold_out_balanced(groups.profile(tracks.labels[train]), order, target)
    held_out = np.isin(groups.of_track, selected)
    return train[~held_out], train[held_out]


CANDIDATES = 64


def hold_out(sizes: FloatArray, order: Index, target: int) -> Index:
    """Select whole groups, in `order`, with up to `target` tracks in total, by size only; leave at least two groups.

    Groups above both 5 % of the tracks and 20 tracks are skipped, so that none dominates the split.
    """
    limit = max(LARGE_SHARE * sizes.sum(), LARGE_MIN_TRACKS)
    selected: list[int] = []
    room = float(target)
    for group in order.tolist():
        if sizes[group] <= min(room, limit) and len(selected) < len(order) - 2:
            selected.append(group)
            room -= sizes[group]
    return _at_least_one(selected, sizes, order)


def hold_out_balanced(profile: FloatArray, order: Index, target: int) -> Index:
    """Select whole groups like :func:`hold_out`, with label shares like those of all groups; leave at least one group.

    Parameters
    ----------
    profile : (n_groups, C + 1) from :meth:`Groups.profile`, of which only the groups of `order` are used.

    Notes
    -----
    Greedy minimisation of sum_c (have_c - want_c)^2 / want_c, with the number of tracks as one more label. Each step
    selects, from the next 64 groups of `order` that fit, the group with the best change per track.
    """
    sizes = profile[:, -1]
    want = profile[order].sum(axis=0) * target / max(1, sizes[order].sum())
    have = np.zeros_like(want)
    limit = max(LARGE_SHARE * sizes.sum(), LARGE_MIN_TRACKS)
    waiting = deque(order[sizes[order] <= limit].tolist())
    pool: list[int] = []
    selected: list[int] = []
    while len(selected) < len(order) - 1:
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
        selected.append(chosen)
        have += profile[chosen]
    return _at_least_one(selected, sizes, order)


def _at_least_one(selected: list[int], sizes: FloatArray, order: Index) -> Index:
    """Return the selected groups, or the smallest group if there are none."""
    return np.asarray(selected or order[[np.argmin(sizes[order])]], dtype=np.int64)
