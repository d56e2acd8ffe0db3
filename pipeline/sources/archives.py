"""Songs in a tar or zip archive, read without unpacking it: clusters limit the number of files.

The path of such a track leads through the archive, as through a folder: ``songs.tar/audios/a.mp3``.
"""

from __future__ import annotations

import functools
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from ...cache.errors import ClipError, ManifestError
from ...cache.format.schema import Reason
from ...cache.messages import counted

ARCHIVE_SUFFIXES = (".tar", ".zip")
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Suffixes of archives in which no file can be read without those before it."""

_BLOCK_BYTES = 2**20
_BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)
"""Exceptions that a damaged, encrypted or unknown member raises."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """Members of an archive: regular files by name; of several with one name the last, as if it had been unpacked.

    Attributes
    ----------
    notes : on members that are left out.
    packed : the open zip file, as opening it reads the list of all members again.
    """

    path: Path
    members: Mapping[str, tarfile.TarInfo | zipfile.ZipInfo]
    notes: list[str] = field(default_factory=list)
    packed: zipfile.ZipFile | None = None

    def copy(self, name: str, target: Path, max_bytes: int) -> None:
        """Write the content of a member to a file.

        Raises
        ------
        ClipError
            ``SRC_MISSING``, ``TOO_LARGE``, or ``BAD_HEADER`` if the member is damaged, encrypted or packed by an
            unknown method.
        """
        where = f"{name!r} in {self.path.name}"
        member = self.members.get(name)
        if member is None:
            raise ClipError(Reason.SRC_MISSING, f"not found: {where}")
        try:
            if isinstance(member, zipfile.ZipInfo):
                assert self.packed is not None
                with self.packed.open(member) as source:
                    n_bytes = _copy(source, target, max_bytes)
                size = member.file_size
            else:
                # A TarFile would read all headers again, so the content is taken from its place.
                with self.path.open("rb") as source:
                    source.seek(member.offset_data)
                    n_bytes = _copy(source, target, max_bytes, member.size)
                size = member.size
        except _BROKEN as error:
            raise ClipError(Reason.BAD_HEADER, f"cannot be read: {where}: {error}") from error
        if n_bytes > max_bytes:
            raise ClipError(Reason.TOO_LARGE, f"more than {max_bytes} bytes: {where}")
        if n_bytes != size:
            raise ClipError(Reason.BAD_HEADER, f"{n_bytes} of {size} bytes: {where}")


def _copy(source: IO[bytes], target: Path, max_bytes: int, size: int | None = None) -> int:
    """Copy up to `size` bytes, but at most one block more than `max_bytes`; return their number."""
    n_bytes = 0
    with target.open("wb") as file:
        while n_bytes <= max_bytes:
            block = source.read(_BLOCK_BYTES if size is None else min(_BLOCK_BYTES, size - n_bytes))
            if not block:
                break
            n_bytes += file.write(block)
    return n_bytes


def open_archive(path: Path) -> Archive:
    """Read the list of members, once per process and state of the file.

    Raises
    ------
    ManifestError
        If the file is not an archive, or a compressed one.
    """
    if path.name.lower().endswith(COMPRESSED_SUFFIXES):
        raise ManifestError(
            f"{path}: a compressed tar, in which no file can be read without those before it. Decompress it to a "
            "plain .tar, which is hardly larger, or make a .zip."
        )
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except _BROKEN as error:
        raise ManifestError(f"{path}: not a tar or zip archive: {error}") from error


@functools.lru_cache(maxsize=8)
def _read(path: Path, _size: int, _mtime_ns: int) -> Archive:
    notes: list[str] = []
    files: list[tuple[str, tarfile.TarInfo | zipfile.ZipInfo]]
    n_links, packed = 0, None
    if path.suffix.lower() == ".zip":
        packed = zipfile.ZipFile(path)  # open as long as the archive is cached
        files = [(info.filename, info) for info in packed.infolist() if not info.is_dir()]
    else:
        infos: list[tarfile.TarInfo] = []
        with tarfile.open(path, "r:") as opened:
            try:
                infos.extend(opened)
            except tarfile.TarError as error:
                notes.append(f"{path.name} is damaged or truncated after {counted(len(infos), 'member')}: {error}")
            if not notes and not _ends_with_a_mark(path, infos):
                notes.append(f"{path.name} has no end mark after {counted(len(infos), 'member')}: probably truncated")
        files = [(info.name, info) for info in infos if info.isreg() and not info.issparse()]
        n_links = sum(not info.isdir() for info in infos) - len(files)
    members = {name.removeprefix("./"): info for name, info in files}
    outside = [name for name in members if name.startswith("/") or ".." in name.split("/") or "\0" in name]
    for name in outside:
        del members[name]
    if n_links:
        notes.append(f"{path.name}: {counted(n_links, 'link or device', 'links and devices')} left out")
    if outside:
        notes.append(f"{path.name}: {counted(len(outside), 'member')} with a path outside the archive left out")
    return Archive(path=path, members=members, notes=notes, packed=packed)


def _ends_with_a_mark(path: Path, members: list[tarfile.TarInfo]) -> bool:
    """Return whether an empty block follows the last member; tarfile takes a truncated header for the end."""
    last = max(members, key=lambda member: member.offset, default=None)
    has_content = last is not None and (last.isreg() or last.type not in tarfile.SUPPORTED_TYPES)
    end = 0 if last is None else last.offset_data + (-(-last.size // 512) * 512 if has_content else 0)
    with path.open("rb") as file:
        file.seek(end)
        return file.read(512) == bytes(512)


def split_archive(root: Path, relative: str) -> tuple[str, str] | None:
    """Return the path of the archive that a path below `root` leads through, and the name of the member; or None."""
    names = relative.split("/")
    for i, name in enumerate(names[:-1], start=1):
        if name.lower().endswith(ARCHIVE_SUFFIXES):
            archive = "/".join(names[:i])
            if (root / archive).is_file():
                return archive, "/".join(names[i:])
    return None
