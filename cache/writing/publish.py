"""Publish new content of a store (a part, a generation of the plan, an added feature set) in three steps.

1. Build the objects and a draft of their record in ``staging/<record>~<digest>/``; fsync files and folders.
2. Link the draft to the record's key (such as ``commits/3.json``). This commits: of several builders one wins.
3. Roll forward: link the objects to their keys, then remove the folder. Any process may do this, repeatedly.

A process killed at any point leaves either no record, so that the content is built again, or a record to roll forward.
For a store in an object store, :mod:`mgc.cache.writing.remote` does the same with objects.

A process may also be suspended at any point and resume after others have committed, swept or repaired. It does no harm:
its draft, objects and temporary links are all inside one folder, which is removed by one rename.
"""

from __future__ import annotations

import contextlib
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..claims import STALE_S, file_system_time
from ..durable import (
    file_sha256,
    fingerprint,
    fsync_dir,
    fsync_tree,
    inside,
    link,
    make_folders,
    names_in,
    seal,
    stale_as_missing,
    write_durable,
)
from ..errors import ConfigError, StoreError
from ..format.documents import read_record
from ..format.records import STAGING, labels_to_keys, makes_rows_visible, staged_key, staging_label
from .remote import PROBE, remote_of

_DRAFT = "record.draft"
_REMOVED = "removed~"
_ATTEMPTS = 3
_CACHE_S = 0.01
"""Interval between attempts to use a folder that another node has removed."""


def publish(
    store: Path, key: str, content: Mapping[str, Any], objects: Iterable[tuple[str, bytes | memoryview | list[Any]]]
) -> dict[str, Any]:
    """Stage objects and commit their record (steps 1 and 2).

    Parameters
    ----------
    key : key of the record, such as ``commits/3.json``; a key must never be used twice.
    content : content of the record, without the list of its objects.
    objects : keys and bytes, which may be a list of pieces; the record lists the hashes of these bytes.

    Returns
    -------
    dict
        The valid record, not yet rolled forward. If another process committed first, its record.

    Raises
    ------
    StoreError
        If the staging folder was removed and no process has committed the record.
    """
    record_file = store / key
    building = _new_folder(store, f"{staging_label(key)}~{uuid.uuid4().hex}.building")
    try:
        with stale_as_missing():
            record = with_objects(content, write_objects(building, objects))
            if (remote := remote_of(store)) is not None:
                return remote.commit(key, record, building)
            write_durable(building / _DRAFT, seal(record))
            fsync_tree(building)
            make_folders(store, key)
            _commit(store, key, record, building)
    except FileNotFoundError:
        pass  # another process has committed and swept our staging; else no record exists, which is checked below
    finally:
        shutil.rmtree(building, ignore_errors=True)
    try:
        with stale_as_missing():
            fsync_dir(record_file.parent)
            return read_record(store, key)
    except FileNotFoundError as error:
        raise StoreError(
            f"the staging folder of {key} was removed while it was built: {store}. Nothing was committed. `mgc store "
            "repair` or `mgc store drop` may have removed it. Run the same command again."
        ) from error


def _commit(store: Path, key: str, record: Mapping[str, Any], building: Path) -> None:
    """Rename the built folder to its final name, and link the draft in it to the record's key.

    If another process has staged the same bytes, its folder is used. The draft is linked from inside the folder, so no
    record is committed after its folder was removed.
    """
    folder = staged_folder(store, key, record)
    for _ in range(_ATTEMPTS):
        try:
            building.rename(folder)
        except OSError:
            if not folder.is_dir() and not (store / key).exists():
                raise
        fsync_dir(store / STAGING)
        try:
            if _is_complete(folder, record):
                link(folder / _DRAFT, store / key)
                return
        except FileExistsError:
            return
        except FileNotFoundError:
            if (store / key).exists() or not building.exists():
                raise
        remove_staging(folder)  # incomplete, left by a killed process
    raise FileNotFoundError(folder)


def _is_complete(folder: Path, record: Mapping[str, Any]) -> bool:
    """Return whether a staged folder holds the draft and all objects of a record, by name and size."""
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return sizes.pop(_DRAFT, None) is not None and sizes == {item["key"]: item["size"] for item in record["objects"]}


def write_objects(folder: Path, objects: Iterable[tuple[str, bytes | memoryview | list[Any]]]) -> list[dict[str, Any]]:
    """Write objects below a folder; return key, size and sha256 of the given bytes, sorted by key."""
    entries = []
    for key, data in objects:
        make_folders(folder, key)
        digest, size = sha256(), 0
        with (folder / key).open("xb") as file:
            for piece in data if isinstance(data, list) else [data]:
                size += file.write(piece)
                digest.update(piece)
        entries.append({"key": key, "size": size, "sha256": digest.hexdigest()})
    return sorted(entries, key=lambda item: str(item["key"]))


