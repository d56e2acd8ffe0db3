"""Write the HDF5 form of a store (the sealed form), one file for reading and archiving.

It has the arrays, dims, units and attributes of the Zarr form, one chunk per clip, every chunk with HDF5's Fletcher-32
checksum. Tables are groups of columns. ``records/`` holds the store's plan, commits and tables byte for byte, so that
unpacking restores exactly the original store. The first 512 bytes are an HDF5 user block: a JSON text with the
sha256 of the rest of the file.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zarr

from ..claims import lock
from ..durable import fsync_dir, fsync_tree, hidden_path, inside, link, names_in, open_regular, rename_durable
from ..errors import ConfigError, StoreCorruptError
from ..format import layout
from ..format.documents import is_record_key, refuse_foreign_files
from ..format.plan import FOLDERS, PLAN_FILE, SEALED_SUFFIXES, Plan, feature_set_key, object_keys, read_plan
from ..format.recipe import TextRecipe
from ..format.records import COMMITS, ROWS, STAGING, committed, part_folder
from ..format.schema import ABSENT, ArraySpec, added_arrays, is_fill, track_arrays
from ..format.tables import genre_table
from ..messages import counted, printable
from ..places import refuse_object_store
from ..reading.hdf5_contents import RECORDS, ROW_CHUNK, array_fault, foreign_contents, hdf5_errors, storage_fault
from ..reading.hdf5_reader import JSON_ATTRIBUTES, USER_BLOCK
from ..reading.reader import StoreReader
from ..reading.zarr_reader import ZarrReader
from ..steps import Progress, silent
from ..writing import commits
from ..writing.takedowns import DROPS
from .compact import uncompacted
from .seal import seal_problem, write_seal
from .verify import verify

_BATCH_ROWS = 64


def seal_store(store: Path, path: Path, *, on_progress: Progress = silent) -> None:
    """Write the HDF5 form of a finished Zarr store, read it back and compare; it appears at `path` in one step.

    Raises
    ------
    ConfigError
        If `path` exists, tracks are pending, takedowns are not compacted, or the store was changed meanwhile.
    StoreCorruptError
        If the store is damaged.
    """
    if path.exists():
        raise ConfigError(f"{path}: already exists. Use another name.")
    refuse_foreign_files(store)
    commits.roll_forward(store)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = hidden_path(path)
    try:
        with _unchanged(store):
            reader = ZarrReader(store, mapped=False)
            _refuse_unfinished(store, reader)
            with _SurvivingFile(draft) as raw:
                with h5py.File(raw, "w", userblock_size=USER_BLOCK, libver="v110") as file:
                    _write(file, store, reader, on_progress, raw)
                raw.raise_fault()
            with h5py.File(draft, "r", locking=False) as file:
                _check_equal(file, store)
        write_seal(draft)
        try:
            link(draft, path)
        except ConfigError:  # no hard links: a rename is safe unless two conversions write one file at once
            if path.exists():
                raise FileExistsError(path) from None
            draft.rename(path)
        fsync_dir(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path}: already exists. Use another name.") from None
    finally:
        draft.unlink(missing_ok=True)


def _refuse_unfinished(store: Path, reader: StoreReader) -> None:
    if pending := int((np.asarray(reader.tracks.column("status")) == ABSENT).sum()):
        raise ConfigError(
            f"{store}: {counted(pending, 'track')} not extracted yet. Finish the extraction before the conversion."
        )
    if damages := verify(store):
        raise StoreCorruptError(
            f"{store}: {damages[0].key}: {damages[0].detail}. Run `mgc store repair {store}` first."
        )
    if uncompacted(store):
        raise ConfigError(f"{store}: tracks were taken down. Run `mgc store compact {store}` first.")


@contextmanager
def _unchanged(store: Path) -> Iterator[None]:
    """Raise ConfigError if the records of the store change during a ``with`` block, also in place of an error in it."""

    def records() -> tuple[Any, ...]:
        plan = read_plan(store)
        return list(_record_keys(store, plan)), {name: added_set.records for name, added_set in plan.added.items()}

    before, error = records(), None
    try:
        yield
    except Exception as problem:
        error = problem
    if not store.is_dir() or records() != before:
        raise ConfigError(
            f"{store}: another command changed the store during the conversion. Run the command again."
        ) from error
    if error is not None:
        raise error


def unpack_store(path: Path, store: Path, *, on_progress: Progress = silent) -> None:
    """Write the Zarr store that was sealed into `path`, and compare it with its records, byte for byte.

    Raises
    ------
    StoreCorruptError
        If the file does not match its seal, or the objects do not match the commit records; nothing is written then.
    """
    if store.exists():
        raise ConfigError(f"{store}: already exists. Use another name.")
    if problem := seal_problem(path):
        raise StoreCorruptError(f"{path}: {problem}. Restore the file from a copy.")
    partial = hidden_path(store)
    try:
        with hdf5_errors(path), h5py.File(path, "r", locking=False) as file:
            _unpack(file, partial, on_progress)
        rename_durable(partial, store)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def unpack_records(path: Path, store: Path) -> None:
    """Write the plan, records and tables of a store, without the arrays: enough to compare it with a source.

    Raises
    ------
    StoreFormatError, StoreCorruptError
        If the file cannot be read, or its records do not match their own checksums.
    """
    with hdf5_errors(path), h5py.File(path, "r", locking=False) as file:
        _unpack_records(file, store)


def _write(file: h5py.File, store: Path, reader: StoreReader, progress: Progress, raw: _SurvivingFile) -> None:
    plan = read_plan(store)
    for name, value in json.loads(plan.metadata["zarr.json"])["attributes"].items():
        file.attrs[name] = json.dumps(value) if name in JSON_ATTRIBUTES else value
    specs = track_arrays(reader.recipe)
    for name, recipe in reader.added.items():
        specs += added_arrays(name, recipe)
    total = len(specs) * reader.n_rows
    for number, spec in enumerate(specs):
        for rows in _copy(file, store, spec, reader.n_rows, reader.part_rows):
            progress("seal", number * reader.n_rows + rows, total)
            raw.raise_fault()
    if reader.embeds_genres:
        assert reader.recipe.lyrics is not None
        list(_copy(file, store, layout.genre_spec(reader.recipe.lyrics.hidden_size), len(reader.genres), 1))
    for name, recipe in reader.added.items():
        if isinstance(recipe, TextRecipe):
            list(_copy(file, store, layout.genre_spec(recipe.hidden_size, name), len(reader.genres), 1))
        _write_table(file, f"added/{name}", reader.added_outcomes(name))
    _write_table(file, "tracks", reader.tracks)
    _write_table(file, "genres", genre_table(range(len(reader.genres)), reader.genres))
    for key in _record_keys(store, plan):
        with open_regular(inside(store, key)) as record:
            data = np.frombuffer(record.read(), np.uint8)
        file.create_dataset(f"{RECORDS}/{key}", data=data, fletcher32=True)


def _copy(file: h5py.File, store: Path, spec: ArraySpec, n_rows: int, part_rows: int) -> Iterator[int]:
    """Copy an array; yield the number of copied rows."""
    dataset = file.create_dataset(
        spec.name,
        shape=(n_rows, *spec.tail),
        dtype=spec.dtype,
        chunks=(spec.inner or (min(n_rows, ROW_CHUNK), *spec.tail)) if n_rows else None,
        fillvalue=spec.fill,
        fletcher32=bool(n_rows),
    )
    for axis, name in enumerate(spec.dims):
        dataset.dims[axis].label = name
    dataset.attrs["units"], dataset.attrs["description"] = spec.unit, spec.description
    for first in range(0, n_rows, _BATCH_ROWS):
        values = layout.read_rows(store, spec, range(first, min(first + _BATCH_ROWS, n_rows)), part_rows)
        if spec.sharded:
            for i, start in itertools.product(range(len(values)), range(0, spec.tail[0], spec.inner[1])):
                block = values[i, start : start + spec.inner[1]]
                if not is_fill(block, spec.fill):  # a chunk that is not written reads as fill and takes no space
                    dataset[first + i, start : start + len(block)] = block
        else:
            dataset[first : first + len(values)] = values
        yield first + len(values)


def _check_equal(file: h5py.File, store: Path) -> None:
    """Read back every value of every array, and compare it with zarr."""
    for name, array in zarr.open_group(store, mode="r").arrays():
        for first in range(0, array.shape[0], _BATCH_ROWS):
            written = file[name][first : first + _BATCH_ROWS]
            if np.asarray(array[first : first + _BATCH_ROWS]).tobytes() != written.tobytes():
                raise StoreCorruptError(
                    f"{file.filename}: {name} differs from the written values when read back. Check the disk."
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


def _record_keys(store: Path, plan: Plan) -> Iterator[str]:
    """Yield all keys except those of track arrays, which become datasets, and ``zarr.json``, which the plan gives."""
    yield PLAN_FILE
    for generation in plan.generations:
        yield generation.key
        yield from generation.object_keys
    for name, added in plan.added.items():
        for n, record in enumerate(added.records):
            yield feature_set_key(name, n)
            yield from object_keys(record)
    of_sets = [part_folder(kind, name) for kind in (COMMITS, ROWS) for name in plan.added]
    for folder in (COMMITS, ROWS, DROPS, *of_sets):
        keys = (f"{folder}/{name}" for name in sorted(names_in(store / folder)))
        yield from filter(is_record_key, keys)


def _unpack_records(file: h5py.File, store: Path) -> Plan:
    for name, problem_text in foreign_contents(file):
        raise StoreCorruptError(f"{file.filename}: {printable(name)}: {problem_text}. Do not use this store.")
    store.mkdir(parents=True)
    for folder in FOLDERS:
        (store / folder).mkdir()
    keys: list[str] = []
    file[RECORDS].visititems(lambda key, item: keys.append(key) if isinstance(item, h5py.Dataset) else None)
    for key in keys:
        dataset, target = file[RECORDS][key], inside(store, key)
        if fault := "it is not a list of bytes" if dataset.dtype != np.uint8 else storage_fault(dataset):
            raise StoreCorruptError(f"{file.filename}: {key}: {fault}. Do not use this store.")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(dataset[:].tobytes())
    plan = read_plan(store)
    layout.install_metadata(store, plan.metadata, store / STAGING)
    return plan


def _unpack(file: h5py.File, store: Path, progress: Progress) -> None:
    plan = _unpack_records(file, store)
    for spec in itertools.chain(*(plan.arrays(name) for name in (None, *plan.added))):
        if fault := array_fault(file, spec, plan.n_rows):
            raise StoreCorruptError(f"{file.filename}: {spec.name} {fault}. Do not use this store.")
    parts = [(name, part) for name in (None, *plan.added) for part in sorted(committed(store, name))]
    for done, (feature_set, part) in enumerate(parts, start=1):
        rows = plan.part_range(part)
        arrays = {spec.name: file[spec.name][rows.start : rows.stop] for spec in plan.arrays(feature_set)}
        commits.restore_part(store, part, arrays, feature_set)
        progress("unpack", done, len(parts))
    (store / STAGING).rmdir()
    fsync_tree(store)


def convert(source: Path, target: Path, *, on_progress: Progress = silent) -> None:
    """Convert the Zarr form to the HDF5 form, or back, and compare the two.

    Raises
    ------
    ConfigError, StoreCorruptError
    """
    for path in (source, target):
        refuse_object_store(path, "Copy the store to a local folder with `mgc store copy` first.")
    if source.is_file():
        unpack_store(source, target, on_progress=on_progress)
    elif target.suffix not in SEALED_SUFFIXES:
        raise ConfigError(f"{target}: the HDF5 form of a store ends in {' or '.join(SEALED_SUFFIXES)}")
    else:
        seal_store(source, target, on_progress=on_progress)


@contextmanager
def only_writer(sealed: Path) -> Iterator[Path]:
    """Lock and yield a hidden folder next to an HDF5 store, in which one process at a time builds it.

    The content of the folder survives a kill, for the next process.

    Raises
    ------
    ConfigError
        If another process builds it.
    """
    folder = sealed.with_name(f".{sealed.name}.making")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder) as locked:
        if not locked:
            raise ConfigError(
                f"{sealed}: another extraction is writing it, and an HDF5 store has one writer. Wait for it."
            )
        try:
            yield folder
        finally:
            with contextlib.suppress(OSError):
                folder.rmdir()


class _SurvivingFile(io.FileIO):
    """A new file to write through; it keeps the first error of a write, and later writes do not reach the disk.

    HDF5 frees objects that are still dirty after a failed write, and crashes. This file reports every write as
    successful; its user calls :meth:`raise_fault` regularly and at the end.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "x+")
        self._fault: OSError | None = None
        self._unwritten: dict[int, bytes] = {}
        self._path = path

    def raise_fault(self) -> None:
        """Raise the first error of a write, if there was one."""
        if self._fault is not None:
            raise OSError(self._fault.errno, self._fault.strerror, str(self._path)) from self._fault

    def write(self, data: object, /) -> int:
        """Write all of `data`; after a failed write, keep it in memory."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type]
        start, done = self.tell(), 0
        while self._fault is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self._fault = error
        if done < len(view):
            self._unwritten[start] = bytes(view)
            self.seek(start + len(view))
        return len(view)

    def readinto(self, buffer: object, /) -> int:
        """Read back, including data that never reached the disk."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        start = self.tell()
        n_read = super().readinto(view)
        for offset, data in self._unwritten.items():
            first, last = max(offset, start), min(offset + len(data), start + len(view))
            if first < last:
                view[first - start : last - start] = data[first - offset : last - offset]
                n_read = max(n_read, last - start)
        self.seek(start + n_read)
        return n_read

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size, unless a write has failed."""
        if self._fault is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self._fault = error
        return self.tell() if size is None else size
