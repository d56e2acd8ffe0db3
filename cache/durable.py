"""Files that survive a crash: fsynced writes, atomic publication, JSON that carries its own sha256."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StoreCorruptError


def fsync_dir(folder: Path) -> None:
    """Make the names in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and `folder` itself, durable."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            handle = os.open(Path(parent, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        fsync_dir(Path(parent))


def inside(store: Path, key: str) -> Path:
    """Path of an object of a store; a record that somebody else made may not lead out of it, by ``..`` or by a link.

    Raises
    ------
    StoreCorruptError
        If it does.
    """
    path = store / key
    if path.name in ("", "..") or not path.parent.resolve().is_relative_to(store.resolve()):
        raise StoreCorruptError(f"{store}: a record names {key!r}, outside the store; do not use this store")
    return path


def write_durable(path: Path, data: bytes) -> None:
    """Write a new file and fsync it; the name is durable once the folder is fsynced too."""
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)  # write(2) and fsync(2) do not know it
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` in one step: a reader, or a crash, sees the old content or the new, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    draft.unlink(missing_ok=True)
    try:
        write_durable(draft, data)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        error.filename = str(path)
        raise
    fsync_dir(path.parent)


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A name to write a large file under; it becomes `path` in one step at the end, and is gone after an error."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    draft.unlink(missing_ok=True)
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    fsync_dir(path.parent)


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(document: dict[str, Any]) -> bytes:
    """JSON text of `document` with its own sha256 (over the canonical form of the rest) as last key."""
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    return (json.dumps({**document, "sha256": digest}, indent=1, ensure_ascii=False) + "\n").encode()


def unseal(path: Path) -> dict[str, Any]:
    """Read a document written by :func:`seal`.

    Raises
    ------
    StoreCorruptError
        If the text is no JSON object or does not match its own sha256.
    """
    try:
        document = json.loads(path.read_bytes())
        digest = document.pop("sha256")
    except (ValueError, KeyError, AttributeError) as error:
        raise StoreCorruptError(f"{path}: not a sealed JSON document ({error}); restore it from a copy") from error
    if hashlib.sha256(canonical_json(document)).hexdigest() != digest:
        raise StoreCorruptError(f"{path}: does not match its own sha256; it was altered; restore it from a copy")
    assert isinstance(document, dict)
    return document


def finite_or_none(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None


def canonical_json(data: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces, UTF-8; what every hash of ours is taken over."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def fingerprint(data: Any) -> str:
    """sha256 (hex) of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(data)).hexdigest()