def install(store: Path, key: str, record: Mapping[str, Any]) -> None:
    """Link the staged objects of a record to their keys; idempotent.

    An object of a lost or older record at the same key is replaced by rename. Outcome tables and ``status`` come last,
    because they make rows visible: readers must not see old objects under new outcomes.

    Raises
    ------
    StoreCorruptError
        If the record names a path outside the store, or the staging contains a symbolic link.
    """
    if (remote := remote_of(store)) is not None:
        remote.install(key, record)
    staged = staged_folder(store, key, record)
    if not staged.is_dir():
        return
    folders = set()
    try:
        fsync_dir((store / key).parent)  # the committing process may have been killed before its fsync
    except FileNotFoundError:
        return  # the feature set was removed meanwhile
    for item in sorted(record["objects"], key=makes_rows_visible):
        target = inside(store, item["key"])
        with contextlib.suppress(FileNotFoundError), stale_as_missing():  # another process has swept the staging
            make_folders(store, item["key"])
            _link_over(inside(staged, item["key"]), target, staged / f"{uuid.uuid4().hex}.link")
            folders.update([target.parent, *(p for p in target.parent.parents if p.is_relative_to(store))])
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(FileNotFoundError), stale_as_missing():
            fsync_dir(folder)


def sweep(store: Path, key: str) -> None:
    """Remove all staging entries of a record."""
    if (remote := remote_of(store)) is not None:
        remote.sweep(key)
    for leftover in staged(store, f"{staging_label(key)}~*"):
        remove_staging(leftover)


def remove_staging(entry: Path) -> None:
    """Remove an entry of ``staging/``; rename a folder first, so that no process sees it half removed."""
    if not entry.is_dir():
        entry.unlink(missing_ok=True)
        return
    removed = entry.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError), stale_as_missing():
        entry.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def staged(store: Path, pattern: str) -> list[Path]:
    """Return the entries of ``staging/`` that match `pattern`; none if a reader has removed an empty ``staging/``."""
    return [store / STAGING / name for name in names_in(store / STAGING, pattern)]


def remove_object(store: Path, key: str) -> None:
    """Remove an installed object."""
    if (remote := remote_of(store)) is not None:
        remote.objects.delete([key])
    inside(store, key).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        fsync_dir((store / key).parent)


def remove_empty_staging(store: Path) -> None:
    """Remove ``staging/`` if it is empty; a process that needs it creates it again."""
    if (remote := remote_of(store)) is not None:
        remote.sweep(PROBE)
    for leftover in staged(store, f"{_REMOVED}*"):  # of a process that was killed in remove_staging
        shutil.rmtree(leftover, ignore_errors=True)
    with contextlib.suppress(OSError):
        (store / STAGING).rmdir()


def staged_records(store: Path) -> set[str]:
    """Return the keys of the records that have staging, committed or not."""
    if (remote := remote_of(store)) is not None:
        return remote.staged_records()
    return labels_to_keys(entry.name for entry in staged(store, "*~*") if not entry.name.startswith(_REMOVED))


def refuse_busy(store: Path) -> None:
    """Raise ConfigError if an extraction is running: a claim of a part (:mod:`mgc.cache.claims`) is not stale."""
    claims = staged(store, "*~claim")
    with contextlib.suppress(FileNotFoundError):
        now = file_system_time(store / STAGING) if claims else 0.0
        for file in claims:
            if now - file.stat().st_mtime < STALE_S:
                raise ConfigError(
                    f"an extraction is running, or was killed less than two minutes ago: {store}. Wait, then retry."
                )


def staged_folder(store: Path, key: str, record: Mapping[str, Any]) -> Path:
    """Return the folder of the objects of a record until they are installed."""
    return inside(store, staged_key(key, record))


def describe_objects(folder: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return key, size and sha256 of files below `folder`, as records list them: sorted by key."""
    files = {key: folder / key for key in sorted(keys)}
    return [{"key": key, "size": file.stat().st_size, "sha256": file_sha256(file)} for key, file in files.items()]


def with_objects(document: Mapping[str, Any], objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a record: its other content, then the digest and the list of its objects."""
    return {**document, "digest": fingerprint(objects), "objects": objects}


def _new_folder(store: Path, name: str) -> Path:
    """Create a folder in ``staging/``, which any reader may remove while it is empty."""
    while True:
        with contextlib.suppress(FileExistsError):  # exist_ok would stat the folder, which may be gone by then
            (store / STAGING).mkdir()
        with contextlib.suppress(FileNotFoundError), stale_as_missing():
            (store / STAGING / name).mkdir()
            return store / STAGING / name
        time.sleep(_CACHE_S)  # this node may still have the folder in its cache


def _link_over(source: Path, target: Path, draft: Path) -> None:
    try:
        link(source, target)
    except FileExistsError:
        if source.samefile(target):
            return
        link(source, draft)
        draft.replace(target)
        draft.unlink(missing_ok=True)  # rename(2) between links of one file does nothing
