"""Hugging Face audio data sets on disk: Parquet files as on the hub, or a folder of ``Dataset.save_to_disk``.

The audio files are inside these files. They are unpacked once, into the folder of ``--root``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ....cache.durable import atomic_write, names_in, replace_file, seal, unseal
from ....cache.errors import ManifestError, StoreCorruptError
from ....cache.format.tables import SPLIT_SPELLINGS
from ....cache.messages import counted
from ....cache.steps import Progress
from ..manifest import KnownDataset, Source
from ..options import SourceOptions
from ..table_source import source_of_rows
from ..tables import Row

COLUMNS = {
    "id": ("id", "track_id"),
    "artists": ("artists", "artist"),
    "song": ("song", "title"),
    "genres": ("genres", "genre", "labels", "label", "tags"),
    "language": ("language",),
    "lyrics": ("lyrics",),
}
"""Column of a track -> names of columns of a data set; the first one that exists is read."""

RECORD = ".mgc-unpacked.json"
_SHARD = re.compile(r"(.+?)(?:-\d+-of-\d+)?\.parquet")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")
_UNPACK_ROWS = 16
_AUDIO = {"bytes": pa.binary(), "path": pa.string()}


@dataclass(frozen=True)
class _File:
    """One file of a data set, and the columns of its schema."""

    path: Path
    split: str | None
    audio: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def batches(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        """Read columns batch by batch; ``audio.path`` is the field of a column."""
        try:
            yield from self._read(columns, n_rows)
        except (pa.ArrowException, OSError) as error:
            if getattr(error, "errno", None):  # of the disk
                raise
            raise ManifestError(f"{self.path}: damaged: {error}. Download it again.") from error

    def _read(self, columns: Sequence[str], n_rows: int) -> Iterator[pa.RecordBatch]:
        if self.path.suffix == ".parquet":
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(n_rows, columns=list(columns))
            return
        top = list(dict.fromkeys(name.partition(".")[0] for name in columns))
        with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                for first in range(0, batch.num_rows, n_rows):
                    yield batch.select(top).slice(first, n_rows)


def load_hugging_face(folder: Path, options: SourceOptions) -> Source:
    """List the rows of all splits; a row without an id is ``SPLIT/NUMBER``.

    Raises
    ------
    ManifestError
        If there is no root to unpack into, it holds other files, or a file cannot be read.
    """
    files = [_described(path, split) for path, split in _files(folder)]
    if options.root is None:
        size = sum(file.path.stat().st_size for file in files)
        raise ManifestError(
            f"{folder}: the audio is inside the files of the data set. Create an empty folder with {size / 1e9:.1f} GB "
            "of free space, and give it with --root: the audio is unpacked there once."
        )
    _check_root(options.root, folder, files)
    rows, paths = [], []
    numbers: Counter[str] = Counter()
    for file in files:
        for row, path in _rows(file, numbers):
            rows.append(row)
            paths.append(path)
    if not rows:
        raise ManifestError(f"{folder}: the data set has no rows")
    source = source_of_rows(folder, rows, options.root, options, check=False)
    return replace(source, unpack=partial(_unpack, options.root, folder, files, paths))


def _files(folder: Path) -> list[tuple[Path, str | None]]:
    """Return the files of a data set with their splits, in order; none if the folder holds no data set."""
    if (folder / "dataset_dict.json").is_file():
        splits = _json(folder / "dataset_dict.json").get("splits") or ()
        return [(path, _split(name)) for name in map(str, splits) for path, _ in _files(folder / Path(name).name)]
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        state = _json(folder / "state.json")
        if state.get("_indices_data_files") or state.get("_indices_files"):
            raise ManifestError(f"{folder}: a selection of rows. Save it again after flatten_indices().")
        found = [path for path in sorted(folder.glob("data-*.arrow")) if path.is_file()]
        if len(found) != len(state.get("_data_files") or ()):
            files = counted(len(found), "file")
            raise ManifestError(f"{folder}: state.json does not list the {files} data-*.arrow. Copy it again.")
        return [(path, _split(state.get("_split"))) for path in found]
    places = [folder, folder / "data", *(folder / name for name in sorted(names_in(folder)) if _split(name))]
    found = [path for place in places for path in sorted(place.glob("*.parquet")) if path.is_file()]
    return [(path, _split(_stem(path.name)) or _split(path.parent.name)) for path in found]


def _json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError(f"{path}: not a JSON object")
    return document


def _stem(name: str) -> str:
    match = _SHARD.fullmatch(name)
    return match[1] if match is not None else name


def _split(name: object) -> str | None:
    return SPLIT_SPELLINGS.get(str(name).casefold())


def _schema(path: Path) -> pa.Schema:
    try:
        if path.suffix == ".parquet":
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
            return stream.schema
    except (OSError, pa.ArrowException) as error:
        raise ManifestError(f"{path}: not readable: {error}") from error


def _described(path: Path, split: str | None) -> _File:
    schema = _schema(path)
    features = _features(schema)
    audio = _audio_column(schema)
    if audio is None:
        raise ManifestError(f"{path}: no column of audio with bytes; columns: {', '.join(schema.names)}")
    names = {name: next((c for c in candidates if c in schema.names), "") for name, candidates in COLUMNS.items()}
    classes = {name: found for name in schema.names if (found := _class_names(features.get(name)))}
    return _File(path, split, audio, {name: column for name, column in names.items() if column}, classes)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """Return the features that the library ``datasets`` wrote into a schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _audio_column(schema: pa.Schema) -> str | None:
    """Return the first column of files in bytes that is marked as audio, or called ``audio``."""
    features = _features(schema)
    for column in schema:
        is_marked = isinstance(about := features.get(column.name), dict) and about.get("_type") == "Audio"
        kind = column.type
        fields = (
            {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)} if pa.types.is_struct(kind) else {}
        )
        if (is_marked or column.name == "audio") and _AUDIO.items() <= fields.items():
            name: str = column.name
            return name
    return None


