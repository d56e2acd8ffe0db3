"""Read tags of audio files (ID3, Vorbis comments, MP4 atoms, RIFF and AIFF chunks) for values that no table has.

Only the head of a file is read, or the chunks that hold tags; pictures are skipped. A damaged tag causes a note,
but does not fail the track.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from tinytag import TinyTag, UnsupportedFormatError

from ...cache.errors import ClipError
from ...cache.messages import counted, size
from ...cache.steps import Progress, silent
from ..text.timing import without_timing
from .files import is_url, local_file
from .manifest import COLUMNS, TAGS, Source, Track
from .names import clean_name, stands_for_nothing
from .options import SourceOptions
from .tables import distinct_names

MAX_BYTES = 1 << 24
"""Maximum bytes read for the tags of a file; lyrics are short, and a damaged tag may declare any size."""

MANY_FILES = 1000
"""Number of files from which reading tags is a separate step with progress."""

_READERS = 8
_REPORTED = 256
_TIMED_LINE = re.compile(r"^\s*\[\d{1,3}:\d\d", re.MULTILINE)
_NUMBERED = re.compile(r"((?:\(\d{1,3}\))+)\s*(.*)|(\d{1,3})", re.DOTALL)


def read_tags(path: Path, options: SourceOptions) -> dict[str, Any]:
    """Return the tags of an audio file as fields of a track: artists, song, genres and lyrics.

    Parameters
    ----------
    options : only the delimiters are used, which split a tag as they split a cell.

    Raises
    ------
    ValueError
        If the tags cannot be read, with the reason. A file without tags, or of a format whose tags are not read, has
        none.
    """
    try:
        with path.open("rb") as file:
            tag = TinyTag.get(file_obj=cast("BinaryIO", _Bounded(file)), duration=False)
    except UnsupportedFormatError:
        return {}
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error
    except Exception as error:  # whatever a parser of untrusted bytes raises
        raise ValueError(str(error) or type(error).__name__) from error
    fields = {
        "artists": _names([tag.artist, *tag.other.get("artist", ())], options.artist_delimiter),
        "song": clean_name(tag.title or ""),
        "genres": _names(_genres([tag.genre, *tag.other.get("genre", ())]), options.genre_delimiter),
        "lyrics": _untimed([*tag.other.get("lyrics", ()), *tag.other.get("syncedlyrics", ())]),
    }
    return {name: value for name, value in fields.items() if value}


def add_tags(
    source: Source, options: SourceOptions, columns: Collection[str] = COLUMNS, *, on_progress: Progress = silent
) -> Source:
    """Fill missing values of a source from the tags of its files, and count them in ``source.columns``.

    Parameters
    ----------
    columns : names of :data:`mgc.pipeline.sources.manifest.COLUMNS` to fill: those that no table has. A track that has
        a value keeps it.
    """
    columns = [name for name in COLUMNS if name in columns]
    fields = [COLUMNS[name] for name in columns]
    files = [track for track in source.tracks if any(not track.has(field) for field in fields)]
    if not files:
        return source
    values: dict[str, dict[str, Any]] = {}
    broken: list[tuple[str, str]] = []
    readers = ThreadPoolExecutor(_READERS)
    try:
        answers = readers.map(functools.partial(_try_tags, source.root, options), files)
        for done, (track, answer) in enumerate(zip(files, answers, strict=True), start=1):
            if isinstance(answer, str):
                broken.append((track.id, answer))
            else:
                values[track.id] = {f: v for f, v in answer.items() if f in fields and not track.has(f)}
            if len(files) >= MANY_FILES and (done == 1 or done % _REPORTED == 0 or done == len(files)):
                on_progress(TAGS, done, len(files))
    finally:
        readers.shutdown(cancel_futures=True)  # after an interrupt, the other files are not read
    tracks = [replace(track, **values[track.id]) if values.get(track.id) else track for track in source.tracks]
    counts = {name: sum(COLUMNS[name] in fields for fields in values.values()) for name in columns}
    origins = {name: {**source.columns.get(name, {}), **({TAGS: n} if n else {})} for name, n in counts.items()}
    notes = list(source.notes)
    if broken:
        first, reason = broken[0]
        notes.append(
            f"the tags of {counted(len(broken), 'file')} cannot be read and count as none; first: {first!r} ({reason})"
        )
    return replace(source, tracks=tracks, notes=notes, columns={**source.columns, **origins})


def _try_tags(root: Path, options: SourceOptions, track: Track) -> dict[str, Any] | str:
    """Return the tags of a track, or why they cannot be read; nothing for a missing file."""
    if is_url(track.path):
        return {}
    try:
        with local_file(root, track.path) as path:
            return read_tags(path, options) if path.is_file() else {}
    except ClipError:
        return {}
    except ValueError as error:
        return str(error)


class _Bounded:
    """A file of which a parser can read at most :data:`MAX_BYTES`, whatever sizes the file declares."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, n_bytes: int) -> bytes:
        allowed = self._left + 1
        data = self._file.read(
            allowed if n_bytes < 0 else min(n_bytes, allowed)
        )  # below the size of a header: negative
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"tags over {size(MAX_BYTES)}")
        return data


def _names(values: Iterable[str | None], delimiter: str | None) -> tuple[str, ...]:
    """Return the names in the values of a tag, which NUL or a given delimiter separates; none for "unknown"."""
    texts = [text for value in values if value for text in value.split("\0")]
    names = [name for text in texts for name in (text.split(delimiter) if delimiter else [text])]
    return distinct_names(name for name in names if not stands_for_nothing(name))


def _genres(values: Iterable[str | None]) -> Iterable[str]:
    """Yield names of genres; numbers of ID3v1, as ``17``, ``(17)`` and ``(17)Rock``, become names."""
    for text in (text.strip() for value in values if value for text in value.split("\0")):
        match = _NUMBERED.fullmatch(text)
        if match is None:
            yield text
        elif match[2]:
            yield match[2]
        else:
            yield from filter(None, (_id3_genre(int(number)) for number in re.findall(r"\d+", text)))


@functools.cache
def _id3_genre(number: int) -> str | None:
    """Return the genre of a number of ID3v1, None where it has none: read from a tag that holds nothing else."""
    tag = b"TAG" + bytes(124) + bytes([min(number, 255)])
    return TinyTag.get(file_obj=io.BytesIO(b"\xff\xfb" + bytes(126) + tag), duration=False).genre


def _untimed(values: Iterable[str]) -> str:
    """Return the lyrics without time stamps, if there are some, else those with them, and then without the stamps."""
    texts = sorted((text.strip() for text in values), key=lambda text: bool(_TIMED_LINE.search(text)))
    text = next((text for text in texts if text and not stands_for_nothing(text)), "")
    return without_timing("\n".join(map(str.strip, text.splitlines()))) if _TIMED_LINE.search(text) else text
