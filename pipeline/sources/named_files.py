"""Audio files named one by one, in place of a collection."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ...cache.errors import ConfigError
from .datasets import load_source
from .manifest import Source, Track
from .options import SourceOptions


def songs_source(inputs: Sequence[Path], lyrics: Path | None = None, *, missing_ok: bool = False) -> Source:
    """Return songs named one by one as a source; ids are the paths as the user wrote them.

    Parameters
    ----------
    inputs : audio files, and folders of them; ``song.txt`` beside ``song.mp3`` is its lyrics.
    lyrics : of the one song given, instead.
    missing_ok : a path that does not exist fails alone, as a track.

    Raises
    ------
    ConfigError
        If a path does not exist and that is not ok, or `lyrics` is given with several songs.
    """
    tracks: dict[str, Track] = {}
    for path in inputs:
        if not missing_ok and not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        if path.is_dir():
            folder = load_source(path, SourceOptions())
            for track in folder.tracks:
                words = None if track.lyrics_path is None else _from_root(folder.root / track.lyrics_path)
                name, audio = str(path / track.id), _from_root(folder.root / track.path)
                tracks[name] = dataclasses.replace(track, id=name, path=audio, lyrics_path=words)
        else:
            text = path.with_suffix(".txt")
            words = _from_root(text) if text.is_file() else None
            tracks[str(path)] = Track(id=str(path), path=_from_root(path), lyrics_path=words)
    if lyrics is not None:
        if len(tracks) != 1:
            raise ConfigError(f"--lyrics goes with one song, not with {len(tracks)}; put song.txt beside song.mp3")
        if not lyrics.is_file():
            raise ConfigError(f"--lyrics {lyrics}: no such file")
        ((name, track),) = tracks.items()
        tracks[name] = dataclasses.replace(track, lyrics=None, lyrics_path=_from_root(lyrics))
    return Source(root=Path(Path.cwd().anchor), tracks=list(tracks.values()))


def _from_root(path: Path) -> str:
    absolute = path.resolve()
    return absolute.relative_to(absolute.anchor).as_posix()
