"""Sources of tracks: read, count, write as a manifest."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ..cache.errors import ConfigError
from ..cache.messages import counted
from ..cache.names import explain_no_match, match_names
from ..cache.reading.store import FeatureStore
from ..cache.steps import Progress, silent
from ..pipeline.sources.options import SourceOptions
from .shared import extra, with_changes

if TYPE_CHECKING:
    from ..pipeline.sources.manifest import Source, Track


@dataclass(frozen=True, kw_only=True)
class ReadSource:
    """A source after the filters, with remarks on its contents and on each filter."""

    source: Source
    remarks: list[str]
    read_from: tuple[str | os.PathLike[str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return counts of tracks, lyrics, artists and tracks per genre, and the origin of the ``columns``."""
        tracks = self.source.tracks
        genres = Counter(genre for track in tracks for genre in track.genres)
        return {
            "tracks": len(tracks),
            "with_lyrics": sum(track.lyrics is not None or track.lyrics_path is not None for track in tracks),
            "artists": len({artist for track in tracks for artist in track.artists}),
            "genres": dict(sorted(genres.items(), key=lambda item: (-item[1], item[0]))),
            "columns": self.source.provenance.get("columns", {}),
            "merged_genres": [merged.to_dict() for merged in self.source.merged_genres],
            "remarks": self.remarks,
        }


@dataclass(frozen=True, kw_only=True)
class WrittenManifest:
    """A manifest that was written."""

    manifest: str
    tracks: int
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def read_source(
    source: str | os.PathLike[str],
    options: SourceOptions | None = None,
    *,
    on_progress: Progress = silent,
    **changes: Any,
) -> ReadSource:
    """List the tracks of a source and filter them.

    Parameters
    ----------
    source : a folder or a table; see :func:`mgc.pipeline.sources.datasets.load_source`.
    options : settings of the reader, and filters.
    on_progress : receives the number of files whose tags are read.
    changes : options by name, in place of those in `options`: ``read_source("songs/", min_labels=1)``.

    Raises
    ------
    ManifestError
        If the source breaks a rule; the message gives file, line and column.
    MissingExtraError
        If language detection needs the extra ``language``, which is not installed.
    TypeError
        If a name in `changes` is not an option.
    """
    options = with_changes(options or SourceOptions(), changes)
    with extra("extract"):
        from ..pipeline.sources.datasets import load_source
        from ..pipeline.sources.manifest import filter_tracks

    with extra("language"):
        whole = load_source(source, options, on_progress=on_progress)
    kept, counts = filter_tracks(whole.tracks, options, whole.root)
    remarks = [*whole.notes, *whole.describe_columns(), f"{counted(len(whole.tracks), 'track')} in {source}"]
    remarks += [f"  {name}: {n} kept" for name, n in counts]
    read_from = (source,) if options.labels is None else (source, options.labels)
    return ReadSource(source=dataclasses.replace(whole, tracks=kept), remarks=remarks, read_from=read_from)


def known_datasets() -> list[dict[str, str]]:
    """List the supported data sets: ``name``, ``title``, required files (``needs``) and ``terms``."""
    with extra("extract"):
        from ..pipeline.sources.datasets import DATASETS

    names = ("name", "title", "needs", "terms")
    return [{name: getattr(dataset, name) for name in names} for dataset in DATASETS]


def write_manifest(read: ReadSource, path: Path) -> WrittenManifest:
    """Write the tracks of a source as JSON Lines, with paths relative to the manifest's folder where possible."""
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path}: not a .jsonl file. A manifest is JSON Lines; give it the suffix .jsonl.")
    if path.resolve() in {Path(file).resolve() for file in read.read_from}:
        raise ConfigError(f"{path}: is the source of the tracks. Give the manifest another name.")
    from ..pipeline.sources.manifest import escaping_paths
    from ..pipeline.sources.manifest import write_manifest as write

    source, folder, remarks = read.source, path.parent.resolve(), []
    if manifest_root(source, folder) == folder:
        prefix = PurePosixPath(source.root.resolve().relative_to(folder).as_posix())
        escaping = set(escaping_paths(source))  # a prefix would move them inside; they must fail
        moved = [track if track.id in escaping else _moved(track, prefix) for track in source.tracks]
        source = dataclasses.replace(source, tracks=moved)
    else:
        remarks.append(f"Paths in {path} are relative to {source.root}. Read it with --root {source.root}.")
    write(source, path)
    return WrittenManifest(manifest=str(path), tracks=len(source.tracks), remarks=remarks)


def manifest_root(source: Source, folder: Path) -> Path:
    """Return the root of the paths in a manifest of `source` in `folder`: `folder` if it contains the source."""
    folder, root = folder.resolve(), source.root.resolve()
    return folder if root.is_relative_to(folder) else root


def _moved(track: Track, prefix: PurePosixPath) -> Track:
    lyrics_path = None if track.lyrics_path is None else str(prefix / track.lyrics_path)
    return dataclasses.replace(track, path=str(prefix / track.path), lyrics_path=lyrics_path)


@dataclass(frozen=True, kw_only=True)
class ReplacementLabels:
    """Genres by track id that replace the store's (None: the store's own), and remarks."""

    genres: Mapping[str, Sequence[str]] | None = None
    remarks: tuple[str, ...] = ()


def labels_for(
    store: FeatureStore, path: Path | None, genre_delimiter: str | None, merge_genres: str | None
) -> ReplacementLabels:
    """Read labels from a table with tracks of the store, or take the store's own, and merge genre spellings."""
    if path is None and merge_genres is None:
        return ReplacementLabels()
    from ..pipeline.sources.genre_aliases import genre_aliases, remark_mergeable, remark_merged
    from ..pipeline.sources.genre_aliases import merge_genres as merge
    from ..pipeline.sources.names import remark_names

    remarks: list[str] = []
    if path is None:
        tracks = store.tracks
        labels = dict(zip(tracks.column("id").to_pylist(), tracks.column("genres").to_pylist(), strict=True))
    else:
        labels, remarks = _listed_labels(store, path, genre_delimiter)
    names = {name for genres in labels.values() for name in genres}
    if merge_genres is None:
        remarks += remark_mergeable(names)
    else:
        aliases = genre_aliases(merge_genres)
        kept, merged = merge(labels.values(), aliases)
        labels = dict(zip(labels, kept, strict=True))
        remarks += remark_merged(merged, aliases, names)
    remarks += remark_names("genres", Counter(name for genres in labels.values() for name in genres))
    return ReplacementLabels(genres=labels, remarks=tuple(remarks))


def _listed_labels(
    store: FeatureStore, path: Path, genre_delimiter: str | None
) -> tuple[dict[str, Sequence[str]], list[str]]:
    from ..pipeline.sources.label_tables import read_labels

    listed, ids = read_labels(path, genre_delimiter), set(store.tracks.column("id").to_pylist())
    other_forms = match_names(listed.keys() - ids, ids - listed.keys())
    labels: dict[str, Sequence[str]] = {other_forms.get(name, name): genres for name, genres in listed.items()}
    n_labelled = len(ids & labels.keys())
    if not n_labelled:
        examples = f"such as {min(labels)!r}; the store has {min(ids)!r}. {explain_no_match(labels, sorted(ids))}"
        raise ConfigError(f"{path}: no id of {counted(len(labels), 'row')} is a track of {store.path}, {examples}")
    remarks = [f"{path.name} labels {n_labelled} of {counted(len(ids), 'track')}; the others are unlabelled"]
    if len(labels) > n_labelled:
        remarks.append(f"{counted(len(labels) - n_labelled, 'row')} of {path.name} without a track in the store")
    return labels, remarks
