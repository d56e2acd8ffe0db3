"""Read a folder of audio, or one in which each genre has a folder of its own, as in GTZAN."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from pathlib import Path

from ...cache.errors import ManifestError
from .manifest import KnownDataset, Source, Track, check_collisions, check_id
from .tables import distinct_names

NOT_AUDIO_SUFFIXES = (".tsv", ".csv", ".json", ".jsonl", ".txt", ".md")
GTZAN_FOLDERS = ("", "genres", "genres_original", "Data/genres_original")


def load_folder(folder: Path, *, genres_from_folders: bool = False) -> Source:
    """Plan every regular file of a folder of audio; see :func:`load_source`."""
    names, notes = _walk(folder)
    suffixes = NOT_AUDIO_SUFFIXES
    audio = [name for name in names if not name.lower().endswith(suffixes)]
    if len(audio) < len(names):
        notes.append(f"{len(names) - len(audio)} tables and texts are no tracks (but NAME.txt is NAME.mp3's lyrics)")
    if not audio:
        raise ManifestError(f"{folder}: there is no audio file in this folder")
    texts = {name.rpartition(".")[0]: name for name in names if name.endswith(".txt")}
    tracks = []
    for name in sorted(audio):
        check_id(name, str(folder))
        parent = name.partition("/")[0] if "/" in name else ""
        tracks.append(
            Track(
                id=name,
                path=name,
                genres=distinct_names([parent]) if genres_from_folders else (),
                lyrics_path=texts.get(os.path.splitext(name)[0]),  # noqa: PTH122 (pathlib keeps the dot of "song.")
            )
        )
    check_collisions([track.id for track in tracks], [folder.name] * len(tracks))
    if genres_from_folders and not any(track.genres for track in tracks):
        raise ManifestError(f"{folder}: no file lies in a folder of its own genre")
    return Source(root=folder, tracks=tracks, notes=notes)


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """Return relative names of the files that are not hidden, and notes on what was skipped."""
    names: list[str] = []
    skipped: Counter[str] = Counter()

    def refuse(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        if "zarr.json" in files:
            skipped["feature stores inside were not entered"] += 1
            folders.clear()
            continue
        links = [name for name in folders if Path(parent, name).is_symlink()]
        skipped["linked folders were not entered"] += len(links)
        skipped["hidden files and folders were passed over"] += sum(name.startswith(".") for name in files + folders)
        folders[:] = [name for name in folders if name not in links and not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            path = Path(parent, name)
            if not _is_file_or_dead_link(path):
                skipped["pipes, sockets and devices are no tracks"] += 1
                continue
            names.append(_encodable(path.relative_to(folder).as_posix()))
    return names, [f"{count} {what}" for what, count in skipped.items() if count]


def _is_file_or_dead_link(path: Path) -> bool:
    # A link to nowhere stays in the plan: extraction says SRC_MISSING, which is better than silence.
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _encodable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"file name {os.fsencode(name)!r} is not UTF-8, so that no table can hold it; rename it"
        ) from error
    return name


def _gtzan_like(path: Path) -> Path | None:
    """The folder of genre folders whose files are named after them, as in ``blues/blues.00000.wav``."""
    return next((path / inner for inner in GTZAN_FOLDERS if _named_by_genre(path / inner)), None)


def _named_by_genre(folder: Path) -> bool:
    try:
        genres = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
        return len(genres) > 1 and all(_all_numbered(folder, genre) for genre in genres)
    except OSError:
        return False


def _all_numbered(folder: Path, genre: str) -> bool:
    names = [name for name in os.listdir(folder / genre) if not name.startswith(".")]
    return bool(names) and all(re.fullmatch(rf"{re.escape(genre)}\.\d+\.\w+", name) for name in names)


AUDIO_FOLDER = KnownDataset(
    name="audio-folder",
    title="a folder of audio",
    needs="audio files in folders as they come; song.txt beside song.mp3 is its lyrics; genres from --labels TABLE",
    terms="your own",
    recognises=lambda path: path.is_dir(),
    load=lambda path, options: load_folder(path),
)
GENRE_FOLDERS = KnownDataset(
    name="genre-folders",
    title="folders by genre, as GTZAN",
    needs="GENRE/any/where/song.mp3; found by itself where files are named as GTZAN's are, blues/blues.00000.wav (also "
    "in genres/ or genres_original/ below), else asked for with --genres-from-folders",
    terms="your own; GTZAN's makers stated no licence",
    recognises=lambda path: _gtzan_like(path) is not None,
    load=lambda path, options: load_folder(_gtzan_like(path) or path, genres_from_folders=True),
    options=frozenset({"genres_from_folders"}),
)