def _class_names(feature: Any) -> list[str] | None:
    """Return the names of class labels, also of a list of them."""
    while isinstance(feature, list) or (isinstance(feature, dict) and "feature" in feature):
        feature = feature["feature"] if isinstance(feature, dict) else feature[0] if feature else None
    if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
        return feature.get("names")
    return None


def _rows(file: _File, numbers: Counter[str]) -> Iterator[tuple[Row, str]]:
    """Yield the row of each track, and the path of its audio in the root."""
    folder, columns = file.split or "data", [*file.names.values(), f"{file.audio}.path"]
    for batch in file.batches(columns, 1 << 12):
        audio_names = pc.struct_field(batch.column(file.audio), "path").to_pylist()
        cells = batch.select(list(file.names.values())).to_pylist()
        for cell, audio_name in zip(cells, audio_names, strict=True):
            number = numbers[folder]
            numbers[folder] += 1
            suffix = Path(audio_name or "").suffix
            path = f"{folder}/{number:08d}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
            track = {name: _named(cell[column], file.classes.get(column)) for name, column in file.names.items()}
            track |= {"id": str(track["id"]) if track.get("id") is not None else f"{folder}/{number:08d}", "path": path}
            yield Row(f"{file.path}, row {number + 1} of {folder}", {**track, "split": file.split}), path


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """Return the names of class labels; numbers below 0 stand for none."""
    if names is None or isinstance(value, str):
        return value
    numbers = value if isinstance(value, list) else [value]
    return [names[i] for i in numbers if isinstance(i, int) and 0 <= i < len(names)]


def _record(folder: Path, files: Sequence[_File]) -> dict[str, Any]:
    listed = [[file.path.relative_to(folder).as_posix(), file.path.stat().st_size] for file in files]
    return {"files": listed}


def _check_root(root: Path, folder: Path, files: Sequence[_File]) -> None:
    """Refuse a root with anything but the audio of this data set."""
    if not (root / RECORD).is_file():
        if others := names_in(root, "[!.]*"):
            raise ManifestError(
                f"{root}: holds other files, such as {min(others)!r}. Give an empty folder with --root."
            )
        return
    try:
        is_same = unseal(root / RECORD) == _record(folder, files)
    except StoreCorruptError:
        is_same = False
    if not is_same:
        raise ManifestError(f"{root}: holds the audio of another data set or version. Give another --root.")


def _unpack(root: Path, folder: Path, files: Sequence[_File], paths: Sequence[str], progress: Progress) -> None:
    """Write the audio files that are missing, each in one step."""
    if not (root / RECORD).is_file():
        replace_file(root / RECORD, seal(_record(folder, files)))
    missing = [not (root / path).exists() for path in paths]
    done = n_written = 0
    for file in files if any(missing) else ():
        for batch in file.batches([f"{file.audio}.bytes"], _UNPACK_ROWS):
            wanted = missing[done : done + batch.num_rows]
            cells = pc.struct_field(batch.column(file.audio), "bytes") if any(wanted) else ()
            for cell, path in ((c, p) for c, p, w in zip(cells, paths[done:], wanted, strict=False) if w):
                content = cell.as_py()
                if content is None:
                    raise ManifestError(f"{file.path}: {path} has no bytes. Save the data set with embedded audio.")
                (root / path).parent.mkdir(exist_ok=True)
                with atomic_write(root / path) as draft:
                    draft.write_bytes(content)
                n_written += 1
                progress("unpack", n_written, sum(missing))
            done += batch.num_rows


def _recognises(path: Path) -> bool:
    if not path.is_dir():
        return False
    try:
        files = _files(path)
        return bool(files) and _audio_column(_schema(files[0][0])) is not None
    except ManifestError:  # load reports it
        return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


HUGGING_FACE = KnownDataset(
    name="hugging-face",
    title="a Hugging Face audio data set on disk",
    needs="Parquet files with a column of audio (bytes, path) in the folder, in data/ or in folders of splits, or a "
    "folder of save_to_disk; genres in a column genres, genre, labels, label or tags; an empty folder for the audio, "
    "with --root",
    terms="those of the data set; see its README.md",
    recognises=_recognises,
    load=load_hugging_face,
    options=frozenset({"root", "genre_delimiter", "artist_delimiter"}),
)
