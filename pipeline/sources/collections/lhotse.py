"""lhotse manifests: recordings with supervisions, or cuts, as JSON Lines."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ....cache.errors import ManifestError
from ....cache.format.tables import SPLIT_SPELLINGS
from ....cache.messages import counted
from ..manifest import KnownDataset, Source
from ..options import SourceOptions
from ..table_source import source_of_rows
from ..tables import Row

_MANIFEST = re.compile(r"(?:.*[-_.])?(recordings|supervisions|cuts)(?:[-_.](.+?))?\.jsonl(?:\.gz)?")

CUSTOM = {
    "artists": ("artists", "artist"),
    "song": ("song", "title"),
    "genres": ("genres", "genre", "tags", "labels", "label"),
    "split": ("split",),
    "lyrics": ("lyrics",),
}
"""Column of a track -> names of custom fields of supervisions; the first one that exists is read."""


@dataclass
class _Recording:
    """A recording with the cells from its supervisions; lists are united."""

    location: str
    path: str
    cells: dict[str, Any] = field(default_factory=dict)

    def add(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if value in (None, "", []):
                continue
            old = self.cells.setdefault(name, value)
            if isinstance(old, list) and isinstance(value, list):
                self.cells[name] = list(dict.fromkeys([*old, *value]))


def load_lhotse(path: Path, options: SourceOptions) -> Source:
    """Read the recordings of manifests as tracks; supervisions give genres, artists, language and lyrics.

    A cut stands for its whole recording. The split is the custom field ``split``, or part of the name of the manifest,
    as in ``cuts_train.jsonl.gz``.

    Raises
    ------
    ManifestError
        If a manifest is invalid, or a recording is not a file.
    """
    files = _manifests(path)
    recordings: dict[str, _Recording] = {}
    n_parts = 0
    for file, kind, split in sorted(files, key=lambda entry: (entry[1] == "supervisions", entry[0])):
        for location, item in _items(file):
            try:
                n_parts += _add(recordings, location, item, kind, split)
            except (TypeError, AttributeError) as error:
                raise ManifestError(f"{location}: not an entry of a lhotse manifest: {error}") from error
    if not recordings:
        raise ManifestError(f"{path}: no recordings. Give a folder with recordings.jsonl or cuts.jsonl.")
    base = options.root or (path if path.is_dir() else path.parent)
    rows = [Row(r.location, {**r.cells, "id": name, "path": r.path}) for name, r in recordings.items()]
    source = source_of_rows(path, rows, base, options)
    if n_parts:
        source.notes.append(f"{counted(n_parts, 'cut')} of later parts of recordings: the whole recordings are read")
    return source


def _manifests(path: Path) -> list[tuple[Path, str, str | None]]:
    """Return the manifests with kind and split; those of cuts alone, if there are any, as they have everything."""
    names = sorted(path.iterdir()) if path.is_dir() else [path]
    matches = [(file, match) for file in names if (match := _MANIFEST.fullmatch(file.name)) and file.is_file()]
    found = [(file, match[1], SPLIT_SPELLINGS.get((match[2] or "").casefold())) for file, match in matches]
    kinds = {kind for _, kind, _ in found}
    if "recordings" not in kinds:
        return [entry for entry in found if entry[1] == "cuts"]
    return [entry for entry in found if entry[1] != "cuts"]


def _items(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                location = f"{path}, line {number}"
                item = json.loads(line)
                if not isinstance(item, dict):
                    raise ManifestError(f"{location}: a JSON object was expected")
                yield location, item
    except ManifestError:
        raise
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not readable as JSON Lines: {error}") from error


def _add(recordings: dict[str, _Recording], location: str, item: Any, kind: str, split: str | None) -> bool:
    """Add an entry of a manifest; return whether it is a later part of a recording."""
    if kind == "supervisions":
        if (known := recordings.get(str(item.get("recording_id")))) is not None:
            known.add({"split": split, **_described([item])})
        return False
    recording = _recording(item.get("recording") if kind == "cuts" else item, location, recordings)
    recording.add({"split": split, **_described(item.get("supervisions") or ())})
    return kind == "cuts" and item.get("start", 0) > 0


def _recording(item: Any, location: str, recordings: dict[str, _Recording]) -> _Recording:
    try:
        name, (source, *_) = str(item["id"]), item["sources"]
        kind, path = source["type"], str(source["source"])
    except (TypeError, KeyError, ValueError) as error:
        raise ManifestError(f"{location}: no recording with an id and sources") from error
    if kind != "file":
        raise ManifestError(f"{location}: recording {name!r} is of type {kind!r}. Save its audio to a file.")
    recording = recordings.setdefault(name, _Recording(location, path))
    if recording.path != path:
        raise ManifestError(f"{location}: recording {name!r} has another file than in {recording.location}")
    return recording


def _described(supervisions: Iterable[Any]) -> dict[str, Any]:
    """Return the cells that supervisions give to their recording."""
    found = _Recording("", "")
    for supervision in supervisions:
        custom = supervision.get("custom") or {}
        values = {
            column: next((custom[name] for name in names if custom.get(name)), None) for column, names in CUSTOM.items()
        }
        speaker, text = supervision.get("speaker"), supervision.get("text")
        found.add(
            {
                **values,
                "artists": values["artists"] or ([speaker] if speaker else None),
                "lyrics": values["lyrics"] or text,
                "language": supervision.get("language"),
            }
        )
    return found.cells


LHOTSE = KnownDataset(
    name="lhotse",
    title="lhotse manifests",
    needs="recordings*.jsonl and supervisions*.jsonl, or cuts*.jsonl, also with .gz, in a folder, or one file of cuts; "
    "genres, artists and split in the custom fields of supervisions; paths start from the folder, or from --root",
    terms="those of the data set",
    recognises=lambda path: bool(_manifests(path)),
    load=load_lhotse,
    options=frozenset({"root", "genre_delimiter", "artist_delimiter"}),
)
