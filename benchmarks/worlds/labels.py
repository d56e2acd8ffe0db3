"""Provide label sets for the synthetic benchmark: those of real tracks if available, else generated ones.

Only label rows of MTG-Jamendo are read, at run time; this package contains no part of it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mgc.cache.errors import ManifestError
from mgc.pipeline.synth.lyrics import COMMON

N_GENRES = 87
JAMENDO_TABLES = tuple(f"autotagging_genre-{split}.tsv" for split in ("train", "validation", "test"))
_PREFIX = "genre---"

GenreSet = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LabelSets:
    """Genre sets of tracks, by artist.

    Attributes
    ----------
    genres : names, the most frequent first.
    artists : genre sets of the tracks of each artist, as sorted indices into `genres`.
    origin : source of the label sets, for captions.
    """

    genres: tuple[str, ...]
    artists: tuple[tuple[GenreSet, ...], ...]
    origin: str

    @property
    def rows(self) -> list[GenreSet]:
        """Return the genre set of every track."""
        return [row for artist in self.artists for row in artist]

    def matrix(self) -> npt.NDArray[np.bool_]:
        """Return the genre sets as (tracks, genres) bool."""
        return multi_hot(self.rows, len(self.genres))


def multi_hot(rows: list[GenreSet], n_genres: int) -> npt.NDArray[np.bool_]:
    """Return (rows, n_genres) bool from sets of indices."""
    matrix = np.zeros((len(rows), n_genres), dtype=np.bool_)
    for line, row in zip(matrix, rows, strict=True):
        line[list(row)] = True
    return matrix


def _by_frequency(artists: list[list[tuple[str, ...]]], origin: str) -> LabelSets:
    counts: dict[str, int] = defaultdict(int)
    for rows in artists:
        for row in rows:
            for genre in row:
                counts[genre] += 1
    genres = sorted(counts, key=lambda genre: (-counts[genre], genre))
    number = {genre: n for n, genre in enumerate(genres)}
    numbered = tuple(tuple(tuple(sorted(number[genre] for genre in row)) for row in rows) for rows in artists)
    return LabelSets(genres=tuple(genres), artists=numbered, origin=origin)


def read_label_sets(folder: Path) -> LabelSets:
    """Read the label rows of MTG-Jamendo's genre tables in `folder`.

    Raises
    ------
    ManifestError
        If a table is missing, or has no such rows.
    """
    artists: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for name in JAMENDO_TABLES:
        try:
            lines = (folder / name).read_text(encoding="utf-8").splitlines()[1:]
        except (OSError, UnicodeDecodeError) as error:
            raise ManifestError(
                f"{folder / name}: not readable ({error}). Use the genre tables of MTG-Jamendo."
            ) from error
        for line in lines:
            cells = line.split("\t")
            genres = tuple(sorted({cell.removeprefix(_PREFIX) for cell in cells[5:] if cell.startswith(_PREFIX)}))
            if genres:
                artists[cells[1]].append(genres)
    if not artists:
        raise ManifestError(f"{folder}: {', '.join(JAMENDO_TABLES)} have no track with a genre.")
    n_tracks = sum(map(len, artists.values()))
    return _by_frequency(
        list(artists.values()), f"the {n_tracks} label rows of MTG-Jamendo's genre split, read at run time"
    )


def generated_label_sets(seed: int = 0, *, n_artists: int = 600) -> LabelSets:
    """Generate label sets of 87 genres in families with a long-tailed distribution, for use without MTG-Jamendo.

    A track has one genre that its artist prefers, and further ones, mostly of the same family; 2.4 on average.
    """
    rng = np.random.default_rng([seed, 20])
    names = [f"{adjective} {noun}" for noun in COMMON.nouns for adjective in COMMON.adjectives]
    genres = rng.permutation(names)[:N_GENRES].tolist()
    family = rng.integers(12, size=N_GENRES)
    frequency = 1.0 / (np.arange(N_GENRES) + 3.0)
    frequency /= frequency.sum()
    kinship = (family[:, None] == family[None, :]) * frequency
    kinship /= kinship.sum(axis=1, keepdims=True)
    artists = []
    for _ in range(n_artists):
        preference = frequency * rng.gamma(0.2, size=N_GENRES)
        preference /= preference.sum()
        rows = []
        for _ in range(1 + rng.geometric(1 / 8)):
            chosen = [int(rng.choice(N_GENRES, p=preference))]
            for _ in range(rng.binomial(4, 0.36)):
                weights = 0.3 * preference + 0.55 * kinship[chosen].mean(axis=0) + 0.15 * frequency
                weights[chosen] = 0.0
                chosen.append(int(rng.choice(N_GENRES, p=weights / weights.sum())))
            rows.append(tuple(sorted(genres[genre] for genre in chosen)))
        artists.append(rows)
    return _by_frequency(artists, "a generated structure of 87 genres (MTG-Jamendo was not available)")
