"""The three steps that publish new content of a store: a part, a generation of the plan, an added feature set.

1. Build the objects under ``staging/<record>~<digest>`` (same filesystem), with files and folders fsynced.
2. Create the record (such as ``commits/3.json``) exclusively. This decides: of several builders one wins.
3. Roll forward: link the winner's objects to their keys, then remove its staging. Any process may do this, repeatedly.

A process killed at any instant leaves either no record (the content is built again) or a record to roll forward.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..claims import STALE_S
from ..durable import file_sha256, fingerprint, fsync_dir, fsync_tree, inside, seal, unseal, write_durable
from ..errors import ConfigError
from ..format.records import ROWS

STAGING = "staging"


def publish(store: Path, key: str, build: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Build objects and decide for them.

    Parameters
    ----------
    key : of the record, such as ``commits/3.json``; never a key that was used before.
    build : fills a folder with objects at their keys; returns the content of the record besides their list.

    Returns
    -------
    dict
        The record that counts: that of another process, if it was first. It is not rolled forward yet.
    """
    record_file = store / key
    building = _new_folder(store, f"{_label(key)}~{uuid.uuid4().hex}.building")
    try:
        document = build(building)
        record = with_objects(document, describe_objects(building))
        fsync_tree(building)
        staged = staged_folder(store, key, record)
        try:
            building.rename(staged)
        except OSError:
            # Harmless if another process has staged the same bytes, or decided; else nothing may be decided.
            if not staged.is_dir() and not record_file.exists():
                raise
        fsync_dir(store / STAGING)
        draft = store / STAGING / f"{_label(key)}~{uuid.uuid4().hex}.record"
        write_durable(draft, seal(record))
        record_file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(draft, record_file)
        draft.unlink(missing_ok=True)
        fsync_dir(record_file.parent)
    except FileNotFoundError:
        if not record_file.exists():  # else another process decided, and removed our staging
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return unseal(record_file)


def install(store: Path, key: str, record: Mapping[str, Any]) -> None:
    """Link the staged objects of a record to their keys; do nothing if that is done.

    An object at a key that is not the record's own (of a lost or older record) is replaced, by rename. Outcome tables
    and ``status`` come last: they make rows visible, and readers must not see older objects under them.

    Raises
    ------
    StoreCorruptError
        If the record names something outside the store.
    """
    staged = staged_folder(store, key, record)
    if not staged.is_dir():
        return
    folders = set()
    for item in sorted(record["objects"], key=_makes_rows_visible):
        target = inside(store, item["key"])
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process is done and has removed the staging
            _link_over(staged / item["key"], target, staged.with_name(f"{_label(key)}~{uuid.uuid4().hex}.link"))
        folders.update([target.parent, *(p for p in target.parent.parents if p.is_relative_to(store))])
    for folder in sorted(folders, reverse=True):
        fsync_dir(folder)


def sweep(store: Path, key: str) -> None:
    """Remove all staging of a record."""
    for leftover in staged(store, f"{_label(key)}~*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def staged(store: Path, pattern: str) -> list[Path]:
    """Return the entries of ``staging/`` that match `pattern`; any reader may remove an empty ``staging/``."""
    try:
        names = os.listdir(store / STAGING)
    except FileNotFoundError:
        return []
    return [store / STAGING / name for name in fnmatch.filter(names, pattern)]


def remove_empty_staging(store: Path) -> None:
    """Remove ``staging/`` if it is empty; a process that needs it creates it again."""
    with contextlib.suppress(OSError):
        (store / STAGING).rmdir()


def staged_records(store: Path) -> set[str]:
    """Return the keys of the records that have staging, decided or not."""
    return {entry.name.partition("~")[0].replace("+", "/") + ".json" for entry in staged(store, "*~*")}


def refuse_busy(store: Path) -> None:
    """Refuse work that must not run during an extraction.

    Raises
    ------
    ConfigError
        If a claim of a part (:mod:`mgc.cache.claims`) is not stale.
    """
    now = time.time()
    for file in staged(store, "*~claim"):
        with contextlib.suppress(FileNotFoundError):
            if now - file.stat().st_mtime < STALE_S:
                raise ConfigError(
                    f"{store}: an extraction is at work on it, or was killed within the last two minutes; wait for it"
                )


def staged_folder(store: Path, key: str, record: Mapping[str, Any]) -> Path:
    """Return the folder of the objects of a record until they are installed."""
    return inside(store, f"{STAGING}/{_label(key)}~{record['digest']}")


def describe_objects(folder: Path, keys: Iterable[str] | None = None) -> list[dict[str, Any]]:
    """Return key, size and sha256 of files below `folder`, by default of all, as records list them: sorted by key."""
    if keys is None:
        keys = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
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
        os.link(source, target)
    except FileExistsError:
        if source.samefile(target):
            return
        os.link(source, draft)
        draft.replace(target)
        draft.unlink(missing_ok=True)  # rename(2) between links of one file does nothing
