"""Copy a store in its Zarr form between local folders and object stores.

Every object is compared with the sha256 in its record before it is written. Objects come before the record that lists
them, and ``plan.json`` comes last: readers do not take an interrupted copy for a store, and a second run skips every
part whose record is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from ..durable import inside, make_folders, names_in, open_regular, replace_file
from ..errors import ConfigError, StoreCorruptError, StoreError, StoreNotFoundError
from ..format.documents import is_record_key
from ..format.plan import PLAN_FILE, SEALED_SUFFIXES, Plan, feature_set_keys, read_plan
from ..format.records import STAGING, commit_key, committed, read_commit, record_files
from ..messages import counted, size
from ..object_folder import ObjectFolder, in_threads
from ..places import ObjectPath, place
from ..reading.mirror import Mirror
from ..steps import Progress, silent
from ..writing.commits import matches_plan, roll_forward, uninstalled_parts
from ..writing.takedowns import DROPS

_LOG = "log"


@dataclass(frozen=True, kw_only=True)
class StoreCopy:
    """Result of a copy: objects and bytes that were written, and objects that were there; and remarks."""

    store: str
    made_from: str
    objects: int
    bytes: int
    skipped: int
    remarks: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Batch:
    """Objects, by key with size and sha256, and then the records that list them, the newest last."""

    objects: Mapping[str, tuple[int, str]]
    records: list[str]


class _Files(Protocol):
    """Files below a place, by key."""

    def sizes(self) -> dict[str, int]:
        """Return the size of every file."""

    def get(self, key: str) -> bytes:
        """Return the content of a file."""

    def put(self, key: str, data: bytes) -> None:
        """Write a file."""


class _LocalFiles:
    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> dict[str, int]:
        files = [Path(folder, name) for folder, _, names in os.walk(self._root) for name in names if name[0] != "."]
        return {file.relative_to(self._root).as_posix(): file.stat().st_size for file in files}

    def get(self, key: str) -> bytes:
        with open_regular(inside(self._root, key)) as file:
            return file.read()

    def put(self, key: str, data: bytes) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        make_folders(self._root, key)
        replace_file(inside(self._root, key), data)


class _RemoteFiles:
    def __init__(self, folder: ObjectFolder) -> None:
        self.get, self.put, self._folder = folder.get, folder.put, folder

    def sizes(self) -> dict[str, int]:
        return {key: listed.size for key, listed in self._folder.listing().items()}


def copy_store(source: Path, target: Path, *, on_progress: Progress = silent) -> StoreCopy:
    """Copy a store, or continue a copy; an older copy is updated.

    Raises
    ------
    ConfigError
        If `target` is another store or holds other files, or one of the two is a sealed store.
    StoreCorruptError
        If an object of `source` does not match its record.
    """
    source, target = place(source), place(target)
    _refuse(source, target)
    if isinstance(source, ObjectPath):
        mirror = Mirror.open(source)
        mirror.fetch(key for key in mirror.listing if "/c/" not in key or is_record_key(key))
        with mirror.errors():
            return _copy(mirror.folder, source, _RemoteFiles(mirror.objects), target, on_progress)
    with contextlib.suppress(OSError):
        roll_forward(source)
    return _copy(source, source, _LocalFiles(source), target, on_progress)


def _refuse(source: Path, target: Path) -> None:
    if source.is_file() or target.suffix in SEALED_SUFFIXES:
        raise ConfigError(f"{source}: this command copies Zarr stores. Copy a sealed store as any other file.")
    one, other = (source, target) if isinstance(source, ObjectPath) else (source.resolve(), target.resolve())
    if one == other or one in other.parents or other in one.parents:
        raise ConfigError(f"{target}: the same place as {source}, or inside of it. Give another target.")


def _copy(root: Path, source: Path, origin: _Files, target: Path, progress: Progress) -> StoreCopy:
    """Copy from `origin`, whose records are also below the local folder `root`."""
    plan = read_plan(root)
    batches, single = _batches(root, plan), _single_files(root, plan)
    files: _Files = _RemoteFiles(ObjectFolder(target)) if isinstance(target, ObjectPath) else _LocalFiles(target)
    reads_back = not (isinstance(target, ObjectPath) and target.parts[0] == "s3:")  # S3 compares the sha256 itself
    existing = files.sizes()
    keys = {key for batch in batches for key in (*batch.objects, *batch.records)} | {*single, PLAN_FILE}
    remarks = _check_target(existing, keys, files, root, target)
    records = _LocalFiles(root)

    def is_there(key: str) -> bool:
        data = records.get(key)
        return existing.get(key) == len(data) and files.get(key) == data

    def put(key: str, data: bytes) -> int:
        files.put(key, data)
        if reads_back and files.get(key) != data:
            raise StoreError(f"{target}/{key}: was read back with other bytes. Copy again.")
        return len(data)

    def copy_batch(batch: _Batch) -> tuple[int, int, int]:
        complete = all(existing.get(key) == n for key, (n, _) in batch.objects.items())
        if complete and all(map(is_there, batch.records)):
            return 0, 0, len(batch.objects) + len(batch.records)
        n_bytes = 0
        for key, (_, digest) in batch.objects.items():
            try:
                data = origin.get(key)
            except (FileNotFoundError, StoreNotFoundError) as error:
                raise StoreCorruptError(f"{source}/{key}: missing, but a record lists it. {_ADVICE}") from error
            if sha256(data).hexdigest() != digest:
                raise StoreCorruptError(f"{source}/{key}: its sha256 differs from its record. {_ADVICE}")
            n_bytes += put(key, data)
        for key in batch.records:
            n_bytes += put(key, records.get(key))
        return len(batch.objects) + len(batch.records), n_bytes, 0

    written = n_bytes = skipped = 0
    for done, (n, n_batch, n_there) in enumerate(in_threads(copy_batch, batches), start=1):
        written, n_bytes, skipped = written + n, n_bytes + n_batch, skipped + n_there
        progress("copy", done, len(batches), f"{size(n_bytes)} written")
    for key in (*single, PLAN_FILE):
        if is_there(key):
            skipped += 1
        else:
            written, n_bytes = written + 1, n_bytes + put(key, records.get(key))
    return StoreCopy(
        store=str(target), made_from=str(source), objects=written, bytes=n_bytes, skipped=skipped, remarks=remarks
    )


_ADVICE = "Run `mgc store verify --full`, and repair the store first."


def _check_target(existing: Mapping[str, int], keys: set[str], files: _Files, root: Path, target: Path) -> list[str]:
    """Refuse a target with another store or with other files; return remarks on files that are not in the source."""
    is_copy = PLAN_FILE in existing
    if is_copy and files.get(PLAN_FILE) != (root / PLAN_FILE).read_bytes():
        raise ConfigError(f"{target}: another store. Give a new target.")
    others = sorted(existing.keys() - keys)
    if others and (not is_copy or any(map(is_record_key, others)) or any(map(_is_staged, others))):
        raise ConfigError(
            f"{target}: holds {counted(len(others), 'file')} that the source does not have, such as {others[0]!r}. "
            "Give a new target."
        )
    if not others:
        return []
    return [f"{target}: {counted(len(others), 'file')} not in the source. `mgc store verify` lists them."]


def _is_staged(key: str) -> bool:
    return key.startswith(f"{STAGING}/")


def _batches(root: Path, plan: Plan) -> list[_Batch]:
    """Return the parts, then the generations and added feature sets."""
    batches = []
    for feature_set in (None, *plan.added):
        hidden = uninstalled_parts(root, feature_set)
        older: dict[int, list[int]] = {}
        for part, n in record_files(root, feature_set):
            older.setdefault(part, []).append(n)
        for part, newest in sorted(committed(root, feature_set).items()):
            record = read_commit(root, part, feature_set)
            if part in hidden or record is None or not matches_plan(record, part, plan, feature_set):
                continue
            numbers = [n for n in sorted(older[part]) if n <= newest]
            batches.append(_Batch(_objects(record), [commit_key(part, n, feature_set) for n in numbers]))
    batches += [_Batch(_objects(generation.record), [generation.key]) for generation in plan.generations]
    for name, added in plan.added.items():
        objects = {key: entry for record in added.records for key, entry in _objects(record).items()}
        batches.append(_Batch(objects, feature_set_keys(root, name)))
    return batches


def _objects(record: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    return {item["key"]: (item["size"], item["sha256"]) for item in record["objects"]}


def _single_files(root: Path, plan: Plan) -> list[str]:
    """Return keys of takedown records, logs and metadata, in the order in which they are copied."""
    drops = sorted(key for name in names_in(root / DROPS) if is_record_key(key := f"{DROPS}/{name}"))
    logs = sorted(f"{_LOG}/{name}" for name in names_in(root / _LOG) if (root / _LOG / name).is_file())
    metadata = sorted(plan.metadata, key=lambda key: (key == "zarr.json", key))
    return [*drops, *logs, *(key for key in metadata if (root / key).is_file())]
