"""Choose the genres to learn, and build the label matrix.

Genres are chosen by the labels of *training* tracks only, so test labels can neither add nor remove a genre. Every
filter reports how much it kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ...cache.durable import canonical_json
from ...cache.errors import ConfigError, TrainingError
from ...cache.messages import counted, join_names, nearest
from ...cache.names import match_names

LabelMatrix = npt.NDArray[np.bool_]
"""(n_tracks, n_genres)."""

GenresById = Mapping[str, Sequence[str]]
"""Labels by track id that replace those of a store."""


@dataclass(frozen=True, kw_only=True)
class FilterCount:
    """Result of one filter: `kept` of `of` genres or tracks.

    Attributes
    ----------
    filter : ``labelled``, ``genres``, ``feature=`` and the name of a feature set that tracks need, or the name and
        value of an option, such as ``min_labels=2``.
    """

    filter: str
    kept: int
    of: int
    unit: str = "genres"

    def __str__(self) -> str:
        name, _, limit = self.filter.partition("=")
        left_out = self.of - self.kept
        of = f"{left_out} of {self.of} {self.unit}"
        one = left_out == 1
        have, are = ("has", "is") if one else ("have", "are")
        if name == "labelled":
            return f"{of} {have} no label and {are} left out"
        if name == "feature":
            return f"{of} {have} no {limit} and {are} left out"
        if name == "min_labels":
            few = "none" if limit == "1" else f"fewer than {limit}"
            return f"{of} {have} {few} of the learned genres and {are} left out"
        if name == "min_genre_count":
            few = "no training track" if limit == "1" else f"fewer than {limit} training tracks"
            return f"{of} {have} {few} and {are} not learned"
        option = "--genres-file" if name == "genres" else f"--top-genres {limit}"
        return f"{of} {are} not learned ({option})"


def left_out(filters: Iterable[FilterCount]) -> list[str]:
    """Return one sentence per filter that left something out."""
    return [str(count) for count in filters if count.kept < count.of]


@dataclass(frozen=True, kw_only=True)
class GenreChoice:
    """The genres to learn.

    Attributes
    ----------
    names : kept genres, in the order of the model's outputs.
    columns : (C,) int64 columns in the matrix of all genres.
    train_counts : (C,) training tracks per genre, before `min_labels`.
    steps : counts of each filter, in the order of application.
    """

    names: tuple[str, ...]
    columns: npt.NDArray[np.int64]
    train_counts: npt.NDArray[np.int64]
    steps: tuple[FilterCount, ...]


def read_genres_file(path: Path) -> tuple[str, ...]:
    """Read genre names, one per line, UTF-8; blank lines are skipped.

    Raises
    ------
    ConfigError
        If the file cannot be read, is empty, or has duplicates.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not readable as a list of genres ({error}). Use UTF-8 text.") from error
    names = [line for line in lines if line]
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise ConfigError(f"{path}: duplicate genres: {', '.join(duplicates)}. List each once.")
    if not names:
        raise ConfigError(f"{path}: no genre. Write one name per line.")
    return tuple(names)


def genre_matrix(genre_lists: pa.Array | pa.ChunkedArray, names: Sequence[str]) -> LabelMatrix:
    """Return the label matrix of tracks over the genres `names`.

    Parameters
    ----------
    genre_lists : list<string>, one list per track; names outside `names` are ignored.

    Returns
    -------
    numpy.ndarray
        (n_tracks, len(names)) bool.
    """
    if isinstance(genre_lists, pa.ChunkedArray):
        genre_lists = genre_lists.combine_chunks()
    matrix = np.zeros((len(genre_lists), len(names)), dtype=np.bool_)
    column = pc.index_in(pc.list_flatten(genre_lists), value_set=pa.array(list(names), pa.string()))
    track = pc.list_parent_indices(genre_lists)
    is_valid = pc.is_valid(column)
    matrix[np.asarray(track.filter(is_valid)), np.asarray(column.filter(is_valid)).astype(np.int64)] = True
    return matrix


def labels_sha256(labels: GenresById | None) -> str | None:
    """Return a hash of labels that replace those of a store; None if there are none."""
    if labels is None:
        return None
    return hashlib.sha256(canonical_json({name: sorted(set(labels[name])) for name in labels})).hexdigest()


def choose_genres(
    training: LabelMatrix,
    names: Sequence[str],
    *,
    listed: Sequence[str] | None = None,
    top_genres: int | None = None,
    min_genre_count: int = 1,
) -> GenreChoice:
    """Apply the genre filters in the order `listed`, `top_genres`, `min_genre_count`.

    Parameters
    ----------
    training : (n_training_tracks, n_genres) bool labels over `names`.
    listed : keep these genres only, in this order.
    top_genres : keep this many genres, those with most training tracks; ties go to the name that sorts first.
    min_genre_count : keep genres with at least this many training tracks. 1 drops genres without a training track.

    Raises
    ------
    ConfigError
        If a listed genre is unknown.
    TrainingError
        If no genre is left.
    """
    counts = training.sum(axis=0).astype(np.int64)
    columns = _listed_columns(names, listed) if listed is not None else list(range(len(names)))
    steps = [FilterCount(filter="genres", kept=len(columns), of=len(names))] if listed is not None else []
    if top_genres is not None:
        ranked = sorted(columns, key=lambda column: (-counts[column], names[column]))[:top_genres]
        steps.append(FilterCount(filter=f"top_genres={top_genres}", kept=len(ranked), of=len(columns)))
        columns = [column for column in columns if column in set(ranked)]
    frequent = [column for column in columns if counts[column] >= min_genre_count]
    steps.append(FilterCount(filter=f"min_genre_count={min_genre_count}", kept=len(frequent), of=len(columns)))
    if not frequent:
        counts_left = "; ".join(left_out(steps))
        raise TrainingError(
            f"no genre is left with {counted(len(training), 'training track')} ({counts_left}). Relax the filters."
        )
    return GenreChoice(
        names=tuple(names[column] for column in frequent),
        columns=np.asarray(frequent, dtype=np.int64),
        train_counts=counts[frequent],
        steps=tuple(steps),
    )


def _listed_columns(names: Sequence[str], listed: Sequence[str]) -> list[int]:
    position = {name: column for column, name in enumerate(names)}
    matches = match_names(listed, names)
    unknown = [name for name in listed if name not in matches]
    if unknown:
        near = nearest(unknown[0], names, cutoff=0.6)
        hint = "" if near is None else f" (nearest: {near!r})"
        raise ConfigError(
            f"genres: {len(unknown)} of {len(listed)} are not among {counted(len(names), 'genre')} of the store: "
            f"{join_names([repr(name) for name in unknown])}{hint}. Correct or remove them."
        )
    return list(dict.fromkeys(position[matches[name]] for name in listed))
