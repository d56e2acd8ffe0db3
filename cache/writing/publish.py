"""The three steps that publish new content of a store: a part, a generation of the plan, an added feature set.

1. Build the objects and a draft of their record in ``staging/<record>~<digest>/``, with files and folders fsynced.
2. Link the draft to the record's key (such as ``commits/3.json``). This decides: of several builders one wins.
3. Roll forward: link the objects to their keys, then remove the folder. Any process may do this, repeatedly.

A process killed at any instant leaves either no record (the content is built again) or a record to roll forward. One
that is suspended at any instant, and resumed after others have decided, cleared up or repaired, can do no harm: a
folder is removed by one rename, and the draft, the objects and temporary links are all inside it.
"""

from __future__ import annotations

import contextlib
import shutil
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
    write_durable,
)
from ..errors import ConfigError, StoreError
from ..format.documents import read_record
from ..format.records import ROWS

STAGING = "staging"
_DRAFT = "record.draft"
_REMOVED = "removed~"
_ATTEMPTS = 3


def publish(
    store: Path, key: str, content: Mapping[str, Any], objects: Iterable[tuple[str, bytes | memoryview]]
) -> dict[str, Any]:
    """Build objects and decide for them.

    Parameters
    ----------
    key : of the record, such as ``commits/3.json``; never a key that was used before.
    content : of the record, besides the list of its objects.
    objects : their keys and bytes; the record lists these, whatever becomes of the files.

    Returns
    -------
    dict
        The record that counts: that of another process, if it was first. It is not rolled forward yet.

    Raises
    ------
    StoreError
        If the staging was removed under this process, and no other has decided.
    """
    record_file = store / key
    building = _new_folder(store, f"{_label(key)}~{uuid.uuid4().hex}.building")
    try:
        record = with_objects(content, write_objects(building, objects))
        write_durable(building / _DRAFT, seal(record))
        fsync_tree(building)
        make_folders(store, key)
        _decide(store, key, record, building)
    except FileNotFoundError:
        pass  # another process has decided, and removed our staging; else there is no record
    finally:
        shutil.rmtree(building, ignore_errors=True)
    try:
        fsync_dir(record_file.parent)
        return read_record(store, key)
    except FileNotFoundError as error:
        raise StoreError(
            f"{store}: the staging of {key} was removed while it was built (by `mgc store repair`, `mgc store "
            "drop`, or by hand), so nothing was committed; give the same command again"
        ) from error


def _decide(store: Path, key: str, record: Mapping[str, Any], building: Path) -> None:
    """Give the built folder its final name, and link the draft in it to the record's key.

    Where another process has staged the same bytes, its folder serves. Only the draft inside the folder is linked: so
    no record can be decided whose folder was taken away.
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
            if _is_whole(folder, record):
                link(folder / _DRAFT, store / key)
                return
        except FileExistsError:
            return
        except FileNotFoundError:
            if (store / key).exists() or not building.exists():
                raise
        remove_staging(folder)  # of a writer that is gone, and not whole
    raise FileNotFoundError(folder)


def _is_whole(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a staged folder holds all objects of a record, by name and size, and the draft."""
    sizes = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return sizes.pop(_DRAFT, None) is not None and sizes == {item["key"]: item["size"] for item in record["objects"]}


def write_objects(folder: Path, objects: Iterable[tuple[str, bytes | memoryview]]) -> list[dict[str, Any]]:
    """Write objects below a folder; return key, size and sha256 of each, of the bytes as given, sorted by key."""
    described = []
    for key, data in objects:
        make_folders(folder, key)
        with (folder / key).open("xb") as file:
            file.write(data)
        described.append({"key": key, "size": len(data), "sha256": sha256(data).hexdigest()})
    return sorted(described, key=lambda item: str(item["key"]))


