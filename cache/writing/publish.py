"""The three steps by which anything becomes part of a store: a part, a generation of the plan.

1. Build the objects under ``staging/<record>~<digest>`` (same filesystem), files and folders fsynced.
2. Create the record (``commits/3.json``, say) exclusively. That is the decision: one winner, whoever else built it.
3. Roll forward, idempotently and by anyone: link the winner's objects to their keys, remove what is staged.

A process killed at any instant leaves either no record (it is built again) or a record that rolls forward.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..durable import file_sha256, fingerprint, fsync_dir, fsync_tree, inside, seal, unseal, write_durable
from ..errors import ConfigError

STAGING, BUSY_S = "staging", 120.0


def publish(store: Path, key: str, build: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Build objects and decide for them.

    Parameters
    ----------
    key : of the record, such as ``commits/3.json``; never one that was used before.
    build : fills a folder with objects at their keys; returns what the record says beside their list.

    Returns
    -------
    dict
        The record that counts: another process's if that one came first. It is not rolled forward yet.
    """
    record_file = store / key
    building = _new_folder(store, f"{_label(key)}~{uuid.uuid4().hex}.building")
    try:
        document = dict(build(building))
        objects = describe_objects(building)
        record = {**document, "digest": fingerprint(objects), "objects": objects}
        fsync_tree(building)
        staged = staged_folder(store, key, record)
        try:
            building.rename(staged)
        except OSError:
            # Fine where someone else has staged the same bytes, or decided; else nothing may be decided.
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
        if not record_file.exists():  # else another process decided and swept our staging away
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return unseal(record_file)


def install(store: Path, key: str, record: Mapping[str, Any]) -> None:
    """Link a record's objects to their keys, where they are still staged; does nothing when done.

    What lies at a key already and is not the winner's (an object of a lost or older record) is replaced, by rename.
    What says that a row is there comes last: one who may only read does not take an older object's rows for it.

    Raises
    ------
    StoreCorruptError
        If the record names something outside the store.
    """
    staged = staged_folder(store, key, record)
    if not staged.is_dir():
        return
    folders = set()
    for item in sorted(record["objects"], key=_says_what_is_there):
        target = inside(store, item["key"])
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process is done and has swept the staging away
            _link_over(staged / item["key"], target, staged.with_name(f"{_label(key)}~{uuid.uuid4().hex}.link"))
        folders.update([target.parent, *(p for p in target.parent.parents if p.is_relative_to(store))])
    for folder in sorted(folders, reverse=True):
        fsync_dir(folder)


def sweep(store: Path, key: str) -> None:
    """Remove everything that is staged for a record."""
    for leftover in staged(store, f"{_label(key)}~*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def staged(store: Path, pattern: str) -> list[Path]:
    """What lies in ``staging/``, by name; nothing where that is gone, as any reader may have it at any moment."""
    try:
        names = os.listdir(store / STAGING)
    except FileNotFoundError:
        return []
    return [store / STAGING / name for name in fnmatch.filter(names, pattern)]


def remove_empty_staging(store: Path) -> None:
    """Remove ``staging/`` if nothing is in it; whoever needs it makes it again."""
    with contextlib.suppress(OSError):
        (store / STAGING).rmdir()


def staged_records(store: Path) -> set[str]:
    """Keys of the records that something is staged for, decided or not."""
    return {one.name.partition("~")[0].replace("+", "/") + ".json" for one in staged(store, "*~*")}


def refuse_busy(store: Path) -> None:
    """Stop what must not run beside an extraction.

    Raises
    ------
    ConfigError
        If somebody claimed a part within the last two minutes; a claim is renewed every 20 s.
    """
    now = time.time()
    for file in staged(store, "*~claim"):
        with contextlib.suppress(FileNotFoundError):
            if now - file.stat().st_mtime < BUSY_S:
                raise ConfigError(
                    f"{store}: an extraction is at work on it, or was killed within the last two minutes; wait for it"
                )


def staged_folder(store: Path, key: str, record: Mapping[str, Any]) -> Path:
    """Where the objects of a decided record lie until they are installed."""
    return inside(store, f"{STAGING}/{_label(key)}~{record['digest']}")


def describe_objects(folder: Path) -> list[dict[str, Any]]:
    """Key, size and sha256 of every file below `folder`, sorted by key."""
    files = sorted((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*") if file.is_file())
    return [{"key": key, "size": file.stat().st_size, "sha256": file_sha256(file)} for key, file in files]


def _new_folder(store: Path, name: str) -> Path:
    """A folder in ``staging/``, which any reader may remove whenever it is empty."""
    while True:
        with contextlib.suppress(FileExistsError):  # not exist_ok, which looks a second time and may find it gone
            (store / STAGING).mkdir()
        with contextlib.suppress(FileNotFoundError):
            (store / STAGING / name).mkdir()
            return store / STAGING / name


def _says_what_is_there(item: Mapping[str, Any]) -> bool:
    return str(item["key"]).startswith(("rows/", "status"))


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
