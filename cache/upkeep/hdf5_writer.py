"""The sealed form of a store: one HDF5 file, for reading and for keeping.

The same arrays, dims, units and attributes as the Zarr form, one chunk a clip, every chunk with HDF5's own Fletcher-32
checksum. Tables are groups of columns. ``records/`` holds the store's plan, commits and tables byte for byte, so that
unpacking gives the very store that was sealed. The first 512 bytes are an HDF5 user block: a JSON text with the sha256
of all that follows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zarr

from ..durable import fsync_dir, fsync_tree, inside
from ..errors import ConfigError, StoreCorruptError, StoreFormatError
from ..format import layout
from ..format.plan import FOLDERS, PLAN_FILE, SEALED_SUFFIXES, Plan, feature_set_key, read_plan
from ..format.recipe import TextRecipe
from ..format.records import COMMITS, committed
from ..format.schema import ABSENT, FORMAT_VERSION, ArraySpec, added_arrays, is_fill, track_arrays
from ..messages import counted
from ..reading.hdf5_reader import JSON_ATTRIBUTES, RECORDS, SEALED_FORMAT, USER_BLOCK
from ..reading.zarr_reader import ZarrReader
from ..steps import Progress, silent
from ..writing import commits, publish
from ..writing.takedowns import DROPS
from .compact import uncompacted
from .surviving_file import SurvivingFile
from .verify import verify

_AT_ONCE = 64  # rows copied in one go


def seal_store(store: Path, path: Path, *, on_progress: Progress = silent) -> None:
    """Write the HDF5 form of a finished Zarr store, read it back and compare; appears at `path` in one step.

    Raises
    ------
    ConfigError
        If something is in the way, or tracks are pending.
    """
    if path.exists():
        raise ConfigError(f"{path}: there is something already; name another file")
    commits.finish(store)
    reader = ZarrReader(store, mapped=False)
    pending = int((np.asarray(reader.tracks.column("status")) == ABSENT).sum())
    if pending:
        raise ConfigError(
            f"{store}: {counted(pending, 'track')} not extracted yet; a sealed store holds all: extract first"
        )
    if damages := verify(store):
        raise StoreCorruptError(f"{store}: {damages[0].key}: {damages[0].detail}; run `mgc store repair {store}` first")
    if uncompacted(store):
        raise ConfigError(
            f"{store}: tracks were taken down; run `mgc store compact {store}` first, so that they stay out"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with SurvivingFile(draft) as drafted:
            with h5py.File(drafted, "w", userblock_size=USER_BLOCK, libver="v110") as file:
                _write(file, store, reader, on_progress, drafted)
            drafted.raise_fault()
        with h5py.File(draft, "r", locking=False) as file:
            _prove_equal(file, zarr.open_group(store, mode="r"))
        _write_seal(draft)
        os.link(draft, path)
        fsync_dir(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path}: there is something already; name another file") from None
    finally:
        draft.unlink(missing_ok=True)


def unpack_store(path: Path, store: Path, *, on_progress: Progress = silent) -> None:
    """Make the Zarr store again that was sealed into `path`, and compare it with its records, byte for byte.

    Raises
    ------
    StoreCorruptError
        If the file does not match its seal, or what comes out does not match the commits; nothing is left then.
    """
    if store.exists():
        raise ConfigError(f"{store}: there is something already; name another folder")
    if problem := seal_problem(path):
        raise StoreCorruptError(f"{path}: {problem}; restore the file from a copy")
    partial = store.parent / f".{store.name}.{uuid.uuid4().hex}.partial"
    try:
        with h5py.File(path, "r", locking=False) as file:
            _unpack(file, partial, on_progress)
        partial.rename(store)
        fsync_dir(store.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unpack_records(path: Path, store: Path) -> None:
    """Make a store's plan, records and tables again, without the arrays: enough to see what it holds of which source.

    Raises
    ------
    StoreFormatError, StoreCorruptError
        If the file cannot be read, or its records do not match their own checksums.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            _unpack_records(file, store)
    except (OSError, KeyError) as error:
        raise StoreFormatError(f"{path}: no mgc feature store in HDF5 form ({error})") from error


