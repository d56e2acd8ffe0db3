"""Group tracks that must stay in one split: same artist, song, lyrics or audio."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...cache.messages import join_names
from ...cache.normalise import normalise

NOT_ARTISTS = frozenset({"various artists", ""})
NOT_ARTISTS_EXACT = frozenset({"NA"})
LARGE_SHARE = 0.05
LARGE_MIN_TRACKS = 20
_ARTIST = "artist "

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Connected components of tracks.

    Attributes
    ----------
    of_track : (n,) int64, group of each track, numbered from 0.
    n_groups : number of groups.
    warnings : one of all groups above 5 % of the tracks, with the property that most tracks of each share.
    """

    of_track: Index
    n_groups: int
    warnings: tuple[str, ...] = ()

    def order(self, ids: Sequence[str], seed: int) -> Index:
        """Return the groups shuffled by the id of their first track; `ids` are the ids of all tracks."""
        _, first = np.unique(self.of_track, return_index=True)
        return seeded_order([ids[i] for i in first.tolist()], seed)

    def profile(self, labels: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return (n_groups, C + 1) counts: tracks of each group per label of (n, C) `labels`, then all its tracks."""
        counts = np.zeros((self.n_groups, labels.shape[1] + 1))
        np.add.at(counts, self.of_track, np.column_stack([labels, np.ones(len(labels))]).astype(np.float64))
        return counts


def comparable_artists(names: Sequence[str] | None) -> list[str]:
    """Return the known artists, normalised in Unicode form, case and spacing.

    "Various Artists", "NA" and the empty name mark an unknown artist. "None" is an artist.
    """
    artists = []
    for name in names or ():
        plain = " ".join(normalise("NFKC", name).split())
        if plain.casefold() not in NOT_ARTISTS and plain not in NOT_ARTISTS_EXACT:
            artists.append(plain.casefold())
    return artists


def bootstrap_groups(tracks: pa.Table) -> list[str]:
    """Return the unit of the bootstrap per track: its first known artist, else the track. Columns: id, artists."""
    groups = []
    for track_id, names in zip(*(tracks.column(name).to_pylist() for name in ("id", "artists")), strict=True):
        artists = comparable_artists(names)
        groups.append(f"{_ARTIST}{artists[0]}" if artists else f"track {track_id}")
    return groups


def count_with_artist(groups: Iterable[str]) -> int:
    """Return the number of tracks with a known artist, from their :func:`bootstrap_groups`."""
    return sum(group.startswith(_ARTIST) for group in groups)


def group_tracks(tracks: pa.Table) -> Groups:
    """Group tracks that share artist, song, lyrics or audio, directly or through other tracks.

    Notes
    -----
    A song is a title by an artist: two artists may each have an "Intro". Tracks of one artist are in one group anyway,
    so titles are compared only among tracks of unknown artists.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    columns = (tracks.column(name).to_pylist() for name in ("artists", "song", "lyrics_sha256", "source_sha256"))
    keys = [list(_keys(*track)) for track in zip(*columns, strict=True)]
    names = {key: number for number, key in enumerate(dict.fromkeys(key for own in keys for key in own))}
    n_tracks, n_nodes = len(keys), len(keys) + len(names)
    track_of = np.repeat(np.arange(n_tracks), [len(own) for own in keys])
    key_of = np.asarray([n_tracks + names[key] for own in keys for key in own], dtype=np.int64)
    links = coo_array((np.ones(len(key_of), dtype=np.int8), (track_of, key_of)), shape=(n_nodes, n_nodes))
    _, component = connected_components(links, directed=False)
    _, of_track = np.unique(component[:n_tracks], return_inverse=True)
    n_groups = int(of_track.max()) + 1 if n_tracks else 0
    return Groups(of_track=of_track.astype(np.int64), n_groups=n_groups, warnings=_large_groups(of_track, keys))


def seeded_order(ids: Sequence[str], seed: int) -> Index:
    """Return a permutation of `ids`; the relative order of two ids depends on these ids and the seed only."""
    digests = [hashlib.blake2b(f"{seed}\0{name}".encode(), digest_size=16).digest() for name in ids]
    return np.asarray(sorted(range(len(ids)), key=lambda i: digests[i]), dtype=np.int64)


def _keys(
    names: list[str] | None, song: str | None, lyrics_sha256: str | None, source_sha256: str | None
) -> Iterator[tuple[str, str]]:
    artists = comparable_artists(names)
    yield from (("artist", name) for name in artists)
    title = " ".join(normalise("NFKC", song or "").split()).casefold()
    if not artists and title not in ("", "na"):
        yield "song of unknown artists", title
    if lyrics_sha256:
        yield "lyrics with sha256", lyrics_sha256
    if source_sha256:
        yield "audio file with sha256", source_sha256


def _large_groups(of_track: Index, keys: list[list[tuple[str, str]]]) -> tuple[str, ...]:
    """Return a warning of all groups above 5 % of the tracks, the largest first; none if there is no such group."""
    sizes = np.bincount(of_track)
    groups = np.flatnonzero((sizes > LARGE_SHARE * len(keys)) & (sizes > 1)).tolist()
    described = []
    for group in sorted(groups, key=lambda group: -sizes[group]):
        links = Counter(key for track in np.flatnonzero(of_track == group).tolist() for key in keys[track])
        (kind, name), count = min(links.items(), key=lambda item: (-item[1], item[0]))
        described.append((int(sizes[group]), f"{count} of them share the {kind} {name!r}"))
    if len(described) > 1:
        large = f"{len(described)} groups have more than {LARGE_SHARE:.0%} of the {len(keys)} tracks each"
        each = join_names([f"{size} tracks, {shared}" for size, shared in described], separator="; ")
        return (f"{large}, and each stays in one split: {each}",)
    return tuple(
        f"{size} of {len(keys)} tracks ({size / len(keys):.0%}) form one group and stay in one split; {shared}"
        for size, shared in described
    )
