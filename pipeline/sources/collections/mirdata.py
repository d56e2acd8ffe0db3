"""Data sets with a loader of mirdata: any loader with audio, and annotations of genre, style or tags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....cache.distribution import explain_missing_extra
from ....cache.errors import ManifestError, MissingExtraError
from ....cache.format.tables import SPLIT_SPELLINGS
from ....cache.messages import counted, did_you_mean
from ..manifest import KnownDataset, Source
from ..options import SourceOptions
from ..table_source import source_of_rows
from ..tables import Row

ATTRIBUTES = {
    "artists": ("artists", "artist", "artist_id"),
    "song": ("title",),
    "genres": ("genres", "genre", "style", "tags"),
}
"""Column of a track -> attributes of a track of mirdata; the first one with a value is read."""


def load_mirdata(path: Path, options: SourceOptions) -> Source:
    """Read the tracks of a data set through its loader: that of ``--dataset mirdata:NAME``, or of the folder's name.

    Raises
    ------
    MissingExtraError
        If mirdata is not installed.
    ManifestError
        If there is no such loader, its index or metadata is missing, or it has no audio.
    """
    name = (options.dataset or "").partition(":")[2] or path.name
    try:
        import mirdata

        if name not in (loaders := mirdata.list_datasets()):
            hint = did_you_mean(name, loaders, 5)
            raise ManifestError(f"{path}: mirdata has no loader {name!r}; {hint} Give --dataset mirdata:NAME.")
        dataset = mirdata.initialize(name, data_home=str(path.absolute()))
    except ImportError as error:  # also of packages that the loader imports
        raise MissingExtraError(explain_missing_extra("mirdata", error.name or "mirdata")) from error
    try:
        tracks = dataset.load_tracks()
        splits = _splits(dataset)
        rows = [_row(track_id, track, splits, path) for track_id, track in sorted(tracks.items())]
    except (OSError, AttributeError, ValueError, LookupError) as error:
        raise ManifestError(
            f"{path}: the mirdata loader {name!r} cannot read it: {error}. Check it with mirdata's validate()."
        ) from error
    with_audio = [row for row in rows if row is not None]
    if not with_audio:
        raise ManifestError(f"{path}: the mirdata loader {name!r} has no audio files")
    source = source_of_rows(path, with_audio, path, options)
    if len(with_audio) < len(rows):
        source.notes.append(f"{counted(len(rows) - len(with_audio), 'track')} without an audio file left out")
    return source


def _splits(dataset: Any) -> dict[str, str]:
    """Return the split of each track of a data set that has splits of its own."""
    try:
        splits = dataset.get_track_splits()
    except (NotImplementedError, AttributeError):
        return {}
    named = {SPLIT_SPELLINGS.get(str(split).casefold()): ids for split, ids in splits.items()}
    return {track_id: split for split, ids in named.items() if split is not None for track_id in ids}


def _row(track_id: str, track: Any, splits: Mapping[str, str], folder: Path) -> Row | None:
    audio = getattr(track, "audio_path", None)
    if not audio:
        return None
    cells = {column: _value(track, names) for column, names in ATTRIBUTES.items()}
    song = cells["song"] if isinstance(cells["song"], str) else None
    path = os.path.relpath(audio, folder.absolute())
    return Row(
        f"{folder}, track {track_id}",
        {**cells, "song": song, "id": str(track_id), "path": path, "split": splits.get(track_id)},
    )


def _value(track: Any, names: tuple[str, ...]) -> Any:
    """Return the first of the attributes that has a value, as a text or a list of texts."""
    for name in names:
        value = getattr(track, name, None)
        if isinstance(value, Mapping):  # names by provider, as in beatport_key
            value = [text for texts in value.values() for text in (texts if isinstance(texts, list) else [texts])]
        if isinstance(value, list | tuple | set):
            return [str(text) for text in value if text is not None and text != ""] or None
        if value not in (None, ""):
            return str(value)
    return None


MIRDATA = KnownDataset(
    name="mirdata",
    title="a data set with a loader of mirdata",
    needs="the folder that mirdata calls data_home, complete with the loader's index and metadata; the loader's name "
    "is that of the folder, or --dataset mirdata:NAME; the package mirdata (extra mirdata)",
    terms="those of the data set; mirdata prints its licence",
    recognises=lambda path: False,  # only with --dataset: the same folder may be another source
    load=load_mirdata,
    options=frozenset({"genre_delimiter", "artist_delimiter"}),
)