def seal_problem(path: Path) -> str | None:
    """What is wrong with a file's seal; None if it is whole. Reads every byte."""
    with path.open("rb") as file:
        block = file.read(USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    try:
        said = json.loads(block.rstrip(b"\0"))
    except ValueError:
        return "its user block is not the seal of a feature store"
    if block != _seal_text(said.get("sha256"), said.get("bytes")):
        return "its seal was altered"
    if (said["sha256"], said["bytes"]) != (digest, size):
        return "its bytes are not those that were sealed"
    return None


def _seal_text(sha256: Any, n_bytes: Any) -> bytes:
    said = {"sealed": SEALED_FORMAT, "format_version": FORMAT_VERSION, "bytes": n_bytes, "sha256": sha256}
    return json.dumps(said).encode().ljust(USER_BLOCK, b"\0")


def _write_seal(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(USER_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
        file.seek(0)
        file.write(_seal_text(digest, size))
        file.flush()
        os.fsync(file.fileno())


def _write(file: h5py.File, store: Path, reader: ZarrReader, progress: Progress, drafted: SurvivingFile) -> None:
    group = zarr.open_group(store, mode="r")
    for name, value in dict(group.attrs).items():
        file.attrs[name] = json.dumps(value) if name in JSON_ATTRIBUTES else value
    specs = [*track_arrays(reader.recipe), *(spec for name, one in reader.added.items()
                                             for spec in added_arrays(name, one))]  # fmt: skip
    total = len(specs) * reader.n_rows
    for number, spec in enumerate(specs):
        for rows in _copied(file, group, spec, reader.n_rows):
            progress("seal", number * reader.n_rows + rows, total)
            drafted.raise_fault()
    if reader.embeds_genres:
        assert reader.recipe.lyrics is not None
        deque(_copied(file, group, layout.genre_spec(reader.recipe.lyrics.hidden_size), len(reader.genres)), maxlen=0)
    for name, one in reader.added.items():
        if isinstance(one, TextRecipe):
            deque(_copied(file, group, layout.genre_spec(one.hidden_size, name), len(reader.genres)), maxlen=0)
        _write_table(file, f"added/{name}", reader.added_outcomes(name))
    _write_table(file, "tracks", reader.tracks)
    _write_table(file, "genres", pa.table({"row": range(len(reader.genres)), "name": reader.genres},
                                          schema=pa.schema([("row", pa.int64()), ("name", pa.string())])))  # fmt: skip
    for key in _record_keys(store):
        file.create_dataset(
            f"{RECORDS}/{key}", data=np.frombuffer((store / key).read_bytes(), np.uint8), fletcher32=True
        )


def _copied(file: h5py.File, group: zarr.Group, spec: ArraySpec, n_rows: int) -> Iterator[int]:
    """Copy an array, telling how many rows are done."""
    array = group[spec.name]
    assert isinstance(array, zarr.Array)
    chunk = spec.inner if spec.sharded else (max(1, min(n_rows, 4096)), *spec.tail)
    dataset = file.create_dataset(
        spec.name, shape=(n_rows, *spec.tail), dtype=spec.dtype, chunks=chunk if n_rows else None,
        fillvalue=spec.fill, fletcher32=bool(n_rows),
    )  # fmt: skip
    for axis, name in enumerate(spec.dims):
        dataset.dims[axis].label = name
    dataset.attrs["units"], dataset.attrs["description"] = spec.unit, spec.description
    for first in range(0, n_rows, _AT_ONCE):
        values = np.asarray(array[first : first + _AT_ONCE])
        if not spec.sharded:
            dataset[first : first + len(values)] = values
            yield first + len(values)
            continue
        step = spec.inner[1]
        for i, row in enumerate(values):
            for start in range(0, len(row), step):
                block = row[start : start + step]
                if not is_fill(block, spec.fill):  # an unwritten chunk reads as fill and takes no room
                    dataset[first + i, start : start + len(block)] = block
        yield first + len(values)


def _prove_equal(file: h5py.File, group: zarr.Group) -> None:
    """Read back every value of every array."""
    for name, array in group.arrays():
        for first in range(0, array.shape[0], _AT_ONCE):
            here, there = np.asarray(array[first : first + _AT_ONCE]), file[name][first : first + _AT_ONCE]
            if here.tobytes() != there.tobytes():
                raise StoreCorruptError(
                    f"{file.filename}: {name} reads back otherwise than written; is the disk sound?"
                )


def _write_table(file: h5py.File, name: str, table: pa.Table) -> None:
    text = h5py.string_dtype("utf-8")
    for field in table.schema:
        column, key = table.column(field.name), f"{name}/{field.name}"
        if pa.types.is_list(field.type):
            file.create_dataset(
                key, data=[json.dumps(value, ensure_ascii=False) for value in column.to_pylist()], dtype=text
            )
            file[key].attrs["encoding"] = "JSON list"
        elif pa.types.is_string(field.type):
            file.create_dataset(key, data=[value or "" for value in column.to_pylist()], dtype=text)
        else:
            zero = pa.scalar(0, field.type)
            file.create_dataset(key, data=np.asarray(column.fill_null(zero) if column.null_count else column))
        if column.null_count:
            file.create_dataset(f"{key}_missing", data=np.asarray(column.is_null()))


def _record_keys(store: Path) -> Iterator[str]:
    """All but arrays with one row a track, which are datasets here, and Zarr's metadata, which the plan determines."""
    plan = read_plan(store)
    yield PLAN_FILE
    for generation in plan.generations:
        yield generation.key
        yield from (item["key"] for item in generation.record["objects"])
    for name, added in plan.added.items():
        for n, record in enumerate(added.records):
            yield feature_set_key(name, n)
            yield from (item["key"] for item in record["objects"])
    for folder in (COMMITS, "rows", DROPS, *(f"{kind}/{name}" for kind in (COMMITS, "rows")
                                                     for name in plan.added)):  # fmt: skip
        if (store / folder).is_dir():
            names = sorted(name for name in os.listdir(store / folder) if name.endswith((".json", ".parquet")))
            yield from (f"{folder}/{name}" for name in names)


def _unpack_records(file: h5py.File, store: Path) -> Plan:
    store.mkdir(parents=True)
    for folder in FOLDERS:
        (store / folder).mkdir()
    keys: list[str] = []
    file[RECORDS].visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
    for key in keys:
        target = inside(store, key)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file[RECORDS][key][:].tobytes())
    plan = read_plan(store)
    layout.install_metadata(store, plan.metadata, store / publish.STAGING)
    return plan


def _unpack(file: h5py.File, store: Path, progress: Progress) -> None:
    plan = _unpack_records(file, store)
    places = [(one, part) for one in (None, *plan.added) for part in sorted(committed(store, one))]
    for done, (feature_set, part) in enumerate(places, start=1):
        rows = plan.part_range(part)
        arrays = {spec.name: file[spec.name][rows.start : rows.stop] for spec in plan.arrays(feature_set)}
        commits.restore_part(store, part, arrays, feature_set)
        progress("unpack", done, len(places))
    (store / publish.STAGING).rmdir()
    fsync_tree(store)


def convert(source: Path, target: Path, *, on_progress: Progress = silent) -> None:
    """Zarr form to HDF5 form, or back; the result is compared with what it was made from.

    Raises
    ------
    ConfigError, StoreCorruptError
    """
    if source.is_file():
        unpack_store(source, target, on_progress=on_progress)
    elif target.suffix not in SEALED_SUFFIXES:
        raise ConfigError(f"{target}: the HDF5 form of a store ends in {' or '.join(SEALED_SUFFIXES)}")
    else:
        seal_store(source, target, on_progress=on_progress)


@contextmanager
def only_writer(sealed: Path) -> Iterator[Path]:
    """A hidden folder beside a sealed store, in which one process at a time makes it; what a kill leaves there is kept.

    Raises
    ------
    ConfigError
        If another process is at it.
    """
    import fcntl  # POSIX; reading a store needs it not

    folder = sealed.with_name(f".{sealed.name}.making")
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        busy = False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            busy = not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat())
        except BlockingIOError:
            busy = True
        except OSError:
            pass  # a file system without locks
        if busy:
            raise ConfigError(f"{sealed}: another extraction makes it; a sealed store has one writer: wait for it")
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()
    finally:
        os.close(handle)
