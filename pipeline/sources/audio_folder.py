"""Read a folder or archive of audio, or one in which each genre has a folder of its own, as in GTZAN."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ...cache.errors import ClipError, ConfigError, ManifestError
from ...cache.format.schema import Reason
from ...cache.messages import counted, join_names
from ..audio.containers import Caps, examine
from .archives import ARCHIVE_SUFFIXES, COMPRESSED_SUFFIXES, open_archive
from .manifest import KnownDataset, Source, Track, check_collisions, check_id, remark_links
from .names import lyrics_next_to
from .tables import distinct_names

TABLE_AND_TEXT_SUFFIXES = (".tsv", ".csv", ".json", ".jsonl", ".txt", ".lrc", ".md")
_AUDIO_NAMES = """
mp3 mp2 mp1 mpa mpga m2a m3a bit aac adts wav wave bwf rf64 w64 aif aiff aifc afc au snd caf flac fla ogg oga opus spx
ogx voc wma asf m4a mp4 m4b m4p m4r m4v mov qt 3gp 3g2 alac ape apl mpc mp+ mpp wv tta tak dsf dff amr awb dts ac3 eac3
ec3 mka mkv webm weba mk3d ra rm shn ofr aa aax sph nist 8svx iff paf pvf dsd mlp thd
"""
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _AUDIO_NAMES.split())
"""Files with these suffixes are planned whatever their content, so that a damaged file is reported as failed."""

SYSTEM_FOLDERS = frozenset(
    ("@eadir", "__macosx", "$recycle.bin", "#recycle", "#snapshot", "lost+found", "system volume information")
)
GTZAN_FOLDERS = ("", "genres", "genres_original", "Data/genres_original")


def load_folder(folder: Path, *, root: Path | None = None, genres_from_folders: bool = False) -> Source:
    """Plan the audio files of a folder; see :func:`load_source`. With `root`, links may lead anywhere inside it."""
    names, notes = _walk(folder)
    base = folder if root is None else root
    source = _planned(folder, base, names, notes, lambda name: _holds_audio(folder / name), genres_from_folders)
    paths = (path for track in source.tracks for path in (track.path, track.lyrics_path) if path is not None)
    links = remark_links(base, (path for path in paths if (base / path).is_symlink()), "give --root {}")
    return replace(source, notes=[*source.notes, *links])


def load_archive(path: Path, *, root: Path | None = None, genres_from_folders: bool = False) -> Source:
    """Plan the audio files of a tar or zip archive like those of a folder; only their names decide what is audio."""
    archive = open_archive(path)
    names = [name for name in archive.members if not _is_hidden(name)]
    hidden = len(archive.members) - len(names)
    notes = [*archive.notes, *([f"{counted(hidden, 'hidden or system file')} skipped"] if hidden else [])]
    base = path.parent if root is None else root
    return _planned(path, base, names, notes, lambda _: False, genres_from_folders)


def _planned(
    place: Path,
    base: Path,
    names: list[str],
    notes: list[str],
    holds_audio: Callable[[str], bool],
    genres_from_folders: bool,
) -> Source:
    """Return the audio among the files of a folder or archive as a source with the root `base`."""
    prefix = _prefix(place, base)
    others = [name for name in names if not name.lower().endswith(TABLE_AND_TEXT_SUFFIXES)]
    audio = [name for name in others if _suffix(name) in AUDIO_SUFFIXES or holds_audio(name)]
    notes = notes + _remark_skipped(sorted(set(others) - set(audio)))
    lyrics_of = lyrics_next_to(names)
    matched = {name: lyrics_of(name) for name in audio}
    notes += _remark_texts(len(names) - len(others), len({name for name in matched.values() if name is not None}))
    if not audio:
        kind = "folder" if place.is_dir() else "archive"
        raise ManifestError("; ".join([f"{place}: no audio file in this {kind}", *notes]))
    tracks = []
    for name in sorted(audio):
        check_id(name, str(place))
        parent = name.partition("/")[0] if "/" in name else ""
        lyrics = matched[name]
        tracks.append(
            Track(
                id=name,
                path=prefix + name,
                genres=distinct_names([parent]) if genres_from_folders else (),
                lyrics_path=None if lyrics is None else prefix + lyrics,
            )
        )
    check_collisions([track.id for track in tracks], [place.name] * len(tracks))
    if genres_from_folders and not any(track.genres for track in tracks):
        raise ManifestError(f"{place}: no file lies in a folder of its own genre")
    own_columns = frozenset({"genres"} if genres_from_folders else ())
    source = Source(root=base, tracks=tracks, notes=notes, own_columns=own_columns)
    return source.with_origins({"genres": "folder names", "lyrics": "files next to songs"})


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part.casefold() in SYSTEM_FOLDERS for part in name.split("/"))


def _prefix(folder: Path, root: Path) -> str:
    """Return the path from `root` to a folder or archive, for the front of a file's path."""
    if root == folder:
        return ""
    try:
        inner = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise ConfigError(f"--root {root}: {folder} is not inside it. Name a folder that holds {folder}.") from error
    return "" if inner == "." else f"{inner}/"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122 (pathlib knows no suffix of "song.")