def install(store: Path, key: str, record: Mapping[str, Any]) -> None:
    """Link the staged objects of a record to their keys; do nothing if that is done.

    An object at a key that is not the record's own (of a lost or older record) is replaced, by rename. Outcome tables
    and ``status`` come last: they make rows visible, and readers must not see older objects under them.

    Raises
    ------
    StoreCorruptError
        If the record names something outside the store, or the staging has a symbolic link.
    """
    staged = staged_folder(store, key, record)
    if not staged.is_dir():
        return
    folders = set()
    try:
        fsync_dir((store / key).parent)  # the process that decided may have been killed before it did this
    except FileNotFoundError:
        return  # its features were removed meanwhile
    for item in sorted(record["objects"], key=_makes_rows_visible):
        target = inside(store, item["key"])
        with contextlib.suppress(FileNotFoundError):  # another process is done and has removed the staging
            make_folders(store, item["key"])
            _link_over(inside(staged, item["key"]), target, staged / f"{uuid.uuid4().hex}.link")
            folders.update([target.parent, *(p for p in target.parent.parents if p.is_relative_to(store))])
    for folder in sorted(folders, reverse=True):
        with contextlib.suppress(FileNotFoundError):
            fsync_dir(folder)


def sweep(store: Path, key: str) -> None:
    """Remove all staging of a record."""
    for leftover in staged(store, f"{_label(key)}~*"):
        remove_staging(leftover)


def remove_staging(entry: Path) -> None:
    """Remove an entry of ``staging/``; a folder by one rename first, so that no process uses a part of it."""
    if not entry.is_dir():
        entry.unlink(missing_ok=True)
        return
    removed = entry.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
    with contextlib.suppress(FileNotFoundError):
        entry.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def staged(store: Path, pattern: str) -> list[Path]:
    """Return the entries of ``staging/`` that match `pattern`; any reader may remove an empty ``staging/``."""
    return [store / STAGING / name for name in names_in(store / STAGING, pattern)]


def remove_empty_staging(store: Path) -> None:
    """Remove ``staging/`` if it is empty; a process that needs it creates it again."""
    for leftover in staged(store, f"{_REMOVED}*"):  # of a process that was killed while it removed
        shutil.rmtree(leftover, ignore_errors=True)
    with contextlib.suppress(OSError):
        (store / STAGING).rmdir()


def staged_records(store: Path) -> set[str]:
    """Return the keys of the records that have staging, decided or not."""
    labels = {entry.name.partition("~")[0] for entry in staged(store, "*~*")} - {_REMOVED.rstrip("~")}
    return {label.replace("+", "/") + ".json" for label in labels}


def refuse_busy(store: Path) -> None:
    """Refuse work that must not run during an extraction.

    Raises
    ------
    ConfigError
        If a claim of a part (:mod:`mgc.cache.claims`) is not stale.
    """
    claims = staged(store, "*~claim")
    with contextlib.suppress(FileNotFoundError):
        now = file_system_time(store / STAGING) if claims else 0.0
        for file in claims:
            if now - file.stat().st_mtime < STALE_S:
                raise ConfigError(
                    f"{store}: an extraction is at work on it, or was killed within the last two minutes; wait for it"
                )


def staged_folder(store: Path, key: str, record: Mapping[str, Any]) -> Path:
    """Return the folder of the objects of a record until they are installed."""
    return inside(store, f"{STAGING}/{_label(key)}~{record['digest']}")


def describe_objects(folder: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return key, size and sha256 of files below `folder`, as records list them: sorted by key."""
    files = {key: folder / key for key in sorted(keys)}
    return [{"key": key, "size": file.stat().st_size, "sha256": file_sha256(file)} for key, file in files.items()]


def with_objects(document: Mapping[str, Any], objects: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a record: its other content, then the digest and the list of its objects."""
    return {**document, "digest": fingerprint(objects), "objects": objects}


def _new_folder(store: Path, name: str) -> Path:
    """Create a folder in ``staging/``, which any reader may remove whenever it is empty."""
    while True:
        with contextlib.suppress(FileExistsError):  # not exist_ok, which looks again and may not find it
            (store / STAGING).mkdir()
        with contextlib.suppress(FileNotFoundError):
            (store / STAGING / name).mkdir()
            return store / STAGING / name


def _makes_rows_visible(item: Mapping[str, Any]) -> bool:
    return str(item["key"]).startswith((f"{ROWS}/", "status"))


def _label(key: str) -> str:
    return key.removesuffix(".json").replace("/", "+")


def _link_over(source: Path, target: Path, draft: Path) -> None:
    try:
        link(source, target)
    except FileExistsError:
        if source.samefile(target):
            return
        link(source, draft)
        draft.replace(target)
        draft.unlink(missing_ok=True)  # rename(2) between links of one file does nothing
