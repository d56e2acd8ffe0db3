"""Files that survive a crash: fsynced writes, atomic publication, JSON that carries its own sha256."""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import io
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import ConfigError, StoreCorruptError
from .places import refuse_object_store

LINK = (
    "a symbolic link, which may lead outside the store; a store holds no links. Copy a store that has them (such as a "
    "snapshot in the Hugging Face cache) with `cp -rL`, if you trust its files, and use the copy"
)
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def fsync_dir(folder: Path) -> None:
    """Make the names in `folder` durable."""
    _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)


def names_in(folder: Path, pattern: str | None = None) -> list[str]:
    """Return the names in a folder, in any order; an empty list if it is missing or was removed meanwhile.

    Parameters
    ----------
    pattern : shell pattern that the names must match.
    """
    try:
        with stale_as_missing():
            names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return names if pattern is None else fnmatch.filter(names, pattern)


def bytes_below(path: Path) -> int:
    """Return the total size of the files at and below a path; a file that is removed meanwhile does not count."""
    size = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += Path(folder, name).stat().st_size
    return size if path.is_dir() else path.stat().st_size


def fsync_tree(folder: Path) -> None:
    """Make every file and folder below `folder`, and `folder` itself, durable."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            _fsync(Path(parent, name), os.O_RDONLY)
        fsync_dir(Path(parent))


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folders(root: Path, key: str) -> None:
    """Create the folders between `root` and an object; `root` itself must exist and is never created.

    Raises
    ------
    StoreCorruptError
        If one of them is a symbolic link: the object would be written outside `root`.
    """
    for folder in reversed(Path(key).parents[:-1]):
        with contextlib.suppress(FileExistsError):
            inside(root, folder.as_posix()).mkdir()


def inside(store: Path, key: str) -> Path:
    """Return the path of an object of a store.

    Raises
    ------
    StoreCorruptError
        If it is outside the store, or behind a symbolic link: stores and records may come from other people.
    """
    pieces = key.split("/")
    if not {"", ".", ".."}.isdisjoint(pieces) or "\0" in key:
        raise StoreCorruptError(f"{store}: a record names {key[:80]!r}, outside the store. Do not use this store.")
    path = store
    for piece in pieces:
        path = path / piece
        if path.is_symlink():
            raise StoreCorruptError(f"{path}: {LINK}")
    return path


@contextmanager
def stale_as_missing() -> Iterator[None]:
    """Raise FileNotFoundError in place of ESTALE, in a ``with`` block.

    A network file system reports ESTALE for what another node has removed, while its own cache still has it.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), error.filename) from error


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file of a store for reading.

    Raises
    ------
    StoreCorruptError
        If it is a folder, a pipe or a device.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise StoreCorruptError(f"{path}: not a regular file. Remove it, or restore it from a copy.")
    return os.fdopen(handle, "rb")


def link(source: Path, target: Path) -> None:
    """Hard-link a file to a new name; of several processes one succeeds.

    Raises
    ------
    FileExistsError
        If another process was first.
    ConfigError
        If the file system has no hard links, or the kernel refuses one to this file.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            if _links_work(target.parent):
                raise ConfigError(
                    f"{source}: the kernel refuses a hard link to this file ({error.strerror}), as it does for files "
                    "of other users that one cannot write to (Linux: fs.protected_hardlinks), and for immutable ones; "
                    "give the command as the user who owns the file, or get write access to the whole folder"
                ) from error
            raise ConfigError(
                f"{target.parent}: this file system has no hard links ({error.strerror}), as exFAT and many SMB, FUSE "
                "and object-store mounts. Work on another disk, and copy the finished store here: reading needs none."
            ) from error
        raise


def refuse_without_links(path: Path) -> None:
    """Check before any work that a store can be written at `path`, by linking a test file.

    Raises
    ------
    ConfigError
        If the file system has no hard links, or it is the URL of an object store.
    """
    refuse_object_store(path)
    folder = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    with (
        contextlib.suppress(OSError),
        _probe(folder) as (probe, second),
    ):  # the write itself reports other errors
        link(probe, second)


def _links_work(folder: Path) -> bool:
    with contextlib.suppress(OSError), _probe(folder) as (probe, second):
        os.link(probe, second)
        return True
    return False


@contextmanager
def _probe(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield a new, empty file, and a further name for it; both are removed at the end."""
    names = folder / ".mgc.probe", folder / ".mgc.link"  # fixed, so that those of a killed process are removed
    with contextlib.ExitStack() as stack:
        for name in names:
            name.unlink(missing_ok=True)
            stack.callback(name.unlink, missing_ok=True)
        names[0].touch(exist_ok=False)
        yield names


def write_durable(path: Path, data: bytes) -> None:
    """Write a new file and fsync it; the name is durable after an fsync of the folder."""
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)  # write(2) and fsync(2) do not set it
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` in one step: after a crash it has its old content or the new, never a mixture."""
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


def hidden_path(path: Path) -> Path:
    """Return a new hidden name next to `path`, under which it is built."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")


def rename_durable(source: Path, target: Path) -> None:
    """Rename a file or folder, and make its new name durable."""
    source.rename(target)
    fsync_dir(target.parent)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a name under which to write a large file; at the end it becomes `path` in one step."""
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
    """Return the sha256 (hex) of a regular file."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(document: dict[str, Any]) -> bytes:
    """Return the JSON text of `document`, with the sha256 of its canonical form as last key."""
    digest = hashlib.sha256(canonical_json(document)).hexdigest()
    return (json.dumps({**document, "sha256": digest}, indent=1, ensure_ascii=False) + "\n").encode()


def unseal(path: Path) -> dict[str, Any]:
    """Read a file written by :func:`seal`.

    Raises
    ------
    StoreCorruptError
        If the text is not a JSON object, or does not match its own sha256.
    """
    with open_regular(path) as file:
        return unseal_bytes(file.read(), path)


def unseal_bytes(text: bytes, path: Path | str) -> dict[str, Any]:
    """Do the same with the content of a file; `path` is for the message."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise ValueError("not an object")
        digest = document.pop("sha256")
        is_whole = hashlib.sha256(canonical_json(document)).hexdigest() == digest
    except (ValueError, KeyError, RecursionError) as error:
        raise StoreCorruptError(f"{path}: not a sealed JSON document ({error}). Restore it from a copy.") from error
    if not is_whole:
        raise StoreCorruptError(f"{path}: does not match its own sha256; it was altered. Restore it from a copy.")
    return document


def canonical_json(data: Any) -> bytes:
    """Return the canonical bytes of a JSON value, over which all hashes are taken: sorted keys, no spaces, UTF-8."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def fingerprint(data: Any) -> str:
    """Return the sha256 (hex) of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(data)).hexdigest()