def _holds_audio(path: Path) -> bool:
    """Return whether the content of a file is audio, also in a known format that mgc does not read."""
    try:
        examine(path, Caps())
    except ClipError as error:
        return error.reason == Reason.UNSUPPORTED_CODEC
    return True


def _remark_texts(n_texts: int, n_matched: int) -> list[str]:
    """Return remarks on tables and texts: `n_matched` are the lyrics of a song, the others are not used."""
    notes = [f"{counted(n_matched, 'lyrics file')} matched to songs by name"] if n_matched else []
    if n_unused := n_texts - n_matched:
        texts = "table or text is" if n_unused == 1 else "tables and texts are"
        notes.append(f"{n_unused} {texts} not used; lyrics of NAME.mp3 are read from NAME.txt or NAME.lrc")
    return notes


def _remark_skipped(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    kinds = Counter(_suffix(name) or "without a suffix" for name in names)
    listed = join_names([f"{count} {kind}" for kind, count in kinds.most_common()], 12)
    return [f"{counted(len(names), 'file')} without audio skipped: {listed}; first: {names[0]!r}"]


def _walk(folder: Path) -> tuple[list[str], list[str]]:
    """Return relative names of the files that are not hidden, and notes on what was skipped."""
    names: list[str] = []
    skipped: Counter[tuple[str, str]] = Counter()

    def refuse(error: OSError) -> None:
        raise ManifestError(f"{error.filename}: the folder cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        if "zarr.json" in files:
            skipped["feature store", "feature stores"] += 1
            folders.clear()
            continue
        systems = [name for name in folders if name.casefold() in SYSTEM_FOLDERS]
        skipped["system folder such as @eaDir", "system folders such as @eaDir"] += len(systems)
        folders[:] = [name for name in folders if name not in systems]
        links = [name for name in folders if Path(parent, name).is_symlink()]
        skipped["linked folder", "linked folders"] += len(links)
        hidden = sum(name.startswith(".") for name in files + folders)
        skipped["hidden file or folder", "hidden files and folders"] += hidden
        folders[:] = [name for name in folders if name not in links and not name.startswith(".")]
        for name in files:
            if name.startswith("."):
                continue
            path = Path(parent, name)
            if not _is_file_or_dead_link(path):
                skipped["pipe, socket or device", "pipes, sockets and devices"] += 1
                continue
            names.append(_encodable(path.relative_to(folder).as_posix()))
    return names, [f"{counted(count, *nouns)} skipped" for nouns, count in skipped.items() if count]


def _is_file_or_dead_link(path: Path) -> bool:
    # A broken link stays in the plan, so that extraction reports SRC_MISSING.
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True


def _encodable(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"file name {os.fsencode(name)!r} is not UTF-8, so it cannot be in a table. Rename it (convmv does this "
            "for whole folders)."
        ) from error
    return name


def _gtzan_like(path: Path) -> Path | None:
    """Return the folder of genre folders whose files have the genre in their names, as in ``blues/blues.00000.wav``."""
    return next((path / inner for inner in GTZAN_FOLDERS if _named_by_genre(path / inner)), None)


def _named_by_genre(folder: Path) -> bool:
    try:
        folders = [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]
        genres = [name for name in folders if name.casefold() not in SYSTEM_FOLDERS]
        return len(genres) > 1 and all(_all_numbered(folder, genre) for genre in genres)
    except OSError:
        return False


def _all_numbered(folder: Path, genre: str) -> bool:
    names = [
        name for name in os.listdir(folder / genre) if not name.startswith(".") and _suffix(name) in AUDIO_SUFFIXES
    ]
    return bool(names) and all(re.fullmatch(rf"{re.escape(genre)}\.\d+\.\w+", name) for name in names)


AUDIO_FOLDER = KnownDataset(
    name="audio-folder",
    title="a folder of audio",
    needs="audio files in folders as they come; song.txt or song.lrc next to song.mp3 is its lyrics; "
    "genres from --labels TABLE",
    terms="your own",
    recognises=lambda path: path.is_dir(),
    load=lambda path, options: load_folder(path, root=options.root),
    options=frozenset({"root", "genre_delimiter", "artist_delimiter"}),
)
ARCHIVE = KnownDataset(
    name="archive",
    title="a tar or zip archive of audio",
    needs="a .tar without compression, or a .zip, with audio and lyrics as in a folder; it is not unpacked",
    terms="your own",
    recognises=lambda path: path.name.lower().endswith(ARCHIVE_SUFFIXES + COMPRESSED_SUFFIXES) and path.is_file(),
    load=lambda path, options: load_archive(path, root=options.root, genres_from_folders=options.genres_from_folders),
    options=frozenset({"genres_from_folders", "root", "genre_delimiter", "artist_delimiter"}),
)
GENRE_FOLDERS = KnownDataset(
    name="genre-folders",
    title="folders by genre, as GTZAN",
    needs="GENRE/any/where/song.mp3; found by itself where files are named as GTZAN's are, blues/blues.00000.wav (also "
    "in genres/ or genres_original/ below), else asked for with --genres-from-folders",
    terms="your own; GTZAN's makers stated no licence",
    recognises=lambda path: _gtzan_like(path) is not None,
    load=lambda path, options: load_folder(_gtzan_like(path) or path, root=options.root, genres_from_folders=True),
    options=frozenset({"genres_from_folders", "root", "artist_delimiter"}),
)
